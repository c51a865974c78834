//! One member: its ports, and its process under a small shell that ends it when we end, however we end.
//!
//! The shell waits for the end of a pipe whose other end only we hold. The kernel brings that about even when we are
//! killed, and it means that etcd ends and its folder goes. So no test leaves an etcd behind.

use std::ffi::OsString;
use std::io::{BufRead as _, BufReader};
use std::net::Ipv4Addr;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::Options;
use crate::authority::Authority;
use crate::error::{Error, Result};
use crate::port;

const GUARD: &str = r#"
exec 3<&0 </dev/null
folder=$1; shift
etcd "$@" 3<&- >&2 &
server=$!
echo "$server"
{ read -r _ <&3 || { [ -z "$folder" ] || : >"$folder/orphaned"; kill -s KILL "$server"; }; } 2>/dev/null &
wait "$server"
echo "etcd ended with status $?" >&2
[ ! -e "$folder/orphaned" ] || rm -rf "$folder"
kill -s KILL 0
"#;

/// Longest wait for the end of a process that was told to end.
const STOP_SECONDS: u64 = 20;
const STEP: Duration = Duration::from_millis(10);
/// Longest wait for an answer about a member's health.
const HEALTH_SECONDS: u64 = 2;

/// Where a member listens.
#[derive(Debug)]
pub(super) struct Member {
    client: u16,
    peer: u16,
    /// Serves `/health` and `/metrics`, without TLS.
    metrics: u16,
}

impl Member {
    pub(super) fn new() -> Result<Self> {
        Ok(Self { client: port::free()?, peer: port::free()?, metrics: port::free()? })
    }

    pub(super) fn endpoint(&self) -> String {
        format!("127.0.0.1:{}", self.client)
    }

    pub(super) fn peer_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.peer)
    }

    pub(super) fn data_in(folder: &Path, number: usize) -> PathBuf {
        folder.join(name(number))
    }

    pub(super) fn log_in(folder: &Path, number: usize) -> PathBuf {
        folder.join(format!("{}.log", name(number)))
    }

    /// True when it knows a leader and answers a read that the majority has confirmed.
    pub(super) async fn is_healthy(&self) -> bool {
        let asked = tokio::time::timeout(Duration::from_secs(HEALTH_SECONDS), async {
            let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.metrics)).await?;
            stream.write_all(b"GET /health HTTP/1.0\r\n\r\n").await?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await?;
            std::io::Result::Ok(answer)
        });
        matches!(asked.await, Ok(Ok(answer)) if answer.contains(r#""health":"true""#))
    }
}

/// The name of a member.
pub(super) fn name(number: usize) -> String {
    format!("member-{number}")
}

/// The members as each other's command line names them.
pub(super) fn cluster(members: &[Member]) -> String {
    let named = members.iter().enumerate().map(|(number, member)| format!("{}={}", name(number), member.peer_url()));
    named.collect::<Vec<_>>().join(",")
}

/// The command line of a member.
pub(super) fn arguments(
    folder: &Path,
    number: usize,
    members: &[Member],
    options: &Options,
    authority: Option<&Authority>,
) -> Vec<OsString> {
    let own = &members[number];
    let client = format!("{}://{}", if authority.is_some() { "https" } else { "http" }, own.endpoint());
    // A member that is alone elects itself, and a short time makes its start quick; several must not take a busy
    // machine for a dead leader.
    let (heartbeat, election) = if members.len() == 1 { ("20", "200") } else { ("100", "1000") };
    let mut arguments: Vec<OsString> = Vec::new();
    let mut say = |flag: &str, value: OsString| arguments.extend([OsString::from(format!("--{flag}")), value]);
    say("name", name(number).into());
    say("data-dir", Member::data_in(folder, number).into());
    say("listen-client-urls", client.clone().into());
    say("advertise-client-urls", client.into());
    say("listen-peer-urls", own.peer_url().into());
    say("initial-advertise-peer-urls", own.peer_url().into());
    say("initial-cluster", cluster(members).into());
    say("listen-metrics-urls", format!("http://127.0.0.1:{}", own.metrics).into());
    say("heartbeat-interval", heartbeat.into());
    say("election-timeout", election.into());
    say("bcrypt-cost", "4".into());
    say("logger", "zap".into());
    if let Some(lifetime) = options.token_lifetime {
        say("auth-token-ttl", lifetime.as_secs().max(1).to_string().into());
    }
    if let Some(bytes) = options.quota_bytes {
        say("quota-backend-bytes", bytes.to_string().into());
    }
    if let Some(authority) = authority {
        say("cert-file", authority.certificate_file().into());
        say("key-file", authority.key_file().into());
    }
    arguments
}

#[derive(Debug)]
pub(super) struct Process {
    log: PathBuf,
    child: Child,
    server: u32,
    /// Held: its end tells the shell that we are gone.
    _pipe: Option<ChildStdin>,
}

impl Process {
    /// Starts etcd; does not wait until it is ready. `folder` is removed when we are gone.
    pub(super) fn start(log: &Path, folder: Option<&Path>, arguments: &[OsString]) -> Result<Self> {
        let file = std::fs::File::options().create(true).append(true).open(log).map_err(Error::file("open", log))?;
        let mut child = Command::new("sh")
            .args(["-c", GUARD, "postroom-testbed-etcd"])
            .arg(folder.unwrap_or(Path::new("")))
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(file)
            // A group of its own: Ctrl-C in a terminal reaches us, and we stop etcd in the right order.
            .process_group(0)
            .spawn()
            .map_err(Error::system("start etcd"))?;
        let pipe = child.stdin.take();
        let mut line = String::new();
        if let Some(said) = child.stdout.take() {
            BufReader::new(said).read_line(&mut line).map_err(Error::system("start etcd"))?;
        }
        let server = line.trim().parse().map_err(|_| error(log, "did not start".to_owned()))?;
        Ok(Self { log: log.to_owned(), child, server, _pipe: pipe })
    }

    /// Fails when the process has ended.
    pub(super) fn check(&mut self) -> Result<()> {
        match self.runs() {
            true => Ok(()),
            false => Err(error(&self.log, "ended".to_owned())),
        }
    }

    pub(super) fn signal(&self, signal: &str) -> Result<()> {
        let mut kill = Command::new("sh");
        kill.args(["-c", r#"kill -s "$1" "$2""#, "sh", signal, &self.server.to_string()]).stderr(Stdio::null());
        let status = kill.status().map_err(Error::system(format!("send {signal} to etcd")))?;
        match status.success() {
            true => Ok(()),
            false => Err(error(&self.log, format!("does not run; no {signal} for it"))),
        }
    }

    /// Sends `signal` and waits for the end.
    pub(super) async fn end(mut self, signal: &str) -> Result<()> {
        if self.runs() {
            // It may end by itself meanwhile.
            let _ = self.signal(signal);
        }
        for _ in 0..(STOP_SECONDS * 100) {
            if !self.runs() {
                return Ok(());
            }
            tokio::time::sleep(STEP).await;
        }
        Err(error(&self.log, format!("did not end within {STOP_SECONDS} s of {signal}")))
    }

    fn runs(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.runs() {
            return;
        }
        let _ = self.signal("KILL");
        for _ in 0..(STOP_SECONDS * 100) {
            if !self.runs() {
                return;
            }
            std::thread::sleep(STEP);
        }
        tracing::warn!(log = %self.log.display(), "etcd did not end in time");
    }
}

/// An error with the last lines of what a member said.
pub(super) fn error(log: &Path, what: String) -> Error {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    let mut log = lines[lines.len().saturating_sub(20)..].join("\n");
    if log.contains("etcd: not found") {
        log.push_str("\ninstall it: apt-get install etcd-server etcd-client");
    }
    Error::Etcd { what, log }
}

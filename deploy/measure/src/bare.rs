//! The physical limit: one connection a mailbox, one FETCH of everything, and nothing kept.
//!
//! It runs in a process of its own, so that its use of the machine is measured as that of the others.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;

use anyhow::{Context as _, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use postroom_testbed::Testbed;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::figures::Lap;
use crate::process;
use crate::reading::Stage;

/// Holds the password, which must not stand among the arguments.
const PASSWORD: &str = "POSTROOM_BENCH_PASSWORD";
/// Bytes asked for at once.
const BUFFER: usize = 64 * 1024;

/// `bare`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[arg(long)]
    address: SocketAddr,
    #[arg(long)]
    ca_file: PathBuf,
    /// Once for each mailbox.
    #[arg(long)]
    user: Vec<String>,
}

/// Starts the reader and measures it from its start to its end.
pub(crate) async fn measure(stage: &Stage) -> anyhow::Result<Lap> {
    let mut command = Command::new(std::env::current_exe().context("the path of this program is not known")?);
    command.arg("bare").stdin(Stdio::null());
    arguments(&mut command, &stage.testbed, &stage.mailboxes);
    let finished = process::measure("the bare reader", command).await?;
    let read: Vec<u64> = finished.output.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    ensure!(
        read == [stage.messages, stage.bytes],
        "the bare reader says {:?} instead of {} messages of {} bytes",
        finished.output.trim(),
        stage.messages,
        stage.bytes
    );
    Ok(Lap { seconds: finished.seconds, messages: stage.messages, usage: finished.usage })
}

/// Which mailboxes it is to read, and how.
pub(crate) fn arguments(command: &mut Command, testbed: &Testbed, mailboxes: &[String]) {
    command
        .args(["--address", &testbed.dovecot.imap_addr().to_string()])
        .arg("--ca-file")
        .arg(testbed.ca_file())
        .args(mailboxes.iter().flat_map(|mailbox| ["--user", mailbox]))
        .env(PASSWORD, testbed.dovecot.password());
}

/// Begins IDLE in every mailbox, says so, and waits until standard input ends.
pub(crate) async fn idle(args: Args) -> anyhow::Result<()> {
    let password = std::env::var(PASSWORD).context("the password is not set")?;
    let connector = connector(&args)?;
    let mut idling = Vec::new();
    for user in &args.user {
        let mut connection = Connection::signed_in(&connector, args.address, user, &password).await?;
        connection.idle().await?;
        idling.push(connection);
    }
    crate::table::print("ready\n")?;
    // Nothing else runs meanwhile that could be held up.
    std::io::Read::read_to_end(&mut std::io::stdin(), &mut Vec::new())?;
    Ok(())
}

/// Reads the mailboxes, all at once, and prints the number of messages and of their bytes.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let password = std::env::var(PASSWORD).context("the password is not set")?;
    let connector = connector(&args)?;
    let each = args.user.iter().map(|user| read(&connector, args.address, user, &password));
    let read = futures::future::try_join_all(each).await?;
    let (messages, bytes) = read.iter().fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
    crate::table::print(&format!("{messages} {bytes}\n"))
}

async fn read(connector: &TlsConnector, address: SocketAddr, user: &str, password: &str) -> anyhow::Result<(u64, u64)> {
    let mut connection = Connection::signed_in(connector, address, user, password).await?;
    connection.run("UID FETCH 1:* (UID FLAGS INTERNALDATE BODY.PEEK[])").await
}

fn connector(args: &Args) -> anyhow::Result<TlsConnector> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&args.ca_file).context("the CA file cannot be read")?)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

struct Connection {
    stream: TlsStream<TcpStream>,
    buffer: Vec<u8>,
    tag: u32,
}

impl Connection {
    async fn open(connector: &TlsConnector, address: SocketAddr) -> anyhow::Result<Self> {
        let socket = TcpStream::connect(address).await?;
        socket.set_nodelay(true)?;
        let stream = connector.connect(ServerName::IpAddress(address.ip().into()), socket).await?;
        Ok(Self { stream, buffer: vec![0; BUFFER], tag: 0 })
    }

    /// With its INBOX selected.
    async fn signed_in(
        connector: &TlsConnector,
        address: SocketAddr,
        user: &str,
        password: &str,
    ) -> anyhow::Result<Self> {
        let mut connection = Self::open(connector, address).await?;
        let response = STANDARD.encode(format!("\0{user}\0{password}"));
        connection.run(&format!("AUTHENTICATE PLAIN {response}")).await?;
        connection.run("SELECT INBOX").await?;
        Ok(connection)
    }

    /// Begins IDLE (RFC 2177), and needs no buffer from now on.
    async fn idle(&mut self) -> anyhow::Result<()> {
        self.stream.write_all(b"B0 IDLE\r\n").await?;
        self.stream.flush().await?;
        let read = self.stream.read(&mut self.buffer).await?;
        ensure!(self.buffer[..read].starts_with(b"+"), "the server does not idle");
        self.buffer = Vec::new();
        Ok(())
    }

    /// Runs a command to its tagged OK; how many FETCH responses and bytes of literals came.
    async fn run(&mut self, command: &str) -> anyhow::Result<(u64, u64)> {
        self.tag += 1;
        let tag = format!("B{}", self.tag);
        self.stream.write_all(format!("{tag} {command}\r\n").as_bytes()).await?;
        self.stream.flush().await?;
        let mut scan = Scan { tag: format!("{tag} "), ..Scan::default() };
        while scan.status.is_none() {
            let read = self.stream.read(&mut self.buffer).await?;
            ensure!(read > 0, "the server has hung up");
            scan.take(&self.buffer[..read]);
        }
        match scan.status {
            Some(status) if status.starts_with("OK") => Ok((scan.messages, scan.bytes)),
            status => bail!("the server answered {}", status.unwrap_or_default()),
        }
    }
}

/// Understands only where lines and literals end, which lines are FETCH responses, and which one is tagged.
#[derive(Default)]
struct Scan {
    tag: String,
    /// A line whose end has not come yet.
    line: Vec<u8>,
    /// Bytes of the literal that are still to come.
    literal: usize,
    messages: u64,
    bytes: u64,
    /// The tagged answer behind the tag.
    status: Option<String>,
}

impl Scan {
    fn take(&mut self, mut input: &[u8]) {
        while !input.is_empty() {
            let skipped = self.literal.min(input.len());
            (self.literal, input) = (self.literal - skipped, &input[skipped..]);
            if input.is_empty() {
                return;
            }
            let Some(end) = input.iter().position(|byte| *byte == b'\n') else {
                self.line.extend_from_slice(input);
                return;
            };
            self.line.extend_from_slice(&input[..end]);
            input = &input[end + 1..];
            self.end_line();
        }
    }

    fn end_line(&mut self) {
        let line = self.line.trim_ascii_end();
        if line.starts_with(b"* ") {
            let word = line.split(|byte| *byte == b' ').nth(2);
            self.messages += u64::from(word == Some(b"FETCH"));
        } else if let Some(status) = line.strip_prefix(self.tag.as_bytes()) {
            self.status = Some(String::from_utf8_lossy(status).into_owned());
        }
        self.literal = literal(line).unwrap_or(0);
        self.bytes += self.literal as u64;
        self.line.clear();
    }
}

/// The length in `{n}` at the end of a line.
fn literal(line: &[u8]) -> Option<usize> {
    let inner = line.strip_suffix(b"}")?;
    let start = inner.iter().rposition(|byte| *byte == b'{')?;
    std::str::from_utf8(&inner[start + 1..]).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_do_not_matter() {
        let body = "Subject: a\r\n\r\n* 9 FETCH\r\nB7 OK not yet\r\n";
        let one = format!("* 1 FETCH (UID 5 FLAGS () BODY[] {{{}}}\r\n{body})\r\n", body.len());
        let input = format!("{one}* 3 EXISTS\r\n{one}* 3 FETCH (UID 7 FLAGS () BODY[] \"\")\r\nB7 OK done\r\n");
        for piece in 1..input.len() {
            let mut scan = Scan { tag: "B7 ".into(), ..Scan::default() };
            input.as_bytes().chunks(piece).for_each(|part| scan.take(part));
            assert_eq!((scan.messages, scan.bytes), (3, 2 * body.len() as u64), "pieces of {piece}");
            assert_eq!(scan.status.as_deref(), Some("OK done"), "pieces of {piece}");
        }
    }
}

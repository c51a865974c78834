//! The process: Dovecot in the foreground under a small shell that ends it when we end, however we end.
//!
//! The shell reads from a pipe whose other end only we hold. A line names the signal to send; the end of the pipe,
//! which the kernel brings about even when we are killed, means TERM, and then that the folder goes too. So no test leaves a Dovecot behind. Login
//! processes outlive their master as long as they have clients; the shell ends them with its whole process group.

use std::{
    io::Write,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    time::Duration,
};

use crate::error::{Error, Result};

const GUARD: &str = r#"
exec 3<&0 </dev/null
ulimit -n 65536 2>/dev/null || ulimit -n "$(ulimit -Hn)"
PATH=$PATH:/usr/sbin:/sbin
dovecot -F -c "$1/dovecot.conf" 3<&- &
master=$!
{ read -r signal <&3 || { signal=TERM; : >"$1/orphaned"; }; kill -s "$signal" "$master"; } 2>/dev/null &
wait "$master"
echo "dovecot ended with status $?" >&2
[ ! -e "$1/orphaned" ] || rm -rf "$1"
kill -s KILL 0
"#;

/// Longest wait for the end of a process that was told to end.
const STOP_SECONDS: u64 = 10;
const STEP: Duration = Duration::from_millis(10);

#[derive(Debug)]
pub(super) struct Process {
    dir: PathBuf,
    child: Child,
    /// Taken when it has been told to stop.
    signal: Option<ChildStdin>,
}

impl Process {
    /// Starts Dovecot with the configuration in `dir`; does not wait until it is ready.
    pub(super) fn start(dir: &Path) -> Result<Self> {
        // A socket that a former life left behind makes one login in many wait for seconds.
        let base = dir.join("base");
        if base.exists() {
            std::fs::remove_dir_all(&base).map_err(Error::file("remove", &base))?;
        }
        let said = dir.join("start.log");
        let said_file = std::fs::File::create(&said).map_err(Error::file("create", &said))?;
        let log = dir.join("dovecot.log");
        std::fs::File::create(&log).map_err(Error::file("create", &log))?;
        let mut child = Command::new("sh")
            .args(["-c", GUARD, "postroom-testbed-dovecot"])
            .arg(dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(said_file)
            // A group of its own: Ctrl-C in a terminal reaches us, and we stop Dovecot in the right order.
            .process_group(0)
            .spawn()
            .map_err(Error::system("start dovecot"))?;
        let signal = child.stdin.take();
        Ok(Self { dir: dir.to_owned(), child, signal })
    }

    /// Fails when the process has ended.
    pub(super) fn check(&mut self) -> Result<()> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(self.error(format!("ended: {status}"))),
            Err(source) => Err(Error::System { action: "look after dovecot".to_owned(), source }),
        }
    }

    /// Sends `signal` and waits for the end.
    pub(super) async fn stop(mut self, signal: &str) -> Result<()> {
        self.tell(signal);
        let ended = tokio::time::timeout(Duration::from_secs(STOP_SECONDS), async {
            while matches!(self.child.try_wait(), Ok(None)) {
                tokio::time::sleep(STEP).await;
            }
        });
        match ended.await {
            Ok(()) => Ok(()),
            Err(_) => Err(self.error(format!("did not end within {STOP_SECONDS} s of {signal}"))),
        }
    }

    /// An error with the last lines of what Dovecot said.
    pub(super) fn error(&self, what: String) -> Error {
        let mut log = String::new();
        for name in ["start.log", "dovecot.log"] {
            let text = std::fs::read(self.dir.join(name)).unwrap_or_default();
            let text = String::from_utf8_lossy(&text);
            let lines: Vec<&str> = text.lines().collect();
            for line in &lines[lines.len().saturating_sub(20)..] {
                log.push_str(line);
                log.push('\n');
            }
        }
        if log.contains("dovecot: not found") {
            log.push_str("install it: apt-get install dovecot-core dovecot-imapd dovecot-lmtpd\n");
        }
        Error::Dovecot { what, log }
    }

    fn tell(&mut self, signal: &str) {
        if let Some(mut pipe) = self.signal.take() {
            // When the shell is gone there is nobody to tell.
            let _ = writeln!(pipe, "{signal}");
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.tell("TERM");
        for _ in 0..(STOP_SECONDS * 100) {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(STEP);
        }
        tracing::warn!(dir = %self.dir.display(), "dovecot did not end in time");
    }
}

//! A mail server in the foreground under a small shell that ends it when we end, however we end.
//!
//! The shell reads from a pipe whose other end only we hold. A line names the signal to send; the end of the pipe,
//! which the kernel brings about even when we are killed, means TERM, and then that the folder goes too. So no test
//! leaves a server behind. Processes that serve a client may outlive the one that started them; the shell ends them
//! with its whole process group, and with that of the server where it has one of its own.

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
(eval "exec $2") 3<&- &
master=$!
{ read -r signal <&3 || { signal=TERM; : >"$1/orphaned"; }; kill -s "$signal" "$master"; } 2>/dev/null &
wait "$master"
echo "it ended with status $?" >&2
kill -s KILL "-$master" 2>/dev/null
[ ! -e "$1/orphaned" ] || rm -rf "$1"
kill -s KILL 0
"#;

/// Longest wait for a server to answer after a start. Generous: the machine may be busy with other tests.
pub(crate) const START_SECONDS: u64 = 120;
/// Longest wait for the end of a process that was told to end.
const STOP_SECONDS: u64 = 10;
const STEP: Duration = Duration::from_millis(10);

/// What is to be run.
#[derive(Debug)]
pub(crate) struct Program {
    /// What errors call it.
    pub(crate) name: &'static str,
    /// Its command line for a shell, in the foreground; `$1` is its folder.
    pub(crate) command: &'static str,
    /// The file in its folder that it logs to.
    pub(crate) log: &'static str,
    /// The Debian packages that it comes with.
    pub(crate) packages: &'static str,
}

/// What the shell itself, and the server before it has its log, have to say.
const SAID: &str = "start.log";

#[derive(Debug)]
pub(crate) struct Process {
    program: &'static Program,
    dir: PathBuf,
    child: Child,
    /// Taken when it has been told to stop.
    signal: Option<ChildStdin>,
}

impl Process {
    /// Starts `program` in its folder, with an empty log; does not wait until it is ready.
    pub(crate) fn start(program: &'static Program, dir: &Path) -> Result<Self> {
        let said = dir.join(SAID);
        let said_file = std::fs::File::create(&said).map_err(Error::file("create", &said))?;
        let log = dir.join(program.log);
        std::fs::File::create(&log).map_err(Error::file("create", &log))?;
        let mut child = Command::new("sh")
            .args(["-c", GUARD, &format!("postroom-testbed-{}", program.name)])
            .arg(dir)
            .arg(program.command)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(said_file)
            // A group of its own: Ctrl-C in a terminal reaches us, and we stop servers in the right order.
            .process_group(0)
            .spawn()
            .map_err(Error::system(format!("start {}", program.name)))?;
        let signal = child.stdin.take();
        Ok(Self { program, dir: dir.to_owned(), child, signal })
    }

    /// Fails when the process has ended.
    pub(crate) fn check(&mut self) -> Result<()> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(self.error(format!("ended: {status}"))),
            Err(source) => Err(Error::System { action: format!("look after {}", self.program.name), source }),
        }
    }

    /// Waits until the server answers, as `answers` finds out, and fails when it ends before or takes too long.
    pub(crate) async fn until(mut self, answers: impl AsyncFn() -> bool) -> Result<Self> {
        let ready = tokio::time::timeout(Duration::from_secs(START_SECONDS), async {
            loop {
                self.check()?;
                if answers().await {
                    return Ok(());
                }
                tokio::time::sleep(STEP * 2).await;
            }
        });
        match ready.await {
            Ok(Ok(())) => Ok(self),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(self.error(format!("did not answer within {START_SECONDS} s"))),
        }
    }

    /// Sends `signal` and waits for the end.
    pub(crate) async fn stop(mut self, signal: &str) -> Result<()> {
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

    /// An error with the last lines of what the server said.
    pub(crate) fn error(&self, what: String) -> Error {
        let mut log = String::new();
        for name in [SAID, self.program.log] {
            let text = std::fs::read(self.dir.join(name)).unwrap_or_default();
            let text = String::from_utf8_lossy(&text);
            let lines: Vec<&str> = text.lines().collect();
            for line in &lines[lines.len().saturating_sub(20)..] {
                log.push_str(line);
                log.push('\n');
            }
        }
        if log.contains(": not found") {
            log.push_str(&format!("install it: apt-get install {}\n", self.program.packages));
        }
        Error::Server { server: self.program.name, what, log }
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
        tracing::warn!(server = self.program.name, dir = %self.dir.display(), "it did not end in time");
    }
}

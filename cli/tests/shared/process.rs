//! Real processes, each with its log.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::harness::{PATIENCE, eventually};

/// The binary of this name, beside the `postroom` that is tested.
pub(crate) fn binary(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_postroom")).with_file_name(name);
    assert!(path.exists(), "{} is missing: `cargo test --workspace` builds it", path.display());
    path
}

/// Runs a binary that ends by itself, in an environment without settings.
pub(crate) fn run(name: &str, args: &[&str], variables: &[(&str, &str)]) -> Output {
    Command::new(binary(name)).args(args).envs(variables.iter().copied()).stdin(Stdio::null()).output().unwrap()
}

/// A running process, killed when it is dropped.
pub(crate) struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a binary. `log`: file in `folder` that it writes to, anew.
    pub(crate) fn start(name: &str, folder: &Path, log: &str, args: &[&str]) -> Self {
        let log = folder.join(log);
        let out = File::create(&log).unwrap();
        let child = Command::new(binary(name))
            .args(args)
            .stdin(Stdio::null())
            .stdout(out.try_clone().unwrap())
            .stderr(out)
            .spawn()
            .unwrap();
        Self { child, log }
    }

    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap()).into_owned()
    }

    /// Waits until it has logged this.
    pub(crate) async fn says(&mut self, text: &str) {
        eventually(text, || {
            let ended = self.child.try_wait().unwrap();
            let log = self.log();
            assert!(ended.is_none() || log.contains(text), "it has ended with {ended:?}: {log}");
            async move { log.contains(text) }
        })
        .await;
    }

    /// Tells it to stop, as a service manager does.
    pub(crate) fn terminate(&self) {
        self.signal("TERM");
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([&format!("-{signal}"), &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// kill -9.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits for its end.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < until, "it has not ended: {}", self.log());
            sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended before.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An address on this machine that nobody listens on, and that nobody takes while a server restarts.
pub(crate) fn free_address() -> String {
    format!("127.0.0.1:{}", postroom_testbed::port::free().unwrap())
}

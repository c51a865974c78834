//! Real processes: a control plane and workers, each with its log.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use postroom_cli::client::Client;
use postroom_cli::context::Context;
use postroom_proto::v1;
use tokio::time::{Instant, sleep};

use crate::harness::{PATIENCE, Stage, eventually};

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

/// A control plane, and where it is.
pub(crate) struct ControlPlane {
    pub(crate) process: Process,
    pub(crate) context: Context,
    folder: PathBuf,
}

impl ControlPlane {
    /// Starts over the stage's data folder. `ttl`: of leases, at least 5 s.
    pub(crate) async fn start(stage: &Stage, listen: &str, ttl: &str) -> Self {
        let (folder, data) = (stage.folder.path(), stage.data());
        let data_text = data.to_str().unwrap();
        let args = [
            "--data",
            data_text,
            "--listen",
            listen,
            "--lease-heartbeat",
            "300ms",
            "--lease-leader-ttl",
            "1s",
            "--lease-margin",
            "500ms",
            "--lease-ttl",
            ttl,
        ];
        let mut process = Process::start("postroom-control-plane", folder, "control-plane.log", &args);
        process.says("the control plane is up").await;
        let context = Context::read(&data).unwrap();
        Self { process, context, folder: folder.into() }
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(&self.context, false).unwrap()
    }

    /// Applies a model file.
    pub(crate) async fn apply(&self, model: &str) {
        let model = postroom_cli::model_file::read(model, &self.folder, &|_| None).unwrap();
        self.client().apply_model(model).await.unwrap();
    }

    /// Starts a worker of this name, whose log has the name `log`.
    pub(crate) fn worker_logging(&self, name: &str, log: &str, args: &[&str]) -> Process {
        let token = self.folder.join("data/worker.token");
        let token = token.to_str().unwrap();
        let all = [&["--control-plane", &self.context.endpoint, "--token-file", token, "--name", name], args].concat();
        Process::start("postroom-worker", &self.folder, log, &all)
    }

    /// Starts a worker of this name.
    pub(crate) fn worker(&self, name: &str, args: &[&str]) -> Process {
        self.worker_logging(name, &format!("{name}.log"), args)
    }

    /// Waits until every mailbox is read and at rest, all by this worker. The mailboxes then.
    pub(crate) async fn read_by(&self, worker: &str) -> Vec<v1::Mailbox> {
        let client = self.client();
        let idle = |mailbox: &v1::Mailbox| {
            mailbox.state() == v1::MailboxState::Idle
                && mailbox.holder.as_ref().is_some_and(|holder| holder.worker == worker)
        };
        let until = Instant::now() + PATIENCE;
        loop {
            let mailboxes = client.list_mailboxes().await.unwrap().mailboxes;
            if !mailboxes.is_empty() && mailboxes.iter().all(idle) {
                return mailboxes;
            }
            assert!(Instant::now() < until, "not read by {worker}: {mailboxes:#?}");
            sleep(Duration::from_millis(50)).await;
        }
    }
}

/// An address on this machine that nobody listens on.
pub(crate) fn free_address() -> String {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

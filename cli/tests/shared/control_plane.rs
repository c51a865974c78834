//! A control plane that runs by itself, and workers that call it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use postroom_cli::client::Client;
use postroom_cli::context::Context;
use postroom_proto::v1;
use tokio::time::{Instant, sleep};

use crate::harness::{PATIENCE, Stage};
use crate::process::Process;

/// A control plane, and where it is.
pub(crate) struct ControlPlane {
    pub(crate) process: Process,
    pub(crate) context: Context,
    folder: PathBuf,
    token: PathBuf,
}

impl ControlPlane {
    /// Starts over the stage's data folder. `ttl`: of leases, at least 5 s.
    pub(crate) async fn start(stage: &Stage, listen: &str, ttl: &str) -> Self {
        let terms = ["--lease-heartbeat=300ms", "--lease-leader-ttl=1s", "--lease-margin=500ms"];
        let ttl = format!("--lease-ttl={ttl}");
        let args = [&["--listen", listen, &ttl], &terms[..]].concat();
        Self::launch(stage.folder.path(), &stage.data(), "control-plane.log", &args).await
    }

    /// Starts over a data folder, and waits until it serves. `log`: file in `folder` that it writes to, anew.
    pub(crate) async fn launch(folder: &Path, data: &Path, log: &str, args: &[&str]) -> Self {
        let all = [&["--data", data.to_str().unwrap()], args].concat();
        let mut process = Process::start("postroom-control-plane", folder, log, &all);
        process.says("the control plane is up").await;
        let context = Context::read(data).unwrap();
        Self { process, context, folder: folder.into(), token: data.join("worker.token") }
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
        self.worker_calling(&self.context.endpoint, name, log, args)
    }

    /// The same, calling this control plane by another endpoint.
    pub(crate) fn worker_calling(&self, endpoint: &str, name: &str, log: &str, args: &[&str]) -> Process {
        let token = self.token.to_str().unwrap();
        let all = [&["--control-plane", endpoint, "--token-file", token, "--name", name], args].concat();
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

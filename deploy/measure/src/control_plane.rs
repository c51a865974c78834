//! The control plane that is measured: a process of its own, and the store it was told to use.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use clap::ValueEnum;
use postroom_cli::client::Client;
use postroom_cli::context::{Context, FILE_NAME};
use postroom_testbed::Etcd;
use serde::Serialize;
use tokio::process::{Child, Command};
use tokio::time::Instant;

use crate::process::{self, Usage};

/// Longest wait for the process to serve.
const START: Duration = Duration::from_secs(60);
/// Deadline of a call: a model of many mailboxes takes its time.
const CALL: Duration = Duration::from_secs(300);

/// Where definitions, assignments and sessions are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Store {
    Sqlite,
    Etcd,
}

/// A running control plane. Killed when it is dropped.
pub(crate) struct ControlPlane {
    program: PathBuf,
    child: Child,
    data: PathBuf,
    log: PathBuf,
    settings: PathBuf,
    // It goes with the process that uses it.
    _etcd: Option<Etcd>,
}

impl ControlPlane {
    /// Starts one on a fresh data folder below `dir` and waits until it answers.
    pub(crate) async fn start(
        program: &Path,
        dir: &Path,
        store: Store,
        heartbeat: Duration,
        filter: &str,
    ) -> anyhow::Result<Self> {
        let (data, log, settings) = (dir.join("data"), dir.join("log"), dir.join("control-plane.toml"));
        let etcd = match store {
            Store::Etcd => Some(Etcd::single().await?),
            Store::Sqlite => None,
        };
        let store = etcd.as_ref().map(|etcd| format!("store = {:?}\n", etcd.url("/postroom")));
        let written = format!(
            "data = {data:?}\nlisten = \"127.0.0.1:0\"\n{}[lease]\nheartbeat = \"{}ms\"\n[log]\nfilter = {filter:?}\n",
            store.unwrap_or_default(),
            heartbeat.as_millis(),
        );
        std::fs::write(&settings, written)?;
        let child = spawn(program, &settings, &log)?;
        let mut started = Self { program: program.to_owned(), child, data, log, settings, _etcd: etcd };
        started.wait().await.with_context(|| started.said())?;
        Ok(started)
    }

    /// Kills the process and starts another one on the same data folder.
    pub(crate) async fn restart(&mut self) -> anyhow::Result<()> {
        self.child.kill().await?;
        self.child = spawn(&self.program, &self.settings, &self.log)?;
        self.wait().await.with_context(|| self.said())
    }

    async fn wait(&mut self) -> anyhow::Result<()> {
        let begun = Instant::now();
        while !self.data.join(FILE_NAME).exists() || self.client()?.get_rollout().await.is_err() {
            if let Some(status) = self.child.try_wait()? {
                bail!("the control plane has ended: {status}");
            }
            ensure!(begun.elapsed() < START, "the control plane does not serve within {} s", START.as_secs());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Its data folder.
    pub(crate) fn data(&self) -> &Path {
        &self.data
    }

    /// Its operator.
    pub(crate) fn client(&self) -> anyhow::Result<Client> {
        Ok(Client::new(&self.context()?, false)?.with_deadline(CALL))
    }

    /// Where it listens.
    pub(crate) fn endpoint(&self) -> anyhow::Result<String> {
        Ok(self.context()?.endpoint)
    }

    /// The token of workers.
    pub(crate) fn worker_token(&self) -> anyhow::Result<String> {
        let file = self.data.join("worker.token");
        Ok(std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?.trim().to_owned())
    }

    /// Its number.
    pub(crate) fn pid(&self) -> anyhow::Result<u32> {
        self.child.id().with_context(|| format!("the control plane has ended; {}", self.said()))
    }

    /// What it has used so far.
    pub(crate) fn usage(&self) -> anyhow::Result<Usage> {
        process::usage(self.pid()?)
    }

    /// Counts the largest resident memory from now on.
    pub(crate) fn forget_peak(&self) -> anyhow::Result<()> {
        process::forget_peak(self.pid()?)
    }

    /// Resident memory now.
    pub(crate) fn rss_bytes(&self) -> anyhow::Result<u64> {
        Ok(process::rss(self.pid()?))
    }

    /// All that it logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn context(&self) -> anyhow::Result<Context> {
        Context::read(&self.data).map_err(|error| anyhow::anyhow!("{error:?}"))
    }

    fn said(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        format!("the control plane's log ends with: {}", lines[lines.len().saturating_sub(20)..].join("\n"))
    }
}

fn spawn(program: &Path, settings: &Path, log: &Path) -> anyhow::Result<Child> {
    Command::new(program)
        .arg("--config")
        .arg(settings)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(std::fs::File::options().create(true).append(true).open(log)?)
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("{} does not start", program.display()))
}

/// Where the binary is when nobody says: beside this one.
pub(crate) fn beside_this() -> anyhow::Result<PathBuf> {
    let this = std::env::current_exe().context("the path of this program is not known")?;
    let program = this.with_file_name("postroom-control-plane");
    ensure!(
        program.exists(),
        "{} is missing: build postroom-control-plane too, or name it by --control-plane",
        program.display()
    );
    Ok(program)
}

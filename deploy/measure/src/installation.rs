//! A control plane and a worker, each a process of its own, that read mailboxes in which nothing happens.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use postroom_cli::client::Client;
use postroom_cli::model_file;
use postroom_proto::v1::MailboxState;
use postroom_testbed::Testbed;
use tokio::process::{Child, Command};
use tokio::time::Instant;

use crate::control_plane::{self, ControlPlane, Store};
use crate::definition;

/// Longest wait until every mailbox is connected and waits.
const START: Duration = Duration::from_secs(300);
const HEARTBEAT: Duration = Duration::from_secs(2);

/// The binaries that are measured.
#[derive(Debug, clap::Args)]
pub(crate) struct Programs {
    /// The postroom-control-plane binary [default: the one beside this program].
    #[arg(long, value_name = "FILE")]
    control_plane: Option<PathBuf>,
    /// The postroom-worker binary [default: the one beside this program].
    #[arg(long, value_name = "FILE")]
    worker: Option<PathBuf>,
}

/// A running installation. Both processes are killed when it is dropped.
pub(crate) struct Installation {
    control_plane: ControlPlane,
    worker: Child,
    log: PathBuf,
}

impl Installation {
    /// Starts it on fresh folders below `dir` and waits until it reads nothing, as it has no mailboxes yet.
    pub(crate) async fn start(programs: &Programs, dir: &Path) -> anyhow::Result<Self> {
        let program = match &programs.control_plane {
            Some(program) => program.clone(),
            None => control_plane::beside_this()?,
        };
        let control_plane = ControlPlane::start(&program, dir, Store::Sqlite, HEARTBEAT, "info").await?;
        let program = match &programs.worker {
            Some(program) => program.clone(),
            None => std::env::current_exe()
                .context("the path of this program is not known")?
                .with_file_name("postroom-worker"),
        };
        ensure!(
            program.exists(),
            "{} is missing: build postroom-worker too, or name it by --worker",
            program.display()
        );
        let (settings, log) = (dir.join("worker.toml"), dir.join("worker.log"));
        // Without a ramp: how gently it begins is not what is measured.
        let written = format!(
            "name = \"measured\"\ncontrol-plane = [{:?}]\ntoken-file = {:?}\n\
             [start]\nburst = 100\nrate = 200\nper-host = 50\nper-tenant = 50\n",
            control_plane.endpoint()?,
            control_plane.data().join("worker.token"),
        );
        std::fs::write(&settings, written)?;
        let worker = Command::new(&program)
            .arg("--config")
            .arg(&settings)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&log)?)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("{} does not start", program.display()))?;
        let installation = Self { control_plane, worker, log };
        let client = installation.client()?;
        let begun = Instant::now();
        while client.list_workers().await?.workers.is_empty() {
            ensure!(begun.elapsed() < START, "the worker does not come: {}", installation.said());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(installation)
    }

    /// Lets it read `mailboxes`, and waits until each is connected and waits for mail.
    pub(crate) async fn read(&self, testbed: &Testbed, mailboxes: &[String]) -> anyhow::Result<()> {
        let client = self.client()?;
        self.apply(&definition::model(testbed, mailboxes, definition::USUAL)).await?;
        let begun = Instant::now();
        loop {
            let seen = client.list_mailboxes().await?.mailboxes;
            let idle = seen.iter().filter(|mailbox| mailbox.state() == MailboxState::Idle).count();
            if idle == mailboxes.len() {
                return Ok(());
            }
            let failing = seen.iter().find(|mailbox| mailbox.state() == MailboxState::Failing);
            ensure!(
                begun.elapsed() < START,
                "{idle} of {} mailboxes wait for mail; {failing:?}; {}",
                mailboxes.len(),
                self.said()
            );
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    }

    /// Applies a model.
    pub(crate) async fn apply(&self, text: &str) -> anyhow::Result<()> {
        let model = model_file::read(text, self.control_plane.data(), &|_| None);
        self.client()?.apply_model(model.map_err(|error| anyhow::anyhow!(error.render()))?).await?;
        Ok(())
    }

    /// Its operator.
    pub(crate) fn client(&self) -> anyhow::Result<Client> {
        self.control_plane.client()
    }

    /// Number of the worker's process.
    pub(crate) fn worker(&self) -> anyhow::Result<u32> {
        self.worker.id().with_context(|| format!("the worker has ended; {}", self.said()))
    }

    /// Number of the control plane's process.
    pub(crate) fn control_plane(&self) -> anyhow::Result<u32> {
        self.control_plane.pid()
    }

    fn said(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        format!("the worker's log ends with: {}", lines[lines.len().saturating_sub(10)..].join("\n"))
    }
}

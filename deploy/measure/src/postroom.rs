//! Postroom: `postroom up` on a fresh data folder, until the ledger has made a durable contact of every message.
//!
//! Its progress is asked for over gRPC, 20 ms after the last answer, which is part of what is measured.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, bail, ensure};
use postroom_cli::client::Client;
use postroom_cli::context::{self, FILE_NAME};
use postroom_cli::model_file;
use postroom_proto::convert;
use postroom_proto::v1::{Mailbox, MailboxState};
use tokio::process::{Child, Command};
use tokio::time::Instant;

use crate::definition;
use crate::figures::Lap;
use crate::process::{self, LONGEST_RUN};
use crate::reading::Stage;

/// Time between two questions.
const ASK: Duration = Duration::from_millis(20);
/// Longest wait for the process to serve.
const START: Duration = Duration::from_secs(30);

/// One run, measured from three beginnings to the same end: the last contact is durable.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Laps {
    /// From the moment when the worker begins to ask for its token and to connect: what the other clients do.
    pub(crate) connected: Lap,
    /// From the moment when the model is applied: besides, the lease.
    pub(crate) applied: Lap,
    /// From the first committed batch on, whose messages do not count: reading at full speed.
    pub(crate) flowing: Lap,
}

/// Starts `program`, lets it read the mailbox, and ends it.
pub(crate) async fn measure(stage: &Stage, program: &Path) -> anyhow::Result<Laps> {
    let dir = stage.fresh_dir("postroom")?;
    let data = dir.join("data");
    let log = dir.join("log");
    let mut child = Command::new(program)
        .arg("up")
        .args(["--listen", "127.0.0.1:0", "--data"])
        .arg(&data)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(&log)?)
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("{} does not start", program.display()))?;
    let done = tokio::time::timeout(LONGEST_RUN, read(stage, &mut child, &data)).await;
    let done = done.unwrap_or_else(|_| bail!("Postroom was not done within {} s", LONGEST_RUN.as_secs()));
    // Its data is thrown away: nothing depends on an orderly end.
    child.kill().await?;
    done.with_context(|| format!("Postroom's log: {}", std::fs::read_to_string(&log).unwrap_or_default().trim()))
}

/// Where the binary is when nobody says: beside this one.
pub(crate) fn beside_this() -> anyhow::Result<PathBuf> {
    let this = std::env::current_exe().context("the path of this program is not known")?;
    let program = this.with_file_name("postroom");
    ensure!(program.exists(), "{} is missing: build postroom-cli too, or name it by --postroom", program.display());
    Ok(program)
}

async fn read(stage: &Stage, child: &mut Child, data: &Path) -> anyhow::Result<Laps> {
    let client = connect(child, data).await?;
    let model =
        model_file::read(&definition::model(&stage.testbed, &stage.mailboxes, definition::USUAL), data, &|_| None)
            .map_err(shown)?;
    let applied = Instant::now();
    client.apply_model(model).await?;
    let mut connected = None;
    let mut first: Option<(Instant, u64)> = None;
    loop {
        let asked = SystemTime::now();
        let mailboxes = mailboxes(&client, stage).await?;
        let now = Instant::now();
        let failing = mailboxes.iter().find(|mailbox| mailbox.state() == MailboxState::Failing);
        ensure!(failing.is_none(), "a mailbox fails: {failing:?}");
        connected = connected.or_else(|| mailboxes.iter().filter_map(|mailbox| connecting(mailbox, asked, now)).min());
        let contacts = mailboxes.iter().map(|mailbox| mailbox.contact_count).sum::<u64>();
        if contacts > 0 && first.is_none() {
            first = Some((now, contacts));
        }
        if contacts >= stage.messages {
            ensure!(contacts == stage.messages, "there are {contacts} contacts");
            let usage = process::usage(child.id().context("Postroom has ended")?)?;
            let lap = |from: Instant, messages| Lap { seconds: (now - from).as_secs_f64(), messages, usage };
            let (from, before) = first.unwrap_or((now, 0));
            return Ok(Laps {
                connected: lap(connected.unwrap_or(applied), stage.messages),
                applied: lap(applied, stage.messages),
                flowing: lap(from, stage.messages - before),
            });
        }
        tokio::time::sleep(ASK).await;
    }
}

/// How far they are.
async fn mailboxes(client: &Client, stage: &Stage) -> anyhow::Result<Vec<Mailbox>> {
    Ok(match stage.mailboxes.as_slice() {
        [only] => vec![client.get_mailbox(only.clone()).await?],
        _ => client.list_mailboxes().await?.mailboxes,
    })
}

/// When the worker began to connect, by its own word; `asked` and `now` are the same moment on two clocks.
fn connecting(mailbox: &Mailbox, asked: SystemTime, now: Instant) -> Option<Instant> {
    let begun = matches!(mailbox.state(), MailboxState::Connecting | MailboxState::CatchingUp);
    let since = convert::from_timestamp(mailbox.since_time.as_ref().filter(|_| begun)?);
    let ago = u64::try_from(convert::micros(asked) - since).unwrap_or(0);
    now.checked_sub(Duration::from_micros(ago))
}

async fn connect(child: &mut Child, data: &Path) -> anyhow::Result<Client> {
    let begun = Instant::now();
    while !data.join(FILE_NAME).exists() {
        if let Some(status) = child.try_wait()? {
            bail!("Postroom has ended: {status}");
        }
        ensure!(begun.elapsed() < START, "Postroom does not serve within {} s", START.as_secs());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(Client::new(&context::read(data).map_err(shown)?, false)?)
}

fn shown(error: postroom_cli::error::Error) -> anyhow::Error {
    anyhow::anyhow!(error.render())
}

//! Full mailboxes, one or many, read whole by each client in turn, all from the same Dovecot.
//!
//! A run is one turn of every client; the first run warms up and does not count. Nobody changes anything in a mailbox,
//! and each client starts from nothing: every turn sees the same.
//!
//! What the clients wrote is removed only at the very end. ext4 does not give away the inodes of files that were deleted
//! in the last minutes and looks at each of them at every creation: a Maildir written soon after another was removed
//! costs mbsync more than twice its time. For the same reason two measurements should lie some minutes apart.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use clap::ValueEnum;
use postroom_testbed::Testbed;
use serde::Serialize;
use tempfile::TempDir;

use crate::figures::{Lap, Series};
use crate::filling::Filling;
use crate::machine::{self, Machine};
use crate::output::Output;
use crate::{bare, imapflow, mbsync, postroom, table};

/// Bytes of messages that are in memory at once while a mailbox is filled.
const FILLED_AT_ONCE: u64 = 32 << 20;

/// `mailbox`: one mailbox of messages of one size.
#[derive(Debug, clap::Args)]
pub(crate) struct MailboxArgs {
    /// Messages in the mailbox.
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    messages: u64,
    /// Bytes of each message, its headers included.
    #[arg(long, default_value_t = 4_096, value_parser = clap::value_parser!(u64).range(1_000..=1_000_000))]
    bytes: u64,
    #[command(flatten)]
    turns: Turns,
}

/// `mixed`: one mailbox of what people write: text, HTML and attachments.
#[derive(Debug, clap::Args)]
pub(crate) struct MixedArgs {
    /// Messages in the mailbox.
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    messages: u64,
    #[command(flatten)]
    turns: Turns,
}

/// `boxes`: many mailboxes at once.
#[derive(Debug, clap::Args)]
pub(crate) struct BoxesArgs {
    /// How many mailboxes.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=1_000))]
    mailboxes: u64,
    /// Messages in each.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    messages: u64,
    /// Bytes of each message, its headers included.
    #[arg(long, default_value_t = 4_096, value_parser = clap::value_parser!(u64).range(1_000..=1_000_000))]
    bytes: u64,
    #[command(flatten)]
    turns: Turns,
}

/// Who takes turns, how often, and where.
#[derive(Debug, clap::Args)]
struct Turns {
    /// Runs that count.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=1_000))]
    runs: u64,
    /// Measure only these clients. May be repeated.
    #[arg(long, value_enum, value_name = "CLIENT")]
    only: Vec<Kind>,
    /// Skip the run that warms up.
    #[arg(long)]
    cold: bool,
    #[command(flatten)]
    output: Output,
    /// The postroom binary [default: the one beside this program].
    #[arg(long, value_name = "FILE")]
    postroom: Option<PathBuf>,
    /// The folder in which npm has installed imapflow; without it imapflow takes no turns.
    #[arg(long, value_name = "DIR")]
    imapflow: Option<PathBuf>,
}

/// A client that takes its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    Bare,
    Mbsync,
    MbsyncFsync,
    Imapflow,
    Postroom,
}

/// Name of the series that the others are compared with.
pub(crate) const BARE: &str = "bare reader, keeps nothing";
/// Name of the other one.
pub(crate) const MBSYNC: &str = "mbsync";
/// Name of the third one.
pub(crate) const IMAPFLOW: &str = "imapflow, keeps nothing";

/// The mailboxes and what it takes to read them.
pub(crate) struct Stage {
    pub(crate) testbed: Testbed,
    /// Their addresses.
    pub(crate) mailboxes: Vec<String>,
    /// How many messages they have together.
    pub(crate) messages: u64,
    /// The bytes of those.
    pub(crate) bytes: u64,
    /// Where imapflow is installed.
    pub(crate) imapflow: Option<PathBuf>,
    /// Holds the folders of all turns, and removes them when it goes.
    dir: TempDir,
}

/// All that was measured, and on what.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Measured {
    pub(crate) mailboxes: usize,
    /// Messages of all of them.
    pub(crate) messages: u64,
    /// Bytes of all messages.
    pub(crate) bytes: u64,
    pub(crate) runs: u64,
    pub(crate) machine: Machine,
    /// Load before each run that counts, and after the last.
    pub(crate) load: Vec<f64>,
    pub(crate) dovecot: String,
    pub(crate) mbsync: String,
    /// What each client took.
    pub(crate) clients: Vec<Series>,
}

/// Measures one mailbox of equal messages, and prints.
pub(crate) async fn mailbox(args: MailboxArgs) -> anyhow::Result<()> {
    run(args.turns, 1, args.messages, Filling::Plain { bytes: args.bytes as usize }).await
}

/// Measures one mailbox of mixed messages, and prints.
pub(crate) async fn mixed(args: MixedArgs) -> anyhow::Result<()> {
    run(args.turns, 1, args.messages, Filling::Mixed).await
}

/// Measures many mailboxes, and prints.
pub(crate) async fn boxes(args: BoxesArgs) -> anyhow::Result<()> {
    run(args.turns, args.mailboxes, args.messages, Filling::Plain { bytes: args.bytes as usize }).await
}

async fn run(args: Turns, mailboxes: u64, messages: u64, filling: Filling) -> anyhow::Result<()> {
    let mut kinds = if args.only.is_empty() { Kind::value_variants().to_vec() } else { args.only.clone() };
    if args.imapflow.is_none() {
        ensure!(!args.only.contains(&Kind::Imapflow), "name the folder of imapflow by --imapflow");
        kinds.retain(|kind| *kind != Kind::Imapflow);
    }
    let program = match &args.postroom {
        Some(program) => program.clone(),
        None if kinds.contains(&Kind::Postroom) => postroom::beside_this()?,
        None => PathBuf::new(),
    };
    let stage = Stage::set(&args.output.dir, args.imapflow.clone(), mailboxes, messages, filling).await?;
    let mut measured = Measured {
        mailboxes: stage.mailboxes.len(),
        messages: stage.messages,
        bytes: stage.bytes,
        runs: args.runs,
        machine: Machine::of(stage.dir.path()),
        load: Vec::new(),
        dovecot: machine::version("dovecot").await,
        mbsync: machine::version("mbsync").await,
        clients: Vec::new(),
    };
    if measured.machine.file_system == "tmpfs" {
        table::note("the clients write into memory: fsync costs nothing there; name another folder by --dir");
    }
    let warm_up = u64::from(!args.cold);
    for run in 0..args.runs + warm_up {
        let counts = run >= warm_up;
        if counts {
            measured.load.push(machine::load());
        }
        for kind in &kinds {
            for (client, lap) in stage.turn(*kind, &program).await? {
                let counted = if counts { "" } else { ", not counted" };
                table::note(&format!("run {run}: {client}: {:.2} s{counted}", lap.seconds));
                if counts {
                    measured.add(client, lap);
                }
            }
        }
    }
    measured.load.push(machine::load());
    for mailbox in &stage.mailboxes {
        let unseen = stage.testbed.dovecot.count_unseen(mailbox, "INBOX").await?;
        ensure!(unseen as u64 == messages, "somebody changed {mailbox}: {unseen} messages are unseen");
    }
    args.output.print(&measured, table::render)
}

impl Measured {
    fn add(&mut self, client: &'static str, lap: Lap) {
        match self.clients.iter_mut().find(|series| series.client == client) {
            Some(series) => series.runs.push(lap),
            None => self.clients.push(Series { client, runs: vec![lap] }),
        }
    }
}

impl Stage {
    /// Starts the servers and fills the mailboxes; what the clients write lies below `dir`.
    pub(crate) async fn set(
        dir: &Path,
        imapflow: Option<PathBuf>,
        mailboxes: u64,
        messages: u64,
        filling: Filling,
    ) -> anyhow::Result<Self> {
        let parent = dir.canonicalize().with_context(|| format!("there is no folder {}", dir.display()))?;
        let dir = tempfile::Builder::new().prefix("postroom-bench-").tempdir_in(&parent);
        let dir = dir.with_context(|| format!("no folder can be made in {}", parent.display()))?;
        table::note(&format!("filling {mailboxes} mailboxes with {messages} messages each"));
        // Every client opens all of them, each from the same machine.
        let testbed = Testbed::start().await?;
        let names = (0..mailboxes).map(|number| format!("measured{number}@{}", postroom_testbed::DOMAIN)).collect();
        let mut stage = Self { testbed, mailboxes: names, messages: 0, bytes: 0, imapflow, dir };
        for mailbox in &stage.mailboxes {
            let (mut some, mut held) = (Vec::new(), 0);
            for number in 0..messages {
                let message = filling.message(mailbox, number);
                stage.messages += 1;
                stage.bytes += message.len() as u64;
                held += message.len() as u64;
                some.push(message);
                if held >= FILLED_AT_ONCE || number + 1 == messages {
                    stage.testbed.fill(mailbox, &std::mem::take(&mut some)).await?;
                    held = 0;
                }
            }
        }
        Ok(stage)
    }

    /// An empty folder for one turn of a client.
    pub(crate) fn fresh_dir(&self, client: &str) -> anyhow::Result<PathBuf> {
        let made = tempfile::Builder::new().prefix(&format!("{client}-")).tempdir_in(self.dir.path());
        Ok(made.context("no folder can be made")?.keep())
    }

    /// What the client before has left in the page cache must not be written during the next one's turn.
    pub(crate) async fn flush(&self) -> anyhow::Result<()> {
        let flushed = tokio::process::Command::new("sync").status().await.context("sync")?;
        ensure!(flushed.success(), "sync has failed");
        Ok(())
    }

    async fn turn(&self, kind: Kind, program: &Path) -> anyhow::Result<Vec<(&'static str, Lap)>> {
        self.flush().await?;
        Ok(match kind {
            Kind::Bare => vec![(BARE, bare::measure(self).await?)],
            Kind::Mbsync => vec![(MBSYNC, mbsync::measure(self, false).await?)],
            Kind::MbsyncFsync => vec![("mbsync with fsync", mbsync::measure(self, true).await?)],
            Kind::Imapflow => vec![(IMAPFLOW, imapflow::measure(self).await?)],
            Kind::Postroom => {
                let laps = postroom::measure(self, program).await?;
                vec![
                    ("postroom, durable contacts", laps.connected),
                    ("  the same from apply on", laps.applied),
                    ("  from its first to its last commit", laps.flowing),
                ]
            }
        })
    }
}

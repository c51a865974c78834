//! One mailbox, read whole by each client in turn, all from the same Dovecot.
//!
//! A run is one turn of every client; the first run warms up and does not count. Nobody changes anything in the mailbox,
//! and each client starts from nothing: every turn sees the same.
//!
//! What the clients wrote is removed only at the very end. ext4 does not give away the inodes of files that were deleted
//! in the last minutes and looks at each of them at every creation: a Maildir written soon after another was removed
//! costs mbsync more than twice its time. For the same reason two measurements should lie some minutes apart.

use std::path::PathBuf;

use anyhow::{Context as _, ensure};
use clap::ValueEnum;
use postroom_testbed::{Mail, Testbed};
use serde::Serialize;
use tempfile::TempDir;

use crate::figures::{Lap, Series};
use crate::machine::{self, Machine};
use crate::{bare, mbsync, postroom, table};

/// Messages that are in memory at once while the mailbox is filled.
const FILLED_AT_ONCE: u64 = 2_000;

/// `mailbox`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Messages in the mailbox.
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    messages: u64,
    /// Bytes of each message, its headers included.
    #[arg(long, default_value_t = 4_096, value_parser = clap::value_parser!(u64).range(1_000..=1_000_000))]
    bytes: u64,
    /// Runs that count.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=1_000))]
    runs: u64,
    /// Measure only these clients. May be repeated.
    #[arg(long, value_enum, value_name = "CLIENT")]
    only: Vec<Kind>,
    /// Skip the run that warms up.
    #[arg(long)]
    cold: bool,
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
    /// Folder below which the clients write. One in memory would make fsync free.
    #[arg(long, value_name = "DIR", default_value = "/var/tmp")]
    dir: PathBuf,
    /// The postroom binary [default: the one beside this program].
    #[arg(long, value_name = "FILE")]
    postroom: Option<PathBuf>,
}

/// A client that takes its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    Bare,
    Mbsync,
    MbsyncFsync,
    Postroom,
}

/// Name of the series that the others are compared with.
pub(crate) const BARE: &str = "bare reader, keeps nothing";
/// Name of the other one.
pub(crate) const MBSYNC: &str = "mbsync";

/// The mailbox and what it takes to read it.
pub(crate) struct Stage {
    pub(crate) testbed: Testbed,
    /// Its address.
    pub(crate) mailbox: String,
    /// How many messages it has.
    pub(crate) messages: u64,
    /// Bytes of each.
    pub(crate) bytes: u64,
    /// Holds the folders of all turns, and removes them when it goes.
    dir: TempDir,
}

/// All that was measured, and on what.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Measured {
    pub(crate) messages: u64,
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

/// Measures and prints.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let kinds = if args.only.is_empty() { Kind::value_variants().to_vec() } else { args.only.clone() };
    let program = match &args.postroom {
        Some(program) => program.clone(),
        None if kinds.contains(&Kind::Postroom) => postroom::beside_this()?,
        None => PathBuf::new(),
    };
    let stage = Stage::set(&args).await?;
    let mut measured = Measured {
        messages: args.messages,
        bytes: args.bytes,
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
    let unseen = stage.testbed.dovecot.count_unseen(&stage.mailbox, "INBOX").await?;
    ensure!(unseen as u64 == args.messages, "somebody changed the mailbox: {unseen} messages are unseen");
    if args.json {
        table::print(&(serde_json::to_string_pretty(&measured)? + "\n"))
    } else {
        table::print(&table::render(&measured))
    }
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
    /// Starts the servers and fills the mailbox.
    async fn set(args: &Args) -> anyhow::Result<Self> {
        let parent = args.dir.canonicalize().with_context(|| format!("there is no folder {}", args.dir.display()))?;
        let dir = tempfile::Builder::new().prefix("postroom-bench-").tempdir_in(&parent);
        let dir = dir.with_context(|| format!("no folder can be made in {}", parent.display()))?;
        table::note(&format!("filling a mailbox with {} messages of {} bytes", args.messages, args.bytes));
        let testbed = Testbed::start().await?;
        let mailbox = format!("measured@{}", postroom_testbed::DOMAIN);
        for first in (0..args.messages).step_by(FILLED_AT_ONCE as usize) {
            let numbers = first..args.messages.min(first + FILLED_AT_ONCE);
            let messages: Vec<Vec<u8>> = numbers.map(|number| message(&mailbox, number, args.bytes as usize)).collect();
            testbed.fill(&mailbox, &messages).await?;
        }
        Ok(Self { testbed, mailbox, messages: args.messages, bytes: args.bytes, dir })
    }

    /// An empty folder for one turn of a client.
    pub(crate) fn fresh_dir(&self, client: &str) -> anyhow::Result<PathBuf> {
        let made = tempfile::Builder::new().prefix(&format!("{client}-")).tempdir_in(self.dir.path());
        Ok(made.context("no folder can be made")?.keep())
    }

    async fn turn(&self, kind: Kind, program: &std::path::Path) -> anyhow::Result<Vec<(&'static str, Lap)>> {
        // What the client before has left in the page cache must not be written during this one's turn.
        let flushed = tokio::process::Command::new("sync").status().await.context("sync")?;
        ensure!(flushed.success(), "sync has failed");
        Ok(match kind {
            Kind::Bare => vec![(BARE, bare::measure(self).await?)],
            Kind::Mbsync => vec![(MBSYNC, mbsync::measure(self, false).await?)],
            Kind::MbsyncFsync => vec![("mbsync with fsync", mbsync::measure(self, true).await?)],
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

fn message(mailbox: &str, number: u64, bytes: usize) -> Vec<u8> {
    Mail::to(mailbox)
        .from(&format!("Customer {number} <customer{number}@customer.example>"))
        .subject(&format!("Order {number}"))
        .size(bytes)
        .build()
}

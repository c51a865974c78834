//! Messages of the largest kind, in several mailboxes at once: what counts is memory. The worker must stay within its byte
//! budget, and the control plane must never hold a whole message.
//!
//! mbsync reads the same mailboxes, one after the other, as it does.

use std::time::Duration;

use anyhow::ensure;
use postroom_proto::v1::MailboxState;
use postroom_worker::config::Reading;
use serde::Serialize;
use tokio::time::Instant;

use crate::definition;
use crate::figures::{Lap, Series};
use crate::filling::Filling;
use crate::installation::{Installation, Programs};
use crate::machine::{self, Machine};
use crate::output::Output;
use crate::process::{self, LONGEST_RUN};
use crate::reading::{BARE, MBSYNC, Stage};
use crate::{bare, mbsync, table};

const MEGABYTE: u64 = 1_000_000;
/// Time between two questions.
const ASK: Duration = Duration::from_millis(50);
/// Names of the series.
const WORKER: &str = "postroom-worker";
const CONTROL_PLANE: &str = "postroom-control-plane";

/// `large`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How many mailboxes, all read at once.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=100))]
    mailboxes: u64,
    /// Messages in each.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=100))]
    messages: u64,
    /// Size of each message in MB.
    #[arg(long, default_value_t = 150, value_parser = clap::value_parser!(u64).range(1..=250))]
    megabytes: u64,
    /// Runs.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=100))]
    runs: u64,
    /// Measure Postroom alone.
    #[arg(long)]
    alone: bool,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    programs: Programs,
}

/// All that was measured, and on what.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Measured {
    pub(crate) mailboxes: u64,
    /// Messages of all of them.
    pub(crate) messages: u64,
    /// Bytes of all messages.
    pub(crate) bytes: u64,
    pub(crate) runs: u64,
    pub(crate) machine: Machine,
    /// Load before each run, and after the last.
    pub(crate) load: Vec<f64>,
    pub(crate) dovecot: String,
    pub(crate) mbsync: String,
    /// The byte budget of the worker.
    pub(crate) budget_bytes: u64,
    /// Resident memory of the worker before there was mail, at most.
    pub(crate) base_bytes: u64,
    /// What each process took.
    pub(crate) clients: Vec<Series>,
}

impl Measured {
    fn add(&mut self, client: &'static str, lap: Lap) {
        table::note(&format!("{client}: {:.2} s, {} MB", lap.seconds, lap.usage.peak_rss_bytes / MEGABYTE));
        match self.clients.iter_mut().find(|series| series.client == client) {
            Some(series) => series.runs.push(lap),
            None => self.clients.push(Series { client, runs: vec![lap] }),
        }
    }

    /// Largest resident memory of the worker.
    pub(crate) fn worker_peak(&self) -> u64 {
        let worker = self.clients.iter().filter(|series| series.client == WORKER);
        worker.flat_map(|series| &series.runs).map(|lap| lap.usage.peak_rss_bytes).max().unwrap_or(0)
    }
}

/// Measures and prints.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let filling = Filling::Large { bytes: (args.megabytes * MEGABYTE) as usize };
    let stage = Stage::set(&args.output.dir, None, args.mailboxes, args.messages, filling).await?;
    let mut measured = Measured {
        mailboxes: args.mailboxes,
        messages: stage.messages,
        bytes: stage.bytes,
        runs: args.runs,
        machine: Machine::of(&args.output.dir.canonicalize()?),
        load: Vec::new(),
        dovecot: machine::version("dovecot").await,
        mbsync: machine::version("mbsync").await,
        budget_bytes: Reading::default().byte_budget,
        base_bytes: 0,
        clients: Vec::new(),
    };
    for _ in 0..args.runs {
        measured.load.push(machine::load());
        if !args.alone {
            stage.flush().await?;
            measured.add(BARE, bare::measure(&stage).await?);
            stage.flush().await?;
            measured.add(MBSYNC, mbsync::measure(&stage, false).await?);
        }
        stage.flush().await?;
        read(&args, &stage, &mut measured).await?;
    }
    measured.load.push(machine::load());
    args.output.print(&measured, table::render_large)
}

/// One turn of a fresh installation, from the model to the last durable contact.
async fn read(args: &Args, stage: &Stage, measured: &mut Measured) -> anyhow::Result<()> {
    let dir = stage.fresh_dir("postroom")?;
    let installation = Installation::start(&args.programs, &dir).await?;
    let (worker, control_plane) = (installation.worker()?, installation.control_plane()?);
    measured.base_bytes = measured.base_bytes.max(process::rss(worker));
    let client = installation.client()?;
    let begun = Instant::now();
    let most_bytes = (args.megabytes + 5) * MEGABYTE;
    installation.apply(&definition::model(&stage.testbed, &stage.mailboxes, most_bytes)).await?;
    loop {
        let mailboxes = client.list_mailboxes().await?.mailboxes;
        let contacts = mailboxes.iter().map(|mailbox| mailbox.contact_count).sum::<u64>();
        if contacts == stage.messages {
            break;
        }
        let failing = mailboxes.iter().find(|mailbox| mailbox.state() == MailboxState::Failing);
        ensure!(failing.is_none(), "a mailbox fails: {failing:?}");
        let aside = mailboxes.iter().find(|mailbox| mailbox.quarantined_count + mailbox.too_large_count > 0);
        ensure!(aside.is_none(), "a message was put aside: {aside:?}");
        ensure!(begun.elapsed() < LONGEST_RUN, "{contacts} of {} messages are contacts", stage.messages);
        tokio::time::sleep(ASK).await;
    }
    let seconds = begun.elapsed().as_secs_f64();
    for (name, pid) in [(WORKER, worker), (CONTROL_PLANE, control_plane)] {
        measured.add(name, Lap { seconds, messages: stage.messages, usage: process::usage(pid)? });
    }
    Ok(())
}

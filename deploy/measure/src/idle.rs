//! Memory of mailboxes in which nothing happens: IMAP IDLE over TLS, a connection each.
//!
//! Memory is the proportional set size of the process (proc(5), smaps_rollup). What a mailbox costs is what the process has
//! more with all mailboxes than with one, divided by how many there are more.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use postroom_testbed::Testbed;
use serde::Serialize;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;

use crate::bare;
use crate::figures::Spread;
use crate::installation::{Installation, Programs};
use crate::machine::{self, Machine};
use crate::output::Output;
use crate::{process, table};

/// `idle`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Numbers of mailboxes, ascending.
    #[arg(long, value_delimiter = ',', default_values_t = [100, 1_000], value_parser = clap::value_parser!(u64).range(2..=20_000))]
    mailboxes: Vec<u64>,
    /// Runs.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=100))]
    runs: u64,
    /// Time that nothing happens before the memory is looked at, in seconds.
    #[arg(long, default_value_t = 3)]
    settle: u64,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    programs: Programs,
}

/// What was measured, and on what.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Measured {
    pub(crate) runs: u64,
    pub(crate) machine: Machine,
    pub(crate) dovecot: String,
    pub(crate) clients: Vec<Client>,
}

/// One client.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Client {
    pub(crate) client: &'static str,
    /// Bytes of the process with no mailbox, or before it has connected.
    pub(crate) base_bytes: Spread,
    pub(crate) steps: Vec<Step>,
}

/// With so many mailboxes.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Step {
    pub(crate) mailboxes: u64,
    /// Bytes of the process.
    pub(crate) bytes: Spread,
    /// Bytes for each mailbox beyond the first.
    pub(crate) mailbox_bytes: Spread,
}

/// Memory of one process in one run: with none, with one, and with each number of mailboxes.
#[derive(Debug, Default, Clone)]
struct Run {
    base: u64,
    one: u64,
    many: Vec<u64>,
}

/// Measures and prints.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    ensure!(args.mailboxes.is_sorted(), "write the numbers of mailboxes in ascending order");
    let parent =
        args.output.dir.canonicalize().with_context(|| format!("there is no folder {}", args.output.dir.display()))?;
    let testbed = Testbed::start().await?;
    let most = args.mailboxes.last().copied().unwrap_or(1);
    let names: Vec<String> = (0..most).map(|number| format!("idle{number}@{}", postroom_testbed::DOMAIN)).collect();
    let (mut postroom, mut bare) = (Vec::new(), Vec::new());
    for run in 0..args.runs {
        let dir = tempfile::Builder::new().prefix("postroom-bench-").tempdir_in(&parent)?;
        bare.push(measure_bare(&args, &testbed, &names).await?);
        let installation = Installation::start(&args.programs, dir.path()).await?;
        let mut measured = Run { base: settled(&args, installation.worker()?).await?, ..Run::default() };
        installation.read(&testbed, &names[..1]).await?;
        measured.one = settled(&args, installation.worker()?).await?;
        for count in &args.mailboxes {
            installation.read(&testbed, &names[..*count as usize]).await?;
            measured.many.push(settled(&args, installation.worker()?).await?);
        }
        table::note(&format!("run {run}: postroom {measured:?}; bare {:?}", bare.last()));
        postroom.push(measured);
    }
    let clients = vec![
        client("bare IDLE client, keeps nothing", &args.mailboxes, &bare),
        client("postroom-worker", &args.mailboxes, &postroom),
    ];
    let machine = Machine::of(&parent);
    let measured = Measured { runs: args.runs, machine, dovecot: machine::version("dovecot").await, clients };
    args.output.print(&measured, table::render_idle)
}

fn client(name: &'static str, mailboxes: &[u64], runs: &[Run]) -> Client {
    let steps = mailboxes.iter().enumerate().map(|(at, mailboxes)| {
        let each = |run: &Run| run.many[at].saturating_sub(run.one) as f64 / (mailboxes - 1) as f64;
        Step {
            mailboxes: *mailboxes,
            bytes: Spread::of(runs.iter().map(|run| run.many[at] as f64).collect()),
            mailbox_bytes: Spread::of(runs.iter().map(each).collect()),
        }
    });
    Client {
        client: name,
        base_bytes: Spread::of(runs.iter().map(|run| run.base as f64).collect()),
        steps: steps.collect(),
    }
}

/// The memory of a process after some calm.
async fn settled(args: &Args, pid: u32) -> anyhow::Result<u64> {
    tokio::time::sleep(Duration::from_secs(args.settle)).await;
    process::pss(pid)
}

/// A process of its own for each number, which connects, begins IDLE everywhere, and says so.
async fn measure_bare(args: &Args, testbed: &Testbed, names: &[String]) -> anyhow::Result<Run> {
    let mut seen = Vec::new();
    for count in [0, 1].iter().chain(&args.mailboxes) {
        let mut command = Command::new(std::env::current_exe().context("the path of this program is not known")?);
        command.arg("bare-idle");
        bare::arguments(&mut command, testbed, &names[..*count as usize]);
        // It ends when its standard input does.
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
        let mut lines = BufReader::new(child.stdout.take().context("no standard output")?).lines();
        let ready = tokio::time::timeout(Duration::from_secs(300), lines.next_line()).await;
        ensure!(ready.context("the bare client does not begin")??.is_some(), "the bare client has ended");
        seen.push(settled(args, child.id().context("the bare client has ended")?).await?);
        drop(child.stdin.take());
        child.wait().await?;
    }
    Ok(Run { base: seen[0], one: seen[1], many: seen[2..].to_vec() })
}

//! A fleet: one control plane process, and as many workers as wanted that do everything a worker does but read mail.
//!
//! What is measured, one after the other on the same control plane:
//!
//! 1. the model is applied; 2. all workers start at once and share the mailboxes out among them; 3. nothing happens for
//!    a while; 4. a worker dies; 5. a new one joins; 6. all are restarted one after the other, with their names.
//!
//! Workers and control plane share the machine, so times are those of both together. CPU and memory are the control
//! plane's own. Bytes are those of the messages with their gRPC frames, without the headers of HTTP/2.

mod census;
mod model;
mod wire;
mod worker;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde::Serialize;
use tokio::time::{Instant, sleep};

use self::census::{Life, Move};
use self::worker::{Fleet, Worker};
use crate::control_plane::{self, ControlPlane, Store};
use crate::machine::{self, Machine};
use crate::output::Output;
use crate::table;

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(300);
/// Nothing has moved for so many heartbeats, but at least for [`QUIET`]: whatever was going on is over.
const QUIET_HEARTBEATS: u32 = 5;
const QUIET: Duration = Duration::from_secs(3);
/// After a disturbance the figures of calm are taken only when it has passed.
const SETTLE: Duration = Duration::from_secs(5);

/// `fleet`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Mailboxes.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    mailboxes: u32,
    /// Workers that share them.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(2..=100))]
    workers: u16,
    /// Time between two heartbeats, for example 2s.
    #[arg(long, default_value = "2s", value_parser = time)]
    heartbeat: Duration,
    /// How long nothing happens while the control plane's calm is measured.
    #[arg(long, default_value = "1m", value_parser = time)]
    steady: Duration,
    /// Where the control plane keeps definitions and leases; etcd is a real one, started for this.
    #[arg(long, value_enum, default_value_t = Store::Sqlite)]
    store: Store,
    /// What the control plane logs.
    #[arg(long, value_name = "FILTER", default_value = "info")]
    log: String,
    /// Print the control plane's log at the end.
    #[arg(long)]
    show_log: bool,
    #[command(flatten)]
    output: Output,
    /// The postroom-control-plane binary [default: the one beside this program].
    #[arg(long, value_name = "FILE")]
    control_plane: Option<PathBuf>,
}

fn time(text: &str) -> Result<Duration, String> {
    let parsed = text.parse::<jiff::SignedDuration>().ok().and_then(|time| Duration::try_from(time).ok());
    parsed.filter(|time| !time.is_zero()).ok_or_else(|| "write a time such as 2s or 1m".to_owned())
}

/// All that was measured, and on what.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Measured {
    pub(crate) mailboxes: usize,
    pub(crate) workers: usize,
    pub(crate) heartbeat_seconds: f64,
    pub(crate) store: Store,
    pub(crate) machine: Machine,
    /// Load at the start and at the end.
    pub(crate) load: [f64; 2],
    /// Until the model was applied, in so many requests.
    pub(crate) apply_seconds: f64,
    pub(crate) apply_requests: usize,
    pub(crate) cold: Cold,
    pub(crate) steady: Steady,
    pub(crate) death: Change,
    pub(crate) join: Change,
    pub(crate) restart: Change,
    /// How often a worker took what another one still held. Anything but 0 is a fault.
    pub(crate) overlaps: usize,
    /// Largest resident memory of the control plane over the whole run.
    pub(crate) peak_rss_bytes: u64,
}

/// All workers started at once on a control plane that knew the model.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Cold {
    /// From the first registration until the last mailbox was held.
    pub(crate) held_seconds: f64,
    /// Until the last was opened.
    pub(crate) opened_seconds: f64,
    /// What the control plane used for it.
    pub(crate) cpu_seconds: f64,
}

/// The control plane while nothing happens.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Steady {
    pub(crate) seconds: f64,
    /// User and system time as a share of one core.
    pub(crate) cpu_share: f64,
    pub(crate) rss_bytes: u64,
    pub(crate) heartbeats_per_second: f64,
    /// Heartbeats that were not answered in time.
    pub(crate) abandoned: u64,
    pub(crate) bytes_up_per_second: f64,
    pub(crate) bytes_down_per_second: f64,
}

/// What a change in the fleet moved.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Change {
    /// Mailboxes that went from one worker name to another.
    pub(crate) moves: usize,
    /// How many of them had to: those of the worker that died; at a join or a restart none.
    pub(crate) due: usize,
    /// From the change until everything was held again, or until the last move.
    pub(crate) seconds: f64,
    /// What the control plane used for it.
    pub(crate) cpu_seconds: f64,
}

/// Measures and prints.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let program = match &args.control_plane {
        Some(program) => program.clone(),
        None => control_plane::beside_this()?,
    };
    let dir = tempfile::Builder::new().prefix("postroom-bench").tempdir_in(&args.output.dir)?;
    let machine = Machine::of(dir.path());
    let control_plane = ControlPlane::start(&program, dir.path(), args.store, args.heartbeat, &args.log).await?;
    let measured = measure(&args, &control_plane, machine).await;
    if args.show_log || measured.is_err() {
        table::note(&control_plane.log());
    }
    let measured = measured?;
    args.output.print(&measured, table::render_fleet)
}

async fn measure(args: &Args, control_plane: &ControlPlane, machine: Machine) -> anyhow::Result<Measured> {
    let (mailboxes, workers) = (args.mailboxes as usize, usize::from(args.workers));
    let load = machine::load();
    table::note(&format!("applying a model of {mailboxes} mailboxes"));
    let begun = Instant::now();
    let apply_requests = model::apply(&control_plane.client()?, mailboxes).await?;
    let apply_seconds = begun.elapsed().as_secs_f64();

    let mut stage = Stage::new(control_plane, mailboxes, args.heartbeat)?;
    sleep(SETTLE).await;
    table::note(&format!("{workers} workers start"));
    let cold = stage.start(workers).await?;
    table::note(&format!("nothing happens for {:?}", args.steady));
    let steady = stage.steady(args.steady).await?;
    table::note("a worker dies");
    let death = stage.death().await?;
    table::note("a worker joins");
    let join = stage.join(workers).await?;
    table::note("all workers are restarted, one after the other");
    let restart = stage.restart().await?;
    Ok(Measured {
        mailboxes,
        workers,
        heartbeat_seconds: args.heartbeat.as_secs_f64(),
        store: args.store,
        machine,
        load: [load, machine::load()],
        apply_seconds,
        apply_requests,
        cold,
        steady,
        death,
        join,
        restart,
        overlaps: stage.fleet.census.overlaps(),
        peak_rss_bytes: control_plane.usage()?.peak_rss_bytes,
    })
}

/// The fleet as it stands.
struct Stage<'a> {
    control_plane: &'a ControlPlane,
    fleet: Arc<Fleet>,
    workers: Vec<Worker>,
    mailboxes: usize,
    quiet: Duration,
    lives: AtomicU64,
}

impl<'a> Stage<'a> {
    fn new(control_plane: &'a ControlPlane, mailboxes: usize, heartbeat: Duration) -> anyhow::Result<Self> {
        let fleet = Fleet {
            endpoint: control_plane.endpoint()?,
            token: control_plane.worker_token()?,
            census: census::Census::default(),
            traffic: wire::Traffic::default(),
        };
        Ok(Self {
            control_plane,
            fleet: Arc::new(fleet),
            workers: Vec::new(),
            mailboxes,
            quiet: QUIET.max(heartbeat * QUIET_HEARTBEATS),
            lives: AtomicU64::new(0),
        })
    }

    fn worker(&self, name: usize) -> anyhow::Result<Worker> {
        Worker::start(&self.fleet, Life { name, number: self.lives.fetch_add(1, Ordering::Relaxed) })
    }

    fn cpu(&self) -> anyhow::Result<f64> {
        Ok(self.control_plane.usage()?.cpu_seconds)
    }

    /// When everything is held, and opened.
    async fn complete(&self, what: &str) -> anyhow::Result<(Instant, Instant)> {
        let census = &self.fleet.census;
        let held = census.until(what, PATIENCE, |counts| counts.held == self.mailboxes).await?;
        let opened = census.until(what, PATIENCE, |counts| counts.opened == self.mailboxes).await?;
        Ok((held, opened))
    }

    async fn start(&mut self, workers: usize) -> anyhow::Result<Cold> {
        let (begun, cpu) = (Instant::now(), self.cpu()?);
        self.workers = (0..workers).map(|name| self.worker(name)).collect::<Result<_, _>>()?;
        let (held, opened) = self.complete("all mailboxes are held and opened").await?;
        let cpu_seconds = self.cpu()? - cpu;
        // Who came first was given more than who came last, and evens out.
        self.quiet().await?;
        self.fleet.census.moves();
        Ok(Cold {
            held_seconds: (held - begun).as_secs_f64(),
            opened_seconds: (opened - begun).as_secs_f64(),
            cpu_seconds,
        })
    }

    /// Waits until nothing moves.
    async fn quiet(&self) -> anyhow::Result<()> {
        let until = Instant::now() + PATIENCE;
        let begun = Instant::now();
        while self.fleet.census.moved().unwrap_or(begun).max(begun).elapsed() < self.quiet {
            ensure!(Instant::now() < until, "mailboxes still move after {} s", PATIENCE.as_secs());
            sleep(Duration::from_millis(100)).await;
        }
        self.complete("all mailboxes are held after moves").await.map(drop)
    }

    async fn steady(&self, time: Duration) -> anyhow::Result<Steady> {
        sleep(SETTLE).await;
        let (begun, cpu, before) = (Instant::now(), self.cpu()?, self.fleet.traffic.read());
        sleep(time).await;
        let (seconds, after) = (begun.elapsed().as_secs_f64(), self.fleet.traffic.read());
        let rate = |before: u64, after: u64| (after - before) as f64 / seconds;
        Ok(Steady {
            seconds,
            cpu_share: (self.cpu()? - cpu) / seconds,
            rss_bytes: self.control_plane.rss_bytes()?,
            heartbeats_per_second: rate(before.heartbeats, after.heartbeats),
            abandoned: after.abandoned - before.abandoned,
            bytes_up_per_second: rate(before.bytes_up, after.bytes_up),
            bytes_down_per_second: rate(before.bytes_down, after.bytes_down),
        })
    }

    async fn death(&mut self) -> anyhow::Result<Change> {
        let dead = self.workers.swap_remove(0);
        let name = dead.life.name;
        let due = self.fleet.census.held_by(name);
        let (begun, cpu) = (Instant::now(), self.cpu()?);
        dead.kill(&self.fleet).await;
        let (held, _) = self.complete("the dead worker's mailboxes are held by others").await?;
        let cpu_seconds = self.cpu()? - cpu;
        self.quiet().await?;
        let moves = self.fleet.census.moves();
        let of_others = moves.iter().filter(|Move { from, .. }| *from != name).count();
        ensure!(of_others == 0, "the death of a worker moved {of_others} mailboxes of others");
        Ok(Change { moves: moves.len(), due, seconds: (held - begun).as_secs_f64(), cpu_seconds })
    }

    async fn join(&mut self, name: usize) -> anyhow::Result<Change> {
        let (begun, cpu) = (Instant::now(), self.cpu()?);
        self.workers.push(self.worker(name)?);
        self.quiet().await?;
        let cpu_seconds = self.cpu()? - cpu;
        let moves = self.fleet.census.moves();
        ensure!(moves.iter().all(|it| it.to == name), "a join moved mailboxes between others");
        ensure!(!moves.is_empty() || self.mailboxes < self.workers.len(), "a worker that joins stays empty");
        let last = self.fleet.census.moved().context("nothing has moved")?;
        Ok(Change { moves: moves.len(), due: 0, seconds: (last - begun).as_secs_f64(), cpu_seconds })
    }

    async fn restart(&mut self) -> anyhow::Result<Change> {
        let (begun, cpu) = (Instant::now(), self.cpu()?);
        for worker in std::mem::take(&mut self.workers) {
            let name = worker.life.name;
            let had = self.fleet.census.held_by(name);
            worker.stop().await?;
            self.workers.push(self.worker(name)?);
            let what = format!("{} has its {had} mailboxes again", worker::name(name));
            self.complete(&what).await?;
        }
        let seconds = begun.elapsed().as_secs_f64();
        let cpu_seconds = self.cpu()? - cpu;
        self.quiet().await?;
        Ok(Change { moves: self.fleet.census.moves().len(), due: 0, seconds, cpu_seconds })
    }
}

//! The planner alone: how long a plan takes, cold, after a death, after a join, and when nothing has changed.
//!
//! The mailboxes have log-normal weights, so that some are a hundred times heavier than others. What is timed is the
//! planner itself, without the store and without the network.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::time::Duration;

use anyhow::Result;
use clap::Args as ClapArgs;
use postroom_control_plane::lease::plan::{Limits, Mailbox, Plan, Seat, State, Worker, plan};
use postroom_control_plane::lease::profile::Role;
use postroom_control_plane::store::Revision;
use postroom_proto::id::{MailboxUid, SessionId};
use tokio::time::Instant;

/// What is planned.
#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    /// Mailboxes to plan for.
    #[arg(long, default_value_t = 100_000)]
    mailboxes: usize,
    /// Workers that read them.
    #[arg(long, default_value_t = 100)]
    workers: usize,
    /// Each plan is made so often; the median is told.
    #[arg(long, default_value_t = 5)]
    runs: usize,
}

type Seats = HashMap<MailboxUid, SessionId>;

pub(crate) fn run(args: &Args) -> Result<()> {
    let mailboxes = mailboxes(args.mailboxes)?;
    let workers = (0..args.workers).map(|i| worker(i, State::Taking)).collect::<Result<Vec<_>>>()?;
    let mut told = String::new();
    let mut tell = |what: &str, workers: &[Worker], seats: &Seats| {
        let (time, after, moves) = timed(args.runs, &mailboxes, workers, seats);
        let _ = writeln!(told, "{what:<16} {:>8.1} ms  {moves:>7} moves", time.as_secs_f64() * 1000.0);
        after
    };
    let seats = tell("cold", &workers, &Seats::new());
    tell("nothing changed", &workers, &seats);
    let mut died = workers.clone();
    if let Some(dead) = died.first_mut() {
        dead.state = State::Ended { seats_until: None, silent: true };
    }
    tell("one died", &died, &seats);
    let mut joined = workers;
    joined.push(worker(args.workers, State::Taking)?);
    tell("one joined", &joined, &seats);
    crate::table::print(&told)
}

/// The median time of a plan, the seats once it is carried out, and how many of them have changed.
fn timed(runs: usize, mailboxes: &[Mailbox], workers: &[Worker], seats: &Seats) -> (Duration, Seats, usize) {
    let mut times = Vec::new();
    let mut planned: Option<Plan<'_>> = None;
    for _ in 0..runs.max(1) {
        let began = Instant::now();
        let seated: Vec<Option<Seat<'_>>> = mailboxes
            .iter()
            .map(|mailbox| seats.get(&mailbox.uid).map(|session| Seat { session, home: None, pinned: false }))
            .collect();
        planned = Some(plan(Duration::from_secs(100), mailboxes, workers, Limits::NONE, &seated));
        times.push(began.elapsed());
    }
    times.sort_unstable();
    let (mut after, mut moves) = (Seats::new(), 0);
    for (mailbox, wanted) in mailboxes.iter().zip(planned.into_iter().flat_map(|plan| plan.wanted)) {
        if let Some(session) = wanted.session() {
            moves += usize::from(seats.get(&mailbox.uid) != Some(session));
            after.insert(mailbox.uid.clone(), session.clone());
        }
    }
    (times[times.len() / 2], after, moves)
}

/// Log-normal weights (median 100, sigma 1), the same in every run.
fn mailboxes(count: usize) -> Result<Vec<Mailbox>> {
    let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut uniform = move || {
        // SplitMix64: spread evenly, and no dependency for a few lines.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = state;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((bits ^ (bits >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    };
    let pool: std::sync::Arc<str> = "default".into();
    let mailboxes = (0..count).map(|i| {
        let normal = (-2.0 * uniform().max(f64::MIN_POSITIVE).ln()).sqrt() * (std::f64::consts::TAU * uniform()).cos();
        let uid = MailboxUid::parse(&format!("mbx-{i:024x}"))?;
        Ok(Mailbox { uid, weight: (100.0 * normal.exp()).max(1.0) as u32, pool: pool.clone() })
    });
    mailboxes.collect()
}

fn worker(i: usize, state: State) -> Result<Worker> {
    Ok(Worker {
        session: SessionId::parse(&format!("{i:032x}"))?,
        name: format!("worker-{i}"),
        pool: "default".into(),
        role: Role::Active,
        role_set: false,
        capacity: 0,
        drained: false,
        settled: true,
        born: Revision(i as u64 + 1),
        state,
    })
}

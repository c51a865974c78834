//! The lease protocol under chaos: the real desk and the real holder in a simulated cluster. One seed is one schedule.
//!
//! What must hold, whatever happens: after a mailbox was opened under a fence, nothing is committed under a lower one;
//! the commits of a mailbox have no gap and no message twice; no two running processes may write to one mailbox at a
//! time; epochs only grow; nobody reads a mailbox of another pool; nobody is ended while most have just fallen silent,
//! nor for silence that was the leader's own; whoever was suspended goes on as it was; nothing is opened under a lease
//! that was lost meanwhile; and when all is quiet every mailbox is read by somebody, the load being even, spares empty,
//! and nobody beyond its capacity.
//!
//! Each rule that carries this has a test that switches it off and must see it break. LEASE_SIM_SEEDS sets which
//! schedules are tried, LEASE_SIM_COUNT counts all that a mutation breaks instead of stopping at the first.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "all of this crate is a test")]

use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::mutation::Mutation;
use crate::world::{Counts, World};

mod attention;
mod chaos;
mod commit;
mod fleet;
mod ledger;
mod mutation;
mod process;
mod reading;
mod replica;
mod serving;
mod store;
mod world;

/// Schedules to try: 300, or a range such as `1154..1155` from LEASE_SIM_SEEDS.
fn seeds() -> Range<u64> {
    let given = std::env::var("LEASE_SIM_SEEDS").ok();
    let range = given.as_deref().and_then(|text| text.split_once(".."));
    range.map_or(0..300, |(first, end)| first.parse().unwrap()..end.parse().unwrap())
}

struct Found {
    seed: u64,
    violations: Vec<String>,
}

/// Runs seeds on all cores, until one is violated if `first` says so.
fn run(mutation: Option<Mutation>, first: bool) -> (Vec<Found>, Counts) {
    let seeds = seeds();
    let next = AtomicU64::new(seeds.start);
    let found = Mutex::new((Vec::new(), Counts::default()));
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end || (first && !found.lock().unwrap().0.is_empty()) {
                return;
            }
            let (violations, counts) = World::run(seed, mutation);
            let mut found = found.lock().unwrap();
            found.1.add(counts);
            if !violations.is_empty() {
                found.0.push(Found { seed, violations });
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(work);
        }
    });
    found.into_inner().unwrap()
}

fn must_break(mutation: Mutation) {
    // With LEASE_SIM_COUNT set, all seeds are run and counted.
    let count = std::env::var_os("LEASE_SIM_COUNT").is_some();
    let (found, _) = run(Some(mutation), !count);
    assert!(!found.is_empty(), "{mutation:?} broke nothing in seeds {:?}", seeds());
    let Found { seed, violations } = &found[0];
    println!("{mutation:?}: {} seeds broke; seed {seed}: {}", found.len(), violations[0]);
}

#[test]
fn nothing_breaks_under_chaos() {
    let (found, counts) = run(None, false);
    println!("{counts:?}");
    for Found { seed, violations } in &found {
        println!("seed {seed}: {}", violations.join("\n  "));
    }
    assert!(found.is_empty(), "{} of the seeds {:?} broke", found.len(), seeds());
    // The run was not idle.
    assert!(
        counts.commits > seeds().count() as u64 * 500
            && counts.refused > 0
            && counts.unknown > 0
            && counts.resumed > 0
            && counts.decisions > 0
            && counts.stood_in > 0
            && counts.lapsed > 0
            && counts.braked > 0
            && counts.spread > 0
            && counts.overtaken > 0
            && counts.partly > 0,
        "{counts:?}"
    );
}

#[test]
fn trust_is_anchored_at_sending() {
    must_break(Mutation::AnchorAtReceipt);
}

#[test]
fn a_new_leader_gives_grace() {
    must_break(Mutation::NoGrace);
}

#[test]
fn release_is_awaited() {
    must_break(Mutation::ReleaseNotAwaited);
}

#[test]
fn late_answers_are_dropped() {
    must_break(Mutation::LateAnswersAccepted);
}

#[test]
fn what_is_in_flight_is_offered_to_nobody() {
    must_break(Mutation::OfferedInFlight);
}

#[test]
fn writes_are_guarded_by_the_leaders_key() {
    must_break(Mutation::NoLeaderCompare);
}

#[test]
fn an_office_ends_with_its_trust() {
    must_break(Mutation::OfficeKept);
}

#[test]
fn whoever_is_not_trusted_decides_nothing() {
    must_break(Mutation::RoundUntrusted);
}

#[test]
fn mass_silence_ends_nobody() {
    must_break(Mutation::BrakeReleased);
}

#[test]
fn who_is_not_trusted_writes_nothing() {
    must_break(Mutation::SuspensionIgnored);
}

#[test]
fn who_is_suspended_stays_connected() {
    must_break(Mutation::SuspensionCloses);
}

#[test]
fn what_begins_late_is_still_held() {
    must_break(Mutation::RampUnchecked);
}

#[test]
fn what_is_taken_over_begins_at_once() {
    must_break(Mutation::RampForAll);
}

#[test]
fn outcomes_of_opening_are_told_apart() {
    must_break(Mutation::OutcomesByPlace);
}

#[test]
fn a_mailbox_that_cannot_be_opened_holds_up_no_other() {
    must_break(Mutation::OneFailureFailsAll);
}

#[test]
fn reports_are_compared_with_the_fence() {
    must_break(Mutation::NoFence);
}

#[test]
fn only_whom_the_store_names_opens_a_mailbox() {
    must_break(Mutation::OpenUnchecked);
}

#[test]
fn spares_give_back() {
    must_break(Mutation::SpareKeeps);
}

#[test]
fn workers_read_their_pool() {
    must_break(Mutation::PoolIgnored);
}

#[test]
fn what_is_drained_is_given_up() {
    must_break(Mutation::DrainForgotten);
}

#[test]
fn reports_are_compared_with_the_cursor() {
    must_break(Mutation::NoCursorCompare);
}

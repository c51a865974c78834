//! Virtual time, chance, and everybody who acts in it.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use postroom_proto::id::MailboxUid;
use postroom_proto::lease::{LeaseTerms, Moment};
use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt as _, SeedableRng as _};

use crate::fleet::{self, Fleet};
use crate::ledger::Ledger;
use crate::mutation::Mutation;
use crate::process::{self, Process};
use crate::replica::{self, Replica};
use crate::store::Store;

pub(crate) const MAILBOXES: usize = 60;
/// A mailbox that is leased and cannot be opened, as when a secret of its definition cannot be read.
pub(crate) const BROKEN: usize = 5;
/// The clock does not begin at zero, so that a mutation can lie about the past.
const START: f64 = 100.0;
/// Chaos ends here.
const QUIET: f64 = START + 420.0;
const END: f64 = START + 600.0;

type Event = Box<dyn FnOnce(&mut World)>;

/// Somebody who can freeze.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Actor {
    Replica(usize),
    Process(usize),
}

pub(crate) struct World {
    pub(crate) now: Moment,
    pub(crate) terms: LeaseTerms,
    pub(crate) fleet: Fleet,
    pub(crate) mutation: Option<Mutation>,
    pub(crate) store: Store,
    pub(crate) ledger: Ledger,
    pub(crate) replicas: Vec<Replica>,
    /// Every process that ever was; one that is down stays down.
    pub(crate) processes: Vec<Process>,
    /// The process that was started last under each name.
    pub(crate) current: Vec<usize>,
    pub(crate) definitions: Vec<u64>,
    pub(crate) counts: Counts,
    violations: Vec<String>,
    rng: Xoshiro256PlusPlus,
    queue: BinaryHeap<Reverse<Scheduled>>,
    scheduled: u64,
    minted: u64,
}

/// What happened, to see that a run was not idle.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Counts {
    pub(crate) commits: u64,
    pub(crate) refused: u64,
    pub(crate) moves: u64,
    pub(crate) terms_of_office: u64,
    pub(crate) unknown: u64,
    pub(crate) suspended: u64,
    pub(crate) resumed: u64,
    pub(crate) decisions: u64,
    /// Mailboxes that went to a spare.
    pub(crate) stood_in: u64,
    /// Leaders that were stopped and went on.
    pub(crate) slept: u64,
    pub(crate) stalled: u64,
    /// Terms of office that were given up because trust had lapsed.
    pub(crate) lapsed: u64,
    /// Rounds in which the brake kept everybody.
    pub(crate) braked: u64,
    /// Mailboxes that began at a moment of their own, and those of them that were let go before it came.
    pub(crate) spread: u64,
    pub(crate) overtaken: u64,
    /// Calls that opened some of their mailboxes and others not.
    pub(crate) partly: u64,
}

impl Counts {
    pub(crate) fn add(&mut self, other: Self) {
        self.commits += other.commits;
        self.refused += other.refused;
        self.moves += other.moves;
        self.terms_of_office += other.terms_of_office;
        self.unknown += other.unknown;
        self.suspended += other.suspended;
        self.resumed += other.resumed;
        self.decisions += other.decisions;
        self.stood_in += other.stood_in;
        self.slept += other.slept;
        self.stalled += other.stalled;
        self.lapsed += other.lapsed;
        self.braked += other.braked;
        self.spread += other.spread;
        self.overtaken += other.overtaken;
        self.partly += other.partly;
    }
}

struct Scheduled {
    at: Moment,
    order: u64,
    event: Event,
}

impl World {
    /// Runs one seed to its end and tells what was violated.
    pub(crate) fn run(seed: u64, mutation: Option<Mutation>) -> (Vec<String>, Counts) {
        let fleet = Fleet::of(seed);
        let mut world = Self {
            now: seconds(START),
            terms: LeaseTerms::default(),
            fleet,
            mutation,
            store: Store::default(),
            ledger: Ledger::default(),
            replicas: (0..fleet.replicas).map(|_| Replica::default()).collect(),
            processes: Vec::new(),
            current: vec![0; fleet.workers()],
            definitions: vec![1; MAILBOXES],
            counts: Counts::default(),
            violations: Vec::new(),
            rng: Xoshiro256PlusPlus::seed_from_u64(seed),
            queue: BinaryHeap::new(),
            scheduled: 0,
            minted: 0,
        };
        for i in 0..fleet.replicas {
            replica::start(&mut world, i);
        }
        for name in 0..fleet.workers() {
            process::start(&mut world, name);
        }
        world.at(1.0, crate::chaos::strike);
        world.at(0.5, probe);
        world.at(QUIET - START, fleet::calm);
        while let Some(Reverse(next)) = world.queue.pop().filter(|next| next.0.at < seconds(END)) {
            world.now = next.at;
            (next.event)(&mut world);
            // One violation says it; after that the run only costs time.
            if !world.violations.is_empty() {
                return (world.violations, world.counts);
            }
        }
        world.check_end();
        (world.violations, world.counts)
    }

    pub(crate) fn violated(&mut self, what: impl std::fmt::Display) {
        let at = self.now.as_secs_f64();
        self.violations.push(format!("{at:.3} s: {what}"));
    }

    pub(crate) fn is(&self, mutation: Mutation) -> bool {
        self.mutation == Some(mutation)
    }

    pub(crate) fn at(&mut self, delay: f64, event: impl FnOnce(&mut Self) + 'static) {
        self.schedule(self.now + seconds(delay), Box::new(event));
    }

    /// Runs the event once the actor is not frozen; never, when it is down by then or was started anew meanwhile.
    pub(crate) fn when(&mut self, actor: Actor, event: impl FnOnce(&mut Self) + 'static) {
        let life = self.life(actor);
        self.wake(actor, life, Box::new(event));
    }

    /// Runs the event as soon as the store answers.
    pub(crate) fn at_store(&mut self, event: impl FnOnce(&mut Self) + 'static) {
        match self.store.stalled_until(self.now) {
            None => event(self),
            Some(until) => self.schedule(until, Box::new(move |world| world.at_store(event))),
        }
    }

    /// Over the network: lost, late and out of order while chaos reigns.
    pub(crate) fn send(&mut self, from: Actor, to: Actor, event: impl FnOnce(&mut Self) + 'static) {
        if self.is_cut_off(from) || self.is_cut_off(to) {
            return;
        }
        let delay = if !self.chaotic() {
            self.chance(0.0, 0.02)
        } else if self.likely(0.08) {
            return;
        } else if self.likely(0.8) {
            self.chance(0.0, 0.05)
        } else {
            self.chance(0.0, 7.0)
        };
        self.at(delay, move |world| world.when(to, event));
    }

    pub(crate) fn chaotic(&self) -> bool {
        self.now < seconds(QUIET)
    }

    pub(crate) fn chance(&mut self, from: f64, to: f64) -> f64 {
        self.rng.random_range(from..to)
    }

    pub(crate) fn likely(&mut self, probability: f64) -> bool {
        self.chance(0.0, 1.0) < probability
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.rng.random_range(0..from.len())]
    }

    pub(crate) fn any_replica(&mut self) -> usize {
        self.rng.random_range(0..self.replicas.len())
    }

    /// A number that nobody had before.
    pub(crate) fn mint(&mut self) -> u64 {
        self.minted += 1;
        self.minted
    }

    pub(crate) fn freeze(&mut self, actor: Actor, time: f64) {
        let (now, until) = (self.now, self.now + seconds(time));
        let frozen = match actor {
            Actor::Replica(i) => {
                self.replicas[i].misses(now..until);
                &mut self.replicas[i].frozen_until
            }
            Actor::Process(i) => &mut self.processes[i].frozen_until,
        };
        *frozen = until.max(*frozen);
    }

    /// No message reaches a process, and none of its own arrives.
    pub(crate) fn cut_off(&mut self, process: usize, time: f64) {
        let until = self.now + seconds(time);
        let cut_off = &mut self.processes[process].cut_off_until;
        *cut_off = until.max(*cut_off);
    }

    fn is_cut_off(&self, actor: Actor) -> bool {
        match actor {
            Actor::Replica(_) => false,
            Actor::Process(i) => self.chaotic() && self.now < self.processes[i].cut_off_until,
        }
    }

    pub(crate) fn frozen_until(&self, actor: Actor) -> Moment {
        match actor {
            Actor::Replica(i) => self.replicas[i].frozen_until,
            Actor::Process(i) => self.processes[i].frozen_until,
        }
    }

    /// Every process that runs and believes that it may write to the mailbox.
    pub(crate) fn writers(&self, mailbox: &MailboxUid) -> impl Iterator<Item = usize> {
        let writes = |(_, process): &(usize, &Process)| process.may_write(self.now, mailbox);
        self.processes.iter().enumerate().filter(writes).map(|(i, _)| i)
    }

    fn life(&self, actor: Actor) -> Option<u64> {
        match actor {
            Actor::Replica(i) => Some(self.replicas[i].life),
            Actor::Process(i) => self.processes[i].up.then_some(0),
        }
    }

    fn wake(&mut self, actor: Actor, life: Option<u64>, event: Event) {
        let until = self.frozen_until(actor);
        if life.is_none() || self.life(actor) != life {
        } else if self.now < until {
            // What has waited comes in any order.
            let at = until + seconds(self.chance(0.0, 0.05));
            self.schedule(at, Box::new(move |world| world.wake(actor, life, event)));
        } else {
            event(self);
        }
    }

    fn schedule(&mut self, at: Moment, event: Event) {
        self.scheduled += 1;
        self.queue.push(Reverse(Scheduled { at, order: self.scheduled, event }));
    }

    fn check_end(&mut self) {
        let mut loads = vec![0; self.fleet.workers()];
        for i in 0..MAILBOXES {
            let mailbox = mailbox(i);
            let reads = |&process: &usize| i == BROKEN || self.processes[process].reads(&mailbox);
            let owner = self.writers(&mailbox).find(reads);
            match owner {
                Some(owner) => {
                    let name = self.processes[owner].name;
                    loads[name] += 1;
                    if let Some(wrong) = self.fleet.misplaced(name, i) {
                        self.violated(wrong);
                    }
                }
                None => self.violated(format_args!("nobody reads {mailbox} at the end")),
            }
        }
        if self.fleet.uneven(&loads) {
            self.violated(format_args!("the loads at the end are {loads:?}"));
        }
    }
}

/// No two running processes may write to one mailbox.
fn probe(world: &mut World) {
    let mut owners = vec![None; MAILBOXES];
    let mut overlaps = Vec::new();
    for (i, process) in world.processes.iter().enumerate() {
        for mailbox in process.writable(world.now) {
            if let Some(other) = owners[number(mailbox)].replace(i) {
                overlaps.push(format!("processes {other} and {i} both hold {mailbox}"));
            }
        }
    }
    for overlap in overlaps {
        world.violated(overlap);
    }
    world.at(0.5, probe);
}

pub(crate) fn mailbox(number: usize) -> MailboxUid {
    MailboxUid::parse(&format!("mbx-{number:024x}")).unwrap()
}

pub(crate) fn number(mailbox: &MailboxUid) -> usize {
    usize::from_str_radix(&mailbox.as_str()["mbx-".len() + 20..], 16).unwrap()
}

pub(crate) fn seconds(time: f64) -> Duration {
    Duration::from_secs_f64(time)
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}

impl Eq for Scheduled {}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

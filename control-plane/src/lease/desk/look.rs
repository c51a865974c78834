//! How the desk looks to people: the workers, and why nobody reads a mailbox. Changes nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use postroom_proto::id::{MailboxUid, SessionId};
use postroom_proto::lease::Moment;
use postroom_proto::v1::{UnassignedReason, WorkerState};

use super::session::{Life, Phase};
use super::{Desk, Seen};
use crate::lease::decision::{Decision, Freeze};
use crate::lease::profile::Role;
use crate::ledger::Micros;

/// After so many heartbeats that did not come a worker counts as silent.
const MISSED: u32 = 3;

/// A worker by its name, as people look at it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerSeen {
    /// Stable name.
    pub name: String,
    /// How it is.
    pub state: WorkerState,
    /// The pool whose mailboxes it reads. Empty: not known, since it has no session.
    pub pool: String,
    /// What it is for now.
    pub role: Role,
    /// Most mailboxes that it can read; 0: no limit.
    pub capacity: u32,
    /// Mailboxes that are assigned to it.
    pub assigned: usize,
    /// Of those, the ones that it listed in its last heartbeat.
    pub held: usize,
    /// Names of the workers whose mailboxes it holds in their place.
    pub stands_in_for: BTreeSet<String>,
    /// What operators have decided about it.
    pub decision: Option<Decision>,
    /// Its session, unless it is gone.
    pub session: Option<SessionId>,
    /// Version of its process.
    pub build: String,
    /// When its session began.
    pub begun: Option<Micros>,
    /// How long ago it was last heard; `None`: not by this desk.
    pub silent_for: Option<Duration>,
}

impl WorkerSeen {
    /// A worker of which nothing is known but its name.
    pub fn gone(name: &str) -> Self {
        Self {
            name: name.into(),
            state: WorkerState::Gone,
            pool: String::new(),
            role: Role::Active,
            capacity: 0,
            assigned: 0,
            held: 0,
            stands_in_for: BTreeSet::new(),
            decision: None,
            session: None,
            build: String::new(),
            begun: None,
            silent_for: None,
        }
    }
}

/// The fleet, as people look at it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FleetSeen {
    /// Every worker whose session lives, that is expected back or about which something was decided, by name.
    pub workers: Vec<WorkerSeen>,
    /// Nothing moves that has a seat.
    pub freeze: Option<Freeze>,
    /// How long nobody will be ended yet because too many are silent at once.
    pub brake: Option<Duration>,
}

impl Desk {
    /// The sessions that live, by worker.
    pub fn seen(&self, now: Moment) -> Vec<Seen> {
        let mut seen = self.sessions.seen(now);
        for session in &mut seen {
            session.mailboxes = self.owned.get(&session.session).map_or(0, BTreeMap::len);
        }
        seen.sort_by(|a, b| (&a.worker, &a.session).cmp(&(&b.worker, &b.session)));
        seen
    }

    /// The fleet.
    pub fn fleet(&self, now: Moment) -> FleetSeen {
        let workers = self.sessions.names().into_iter().filter_map(|name| self.worker(now, name));
        FleetSeen { workers: workers.collect(), freeze: self.freeze.clone(), brake: self.brake(now) }
    }

    /// How long nobody will be ended yet because too many are silent at once.
    pub fn brake(&self, now: Moment) -> Option<Duration> {
        self.sessions.brake_until(now).map(|until| until.saturating_sub(now))
    }

    fn worker(&self, now: Moment, name: &str) -> Option<WorkerSeen> {
        let decision = self.sessions.decisions.get(name).cloned();
        let lives: Vec<(&SessionId, &Life)> =
            self.sessions.lives.iter().filter(|(_, life)| life.profile.worker == name).collect();
        let (mut assigned, mut stands_in_for) = (0, BTreeSet::new());
        for mailbox in lives.iter().filter_map(|(session, _)| self.owned.get(session)).flat_map(BTreeMap::keys) {
            assigned += 1;
            stands_in_for.extend(self.assignments.get(mailbox).and_then(|assignment| assignment.home.clone()));
        }
        let current = |life: &Life| matches!(life.phase, Phase::Alive) || life.returns(now);
        let newest = lives.into_iter().filter(|(_, life)| current(life)).max_by_key(|(_, life)| life.revision);
        let set = decision.as_ref().and_then(|decision| decision.role);
        let Some((session, life)) = newest else {
            // Without a session only what is in force about it keeps it known.
            let in_force = decision.filter(|decision| decision.drained || decision.role.is_some());
            let gone = WorkerSeen { role: set.unwrap_or_default(), assigned, ..WorkerSeen::gone(name) };
            return in_force.map(|decision| WorkerSeen { decision: Some(decision), ..gone });
        };
        let role = set.unwrap_or(life.profile.role);
        let owned = self.owned.get(session);
        let held = life.heard.iter().flat_map(|heard| &heard.held);
        let held = held.filter(|it| owned.is_some_and(|owned| owned.get(&it.mailbox) == Some(&it.epoch)));
        Some(WorkerSeen {
            name: name.into(),
            state: self.state(now, life),
            pool: life.profile.pool.clone(),
            role,
            capacity: life.profile.capacity,
            assigned,
            held: held.count(),
            stands_in_for: if role == Role::Spare { stands_in_for } else { BTreeSet::new() },
            decision,
            session: matches!(life.phase, Phase::Alive).then(|| session.clone()),
            build: life.profile.build.clone(),
            begun: life.begun,
            silent_for: life.heard.as_ref().map(|_| life.silent_for(now)),
        })
    }

    fn state(&self, now: Moment, life: &Life) -> WorkerState {
        if !matches!(life.phase, Phase::Alive) {
            WorkerState::Returning
        } else if life.silent_for(now) > self.terms.heartbeat * MISSED + self.terms.heartbeat_timeout {
            WorkerState::Silent
        } else if life.heard.as_ref().is_some_and(|heard| heard.draining) {
            WorkerState::Stopping
        } else {
            WorkerState::Live
        }
    }

    /// Why nobody reads each of these mailboxes; those that somebody has are left out.
    pub fn unassigned(&self, now: Moment, mailboxes: &[MailboxUid]) -> HashMap<MailboxUid, UnassignedReason> {
        let reason = |mailbox: &MailboxUid| {
            if let Some(reason) = self.unplaced.get(mailbox) {
                return Some(*reason);
            }
            let Some(owner) = self.assignments.get(mailbox) else { return Some(UnassignedReason::Moving) };
            if !self.sessions.is_over(&owner.session) {
                return None;
            }
            Some(match self.sessions.returns(now, &owner.session) {
                true => UnassignedReason::WorkerReturns,
                false if self.freeze.is_some() => UnassignedReason::Frozen,
                false => UnassignedReason::Moving,
            })
        };
        mailboxes.iter().filter_map(|mailbox| Some((mailbox.clone(), reason(mailbox)?))).collect()
    }
}

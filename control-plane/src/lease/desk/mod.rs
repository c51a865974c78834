//! The leader's desk: what one replica must remember and decide while it leads, and nothing else. Pure.
//!
//! The desk lives for one term of office. It begins with what the store holds ([`Desk::take_office`]), hears sessions
//! ([`Desk::heartbeat`]), and in rounds ([`Desk::round`]) intends writes that the shell carries out and reports back
//! ([`Desk::session_settled`] and others). Every write must be guarded by the leader's key and by the
//! revision that the intent names, so that a leader that was replaced without noticing changes nothing.
//!
//! What operators have decided it is told ([`Desk::decide`]), and people look at it through [`look`].
//!
//! Invariant: a mailbox is in the answer to at most one session, that to which it is assigned, and in nobody's while
//! anything about it is under way. See `handover` for how it changes hands, `session` for when a session is ended and
//! `brake` for when none is.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;

use postroom_proto::id::{Epoch, MailboxUid, SessionId};
use postroom_proto::lease::{LeaseTerms, Moment};
use postroom_proto::v1::{MoveReason, UnassignedReason};

use super::decision::Freeze;
use super::plan::{self, Limits, Mailbox, Seat, Wanted};
use crate::ledger::Micros;
use crate::store::Revision;

mod brake;
#[cfg(test)]
mod fleet_tests;
mod gathering;
mod handover;
mod intent;
pub mod look;
mod session;
#[cfg(test)]
mod tests;
mod word;

pub use brake::BRAKE;
pub use gathering::{CALM, LONGEST};
pub use handover::DRAIN_MAX;
pub use intent::{Assign, EndSession, Forget, Settled, Unassign, Write};
pub use session::{REJOIN, REMEMBERED, SETTLED};
pub use word::{Assignment, Decided, Ended, Heartbeat, Held, Offer, Refusal, Running, Seen, Session};

/// Most moves at a time that nothing but the wish for a better place asks for.
pub const VOLUNTARY: usize = 200;
/// How long a mailbox stays that was moved to even out the load.
pub const PINNED: Duration = Duration::from_secs(60);

/// The soft state of one term of office.
#[derive(Debug)]
pub struct Desk {
    terms: LeaseTerms,
    office: Moment,
    sessions: session::Roster,
    assignments: HashMap<MailboxUid, Assignment>,
    /// Mailboxes by owner; the other side of `assignments`.
    owned: HashMap<SessionId, BTreeMap<MailboxUid, Epoch>>,
    handovers: handover::Handovers,
    /// Why the last plan found nobody for a mailbox.
    unplaced: HashMap<MailboxUid, UnassignedReason>,
    /// What was moved to even out the load, and until when it stays.
    pinned: HashMap<MailboxUid, Moment>,
    freeze: Option<Freeze>,
    /// When the freeze ends by itself.
    thaw: Option<Moment>,
    gathering: gathering::Gathering,
    /// Something happened that a round may act on.
    stirred: bool,
    /// There is more to move than may be moved at a time.
    capped: bool,
    last_round: Option<Moment>,
}

impl Desk {
    /// Begins a term of office, with everything that the store holds. `term` is the revision that wrote the leader's key;
    /// every answer to a heartbeat names it.
    ///
    /// Ordering: read it after the leader's key was won. Only then no write of a former leader can follow the reading.
    pub fn take_office(
        now: Moment,
        term: Revision,
        terms: LeaseTerms,
        sessions: impl IntoIterator<Item = Session>,
        assignments: impl IntoIterator<Item = (MailboxUid, Assignment)>,
    ) -> Self {
        let mut desk = Self {
            terms,
            office: now,
            sessions: session::Roster::found(now, term, terms, sessions),
            assignments: HashMap::new(),
            owned: HashMap::new(),
            handovers: handover::Handovers::default(),
            unplaced: HashMap::new(),
            pinned: HashMap::new(),
            freeze: None,
            thaw: None,
            gathering: gathering::Gathering::default(),
            stirred: true,
            capped: false,
            last_round: None,
        };
        for (mailbox, assignment) in assignments {
            desk.set_assignment(&mailbox, Some(assignment));
        }
        desk
    }

    /// Takes in what operators have decided, instead of what was known. `wall` is the time of day at `now`.
    pub fn decide(&mut self, now: Moment, wall: Micros, decided: Decided) {
        let Decided { workers, freeze } = decided;
        let freeze = freeze.filter(|freeze| freeze.holds(wall));
        self.stirred |= self.sessions.decisions != workers || self.freeze != freeze;
        self.sessions.decisions = workers;
        let left = |until: Micros| Duration::from_micros(u64::try_from(until.saturating_sub(wall)).unwrap_or(0));
        self.thaw = freeze.as_ref().and_then(|freeze| freeze.until).map(|until| now + left(until));
        self.freeze = freeze;
    }

    /// Takes in a session whose record was just committed. Counts as its first heartbeat.
    pub fn register(&mut self, now: Moment, session: Session) {
        self.sessions.register(now, session);
        self.gathering.joined(now);
        self.stirred = true;
    }

    /// Hears a session and answers with everything it should hold. A heartbeat that was overtaken by a later one is
    /// answered, but changes nothing.
    pub fn heartbeat(&mut self, now: Moment, heartbeat: &Heartbeat) -> Result<Vec<Offer>, Refusal> {
        self.stirred |= self.sessions.hear(now, heartbeat)?;
        let Some(owned) = self.owned.get(&heartbeat.session) else { return Ok(Vec::new()) };
        let quiet = self.handovers.is_quiet();
        if quiet && !heartbeat.draining {
            let offers = owned.iter().map(|(mailbox, &epoch)| Offer { mailbox: mailbox.clone(), epoch });
            return Ok(offers.collect());
        }
        let held = self.sessions.held(&heartbeat.session);
        let mut offers = Vec::with_capacity(owned.len());
        for (mailbox, &epoch) in owned {
            let holds = session::holds(held, mailbox, epoch);
            if self.handovers.under_way(mailbox) {
                self.stirred |= !holds && self.handovers.awaits(mailbox);
            } else if holds || !heartbeat.draining {
                offers.push(Offer { mailbox: mailbox.clone(), epoch });
            }
        }
        Ok(offers)
    }

    /// A session that has let go of everything says goodbye. Answers the write to be done before the goodbye is
    /// confirmed; `None`: it has ended already, or its end is being written.
    pub fn leave(&mut self, session: &SessionId, returning: bool) -> Option<EndSession> {
        self.sessions.end(session, returning)
    }

    /// Decides what to write now. `mailboxes` are all that should be read. What is intended here is under way until it
    /// is settled.
    pub fn round(&mut self, now: Moment, mailboxes: &[Mailbox]) -> Vec<Write> {
        self.stirred = false;
        self.last_round = Some(now);
        if self.thaw.is_some_and(|thaw| now >= thaw) {
            (self.freeze, self.thaw) = (None, None);
        }
        let frozen = self.freeze.is_some();
        let ends = self.sessions.end_silent(now, frozen);
        let mut writes: Vec<_> = ends.into_iter().map(Write::EndSession).collect();
        if now < self.office + self.terms.settle() {
            return writes;
        }
        self.pinned.retain(|_, until| now < *until);
        let workers = self.sessions.workers(now);
        let seated = mailboxes.iter().filter(|mailbox| self.assignments.contains_key(&mailbox.uid)).count();
        let gone = if seated < self.assignments.len() { self.no_longer_read(mailboxes) } else { Vec::new() };
        // More than can be evened out in one go waits until the workers are there. What somebody has does not.
        let waits = mailboxes.len() - seated > VOLUNTARY && self.gathering.until().is_some_and(|until| now < until);
        let mailboxes: Cow<'_, [Mailbox]> = match waits {
            true => mailboxes.iter().filter(|it| self.assignments.contains_key(&it.uid)).cloned().collect(),
            false => mailboxes.into(),
        };
        let owners: Vec<Option<&Assignment>> =
            mailboxes.iter().map(|mailbox| self.assignments.get(&mailbox.uid)).collect();
        let seats = mailboxes.iter().zip(&owners).map(|(mailbox, owner)| {
            owner.map(|owner| Seat {
                session: &owner.session,
                home: owner.home.as_deref(),
                pinned: self.pinned.contains_key(&mailbox.uid),
            })
        });
        let seats: Vec<Option<Seat<'_>>> = seats.collect();
        let plan = plan::plan(now, &mailboxes, &workers, Limits { voluntary: VOLUNTARY, frozen }, &seats);
        self.capped = plan.capped;
        self.unplaced = mailboxes
            .iter()
            .zip(&plan.wanted)
            .filter_map(|(mailbox, wanted)| match wanted {
                Wanted::Nobody(reason) => Some((mailbox.uid.clone(), *reason)),
                Wanted::At { .. } => None,
            })
            .collect();
        let wanted = mailboxes.iter().map(|mailbox| &mailbox.uid).zip(plan.wanted);
        let (moves, retired) = self.handovers.advance(now, wanted, &gone, &self.assignments, &self.sessions);
        writes.extend(moves.into_iter().map(Write::Assign));
        writes.extend(retired.into_iter().map(Write::Unassign));
        writes.extend(
            self.sessions.forget(now, |session| self.owned.contains_key(session)).into_iter().map(Write::Forget),
        );
        writes
    }

    /// Assignments of mailboxes that are not among these, in the order of their uids.
    fn no_longer_read(&self, mailboxes: &[Mailbox]) -> Vec<(MailboxUid, Assignment)> {
        let read: HashSet<&MailboxUid> = mailboxes.iter().map(|mailbox| &mailbox.uid).collect();
        let gone = self.assignments.iter().filter(|(mailbox, _)| !read.contains(mailbox));
        let mut gone: Vec<_> = gone.map(|(mailbox, owner)| (mailbox.clone(), owner.clone())).collect();
        gone.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        gone
    }

    /// Says what became of an [`EndSession`], with the session's record.
    pub fn session_settled(&mut self, now: Moment, write: &EndSession, settled: Settled<Session>) {
        self.sessions.settle(now, write, settled);
        self.stirred = true;
    }

    /// Says what became of an [`Assign`].
    pub fn mailbox_settled(&mut self, now: Moment, write: &Assign, settled: Settled<Assignment>) {
        let committed = matches!(settled, Settled::Committed(_));
        if committed && write.reason == MoveReason::Balance {
            self.pinned.insert(write.mailbox.clone(), now + PINNED);
        }
        let assigned = |epoch| Assignment { session: write.to.clone(), epoch, home: write.home.clone() };
        self.settle(&write.mailbox, settled, |epoch| Some(assigned(epoch)));
        // A move that went as it was planned asks for no other plan.
        self.stirred |= !committed || self.capped || self.handovers.missed();
    }

    /// Says what became of an [`Unassign`].
    pub fn mailbox_retired(&mut self, write: &Unassign, settled: Settled<Assignment>) {
        self.settle(&write.mailbox, settled, |_| None);
        // It may have come back meanwhile.
        self.stirred = true;
    }

    /// Says whether a session's record is gone, after a [`Forget`].
    pub fn session_forgotten(&mut self, now: Moment, write: &Forget, gone: bool) {
        self.sessions.forgotten(now, &write.session, gone);
    }

    fn settle(
        &mut self,
        mailbox: &MailboxUid,
        settled: Settled<Assignment>,
        committed: impl FnOnce(Epoch) -> Option<Assignment>,
    ) {
        let expected = self.assignments.get(mailbox).map(|assignment| assignment.epoch);
        let unchanged = |found: &Option<Assignment>| found.as_ref().map(|assignment| assignment.epoch) == expected;
        let assignment = match settled {
            Settled::Committed(Revision(revision)) => {
                self.handovers.certain(mailbox);
                committed(Epoch(revision))
            }
            // Unchanged: another write of the commit met a conflict, and what was in doubt before still is.
            Settled::Conflict(found) if unchanged(&found) => {
                self.handovers.settled(mailbox);
                found
            }
            // Unchanged: the write may still arrive.
            Settled::Unknown(found) if unchanged(&found) => {
                self.handovers.doubtful(mailbox);
                found
            }
            // Changed: every earlier write to this key has arrived or fails at its guard.
            Settled::Conflict(found) | Settled::Unknown(found) => {
                self.handovers.certain(mailbox);
                found
            }
        };
        self.set_assignment(mailbox, assignment);
    }

    /// When the next round is due at the latest, counted like `now`. `None`: not before something happens. Changes of
    /// the mailboxes are the caller's to notice.
    pub fn next_wake(&self, now: Moment) -> Option<Moment> {
        if self.stirred {
            return Some(now);
        }
        // What the last round has seen and not acted on waits for an event, not for the clock.
        let ahead = |at: &Moment| self.last_round.is_none_or(|last| *at > last);
        let settled = self.office + self.terms.settle();
        let own = self.thaw.into_iter().chain(self.pinned.values().copied()).chain([settled]);
        let own = own.chain(self.gathering.until());
        self.sessions.deadlines().chain(self.handovers.deadlines()).chain(own).filter(ahead).min()
    }

    /// The sessions that were asked to let something go since this was last called: they should send a heartbeat before
    /// the clock says so.
    pub fn take_nudged(&mut self) -> BTreeSet<SessionId> {
        self.handovers.take_nudged()
    }

    /// What the sessions that live say they run, by worker and session.
    pub fn running(&self) -> Vec<Running> {
        self.sessions.running()
    }

    /// Who has a mailbox, as far as this desk knows.
    pub fn assignment(&self, mailbox: &MailboxUid) -> Option<&Assignment> {
        self.assignments.get(mailbox)
    }

    fn set_assignment(&mut self, mailbox: &MailboxUid, assignment: Option<Assignment>) {
        if let Some(former) = self.assignments.remove(mailbox)
            && let Some(owned) = self.owned.get_mut(&former.session)
        {
            owned.remove(mailbox);
            if owned.is_empty() {
                self.owned.remove(&former.session);
            }
        }
        if let Some(assignment) = assignment {
            self.owned.entry(assignment.session.clone()).or_default().insert(mailbox.clone(), assignment.epoch);
            self.assignments.insert(mailbox.clone(), assignment);
        }
    }
}

//! The leader's desk: what one replica must remember and decide while it leads, and nothing else. Pure.
//!
//! The desk lives for one term of office. It begins with what the store holds ([`Desk::take_office`]), hears sessions
//! ([`Desk::heartbeat`]), and in rounds ([`Desk::round`]) intends writes that the shell carries out and reports back
//! ([`Desk::session_settled`], [`Desk::mailbox_settled`]). Every write must be guarded by the leader's key and by the
//! revision that the intent names, so that a leader that was replaced without noticing changes nothing.
//!
//! Invariant: a mailbox is in the answer to at most one session, that to which it is assigned, and in nobody's while
//! anything about it is under way. See `handover` for how it changes hands and `session` for when a session is ended.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use postroom_proto::id::{Epoch, MailboxUid, SessionId};
use postroom_proto::lease::{LeaseTerms, Moment};
use postroom_proto::v1::MoveReason;

use super::plan::{self, Mailbox};
use super::profile::Profile;
use crate::ledger::Micros;
use crate::store::Revision;

mod handover;
mod session;
#[cfg(test)]
mod tests;

pub use handover::DRAIN_MAX;
pub use session::REJOIN;

/// A session as the store has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// Which one.
    pub id: SessionId,
    /// What its worker said about itself.
    pub profile: Profile,
    /// When it began, for people. `None`: not recorded.
    pub begun: Option<Micros>,
    /// Set once it has ended.
    pub ended: Option<Ended>,
    /// Revision of its record. Invariant: the record of a session is written when it begins and when it ends, so while
    /// it lives this tells which of two sessions is the newer.
    pub revision: Revision,
}

/// How a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ended {
    /// It said that a process of the same name will be back soon.
    pub returning: bool,
    /// It did not say goodbye: it was not heard for too long.
    pub silent: bool,
}

/// Who has a mailbox, as the store has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// The owner.
    pub session: SessionId,
    /// Revision that made it the owner.
    pub epoch: Epoch,
    /// Name of the active worker that the owner, a spare, stands in for.
    pub home: Option<String>,
}

/// What a session says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heartbeat {
    /// Who speaks.
    pub session: SessionId,
    /// Counts the heartbeats of the session from 1.
    pub sequence: u64,
    /// Term of the last answer that it took; 0: none yet.
    pub term: u64,
    /// Everything it holds, mailboxes that it is letting go included.
    pub held: Vec<Held>,
    /// It is stopping and must be given nothing new.
    pub draining: bool,
}

/// A mailbox that a session says it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Which one.
    pub mailbox: MailboxUid,
    /// The epoch it is held under.
    pub epoch: Epoch,
    /// Revision of the definition that it is read by; 0: none yet. Decides nothing here.
    pub definition_revision: u64,
}

/// What a session that lives last said it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Running {
    /// Name of its worker.
    pub worker: String,
    /// Which one.
    pub session: SessionId,
    /// What it holds, and by which revision of its definition it reads each.
    pub held: BTreeMap<MailboxUid, u64>,
}

/// A mailbox that a session should hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// Which one.
    pub mailbox: MailboxUid,
    /// The epoch to open it with.
    pub epoch: Epoch,
}

/// A session that lives, as people look at it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Which one.
    pub session: SessionId,
    /// Name of its worker.
    pub worker: String,
    /// How long ago it was last heard; `None`: this desk never heard it.
    pub silent_for: Option<Duration>,
    /// It is stopping.
    pub draining: bool,
    /// Mailboxes that are assigned to it.
    pub mailboxes: usize,
}

/// Why a heartbeat gets no offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The session has ended, or its end is decided. It must let go of everything and register again.
    #[error("the session has ended")]
    Ended,
    /// The desk never heard of it. Read its record: if there is one that has not ended, it was made without this desk,
    /// so hand it to [`Desk::register`] if this replica still leads; otherwise the session has ended.
    #[error("the session is not known")]
    Unknown,
}

/// A write that the desk wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// To a session's record.
    EndSession(EndSession),
    /// To a mailbox's assignment.
    Assign(Assign),
}

/// Marks a session as ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndSession {
    /// Which one.
    pub session: SessionId,
    /// Guard: the revision of its record.
    pub expected: Revision,
    /// To be recorded with it.
    pub how: Ended,
}

/// Gives a mailbox to a session. The revision of the write becomes the epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assign {
    /// Which mailbox.
    pub mailbox: MailboxUid,
    /// Guard: the revision of the assignment; `None`: there must be none.
    pub expected: Option<Epoch>,
    /// The new owner.
    pub to: SessionId,
    /// Name of the active worker that the new owner, a spare, stands in for.
    pub home: Option<String>,
    /// Why it moves, for people.
    pub reason: MoveReason,
    /// Name of the worker that had it, for people.
    pub former: Option<String>,
    /// The old owner did not let go in time. Safe, because the ledger's fence stops it, but worth a warning.
    pub forced: bool,
}

/// What became of a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settled<T> {
    /// It is durable, as this revision.
    Committed(Revision),
    /// It certainly did not happen; this is what the key holds. With several writes in a commit, each of them.
    Conflict(Option<T>),
    /// It may have happened or may happen yet; this is what the key held when it was read *after* the attempt. While
    /// it cannot be read, the write is not settled.
    Unknown(Option<T>),
}

/// The soft state of one term of office.
#[derive(Debug)]
pub struct Desk {
    terms: LeaseTerms,
    office: Moment,
    sessions: session::Roster,
    assignments: BTreeMap<MailboxUid, Assignment>,
    /// Mailboxes by owner; the other side of `assignments`.
    owned: BTreeMap<SessionId, BTreeSet<MailboxUid>>,
    handovers: handover::Handovers,
    /// Something happened that a round may act on.
    stirred: bool,
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
            assignments: BTreeMap::new(),
            owned: BTreeMap::new(),
            handovers: handover::Handovers::default(),
            stirred: true,
            last_round: None,
        };
        for (mailbox, assignment) in assignments {
            desk.set_assignment(&mailbox, Some(assignment));
        }
        desk
    }

    /// Takes in a session whose record was just committed. Counts as its first heartbeat.
    pub fn register(&mut self, now: Moment, session: Session) {
        self.sessions.register(now, session);
        self.stirred = true;
    }

    /// Hears a session and answers with everything it should hold. A heartbeat that was overtaken by a later one is
    /// answered, but changes nothing.
    pub fn heartbeat(&mut self, now: Moment, heartbeat: &Heartbeat) -> Result<Vec<Offer>, Refusal> {
        self.stirred |= self.sessions.hear(now, heartbeat)?;
        let owned = self.owned.get(&heartbeat.session);
        let mut offers = Vec::new();
        for mailbox in owned.into_iter().flatten() {
            let Some(assignment) = self.assignments.get(mailbox) else { continue };
            let offer = Offer { mailbox: mailbox.clone(), epoch: assignment.epoch };
            let holds = self.sessions.holds(&heartbeat.session, mailbox, assignment.epoch);
            if self.handovers.under_way(mailbox) {
                self.stirred |= !holds;
            } else if holds || !heartbeat.draining {
                offers.push(offer);
            }
        }
        Ok(offers)
    }

    /// The sessions that live, by worker. Changes nothing.
    pub fn seen(&self, now: Moment) -> Vec<Seen> {
        let mut seen = self.sessions.seen(now);
        for session in &mut seen {
            session.mailboxes = self.owned.get(&session.session).map_or(0, BTreeSet::len);
        }
        seen.sort_by(|a, b| (&a.worker, &a.session).cmp(&(&b.worker, &b.session)));
        seen
    }

    /// A session that has let go of everything says goodbye. Answers the write to be done before the goodbye is
    /// confirmed; `None`: it has ended already, or its end is being written.
    pub fn leave(&mut self, session: &SessionId, returning: bool) -> Option<EndSession> {
        self.sessions.end(session, returning)
    }

    /// Decides what to write now. `mailboxes` are all that should be read, in a fixed order. What is intended here is
    /// under way until it is settled.
    pub fn round(&mut self, now: Moment, mailboxes: &[Mailbox]) -> Vec<Write> {
        self.stirred = false;
        self.last_round = Some(now);
        let mut writes: Vec<_> = self.sessions.end_silent(now).into_iter().map(Write::EndSession).collect();
        if now < self.office + self.terms.settle() {
            return writes;
        }
        let workers = self.sessions.workers(now);
        let owner = |mailbox: &MailboxUid| self.assignments.get(mailbox).map(|assignment| &assignment.session);
        let wanted = plan::plan(now, mailboxes, &workers, owner);
        let wanted = mailboxes.iter().map(|mailbox| &mailbox.uid).zip(wanted);
        let moves = self.handovers.advance(now, wanted, &self.assignments, &self.sessions);
        writes.extend(moves.into_iter().map(Write::Assign));
        writes
    }

    /// Says what became of an [`EndSession`], with the session's record.
    pub fn session_settled(&mut self, now: Moment, write: &EndSession, settled: Settled<Session>) {
        self.sessions.settle(now, write, settled);
        self.stirred = true;
    }

    /// Says what became of an [`Assign`].
    pub fn mailbox_settled(&mut self, write: &Assign, settled: Settled<Assignment>) {
        let expected = self.assignments.get(&write.mailbox).map(|assignment| assignment.epoch);
        let unchanged = |found: &Option<Assignment>| found.as_ref().map(|assignment| assignment.epoch) == expected;
        let assignment = match settled {
            Settled::Committed(Revision(revision)) => {
                self.handovers.certain(&write.mailbox);
                Some(Assignment { session: write.to.clone(), epoch: Epoch(revision), home: write.home.clone() })
            }
            // Unchanged: another write of the commit met a conflict, and what was in doubt before still is.
            Settled::Conflict(found) if unchanged(&found) => {
                self.handovers.settled(&write.mailbox);
                found
            }
            // Unchanged: the write may still arrive.
            Settled::Unknown(found) if unchanged(&found) => {
                self.handovers.doubtful(&write.mailbox);
                found
            }
            // Changed: every earlier write to this key has arrived or fails at its guard.
            Settled::Conflict(found) | Settled::Unknown(found) => {
                self.handovers.certain(&write.mailbox);
                found
            }
        };
        self.set_assignment(&write.mailbox, assignment);
        self.stirred = true;
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
        self.sessions.deadlines().chain(self.handovers.deadlines()).chain([settled]).filter(ahead).min()
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
            self.owned.entry(assignment.session.clone()).or_default().insert(mailbox.clone());
            self.assignments.insert(mailbox.clone(), assignment);
        }
    }
}

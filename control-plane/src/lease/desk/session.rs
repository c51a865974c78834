//! Which sessions live, and when one that is silent is ended.

use std::collections::BTreeMap;
use std::time::Duration;

use postroom_proto::id::{Epoch, MailboxUid, SessionId};
use postroom_proto::lease::{LeaseTerms, Moment};

use super::{EndSession, Ended, Heartbeat, Refusal, Running, Seen, Session, Settled};
use crate::lease::plan::{State, Worker};
use crate::lease::profile::Profile;
use crate::store::Revision;

/// How long the mailboxes of a session that said it would return wait for its worker's name.
pub const REJOIN: Duration = Duration::from_secs(30);

/// The sessions of the cluster.
#[derive(Debug)]
pub(super) struct Roster {
    term: Revision,
    terms: LeaseTerms,
    lives: BTreeMap<SessionId, Life>,
}

#[derive(Debug)]
struct Life {
    profile: Profile,
    revision: Revision,
    phase: Phase,
    /// Not ended before this moment, whatever is heard. See [`Roster::found`].
    grace: Moment,
    heard: Option<Heard>,
}

#[derive(Debug, Clone, Copy)]
enum Phase {
    Alive,
    /// Its end is decided and never taken back. Its mailboxes stay where they are until the end is written.
    Ending {
        how: Ended,
        in_flight: bool,
    },
    Ended {
        how: Ended,
        at: Moment,
    },
}

/// The latest heartbeat, by its number.
#[derive(Debug)]
struct Heard {
    at: Moment,
    sequence: u64,
    /// It had taken an answer of this term when it was sent. From then on it takes none of an earlier term.
    follows: bool,
    /// Epoch, and revision of the definition.
    held: BTreeMap<MailboxUid, (Epoch, u64)>,
    draining: bool,
}

impl Roster {
    /// The sessions that a new leader finds.
    ///
    /// Invariant: it ends none of them before `ttl + leader_ttl` have passed. A former leader may have answered them
    /// until now, and up to `leader_ttl` longer if its key was taken from it early.
    pub(super) fn found(
        now: Moment,
        term: Revision,
        terms: LeaseTerms,
        sessions: impl IntoIterator<Item = Session>,
    ) -> Self {
        let grace = now + terms.ttl + terms.leader_ttl;
        let lives = sessions.into_iter().map(|session| (session.id.clone(), Life::new(now, session, grace)));
        Self { term, terms, lives: lives.collect() }
    }

    pub(super) fn register(&mut self, now: Moment, session: Session) {
        let id = session.id.clone();
        let mut life = Life::new(now, session, now + self.terms.ttl);
        life.heard = Some(Heard { at: now, sequence: 0, follows: false, held: BTreeMap::new(), draining: false });
        self.lives.entry(id).or_insert(life);
    }

    /// Takes in a heartbeat. True: the plan may change through it.
    pub(super) fn hear(&mut self, now: Moment, heartbeat: &Heartbeat) -> Result<bool, Refusal> {
        let life = self.lives.get_mut(&heartbeat.session).ok_or(Refusal::Unknown)?;
        let Phase::Alive = life.phase else { return Err(Refusal::Ended) };
        let former = life.heard.as_ref();
        if former.is_some_and(|heard| heartbeat.sequence <= heard.sequence) {
            return Ok(false);
        }
        let stirred =
            former.is_none_or(|heard| heard.draining != heartbeat.draining || now >= heard.at + self.terms.ttl);
        let &Heartbeat { sequence, term, draining, .. } = heartbeat;
        let held = heartbeat.held.iter().map(|it| (it.mailbox.clone(), (it.epoch, it.definition_revision))).collect();
        life.heard = Some(Heard { at: now, sequence, follows: term == self.term.0, held, draining });
        Ok(stirred)
    }

    /// Decides the end of a session. `None`: it was decided before, or there is no such session.
    pub(super) fn end(&mut self, session: &SessionId, returning: bool) -> Option<EndSession> {
        let life = self.lives.get_mut(session)?;
        let Phase::Alive = life.phase else { return None };
        Some(life.end(session, Ended { returning, silent: false }))
    }

    /// Decides the end of every session that was silent for too long, and repeats the writes that left a decided end
    /// unwritten.
    pub(super) fn end_silent(&mut self, now: Moment) -> Vec<EndSession> {
        let ttl = self.terms.ttl;
        let ends = self.lives.iter_mut().filter_map(|(id, life)| match life.phase {
            Phase::Alive if now >= life.deadline(ttl) => Some(life.end(id, Ended { returning: false, silent: true })),
            Phase::Ending { how, in_flight: false } => Some(life.end(id, how)),
            _ => None,
        });
        ends.collect()
    }

    pub(super) fn settle(&mut self, now: Moment, write: &EndSession, settled: Settled<Session>) {
        let Some(life) = self.lives.get_mut(&write.session) else { return };
        if let Phase::Ended { .. } = life.phase {
            return;
        }
        let ended = Phase::Ended { how: write.how, at: now };
        life.phase = match settled {
            Settled::Committed(_) => ended,
            Settled::Conflict(found) | Settled::Unknown(found) => match found {
                Some(Session { ended: None, revision, .. }) => {
                    life.revision = revision;
                    Phase::Ending { how: write.how, in_flight: false }
                }
                Some(Session { ended: Some(how), .. }) => Phase::Ended { how, at: now },
                None => ended,
            },
        };
    }

    /// The sessions as the planner sees them.
    pub(super) fn workers(&self, now: Moment) -> Vec<Worker> {
        let workers = self.lives.iter().map(|(id, life)| Worker {
            session: id.clone(),
            name: life.profile.worker.clone(),
            born: life.revision,
            state: life.state(now, self.terms.ttl),
        });
        workers.collect()
    }

    /// The sessions that live, without their mailboxes.
    pub(super) fn seen(&self, now: Moment) -> Vec<Seen> {
        let alive = self.lives.iter().filter(|(_, life)| matches!(life.phase, Phase::Alive));
        let seen = alive.map(|(id, life)| Seen {
            session: id.clone(),
            worker: life.profile.worker.clone(),
            silent_for: life.heard.as_ref().map(|heard| now.saturating_sub(heard.at)),
            draining: life.heard.as_ref().is_some_and(|heard| heard.draining),
            mailboxes: 0,
        });
        seen.collect()
    }

    /// True when the session has ended for good, or there never was one.
    pub(super) fn is_over(&self, session: &SessionId) -> bool {
        self.lives.get(session).is_none_or(|life| matches!(life.phase, Phase::Ended { .. }))
    }

    /// Number of the latest heartbeat of a session that lives. `None`: this desk never heard it, or its end is decided.
    pub(super) fn sequence(&self, session: &SessionId) -> Option<u64> {
        let life = self.lives.get(session).filter(|life| matches!(life.phase, Phase::Alive))?;
        life.heard.as_ref().map(|heard| heard.sequence)
    }

    /// True when a heartbeat after number `known` shows that the session has let the mailbox go.
    ///
    /// Invariant: it had taken an answer of this leader before. Without that it may have been overtaken by a heartbeat
    /// that a former leader answered with the mailbox, which then is being read.
    pub(super) fn let_go(&self, session: &SessionId, mailbox: &MailboxUid, epoch: Epoch, known: u64) -> bool {
        let heard = self.lives.get(session).and_then(|life| life.heard.as_ref());
        heard.is_some_and(|heard| heard.follows && heard.sequence > known) && !self.holds(session, mailbox, epoch)
    }

    /// True when the latest heartbeat of the session listed the mailbox.
    pub(super) fn holds(&self, session: &SessionId, mailbox: &MailboxUid, epoch: Epoch) -> bool {
        let heard = self.lives.get(session).and_then(|life| life.heard.as_ref());
        heard.is_some_and(|heard| heard.held.get(mailbox).is_some_and(|(held, _)| *held == epoch))
    }

    /// What the sessions that live last said, by worker and session.
    pub(super) fn running(&self) -> Vec<Running> {
        let alive = self.lives.iter().filter(|(_, life)| matches!(life.phase, Phase::Alive));
        let running = alive.map(|(id, life)| {
            let held = life.heard.iter().flat_map(|heard| &heard.held);
            let held = held.map(|(mailbox, (_, revision))| (mailbox.clone(), *revision)).collect();
            Running { worker: life.profile.worker.clone(), session: id.clone(), held }
        });
        let mut running: Vec<Running> = running.collect();
        running.sort_by(|a, b| (&a.worker, &a.session).cmp(&(&b.worker, &b.session)));
        running
    }

    /// When sessions fall silent, and when seats grow cold.
    pub(super) fn deadlines(&self) -> impl Iterator<Item = Moment> {
        self.lives.values().filter_map(|life| match life.phase {
            Phase::Alive => Some(life.deadline(self.terms.ttl)),
            Phase::Ended { how: Ended { returning: true, .. }, at } => Some(at + REJOIN),
            _ => None,
        })
    }
}

impl Life {
    fn new(now: Moment, session: Session, grace: Moment) -> Self {
        let phase = match session.ended {
            None => Phase::Alive,
            Some(how) => Phase::Ended { how, at: now },
        };
        Self { profile: session.profile, revision: session.revision, phase, grace, heard: None }
    }

    fn end(&mut self, id: &SessionId, how: Ended) -> EndSession {
        self.phase = Phase::Ending { how, in_flight: true };
        EndSession { session: id.clone(), expected: self.revision, how }
    }

    fn deadline(&self, ttl: Duration) -> Moment {
        self.heard.as_ref().map_or(self.grace, |heard| self.grace.max(heard.at + ttl))
    }

    fn state(&self, now: Moment, ttl: Duration) -> State {
        match (self.phase, &self.heard) {
            (Phase::Ended { how, at }, _) => State::Ended { seats_until: how.returning.then_some(at + REJOIN) },
            (Phase::Alive, Some(heard)) if !heard.draining && now < heard.at + ttl => State::Taking,
            _ => State::Keeping,
        }
    }
}

//! Which sessions live, and when one that is silent is ended.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use postroom_proto::id::{Epoch, MailboxUid, SessionId};
use postroom_proto::lease::{LeaseTerms, Moment};

use super::brake::Brake;
use super::{EndSession, Ended, Forget, Heartbeat, Held, Refusal, Running, Seen, Session, Settled};
use crate::lease::decision::Decision;
use crate::lease::plan::{State, Worker};
use crate::lease::profile::Profile;
use crate::ledger::Micros;
use crate::store::Revision;

/// How long the mailboxes of a session that said it would return wait for its worker's name.
pub const REJOIN: Duration = Duration::from_secs(30);
/// How long a worker must have lived before it is given what spares hold.
pub const SETTLED: Duration = Duration::from_secs(60);
/// How long a session that ended and owns nothing is remembered.
pub const REMEMBERED: Duration = Duration::from_secs(60);

/// The sessions of the cluster, and what operators have decided about their workers.
#[derive(Debug)]
pub(super) struct Roster {
    term: Revision,
    terms: LeaseTerms,
    pub(super) lives: HashMap<SessionId, Life>,
    pub(super) decisions: BTreeMap<String, Decision>,
    brake: Option<Brake>,
}

#[derive(Debug)]
pub(super) struct Life {
    pub(super) profile: Profile,
    pub(super) begun: Option<Micros>,
    pub(super) revision: Revision,
    pub(super) phase: Phase,
    /// When this desk learned of it.
    since: Moment,
    /// Not ended before this moment, whatever is heard. See [`Roster::found`].
    grace: Moment,
    pub(super) heard: Option<Heard>,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Phase {
    Alive,
    /// Its end is decided and never taken back. Its mailboxes stay where they are until the end is written.
    Ending {
        how: Ended,
        in_flight: bool,
    },
    Ended {
        how: Ended,
        at: Moment,
        /// Its record is being removed.
        forgetting: bool,
    },
}

/// The latest heartbeat, by its number.
#[derive(Debug)]
pub(super) struct Heard {
    pub(super) at: Moment,
    sequence: u64,
    /// It had taken an answer of this term when it was sent. From then on it takes none of an earlier term.
    follows: bool,
    /// In the order of the uids.
    pub(super) held: Vec<Held>,
    pub(super) draining: bool,
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
        Self { term, terms, lives: lives.collect(), decisions: BTreeMap::new(), brake: None }
    }

    pub(super) fn register(&mut self, now: Moment, session: Session) {
        let id = session.id.clone();
        let mut life = Life::new(now, session, now + self.terms.ttl);
        life.heard = Some(Heard { at: now, sequence: 0, follows: false, held: Vec::new(), draining: false });
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
        let mut held = heartbeat.held.clone();
        if !held.is_sorted_by(|a, b| a.mailbox <= b.mailbox) {
            held.sort_unstable_by(|a, b| a.mailbox.cmp(&b.mailbox));
        }
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
    /// unwritten. In the order of the sessions.
    pub(super) fn end_silent(&mut self, now: Moment, frozen: bool) -> Vec<EndSession> {
        let ttl = self.terms.ttl;
        let over = |life: &Life| matches!(life.phase, Phase::Alive) && now >= life.deadline(ttl);
        let spared = frozen || (self.lives.values().any(over) && self.brakes(now));
        let mut ends: Vec<_> = self
            .lives
            .iter_mut()
            .filter_map(|(id, life)| match life.phase {
                Phase::Alive if !spared && over(life) => Some(life.end(id, Ended { returning: false, silent: true })),
                Phase::Ending { how, in_flight: false } => Some(life.end(id, how)),
                _ => None,
            })
            .collect();
        ends.sort_unstable_by(|a, b| a.session.cmp(&b.session));
        ends
    }

    /// True while so many are silent at once that none of them is ended.
    fn brakes(&mut self, now: Moment) -> bool {
        let alive = self.lives.values().filter(|life| matches!(life.phase, Phase::Alive));
        let silent_since: Vec<Moment> = alive.map(Life::last_sign).collect();
        Brake::pulled(&mut self.brake, now, self.terms.ttl / 2, &silent_since)
    }

    /// Until when nobody is ended because too many are silent at once.
    pub(super) fn brake_until(&self, now: Moment) -> Option<Moment> {
        self.brake.map(|brake| brake.until).filter(|until| now < *until)
    }

    pub(super) fn settle(&mut self, now: Moment, write: &EndSession, settled: Settled<Session>) {
        let Some(life) = self.lives.get_mut(&write.session) else { return };
        if let Phase::Ended { .. } = life.phase {
            return;
        }
        let ended = |how| Phase::Ended { how, at: now, forgetting: false };
        life.phase = match settled {
            Settled::Committed(revision) => {
                life.revision = revision;
                ended(write.how)
            }
            Settled::Conflict(found) | Settled::Unknown(found) => match found {
                Some(Session { ended: None, revision, .. }) => {
                    life.revision = revision;
                    Phase::Ending { how: write.how, in_flight: false }
                }
                Some(Session { ended: Some(how), revision, .. }) => {
                    life.revision = revision;
                    ended(how)
                }
                None => ended(write.how),
            },
        };
    }

    /// The sessions that ended a while ago and of which `owns` says that they own nothing: their records can go.
    pub(super) fn forget(&mut self, now: Moment, owns: impl Fn(&SessionId) -> bool) -> Vec<Forget> {
        let mut forgotten = Vec::new();
        for (id, life) in &mut self.lives {
            if let Phase::Ended { at, forgetting, .. } = &mut life.phase
                && !*forgetting
                && now >= *at + REMEMBERED
                && !owns(id)
            {
                *forgetting = true;
                forgotten.push(Forget { session: id.clone(), expected: life.revision });
            }
        }
        forgotten.sort_unstable_by(|a, b| a.session.cmp(&b.session));
        forgotten
    }

    /// The record of a session is gone. False: it may still be there, and is removed another time.
    pub(super) fn forgotten(&mut self, now: Moment, session: &SessionId, gone: bool) {
        if gone {
            self.lives.remove(session);
        } else if let Some(Phase::Ended { at, forgetting, .. }) =
            self.lives.get_mut(session).map(|life| &mut life.phase)
        {
            (*at, *forgetting) = (now, false);
        }
    }

    /// The sessions as the planner sees them.
    pub(super) fn workers(&self, now: Moment) -> Vec<Worker> {
        let workers = self.lives.iter().map(|(id, life)| {
            let decision = self.decisions.get(&life.profile.worker);
            let set = decision.and_then(|decision| decision.role);
            Worker {
                session: id.clone(),
                name: life.profile.worker.clone(),
                pool: life.profile.pool.clone(),
                role: set.unwrap_or(life.profile.role),
                role_set: set.is_some(),
                capacity: life.profile.capacity,
                drained: decision.is_some_and(|decision| decision.drained),
                settled: now >= life.since + SETTLED,
                born: life.revision,
                state: life.state(now, self.terms.ttl),
            }
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

    /// True when the session has ended and its worker is expected back.
    pub(super) fn returns(&self, now: Moment, session: &SessionId) -> bool {
        self.lives.get(session).is_some_and(|life| life.returns(now))
    }

    /// Name of the worker of a session.
    pub(super) fn worker(&self, session: &SessionId) -> Option<&str> {
        self.lives.get(session).map(|life| life.profile.worker.as_str())
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
        heard.is_some_and(|heard| heard.follows && heard.sequence > known && !holds(&heard.held, mailbox, epoch))
    }

    /// What a session listed in its latest heartbeat, in the order of the uids.
    pub(super) fn held(&self, session: &SessionId) -> &[Held] {
        self.lives.get(session).and_then(|life| life.heard.as_ref()).map_or(&[], |heard| &heard.held)
    }

    /// What the sessions that live last said, by worker and session.
    pub(super) fn running(&self) -> Vec<Running> {
        let alive = self.lives.iter().filter(|(_, life)| matches!(life.phase, Phase::Alive));
        let running = alive.map(|(id, life)| {
            let held = life.heard.iter().flat_map(|heard| &heard.held);
            let held = held.map(|it| (it.mailbox.clone(), it.definition_revision)).collect();
            Running { worker: life.profile.worker.clone(), session: id.clone(), held }
        });
        let mut running: Vec<Running> = running.collect();
        running.sort_by(|a, b| (&a.worker, &a.session).cmp(&(&b.worker, &b.session)));
        running
    }

    /// The names of all workers that are known or decided about.
    pub(super) fn names(&self) -> BTreeSet<&str> {
        let known = self.lives.values().map(|life| life.profile.worker.as_str());
        known.chain(self.decisions.keys().map(String::as_str)).collect()
    }

    /// When sessions fall silent or have settled, and when seats grow cold.
    pub(super) fn deadlines(&self) -> impl Iterator<Item = Moment> {
        let lives = self.lives.values().flat_map(|life| match life.phase {
            Phase::Alive => [Some(life.deadline(self.terms.ttl)), Some(life.since + SETTLED)],
            Phase::Ended { how, at, .. } => [how.returning.then_some(at + REJOIN), Some(at + REMEMBERED)],
            Phase::Ending { .. } => [None, None],
        });
        lives.flatten().chain(self.brake.map(|brake| brake.until))
    }
}

/// True when a mailbox is in a list that is in the order of the uids, under this epoch.
pub(super) fn holds(held: &[Held], mailbox: &MailboxUid, epoch: Epoch) -> bool {
    held.binary_search_by(|it| it.mailbox.cmp(mailbox)).is_ok_and(|i| held[i].epoch == epoch)
}

impl Life {
    fn new(now: Moment, session: Session, grace: Moment) -> Self {
        let phase = match session.ended {
            None => Phase::Alive,
            Some(how) => Phase::Ended { how, at: now, forgetting: false },
        };
        let Session { profile, begun, revision, .. } = session;
        Self { profile, begun, revision, phase, since: now, grace, heard: None }
    }

    fn end(&mut self, id: &SessionId, how: Ended) -> EndSession {
        self.phase = Phase::Ending { how, in_flight: true };
        EndSession { session: id.clone(), expected: self.revision, how }
    }

    fn deadline(&self, ttl: Duration) -> Moment {
        self.heard.as_ref().map_or(self.grace, |heard| self.grace.max(heard.at + ttl))
    }

    /// The last moment at which it was known to live.
    fn last_sign(&self) -> Moment {
        self.heard.as_ref().map_or(self.since, |heard| heard.at)
    }

    pub(super) fn silent_for(&self, now: Moment) -> Duration {
        now.saturating_sub(self.last_sign())
    }

    pub(super) fn returns(&self, now: Moment) -> bool {
        matches!(self.phase, Phase::Ended { how: Ended { returning: true, .. }, at, .. } if now < at + REJOIN)
    }

    fn state(&self, now: Moment, ttl: Duration) -> State {
        match (self.phase, &self.heard) {
            (Phase::Ended { how, at, .. }, _) => {
                State::Ended { seats_until: how.returning.then_some(at + REJOIN), silent: how.silent }
            }
            (Phase::Alive, Some(heard)) if !heard.draining && now < heard.at + ttl => State::Taking,
            _ => State::Keeping,
        }
    }
}

//! The shell around the desk: one task that leads, answers workers, and carries out what the desk intends.
//!
//! Everything that decides is in [`super::desk`] and [`super::plan`]; this file only moves values between them, the
//! store and the callers, and never waits for the store while a worker waits for an answer about something else.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use postroom_proto::lease::{LeaseTerms, Moment};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::desk::{Desk, Ended, Refusal, Session};
use super::following::{self, list};
use super::handle::{self, Call, Handle, Offers, no_leader, not_ours};
use super::leader::Office;
use super::nudge::Nudges;
use super::plan::Mailbox;
use super::record::{SessionRecord, assignment, session};
use super::term::{News, Term, session_over};
use super::writing::batches;
use crate::clock;
use crate::definition::model::Model;
use crate::failure::chain;
use crate::store::{Entry, Error, Guard, SharedStore, Write, key};

/// Shortest time between two rounds, so that a burst of events makes one round and not many.
const ROUND_GAP: Duration = Duration::from_millis(20);
/// A round takes at most a fifth of the time of the task that answers workers.
const ROUND_SHARE: u32 = 4;
/// Longest time for giving the office up at a stop.
const RESIGN: Duration = Duration::from_secs(2);
/// Pause before a lost or failed office is tried for again.
const CAMPAIGN_AGAIN: Duration = Duration::from_millis(500);

/// How the lease plane is to be run.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Name of this replica.
    pub replica: String,
    /// Terms of the leases.
    pub terms: LeaseTerms,
    /// True where the data folder's lock proves that no worker of a former process lives: their sessions are ended at
    /// once instead of after their ttl.
    pub alone: bool,
}

/// The lease plane of one replica, to be run.
pub struct LeasePlane {
    store: SharedStore,
    settings: Settings,
    model: watch::Receiver<Arc<Model>>,
    may_lead: watch::Receiver<bool>,
    calls: mpsc::Receiver<Call>,
    nudges: Nudges,
    start: Instant,
}

/// Why a term of office is over.
enum Over {
    /// The control plane stops.
    Stop,
    /// It may not lead, or does not any more.
    Deposed,
}

impl LeasePlane {
    /// A lease plane over `store` for whatever the model says should be read. It leads only while `may_lead` says so.
    pub fn new(
        store: SharedStore,
        settings: Settings,
        model: watch::Receiver<Arc<Model>>,
        may_lead: watch::Receiver<bool>,
        nudges: Nudges,
    ) -> (Handle, Self) {
        let (handle, calls) = handle::pair();
        (handle, Self { store, settings, model, may_lead, calls, nudges, start: Instant::now() })
    }

    /// Leads whenever it can, until told to stop. Then it gives its office up.
    pub async fn run(mut self, stop: CancellationToken) {
        loop {
            if *self.may_lead.borrow() {
                let attempt = tokio::select! {
                    () = stop.cancelled() => return,
                    attempt = self.take_office() => attempt,
                };
                match attempt {
                    Ok(Some(mut term)) => {
                        tracing::info!(replica = self.settings.replica, "leading");
                        let over = self.lead(&mut term, &stop).await;
                        if timeout(RESIGN, term.resign()).await.is_err() {
                            tracing::warn!("the store did not take leadership back in time; it ends by itself");
                        }
                        if let Over::Stop = over {
                            return;
                        }
                    }
                    Ok(None) => {}
                    Err(error) => tracing::error!(error = chain(&error), "cannot take office; trying again"),
                }
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.refuse_calls(CAMPAIGN_AGAIN) => {}
            }
        }
    }

    fn now(&self) -> Moment {
        self.start.elapsed()
    }

    async fn take_office(&self) -> Result<Option<Term>, Error> {
        let terms = self.settings.terms;
        let Some(office) =
            Office::win(&*self.store, &self.settings.replica, terms, self.settings.alone, self.now()).await?
        else {
            return Ok(None);
        };
        // Ordering: read only after the key was won, so that no write of a former leader can follow the reading.
        let mut sessions = list(&self.store, key::SESSIONS).await?;
        let assignments: Vec<_> = list(&self.store, key::ASSIGNMENTS).await?.iter().filter_map(assignment).collect();
        let decided = following::read(&self.store).await?;
        if self.settings.alone {
            self.end_former(&office, &sessions).await?;
            sessions = list(&self.store, key::SESSIONS).await?;
        }
        let owners: std::collections::HashSet<_> = assignments.iter().map(|(_, a)| a.session.clone()).collect();
        let sessions: Vec<Session> = sessions.iter().filter_map(session).collect();
        let (kept, over): (Vec<_>, Vec<_>) =
            sessions.into_iter().partition(|s| s.ended.is_none() || owners.contains(&s.id));
        self.forget(&office, &over).await?;
        let mut desk = Desk::take_office(self.now(), office.term(), terms, kept, assignments);
        desk.decide(self.now(), clock::now(), decided);
        Ok(Some(Term::new(office, desk, self.store.clone())))
    }

    /// Ends the sessions of the process that held the data folder before.
    async fn end_former(&self, office: &Office, sessions: &[Entry]) -> Result<(), Error> {
        for entry in sessions {
            let Some(record) = SessionRecord::decode(&entry.value).filter(|record| !record.is_over()) else { continue };
            let guards = vec![office.guard(), Guard::Unchanged(entry.key.clone(), entry.mod_revision)];
            let write = Write::Put(entry.key.clone(), record.ended(Ended::default()).encode());
            self.store.commit(guards, vec![write]).await?;
        }
        Ok(())
    }

    /// Removes the records of sessions that ended and own nothing any more.
    async fn forget(&self, office: &Office, over: &[Session]) -> Result<(), Error> {
        for chunk in over.chunks(crate::store::MAX_WRITES) {
            let writes = chunk.iter().map(|session| Write::Delete(key::session(&session.id))).collect();
            self.store.commit(vec![office.guard()], writes).await?;
        }
        Ok(())
    }

    /// Refuses whoever calls while nobody leads here.
    async fn refuse_calls(&mut self, pause: Duration) {
        let until = Instant::now() + pause;
        loop {
            tokio::select! {
                () = sleep_until(until) => return,
                Ok(()) = self.may_lead.changed() => return,
                Some(call) = self.calls.recv() => {
                    call.refuse(&if *self.may_lead.borrow() { no_leader() } else { not_ours() });
                }
            }
        }
    }

    /// Invariant: nothing here waits for the store. What is asked of it goes on beside this loop ([`Term::next`]), so
    /// that a store that stalls keeps no heartbeat unanswered for as long as the office is trusted.
    async fn lead(&mut self, term: &mut Term, stop: &CancellationToken) -> Over {
        let mut deposed = self.may_lead.clone();
        let deposed = async move {
            // Nobody is left who could take the permission back.
            if deposed.wait_for(|may_lead| !may_lead).await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::pin!(deposed);
        let mut decisions = following::decisions(self.store.clone());
        let mut confirm_at = Instant::now() + term.office.confirm_every();
        let mut next_round = Instant::now();
        loop {
            let wake = term.desk.next_wake(self.now()).map(|wake| (self.start + wake).max(next_round));
            tokio::select! {
                () = stop.cancelled() => return Over::Stop,
                () = &mut deposed => {
                    tracing::error!("this replica may not lead any more; stepping down");
                    return Over::Deposed;
                }
                news = term.next() => match news {
                    News::Written(done) => {
                        for session in term.settle(self.now(), done) {
                            self.nudges.raise(&session);
                        }
                    }
                    News::Registered(registered) => term.registered(self.now(), registered),
                    News::LookedUp(found) => term.looked_up(self.now(), found),
                    News::Confirmed(confirmed) => match term.office.confirmed(confirmed) {
                        Ok(true) => {}
                        Ok(false) => {
                            tracing::warn!("another process leads; stepping down");
                            return Over::Deposed;
                        }
                        Err(error) => tracing::error!(error = chain(&error), "cannot confirm leading"),
                    },
                },
                Some(call) = self.calls.recv() => {
                    if term.office.is_trusted(self.now()) {
                        self.answer(term, call);
                    } else {
                        call.refuse(&no_leader());
                    }
                }
                changed = self.model.changed() => {
                    if changed.is_err() {
                        return Over::Stop;
                    }
                    next_round = self.round(term);
                }
                Some(decided) = decisions.next() => term.desk.decide(self.now(), clock::now(), decided),
                () = sleep_until(confirm_at) => {
                    confirm_at = Instant::now() + term.office.confirm_every();
                    term.confirm(self.now());
                }
                () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {
                    next_round = self.round(term);
                }
            }
        }
    }

    /// One round of the desk; when the next one may come.
    fn round(&mut self, term: &mut Term) -> Instant {
        let began = Instant::now();
        let model = self.model.borrow_and_update().clone();
        if term.revision != Some(model.revision()) {
            term.mailboxes = mailboxes(&model);
            term.revision = Some(model.revision());
        }
        let now = self.now();
        let braked = term.desk.brake(now);
        let intents = term.desk.round(now, &term.mailboxes);
        if let (None, Some(left)) = (braked, term.desk.brake(now)) {
            tracing::error!("more than half of the workers are silent at once: none is given up for {left:?}");
        }
        term.write(batches(intents));
        for session in term.desk.take_nudged() {
            self.nudges.raise(&session);
        }
        Instant::now() + ROUND_GAP.max(began.elapsed() * ROUND_SHARE)
    }

    fn answer(&self, term: &mut Term, call: Call) {
        let now = self.now();
        // Whoever asked may have gone.
        match call {
            Call::Register { profile, answer } => term.register(profile, answer),
            Call::Heartbeat { heartbeat, answer } => match term.desk.heartbeat(now, &heartbeat) {
                Err(Refusal::Unknown) => term.look_up(heartbeat, answer),
                Err(Refusal::Ended) => drop(answer.send(Err(session_over()))),
                Ok(offers) => drop(answer.send(Ok(Offers { term: term.office.term(), offers }))),
            },
            Call::Running { answer } => drop(answer.send(Ok(term.desk.running()))),
            Call::Sessions { answer } => drop(answer.send(Ok(term.desk.seen(now)))),
            Call::Fleet { answer } => drop(answer.send(Ok(term.desk.fleet(now)))),
            Call::Unassigned { mailboxes, answer } => drop(answer.send(Ok(term.desk.unassigned(now, &mailboxes)))),
            Call::Leave { session, returning, answer } => match term.desk.leave(&session, returning) {
                Some(end) => term.leave(end, answer),
                None => drop(answer.send(Ok(()))),
            },
        }
    }
}

/// What should be read, in the order of the uids. Each weighs the same until loads are measured.
fn mailboxes(model: &Model) -> Vec<Mailbox> {
    let mut pools: std::collections::HashMap<&str, Arc<str>> = std::collections::HashMap::new();
    let mut mailboxes = Vec::with_capacity(model.mailboxes().len());
    for (uid, mailbox) in model.mailboxes() {
        let pool = mailbox.instance.pool();
        let pool = pools.entry(pool).or_insert_with(|| pool.into()).clone();
        mailboxes.push(Mailbox { uid: uid.clone(), weight: 1, pool });
    }
    mailboxes.sort_by(|a, b| a.uid.cmp(&b.uid));
    mailboxes
}

#[cfg(test)]
mod tests;

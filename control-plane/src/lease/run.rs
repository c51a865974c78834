//! The shell around the desk: one task that leads, answers workers, and carries out what the desk intends.
//!
//! Everything that decides is in [`super::desk`] and [`super::plan`]; this file only moves values between them, the
//! store and the callers, and never waits for the store while a worker waits for an answer about something else.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use postroom_proto::id::SessionId;
use postroom_proto::lease::{LeaseTerms, Moment};
use postroom_proto::reason::{Failure, Reason};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::desk::{Desk, Ended, Heartbeat, Refusal, Session};
use super::handle::{self, Call, Handle, Offers, no_leader};
use super::leader::Office;
use super::nudge::Nudges;
use super::plan::Mailbox;
use super::profile::Profile;
use super::record::{SessionRecord, assignment, session};
use super::term::Term;
use super::writing::batches;
use crate::clock;
use crate::definition::model::Model;
use crate::failure::chain;
use crate::store::{Entry, Error, Guard, Outcome, SharedStore, Write, key};

/// Shortest time between two rounds, so that a burst of events makes one round and not many.
const ROUND_GAP: Duration = Duration::from_millis(20);
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
    calls: mpsc::Receiver<Call>,
    nudges: Nudges,
    start: Instant,
}

impl LeasePlane {
    /// A lease plane over `store` for whatever the model says should be read.
    pub fn new(
        store: SharedStore,
        settings: Settings,
        model: watch::Receiver<Arc<Model>>,
        nudges: Nudges,
    ) -> (Handle, Self) {
        let (handle, calls) = handle::pair();
        (handle, Self { store, settings, model, calls, nudges, start: Instant::now() })
    }

    /// Leads whenever it can, until told to stop.
    pub async fn run(mut self, stop: CancellationToken) {
        loop {
            let attempt = tokio::select! {
                () = stop.cancelled() => return,
                attempt = self.take_office() => attempt,
            };
            match attempt {
                Ok(Some((office, desk))) => {
                    tracing::info!(replica = self.settings.replica, "leading");
                    self.lead(office, desk, &stop).await;
                }
                Ok(None) => {}
                Err(error) => tracing::error!(error = chain(&error), "cannot take office; trying again"),
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

    async fn take_office(&self) -> Result<Option<(Office, Desk)>, Error> {
        let terms = self.settings.terms;
        let Some(office) =
            Office::win(&*self.store, &self.settings.replica, terms, self.settings.alone, self.now()).await?
        else {
            return Ok(None);
        };
        // Ordering: read only after the key was won, so that no write of a former leader can follow the reading.
        let mut sessions = list(&self.store, key::SESSIONS).await?;
        let assignments: Vec<_> = list(&self.store, key::ASSIGNMENTS).await?.iter().filter_map(assignment).collect();
        if self.settings.alone {
            self.end_former(&office, &sessions).await?;
            sessions = list(&self.store, key::SESSIONS).await?;
        }
        let owners: std::collections::HashSet<_> = assignments.iter().map(|(_, a)| a.session.clone()).collect();
        let sessions: Vec<Session> = sessions.iter().filter_map(session).collect();
        let (kept, over): (Vec<_>, Vec<_>) =
            sessions.into_iter().partition(|s| s.ended.is_none() || owners.contains(&s.id));
        self.forget(&office, &over).await?;
        let desk = Desk::take_office(self.now(), office.term(), terms, kept, assignments);
        Ok(Some((office, desk)))
    }

    /// Ends the sessions of the process that held the data folder before.
    async fn end_former(&self, office: &Office, sessions: &[Entry]) -> Result<(), Error> {
        for entry in sessions {
            let Some(record) = SessionRecord::decode(&entry.value).filter(|record| !record.is_over()) else { continue };
            let guards = vec![office.guard(), Guard::Unchanged(entry.key.clone(), entry.mod_revision)];
            let write = Write::Put(entry.key.clone(), record.ended(Ended { returning: false, silent: false }).encode());
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
                Some(call) = self.calls.recv() => call.refuse(),
            }
        }
    }

    async fn lead(&mut self, office: Office, desk: Desk, stop: &CancellationToken) {
        let store = self.store.clone();
        let mut term = Term::new(office, desk, store);
        let mut confirm_at = Instant::now() + term.office.confirm_every();
        let mut last_round = Instant::now();
        loop {
            let wake = term.desk.next_wake(self.now()).map(|wake| (self.start + wake).max(last_round + ROUND_GAP));
            tokio::select! {
                () = stop.cancelled() => return,
                Some(done) = term.writing.next() => {
                    for session in term.settle(self.now(), done) {
                        self.nudges.raise(&session);
                    }
                }
                Some(call) = self.calls.recv() => {
                    if !term.office.is_trusted(self.now()) {
                        call.refuse();
                    } else {
                        self.answer(&mut term, call).await;
                    }
                }
                changed = self.model.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.round(&mut term);
                    last_round = Instant::now();
                }
                () = sleep_until(confirm_at) => {
                    confirm_at = Instant::now() + term.office.confirm_every();
                    match term.office.confirm(self.start.elapsed()).await {
                        Ok(true) => {}
                        Ok(false) => {
                            tracing::warn!("another process leads; stepping down");
                            return;
                        }
                        Err(error) => tracing::error!(error = chain(&error), "cannot confirm leading"),
                    }
                }
                () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {
                    self.round(&mut term);
                    last_round = Instant::now();
                }
            }
        }
    }

    fn round(&mut self, term: &mut Term) {
        let model = self.model.borrow_and_update().clone();
        if term.revision != Some(model.revision()) {
            term.mailboxes = mailboxes(&model);
            term.revision = Some(model.revision());
        }
        let intents = term.desk.round(self.start.elapsed(), &term.mailboxes);
        term.write(batches(intents));
    }

    async fn answer(&self, term: &mut Term, call: Call) {
        match call {
            Call::Register { profile, answer } => {
                let _ = answer.send(self.register(term, profile).await);
            }
            Call::Heartbeat { heartbeat, answer } => {
                let _ = answer.send(self.heartbeat(term, &heartbeat).await);
            }
            Call::Running { answer } => {
                let _ = answer.send(Ok(term.desk.running()));
            }
            Call::Sessions { answer } => {
                let _ = answer.send(Ok(term.desk.seen(self.now())));
            }
            Call::Leave { session, returning, answer } => match term.desk.leave(&session, returning) {
                Some(end) => term.leave(end, answer),
                None => {
                    let _ = answer.send(Ok(()));
                }
            },
        }
    }

    async fn register(&self, term: &mut Term, profile: Profile) -> Result<SessionId, Failure> {
        let id = SessionId::random();
        let at = key::session(&id);
        let record = SessionRecord::begun(profile, clock::now());
        let guards = vec![term.office.guard(), Guard::Absent(at.clone())];
        let outcome = self.store.commit(guards, vec![Write::Put(at.clone(), record.encode())]).await?;
        let revision = match outcome {
            Outcome::Committed(revision) => revision,
            Outcome::Conflict => return Err(no_leader()),
            Outcome::Unknown => {
                // A session that nobody uses ends by itself; the worker registers again.
                let text = "it is not known whether the session was recorded; register again";
                return Err(Failure::new(Reason::OutcomeUnknown, text));
            }
        };
        let SessionRecord { profile, begun, .. } = record;
        tracing::info!(worker = profile.worker, pool = profile.pool, session = %id, "a worker has registered");
        let session = Session { id: id.clone(), profile, begun, ended: None, revision };
        term.desk.register(self.now(), session);
        Ok(id)
    }

    async fn heartbeat(&self, term: &mut Term, heartbeat: &Heartbeat) -> Result<Offers, Failure> {
        let mut offers = term.desk.heartbeat(self.now(), heartbeat);
        if offers == Err(Refusal::Unknown) {
            let found = self.store.get(&key::session(&heartbeat.session)).await?;
            if let Some(found) = found.as_ref().and_then(session).filter(|session| session.ended.is_none()) {
                term.desk.register(self.now(), found);
                offers = term.desk.heartbeat(self.now(), heartbeat);
            }
        }
        let over = |_| Failure::new(Reason::SessionEnded, "the session is over; drop everything and register again");
        Ok(Offers { term: term.office.term(), offers: offers.map_err(over)? })
    }
}

async fn list(store: &SharedStore, prefix: &str) -> Result<Vec<Entry>, Error> {
    let mut entries: Vec<Entry> = Vec::new();
    loop {
        let after = entries.last().map(|entry| entry.key.clone());
        let page = store.list(prefix, after.as_deref(), 500).await?;
        entries.extend(page.entries);
        if !page.more {
            return Ok(entries);
        }
    }
}

/// What should be read, in a fixed order. Each weighs the same until loads are measured.
fn mailboxes(model: &Model) -> Vec<Mailbox> {
    let mut mailboxes: Vec<_> = model.mailboxes().map(|(uid, _)| Mailbox { uid: uid.clone(), weight: 1 }).collect();
    mailboxes.sort_by(|a, b| a.uid.cmp(&b.uid));
    mailboxes
}

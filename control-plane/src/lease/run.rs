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

use super::campaign::Candidate;
use super::desk::Refusal;
use super::following;
use super::handle::{self, Call, Handle, Offers, no_leader, not_ours};
use super::nudge::Nudges;
use super::plan::Mailbox;
use super::term::{News, Term, session_over};
use super::writing::batches;
use crate::clock;
use crate::definition::model::Model;
use crate::failure::chain;
use crate::store::SharedStore;

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
    candidate: Candidate,
    model: watch::Receiver<Arc<Model>>,
    may_lead: watch::Receiver<bool>,
    calls: mpsc::Receiver<Call>,
    nudges: Nudges,
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
        (handle, Self { candidate: Candidate::new(store, settings), model, may_lead, calls, nudges })
    }

    /// Leads whenever it can, until told to stop. Then it gives its office up.
    pub async fn run(mut self, stop: CancellationToken) {
        loop {
            if *self.may_lead.borrow() {
                match self.refusing(&stop, self.candidate.clone().take_office()).await {
                    None => return,
                    Some(Ok(Some(mut term))) => {
                        tracing::info!(replica = self.candidate.replica(), "leading");
                        let over = self.lead(&mut term, &stop).await;
                        let resigned = timeout(RESIGN, term.resign());
                        let resigned = match over {
                            Over::Stop => resigned.await,
                            Over::Deposed => match self.refusing(&stop, resigned).await {
                                None => return,
                                Some(resigned) => resigned,
                            },
                        };
                        if resigned.is_err() {
                            tracing::warn!("the store did not take leadership back in time; it ends by itself");
                        }
                        if let Over::Stop = over {
                            return;
                        }
                    }
                    Some(Ok(None)) => {}
                    Some(Err(error)) => tracing::error!(error = chain(&error), "cannot take office; trying again"),
                }
            }
            let mut may_lead = self.may_lead.clone();
            let before = *may_lead.borrow();
            let pause = timeout(CAMPAIGN_AGAIN, async move {
                // Nobody is left who could change it: the pause is the whole one.
                if may_lead.wait_for(|now| *now != before).await.is_err() {
                    std::future::pending::<()>().await;
                }
            });
            if self.refusing(&stop, pause).await.is_none() {
                return;
            }
        }
    }

    /// Waits for `work`, and refuses whoever calls meanwhile: nobody leads here. `None`: the control plane stops.
    async fn refusing<T>(&mut self, stop: &CancellationToken, work: impl Future<Output = T>) -> Option<T> {
        tokio::pin!(work);
        loop {
            tokio::select! {
                () = stop.cancelled() => return None,
                done = &mut work => return Some(done),
                Some(call) = self.calls.recv() => {
                    call.refuse(&if *self.may_lead.borrow() { no_leader() } else { not_ours() });
                }
            }
        }
    }

    fn now(&self) -> Moment {
        self.candidate.now()
    }

    /// Invariant: nothing here waits for the store. What is asked of it goes on beside this loop ([`Term::next`]), so
    /// that a store that stalls keeps no heartbeat unanswered for as long as the office is trusted.
    ///
    /// Invariant: a desk hears every worker, or is given up. While the office is not trusted workers are refused, and
    /// while this process sleeps they are not heard at all; whoever judged by such a silence would end sessions that
    /// live. So trust that lapsed never comes back: the office is given up and won anew, and the new desk grants every
    /// session its whole ttl.
    async fn lead(&mut self, term: &mut Term, stop: &CancellationToken) -> Over {
        let mut deposed = self.may_lead.clone();
        let deposed = async move {
            // Nobody is left who could take the permission back.
            if deposed.wait_for(|may_lead| !may_lead).await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::pin!(deposed);
        let mut decisions = following::decisions(self.candidate.store().clone());
        let mut confirm_at = Instant::now() + term.office.confirm_every();
        let mut next_round = Instant::now();
        loop {
            if !term.office.is_trusted(self.now()) {
                tracing::warn!(
                    "leading could not be confirmed in time; stepping down, to lead again as soon as it can"
                );
                return Over::Deposed;
            }
            let lapse = self.candidate.instant(term.office.trusted_until());
            let wake = term.desk.next_wake(self.now()).map(|wake| self.candidate.instant(wake).max(next_round));
            tokio::select! {
                () = stop.cancelled() => return Over::Stop,
                () = sleep_until(lapse) => {}
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
        // The process may have slept since the trust was looked at.
        if !term.office.is_trusted(now) {
            return Instant::now();
        }
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

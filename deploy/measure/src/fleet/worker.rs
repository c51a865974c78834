//! A worker without mail: it registers, sends heartbeats with everything it holds, hears nudges, opens what it is given
//! and leaves when it is told to, exactly as a real one. What it may hold is decided by a real worker's `holder`.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::{BoxFuture, OptionFuture};
use postroom_proto::id::{Epoch, MailboxUid};
use postroom_proto::lease::LeaseTerms;
use postroom_proto::v1;
use postroom_worker::holder::{Action, Answer, Holder, Ticket};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tonic::Streaming;

use super::census::{Census, Life};
use super::wire::{Miss, Traffic, Wire};

/// Most mailboxes opened in one call.
const OPENED_AT_ONCE: usize = 500;
/// Pause before a call that had no answer is tried again.
const AGAIN: Duration = Duration::from_millis(500);

/// What all workers share.
pub(crate) struct Fleet {
    pub(crate) endpoint: String,
    pub(crate) token: String,
    pub(crate) census: Census,
    pub(crate) traffic: Traffic,
}

/// A running worker.
pub(crate) struct Worker {
    pub(crate) life: Life,
    stop: CancellationToken,
    die: CancellationToken,
    task: JoinHandle<()>,
}

impl Worker {
    /// Starts it.
    pub(crate) fn start(fleet: &Arc<Fleet>, life: Life) -> anyhow::Result<Self> {
        let stop = CancellationToken::new();
        let wire = Wire::new(&fleet.endpoint, &fleet.token)?;
        let simulated = Simulated {
            fleet: fleet.clone(),
            life: life.clone(),
            wire,
            holder: Holder::new(LeaseTerms::default()),
            terms: LeaseTerms::default(),
            begun: Instant::now(),
            jitter: 0.0,
            nudges: None,
            to_open: VecDeque::new(),
            opened: BTreeMap::new(),
        };
        let die = CancellationToken::new();
        let (told, dying) = (stop.clone(), die.clone());
        let task =
            tokio::spawn(
                async move { dying.run_until_cancelled(Box::pin(simulated.run(told))).await.unwrap_or_default() },
            );
        Ok(Self { life, stop, die, task })
    }

    /// Ends it as `kill -9` does: its connections break and it says nothing.
    pub(crate) async fn kill(self, fleet: &Fleet) {
        self.die.cancel();
        // Ordering: it may be in the middle of taking something until it has ended.
        let _ = self.task.await;
        fleet.census.bury(&self.life);
    }

    /// Ends it as SIGTERM does: it lets go of everything and says that it will be back.
    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        self.stop.cancel();
        Ok(self.task.await?)
    }
}

type Beat = BoxFuture<'static, (Ticket, Result<Answer, Miss>)>;
type Opening = BoxFuture<'static, (Vec<(MailboxUid, Epoch)>, Result<Vec<(MailboxUid, u64)>, Miss>)>;

struct Simulated {
    fleet: Arc<Fleet>,
    life: Life,
    wire: Wire,
    holder: Holder,
    terms: LeaseTerms,
    begun: Instant,
    jitter: f64,
    nudges: Option<Streaming<v1::Nudge>>,
    to_open: VecDeque<(MailboxUid, Epoch)>,
    /// Revision of the definition of what is opened.
    opened: BTreeMap<MailboxUid, u64>,
}

impl Simulated {
    async fn run(mut self, stop: CancellationToken) {
        let mut beating: Option<Beat> = None;
        let mut opening: Option<Opening> = None;
        let mut stopping = false;
        loop {
            if self.holder.session().is_none() {
                (beating, opening) = (None, None);
                if stopping || stop.run_until_cancelled(self.register()).await.is_none() {
                    return;
                }
            }
            if stopping && self.holder.is_empty() {
                break;
            }
            if opening.is_none() {
                opening = self.open();
            }
            let due = self.holder.heartbeat_due(self.jitter).map(|due| self.begun + due);
            let lapse = self.holder.trust_ends().map(|end| self.begun + end);
            tokio::select! {
                () = stop.cancelled(), if !stopping => {
                    stopping = true;
                    let actions = self.holder.stop();
                    self.act(actions);
                }
                Some((ticket, answer)) = OptionFuture::from(beating.as_mut()) => {
                    beating = None;
                    self.answered(ticket, answer);
                }
                Some((batch, answer)) = OptionFuture::from(opening.as_mut()) => {
                    opening = None;
                    self.has_opened(batch, answer);
                }
                Some(nudge) = OptionFuture::from(self.nudges.as_mut().map(Streaming::message)) => match nudge {
                    Ok(Some(_)) => self.holder.nudged(),
                    // Without them it is as slow as its heartbeats until it registers again.
                    Ok(None) | Err(_) => self.nudges = None,
                },
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => beating = self.beat(),
                () = sleep_until(lapse.unwrap_or_else(Instant::now)), if lapse.is_some() => {
                    let actions = self.holder.tick(self.begun.elapsed());
                    self.act(actions);
                }
            }
        }
        if let Some(session) = self.holder.session() {
            // When nobody hears it, the session ends by its silence.
            let _ = self.wire.leave(session).await;
        }
    }

    async fn register(&mut self) {
        loop {
            match self.wire.register(&name(self.life.name)).await {
                Ok((session, terms)) => {
                    self.nudges = self.wire.nudges(&session).await;
                    self.terms = terms;
                    self.holder.registered(session, terms);
                    return;
                }
                Err(_) => tokio::time::sleep(AGAIN).await,
            }
        }
    }

    fn beat(&mut self) -> Option<Beat> {
        self.jitter = rand::random_range(-1.0..=1.0);
        let mut heartbeat = self.holder.heartbeat(self.begun.elapsed())?;
        for held in &mut heartbeat.held {
            held.definition_revision = self.opened.get(&held.mailbox).copied().unwrap_or_default();
        }
        let (wire, fleet, patience) = (self.wire.clone(), self.fleet.clone(), self.terms.heartbeat_timeout);
        let call = async move { (heartbeat.ticket, wire.heartbeat(&heartbeat, patience, &fleet.traffic).await) };
        Some(call.boxed())
    }

    fn answered(&mut self, ticket: Ticket, answer: Result<Answer, Miss>) {
        let actions = match answer {
            Ok(answer) => {
                self.terms = answer.terms;
                self.holder.answered(self.begun.elapsed(), ticket, answer)
            }
            Err(miss) => self.missed(miss, Some(ticket)),
        };
        self.act(actions);
    }

    fn missed(&mut self, miss: Miss, ticket: Option<Ticket>) -> Vec<Action> {
        match (miss, ticket) {
            (Miss::SessionEnded, _) => match self.holder.session().cloned() {
                Some(session) => self.holder.session_ended(&session),
                None => Vec::new(),
            },
            (Miss::Unanswered(why), ticket) => {
                tracing::debug!(worker = self.life.name, why, "a call was not answered");
                if let Some(ticket) = ticket {
                    self.holder.abandoned(ticket);
                }
                Vec::new()
            }
        }
    }

    fn open(&mut self) -> Option<Opening> {
        let session = self.holder.session()?.clone();
        let holder = &self.holder;
        self.to_open.retain(|(mailbox, epoch)| holder.holds(mailbox, *epoch));
        let batch: Vec<_> = self.to_open.drain(..self.to_open.len().min(OPENED_AT_ONCE)).collect();
        if batch.is_empty() {
            return None;
        }
        let wire = self.wire.clone();
        let call = async move {
            let answer = wire.open(&session, &batch).await;
            (batch, answer)
        };
        Some(call.boxed())
    }

    fn has_opened(&mut self, batch: Vec<(MailboxUid, Epoch)>, answer: Result<Vec<(MailboxUid, u64)>, Miss>) {
        match answer {
            Ok(opened) => {
                let opened: BTreeMap<_, _> = opened.into_iter().collect();
                for (mailbox, epoch) in batch {
                    match opened.get(&mailbox) {
                        Some(revision) => {
                            self.fleet.census.opened(&self.life, &mailbox, epoch);
                            self.opened.insert(mailbox, *revision);
                        }
                        // Refused: the lease was lost, or the replica is not there yet; the next answer decides.
                        None => {
                            let actions = self.holder.lost(&mailbox, epoch);
                            self.act(actions);
                        }
                    }
                }
            }
            Err(miss) => {
                self.to_open.extend(batch);
                let actions = self.missed(miss, None);
                self.act(actions);
            }
        }
    }

    fn act(&mut self, actions: Vec<Action>) {
        let fleet = self.fleet.clone();
        for action in actions {
            match action {
                // The loop registers whenever there is no session. Nothing is written, so nothing is suspended.
                Action::Register | Action::Suspend | Action::Resume => {}
                Action::Open(offer) => {
                    fleet.census.take(&self.life, &offer.mailbox, offer.epoch);
                    self.to_open.push_back((offer.mailbox, offer.epoch));
                }
                Action::Reopen(offer) => self.to_open.push_back((offer.mailbox, offer.epoch)),
                Action::Drain(mailbox, epoch) => {
                    // There is no report to be finished.
                    fleet.census.let_go(&self.life, &mailbox, epoch);
                    self.opened.remove(&mailbox);
                    self.holder.let_go(&mailbox, epoch);
                }
                Action::Close(mailbox, epoch) => {
                    fleet.census.let_go(&self.life, &mailbox, epoch);
                    self.opened.remove(&mailbox);
                }
            }
        }
    }
}

/// The stable name of a worker.
pub(crate) fn name(number: usize) -> String {
    format!("worker-{number}")
}

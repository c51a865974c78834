//! How the installation is doing, put together for one screen: mailboxes and what is wrong with them, contacts that wait,
//! messages put aside, workers. What of it needs a person is decided in [`concern`].
//!
//! Invariant: the cost grows with the mailboxes of the model, with the contacts that wait up to 10,000 a queue, and with
//! messages put aside, not with all messages or contacts.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use postroom_proto::convert::to_timestamp;
use postroom_proto::reason::{Failure, Reason};
use postroom_proto::v1::{self, MailboxState};
use tokio::sync::watch;

use crate::binding::Binding;
use crate::clock;
use crate::definition::model::{Model, Queue};
use crate::lease::desk::Seen;
use crate::lease::desk::look::FleetSeen;
use crate::lease::handle::Handle;
use crate::ledger::tally::{InstanceTally, QueueWaiting, Tally};
use crate::ledger::{Micros, SharedLedger};
use crate::observation::Observer;

pub mod concern;

/// Most mailboxes that are described with their problem.
const FAILING: usize = 20;

/// One look at the whole installation.
#[derive(Debug)]
pub struct Look {
    /// Every mailbox of the model, in no order.
    pub mailboxes: Vec<v1::Mailbox>,
    /// What the ledger counts.
    pub tally: Tally,
    /// The workers. `None`: nobody leads.
    pub fleet: Option<FleetSeen>,
    /// What is said of it on one screen.
    pub status: v1::Status,
}

/// Looks at the whole installation.
#[derive(Clone)]
pub struct Overview {
    observer: Observer,
    ledger: SharedLedger,
    leader: Handle,
    model: watch::Receiver<Arc<Model>>,
    binding: Binding,
    started: Micros,
}

impl Overview {
    /// Over these five; the installation runs from now on.
    pub fn new(
        observer: Observer,
        ledger: SharedLedger,
        leader: Handle,
        model: watch::Receiver<Arc<Model>>,
        binding: Binding,
    ) -> Self {
        Self { observer, ledger, leader, model, binding, started: clock::now() }
    }

    /// How it is doing.
    pub async fn status(&self) -> Result<v1::Status, Failure> {
        Ok(self.look().await?.status)
    }

    /// The same with all that it was made of.
    pub async fn look(&self) -> Result<Look, Failure> {
        let mailboxes = self.observer.every_mailbox().await?;
        let tally = self.ledger.tally().await?;
        let model = self.model.borrow().clone();
        let queues: Vec<String> = model.queues().map(|queue| queue.uid.clone()).collect();
        let waiting = self.ledger.waiting_in(&queues).await?;
        let looked = async { Ok::<_, Failure>((self.leader.sessions().await?, self.leader.fleet().await?)) };
        let (sessions, fleet) = match looked.await {
            Ok((sessions, fleet)) => (Some(sessions), Some(fleet)),
            Err(failure) if matches!(failure.reason, Reason::NoLeader | Reason::StoreNotOurs) => (None, None),
            Err(failure) => return Err(failure),
        };
        let mut status = status(&model, &mailboxes, &tally, sessions, self.started, clock::now());
        status.queues = self::queues(&model, &waiting);
        let of_fleet = fleet.as_ref().map(|fleet| concern::of_fleet(fleet, clock::now()));
        status.concerns.splice(0..0, of_fleet.unwrap_or_default());
        if let Some(concern) = concern::of_store(&self.binding.standing().fit) {
            // It is why nobody leads, so it is told instead of that.
            status.concerns.retain(|concern| concern.code != concern::NO_LEADER);
            status.concerns.insert(0, concern);
        }
        Ok(Look { mailboxes, tally, fleet, status })
    }
}

/// Puts the parts together. `sessions` is none when nobody leads.
fn status(
    model: &Model,
    mailboxes: &[v1::Mailbox],
    tally: &Tally,
    sessions: Option<Vec<Seen>>,
    started: Micros,
    now: Micros,
) -> v1::Status {
    let concerns = concern::concerns(mailboxes, tally, sessions.as_deref(), now);
    let mut states: BTreeMap<i32, u64> = BTreeMap::new();
    for mailbox in mailboxes {
        *states.entry(mailbox.state).or_default() += 1;
    }
    let failing = mailboxes.iter().filter(|mailbox| mailbox.state() == MailboxState::Failing);
    let mut failing: Vec<&v1::Mailbox> = failing.collect();
    failing.sort_by_cached_key(|mailbox| concern::urgency(mailbox, now));
    failing.truncate(FAILING);
    let heartbeat = |silent_for: std::time::Duration| {
        to_timestamp(now.saturating_sub(i64::try_from(silent_for.as_micros()).unwrap_or(i64::MAX)))
    };
    let worker = |seen: Seen| v1::WorkerStatus {
        worker: seen.worker,
        session: seen.session.to_string(),
        mailbox_count: seen.mailboxes as u64,
        heartbeat_time: seen.silent_for.map(heartbeat),
        draining: seen.draining,
    };
    v1::Status {
        version: env!("CARGO_PKG_VERSION").into(),
        start_time: Some(to_timestamp(started)),
        model_revision: model.revision(),
        read_time: Some(to_timestamp(now)),
        concerns,
        mailboxes: states.into_iter().map(|(state, count)| v1::MailboxTally { state, count }).collect(),
        failing_mailboxes: failing.into_iter().cloned().collect(),
        instances: instances(model, tally.instances.clone()),
        messages: tally
            .aside
            .iter()
            .map(|(disposition, count)| v1::MessageTally { disposition: (*disposition).into(), count: *count })
            .collect(),
        workers: sessions.unwrap_or_default().into_iter().map(worker).collect(),
        ledger_bytes: tally.size_bytes,
        queues: Vec::new(),
    }
}

/// By instance and name.
fn queues(model: &Model, waiting: &[QueueWaiting]) -> Vec<v1::QueueStatus> {
    let waiting: HashMap<&str, &QueueWaiting> = waiting.iter().map(|it| (it.queue_uid.as_str(), it)).collect();
    let describe = |queue: &Arc<Queue>| {
        let found = waiting.get(queue.uid.as_str());
        v1::QueueStatus {
            instance: queue.instance.clone(),
            queue: queue.name.clone(),
            waiting_count: found.map_or(0, |it| it.count),
            oldest_time: found.and_then(|it| it.oldest).map(to_timestamp),
        }
    };
    let mut queues: Vec<v1::QueueStatus> = model.queues().map(describe).collect();
    queues.sort_by(|a, b| (&a.instance, &a.queue).cmp(&(&b.instance, &b.queue)));
    queues
}

/// Those of the model by name, then those that are gone but have contacts.
fn instances(model: &Model, tallies: Vec<InstanceTally>) -> Vec<v1::InstanceStatus> {
    let mut tallies: HashMap<String, InstanceTally> =
        tallies.into_iter().map(|tally| (tally.instance_uid.clone(), tally)).collect();
    let mut known: Vec<(String, Option<InstanceTally>)> =
        model.instances().map(|instance| (instance.name.clone(), tallies.remove(&instance.uid))).collect();
    known.sort_by(|a, b| a.0.cmp(&b.0));
    let mut gone: Vec<_> = tallies.into_values().map(|tally| (tally.instance.clone(), Some(tally))).collect();
    gone.sort_by(|a, b| a.0.cmp(&b.0));
    let encode = |(instance, tally): (String, Option<InstanceTally>)| {
        let (contacts, oldest) = tally.map(|tally| (tally.contacts, tally.oldest)).unwrap_or_default();
        let (oldest_contact, oldest_time) = oldest.unzip();
        v1::InstanceStatus {
            instance,
            contacts: contacts
                .into_iter()
                .map(|(state, count)| v1::ContactTally { state: state.into(), count })
                .collect(),
            oldest_contact: oldest_contact.unwrap_or_default(),
            oldest_time: oldest_time.map(to_timestamp),
        }
    };
    known.into_iter().chain(gone).map(encode).collect()
}

//! The workers, as operators see them and decide about them.
//!
//! What is decided stands in the store under the worker's name; the leader hears of it from there, whichever replica was
//! asked. A call returns once the leader acts on it, so that whoever looks next sees it.

use std::time::Duration;

use postroom_proto::convert::{from_duration, to_timestamp};
use postroom_proto::reason::{Failure, FieldFault, Reason};
use postroom_proto::v1::{self, WorkerRole};
use tokio::time::{Instant, sleep};

use crate::clock;
use crate::lease::decision::{Decision, Freeze};
use crate::lease::desk::look::{FleetSeen, WorkerSeen};
use crate::lease::handle::Handle;
use crate::lease::profile::Role;
use crate::ledger::Micros;
use crate::store::{Guard, Outcome, SharedStore, Write, key};

/// Most attempts of a decision that somebody else's comes in between.
const ATTEMPTS: u32 = 8;
/// How long it is waited until the leader has heard of a decision, and how often it is looked.
const HEARD: Duration = Duration::from_secs(3);
const LOOK: Duration = Duration::from_millis(25);
/// Longest note of a freeze, in bytes.
const NOTE: usize = 200;
/// Longest freeze that ends by itself.
const LONGEST: Duration = Duration::from_secs(7 * 24 * 3600);

/// Looks at the workers and decides about them. Cheap to share.
#[derive(Clone)]
pub struct Fleet {
    store: SharedStore,
    leader: Handle,
}

impl Fleet {
    /// Decisions go to `store`, and `leader` acts on them.
    pub fn new(store: SharedStore, leader: Handle) -> Self {
        Self { store, leader }
    }

    /// Every worker, and what holds for all of them.
    pub async fn list(&self) -> Result<v1::ListWorkersResponse, Failure> {
        let FleetSeen { workers, freeze, brake } = self.leader.fleet().await?;
        let now = clock::now();
        Ok(v1::ListWorkersResponse {
            workers: workers.into_iter().map(|worker| describe(worker, now)).collect(),
            freeze: freeze.map(describe_freeze),
            brake_until_time: brake.map(|left| to_timestamp(later(now, left))),
        })
    }

    /// Takes a worker's mailboxes from it and gives it none, or ends that.
    pub async fn drain(&self, worker: &str, drained: bool, by: &str) -> Result<v1::Worker, Failure> {
        self.decide(worker, by, |decision| decision.drained = drained).await
    }

    /// Sets what a worker is for; `Unspecified`: what it says itself.
    pub async fn set_role(&self, worker: &str, role: i32, by: &str) -> Result<v1::Worker, Failure> {
        let role = match WorkerRole::try_from(role) {
            Ok(WorkerRole::Unspecified) => None,
            Ok(WorkerRole::Active) => Some(Role::Active),
            Ok(WorkerRole::Spare) => Some(Role::Spare),
            Err(_) => {
                return Err(Failure::invalid_field("role", "is none that this version knows; give ACTIVE or SPARE"));
            }
        };
        self.decide(worker, by, |decision| decision.role = role).await
    }

    async fn decide(&self, name: &str, by: &str, change: impl Fn(&mut Decision)) -> Result<v1::Worker, Failure> {
        if !self.leader.fleet().await?.workers.iter().any(|worker| worker.name == name) {
            let text = format!("there is no worker {name:?}; see `postroom worker list`");
            return Err(Failure::new(Reason::NotFound, text));
        }
        let at = key::worker(name);
        for _ in 0..ATTEMPTS {
            let found = self.store.get(&at).await?;
            let known = found.as_ref().and_then(|entry| Decision::decode(&entry.value));
            let mut decision = known.clone().unwrap_or_else(|| Decision::new(clock::now(), by));
            change(&mut decision);
            if known.as_ref() == Some(&decision) {
                return self.heard(name, &decision).await;
            }
            (decision.time, decision.by) = (clock::now(), by.into());
            let guard = match found {
                Some(entry) => Guard::Unchanged(at.clone(), entry.mod_revision),
                None => Guard::Absent(at.clone()),
            };
            match self.store.commit(vec![guard], vec![Write::Put(at.clone(), decision.encode())]).await? {
                Outcome::Committed(_) => {
                    let role = decision.role;
                    tracing::info!(worker = name, drained = decision.drained, ?role, by, "decided about a worker");
                    return self.heard(name, &decision).await;
                }
                Outcome::Conflict => {}
                Outcome::Unknown => return Err(unknown()),
            }
        }
        let text = format!("others decide about {name} at the same time; look at it and decide again");
        Err(Failure::new(Reason::OutcomeUnknown, text))
    }

    /// The worker, once the leader acts on the decision.
    async fn heard(&self, name: &str, decision: &Decision) -> Result<v1::Worker, Failure> {
        let seen = self.wait(|fleet| {
            let worker = fleet.workers.iter().find(|worker| worker.name == name)?;
            (worker.decision.as_ref() == Some(decision)).then(|| worker.clone())
        });
        if let Some(worker) = seen.await? {
            return Ok(describe(worker, clock::now()));
        }
        // Nothing is in force about a worker that has no session, so that it is not known any more; or the leader is slow.
        let fleet = self.leader.fleet().await?;
        let worker =
            fleet.workers.into_iter().find(|worker| worker.name == name).unwrap_or_else(|| WorkerSeen::gone(name));
        Ok(describe(WorkerSeen { decision: Some(decision.clone()), ..worker }, clock::now()))
    }

    /// What `look` finds in the fleet, as soon as it finds something. `None`: it did not in time.
    async fn wait<T>(&self, look: impl Fn(&FleetSeen) -> Option<T>) -> Result<Option<T>, Failure> {
        let until = Instant::now() + HEARD;
        loop {
            if let Some(found) = look(&self.leader.fleet().await?) {
                return Ok(Some(found));
            }
            if Instant::now() >= until {
                return Ok(None);
            }
            sleep(LOOK).await;
        }
    }

    /// Freezes the fleet, or freezes it anew.
    pub async fn freeze(&self, request: v1::FreezeWorkersRequest, by: &str) -> Result<v1::Freeze, Failure> {
        let mut faults = Vec::new();
        let mut fault = |field: &str, description: &str| {
            faults.push(FieldFault { field: field.into(), description: description.into() });
        };
        if request.note.len() > NOTE {
            fault("note", "is longer than 200 bytes; say it in one line");
        }
        // Negative ones are zero here.
        let lasts = request.duration.map(|duration| from_duration(&duration).unwrap_or_default());
        if lasts.is_some_and(|lasts| lasts.is_zero() || lasts > LONGEST) {
            fault(
                "duration",
                "must be longer than zero and at most 7 days; leave it out to freeze until somebody ends it",
            );
        }
        if !faults.is_empty() {
            return Err(Failure::invalid(faults));
        }
        // Whoever may not lead here may not freeze here either.
        self.leader.fleet().await?;
        let now = clock::now();
        let freeze = Freeze::new(now, lasts.map(|lasts| later(now, lasts)), by, request.note);
        self.put_freeze(Write::Put(key::FREEZE.into(), freeze.encode())).await?;
        tracing::warn!(by, note = freeze.note, "the fleet is frozen");
        self.wait(|fleet| (fleet.freeze.as_ref() == Some(&freeze)).then_some(())).await?;
        Ok(describe_freeze(freeze))
    }

    /// Ends the freeze, if there is one.
    pub async fn unfreeze(&self, by: &str) -> Result<(), Failure> {
        self.leader.fleet().await?;
        self.put_freeze(Write::Delete(key::FREEZE.into())).await?;
        tracing::warn!(by, "the fleet is not frozen any more");
        self.wait(|fleet| fleet.freeze.is_none().then_some(())).await?;
        Ok(())
    }

    async fn put_freeze(&self, write: Write) -> Result<(), Failure> {
        match self.store.commit(Vec::new(), vec![write]).await? {
            Outcome::Committed(_) => Ok(()),
            Outcome::Conflict | Outcome::Unknown => Err(unknown()),
        }
    }
}

fn unknown() -> Failure {
    let text = "it is not known whether the decision was recorded; look with `postroom worker list`, or decide again";
    Failure::new(Reason::OutcomeUnknown, text)
}

fn later(now: Micros, time: Duration) -> Micros {
    now.saturating_add(i64::try_from(time.as_micros()).unwrap_or(i64::MAX))
}

fn describe_freeze(freeze: Freeze) -> v1::Freeze {
    v1::Freeze {
        since_time: Some(to_timestamp(freeze.since)),
        until_time: freeze.until.map(to_timestamp),
        frozen_by: freeze.by,
        note: freeze.note,
    }
}

fn describe(worker: WorkerSeen, now: Micros) -> v1::Worker {
    let heartbeat = |silent_for: Duration| {
        to_timestamp(now.saturating_sub(i64::try_from(silent_for.as_micros()).unwrap_or(i64::MAX)))
    };
    let (decision, set) = (worker.decision.as_ref(), worker.decision.as_ref().and_then(|decision| decision.role));
    let role = match set.unwrap_or(worker.role) {
        Role::Active => WorkerRole::Active,
        Role::Spare => WorkerRole::Spare,
    };
    v1::Worker {
        state: worker.state.into(),
        role: role.into(),
        role_set: set.is_some(),
        drained: decision.is_some_and(|decision| decision.drained),
        decision_time: decision.map(|decision| to_timestamp(decision.time)),
        decided_by: decision.map(|decision| decision.by.clone()).unwrap_or_default(),
        name: worker.name,
        pool: worker.pool,
        capacity: worker.capacity,
        mailbox_count: u32::try_from(worker.assigned).unwrap_or(u32::MAX),
        held_count: u32::try_from(worker.held).unwrap_or(u32::MAX),
        stands_in_for: worker.stands_in_for.into_iter().collect(),
        session: worker.session.map(|session| session.to_string()).unwrap_or_default(),
        build: worker.build,
        start_time: worker.begun.map(to_timestamp),
        heartbeat_time: worker.silent_for.map(heartbeat),
    }
}

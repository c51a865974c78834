//! Taking contacts: at once when some wait, otherwise as soon as some come, within the taker's patience.

use std::sync::Arc;
use std::time::Duration;

use postroom_proto::reason::{Failure, Reason};
use postroom_proto::v1;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::arrival::Arrivals;
use crate::clock;
use crate::ledger::{SharedLedger, Take};
use crate::watching::KEPT;

/// Most takers that wait at one time.
const WAITING: usize = 4096;

/// Hands contacts to takers.
#[derive(Clone)]
pub struct Allocator {
    ledger: SharedLedger,
    arrivals: Arc<Arrivals>,
    waiting: Arc<Semaphore>,
    stopping: CancellationToken,
}

impl Allocator {
    /// `stopping` ends every wait.
    pub fn new(ledger: SharedLedger, arrivals: Arc<Arrivals>, stopping: CancellationToken) -> Self {
        Self { ledger, arrivals, waiting: Arc::new(Semaphore::new(WAITING)), stopping }
    }

    /// The best contacts, or none when none came within `patience`.
    pub async fn take(&self, take: Take, patience: Duration) -> Result<Vec<v1::Contact>, Failure> {
        let until = Instant::now() + patience;
        // Ordering: subscribe before looking, so that a contact queued in between is either found or announced.
        let mut arrivals = self.arrivals.subscribe(&take.instance_uid);
        let _place = self.waiting.try_acquire().map_err(|_| {
            Failure::new(Reason::TooMany, format!("{WAITING} takers wait already; take with fewer connections"))
        })?;
        loop {
            arrivals.mark_unchanged();
            let allocated = self.ledger.allocate(take.clone(), clock::now()).await?;
            if allocated.put_back {
                self.arrivals.raise(&take.instance_uid);
            }
            if !allocated.contacts.is_empty() || Instant::now() >= until {
                return Ok(allocated.contacts);
            }
            tokio::select! {
                () = self.stopping.cancelled() => {
                    return Err(Failure::new(Reason::ShuttingDown, "the control plane is stopping; take again"));
                }
                changed = timeout_at(until, arrivals.changed()) => {
                    // The wait is over, or nothing will be announced any more: one last look either way.
                    if !matches!(changed, Ok(Ok(()))) && Instant::now() < until {
                        return Ok(Vec::new());
                    }
                }
            }
        }
    }

    /// Puts back what was not accepted in time, and cuts off old changes, every `interval`, until told to stop.
    pub async fn keep_deadlines(self, interval: Duration) {
        let mut clock_tick = tokio::time::interval(interval);
        clock_tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = self.stopping.cancelled() => return,
                _ = clock_tick.tick() => {}
            }
            match self.ledger.lapse(clock::now()).await {
                Ok(instances) => instances.iter().for_each(|instance| self.arrivals.raise(instance)),
                Err(error) => tracing::error!(error = crate::failure::chain(&error), "deadlines could not be kept"),
            }
            if let Err(error) = self.ledger.trim_contact_changes(KEPT).await {
                tracing::error!(error = crate::failure::chain(&error), "old changes could not be cut off");
            }
        }
    }
}

//! Statuses on their way to the control plane.
//!
//! Invariant: of one mailbox no status is told after a newer one. The control plane keeps what it hears last, and so
//! does whoever reads the mailbox next: an older status that comes later would take back what was recorded of refusals.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use postroom_proto::v1;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::report::{Error, Reporter};

/// Most statuses in one call.
const MAX_STATUSES: usize = 500;
/// Time between two calls, so that a storm of changes is told once.
const PACE: Duration = Duration::from_millis(200);

/// Statuses not yet told. Bounded by the number of mailboxes: a newer one takes the place of the older.
#[derive(Debug, Default)]
pub struct Board {
    // Held only to look up or change, never across an await.
    changed: Mutex<HashMap<String, v1::MailboxStatus>>,
    wake: Notify,
    /// Whoever tells has it from before statuses are looked up until it is known whether they were heard.
    calling: tokio::sync::Mutex<Option<Unheard>>,
}

/// A call that failed, after which none was made yet.
#[derive(Debug)]
struct Unheard {
    begun: Instant,
    error: Error,
}

impl Board {
    /// An empty board.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts up a status.
    pub fn publish(&self, status: v1::MailboxStatus) {
        self.lock().insert(status.mailbox.clone(), status);
        self.wake.notify_one();
    }

    /// Takes down all statuses.
    #[cfg(test)]
    pub(crate) fn take(&self) -> Vec<v1::MailboxStatus> {
        std::mem::take(&mut *self.lock()).into_values().collect()
    }

    /// Tells what is up, of this mailbox first, up to 500 statuses. `Ok`: nothing that was put up of it before is
    /// untold.
    ///
    /// The others go along, so that many mailboxes whose statuses may not wait need few calls.
    pub async fn tell(&self, reporter: &dyn Reporter, mailbox: &str) -> Result<(), Error> {
        self.call(reporter, Some(mailbox)).await
    }

    /// Tells the control plane until `stop`, and what is left then, once.
    pub async fn forward(&self, reporter: &dyn Reporter, stop: CancellationToken) {
        loop {
            if self.lock().is_empty() {
                tokio::select! {
                    () = self.wake.notified() => {}
                    () = stop.cancelled() => return,
                }
                continue;
            }
            let pause = match self.call(reporter, None).await {
                Ok(()) => PACE,
                Err(error) => {
                    tracing::debug!(%error, "statuses could not be told");
                    PACE * 10
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => {
                    let _ = self.call(reporter, None).await;
                    return;
                }
            }
        }
    }

    /// One call with what is up, if anything is: of `mailbox` when one is named, and others.
    async fn call(&self, reporter: &dyn Reporter, mailbox: Option<&str>) -> Result<(), Error> {
        let asked = Instant::now();
        let mut calling = self.calling.lock().await;
        let statuses = self.batch(mailbox);
        // Another call has told it meanwhile.
        if statuses.is_empty() {
            return Ok(());
        }
        // Many who wait behind a control plane that does not answer must not wait for its silence one after the other.
        if let Some(unheard) = calling.as_ref().filter(|unheard| unheard.begun > asked) {
            return Err(unheard.error.clone());
        }
        let begun = Instant::now();
        // Ordering: they stay up until they were heard, so that a caller who is dropped on the way loses none.
        let told = reporter.status(statuses.clone()).await;
        *calling = told.as_ref().err().map(|error| Unheard { begun, error: error.clone() });
        told?;
        let mut changed = self.lock();
        for told in &statuses {
            if changed.get(&told.mailbox) == Some(told) {
                changed.remove(&told.mailbox);
            }
        }
        Ok(())
    }

    /// Up to 500 statuses; none when there is nothing of the mailbox that is named.
    fn batch(&self, mailbox: Option<&str>) -> Vec<v1::MailboxStatus> {
        let changed = self.lock();
        let named = mailbox.and_then(|mailbox| changed.get(mailbox));
        if mailbox.is_some() && named.is_none() {
            return Vec::new();
        }
        let others = changed.values().filter(|status| Some(status.mailbox.as_str()) != mailbox);
        named.into_iter().chain(others).take(MAX_STATUSES).cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, v1::MailboxStatus>> {
        self.changed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;

//! Statuses on their way to the control plane.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use postroom_proto::v1;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::report::Reporter;

/// Most statuses in one call.
const MAX_STATUSES: usize = 500;
/// Time between two calls, so that a storm of changes is told once.
const PACE: Duration = Duration::from_millis(200);

/// Statuses not yet told. Bounded by the number of mailboxes: a newer one takes the place of the older.
#[derive(Debug, Default)]
pub struct Board {
    changed: Mutex<HashMap<String, v1::MailboxStatus>>,
    wake: Notify,
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

    /// Takes down up to 500 statuses.
    pub fn take(&self) -> Vec<v1::MailboxStatus> {
        let mut changed = self.lock();
        let names: Vec<String> = changed.keys().take(MAX_STATUSES).cloned().collect();
        names.iter().filter_map(|name| changed.remove(name)).collect()
    }

    /// Puts back what could not be told, unless there is something newer.
    fn put_back(&self, statuses: Vec<v1::MailboxStatus>) {
        let mut changed = self.lock();
        for status in statuses {
            changed.entry(status.mailbox.clone()).or_insert(status);
        }
    }

    /// Tells the control plane until `stop`, and what is left then, once.
    pub async fn forward(&self, reporter: &dyn Reporter, stop: CancellationToken) {
        loop {
            let statuses = self.take();
            if statuses.is_empty() {
                tokio::select! {
                    () = self.wake.notified() => {}
                    () = stop.cancelled() => return,
                }
                continue;
            }
            let told = reporter.status(statuses.clone()).await;
            let pause = match told {
                Ok(()) => PACE,
                Err(error) => {
                    tracing::debug!(%error, "statuses could not be told");
                    self.put_back(statuses);
                    PACE * 10
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                // A last round for what is left, unless it just failed.
                () = stop.cancelled() => {
                    let _ = reporter.status(self.take()).await;
                    return;
                }
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, v1::MailboxStatus>> {
        self.changed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

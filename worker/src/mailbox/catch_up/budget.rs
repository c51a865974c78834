//! What may be in memory of messages that are fetched and not yet committed.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::mailbox::standing::Moves;

/// Bytes fetched and not yet committed, over all mailboxes of the worker.
#[derive(Debug, Clone)]
pub struct Budget {
    pub(super) kib: Arc<Semaphore>,
    total: u32,
    given: Moves,
}

impl Budget {
    /// A budget of `bytes`.
    pub fn new(bytes: u64) -> Self {
        let total = u32::try_from((bytes / 1024).clamp(1, Semaphore::MAX_PERMITS as u64)).unwrap_or(u32::MAX);
        Self { kib: Arc::new(Semaphore::new(total as usize)), total, given: Moves::default() }
    }

    /// Bytes that are free.
    pub fn free(&self) -> u64 {
        self.kib.available_permits() as u64 * 1024
    }

    /// Waits for room. A message larger than the whole budget waits until it has all of it.
    pub async fn take(&self, bytes: u64) -> Option<OwnedSemaphorePermit> {
        let kib = u32::try_from(bytes / 1024 + 1).unwrap_or(u32::MAX).min(self.total);
        let permit = self.kib.clone().acquire_many_owned(kib).await.ok();
        self.given.fetch_add(1, Ordering::Relaxed);
        permit
    }

    /// Counts how often somebody was given room: as long as that goes on, whoever waits comes nearer.
    pub fn given(&self) -> Moves {
        self.given.clone()
    }
}

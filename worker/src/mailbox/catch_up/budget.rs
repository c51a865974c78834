//! What may be in memory of messages that are fetched and not yet committed.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes fetched and not yet committed, over all mailboxes of the worker.
#[derive(Debug, Clone)]
pub struct Budget {
    pub(super) kib: Arc<Semaphore>,
    total: u32,
}

impl Budget {
    /// A budget of `bytes`.
    pub fn new(bytes: u64) -> Self {
        let total = u32::try_from((bytes / 1024).clamp(1, Semaphore::MAX_PERMITS as u64)).unwrap_or(u32::MAX);
        Self { kib: Arc::new(Semaphore::new(total as usize)), total }
    }

    /// Waits for room. A message larger than the whole budget waits until it has all of it.
    pub async fn take(&self, bytes: u64) -> Option<OwnedSemaphorePermit> {
        let kib = u32::try_from(bytes / 1024 + 1).unwrap_or(u32::MAX).min(self.total);
        self.kib.clone().acquire_many_owned(kib).await.ok()
    }
}

//! The model in memory, as fresh as the store's watch.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard, watch};
use tokio_util::sync::CancellationToken;

use super::model::Model;
use super::tree::{self, ReadError, Snapshot};
use crate::store::{Revision, SharedStore, key};

/// Wait before a store that failed is asked again; doubles up to [`RETRY_MAX`].
const RETRY: Duration = Duration::from_millis(200);
/// Longest wait.
const RETRY_MAX: Duration = Duration::from_secs(5);

/// The newest known model, and how to hear of the next one.
#[derive(Debug)]
pub struct Definitions {
    store: StoreHandle,
    snapshot: Mutex<Arc<Snapshot>>,
    model: watch::Sender<Arc<Model>>,
    /// Held for reading by whoever reads or changes the trees of the model, alone by whoever replaces them.
    changing: RwLock<()>,
}

struct StoreHandle(SharedStore);

impl std::fmt::Debug for StoreHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Store")
    }
}

impl Definitions {
    /// Reads the model that is stored; an empty one when nothing was ever applied.
    pub async fn load(store: SharedStore) -> Result<Self, ReadError> {
        let snapshot = tree::read(&*store, &Snapshot::default()).await?;
        let (model, _) = watch::channel(Arc::clone(&snapshot.model));
        Ok(Self {
            store: StoreHandle(store),
            snapshot: Mutex::new(Arc::new(snapshot)),
            model,
            changing: RwLock::default(),
        })
    }

    /// The newest known model.
    pub fn model(&self) -> Arc<Model> {
        Arc::clone(&self.model.borrow())
    }

    /// Tells of every newer model; some between may be skipped.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Model>> {
        self.model.subscribe()
    }

    /// Follows the store until `stop` is raised. A store that fails is asked again; meanwhile the last model stands.
    pub async fn run(&self, stop: CancellationToken) {
        let mut wait = RETRY;
        loop {
            let followed = tokio::select! {
                () = stop.cancelled() => return,
                followed = self.follow(&mut wait) => followed,
            };
            let Err(error) = followed;
            if !matches!(&error, ReadError::Store(crate::store::Error::Compacted { .. })) {
                tracing::warn!(%error, "the model cannot be followed; trying again");
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(wait) => {}
                }
                wait = (wait * 2).min(RETRY_MAX);
            }
        }
    }

    async fn follow(&self, wait: &mut Duration) -> Result<std::convert::Infallible, ReadError> {
        // Ordering: first where history stands, then the model, so that no change falls between.
        let from = self.store().revision().await?;
        let mut changes = self.store().watch(key::MODEL_HEAD, Revision(from.0 + 1)).await?;
        loop {
            let reading = self.changing().await;
            self.refresh().await?;
            drop(reading);
            *wait = RETRY;
            changes.next().await?;
        }
    }

    /// Takes the model of a store that was adopted, whose revisions may stand below those that were known.
    pub async fn start_over(&self) -> Result<(), ReadError> {
        let snapshot = Arc::new(tree::read(self.store(), &Snapshot::default()).await?);
        let mut known = self.snapshot.lock().unwrap_or_else(PoisonError::into_inner);
        *known = Arc::clone(&snapshot);
        self.model.send_replace(Arc::clone(&snapshot.model));
        Ok(())
    }

    /// Reads the newest model now.
    pub(super) async fn refresh(&self) -> Result<Arc<Snapshot>, ReadError> {
        let known = self.snapshot();
        let snapshot = tree::read(self.store(), &known).await?;
        Ok(self.publish(snapshot))
    }

    /// Makes a snapshot known unless a newer one already is. One of the same revision is newer when the head was written
    /// after it: the secrets were sealed again.
    pub(super) fn publish(&self, snapshot: Snapshot) -> Arc<Snapshot> {
        let snapshot = Arc::new(snapshot);
        let mut known = self.snapshot.lock().unwrap_or_else(PoisonError::into_inner);
        let age = |it: &Snapshot| (it.model.revision(), it.head);
        if age(&snapshot) >= age(&known) {
            *known = Arc::clone(&snapshot);
            self.model.send_if_modified(|model| {
                let other = !Arc::ptr_eq(model, &snapshot.model);
                if other {
                    *model = Arc::clone(&snapshot.model);
                }
                other
            });
        }
        snapshot
    }

    /// While the guard lives, no tree that a revision named is taken away. Not to be asked for twice by one task.
    pub(crate) async fn changing(&self) -> RwLockReadGuard<'_, ()> {
        self.changing.read().await
    }

    /// While the guard lives, nobody reads or changes the trees of the model.
    pub(super) async fn changing_alone(&self) -> RwLockWriteGuard<'_, ()> {
        self.changing.write().await
    }

    pub(super) fn store(&self) -> &dyn crate::store::Store {
        &*self.store.0
    }

    fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshot.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

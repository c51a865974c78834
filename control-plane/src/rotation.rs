//! A new key for the stored secrets, while everything runs.
//!
//! Ordering: the new key is durable beside the old one, then everything is sealed again ([`crate::definition::resealing`]),
//! then what names the old key is wiped from the store, then the old key goes. Whoever is killed anywhere has every
//! secret under a key that is at hand, and a repeated rotation goes on with the key that was made. Workers notice nothing:
//! secrets are opened here, and no mailbox is opened again.
//!
//! Nothing runs by itself: a rotation goes on while its caller polls, and stops when it is dropped.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use postroom_proto::reason::{Failure, Reason};
use postroom_proto::v1;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::access::vault::{ChangeError, Vault};
use crate::binding::Binding;
use crate::definition::Definitions;
use crate::definition::resealing::{Resealing, Told};
use crate::failure::chain;
use crate::folder;
use crate::store::opened::{Opened, Wiped};

pub mod records;

/// Longest silence while it works.
const PULSE: Duration = Duration::from_millis(500);

/// Rotates keys, one rotation at a time.
#[derive(Debug, Clone)]
pub struct Rotations {
    ground: Arc<Ground>,
    turn: Arc<Semaphore>,
    stopping: CancellationToken,
}

/// What there is to rotate.
#[derive(Debug)]
pub struct Ground {
    /// The data folder.
    pub data: PathBuf,
    /// The store that holds the secrets.
    pub store: Opened,
    /// The model.
    pub definitions: Arc<Definitions>,
    /// The keys.
    pub vault: Arc<Vault>,
    /// Nothing is changed in a store that is not the ledger's.
    pub binding: Binding,
}

/// What is told of a rotation.
#[derive(Debug)]
pub enum Event {
    /// How far it is.
    Progress(v1::RotationProgress),
    /// What it came to.
    Done(v1::Rotation),
}

impl Rotations {
    /// Rotates this until told to stop.
    pub fn new(ground: Ground, stopping: CancellationToken) -> Self {
        Self { ground: Arc::new(ground), turn: Arc::new(Semaphore::new(1)), stopping }
    }

    /// Begins a rotation; `dry`: only says what it would do.
    pub fn begin(&self, dry: bool) -> Result<Rotating, Failure> {
        self.ground.binding.standing().require()?;
        let turn = self.turn.clone().try_acquire_owned().map_err(|_| {
            let busy = Failure::new(Reason::TooMany, "the key is being rotated already; wait until that is done");
            Failure { retry_after: Some(Duration::from_secs(10)), ..busy }
        })?;
        let told = Arc::new(Told::default());
        let work = Box::pin(rotate(self.ground.clone(), told.clone(), dry));
        Ok(Rotating { work: Some(work), told, stopping: self.stopping.clone(), _turn: turn })
    }
}

type Work = Pin<Box<dyn Future<Output = Result<v1::Rotation, Failure>> + Send>>;

/// A rotation under way.
pub struct Rotating {
    /// `None` once it has ended.
    work: Option<Work>,
    told: Arc<Told>,
    stopping: CancellationToken,
    _turn: OwnedSemaphorePermit,
}

impl Rotating {
    /// What comes next; `None` once it is done. After an error there is nothing more.
    pub async fn next(&mut self) -> Result<Option<Event>, Failure> {
        let Some(work) = &mut self.work else { return Ok(None) };
        let done = tokio::select! {
            done = tokio::time::timeout(PULSE, work) => done,
            () = self.stopping.cancelled() => {
                self.work = None;
                let text = "the control plane is stopping; rotate again later, which goes on where this ended";
                return Err(Failure::new(Reason::ShuttingDown, text));
            }
        };
        match done {
            Err(_) => Ok(Some(Event::Progress(v1::RotationProgress {
                done_count: self.told.revisions.load(Ordering::Relaxed),
                total_count: self.told.total.load(Ordering::Relaxed),
            }))),
            Ok(ended) => {
                self.work = None;
                ended.map(|rotation| Some(Event::Done(rotation)))
            }
        }
    }
}

async fn rotate(ground: Arc<Ground>, told: Arc<Told>, dry: bool) -> Result<v1::Rotation, Failure> {
    let (vault, definitions) = (&*ground.vault, &*ground.definitions);
    let mut rotation = v1::Rotation {
        validate_only: dry,
        key_source: vault.source().map(ToString::to_string).unwrap_or_default(),
        ..v1::Rotation::default()
    };
    let older = if dry {
        let older = vault.key_ids();
        rotation.resumed = older.len() > 1;
        if rotation.resumed { older[..older.len() - 1].to_vec() } else { older }
    } else {
        let begun = vault.begin_rotation().await?;
        tracing::info!(key = begun.key_id, former = ?begun.older, resumed = begun.resumed, "secrets are sealed under a new key");
        rotation.key_id = begun.key_id;
        rotation.resumed = begun.resumed;
        begun.older
    };
    let mut resealing = Resealing::new(definitions, vault, &told, dry);
    if dry {
        resealing.pass(false).await?;
    } else {
        resealing.run(&older).await?;
    }
    let mut tally = resealing.tally().clone();
    let records = records::seal_again(&*ground.store.shared(), vault, dry).await?;
    tally.secrets += records.secrets;
    for (key, why) in records.kept {
        tally.unreadable += 1;
        tally.kept_keys.insert(key);
        tally.named.push(why);
    }
    rotation.revision_count = tally.revisions;
    rotation.secret_count = tally.secrets;
    rotation.lost_count = tally.lost;
    rotation.unreadable_count = tally.unreadable;
    rotation.unreadable = tally.named;
    let gone: BTreeSet<String> = older.iter().filter(|id| !tally.kept_keys.contains(*id)).cloned().collect();
    rotation.dropped_key_ids = gone.iter().cloned().collect();
    rotation.kept_key_ids = tally.kept_keys.iter().filter(|id| vault.holds(id)).cloned().collect();
    if dry {
        return Ok(rotation);
    }
    // Ordering: the store forgets before the key goes, so that a rotation that failed here is repeated as a whole.
    match ground.store.wipe().await? {
        Wiped::Clean => {}
        Wiped::HistoryKept(revision) => rotation.compact_revision = revision.0,
    }
    rotation.former_store_kept = !ground.store.is_file() && ground.data.join(folder::STORE).exists();
    rotation.source_keeps_keys = vault.end_rotation(&gone).await?;
    tracing::info!(key = rotation.key_id, former = ?rotation.dropped_key_ids, count = rotation.secret_count, "the key of the secrets is rotated");
    Ok(rotation)
}

impl From<ChangeError> for Failure {
    fn from(error: ChangeError) -> Self {
        match &error {
            ChangeError::Busy => Self::new(Reason::TooMany, chain(&error)),
            ChangeError::Key(_) => Self::new(Reason::KeyUnusable, chain(&error)),
            ChangeError::CutOff => Self::new(Reason::OutcomeUnknown, chain(&error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::vault::KeySource;
    use crate::binding;
    use crate::ledger::sqlite::Sqlite as Ledger;
    use crate::sqlite::Location;
    use crate::store::sqlite::Sqlite as Store;

    #[tokio::test]
    async fn one_rotation_runs_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let store = Opened::Sqlite(Arc::new(Store::memory().await.unwrap()));
        let binding = Binding::open(binding::Ground {
            store: store.shared(),
            location: "a file".into(),
            ledger: Arc::new(Ledger::open(&Location::Memory).await.unwrap()),
            former: None,
            quiet: Duration::ZERO,
        });
        let source = KeySource::File(folder.path().join("secret.key"));
        let ground = Ground {
            data: folder.path().into(),
            definitions: Arc::new(Definitions::load(store.shared()).await.unwrap()),
            store,
            vault: Arc::new(Vault::load(&source, &BTreeSet::new()).unwrap()),
            binding: binding.await.unwrap(),
        };
        let rotations = Rotations::new(ground, CancellationToken::new());
        let first = rotations.begin(true).unwrap();
        let refused = rotations.begin(false).err().map(|failure| failure.reason);
        assert_eq!(refused, Some(Reason::TooMany), "the first has not ended");
        drop(first);
        let mut second = rotations.begin(false).unwrap();
        while let Some(event) = second.next().await.unwrap() {
            if let Event::Done(rotation) = event {
                assert_eq!(rotation.dropped_key_ids.len(), 1);
            }
        }
        assert!(rotations.begin(true).is_err(), "its caller holds it until he lets go");
    }
}

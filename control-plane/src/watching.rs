//! Watching what changes: a snapshot, then every change, for as long as somebody listens. What is watched is a
//! [`Source`].
//!
//! Nothing is kept for a watcher but its place in the sequence of changes and one page of what it is being told. A slow
//! one costs no memory; the page is read when it asks. One that falls behind what the ledger keeps is told so.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use postroom_proto::reason::{Failure, Reason};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

/// Changes that the ledger keeps of each sequence.
pub const KEPT: u64 = 100_000;
/// Items of a page of the snapshot, and changes that are looked at together.
pub const PAGE: u32 = 200;
/// Most watchers of one kind at one time.
const WATCHERS: usize = 256;
/// How often a watcher is told how far it has come.
const BOOKMARK: Duration = Duration::from_secs(10);
/// How long changes are gathered before they are read, so that a busy ledger is not read for each of them.
const GATHER: Duration = Duration::from_millis(20);

/// What is watched.
#[async_trait]
pub trait Source: Send + Sync + 'static {
    /// What a watcher is told.
    type Event: Send + 'static;
    /// Where a snapshot stands.
    type Place: Send + 'static;

    /// Revision of the newest change.
    async fn newest(&self) -> Result<u64, Failure>;
    /// The next page of the snapshot, from the beginning or from where it stands. No place: it was the last one.
    async fn snapshot(
        &self,
        instance_uid: Option<&str>,
        place: Option<Self::Place>,
    ) -> Result<(Vec<Self::Event>, Option<Self::Place>), Failure>;
    /// What comes behind a revision. `None`: that is not kept, or was never reached.
    async fn changes(&self, instance_uid: Option<&str>, after: u64) -> Result<Option<Changes<Self::Event>>, Failure>;
    /// That everything up to here was told.
    fn bookmark(&self, revision: u64) -> Self::Event;
}

/// Some changes, in order.
#[derive(Debug)]
pub struct Changes<E> {
    /// What is to be told.
    pub events: Vec<E>,
    /// Everything up to here is among them.
    pub upto: u64,
    /// The newest change there is.
    pub newest: u64,
}

/// Lets people and instances watch a source.
#[derive(Debug, Clone)]
pub struct Watcher<S> {
    source: Arc<S>,
    /// Changes after every commit.
    commits: watch::Receiver<()>,
    places: Arc<Semaphore>,
    stopping: CancellationToken,
}

impl<S: Source> Watcher<S> {
    /// `commits` changes when there may be something new; `stopping` ends every watch.
    pub fn new(source: S, commits: watch::Receiver<()>, stopping: CancellationToken) -> Self {
        Self { source: Arc::new(source), commits, places: Arc::new(Semaphore::new(WATCHERS)), stopping }
    }

    /// Watches what is of an instance or of all: with a snapshot first, or from behind a revision.
    pub async fn watch(
        &self,
        instance_uid: Option<String>,
        from_revision: u64,
    ) -> Result<BoxStream<'static, Result<S::Event, Failure>>, Failure> {
        let place = self.places.clone().try_acquire_owned().map_err(|_| {
            Failure::new(Reason::TooMany, format!("{WATCHERS} watches run already; end one that is not needed"))
        })?;
        let mut watch = Watch {
            source: self.source.clone(),
            instance_uid,
            commits: self.commits.clone(),
            stopping: self.stopping.clone(),
            told: VecDeque::new(),
            snapshot: None,
            revision: from_revision,
            bookmark_at: Instant::now() + BOOKMARK,
            _place: place,
        };
        if from_revision == 0 {
            // Ordering: the revision before the snapshot, so that what changes meanwhile is told as a change.
            watch.revision = self.source.newest().await?;
            watch.snapshot = Some(None);
        } else {
            watch.read_changes().await?;
        }
        let told = stream::try_unfold(watch, async |mut watch| Ok(Some((watch.next().await?, watch))));
        Ok(told.boxed())
    }
}

struct Watch<S: Source> {
    source: Arc<S>,
    instance_uid: Option<String>,
    commits: watch::Receiver<()>,
    stopping: CancellationToken,
    /// Read, and not yet asked for.
    told: VecDeque<S::Event>,
    /// Where the snapshot stands. `None`: it is over.
    snapshot: Option<Option<S::Place>>,
    revision: u64,
    bookmark_at: Instant,
    _place: OwnedSemaphorePermit,
}

impl<S: Source> Watch<S> {
    async fn next(&mut self) -> Result<S::Event, Failure> {
        loop {
            if let Some(event) = self.told.pop_front() {
                return Ok(event);
            }
            if let Some(place) = self.snapshot.take() {
                let (events, place) = self.source.snapshot(self.instance_uid.as_deref(), place).await?;
                self.told.extend(events);
                self.snapshot = place.map(Some);
                if self.snapshot.is_none() {
                    self.bookmark();
                }
                continue;
            }
            // Ordering: marked before the look, so that a commit in between is either found or announced.
            self.commits.mark_unchanged();
            let behind = self.read_changes().await?;
            if Instant::now() >= self.bookmark_at {
                self.bookmark();
            }
            if behind || !self.told.is_empty() {
                continue;
            }
            tokio::select! {
                () = self.stopping.cancelled() => {
                    return Err(Failure::new(Reason::ShuttingDown, "the control plane is stopping; watch again"));
                }
                () = sleep_until(self.bookmark_at) => {}
                changed = self.commits.changed() => match changed {
                    Ok(()) => sleep(GATHER).await,
                    Err(_) => return Err(Failure::new(Reason::StorageFailed, "the ledger is closed; watch again")),
                }
            }
        }
    }

    /// Reads what comes next. True: there is more behind it.
    async fn read_changes(&mut self) -> Result<bool, Failure> {
        let read = self.source.changes(self.instance_uid.as_deref(), self.revision).await?;
        let changes = read.ok_or_else(|| {
            let text =
                format!("what came behind revision {} is not kept here; watch again from the beginning", self.revision);
            Failure::new(Reason::RevisionCompacted, text)
        })?;
        self.revision = changes.upto;
        self.told.extend(changes.events);
        Ok(changes.upto < changes.newest)
    }

    fn bookmark(&mut self) {
        self.told.push_back(self.source.bookmark(self.revision));
        self.bookmark_at = Instant::now() + BOOKMARK;
    }
}

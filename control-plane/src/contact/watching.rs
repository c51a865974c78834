//! Watching contacts: a snapshot, then every change, for as long as somebody listens.
//!
//! Nothing is kept for a watcher but its place in the sequence of changes and one page of what it is being told. A slow
//! one costs no memory; the page is read when it asks. One that falls behind what the ledger keeps is told so.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use postroom_proto::reason::{Failure, Reason};
use postroom_proto::v1::watch_contacts_response::Event;
use postroom_proto::v1::{self, ContactState, WatchContactsResponse};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::ledger::{ContactFilter, ContactPosition, SharedLedger};

/// Changes that the ledger keeps.
pub const KEPT: u64 = 100_000;
/// Most watchers at one time.
const WATCHERS: usize = 256;
/// Contacts of a page of the snapshot, and changes that are looked at together.
const PAGE: u32 = 200;
/// How often a watcher is told how far it has come.
const BOOKMARK: Duration = Duration::from_secs(10);
/// How long changes are gathered before they are read, so that a busy ledger is not read for each of them.
const GATHER: Duration = Duration::from_millis(20);
/// What a snapshot shows, in this order.
const SHOWN: [ContactState; 4] =
    [ContactState::Queued, ContactState::Allocated, ContactState::Accepted, ContactState::Dead];

/// Lets people and instances watch contacts.
#[derive(Clone)]
pub struct Watcher {
    ledger: SharedLedger,
    places: Arc<Semaphore>,
    stopping: CancellationToken,
}

impl Watcher {
    /// `stopping` ends every watch.
    pub fn new(ledger: SharedLedger, stopping: CancellationToken) -> Self {
        Self { ledger, places: Arc::new(Semaphore::new(WATCHERS)), stopping }
    }

    /// Watches the contacts of an instance or of all: with a snapshot first, or from behind a revision.
    pub async fn watch(
        &self,
        instance_uid: Option<String>,
        from_revision: u64,
    ) -> Result<BoxStream<'static, Result<WatchContactsResponse, Failure>>, Failure> {
        let place = self.places.clone().try_acquire_owned().map_err(|_| {
            Failure::new(Reason::TooMany, format!("{WATCHERS} watches run already; end one that is not needed"))
        })?;
        let mut watch = Watch {
            ledger: self.ledger.clone(),
            instance_uid,
            commits: self.ledger.commits(),
            stopping: self.stopping.clone(),
            told: VecDeque::new(),
            snapshot: None,
            revision: from_revision,
            bookmark_at: Instant::now() + BOOKMARK,
            _place: place,
        };
        if from_revision == 0 {
            // Ordering: the revision before the snapshot, so that what changes meanwhile is told as a change.
            watch.revision = self.ledger.newest_contact_change().await?;
            watch.snapshot = Some(Snapshot { state: 0, after: None });
        } else {
            watch.read_changes().await?;
        }
        let told = stream::try_unfold(watch, async |mut watch| Ok(Some((watch.next().await?, watch))));
        Ok(told.boxed())
    }
}

struct Watch {
    ledger: SharedLedger,
    instance_uid: Option<String>,
    commits: watch::Receiver<()>,
    stopping: CancellationToken,
    /// Read, and not yet asked for.
    told: VecDeque<WatchContactsResponse>,
    /// Where the snapshot stands. `None`: it is over.
    snapshot: Option<Snapshot>,
    revision: u64,
    bookmark_at: Instant,
    _place: OwnedSemaphorePermit,
}

struct Snapshot {
    /// Index into [`SHOWN`].
    state: usize,
    after: Option<ContactPosition>,
}

impl Watch {
    async fn next(&mut self) -> Result<WatchContactsResponse, Failure> {
        loop {
            if let Some(event) = self.told.pop_front() {
                return Ok(event);
            }
            if self.snapshot.is_some() {
                self.read_snapshot().await?;
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

    async fn read_snapshot(&mut self) -> Result<(), Failure> {
        let Some(snapshot) = &mut self.snapshot else { return Ok(()) };
        let Some(state) = SHOWN.get(snapshot.state) else {
            self.snapshot = None;
            self.bookmark();
            return Ok(());
        };
        let instance_uid = self.instance_uid.clone();
        let filter = ContactFilter { instance_uid, state: Some(*state), ..Default::default() };
        let page = self.ledger.contacts(&filter, snapshot.after.as_ref(), PAGE as usize).await?;
        if page.next.is_none() {
            snapshot.state += 1;
        }
        snapshot.after = page.next;
        self.told.extend(page.rows.into_iter().map(|(_, contact)| WatchContactsResponse {
            revision: 0,
            snapshot: true,
            event: Some(Event::Contact(contact)),
        }));
        Ok(())
    }

    /// Reads what comes next. True: there is more behind it.
    async fn read_changes(&mut self) -> Result<bool, Failure> {
        let read = self.ledger.contact_changes(self.instance_uid.as_deref(), self.revision, PAGE).await?;
        let changes = read.ok_or_else(|| {
            let text =
                format!("what came behind revision {} is not kept here; watch again from the beginning", self.revision);
            Failure::new(Reason::RevisionCompacted, text)
        })?;
        self.revision = changes.upto;
        self.told.extend(changes.changes.into_iter().map(|change| WatchContactsResponse {
            revision: change.revision,
            snapshot: false,
            event: Some(if change.left { Event::Left(change.contact.id) } else { Event::Contact(change.contact) }),
        }));
        Ok(changes.upto < changes.newest)
    }

    fn bookmark(&mut self) {
        let event = Some(Event::Bookmark(v1::Bookmark {}));
        self.told.push_back(WatchContactsResponse { revision: self.revision, snapshot: false, event });
        self.bookmark_at = Instant::now() + BOOKMARK;
    }
}

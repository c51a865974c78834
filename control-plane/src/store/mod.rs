//! The store: revisioned keys, guarded commits, watch.
//!
//! What is durable here: the model and its history, worker sessions, mailbox assignments, leadership, the store's own
//! id. What is not: messages and contacts (the ledger has them) and when a session was last heard (memory only).
//!
//! Every back end behaves alike, down to its limits; `suite` holds them to it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

pub mod choice;
pub mod etcd;
pub mod key;
pub mod opened;
pub mod sqlite;
#[cfg(test)]
pub(crate) mod suite;

/// Most writes, and most guards, in one commit, for every back end: etcd takes 128 operations a transaction, guards among them.
pub const MAX_WRITES: usize = 100;
/// Most bytes of keys and values in one commit, for every back end: etcd takes 1.5 MiB a request.
pub const MAX_COMMIT_BYTES: usize = 1024 * 1024;

/// A position in the history of the store. Every commit has a higher one than all before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Revision(pub u64);

/// A key with its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// The value.
    pub value: Bytes,
    /// When this key was last written. Unlike a count of writes it never goes back, not even after a deletion.
    pub mod_revision: Revision,
}

/// What must hold for a commit to happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Guard {
    /// There is no such key.
    Absent(String),
    /// The key was last written by this revision.
    Unchanged(String, Revision),
}

/// One change of a commit. A key is written at most once in a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// Creates or replaces a key.
    Put(String, Bytes),
    /// Removes a key; nothing happens when it is not there.
    Delete(String),
}

/// What became of a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// All guards held and everything is durable, as this revision.
    Committed(Revision),
    /// A guard did not hold; nothing was written.
    Conflict,
    /// It may have happened or not. Read the keys again before deciding; never just repeat it.
    Unknown,
}

/// A part of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// In the order of the keys.
    pub entries: Vec<Entry>,
    /// The store's revision at which this page was read.
    pub revision: Revision,
    /// True: there are more entries behind the last one.
    pub more: bool,
}

/// One change that a watch tells of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The key.
    pub key: String,
    /// Its new value; `None` when it was removed.
    pub value: Option<Bytes>,
    /// The commit that made the change.
    pub revision: Revision,
}

/// Why the store could not do what was asked. Nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The commit is larger than any back end takes.
    #[error(
        "commit of {writes} writes, {guards} guards and {bytes} bytes is larger than {MAX_WRITES} of either or {MAX_COMMIT_BYTES} bytes"
    )]
    TooLarge {
        /// Number of writes.
        writes: usize,
        /// Number of guards.
        guards: usize,
        /// Bytes of keys and values.
        bytes: usize,
    },
    /// A key stands twice among the writes of one commit, which etcd refuses too.
    #[error("key {0:?} is written twice in one commit")]
    WrittenTwice(String),
    /// The history asked for is gone. Read everything again and watch from there.
    #[error("history before revision {} is gone", oldest.0)]
    Compacted {
        /// The oldest revision that can still be watched from.
        oldest: Revision,
    },
    /// The store is behind where it was seen before: it was restored or emptied under way. Read everything again.
    #[error("the store went back from revision {} to {}: it was restored from a backup, or emptied", seen.0, found.0)]
    WentBack {
        /// The highest revision it was seen at.
        seen: Revision,
        /// Where it is now.
        found: Revision,
    },
    /// The database was written by a newer version.
    #[error(
        "the store has schema {found}, newer than {known}, the newest that this version knows; install the newer version again"
    )]
    NewerSchema {
        /// Schema of the database.
        found: i64,
        /// Newest schema known here.
        known: i64,
    },
    /// The back end failed.
    #[error("the store failed to {attempt}")]
    Backend {
        /// What was tried.
        attempt: &'static str,
        /// Why it failed.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// A stream of changes. It never ends by itself; an error ends it, and the watcher starts again from a listing.
#[async_trait]
pub trait Watch: Send {
    /// The changes of the next commit that touched the watched keys, in one piece and in order.
    async fn next(&mut self) -> Result<Vec<Change>, Error>;
}

/// A key that stands only as long as whoever wrote it renews it. Dropped without a word it goes when its time is over.
#[async_trait]
pub trait Tenure: Send + Sync {
    /// The commit that wrote the key.
    fn revision(&self) -> Revision;

    /// Keeps the key for another while, counted from some moment of the call. False: it is lost for good. An error says
    /// nothing: ask again.
    async fn renew(&mut self) -> Result<bool, Error>;

    /// Removes the key, so that nobody has to wait until its time is over.
    async fn resign(self: Box<Self>);
}

/// Revisioned keys with guarded commits.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// The id of this store. A restored copy keeps it. `None`: it was never named, because it is new or was emptied.
    async fn id(&self) -> Result<Option<String>, Error>;

    /// Gives a store that has no id a new one. Answers the id that it has then.
    async fn name(&self) -> Result<String, Error>;

    /// The newest revision.
    async fn revision(&self) -> Result<Revision, Error>;

    /// One key. `None`: there is no such key.
    async fn get(&self, key: &str) -> Result<Option<Entry>, Error>;

    /// Several keys as of one moment, at most [`MAX_WRITES`] of them, in the order asked for.
    async fn get_many(&self, keys: &[String]) -> Result<Vec<Option<Entry>>, Error>;

    /// The keys that begin with `prefix`, in order, from behind `after`, at most `limit` (1 to 1000) of them.
    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Page, Error>;

    /// Writes all of `writes` as one revision if all of `guards` hold. Errors only when certainly nothing was written.
    async fn commit(&self, guards: Vec<Guard>, writes: Vec<Write>) -> Result<Outcome, Error>;

    /// Writes a key that goes when it is not renewed for `ttl`. `None`: the key stands, written by somebody else, or it is
    /// not known what became of the attempt; try again.
    ///
    /// `replace`: the caller knows that whoever wrote the key is dead, and takes it over at once. A back end that only
    /// one process can open knows that by itself.
    async fn tenure(
        &self,
        key: &str,
        value: Bytes,
        ttl: Duration,
        replace: bool,
    ) -> Result<Option<Box<dyn Tenure>>, Error>;

    /// Every change under `prefix` from revision `from` on, that one included.
    async fn watch(&self, prefix: &str, from: Revision) -> Result<Box<dyn Watch>, Error>;
}

/// A store that can be shared.
pub type SharedStore = Arc<dyn Store>;

/// Any number of keys, in the order asked for; [`MAX_WRITES`] at a time are as of one moment.
pub async fn get_all(store: &SharedStore, keys: &[String]) -> Result<Vec<Option<Entry>>, Error> {
    let mut found = Vec::with_capacity(keys.len());
    for keys in keys.chunks(MAX_WRITES) {
        found.extend(store.get_many(keys).await?);
    }
    Ok(found)
}

/// All entries under a prefix. Of more than 1000 each page is as of a moment of its own.
pub async fn list_all(store: &SharedStore, prefix: &str) -> Result<Vec<Entry>, Error> {
    let mut entries: Vec<Entry> = Vec::new();
    loop {
        let after = entries.last().map(|entry| entry.key.clone());
        let page = store.list(prefix, after.as_deref(), 1000).await?;
        entries.extend(page.entries);
        if !page.more {
            return Ok(entries);
        }
    }
}

/// What every back end refuses before it tries.
fn check(guards: &[Guard], writes: &[Write]) -> Result<(), Error> {
    let guard_bytes = guards.iter().map(|guard| match guard {
        Guard::Absent(key) | Guard::Unchanged(key, _) => key.len(),
    });
    let write_bytes = writes.iter().map(|write| match write {
        Write::Put(key, value) => key.len() + value.len(),
        Write::Delete(key) => key.len(),
    });
    let bytes = guard_bytes.chain(write_bytes).sum();
    if guards.len().max(writes.len()) > MAX_WRITES || bytes > MAX_COMMIT_BYTES {
        return Err(Error::TooLarge { writes: writes.len(), guards: guards.len(), bytes });
    }
    let mut seen = std::collections::HashSet::new();
    for write in writes {
        let (Write::Put(key, _) | Write::Delete(key)) = write;
        if !seen.insert(key) {
            return Err(Error::WrittenTwice(key.clone()));
        }
    }
    Ok(())
}

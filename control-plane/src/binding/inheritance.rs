//! Definitions that a store without any takes over from the one that this data folder had before: what makes a move from
//! one machine's SQLite to etcd, or a restored backup, one step.
//!
//! With them move the credentials and the installation's CA, so that whoever was let in is let in still, and trusts what he
//! trusted. Sessions and assignments are of the past, leadership is of the present, and what operators decided about workers
//! was said of machines that may not be there any more.

use std::path::Path;

use crate::store::sqlite::Sqlite;
use crate::store::{Entry, Error, Guard, MAX_COMMIT_BYTES, MAX_WRITES, Outcome, Store, Write, key};

/// Keys read at once.
const PAGE: usize = 200;

/// Why definitions could not be taken over.
#[derive(Debug, thiserror::Error)]
pub enum NotInherited {
    /// One of the stores failed.
    #[error(transparent)]
    Store(#[from] Error),
    /// The store got definitions meanwhile.
    #[error("the store got definitions of its own meanwhile")]
    Conflict,
    /// A write may or may not have happened.
    #[error("it is not known whether the definitions were written")]
    Unknown,
}

/// Takes over the definitions of the store in `file` if it is store `id`, which the ledger belonged to. Answers the number
/// of objects that were written; 0 when there was nothing to take over.
pub(super) async fn inherit(store: &dyn Store, file: &Path, id: Option<&str>) -> Result<u32, NotInherited> {
    if store.get(key::MODEL_HEAD).await?.is_some() || !file.exists() {
        return Ok(0);
    }
    // Opened for good, and not only looked at: a process that was killed has left its last writes beside the file.
    let former = Sqlite::open(file).await?;
    let taken = match former.id().await {
        Ok(found) if found.as_deref() == id => take(store, &former).await,
        Ok(_) => Ok(0),
        Err(error) => Err(error.into()),
    };
    former.close().await;
    taken
}

/// Ordering: objects and history first, which nobody sees; the head, which shows them and keeps this from being done again,
/// last.
async fn take(store: &dyn Store, former: &dyn Store) -> Result<u32, NotInherited> {
    let Some(head) = former.get(key::MODEL_HEAD).await? else { return Ok(0) };
    let objects = copy(store, former, key::MODEL_OBJECTS).await? + copy(store, former, key::MODEL_REVISIONS).await?;
    // The CA that was made at the start over this store gives way to the one that clients and workers know.
    copy(store, former, key::ACCESS).await?;
    copy(store, former, key::USES).await?;
    let guard = Guard::Absent(key::MODEL_HEAD.into());
    match store.commit(vec![guard], vec![Write::Put(key::MODEL_HEAD.into(), head.value)]).await? {
        Outcome::Committed(_) => Ok(objects),
        Outcome::Conflict => Err(NotInherited::Conflict),
        Outcome::Unknown => Err(NotInherited::Unknown),
    }
}

/// Writes all that `former` has below a prefix. Answers how much that was.
async fn copy(store: &dyn Store, former: &dyn Store, prefix: &str) -> Result<u32, NotInherited> {
    let (mut copied, mut after) = (0, None::<String>);
    loop {
        let page = former.list(prefix, after.as_deref(), PAGE).await?;
        after = page.entries.last().map(|entry| entry.key.clone());
        copied += u32::try_from(page.entries.len()).unwrap_or(u32::MAX);
        write(store, page.entries).await?;
        if !page.more {
            return Ok(copied);
        }
    }
}

/// Writes entries in as many commits as they need. Writing one again changes nothing.
async fn write(store: &dyn Store, entries: Vec<Entry>) -> Result<(), NotInherited> {
    let (mut writes, mut bytes) = (Vec::new(), 0);
    for Entry { key, value, .. } in entries {
        let size = key.len() + value.len();
        if writes.len() == MAX_WRITES || bytes + size > MAX_COMMIT_BYTES {
            commit(store, std::mem::take(&mut writes)).await?;
            bytes = 0;
        }
        bytes += size;
        writes.push(Write::Put(key, value));
    }
    if writes.is_empty() { Ok(()) } else { commit(store, writes).await }
}

async fn commit(store: &dyn Store, writes: Vec<Write>) -> Result<(), NotInherited> {
    match store.commit(Vec::new(), writes).await? {
        Outcome::Committed(_) => Ok(()),
        Outcome::Conflict => Err(NotInherited::Conflict),
        Outcome::Unknown => Err(NotInherited::Unknown),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::suite::{committed, put};

    async fn former(file: &Path) -> String {
        let store = Sqlite::open(file).await.unwrap();
        let objects = (0..450).map(|n| put(&key::model_object(&format!("{n:064x}")), &"x".repeat(9000)));
        for some in objects.collect::<Vec<_>>().chunks(50) {
            committed(&store, vec![], some.to_vec()).await;
        }
        let access = vec![
            put(key::AUTHORITY, "former CA"),
            put(&key::credential("0123456789ab"), "token"),
            put(&key::usage("0123456789ab"), "1"),
        ];
        committed(&store, vec![], access).await;
        let others = vec![
            put("assign/a", "s1"),
            put("worker/w", "drained"),
            put(key::MODEL_HEAD, "head"),
            put(&key::model_revision(1), "head"),
        ];
        committed(&store, vec![], others).await;
        let id = store.name().await.unwrap();
        store.close().await;
        id
    }

    #[tokio::test]
    async fn definitions_and_credentials_move_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("store.db");
        let id = former(&file).await;
        let store = Sqlite::memory().await.unwrap();
        assert_eq!(inherit(&store, &file, Some("another")).await.unwrap(), 0, "not the ledger's");
        assert_eq!(inherit(&store, &folder.path().join("none"), Some(&id)).await.unwrap(), 0);
        assert!(store.list("", None, 10).await.unwrap().entries.is_empty());
        // As it is made at the start.
        committed(&store, vec![], vec![put(key::AUTHORITY, "new CA")]).await;

        assert_eq!(inherit(&store, &file, Some(&id)).await.unwrap(), 451);
        assert_eq!(store.get(key::MODEL_HEAD).await.unwrap().unwrap().value, "head");
        for (key, value) in [
            ("assign/a", None),
            ("worker/w", None),
            (key::AUTHORITY, Some("former CA")),
            (&key::credential("0123456789ab"), Some("token")),
            (&key::usage("0123456789ab"), Some("1")),
        ] {
            let found = store.get(key).await.unwrap().map(|entry| entry.value);
            assert_eq!(found.as_deref(), value.map(str::as_bytes), "{key}");
        }
        let count = |page: crate::store::Page| page.entries.len();
        assert_eq!(count(store.list(key::MODEL_OBJECTS, None, 1000).await.unwrap()), 450);
        assert_eq!(inherit(&store, &file, Some(&id)).await.unwrap(), 0, "it has its own now");
    }

    #[tokio::test]
    async fn definitions_of_a_process_that_was_killed_move_too() {
        let folder = tempfile::tempdir().unwrap();
        let running = Sqlite::open(&folder.path().join("store.db")).await.unwrap();
        committed(&running, vec![], vec![put(key::MODEL_HEAD, "head"), put(&key::model_revision(1), "head")]).await;
        let id = running.name().await.unwrap();
        // What lies in the folder of one that is killed now.
        let killed = tempfile::tempdir().unwrap();
        for name in ["store.db", "store.db-wal"] {
            std::fs::copy(folder.path().join(name), killed.path().join(name)).unwrap();
        }
        let store = Sqlite::memory().await.unwrap();
        assert_eq!(inherit(&store, &killed.path().join("store.db"), Some(&id)).await.unwrap(), 1);
        assert_eq!(store.get(key::MODEL_HEAD).await.unwrap().unwrap().value, "head");
        running.close().await;
    }
}

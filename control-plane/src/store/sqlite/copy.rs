//! Copies of the store, for backups.

use std::path::Path;

use sqlx::Connection as _;

use super::{Error, SCHEMA, Sqlite, failed, opening, signed, unsigned};
use crate::sqlite;
use crate::sqlite::copy::{self, Unfit};
use crate::store::{Revision, Store};

/// Keys copied at once.
const PAGE: usize = 500;

/// What a copy holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// The store's id.
    pub id: String,
    /// Its newest revision.
    pub revision: Revision,
}

impl Sqlite {
    /// Copies the store as of one moment into a new file; commits go on.
    pub async fn copy_to(&self, path: &Path) -> Result<(), Error> {
        self.database.copy_to(path).await.map_err(|e| failed("copy itself", e))
    }
}

/// Writes what any store holds into a new file, as a store of this kind with the same id and revisions. Its history is
/// not taken along, so that a watch begins with a listing.
///
/// Commits go on meanwhile, and what is read later may be newer. That harms nothing: keys are read in their order, so the
/// head of the model comes before the objects that it needs, which are never changed. Whoever calls this sees to it that
/// none is taken away meanwhile (`Definitions::changing`).
pub async fn write(from: &dyn Store, path: &Path) -> Result<(), Error> {
    let id = from.id().await?.unwrap_or_default();
    let writing = |e| failed("write a copy", e);
    let sqlite::Connections { writer: mut copy, readers, .. } =
        sqlite::open(&path.into(), SCHEMA).await.map_err(opening)?;
    readers.close().await;
    let mut revision = Revision::default();
    let mut after: Option<String> = None;
    loop {
        let page = from.list("", after.as_deref(), PAGE).await?;
        let mut rows = copy.begin().await.map_err(writing)?;
        for entry in &page.entries {
            sqlx::query("INSERT INTO kv (key, value, mod_revision) VALUES (?, ?, ?)")
                .bind(&entry.key)
                .bind(entry.value.as_ref())
                .bind(signed(entry.mod_revision.0))
                .execute(&mut *rows)
                .await
                .map_err(writing)?;
        }
        rows.commit().await.map_err(writing)?;
        revision = revision.max(page.revision);
        after = page.entries.last().map(|entry| entry.key.clone());
        if !page.more {
            break;
        }
    }
    let position = sqlx::query("INSERT INTO store (one, id, revision, oldest) VALUES (1, ?, ?, ?)");
    let position = position.bind(id).bind(signed(revision.0)).bind(signed(revision.0 + 1));
    position.execute(&mut copy).await.map_err(writing)?;
    // A copy is one file: what stands in the log goes into it.
    sqlx::query("PRAGMA journal_mode = DELETE").execute(&mut copy).await.map_err(writing)?;
    copy.close().await.map_err(writing)
}

/// Refuses a copy that is broken, or that a newer version made.
pub async fn check(path: &Path) -> Result<(), Unfit> {
    copy::check(&mut copy::look(path).await?, SCHEMA).await
}

/// Says what a copy holds.
pub async fn describe(path: &Path) -> Result<Description, sqlx::Error> {
    use sqlx::Row as _;

    let mut copy = copy::look(path).await?;
    let row = sqlx::query("SELECT id, revision FROM store").fetch_one(&mut copy).await?;
    Ok(Description { id: row.try_get(0)?, revision: Revision(unsigned(&row, 1)?) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::suite::{committed, put};

    #[tokio::test]
    async fn a_copy_of_any_store_is_a_store_with_the_same_revisions() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("copy.db");
        let from = Sqlite::memory().await.unwrap();
        for some in 0..12 {
            let writes = (0..100).map(|n| put(&format!("k/{some:02}/{n:02}"), "v")).collect();
            committed(&from, vec![], writes).await;
        }
        let newest = committed(&from, vec![], vec![put("k/00/00", "newer")]).await;
        write(&from, &path).await.unwrap();
        check(&path).await.unwrap();
        let id = from.id().await.unwrap().unwrap();
        assert_eq!(describe(&path).await.unwrap(), Description { id: id.clone(), revision: newest });

        let copy = Sqlite::open(&path).await.unwrap();
        assert_eq!(copy.id().await.unwrap(), Some(id));
        let (mut listed, mut after) = (0, None);
        loop {
            let (ours, theirs) = (
                copy.list("", after.as_deref(), 500).await.unwrap(),
                from.list("", after.as_deref(), 500).await.unwrap(),
            );
            assert_eq!(ours, theirs);
            listed += ours.entries.len();
            after = ours.entries.last().map(|entry| entry.key.clone());
            if !ours.more {
                break;
            }
        }
        assert_eq!(listed, 1200);
        assert!(committed(&copy, vec![], vec![put("more", "")]).await > newest);
        assert!(matches!(copy.watch("", newest).await, Err(Error::Compacted { .. })), "there is no history");
    }
}

//! A watch: the change log from a revision on, and sleep where it ends.

use async_trait::async_trait;
use bytes::Bytes;
use sqlx::Row as _;
use sqlx::sqlite::SqlitePool;
use tokio::sync::watch;

use super::{failed, prefix_end, signed, unsigned};
use crate::sqlite::Database;
use crate::store::{Change, Error, Revision, Watch};

/// A position in the change log. Reading takes one commit at a time, so a slow reader costs no memory; one that falls
/// behind the trimmed end is told so.
#[derive(Debug)]
pub(super) struct ChangeLog {
    readers: SqlitePool,
    commits: watch::Receiver<()>,
    prefix: String,
    end: Option<String>,
    from: u64,
}

/// What the log holds for a watch.
enum Found {
    Changes(u64, Vec<Change>),
    /// Nothing up to this revision.
    Nothing(u64),
}

impl ChangeLog {
    pub(super) fn new(database: &Database, prefix: &str, from: Revision) -> Self {
        Self {
            readers: database.readers.clone(),
            commits: database.writer.commits(),
            prefix: prefix.into(),
            end: prefix_end(prefix),
            // Revisions begin at 1, so that nothing is missing before it.
            from: from.0.max(1),
        }
    }

    /// Fails when the history from the position on is no longer there.
    pub(super) async fn check(&self) -> Result<(), Error> {
        let row = sqlx::query("SELECT oldest FROM store").fetch_one(&self.readers).await;
        self.compare(row.and_then(|row| unsigned(&row, 0)).map_err(|e| failed("watch", e))?)
    }

    fn compare(&self, oldest: u64) -> Result<(), Error> {
        if self.from < oldest { Err(Error::Compacted { oldest: Revision(oldest) }) } else { Ok(()) }
    }

    /// The first commit from the position on that touched the prefix.
    async fn find(&self) -> Result<Found, Error> {
        // One statement: what is the oldest revision and what is in the log must be of one moment.
        let rows = sqlx::query(
            "SELECT store.oldest, store.revision, part.revision, part.key, part.value FROM store LEFT JOIN ( \
               SELECT revision, key, value FROM change \
               WHERE key >= ?1 AND (?2 IS NULL OR key < ?2) AND revision = ( \
                 SELECT revision FROM change WHERE revision >= ?3 AND key >= ?1 AND (?2 IS NULL OR key < ?2) \
                 ORDER BY revision LIMIT 1) \
             ) AS part ORDER BY part.key",
        )
        .bind(&self.prefix)
        .bind(self.end.as_deref())
        .bind(signed(self.from))
        .fetch_all(&self.readers)
        .await
        .map_err(|e| failed("watch", e))?;
        let Some(first) = rows.first() else { return Err(failed("watch", sqlx::Error::RowNotFound)) };
        let read = || -> Result<(u64, u64, Option<i64>), sqlx::Error> {
            Ok((unsigned(first, 0)?, unsigned(first, 1)?, first.try_get(2)?))
        };
        let (oldest, newest, revision) = read().map_err(|e| failed("watch", e))?;
        self.compare(oldest)?;
        let Some(revision) = revision.map(i64::cast_unsigned) else { return Ok(Found::Nothing(newest)) };
        let change = |row: &sqlx::sqlite::SqliteRow| -> Result<Change, sqlx::Error> {
            let value = row.try_get::<Option<Vec<u8>>, _>(4)?.map(Bytes::from);
            Ok(Change { key: row.try_get(3)?, value, revision: Revision(revision) })
        };
        let changes = rows.iter().map(change).collect::<Result<_, _>>().map_err(|e| failed("watch", e))?;
        Ok(Found::Changes(revision, changes))
    }
}

#[async_trait]
impl Watch for ChangeLog {
    // Cancel safe: the position moves only in the same poll that returns what was passed.
    async fn next(&mut self) -> Result<Vec<Change>, Error> {
        loop {
            // Ordering: before the look, so that a commit which the look misses ends the sleep behind it.
            self.commits.mark_unchanged();
            match self.find().await? {
                Found::Changes(revision, changes) => {
                    self.from = revision + 1;
                    return Ok(changes);
                }
                Found::Nothing(newest) => self.from = self.from.max(newest + 1),
            }
            if self.commits.changed().await.is_err() {
                return Err(failed("watch", sqlx::Error::PoolClosed));
            }
        }
    }
}

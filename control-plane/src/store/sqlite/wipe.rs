//! Forgetting: what was replaced or removed leaves the files.

use sqlx::Row as _;

use super::{Error, Sqlite, failed};
use crate::sqlite::Location;

/// How often the log is cut back until it is empty; each time SQLite waits for readers.
const TRIES: usize = 5;

impl Sqlite {
    /// Takes everything out of the files that is not stored any more: former values in the change log, in free pages, and in
    /// the write-ahead log. Watches that have not read what was cut off are told so, and read everything again. Commits wait
    /// meanwhile, about a second for each 100 MB.
    pub async fn wipe(&self) -> Result<(), Error> {
        let forget = self.database.writer.write(|connection| {
            Box::pin(async move {
                sqlx::query("DELETE FROM change").execute(&mut *connection).await?;
                sqlx::query("UPDATE store SET oldest = revision + 1").execute(connection).await.map(|_| ())
            })
        });
        forget.await.map_err(|e| failed("forget its history", e))?;
        if *self.database.location() == Location::Memory {
            return Ok(());
        }
        let rebuild = self.database.writer.maintain(|connection| {
            Box::pin(async move {
                // Ordering: every page is written anew, without what is left of former content; then the log, which holds
                // the former pages and the new ones, goes into the file and is cut to nothing.
                sqlx::query("VACUUM").execute(&mut *connection).await?;
                for _ in 0..TRIES {
                    let row = sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").fetch_one(&mut *connection).await?;
                    if row.try_get::<i64, _>(0)? == 0 {
                        return Ok(());
                    }
                }
                Err(sqlx::Error::Protocol("somebody reads from the log all the time".into()))
            })
        });
        rebuild.await.map_err(|e| failed("wipe what was removed", e))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::store::suite::{committed, put};
    use crate::store::{Revision, Store, Write};

    fn holds(folder: &Path, text: &str) -> bool {
        let files = std::fs::read_dir(folder).unwrap().map(|entry| std::fs::read(entry.unwrap().path()).unwrap());
        files.into_iter().any(|bytes| bytes.windows(text.len()).any(|window| window == text.as_bytes()))
    }

    #[tokio::test]
    async fn what_was_replaced_or_removed_is_in_no_file_and_all_else_is() {
        let folder = tempfile::tempdir().unwrap();
        let store = Sqlite::open(&folder.path().join("store.db")).await.unwrap();
        for n in 0..200 {
            let value = format!("former-{n}-{}", "x".repeat(n * 40));
            committed(&store, vec![], vec![put(&format!("k/{n:03}"), &value)]).await;
        }
        for n in 0..200 {
            let write =
                if n % 2 == 0 { put(&format!("k/{n:03}"), "present") } else { Write::Delete(format!("k/{n:03}")) };
            committed(&store, vec![], vec![write]).await;
        }
        let newest = store.revision().await.unwrap();
        assert!(holds(folder.path(), "former-7-"), "it would be found");
        let mut watch = store.watch("k/", Revision(newest.0 + 1)).await.unwrap();
        store.wipe().await.unwrap();
        assert!(!holds(folder.path(), "former-"));
        assert_eq!(store.list("k/", None, 1000).await.unwrap().entries.len(), 100);
        assert!(matches!(store.watch("k/", newest).await, Err(Error::Compacted { .. })));
        assert_eq!(store.revision().await.unwrap(), newest);
        // Whoever had read everything misses nothing.
        committed(&store, vec![], vec![put("k/000", "next")]).await;
        assert_eq!(watch.next().await.unwrap()[0].key, "k/000");
        store.close().await;
    }
}

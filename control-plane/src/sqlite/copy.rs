//! Copies of a database: made while it is written to, and looked at before they are used.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode};
use sqlx::{ConnectOptions as _, Connection as _, SqliteConnection};

use super::{Database, OpenError, Step, options, refuse_newer};

/// Steps of SQLite between two looks at whether a copy is still wanted: some milliseconds.
const STEPS: i32 = 100_000;

/// Why a copy must not be used.
#[derive(Debug, thiserror::Error)]
pub enum Unfit {
    /// SQLite found it broken.
    #[error("the database is broken: {0}")]
    Broken(String),
    /// It was written by a newer version, or cannot be read at all.
    #[error(transparent)]
    Open(#[from] OpenError),
}

impl From<sqlx::Error> for Unfit {
    fn from(error: sqlx::Error) -> Self {
        Self::Open(error.into())
    }
}

impl Database {
    /// Copies the database as of one moment into a file, which must not be there yet. Whoever loses interest drops the
    /// future; the copying then stops.
    ///
    /// The copy is read in one transaction of a connection of its own. Under WAL it holds up no writer: only the log
    /// cannot be cut back behind that transaction, and so grows by what is written meanwhile. The file is not flushed.
    pub async fn copy_to(&self, path: &Path) -> Result<(), sqlx::Error> {
        let target = path.to_str().ok_or_else(|| sqlx::Error::Configuration("the path is not Unicode".into()))?;
        let mut connection = options(&self.location).read_only(true).connect().await?;
        let wanted = Wanted(Arc::new(AtomicBool::new(true)));
        let asked = wanted.0.clone();
        connection.lock_handle().await?.set_progress_handler(STEPS, move || asked.load(Ordering::Relaxed));
        sqlx::query("VACUUM INTO ?").bind(target).execute(&mut connection).await?;
        drop(wanted);
        connection.close().await
    }
}

/// True until it is dropped.
struct Wanted(Arc<AtomicBool>);

impl Drop for Wanted {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// Opens a copy to look at it. Nothing about it changes, and no file appears beside it.
pub async fn look(path: &Path) -> Result<SqliteConnection, sqlx::Error> {
    // What came from elsewhere may have a schema made to run something; it is not trusted to.
    let options = SqliteConnectOptions::new().filename(path).read_only(true).immutable(true);
    options.pragma("trusted_schema", "0").pragma("query_only", "1").disable_statement_logging().connect().await
}

/// Opens a copy to change it before anybody uses it. No file stays beside it once it is closed.
pub async fn change(path: &Path) -> Result<SqliteConnection, sqlx::Error> {
    let options = SqliteConnectOptions::new().filename(path).journal_mode(SqliteJournalMode::Delete);
    options.pragma("trusted_schema", "0").disable_statement_logging().connect().await
}

/// Refuses a copy that is broken, or that a newer version made.
pub async fn check(copy: &mut SqliteConnection, steps: &[Step]) -> Result<(), Unfit> {
    let found: String = match sqlx::query_scalar("PRAGMA integrity_check(1)").fetch_one(&mut *copy).await {
        Ok(found) => found,
        // "file is not a database", "malformed": a fault of the file.
        Err(sqlx::Error::Database(error)) => error.message().to_owned(),
        Err(error) => return Err(error.into()),
    };
    if found != "ok" {
        return Err(Unfit::Broken(found));
    }
    Ok(refuse_newer(copy, steps).await?)
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::super::{Location, open};
    use super::*;

    const ONE: Step = Step { version: 1, title: "one", sql: "CREATE TABLE one (x INTEGER, y BLOB) STRICT" };

    async fn database(folder: &Path) -> Database {
        open(&Location::File(folder.join("x.db")), &[ONE]).await.unwrap().start(10, "test")
    }

    async fn insert(database: &Database, x: i64) {
        let insert = sqlx::query("INSERT INTO one VALUES (?, randomblob(10000))").bind(x);
        database.writer.write(move |c| Box::pin(async move { insert.execute(c).await.map(|_| ()) })).await.unwrap();
    }

    async fn rows(copy: &mut SqliteConnection) -> i64 {
        sqlx::query_scalar("SELECT count(*) FROM one").fetch_one(copy).await.unwrap()
    }

    #[tokio::test]
    async fn a_copy_is_of_one_moment_and_the_writer_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let database = database(folder.path()).await;
        for x in 0..50 {
            insert(&database, x).await;
        }
        let path = folder.path().join("copy.db");
        let writing = async {
            for x in 50..100 {
                insert(&database, x).await;
            }
        };
        let (copied, ()) = tokio::join!(database.copy_to(&path), writing);
        copied.unwrap();
        let mut copy = look(&path).await.unwrap();
        check(&mut copy, &[ONE]).await.unwrap();
        let found = rows(&mut copy).await;
        let newest: i64 = sqlx::query_scalar("SELECT max(x) FROM one").fetch_one(&mut copy).await.unwrap();
        assert!((50..=100).contains(&found) && newest == found - 1, "{found} rows, the newest {newest}");
        copy.close().await.unwrap();

        // It opens as the real one does.
        let again = open(&Location::File(path), &[ONE]).await.unwrap();
        again.readers.close().await;
        again.writer.close().await.unwrap();
        database.close().await;
    }

    #[tokio::test]
    async fn a_copy_that_nobody_wants_any_more_stops_and_spoils_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let database = database(folder.path()).await;
        for x in 0..50 {
            insert(&database, x).await;
        }
        assert!(Box::pin(database.copy_to(&folder.path().join("first.db"))).as_mut().now_or_never().is_none());
        insert(&database, 50).await;
        let path = folder.path().join("second.db");
        database.copy_to(&path).await.unwrap();
        assert_eq!(rows(&mut look(&path).await.unwrap()).await, 51);
        assert!(database.copy_to(&path).await.is_err(), "a file that is there is not written over");
        database.close().await;
    }

    #[tokio::test]
    async fn what_is_broken_or_newer_is_unfit() {
        let folder = tempfile::tempdir().unwrap();
        let database = database(folder.path()).await;
        for x in 0..50 {
            insert(&database, x).await;
        }
        let path = folder.path().join("copy.db");
        database.copy_to(&path).await.unwrap();
        database.close().await;
        let newer = check(&mut look(&path).await.unwrap(), &[]).await.unwrap_err();
        assert!(matches!(newer, Unfit::Open(OpenError::NewerSchema { found: 1, known: 0 })), "{newer}");

        let mut bytes = std::fs::read(&path).unwrap();
        bytes.truncate(bytes.len() / 2);
        std::fs::write(&path, &bytes).unwrap();
        let half = check(&mut look(&path).await.unwrap(), &[ONE]).await.unwrap_err();
        assert!(matches!(half, Unfit::Broken(_)), "{half:?}");
        std::fs::write(&path, vec![7; 100_000]).unwrap();
        let none = match look(&path).await {
            Ok(mut copy) => check(&mut copy, &[ONE]).await.unwrap_err(),
            Err(error) => error.into(),
        };
        assert!(none.to_string().contains("database"), "{none}");
    }
}

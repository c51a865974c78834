//! SQLite as the store and the ledger use it: one writer that groups commits, read-only readers, numbered migrations.
//!
//! WAL with `synchronous=FULL`: what was acknowledged is on disk before the answer leaves.

use std::path::PathBuf;
use std::time::Duration;

use sqlx::migrate::{Migrate as _, Migration, MigrationType, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions as _, Connection as _, SqlSafeStr as _, SqliteConnection, SqlitePool};

pub mod writer;

/// Where a database lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// In a file, created when it is missing.
    File(PathBuf),
    /// In memory, gone when it is closed.
    Memory,
}

/// One numbered migration: its number, what it is for, and its statements.
pub type Step = (i64, &'static str, &'static str);

/// Why a database could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The database was written by a newer version of Postroom.
    #[error("{database} has schema {found}, and {known} is the newest that this version knows; run the newer version")]
    NewerSchema {
        /// The database.
        database: String,
        /// Its schema.
        found: i64,
        /// Newest schema known here.
        known: i64,
    },
    /// SQLite refused.
    #[error("cannot open {database}")]
    Sqlite {
        /// The database.
        database: String,
        /// Why.
        #[source]
        source: sqlx::Error,
    },
    /// A migration failed.
    #[error("cannot bring {database} to the schema of this version")]
    Migrate {
        /// The database.
        database: String,
        /// Why.
        #[source]
        source: sqlx::migrate::MigrateError,
    },
}

/// An open database: the only connection that writes, and a pool that only reads.
#[derive(Debug)]
pub struct Database {
    /// For the writer; there is no other.
    pub writer: SqliteConnection,
    /// For everybody else.
    pub readers: SqlitePool,
}

/// Opens a database and brings its schema to the newest of `steps`. A newer one is refused.
pub async fn open(location: &Location, steps: &[Step]) -> Result<Database, OpenError> {
    let database = match location {
        Location::File(path) => path.display().to_string(),
        Location::Memory => "the database in memory".into(),
    };
    let sqlite = |source| OpenError::Sqlite { database: database.clone(), source };

    let options = options(location);
    let mut writer = options.clone().create_if_missing(true).connect().await.map_err(sqlite)?;
    migrate(&mut writer, steps, &database).await?;
    let readers = SqlitePoolOptions::new()
        .max_connections(4)
        .acquire_timeout(Duration::from_secs(10))
        .connect_with(read_only(location, options))
        .await
        .map_err(sqlite)?;
    Ok(Database { writer, readers })
}

fn options(location: &Location) -> SqliteConnectOptions {
    let options = match location {
        Location::File(path) => SqliteConnectOptions::new().filename(path).journal_mode(SqliteJournalMode::Wal),
        // Each has a name of its own, by which its readers find it; it lives as long as somebody is connected.
        Location::Memory => SqliteConnectOptions::new()
            .filename(format!("file:{}", uuid::Uuid::new_v4().simple()))
            .in_memory(true)
            .shared_cache(true),
    };
    options
        .page_size(8192)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(Duration::from_secs(5))
        .foreign_keys(true)
        .pragma("cache_size", "-65536")
        .pragma("wal_autocheckpoint", "4000")
        .disable_statement_logging()
}

fn read_only(location: &Location, options: SqliteConnectOptions) -> SqliteConnectOptions {
    match location {
        Location::File(_) => options.read_only(true).pragma("query_only", "true"),
        // Readers of a shared cache would otherwise fail on the writer's table locks.
        Location::Memory => options.pragma("read_uncommitted", "true"),
    }
}

async fn migrate(writer: &mut SqliteConnection, steps: &[Step], database: &str) -> Result<(), OpenError> {
    let failed = |source| OpenError::Migrate { database: database.into(), source };
    let migrator = Migrator::with_migrations(
        steps
            .iter()
            .map(|(number, what, sql)| {
                Migration::new(*number, (*what).into(), MigrationType::Simple, (*sql).into_sql_str(), false)
            })
            .collect(),
    );
    writer.ensure_migrations_table(&migrator.table_name).await.map_err(failed)?;
    let applied = writer.list_applied_migrations(&migrator.table_name).await.map_err(failed)?;
    let found = applied.iter().map(|migration| migration.version).max().unwrap_or(0);
    let known = steps.iter().map(|(number, ..)| *number).max().unwrap_or(0);
    if found > known {
        return Err(OpenError::NewerSchema { database: database.into(), found, known });
    }
    migrator.run(&mut *writer).await.map_err(failed)
}

/// Closes the writer's connection, so that the write-ahead log is folded into the file.
pub async fn close(writer: SqliteConnection) {
    if let Err(error) = writer.close().await {
        tracing::warn!(%error, "closing a database failed; its write-ahead log is replayed at the next start");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Step = (1, "first", "CREATE TABLE thing (name TEXT)");
    const SECOND: Step = (2, "second", "ALTER TABLE thing ADD COLUMN size INTEGER");

    #[tokio::test]
    async fn an_older_database_is_brought_up_and_a_newer_one_refused() {
        let folder = tempfile::tempdir().unwrap();
        let location = Location::File(folder.path().join("test.db"));
        let mut old = open(&location, &[FIRST]).await.unwrap();
        sqlx::query("INSERT INTO thing VALUES ('kept')").execute(&mut old.writer).await.unwrap();
        old.readers.close().await;
        close(old.writer).await;

        let new = open(&location, &[FIRST, SECOND]).await.unwrap();
        let row: (String, Option<i64>) =
            sqlx::query_as("SELECT name, size FROM thing").fetch_one(&new.readers).await.unwrap();
        assert_eq!(row, ("kept".into(), None));
        new.readers.close().await;
        close(new.writer).await;

        let refused = open(&location, &[FIRST]).await.unwrap_err();
        assert!(matches!(refused, OpenError::NewerSchema { found: 2, known: 1, .. }), "{refused:?}");
    }

    #[tokio::test]
    async fn memory_is_shared_between_writer_and_readers_of_one_database_only() {
        let mut one = open(&Location::Memory, &[FIRST]).await.unwrap();
        let other = open(&Location::Memory, &[FIRST]).await.unwrap();
        sqlx::query("INSERT INTO thing VALUES ('mine')").execute(&mut one.writer).await.unwrap();
        let count = "SELECT count(*) FROM thing";
        assert_eq!(sqlx::query_scalar::<_, i64>(count).fetch_one(&one.readers).await.unwrap(), 1);
        assert_eq!(sqlx::query_scalar::<_, i64>(count).fetch_one(&other.readers).await.unwrap(), 0);
    }
}

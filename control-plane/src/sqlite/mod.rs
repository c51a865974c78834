//! SQLite as the store and the ledger use it: one writer that groups commits, several readers, numbered migrations.
//!
//! Invariant: what was committed survives the loss of power (`synchronous=FULL` under WAL), and a database written by
//! a newer version is never touched.

use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions as _, Row as _, SqlSafeStr as _, SqliteConnection};

use self::writer::Writer;

pub mod copy;
pub mod writer;

/// Readers of one database.
const READERS: u32 = 4;

/// Where a database is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// In this file, which is created when it is not there; its folder is not.
    File(PathBuf),
    /// In memory, gone when it is closed.
    Memory,
}

impl From<&Path> for Location {
    fn from(path: &Path) -> Self {
        Self::File(path.into())
    }
}

/// One embedded migration. Once released it is never edited; its checksum is compared at every start.
#[derive(Debug, Clone, Copy)]
pub struct Step {
    /// Number, from 1 and without gaps.
    pub version: i64,
    /// What it brings, for people.
    pub title: &'static str,
    /// Its statements.
    pub sql: &'static str,
}

/// The connections of a database that has no writer yet.
#[derive(Debug)]
pub struct Connections {
    /// The only connection that writes. Begin with `BEGIN IMMEDIATE`: a deferred transaction that reads first fails
    /// with SQLITE_BUSY_SNAPSHOT, which no timeout covers.
    pub writer: SqliteConnection,
    /// See [`Database::readers`].
    pub readers: SqlitePool,
    location: Location,
}

impl Connections {
    /// Starts the writer, which takes at most `group` jobs into one transaction. `name`: of the database, in metrics.
    pub fn start(self, group: usize, name: &'static str) -> Database {
        Database { writer: Writer::start(self.writer, group, name), readers: self.readers, location: self.location }
    }
}

/// An open database with its writer. Dropping it lets the writer finish what it holds and end; [`close`](Self::close)
/// waits for that.
#[derive(Debug)]
pub struct Database {
    /// All that is written goes through it.
    pub writer: Writer,
    /// Connections that cannot write. Read in single statements: a longer read transaction keeps the WAL growing, and
    /// holds up the writer of a database in memory.
    pub readers: SqlitePool,
    location: Location,
}

impl Database {
    /// Where it is.
    pub fn location(&self) -> &Location {
        &self.location
    }

    /// Finishes what is under way, then closes the database. Later calls fail.
    pub async fn close(&self) {
        // Ordering: the writer closes last, so that it empties the WAL into the file.
        self.readers.close().await;
        self.writer.close().await;
    }
}

/// Why a database could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It was written by a newer version.
    #[error("the database has schema {found}, this version knows {known}; install the newer version again")]
    NewerSchema {
        /// Schema of the database.
        found: i64,
        /// Newest schema known here.
        known: i64,
    },
    /// SQLite refused.
    #[error("cannot open the database")]
    Sqlite(#[from] sqlx::Error),
    /// A migration failed, or one that ran before was edited since.
    #[error("cannot bring the database up to date")]
    Migrate(#[from] sqlx::migrate::MigrateError),
}

/// Opens a database and brings its schema up to date.
pub async fn open(location: &Location, steps: &[Step]) -> Result<Connections, OpenError> {
    let options = options(location);
    let mut writer = options.clone().connect().await?;
    refuse_newer(&mut writer, steps).await?;
    migrator(steps).run_direct(None, &mut writer, false).await?;

    // SQLite opens a shared database in memory read-only only if every connection does, so there the pragma alone holds.
    let readers = options.read_only(matches!(location, Location::File(_))).pragma("query_only", "1");
    let pool = SqlitePoolOptions::new().max_connections(READERS).acquire_timeout(Duration::from_secs(5));
    let readers = pool.idle_timeout(None).max_lifetime(None).connect_with(readers).await?;
    Ok(Connections { writer, readers, location: location.clone() })
}

fn options(location: &Location) -> SqliteConnectOptions {
    let options = SqliteConnectOptions::new()
        .page_size(8192)
        .busy_timeout(Duration::from_secs(5))
        // Rows come over a channel from the thread of the connection; a batch of a report returns up to 500.
        .row_buffer_size(1024)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .disable_statement_logging();
    match location {
        Location::File(path) => options
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .pragma("wal_autocheckpoint", "4000")
            .pragma("cache_size", "-16384"),
        Location::Memory => {
            let name = format!("file:postroom-{}", uuid::Uuid::new_v4().simple());
            options.filename(name).in_memory(true).shared_cache(true)
        }
    }
}

fn migrator(steps: &[Step]) -> Migrator {
    let migration = |step: &Step| {
        Migration::new(step.version, step.title.into(), MigrationType::Simple, step.sql.into_sql_str(), false)
    };
    Migrator::with_migrations(steps.iter().map(migration).collect())
}

/// Ordering: before anything is written, so that the newer version finds its database as it left it.
async fn refuse_newer(connection: &mut SqliteConnection, steps: &[Step]) -> Result<(), OpenError> {
    let table = sqlx::query("SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = '_sqlx_migrations'");
    if table.fetch_optional(&mut *connection).await?.is_none() {
        return Ok(());
    }
    let row = sqlx::query("SELECT coalesce(max(version), 0) FROM _sqlx_migrations").fetch_one(connection).await?;
    let found: i64 = row.try_get(0)?;
    let known = steps.iter().map(|step| step.version).max().unwrap_or(0);
    if found > known { Err(OpenError::NewerSchema { found, known }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use sqlx::Connection as _;

    use super::*;

    const ONE: Step = Step { version: 1, title: "one", sql: "CREATE TABLE one (x INTEGER) STRICT" };
    const TWO: Step = Step { version: 2, title: "two", sql: "CREATE TABLE two (x INTEGER) STRICT" };

    async fn close(connections: Connections) {
        connections.readers.close().await;
        connections.writer.close().await.unwrap();
    }

    #[tokio::test]
    async fn migrations_run_once_and_a_newer_schema_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = Location::File(dir.path().join("a % strange ? name.db"));
        close(open(&file, &[ONE]).await.unwrap()).await;
        close(open(&file, &[ONE, TWO]).await.unwrap()).await;
        close(open(&file, &[ONE, TWO]).await.unwrap()).await;
        let refused = open(&file, &[ONE]).await.unwrap_err();
        assert!(matches!(refused, OpenError::NewerSchema { found: 2, known: 1 }), "{refused:?}");
        assert!(refused.to_string().contains("install the newer version"));
        close(open(&file, &[ONE, TWO]).await.unwrap()).await;
    }

    #[tokio::test]
    async fn an_edited_migration_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = Location::File(dir.path().join("x.db"));
        close(open(&file, &[ONE]).await.unwrap()).await;
        let edited = Step { sql: "CREATE TABLE other (x INTEGER) STRICT", ..ONE };
        assert!(matches!(open(&file, &[edited]).await.unwrap_err(), OpenError::Migrate(_)));
    }

    #[tokio::test]
    async fn a_file_is_durable_and_its_readers_cannot_write() {
        let dir = tempfile::tempdir().unwrap();
        for location in [Location::File(dir.path().join("x.db")), Location::Memory] {
            let mut database = open(&location, &[ONE]).await.unwrap();
            let on_file = matches!(location, Location::File(_));
            let mode: String = sqlx::query_scalar("PRAGMA journal_mode").fetch_one(&mut database.writer).await.unwrap();
            assert_eq!(mode, if on_file { "wal" } else { "memory" });
            let full: i64 = sqlx::query_scalar("PRAGMA synchronous").fetch_one(&mut database.writer).await.unwrap();
            assert_eq!(full, 2);
            sqlx::query("INSERT INTO one VALUES (1)").execute(&mut database.writer).await.unwrap();
            assert!(sqlx::query("INSERT INTO one VALUES (2)").execute(&database.readers).await.is_err());
            let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM one").fetch_one(&database.readers).await.unwrap();
            assert_eq!(rows, 1);
            close(database).await;
        }
    }

    #[tokio::test]
    async fn databases_in_memory_are_apart() {
        let mut one = open(&Location::Memory, &[ONE]).await.unwrap();
        let two = open(&Location::Memory, &[ONE]).await.unwrap();
        sqlx::query("INSERT INTO one VALUES (1)").execute(&mut one.writer).await.unwrap();
        let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM one").fetch_one(&two.readers).await.unwrap();
        assert_eq!(rows, 0);
        close(one).await;
        close(two).await;
    }
}

//! The store on SQLite: a file for one machine, or memory for tests.
//!
//! One actor owns the only connection that writes (`writer`); everything else reads through a pool. A watch reads
//! the change log and sleeps until the writer wakes it (`watch`).

use std::path::Path;

use async_trait::async_trait;
use bytes::Bytes;
use sqlx::sqlite::{SqlitePool, SqliteRow};
use sqlx::{Row as _, SqliteConnection};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::{Entry, Error, Guard, Outcome, Page, Revision, Store, Watch, Write};
use crate::sqlite::{self, Database, Location, OpenError, Step};

mod watch;
mod writer;

/// Numbered, forward only.
const SCHEMA: &[Step] = &[Step {
    version: 1,
    title: "keys, change log and revision",
    sql: include_str!("../../../migrations/store/0001_store.sql"),
}];

/// Revisions that a watch can go back, unless told otherwise.
const HISTORY: u64 = 10_000;

/// Commits that may wait for the writer; the next caller waits for a place.
const WAITING: usize = 64;

/// The store on SQLite. Dropping it lets the writer finish what it holds and stop; [`close`](Self::close) waits for that.
#[derive(Debug)]
pub struct Sqlite {
    id: String,
    readers: SqlitePool,
    commits: mpsc::Sender<writer::Job>,
    newest: tokio::sync::watch::Receiver<u64>,
    writer: TaskTracker,
    stop: DropGuard,
}

impl Sqlite {
    /// Opens the store in a file, which is created when it is not there.
    pub async fn open(path: &Path) -> Result<Self, Error> {
        Self::start(&path.into(), HISTORY).await
    }

    /// A new store in memory, gone when it is closed.
    pub async fn memory() -> Result<Self, Error> {
        Self::start(&Location::Memory, HISTORY).await
    }

    /// Opens a store whose change log keeps only `history` revisions.
    pub async fn start(location: &Location, history: u64) -> Result<Self, Error> {
        let Database { mut writer, readers } = sqlite::open(location, SCHEMA).await.map_err(opening)?;
        let (id, revision) = identify(&mut writer).await.map_err(|e| failed("open", e))?;
        let (commits, jobs) = mpsc::channel(WAITING);
        let (wake, newest) = tokio::sync::watch::channel(revision);
        let stop = CancellationToken::new();
        let tracker = TaskTracker::new();
        // The actor's owner is this struct: `stop` ends it, `tracker` waits for it.
        tracker.spawn(writer::run(writer, jobs, wake, history, stop.clone()));
        tracker.close();
        Ok(Self { id, readers, commits, newest, writer: tracker, stop: stop.drop_guard() })
    }

    /// Finishes the commits that are under way, then closes the database. Later calls fail.
    pub async fn close(&self) {
        // Ordering: the writer closes last, so that it empties the WAL into the file.
        self.readers.close().await;
        self.stop.token().cancel();
        self.writer.wait().await;
    }
}

#[async_trait]
impl Store for Sqlite {
    fn id(&self) -> &str {
        &self.id
    }

    async fn revision(&self) -> Result<Revision, Error> {
        let row = sqlx::query("SELECT revision FROM store").fetch_one(&self.readers).await;
        let revision = row.and_then(|row| unsigned(&row, 0)).map_err(|e| failed("read the revision", e))?;
        Ok(Revision(revision))
    }

    async fn get(&self, key: &str) -> Result<Option<Entry>, Error> {
        let query = sqlx::query("SELECT key, value, mod_revision FROM kv WHERE key = ?").bind(key);
        let row = query.fetch_optional(&self.readers).await.map_err(|e| failed("read a key", e))?;
        row.map(|row| entry(&row, 0)).transpose().map_err(|e| failed("read a key", e))
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Page, Error> {
        self.page(prefix, after, limit).await.map_err(|e| failed("list keys", e))
    }

    async fn commit(&self, guards: Vec<Guard>, writes: Vec<Write>) -> Result<Outcome, Error> {
        super::check(&guards, &writes)?;
        let (answer, outcome) = oneshot::channel();
        let closed = || failed("commit", sqlx::Error::PoolClosed);
        self.commits.send(writer::Job { guards, writes, answer }).await.map_err(|_| closed())?;
        // Invariant: a job that the writer took but did not answer may have been committed.
        outcome.await.unwrap_or(Ok(Outcome::Unknown))
    }

    async fn watch(&self, prefix: &str, from: Revision) -> Result<Box<dyn Watch>, Error> {
        let watch = watch::ChangeLog::new(self.readers.clone(), self.newest.clone(), prefix, from);
        watch.check().await?;
        Ok(Box::new(watch))
    }
}

impl Sqlite {
    async fn page(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Page, sqlx::Error> {
        let limit = limit.clamp(1, 1000);
        let start = after.filter(|after| *after >= prefix);
        // One statement, so that revision and entries are of one moment.
        let rows = sqlx::query(
            "SELECT store.revision, part.key, part.value, part.mod_revision FROM store LEFT JOIN ( \
               SELECT key, value, mod_revision FROM kv \
               WHERE key >= ?1 AND (?2 IS NULL OR key > ?2) AND (?3 IS NULL OR key < ?3) ORDER BY key LIMIT ?4 \
             ) AS part ORDER BY part.key",
        )
        .bind(start.unwrap_or(prefix))
        .bind(start)
        .bind(prefix_end(prefix))
        .bind(i64::try_from(limit + 1).unwrap_or(i64::MAX))
        .fetch_all(&self.readers)
        .await?;
        let revision = rows.first().map(|row| unsigned(row, 0)).transpose()?.unwrap_or(0);
        let found = rows.iter().filter(|row| !matches!(row.try_get::<Option<&str>, _>(1), Ok(None)));
        let mut entries = found.map(|row| entry(row, 1)).collect::<Result<Vec<_>, _>>()?;
        let more = entries.len() > limit;
        entries.truncate(limit);
        Ok(Page { entries, revision: Revision(revision), more })
    }
}

/// The first text behind all texts that begin with `prefix`. `None`: there is none.
fn prefix_end(prefix: &str) -> Option<String> {
    let mut chars: Vec<char> = prefix.chars().collect();
    while let Some(last) = chars.pop() {
        // UTF-8 sorts as code points do; the surrogates between are no characters.
        let next = if last == '\u{D7FF}' { Some('\u{E000}') } else { char::from_u32(u32::from(last) + 1) };
        if let Some(next) = next {
            chars.push(next);
            return Some(chars.into_iter().collect());
        }
    }
    None
}

/// Mints the id of a new store; reads it, and the newest revision, of an old one.
async fn identify(writer: &mut SqliteConnection) -> Result<(String, u64), sqlx::Error> {
    let mint = sqlx::query("INSERT INTO store (one, id, revision, oldest) VALUES (1, ?, 0, 1) ON CONFLICT DO NOTHING");
    mint.bind(uuid::Uuid::new_v4().simple().to_string()).execute(&mut *writer).await?;
    let row = sqlx::query("SELECT id, revision FROM store").fetch_one(writer).await?;
    Ok((row.try_get(0)?, unsigned(&row, 1)?))
}

fn entry(row: &SqliteRow, first: usize) -> Result<Entry, sqlx::Error> {
    Ok(Entry {
        key: row.try_get(first)?,
        value: Bytes::from(row.try_get::<Vec<u8>, _>(first + 1)?),
        mod_revision: Revision(unsigned(row, first + 2)?),
    })
}

fn unsigned(row: &SqliteRow, column: usize) -> Result<u64, sqlx::Error> {
    Ok(row.try_get::<i64, _>(column)?.max(0).cast_unsigned())
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn failed(attempt: &'static str, source: sqlx::Error) -> Error {
    Error::Backend { attempt, source: source.into() }
}

fn opening(error: OpenError) -> Error {
    match error {
        OpenError::NewerSchema { found, known } => Error::NewerSchema { found, known },
        other => Error::Backend { attempt: "open", source: other.into() },
    }
}

#[cfg(test)]
mod tests;

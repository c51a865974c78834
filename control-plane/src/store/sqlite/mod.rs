//! The store on SQLite: a file for one machine, or memory for tests.
//!
//! Commits (`commit`) go through the one writer (see [`crate::sqlite::writer`]), everything else reads through the pool.
//! A watch reads the change log and sleeps until the writer has committed again (`watch`).

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Row as _, SqliteConnection};

use super::{Entry, Error, Guard, Outcome, Page, Revision, Store, Tenure, Watch, Write};
use crate::sqlite::writer::WriteError;
use crate::sqlite::{self, Database, Location, OpenError, Step};

mod commit;
pub mod copy;
mod tenure;
mod watch;
mod wipe;

/// Numbered, forward only.
const SCHEMA: &[Step] = &[Step {
    version: 1,
    title: "keys, change log and revision",
    sql: include_str!("../../../migrations/store/0001_store.sql"),
}];

/// Revisions that a watch can go back, unless told otherwise.
const HISTORY: u64 = 10_000;

/// Most commits in one transaction. With the limit of a commit it bounds the transaction to 64 MiB.
const GROUP: usize = 64;

/// The store on SQLite. Dropping it lets the writer finish what it holds and end; [`close`](Self::close) waits for that.
#[derive(Debug, Clone)]
pub struct Sqlite {
    id: String,
    database: Arc<Database>,
    history: u64,
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
        let mut connections = sqlite::open(location, SCHEMA).await.map_err(opening)?;
        let id = identify(&mut connections.writer).await.map_err(|e| failed("open", e))?;
        Ok(Self { id, database: Arc::new(connections.start(GROUP, "store")), history })
    }

    /// Finishes the commits that are under way, then closes the database. Later calls fail.
    pub async fn close(&self) {
        self.database.close().await;
    }

    /// Returns when nothing can be committed any more: the store was closed, or its writer died.
    pub async fn ended(&self) {
        self.database.writer.ended().await;
    }
}

#[async_trait]
impl Store for Sqlite {
    async fn id(&self) -> Result<Option<String>, Error> {
        Ok(Some(self.id.clone()))
    }

    async fn name(&self) -> Result<String, Error> {
        Ok(self.id.clone())
    }

    async fn revision(&self) -> Result<Revision, Error> {
        let row = sqlx::query("SELECT revision FROM store").fetch_one(&self.database.readers).await;
        let revision = row.and_then(|row| unsigned(&row, 0)).map_err(|e| failed("read the revision", e))?;
        Ok(Revision(revision))
    }

    async fn get(&self, key: &str) -> Result<Option<Entry>, Error> {
        let query = sqlx::query("SELECT key, value, mod_revision FROM kv WHERE key = ?").bind(key);
        let row = query.fetch_optional(&self.database.readers).await.map_err(|e| failed("read a key", e))?;
        row.map(|row| entry(&row, 0)).transpose().map_err(|e| failed("read a key", e))
    }

    async fn get_many(&self, keys: &[String]) -> Result<Vec<Option<Entry>>, Error> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let mut query = QueryBuilder::<sqlx::Sqlite>::new("SELECT key, value, mod_revision FROM kv WHERE key IN (");
        let mut list = query.separated(", ");
        for key in keys {
            list.push_bind(key.as_str());
        }
        query.push(")");
        let rows = query.build().fetch_all(&self.database.readers).await.map_err(|e| failed("read keys", e))?;
        let entries = rows.iter().map(|row| entry(row, 0)).map(|read| read.map(|entry| (entry.key.clone(), entry)));
        let found: HashMap<String, Entry> = entries.collect::<Result<_, _>>().map_err(|e| failed("read keys", e))?;
        Ok(keys.iter().map(|key| found.get(key).cloned()).collect())
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Page, Error> {
        self.page(prefix, after, limit).await.map_err(|e| failed("list keys", e))
    }

    async fn commit(&self, guards: Vec<Guard>, writes: Vec<Write>) -> Result<Outcome, Error> {
        super::check(&guards, &writes)?;
        let history = self.history;
        let job = self.database.writer.write(move |c| Box::pin(commit::commit(c, guards, writes, history)));
        match job.await {
            Ok(outcome) => Ok(outcome),
            Err(WriteError::Unknown(_)) => Ok(Outcome::Unknown),
            Err(error @ (WriteError::Refused(_) | WriteError::Closed)) => Err(failed("commit", error)),
        }
    }

    async fn tenure(&self, key: &str, value: Bytes, _: Duration, _: bool) -> Result<Option<Box<dyn Tenure>>, Error> {
        tenure::take(self.clone(), key, value).await
    }

    async fn watch(&self, prefix: &str, from: Revision) -> Result<Box<dyn Watch>, Error> {
        let watch = watch::ChangeLog::new(&self.database, prefix, from);
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
        .fetch_all(&self.database.readers)
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

/// Mints the id of a new store; reads that of an old one.
async fn identify(writer: &mut SqliteConnection) -> Result<String, sqlx::Error> {
    let mint = sqlx::query("INSERT INTO store (one, id, revision, oldest) VALUES (1, ?, 0, 1) ON CONFLICT DO NOTHING");
    mint.bind(uuid::Uuid::new_v4().simple().to_string()).execute(&mut *writer).await?;
    sqlx::query_scalar("SELECT id FROM store").fetch_one(writer).await
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

fn failed(attempt: &'static str, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
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

//! The writer: takes what has queued up while the last commit reached the disk, and commits it as one transaction.
//!
//! Every job has its own savepoint and revision, so that one loser never aborts the others.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use sqlx::{Connection as _, QueryBuilder, Row as _, Sqlite, SqliteConnection};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::{failed, signed, unsigned};
use crate::store::{Error, Guard, Outcome, Revision, Write};

/// Most jobs in one transaction. With the limit of a commit it bounds the transaction to 64 MiB.
const GROUP: usize = 64;

/// One commit that somebody waits for.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) guards: Vec<Guard>,
    pub(super) writes: Vec<Write>,
    pub(super) answer: oneshot::Sender<Result<Outcome, Error>>,
}

/// Runs until `stop` is raised or nobody can send any more; then finishes what was sent and closes the connection.
pub(super) async fn run(
    mut connection: SqliteConnection,
    mut jobs: mpsc::Receiver<Job>,
    wake: watch::Sender<u64>,
    history: u64,
    stop: CancellationToken,
) {
    let mut group = Vec::with_capacity(GROUP);
    loop {
        let taken = tokio::select! {
            biased;
            () = stop.cancelled(), if !jobs.is_closed() => {
                jobs.close();
                continue;
            }
            taken = jobs.recv_many(&mut group, GROUP) => taken,
        };
        if taken == 0 {
            break;
        }
        commit_group(&mut connection, std::mem::take(&mut group), &wake, history).await;
    }
    if let Err(error) = connection.close().await {
        tracing::warn!(%error, "the store did not close cleanly");
    }
}

/// Commits the group and answers every job of it. Ordering: watches wake and callers hear only what is durable.
async fn commit_group(connection: &mut SqliteConnection, group: Vec<Job>, wake: &watch::Sender<u64>, history: u64) {
    let mut answers = Vec::with_capacity(group.len());
    let jobs = group.into_iter().map(|job| {
        answers.push(job.answer);
        (job.guards, job.writes)
    });
    let jobs: Vec<_> = jobs.collect();
    match write_group(connection, &jobs, history).await {
        Ok((newest, outcomes)) => {
            wake.send_if_modified(|seen| std::mem::replace(seen, newest) != newest);
            for (answer, outcome) in answers.into_iter().zip(outcomes) {
                // The caller may have gone; its commit stands all the same.
                let _ = answer.send(outcome);
            }
        }
        Err(Failed { unknown, source }) => {
            tracing::error!(error = %source, unknown, commits = answers.len(), "the store could not commit");
            let source = std::sync::Arc::new(source);
            for answer in answers {
                let error = || Error::Backend { attempt: "commit", source: Box::new(std::sync::Arc::clone(&source)) };
                let _ = answer.send(if unknown { Ok(Outcome::Unknown) } else { Err(error()) });
            }
        }
    }
}

/// Why no job of a group was committed, or may have been.
struct Failed {
    /// True: COMMIT itself failed, so everything may be there or nothing.
    unknown: bool,
    source: sqlx::Error,
}

impl From<sqlx::Error> for Failed {
    fn from(source: sqlx::Error) -> Self {
        Self { unknown: false, source }
    }
}

type Outcomes = Vec<Result<Outcome, Error>>;

async fn write_group(
    connection: &mut SqliteConnection,
    jobs: &[(Vec<Guard>, Vec<Write>)],
    history: u64,
) -> Result<(u64, Outcomes), Failed> {
    let mut group = connection.begin_with("BEGIN IMMEDIATE").await?;
    let row = sqlx::query("SELECT revision, oldest FROM store").fetch_one(&mut *group).await?;
    let (before, oldest) = (unsigned(&row, 0)?, unsigned(&row, 1)?);
    let mut newest = before;
    let mut outcomes = Vec::with_capacity(jobs.len());
    for (guards, writes) in jobs {
        let mut savepoint = group.begin().await?;
        match write_one(&mut savepoint, guards, writes, newest + 1).await {
            Ok(true) => {
                savepoint.commit().await?;
                newest += 1;
                outcomes.push(Ok(Outcome::Committed(Revision(newest))));
            }
            Ok(false) => {
                savepoint.rollback().await?;
                outcomes.push(Ok(Outcome::Conflict));
            }
            Err(error) => {
                // A full disk ends the whole transaction; then this fails too, and with it the group.
                savepoint.rollback().await?;
                outcomes.push(Err(failed("commit", error)));
            }
        }
    }
    if newest == before {
        group.rollback().await?;
        return Ok((before, outcomes));
    }
    let oldest = trim(&mut group, newest, oldest, history).await?;
    let position = sqlx::query("UPDATE store SET revision = ?, oldest = ?").bind(signed(newest)).bind(signed(oldest));
    position.execute(&mut *group).await?;
    group.commit().await.map_err(|source| Failed { unknown: true, source })?;
    Ok((newest, outcomes))
}

/// Writes one job as `revision`. False: a guard did not hold, and nothing was written.
async fn write_one(
    connection: &mut SqliteConnection,
    guards: &[Guard],
    writes: &[Write],
    revision: u64,
) -> Result<bool, sqlx::Error> {
    if !guards_hold(connection, guards).await? {
        return Ok(false);
    }
    let mut puts: Vec<(&str, &Bytes)> = Vec::new();
    let mut deletes: BTreeSet<&str> = BTreeSet::new();
    for write in writes {
        match write {
            Write::Put(key, value) => puts.push((key, value)),
            Write::Delete(key) => _ = deletes.insert(key),
        }
    }
    let mut changes: Vec<(String, Option<&[u8]>)> = Vec::new();
    if !puts.is_empty() {
        let mut query = QueryBuilder::<Sqlite>::new("INSERT INTO kv (key, value, mod_revision) ");
        query.push_values(&puts, |mut row, (key, value)| {
            row.push_bind(*key).push_bind(value.as_ref()).push_bind(signed(revision));
        });
        query.push(" ON CONFLICT (key) DO UPDATE SET value = excluded.value, mod_revision = excluded.mod_revision");
        query.build().execute(&mut *connection).await?;
        changes.extend(puts.iter().map(|(key, value)| ((*key).to_owned(), Some(value.as_ref()))));
    }
    if !deletes.is_empty() {
        let mut query = keys_in("DELETE FROM kv", deletes.iter().copied());
        query.push(" RETURNING key");
        for row in query.build().fetch_all(&mut *connection).await? {
            changes.push((row.try_get(0)?, None));
        }
    }
    if !changes.is_empty() {
        let mut query = QueryBuilder::<Sqlite>::new("INSERT INTO change (revision, key, value) ");
        query.push_values(&changes, |mut row, (key, value)| {
            row.push_bind(signed(revision)).push_bind(key.as_str()).push_bind(*value);
        });
        query.build().execute(connection).await?;
    }
    Ok(true)
}

async fn guards_hold(connection: &mut SqliteConnection, guards: &[Guard]) -> Result<bool, sqlx::Error> {
    if guards.is_empty() {
        return Ok(true);
    }
    let key = |guard: &Guard| match guard {
        Guard::Absent(key) | Guard::Unchanged(key, _) => key.clone(),
    };
    let keys: BTreeSet<String> = guards.iter().map(key).collect();
    let mut query = keys_in("SELECT key, mod_revision FROM kv", keys.iter().map(String::as_str));
    let mut found = BTreeMap::new();
    for row in query.build().fetch_all(connection).await? {
        found.insert(row.try_get::<String, _>(0)?, unsigned(&row, 1)?);
    }
    Ok(guards.iter().all(|guard| match guard {
        Guard::Absent(key) => !found.contains_key(key),
        Guard::Unchanged(key, revision) => found.get(key) == Some(&revision.0),
    }))
}

/// Forgets old changes, some hundreds at a time. Answers the oldest revision that is kept.
async fn trim(connection: &mut SqliteConnection, newest: u64, oldest: u64, history: u64) -> Result<u64, sqlx::Error> {
    let kept = (newest + 1).saturating_sub(history).max(1);
    if kept < oldest.saturating_add(history / 16).max(oldest + 1) {
        return Ok(oldest);
    }
    sqlx::query("DELETE FROM change WHERE revision < ?").bind(signed(kept)).execute(connection).await?;
    Ok(kept)
}

fn keys_in<'a>(statement: &'static str, keys: impl Iterator<Item = &'a str>) -> QueryBuilder<Sqlite> {
    let mut query = QueryBuilder::new(statement);
    query.push(" WHERE key IN (");
    let mut list = query.separated(", ");
    for key in keys {
        list.push_bind(key.to_owned());
    }
    query.push(")");
    query
}

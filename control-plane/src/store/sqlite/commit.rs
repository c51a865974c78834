//! The work of one commit, done by the writer in a savepoint of its own: guards, keys, change log, revision.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use sqlx::{QueryBuilder, Row as _, Sqlite, SqliteConnection};

use super::{signed, unsigned};
use crate::store::{Guard, Outcome, Revision, Write};

/// Writes all of `writes` as the next revision if the guards hold, and keeps the changes of the newest `history` revisions.
pub(super) async fn commit(
    connection: &mut SqliteConnection,
    guards: Vec<Guard>,
    writes: Vec<Write>,
    history: u64,
) -> Result<Outcome, sqlx::Error> {
    if !guards_hold(connection, &guards).await? {
        return Ok(Outcome::Conflict);
    }
    let row = sqlx::query("SELECT revision, oldest FROM store").fetch_one(&mut *connection).await?;
    let (newest, oldest) = (unsigned(&row, 0)? + 1, unsigned(&row, 1)?);
    write(connection, &writes, newest).await?;
    let oldest = trim(connection, newest, oldest, history).await?;
    let position = sqlx::query("UPDATE store SET revision = ?, oldest = ?").bind(signed(newest)).bind(signed(oldest));
    position.execute(connection).await?;
    Ok(Outcome::Committed(Revision(newest)))
}

/// Writes the keys and what the change log says of them.
async fn write(connection: &mut SqliteConnection, writes: &[Write], revision: u64) -> Result<(), sqlx::Error> {
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
    Ok(())
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

//! Messages that are known again under new keys: their match keys, made the first time that their folder was numbered anew,
//! and what takes a row for a duplicate's original.

use postroom_proto::fingerprint::{bare_key, fingerprint, key};
use postroom_proto::id::MailboxUid;
use postroom_proto::v1::{ContactContent, Disposition};
use prost::Message as _;
use sqlx::{QueryBuilder, Sqlite, SqliteConnection, SqlitePool};

use super::super::known::{Candidate, Sought};
use super::super::{Fence, Micros};
use super::ROWS;
use super::row::{int, uint};

/// Where a mailbox stands.
pub(super) struct Place {
    /// Its row.
    pub(super) row: i64,
    /// Messages of numberings below this have their match keys.
    pub(super) keyed: u32,
}

/// The mailbox, while it is under this fence.
pub(super) async fn place(
    readers: &SqlitePool,
    mailbox: &MailboxUid,
    fence: &Fence,
) -> Result<Option<Place>, sqlx::Error> {
    let row: Option<(i64, u32)> =
        sqlx::query_as("SELECT id, keyed FROM mailbox WHERE uid = ? AND generation = ? AND epoch = ? AND session = ?")
            .bind(mailbox.as_str())
            .bind(int(fence.generation.0))
            .bind(int(fence.epoch.0))
            .bind(fence.session.as_str())
            .fetch_optional(readers)
            .await?;
    Ok(row.map(|(row, keyed)| Place { row, keyed }))
}

/// Messages of a mailbox that have no match key, as far as one can be made.
pub(super) struct Piece {
    /// The last source key that was looked at. `None`: there are no more.
    pub(super) last: Option<String>,
    /// Row, fingerprint and match key of each.
    pub(super) keys: Vec<(i64, Vec<u8>, i64)>,
}

/// The next messages of a mailbox behind this source key.
pub(super) async fn unkeyed(readers: &SqlitePool, mailbox: i64, after: &str) -> Result<Piece, sqlx::Error> {
    type Row = (i64, String, i32, bool, Vec<u8>, Option<Micros>, i64, Option<Vec<u8>>);
    // In the order of source keys: they are the index by which a mailbox's messages are found.
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT message.id, source_key, disposition, match_key IS NOT NULL, fingerprint, received_at, size_bytes,
           CASE WHEN length(fingerprint) = 32 AND match_key IS NULL
             THEN (SELECT content FROM body WHERE body.message = message.id) END
         FROM message
         WHERE mailbox = ? AND source_key > ? ORDER BY source_key LIMIT ?",
    )
    .bind(mailbox)
    .bind(after)
    .bind(ROWS as i64)
    .fetch_all(readers)
    .await?;
    let last = rows.last().map(|row| row.1.clone());
    let made = rows.into_iter().filter_map(|(id, _, disposition, has_key, print, received_at, size, content)| {
        let disposition = Disposition::try_from(disposition).unwrap_or_default();
        // What was gone has never been seen, and a duplicate is known by its original.
        if has_key || matches!(disposition, Disposition::Vanished | Disposition::Duplicate) {
            return None;
        }
        let (print, key) = made(print, content.as_deref(), received_at, uint(size))?;
        Some((id, print, key))
    });
    Ok(Piece { last, keys: made.collect() })
}

/// Fingerprint and match key of a message. One of an earlier version is made of what its contact says.
fn made(print: Vec<u8>, content: Option<&[u8]>, received_at: Option<Micros>, size: u64) -> Option<(Vec<u8>, i64)> {
    if let Some(key) = key(&print) {
        return Some((print, key));
    }
    if let Some(content) = content.and_then(|content| ContactContent::decode(content).ok()) {
        let print = fingerprint(&content);
        let key = key(&print)?;
        return Some((print, key));
    }
    // A fingerprint that cannot be compared with any is none, and what has none is known by time and size.
    Some((Vec::new(), bare_key(received_at?, size))).filter(|_| size > 0)
}

/// Stores match keys.
pub(super) async fn store_keys(
    connection: &mut SqliteConnection,
    keys: Vec<(i64, Vec<u8>, i64)>,
) -> Result<(), sqlx::Error> {
    for (id, print, key) in keys {
        sqlx::query("UPDATE message SET fingerprint = ?, match_key = ? WHERE id = ? AND match_key IS NULL")
            .bind(print)
            .bind(key)
            .bind(id)
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

/// All messages of numberings below this one have their match keys.
pub(super) async fn finish(connection: &mut SqliteConnection, mailbox: i64, numbering: u32) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE mailbox SET keyed = max(keyed, ?) WHERE id = ?")
        .bind(numbering)
        .bind(mailbox)
        .execute(connection)
        .await?;
    Ok(())
}

/// Rows that may be what is sought, and were not seen in this numbering.
pub(super) async fn candidates(
    readers: &SqlitePool,
    mailbox: i64,
    numbering: u32,
    sought: &[Sought],
) -> Result<Vec<Candidate>, sqlx::Error> {
    let bare = |one: &Sought| Some(bare_key(one.received_at?, one.size_bytes));
    let mut keys: Vec<i64> = sought.iter().flat_map(|one| [key(&one.fingerprint), bare(one)]).flatten().collect();
    keys.sort_unstable();
    keys.dedup();
    let mut found = Vec::new();
    for chunk in keys.chunks(ROWS) {
        let mut select = QueryBuilder::<Sqlite>::new(
            "SELECT id, fingerprint, received_at, size_bytes FROM message WHERE mailbox = ",
        );
        select.push_bind(mailbox).push(" AND numbering < ").push_bind(numbering).push(" AND match_key IN (");
        let mut list = select.separated(", ");
        for key in chunk {
            list.push_bind(*key);
        }
        select.push(")");
        let rows: Vec<(i64, Vec<u8>, Option<Micros>, i64)> = select.build_query_as().fetch_all(readers).await?;
        found.extend(rows.into_iter().map(|(id, fingerprint, received_at, size)| Candidate {
            id,
            fingerprint,
            received_at,
            size_bytes: uint(size),
        }));
    }
    Ok(found)
}

/// Takes a row for the original of a duplicate, once in a numbering: whether its after-intake step is still to be done, which
/// from now on is the duplicate's.
pub(super) async fn take(
    connection: &mut SqliteConnection,
    mailbox: i64,
    numbering: u32,
    original: i64,
) -> Result<bool, sqlx::Error> {
    let taken = sqlx::query(
        "UPDATE message SET numbering = ?1 WHERE id = ?2 AND mailbox = ?3 AND numbering < ?1 AND duplicate_of IS NULL",
    )
    .bind(numbering)
    .bind(original)
    .bind(mailbox)
    .execute(&mut *connection)
    .await?;
    if taken.rows_affected() != 1 {
        // Who asked again before the last answer was committed. Nothing of the report is written.
        return Err(sqlx::Error::Protocol(format!("message {original} cannot be the original of a duplicate")));
    }
    let mut unsettled = 0;
    for query in [
        "UPDATE message SET unsettled = 0 WHERE id = ? AND unsettled = 1",
        "UPDATE message SET unsettled = 0 WHERE duplicate_of = ? AND unsettled = 1",
    ] {
        unsettled += sqlx::query(query).bind(original).execute(&mut *connection).await?.rows_affected();
    }
    Ok(unsettled > 0)
}

//! Messages: listed, looked up, counted, and what people decide about them.

use postroom_proto::convert::to_timestamp;
use postroom_proto::id::MailboxUid;
use postroom_proto::v1::{self, Disposition, MessageDecisionKind};
use sqlx::sqlite::SqliteRow;
use sqlx::{FromRow, QueryBuilder, Row as _, Sqlite, SqliteConnection, SqlitePool};

use super::super::message::{Discarded, MessageFilter, Standing};
use super::super::{MailboxRecord, Micros, Raw};
use super::ROWS;
use super::row::uint;

/// Every column with its table: names may come to stand in both.
const SELECT: &str = "SELECT message.id AS id, mailbox.uid AS uid, message.source_key AS source_key, \
     message.disposition AS disposition, message.reason AS reason, message.received_at AS received_at, \
     message.recorded_at AS recorded_at, message.size_bytes AS size_bytes, message.limit_bytes AS limit_bytes, \
     message.attempt_count AS attempt_count, contact.id AS contact, message.unsettled AS unsettled, \
     message.duplicate_of AS duplicate_of, \
     (message.raw_digest IS NOT NULL OR body.raw IS NOT NULL) AS raw_kept \
     FROM message JOIN mailbox ON mailbox.id = message.mailbox LEFT JOIN contact ON contact.message = message.id \
     LEFT JOIN body ON body.message = message.id WHERE 1 = 1";

struct MessageRow(v1::Message);

impl FromRow<'_, SqliteRow> for MessageRow {
    fn from_row(row: &SqliteRow) -> Result<Self, sqlx::Error> {
        Ok(Self(v1::Message {
            id: row.try_get::<i64, _>("id")?.to_string(),
            mailbox: row.try_get("uid")?,
            email: String::new(),
            source_key: row.try_get("source_key")?,
            disposition: row.try_get("disposition")?,
            reason: row.try_get("reason")?,
            received_time: row.try_get::<Option<Micros>, _>("received_at")?.map(to_timestamp),
            recorded_time: Some(to_timestamp(row.try_get("recorded_at")?)),
            size_bytes: uint(row.try_get("size_bytes")?),
            limit_bytes: uint(row.try_get("limit_bytes")?),
            attempt_count: row.try_get("attempt_count")?,
            contact: row.try_get::<Option<String>, _>("contact")?.unwrap_or_default(),
            raw_kept: row.try_get("raw_kept")?,
            settled: row.try_get::<i64, _>("unsettled")? == 0,
            decisions: Vec::new(),
            duplicate_of: row.try_get::<Option<i64>, _>("duplicate_of")?.map(|id| id.to_string()).unwrap_or_default(),
            copies: Vec::new(),
        }))
    }
}

/// Those recorded last first, from before `before`.
pub(super) async fn list(
    readers: &SqlitePool,
    filter: &MessageFilter,
    before: Option<i64>,
    limit: usize,
) -> Result<Vec<v1::Message>, sqlx::Error> {
    let mut select = QueryBuilder::<Sqlite>::new(SELECT);
    if let Some(mailbox) = &filter.mailbox {
        select
            .push(" AND message.mailbox = (SELECT id FROM mailbox WHERE uid = ")
            .push_bind(mailbox.as_str())
            .push(")");
    }
    if !filter.dispositions.is_empty() {
        if ![Disposition::Contact, Disposition::Duplicate].iter().any(|it| filter.dispositions.contains(it)) {
            select.push(" AND message.disposition <> 1 AND message.disposition <> 6");
        }
        select.push(" AND message.disposition IN (");
        let mut list = select.separated(", ");
        for disposition in &filter.dispositions {
            list.push_bind(*disposition as i32);
        }
        select.push(")");
    }
    if let Some(settled) = filter.settled {
        select.push(if settled { " AND message.unsettled = 0" } else { " AND message.unsettled = 1" });
    }
    if let Some(since) = filter.since {
        select.push(" AND message.recorded_at >= ").push_bind(since);
    }
    if let Some(until) = filter.until {
        select.push(" AND message.recorded_at < ").push_bind(until);
    }
    if !filter.reason.is_empty() {
        // Not LIKE, in which % and _ would mean something.
        select.push(" AND instr(lower(message.reason), lower(").push_bind(&filter.reason).push(")) > 0");
    }
    if let Some(before) = before {
        select.push(" AND message.id < ").push_bind(before);
    }
    select.push(" ORDER BY message.id DESC LIMIT ").push_bind(i64::try_from(limit).unwrap_or(i64::MAX));
    let rows: Vec<MessageRow> = select.build_query_as().fetch_all(readers).await?;
    Ok(rows.into_iter().map(|row| row.0).collect())
}

pub(super) async fn get(readers: &SqlitePool, id: i64) -> Result<Option<v1::Message>, sqlx::Error> {
    let mut select = QueryBuilder::<Sqlite>::new(SELECT);
    select.push(" AND message.id = ").push_bind(id);
    let row: Option<MessageRow> = select.build_query_as().fetch_optional(readers).await?;
    let Some(MessageRow(mut message)) = row else { return Ok(None) };
    type Decision = (i32, Micros, String, i32, String);
    let decisions: Vec<Decision> = sqlx::query_as(
        "SELECT kind, made_at, made_by, former_disposition, former_reason FROM decision WHERE message = ? ORDER BY id",
    )
    .bind(id)
    .fetch_all(readers)
    .await?;
    let decision = |(kind, made_at, by, former_disposition, former_reason): Decision| v1::MessageDecision {
        kind,
        time: Some(to_timestamp(made_at)),
        by,
        former_disposition,
        former_reason,
    };
    message.decisions = decisions.into_iter().map(decision).collect();
    let copies: Vec<i64> = sqlx::query_scalar("SELECT id FROM message WHERE duplicate_of = ? ORDER BY id")
        .bind(id)
        .fetch_all(readers)
        .await?;
    message.copies = copies.iter().map(i64::to_string).collect();
    Ok(Some(message))
}

pub(super) async fn raw(readers: &SqlitePool, id: i64) -> Result<Option<Raw>, sqlx::Error> {
    let row: Option<(Option<String>, Option<Vec<u8>>)> = sqlx::query_as(
        "SELECT raw_digest, raw FROM message LEFT JOIN body ON body.message = message.id WHERE message.id = ?",
    )
    .bind(id)
    .fetch_optional(readers)
    .await?;
    Ok(row.map(|(digest, bytes)| match (digest, bytes) {
        (Some(digest), _) => Raw::Blob(digest),
        (None, Some(bytes)) => Raw::Inline(bytes.into()),
        (None, None) => Raw::None,
    }))
}

/// Adds to each record how many of its messages are put aside and still open.
pub(super) async fn count_aside(readers: &SqlitePool, records: &mut [MailboxRecord]) -> Result<(), sqlx::Error> {
    for chunk in records.chunks_mut(ROWS) {
        let mut select = QueryBuilder::<Sqlite>::new(
            "SELECT mailbox.uid, disposition, count(*) FROM mailbox JOIN message ON message.mailbox = mailbox.id
             WHERE disposition <> 1 AND disposition <> 6 AND disposition IN (2, 3) AND uid IN (",
        );
        let mut list = select.separated(", ");
        for record in chunk.iter() {
            list.push_bind(record.uid.as_str().to_owned());
        }
        select.push(") GROUP BY mailbox.uid, disposition");
        let counts: Vec<(String, i32, i64)> = select.build_query_as().fetch_all(readers).await?;
        for (uid, disposition, count) in counts {
            let Some(record) = chunk.iter_mut().find(|record| record.uid.as_str() == uid) else { continue };
            if disposition == Disposition::Quarantined as i32 {
                record.quarantined_count = uint(count);
            } else {
                record.too_large_count = uint(count);
            }
        }
    }
    Ok(())
}

const STANDING: &str =
    "SELECT id, source_key, disposition, unsettled, received_at, size_bytes, duplicate_of FROM message WHERE ";

struct StandingRow(Standing);

impl FromRow<'_, SqliteRow> for StandingRow {
    fn from_row(row: &SqliteRow) -> Result<Self, sqlx::Error> {
        Ok(Self(Standing {
            id: row.try_get("id")?,
            source_key: row.try_get("source_key")?,
            disposition: Disposition::try_from(row.try_get::<i32, _>("disposition")?).unwrap_or_default(),
            settled: row.try_get::<i64, _>("unsettled")? == 0,
            received_at: row.try_get("received_at")?,
            size_bytes: uint(row.try_get("size_bytes")?),
            duplicate_of: row.try_get("duplicate_of")?,
        }))
    }
}

/// Those of these source keys that the ledger has.
pub(super) async fn standing_of(
    readers: &SqlitePool,
    mailbox: &MailboxUid,
    keys: &[String],
) -> Result<Vec<Standing>, sqlx::Error> {
    let mut found = Vec::with_capacity(keys.len());
    for chunk in keys.chunks(ROWS) {
        let mut select = QueryBuilder::<Sqlite>::new(STANDING);
        select.push("mailbox = (SELECT id FROM mailbox WHERE uid = ").push_bind(mailbox.as_str());
        select.push(") AND source_key IN (");
        let mut list = select.separated(", ");
        for key in chunk {
            list.push_bind(key);
        }
        select.push(")");
        let rows: Vec<StandingRow> = select.build_query_as().fetch_all(readers).await?;
        found.extend(rows.into_iter().map(|row| row.0));
    }
    Ok(found)
}

/// Messages of a mailbox behind row `after` and up to row `last`, in their order.
pub(super) async fn standing_after(
    readers: &SqlitePool,
    mailbox: &MailboxUid,
    after: i64,
    last: i64,
    limit: usize,
) -> Result<Vec<Standing>, sqlx::Error> {
    let mut select = QueryBuilder::<Sqlite>::new(STANDING);
    // The unary plus keeps the order of rows: with the index by source key everything would be sorted for each page.
    select.push("+mailbox = (SELECT id FROM mailbox WHERE uid = ").push_bind(mailbox.as_str());
    select.push(") AND id > ").push_bind(after).push(" AND id <= ").push_bind(last);
    select.push(" ORDER BY id LIMIT ").push_bind(i64::try_from(limit).unwrap_or(i64::MAX));
    let rows: Vec<StandingRow> = select.build_query_as().fetch_all(readers).await?;
    Ok(rows.into_iter().map(|row| row.0).collect())
}

/// The last row of a mailbox, and how many it has. (0, 0): none.
pub(super) async fn extent(readers: &SqlitePool, mailbox: &MailboxUid) -> Result<(i64, u64), sqlx::Error> {
    let (last, count): (i64, i64) = sqlx::query_as(
        "SELECT coalesce(max(id), 0), count(*) FROM message WHERE mailbox = (SELECT id FROM mailbox WHERE uid = ?)",
    )
    .bind(mailbox.as_str())
    .fetch_one(readers)
    .await?;
    Ok((last, uint(count)))
}

/// Makes a message filtered, unless it is a contact.
pub(super) async fn discard(
    connection: &mut SqliteConnection,
    id: i64,
    by: String,
    text: String,
    now: Micros,
) -> Result<Discarded, sqlx::Error> {
    let known: Option<(i32, String)> = sqlx::query_as("SELECT disposition, reason FROM message WHERE id = ?")
        .bind(id)
        .fetch_optional(&mut *connection)
        .await?;
    let Some((disposition, reason)) = known else { return Ok(Discarded::Unknown) };
    match Disposition::try_from(disposition).unwrap_or_default() {
        Disposition::Contact => return Ok(Discarded::Contact),
        // A duplicate is what its original is.
        Disposition::Filtered | Disposition::Duplicate => return Ok(Discarded::Filtered),
        _ => {}
    }
    decide(connection, id, MessageDecisionKind::Discarded, &by, (disposition, &reason), now).await?;
    let reason = if text.is_empty() { format!("discarded by {by}") } else { format!("discarded by {by}: {text}") };
    sqlx::query("UPDATE message SET disposition = ?, reason = ?, unsettled = 0 WHERE id = ?")
        .bind(Disposition::Filtered as i32)
        .bind(reason)
        .bind(id)
        .execute(connection)
        .await?;
    Ok(Discarded::Filtered)
}

/// Remembers a decision and what the message was before it.
pub(super) async fn decide(
    connection: &mut SqliteConnection,
    id: i64,
    kind: MessageDecisionKind,
    by: &str,
    (former_disposition, former_reason): (i32, &str),
    now: Micros,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO decision (message, kind, made_at, made_by, former_disposition, former_reason)
         VALUES (?, ?, ?, ?, ?, ?)",
    )
    .bind(id)
    .bind(kind as i32)
    .bind(now)
    .bind(by)
    .bind(former_disposition)
    .bind(former_reason)
    .execute(connection)
    .await?;
    Ok(())
}

//! Single rows and counts, from the read-only pool.

use postroom_proto::convert::to_timestamp;
use postroom_proto::id::MailboxUid;
use postroom_proto::v1;
use prost::Message as _;
use sqlx::{AssertSqlSafe, QueryBuilder, Row as _, Sqlite, SqlitePool};

use super::super::{MailboxRecord, Micros, Raw};
use super::row::{CONTACT, ContactRow, uint};
use super::{ROWS, backlog};

/// Most earlier contacts of a thread that a contact names.
const MOST_EARLIER: i64 = 50;
/// Most transfers that a contact names.
const MOST_TRANSFERS: i64 = 20;

pub(super) async fn any_lapsed(readers: &SqlitePool, now: Micros) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM contact WHERE state = 2 AND deadline_at <= ?)")
        .bind(now)
        .fetch_one(readers)
        .await
}

pub(super) async fn mailboxes(readers: &SqlitePool, uids: &[MailboxUid]) -> Result<Vec<MailboxRecord>, sqlx::Error> {
    let mut records = Vec::with_capacity(uids.len());
    for chunk in uids.chunks(ROWS) {
        let mut select =
            QueryBuilder::<Sqlite>::new("SELECT uid, status, mailbox.message_count, contact_count, reported_at, ");
        select
            .push(backlog::COLUMNS)
            .push(" FROM mailbox LEFT JOIN backlog ON backlog.mailbox = mailbox.id WHERE uid IN (");
        let mut list = select.separated(", ");
        for uid in chunk {
            list.push_bind(uid.as_str());
        }
        select.push(")");
        for row in select.build().fetch_all(readers).await? {
            let uid: String = row.try_get("uid")?;
            let status: Option<Vec<u8>> = row.try_get("status")?;
            records.push(MailboxRecord {
                uid: MailboxUid::parse(&uid).map_err(|e| sqlx::Error::Decode(e.into()))?,
                status: status.and_then(|bytes| v1::MailboxStatus::decode(bytes.as_slice()).ok()),
                message_count: uint(row.try_get("message_count")?),
                contact_count: uint(row.try_get("contact_count")?),
                quarantined_count: 0,
                too_large_count: 0,
                reported_at: row.try_get("reported_at")?,
                backlog: backlog::read(&row)?,
            });
        }
    }
    Ok(records)
}

pub(super) async fn waiting(
    readers: &SqlitePool,
    instance_uid: &str,
) -> Result<std::collections::HashMap<String, u64>, sqlx::Error> {
    // Queued and allocated.
    let rows = sqlx::query(
        "SELECT mailbox_uid, COUNT(*) AS number FROM contact WHERE instance_uid = ? AND state IN (1, 2) GROUP BY mailbox_uid",
    );
    let rows = rows.bind(instance_uid).fetch_all(readers).await?;
    rows.iter().map(|row| Ok((row.try_get("mailbox_uid")?, uint(row.try_get("number")?)))).collect()
}

pub(super) async fn contact(readers: &SqlitePool, id: &str) -> Result<Option<(String, v1::Contact)>, sqlx::Error> {
    let query = format!(
        "SELECT {CONTACT}, content, text FROM contact LEFT JOIN body ON body.message = contact.message WHERE contact.id = ?"
    );
    let row: Option<ContactRow> = sqlx::query_as(AssertSqlSafe(query)).bind(id).fetch_optional(readers).await?;
    let Some(row) = row else { return Ok(None) };
    let (message, instance) = (row.message, row.instance_uid.clone());
    let mut contact = row.contact()?;
    contact.earlier_contacts = earlier(readers, message, &instance, &contact.thread).await?;
    contact.transfers = transfers(readers, message).await?;
    Ok(Some((instance, contact)))
}

/// Contacts of the thread and the instance that came in before, newest first.
async fn earlier(
    readers: &SqlitePool,
    message: i64,
    instance_uid: &str,
    thread: &str,
) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT id FROM contact WHERE message IN (SELECT message FROM contact WHERE thread = ?1
           UNION ALL SELECT message FROM contact WHERE id = ?1 AND thread IS NULL)
         AND instance_uid = ?2 AND message < ?3 ORDER BY message DESC LIMIT ?4",
    )
    .bind(thread)
    .bind(instance_uid)
    .bind(message)
    .bind(MOST_EARLIER)
    .fetch_all(readers)
    .await
}

/// Whence a contact came, newest first.
async fn transfers(readers: &SqlitePool, message: i64) -> Result<Vec<v1::Transfer>, sqlx::Error> {
    type Row = (Micros, String, String, String, u32);
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT made_at, from_instance, from_queue, from_queue_uid, from_priority FROM transfer WHERE message = ?
         ORDER BY id DESC LIMIT ?",
    )
    .bind(message)
    .bind(MOST_TRANSFERS)
    .fetch_all(readers)
    .await?;
    let transfer = |(made_at, from_instance, from_queue, from_queue_uid, from_priority)| v1::Transfer {
        transferred_time: Some(to_timestamp(made_at)),
        from_instance,
        from_queue,
        from_queue_uid,
        from_priority,
    };
    Ok(rows.into_iter().map(transfer).collect())
}

pub(super) async fn raw(readers: &SqlitePool, id: &str) -> Result<Option<(String, Raw)>, sqlx::Error> {
    let row: Option<(String, Option<String>, Option<Vec<u8>>)> = sqlx::query_as(
        "SELECT instance_uid, raw_digest, raw FROM contact JOIN message ON message.id = contact.message
         LEFT JOIN body ON body.message = contact.message WHERE contact.id = ?",
    )
    .bind(id)
    .fetch_optional(readers)
    .await?;
    Ok(row.map(|(instance, digest, bytes)| {
        let raw = match (digest, bytes) {
            (Some(digest), _) => Raw::Blob(digest),
            (None, Some(bytes)) => Raw::Inline(bytes.into()),
            (None, None) => Raw::None,
        };
        (instance, raw)
    }))
}

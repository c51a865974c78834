//! Listings and single rows, from the read-only pool.

use postroom_proto::id::MailboxUid;
use postroom_proto::v1;
use prost::Message as _;
use sqlx::{AssertSqlSafe, QueryBuilder, Row as _, Sqlite, SqlitePool};

use super::super::{ContactFilter, ContactPosition, MailboxRecord, Micros, Raw};
use super::ROWS;
use super::row::{CONTACT, ContactRow, uint};

pub(super) async fn any_lapsed(readers: &SqlitePool, now: Micros) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM contact WHERE state = 2 AND deadline_at <= ?)")
        .bind(now)
        .fetch_one(readers)
        .await
}

pub(super) async fn mailboxes(readers: &SqlitePool, uids: &[MailboxUid]) -> Result<Vec<MailboxRecord>, sqlx::Error> {
    let mut records = Vec::with_capacity(uids.len());
    for chunk in uids.chunks(ROWS) {
        let mut select = QueryBuilder::<Sqlite>::new(
            "SELECT uid, status, message_count, contact_count, reported_at FROM mailbox WHERE uid IN (",
        );
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

pub(super) async fn contacts(
    readers: &SqlitePool,
    filter: &ContactFilter,
    after: Option<&ContactPosition>,
    limit: usize,
) -> Result<Vec<(ContactPosition, v1::Contact)>, sqlx::Error> {
    let mut select = QueryBuilder::<Sqlite>::new(format!(
        "SELECT {CONTACT}, content, NULL AS text FROM contact LEFT JOIN body ON body.message = contact.message WHERE 1 = 1"
    ));
    if let Some(instance) = &filter.instance_uid {
        select.push(" AND instance_uid = ").push_bind(instance);
    }
    if let Some(state) = filter.state {
        select.push(" AND state = ").push_bind(state as i32);
    }
    if let Some(after) = after {
        select.push(" AND (instance_uid, state, priority, waiting_since, contact.message) > (");
        let mut place = select.separated(", ");
        place
            .push_bind(&after.instance_uid)
            .push_bind(after.state)
            .push_bind(after.priority)
            .push_bind(after.waiting_since)
            .push_bind(after.message);
        select.push(")");
    }
    select.push(" ORDER BY instance_uid, state, priority, waiting_since, contact.message LIMIT ");
    select.push_bind(i64::try_from(limit).unwrap_or(i64::MAX));
    let rows: Vec<ContactRow> = select.build_query_as().fetch_all(readers).await?;
    rows.into_iter().map(|row| Ok((row.position(), row.contact()?))).collect()
}

pub(super) async fn contact(readers: &SqlitePool, id: &str) -> Result<Option<(String, v1::Contact)>, sqlx::Error> {
    let query = format!(
        "SELECT {CONTACT}, content, text FROM contact LEFT JOIN body ON body.message = contact.message WHERE contact.id = ?"
    );
    let row: Option<ContactRow> = sqlx::query_as(AssertSqlSafe(query)).bind(id).fetch_optional(readers).await?;
    row.map(|row| Ok((row.instance_uid.clone(), row.contact()?))).transpose()
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

//! The fence of a mailbox.

use postroom_proto::id::MailboxUid;
use postroom_proto::v1::{self, Disposition};
use prost::Message as _;
use sqlx::{SqliteConnection, SqlitePool};

use super::super::{Cursor, Fence, Micros, Opened};
use super::backlog;
use super::row::int;

/// Most unsettled messages that an opening returns.
const UNSETTLED: i64 = 500;

/// The ledger's id, minted at its first use.
pub(super) async fn identity(connection: &mut SqliteConnection) -> Result<String, sqlx::Error> {
    sqlx::query("INSERT INTO ledger (only, id, store_id, generation) VALUES (1, ?, NULL, 1) ON CONFLICT DO NOTHING")
        .bind(uuid::Uuid::new_v4().simple().to_string())
        .execute(&mut *connection)
        .await?;
    sqlx::query_scalar("SELECT id FROM ledger").fetch_one(connection).await
}

/// Raises the fence. `None` when it would have to be lowered, or another session holds the same epoch.
pub(super) async fn raise(
    connection: &mut SqliteConnection,
    mailbox: MailboxUid,
    fence: Fence,
) -> Result<Option<Opened>, sqlx::Error> {
    type Standing = (i64, String, Vec<u8>, Option<Vec<u8>>, Option<i64>, u32);
    let row: Option<Standing> = sqlx::query_as(
        "INSERT INTO mailbox (uid, generation, epoch, session) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (uid) DO UPDATE SET generation = ?2, epoch = ?3, session = ?4
         WHERE (generation, epoch) < (?2, ?3) OR ((generation, epoch) = (?2, ?3) AND session = ?4)
         RETURNING id, cursor_protocol, cursor, status, reading_since, numbering",
    )
    .bind(mailbox.as_str())
    .bind(int(fence.generation.0))
    .bind(int(fence.epoch.0))
    .bind(fence.session.as_str())
    .fetch_optional(&mut *connection)
    .await?;
    let Some((id, protocol, value, status, reading_since, numbering)) = row else { return Ok(None) };
    // What was not seen since its folder was numbered anew is not there to be settled.
    let unsettled = sqlx::query_scalar(
        "SELECT source_key FROM message WHERE mailbox = ? AND unsettled = 1 AND numbering = ? ORDER BY id LIMIT ?",
    )
    .bind(id)
    .bind(numbering)
    .bind(UNSETTLED)
    .fetch_all(&mut *connection)
    .await?;
    // A status of a newer version that cannot be read is worth less than reading the mailbox.
    let status = status.and_then(|bytes| v1::MailboxStatus::decode(bytes.as_slice()).ok());
    let release = backlog::release(connection, id).await?;
    Ok(Some(Opened { cursor: Cursor { protocol, value }, unsettled, status, reading_since, release }))
}

/// Unsettled messages of the present numbering that are contacts, or bounces of the outbox, since before `taken_before`. One
/// that is in the ledger under a former key counts from when it was first taken in, and not before it was known again.
pub(super) async fn due(
    readers: &SqlitePool,
    mailbox: &MailboxUid,
    taken_before: Micros,
) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT message.source_key FROM message
         JOIN mailbox ON mailbox.id = message.mailbox
         JOIN message AS original ON original.id = coalesce(message.duplicate_of, message.id)
         LEFT JOIN contact ON contact.message = original.id
         WHERE mailbox.uid = ?1 AND message.unsettled = 1 AND message.numbering = mailbox.numbering
           AND original.disposition IN (?2, ?3)
           AND max(message.recorded_at, coalesce(contact.created_at, original.recorded_at)) < ?4
         ORDER BY message.id LIMIT ?5",
    )
    .bind(mailbox.as_str())
    .bind(i64::from(Disposition::Contact as i32))
    .bind(i64::from(Disposition::Filtered as i32))
    .bind(taken_before)
    .bind(UNSETTLED)
    .fetch_all(readers)
    .await
}

/// How far a mailbox is read; the first cursor when it never was.
pub(super) async fn cursor(readers: &SqlitePool, mailbox: &MailboxUid) -> Result<Cursor, sqlx::Error> {
    let row: Option<(String, Vec<u8>)> = sqlx::query_as("SELECT cursor_protocol, cursor FROM mailbox WHERE uid = ?")
        .bind(mailbox.as_str())
        .fetch_optional(readers)
        .await?;
    Ok(row.map(|(protocol, value)| Cursor { protocol, value }).unwrap_or_default())
}

/// Records statuses; those under another fence than the standing one are left out, and whoever did not open the mailbox
/// takes back nothing that it cannot know.
pub(super) async fn record_statuses(
    connection: &mut SqliteConnection,
    statuses: Vec<(MailboxUid, Fence, v1::MailboxStatus)>,
) -> Result<(), sqlx::Error> {
    for (mailbox, fence, mut status) in statuses {
        if status.generation == 0 {
            let former: Option<Vec<u8>> = sqlx::query_scalar("SELECT status FROM mailbox WHERE uid = ?")
                .bind(mailbox.as_str())
                .fetch_optional(&mut *connection)
                .await?
                .flatten();
            // As at an opening, one of a newer version is worth less than what is told now.
            if let Some(former) = former.and_then(|bytes| v1::MailboxStatus::decode(bytes.as_slice()).ok()) {
                keep_what_is_known(&mut status, former);
            }
        }
        sqlx::query("UPDATE mailbox SET status = ? WHERE uid = ? AND generation = ? AND epoch = ? AND session = ?")
            .bind(status.encode_to_vec())
            .bind(mailbox.as_str())
            .bind(int(fence.generation.0))
            .bind(int(fence.epoch.0))
            .bind(fence.session.as_str())
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

/// Fills up the status of a mailbox that was not opened with what was told of it before.
fn keep_what_is_known(status: &mut v1::MailboxStatus, former: v1::MailboxStatus) {
    if status.refused_times.is_empty() {
        status.refused_credentials = former.refused_credentials;
        status.refused_times = former.refused_times;
    }
    status.renumbering = status.renumbering.or(former.renumbering);
    status.throttled_until_time = status.throttled_until_time.or(former.throttled_until_time);
}

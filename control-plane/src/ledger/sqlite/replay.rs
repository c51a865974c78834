//! A message that was put aside becomes a contact: fence, message, contact, body, decision. All of it or nothing.

use std::collections::HashMap;

use postroom_proto::fingerprint::key;
use postroom_proto::v1::{Disposition, MessageDecisionKind};
use sqlx::SqliteConnection;

use super::super::message::{NotReplayed, Replay, Replayed};
use super::super::{Batch, Cursor, Micros, Raw};
use super::row::int;
use super::{message, report};

/// Commits `replay`, or says why not. A message that is a contact stays the contact that it is.
pub(super) async fn commit(
    connection: &mut SqliteConnection,
    replay: Replay,
    now: Micros,
) -> Result<Result<Replayed, NotReplayed>, sqlx::Error> {
    let Replay { mailbox, fence, intake, mut message, by } = replay;
    // Ordering: the fence is the first statement of the transaction, as with a report. What follows runs only when it
    // matched.
    let row: Option<i64> = sqlx::query_scalar(
        "UPDATE mailbox SET reported_at = ? WHERE uid = ? AND generation = ? AND epoch = ? AND session = ? RETURNING id",
    )
    .bind(now)
    .bind(mailbox.as_str())
    .bind(int(fence.generation.0))
    .bind(int(fence.epoch.0))
    .bind(fence.session.as_str())
    .fetch_optional(&mut *connection)
    .await?;
    let Some(row) = row else { return Ok(Err(NotReplayed::LeaseLost)) };
    type Known = (i64, i32, String, Option<Micros>, Option<String>);
    let known: Option<Known> = sqlx::query_as(
        "SELECT message.id, message.disposition, message.reason, message.received_at, contact.id FROM message
         LEFT JOIN contact ON contact.message = message.id WHERE message.mailbox = ? AND message.source_key = ?",
    )
    .bind(row)
    .bind(&message.source_key)
    .fetch_optional(&mut *connection)
    .await?;
    let Some((id, disposition, reason, received_at, contact)) = known else { return Ok(Err(NotReplayed::Unknown)) };
    if let Some(contact) = contact {
        return Ok(Ok(Replayed::Already(contact)));
    }
    // Its age is that of the message, not of the decision.
    message.received_at = message.received_at.or(received_at);
    message::decide(connection, id, MessageDecisionKind::Replayed, &by, (disposition, &reason), now).await?;
    sqlx::query(
        "UPDATE message SET disposition = ?, reason = '', received_at = ?, size_bytes = ?,
         fingerprint = ?, match_key = ?, raw_digest = ? WHERE id = ?",
    )
    .bind(Disposition::Contact as i32)
    .bind(message.received_at)
    .bind(int(message.size_bytes))
    .bind(&message.fingerprint)
    // Made already: it is known again also when its folder is being numbered anew at this moment.
    .bind(key(&message.fingerprint))
    .bind(match &message.raw {
        Raw::Blob(digest) => Some(digest.as_str()),
        Raw::Inline(_) | Raw::None => None,
    })
    .bind(id)
    .execute(&mut *connection)
    .await?;
    // It is marked or moved under the key that it has now.
    sqlx::query(
        "UPDATE message SET unsettled = 1
         WHERE id = coalesce((SELECT max(id) FROM message WHERE duplicate_of = ?1), ?1)",
    )
    .bind(id)
    .execute(&mut *connection)
    .await?;
    sqlx::query("DELETE FROM body WHERE message = ?").bind(id).execute(&mut *connection).await?;
    let batch = Batch {
        mailbox,
        fence,
        id: String::new(),
        expected: Cursor::default(),
        next: Cursor::default(),
        intake,
        messages: vec![message],
        settled: Vec::new(),
        numbering: 0,
        backlog: None,
    };
    let new: HashMap<&str, i64> = batch.messages.iter().map(|message| (message.source_key.as_str(), id)).collect();
    let contacts = report::insert_contacts(connection, &batch, &new, now).await?;
    report::insert_bodies(connection, &batch.messages, &new).await?;
    sqlx::query("UPDATE mailbox SET contact_count = contact_count + ? WHERE id = ?")
        .bind(int(contacts.len() as u64))
        .bind(row)
        .execute(connection)
        .await?;
    match contacts.into_values().next() {
        Some(contact) => Ok(Ok(Replayed::Made(contact))),
        None => Err(sqlx::Error::Protocol("a replayed message became no contact".into())),
    }
}

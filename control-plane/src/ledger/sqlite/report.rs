//! The commit of a batch: fence, messages, contacts, bodies, cursor, answer. All of it or nothing.

use std::collections::{HashMap, HashSet};

use postroom_proto::v1::{self, ContactState, Disposition};
use prost::Message as _;
use sqlx::{QueryBuilder, Sqlite, SqliteConnection};

use super::super::outbox::Bounce;
use super::super::{Batch, Cursor, Message, Micros, NotCommitted, Raw};
use super::ROWS;
use super::row::int;
use super::{backlog, change, known, outbox, thread};

/// Commits `batch`, or says why not. The last batch of a mailbox, repeated under the same fence, gets its stored answer.
pub(super) async fn commit(
    connection: &mut SqliteConnection,
    mut batch: Batch,
    now: Micros,
) -> Result<Result<v1::ReportResponse, NotCommitted>, sqlx::Error> {
    let Some(mailbox) = pass_fence(connection, &batch, now).await? else {
        return refuse(connection, &batch).await;
    };
    let came_back = tie_bounces(connection, &mut batch).await?;
    let unsettled = take_originals(connection, mailbox, &batch).await?;
    let new = insert_messages(connection, mailbox, &batch, &unsettled, now).await?;
    for (source_key, mail, bounce) in came_back.iter().filter(|(_, _, bounce)| bounce.failed) {
        if new.contains_key(source_key.as_str()) {
            outbox::bounce::apply(connection, mail, &bounce.recipients, now).await?;
        }
    }
    let contacts = insert_contacts(connection, &batch, &new, now).await?;
    insert_bodies(connection, &batch.messages, &new).await?;
    settle(connection, mailbox, &batch.settled).await?;
    if let Some(progress) = &batch.backlog {
        backlog::record(connection, mailbox, progress, now).await?;
    }
    let response = answer(connection, mailbox, &batch, &new, &contacts, &unsettled).await?;
    // A message under another key is no other message.
    let copies =
        batch.messages.iter().filter(|message| is_copy(message) && new.contains_key(message.source_key.as_str()));
    let count = new.len() - copies.count();
    sqlx::query(
        "UPDATE mailbox SET batch_id = ?, batch_answer = ?, message_count = message_count + ?,
         contact_count = contact_count + ? WHERE id = ?",
    )
    .bind(&batch.id)
    .bind(response.encode_to_vec())
    .bind(int(count as u64))
    .bind(int(contacts.len() as u64))
    .bind(mailbox)
    .execute(connection)
    .await?;
    Ok(Ok(response))
}

/// Moves the cursor if fence and expected cursor match, and if the batch deals with no old messages that were not released;
/// the mailbox's row id if it did.
///
/// Ordering: this is the first statement of the transaction. What follows runs only when it matched.
async fn pass_fence(connection: &mut SqliteConnection, batch: &Batch, now: Micros) -> Result<Option<i64>, sqlx::Error> {
    sqlx::query_scalar(
        "UPDATE mailbox SET cursor_protocol = ?, cursor = ?, numbering = max(numbering, ?), reported_at = ?,
           reading_since = coalesce(reading_since, ?)
         WHERE uid = ? AND generation = ? AND epoch = ? AND session = ? AND cursor_protocol = ? AND cursor = ?
           AND batch_id IS NOT ?
           AND NOT (? AND EXISTS (SELECT 1 FROM backlog WHERE backlog.mailbox = mailbox.id AND backlog.state <> 2))
         RETURNING id",
    )
    .bind(&batch.next.protocol)
    .bind(&batch.next.value)
    .bind(batch.numbering)
    .bind(now)
    .bind(now)
    .bind(batch.mailbox.as_str())
    .bind(int(batch.fence.generation.0))
    .bind(int(batch.fence.epoch.0))
    .bind(batch.fence.session.as_str())
    .bind(&batch.expected.protocol)
    .bind(&batch.expected.value)
    .bind(&batch.id)
    .bind(batch.backlog.is_some())
    .fetch_optional(connection)
    .await
}

/// Makes messages that are about mails of the outbox none to be contacts; each of them, and the mail that it is of.
async fn tie_bounces(
    connection: &mut SqliteConnection,
    batch: &mut Batch,
) -> Result<Vec<(String, String, Bounce)>, sqlx::Error> {
    let mut tied = Vec::new();
    for message in batch.messages.iter_mut().filter(|it| it.disposition == Disposition::Contact) {
        let Some(bounce) = message.bounce.take() else { continue };
        let mail = outbox::bounce::find(connection, &batch.intake.instance_uid, &bounce.message_id).await?;
        let Some(mail) = mail else { continue };
        message.disposition = Disposition::Filtered;
        message.content = None;
        let what = if bounce.failed { "bounce of" } else { "delivery report about" };
        message.reason = format!("{what} outbox mail {mail}");
        tied.push((message.source_key.clone(), mail, bounce));
    }
    Ok(tied)
}

/// Why the fence did not let the batch pass: a repetition, a lost lease, or a cursor that is elsewhere. What was to take old
/// messages that are not released gets the cursor that it expected: whoever opens the mailbox again is told why.
async fn refuse(
    connection: &mut SqliteConnection,
    batch: &Batch,
) -> Result<Result<v1::ReportResponse, NotCommitted>, sqlx::Error> {
    type Standing = (String, Vec<u8>, Option<String>, Option<Vec<u8>>);
    let standing: Option<Standing> = sqlx::query_as(
        "SELECT cursor_protocol, cursor, batch_id, batch_answer FROM mailbox
         WHERE uid = ? AND generation = ? AND epoch = ? AND session = ?",
    )
    .bind(batch.mailbox.as_str())
    .bind(int(batch.fence.generation.0))
    .bind(int(batch.fence.epoch.0))
    .bind(batch.fence.session.as_str())
    .fetch_optional(connection)
    .await?;
    let Some((protocol, value, id, stored)) = standing else { return Ok(Err(NotCommitted::LeaseLost)) };
    if id.as_deref() == Some(batch.id.as_str()) {
        let stored = stored.unwrap_or_default();
        let response = v1::ReportResponse::decode(stored.as_slice()).map_err(|e| sqlx::Error::Decode(e.into()))?;
        return Ok(Ok(response));
    }
    Ok(Err(NotCommitted::CursorMismatch { committed: Cursor { protocol, value } }))
}

/// Takes the originals of the duplicates. Source keys of those whose after-intake step is still to be done.
async fn take_originals(
    connection: &mut SqliteConnection,
    mailbox: i64,
    batch: &Batch,
) -> Result<HashSet<String>, sqlx::Error> {
    let mut unsettled = HashSet::new();
    for message in &batch.messages {
        let Some(original) = message.duplicate_of.filter(|_| is_copy(message)) else { continue };
        let known: bool =
            sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM message WHERE mailbox = ? AND source_key = ?)")
                .bind(mailbox)
                .bind(&message.source_key)
                .fetch_one(&mut *connection)
                .await?;
        if known {
            continue;
        }
        if known::take(connection, mailbox, batch.numbering, original).await? {
            unsettled.insert(message.source_key.clone());
        }
    }
    Ok(unsettled)
}

fn is_copy(message: &Message) -> bool {
    message.disposition == Disposition::Duplicate
}

/// Inserts the messages that are not known yet; their row ids by source key. `unsettled`: duplicates that are.
async fn insert_messages<'b>(
    connection: &mut SqliteConnection,
    mailbox: i64,
    batch: &'b Batch,
    unsettled: &HashSet<String>,
    now: Micros,
) -> Result<HashMap<&'b str, i64>, sqlx::Error> {
    let messages = &batch.messages;
    let mut new = HashMap::with_capacity(messages.len());
    let by_key: HashMap<&str, &Message> = messages.iter().map(|m| (m.source_key.as_str(), m)).collect();
    for chunk in messages.chunks(ROWS) {
        let mut insert = QueryBuilder::<Sqlite>::new(
            "INSERT INTO message (mailbox, source_key, disposition, reason, received_at, recorded_at, size_bytes,
             limit_bytes, attempt_count, fingerprint, raw_digest, unsettled, numbering, duplicate_of) ",
        );
        insert.push_values(chunk, |mut row, message| {
            // Only contacts and bounces of the outbox are marked or moved; what was not understood stays in the mailbox as
            // it is.
            let settles = matches!(message.disposition, Disposition::Contact | Disposition::Filtered);
            let settles = settles || unsettled.contains(&message.source_key);
            row.push_bind(mailbox)
                .push_bind(&message.source_key)
                .push_bind(i64::from(message.disposition as i32))
                .push_bind(&message.reason)
                .push_bind(message.received_at)
                .push_bind(now)
                .push_bind(int(message.size_bytes))
                .push_bind(int(message.limit_bytes))
                .push_bind(message.attempt_count)
                .push_bind(&message.fingerprint)
                .push_bind(match &message.raw {
                    Raw::Blob(digest) => Some(digest.as_str()),
                    Raw::Inline(_) | Raw::None => None,
                })
                .push_bind(i64::from(settles))
                .push_bind(batch.numbering)
                .push_bind(message.duplicate_of);
        });
        insert.push(" ON CONFLICT (mailbox, source_key) DO NOTHING RETURNING id, source_key");
        let rows: Vec<(i64, String)> = insert.build_query_as().fetch_all(&mut *connection).await?;
        for (id, key) in rows {
            if let Some(message) = by_key.get(key.as_str()) {
                new.insert(message.source_key.as_str(), id);
            }
        }
    }
    Ok(new)
}

/// Makes contacts of the new messages that are to be one; the contact ids by source key.
pub(super) async fn insert_contacts<'b>(
    connection: &mut SqliteConnection,
    batch: &'b Batch,
    new: &HashMap<&str, i64>,
    now: Micros,
) -> Result<HashMap<&'b str, String>, sqlx::Error> {
    let wanted: Vec<(&Message, i64, String)> = batch
        .messages
        .iter()
        .filter(|message| message.disposition == Disposition::Contact)
        .filter_map(|message| Some((message, *new.get(message.source_key.as_str())?)))
        .map(|(message, id)| (message, id, uuid::Uuid::now_v7().simple().to_string()))
        .collect();
    let said: Vec<_> = wanted.iter().map(|(message, _, id)| (id.as_str(), message.content.as_ref())).collect();
    let places = thread::places(connection, &batch.intake.instance_uid, &said).await?;
    let placed: Vec<_> = wanted.iter().zip(&places).collect();
    for chunk in placed.chunks(ROWS) {
        let mut insert = QueryBuilder::<Sqlite>::new(
            "INSERT INTO contact (message, id, instance_uid, instance, queue_uid, queue, address, mailbox_uid, state,
             priority, waiting_since, language, created_at, size_bytes, kind, message_key, thread) ",
        );
        insert.push_values(chunk, |mut row, ((message, id, contact), place)| {
            row.push_bind(*id)
                .push_bind(contact)
                .push_bind(&batch.intake.instance_uid)
                .push_bind(&batch.intake.instance)
                .push_bind(&batch.intake.queue_uid)
                .push_bind(&batch.intake.queue)
                .push_bind(&batch.intake.address)
                .push_bind(batch.mailbox.as_str())
                .push_bind(i64::from(ContactState::Queued as i32))
                .push_bind(i64::from(batch.intake.priority))
                // A server whose clock is ahead must not put its mail behind everybody else's.
                .push_bind(message.received_at.unwrap_or(now).min(now))
                .push_bind(&batch.intake.language)
                .push_bind(now)
                .push_bind(int(message.size_bytes))
                .push_bind(i64::from(message.kind as i32))
                .push_bind(place.message_key)
                .push_bind(place.thread.as_deref());
        });
        insert.build().execute(&mut *connection).await?;
    }
    change::record(connection, &wanted.iter().map(|(_, id, _)| *id).collect::<Vec<_>>()).await?;
    Ok(wanted.into_iter().map(|(message, _, contact)| (message.source_key.as_str(), contact)).collect())
}

pub(super) async fn insert_bodies(
    connection: &mut SqliteConnection,
    messages: &[Message],
    new: &HashMap<&str, i64>,
) -> Result<(), sqlx::Error> {
    type Body<'m> = (i64, Option<(Vec<u8>, Vec<u8>)>, Option<&'m [u8]>);
    let bodies: Vec<Body<'_>> = messages
        .iter()
        .filter_map(|message| Some((message, *new.get(message.source_key.as_str())?)))
        .map(|(message, id)| {
            let raw = match &message.raw {
                Raw::Inline(bytes) => Some(bytes.as_ref()),
                Raw::Blob(_) | Raw::None => None,
            };
            (id, message.content.as_ref().map(encode), raw)
        })
        .filter(|(_, content, raw)| content.is_some() || raw.is_some())
        .collect();
    for chunk in bodies.chunks(ROWS) {
        let mut insert = QueryBuilder::<Sqlite>::new("INSERT INTO body (message, content, text, raw) ");
        insert.push_values(chunk, |mut row, (id, content, raw)| {
            let (content, text) = content.as_ref().map(|(content, text)| (content.as_slice(), text.as_slice())).unzip();
            row.push_bind(*id).push_bind(content).push_bind(text).push_bind(*raw);
        });
        insert.build().execute(&mut *connection).await?;
    }
    Ok(())
}

/// What a contact says, without text and html, and those two alone.
fn encode(content: &v1::ContactContent) -> (Vec<u8>, Vec<u8>) {
    let mut rest = content.clone();
    let text = std::mem::take(&mut rest.text);
    let html = std::mem::take(&mut rest.html);
    (rest.encode_to_vec(), v1::ContactContent { text, html, ..Default::default() }.encode_to_vec())
}

async fn settle(connection: &mut SqliteConnection, mailbox: i64, settled: &[String]) -> Result<(), sqlx::Error> {
    for chunk in settled.chunks(ROWS) {
        let mut update = QueryBuilder::<Sqlite>::new("UPDATE message SET unsettled = 0 WHERE mailbox = ");
        update.push_bind(mailbox).push(" AND source_key IN (");
        let mut keys = update.separated(", ");
        for key in chunk {
            keys.push_bind(key);
        }
        update.push(")");
        update.build().execute(&mut *connection).await?;
    }
    Ok(())
}

/// The outcomes in the order of the batch; messages that were known before get what stands in the ledger.
async fn answer(
    connection: &mut SqliteConnection,
    mailbox: i64,
    batch: &Batch,
    new: &HashMap<&str, i64>,
    contacts: &HashMap<&str, String>,
    unsettled: &HashSet<String>,
) -> Result<v1::ReportResponse, sqlx::Error> {
    let mut outcomes = Vec::with_capacity(batch.messages.len());
    for message in &batch.messages {
        let key = message.source_key.as_str();
        let outcome = if new.contains_key(key) {
            v1::MessageOutcome {
                source_key: key.into(),
                disposition: message.disposition.into(),
                contact: contacts.get(key).cloned().unwrap_or_default(),
                already_known: false,
                unsettled: unsettled.contains(key),
                ..v1::MessageOutcome::default()
            }
        } else {
            let (disposition, contact): (i32, Option<String>) = sqlx::query_as(
                "SELECT message.disposition, contact.id FROM message LEFT JOIN contact ON contact.message = message.id
                 WHERE message.mailbox = ? AND message.source_key = ?",
            )
            .bind(mailbox)
            .bind(key)
            .fetch_one(&mut *connection)
            .await?;
            v1::MessageOutcome {
                source_key: key.into(),
                disposition,
                contact: contact.unwrap_or_default(),
                already_known: true,
                ..v1::MessageOutcome::default()
            }
        };
        outcomes.push(outcome);
    }
    Ok(v1::ReportResponse { outcomes })
}

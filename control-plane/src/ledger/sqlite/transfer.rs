//! Moving contacts to another queue, of the same or of another instance.

use postroom_proto::v1::{ContactContent, ContactState};
use prost::Message as _;
use sqlx::sqlite::SqliteRow;
use sqlx::{FromRow, Row as _, SqliteConnection};

use super::super::{AnswerOutcome, Micros, Transfer};
use super::{change, thread};
use crate::contact::allocation::{Custody, Effect, Refused, transfer as decide};

struct Standing {
    message: i64,
    instance_uid: String,
    instance: String,
    queue_uid: String,
    queue: String,
    priority: i64,
    state: i32,
    request_id: Option<String>,
    allocated_at: Option<Micros>,
    deadline_at: Option<Micros>,
    refusal_count: u32,
}

impl FromRow<'_, SqliteRow> for Standing {
    fn from_row(row: &SqliteRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            message: row.try_get("message")?,
            instance_uid: row.try_get("instance_uid")?,
            instance: row.try_get("instance")?,
            queue_uid: row.try_get("queue_uid")?,
            queue: row.try_get("queue")?,
            priority: row.try_get("priority")?,
            state: row.try_get("state")?,
            request_id: row.try_get("request_id")?,
            allocated_at: row.try_get("allocated_at")?,
            deadline_at: row.try_get("deadline_at")?,
            refusal_count: row.try_get("refusal_count")?,
        })
    }
}

/// Moves each of the contacts of `instance_uid` that may be moved.
pub(super) async fn transfer(
    connection: &mut SqliteConnection,
    instance_uid: String,
    transfer: Transfer,
    now: Micros,
) -> Result<Vec<AnswerOutcome>, sqlx::Error> {
    let mut outcomes = Vec::with_capacity(transfer.contacts.len());
    for (id, request_id) in &transfer.contacts {
        let unknown = AnswerOutcome::refused(Refused::Unknown, ContactState::Unspecified);
        let Some(standing) = standing(connection, id).await? else {
            outcomes.push(unknown);
            continue;
        };
        // Invariant: of what happens to a contact after it left an instance, that instance learns nothing.
        if done_before(connection, &standing, &instance_uid, &transfer.request_id).await? {
            outcomes.push(AnswerOutcome::done(ContactState::Queued));
            continue;
        }
        if standing.instance_uid != instance_uid {
            outcomes.push(unknown);
            continue;
        }
        let custody = standing.custody();
        outcomes.push(match decide(&custody, request_id, now) {
            Ok(Effect::Change(state)) => {
                move_one(connection, id, &standing, &transfer, now).await?;
                AnswerOutcome::done(state)
            }
            Ok(Effect::Nothing(_) | Effect::Extend(_)) => AnswerOutcome::done(custody.state),
            Err(why) => AnswerOutcome::refused(why, custody.state),
        });
    }
    Ok(outcomes)
}

impl Standing {
    fn custody(&self) -> Custody {
        Custody {
            state: ContactState::try_from(self.state).unwrap_or(ContactState::Unspecified),
            request_id: self.request_id.clone().unwrap_or_default(),
            allocated_at: self.allocated_at,
            deadline_at: self.deadline_at,
            refusals: self.refusal_count,
        }
    }
}

async fn standing(connection: &mut SqliteConnection, id: &str) -> Result<Option<Standing>, sqlx::Error> {
    sqlx::query_as(
        "SELECT message, instance_uid, instance, queue_uid, queue, priority, state, request_id, allocated_at, deadline_at,
         refusal_count FROM contact WHERE id = ?",
    )
    .bind(id)
    .fetch_optional(connection)
    .await
}

async fn done_before(
    connection: &mut SqliteConnection,
    standing: &Standing,
    instance_uid: &str,
    request_id: &str,
) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM transfer WHERE message = ? AND request_id = ? AND from_instance_uid = ?)",
    )
    .bind(standing.message)
    .bind(request_id)
    .bind(instance_uid)
    .fetch_one(connection)
    .await
}

async fn move_one(
    connection: &mut SqliteConnection,
    id: &str,
    standing: &Standing,
    transfer: &Transfer,
    now: Micros,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO transfer (message, request_id, made_at, from_instance_uid, from_instance, from_queue_uid, from_queue,
         from_priority) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(standing.message)
    .bind(&transfer.request_id)
    .bind(now)
    .bind(&standing.instance_uid)
    .bind(&standing.instance)
    .bind(&standing.queue_uid)
    .bind(&standing.queue)
    .bind(standing.priority)
    .execute(&mut *connection)
    .await?;
    if standing.instance_uid != transfer.instance_uid {
        change::record_left(connection, standing.message, &standing.instance_uid).await?;
        join_thread(connection, id, standing.message, &transfer.instance_uid).await?;
    }
    sqlx::query(
        "UPDATE contact SET instance_uid = ?, instance = ?, queue_uid = ?, queue = ?, priority = ?, language = ?, state = 1,
         request_id = NULL, allocated_at = NULL, deadline_at = NULL, accepted_at = NULL, closed_at = NULL,
         refusal_count = 0 WHERE message = ?",
    )
    .bind(&transfer.instance_uid)
    .bind(&transfer.instance)
    .bind(&transfer.queue_uid)
    .bind(&transfer.queue)
    .bind(i64::from(transfer.priority))
    .bind(&transfer.language)
    .bind(standing.message)
    .execute(&mut *connection)
    .await?;
    change::record(connection, &[standing.message]).await
}

/// A thread is a matter of one instance: in another one the contact joins what is known there, or begins a thread.
async fn join_thread(
    connection: &mut SqliteConnection,
    id: &str,
    message: i64,
    instance_uid: &str,
) -> Result<(), sqlx::Error> {
    let bytes: Option<Vec<u8>> = sqlx::query_scalar("SELECT content FROM body WHERE message = ?")
        .bind(message)
        .fetch_optional(&mut *connection)
        .await?
        .flatten();
    let content = bytes.and_then(|bytes| ContactContent::decode(bytes.as_slice()).ok());
    let places = thread::places(connection, instance_uid, &[(id, content.as_ref())]).await?;
    sqlx::query("UPDATE contact SET thread = ? WHERE message = ?")
        .bind(places.into_iter().next().and_then(|place| place.thread))
        .bind(message)
        .execute(connection)
        .await?;
    Ok(())
}

//! Rows to values and back.

use postroom_proto::convert::to_timestamp;
use postroom_proto::v1::{self, ContactState};
use prost::Message as _;
use sqlx::sqlite::SqliteRow;
use sqlx::{FromRow, Row as _};

use super::super::{ContactPosition, Micros};
use crate::contact::allocation::Key;
use crate::contact::file_name::name_files;

/// Columns of [`ContactRow`] without the body, for a query over `contact`.
pub(super) const CONTACT: &str = "contact.message AS message, contact.id AS id, instance_uid, instance, queue_uid, queue, address, \
     mailbox_uid, state, priority, waiting_since, language, created_at, contact.size_bytes AS size_bytes, request_id, allocated_at, \
     deadline_at, accepted_at, refusal_count, kind, thread, closed_at, outcome";

/// SQLite has signed integers only. Revisions, sizes and counts stay far below the limit; what does not is held to it.
pub(super) fn int(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Back from [`int`].
pub(super) fn uint(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

#[derive(Debug)]
pub(super) struct ContactRow {
    pub(super) message: i64,
    pub(super) id: String,
    pub(super) instance_uid: String,
    instance: String,
    queue_uid: String,
    queue: String,
    address: String,
    mailbox_uid: String,
    pub(super) state: i32,
    pub(super) priority: u32,
    pub(super) waiting_since: Micros,
    language: String,
    created_at: Micros,
    size_bytes: i64,
    request_id: Option<String>,
    pub(super) allocated_at: Option<Micros>,
    deadline_at: Option<Micros>,
    accepted_at: Option<Micros>,
    refusal_count: u32,
    kind: i32,
    thread: Option<String>,
    closed_at: Option<Micros>,
    outcome: String,
    content: Option<Vec<u8>>,
    text: Option<Vec<u8>>,
}

impl FromRow<'_, SqliteRow> for ContactRow {
    fn from_row(row: &SqliteRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            message: row.try_get("message")?,
            id: row.try_get("id")?,
            instance_uid: row.try_get("instance_uid")?,
            instance: row.try_get("instance")?,
            queue_uid: row.try_get("queue_uid")?,
            queue: row.try_get("queue")?,
            address: row.try_get("address")?,
            mailbox_uid: row.try_get("mailbox_uid")?,
            state: row.try_get("state")?,
            priority: row.try_get("priority")?,
            waiting_since: row.try_get("waiting_since")?,
            language: row.try_get("language")?,
            created_at: row.try_get("created_at")?,
            size_bytes: row.try_get("size_bytes")?,
            request_id: row.try_get("request_id")?,
            allocated_at: row.try_get("allocated_at")?,
            deadline_at: row.try_get("deadline_at")?,
            accepted_at: row.try_get("accepted_at")?,
            refusal_count: row.try_get("refusal_count")?,
            kind: row.try_get("kind")?,
            thread: row.try_get("thread")?,
            closed_at: row.try_get("closed_at")?,
            outcome: row.try_get("outcome")?,
            content: row.try_get("content")?,
            text: row.try_get("text")?,
        })
    }
}

impl ContactRow {
    pub(super) fn position(&self) -> ContactPosition {
        ContactPosition {
            instance_uid: self.instance_uid.clone(),
            state: self.state,
            priority: self.priority,
            waiting_since: self.waiting_since,
            message: self.message,
        }
    }

    pub(super) fn key(&self) -> Key {
        Key { priority: self.priority, waiting_since: self.waiting_since, message: self.message }
    }

    /// The contact. An error: what it says was damaged in the database.
    pub(super) fn contact(self) -> Result<v1::Contact, sqlx::Error> {
        let handed_out = self.request_id.is_some();
        let closed_in = |state: ContactState| self.closed_at.filter(|_| self.state == state as i32).map(to_timestamp);
        let (ended_time, dead_time) = (closed_in(ContactState::Ended), closed_in(ContactState::Dead));
        let content = match self.content {
            None => None,
            Some(mut bytes) => {
                // Concatenated encodings are the encoding of the merged message.
                bytes.extend(self.text.unwrap_or_default());
                let decoded = v1::ContactContent::decode(bytes.as_slice());
                let mut content = decoded.map_err(|error| sqlx::Error::Decode(error.into()))?;
                name_files(&mut content.attachments);
                Some(content)
            }
        };
        Ok(v1::Contact {
            thread: self.thread.unwrap_or_else(|| self.id.clone()),
            id: self.id,
            instance: self.instance,
            queue: self.queue,
            queue_uid: self.queue_uid,
            address: self.address,
            mailbox: self.mailbox_uid,
            state: self.state,
            priority: self.priority,
            language: self.language,
            received_time: Some(to_timestamp(self.waiting_since)),
            created_time: Some(to_timestamp(self.created_at)),
            size_bytes: uint(self.size_bytes),
            content,
            allocation: handed_out.then(|| v1::Allocation {
                request_id: self.request_id.unwrap_or_default(),
                allocated_time: self.allocated_at.map(to_timestamp),
                deadline_time: self.deadline_at.map(to_timestamp),
                accepted_time: self.accepted_at.map(to_timestamp),
            }),
            refusal_count: self.refusal_count,
            kind: self.kind,
            ended_time,
            outcome: self.outcome,
            dead_time,
            ..Default::default()
        })
    }
}

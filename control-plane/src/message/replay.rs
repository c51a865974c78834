//! A message that is no contact becomes one after all.
//!
//! The worker that holds the mailbox reads it again, because only workers read messages: from the raw message where that
//! was kept in the ledger, else from the mailbox. What comes of it is committed here, behind the fence of that worker's
//! lease: had the mailbox changed hands meanwhile, nothing would be written.

use std::time::Duration;

use bytes::Bytes;
use postroom_proto::id::MailboxUid;
use postroom_proto::limits::LARGEST_MESSAGE_BYTES;
use postroom_proto::reason::{Failure, Reason};
use postroom_proto::v1::{self, Disposition, errand::Task, report_errand_request::Found};

use super::{Messages, is_contact};
use crate::definition;
use crate::errand::{Asked, Unfinished};
use crate::intake::Held;
use crate::ledger::Raw;
use crate::ledger::message::Replayed;

/// How long a worker may take to read a message again: it may be as large as any.
const READING: Duration = Duration::from_secs(120);

impl Messages {
    /// Makes a contact of a message, unless it is one; whether it was.
    pub async fn replay(&self, id: &str, by: &str) -> Result<v1::ReplayMessageResponse, Failure> {
        let message = self.original(id).await?;
        let id = message.id.as_str();
        if is_contact(&message) {
            return Ok(v1::ReplayMessageResponse { message: Some(message), already_contact: true });
        }
        // Whoever waits for the semaphore is bounded by the deadline of its call.
        let _room = self.replays.acquire().await.map_err(|_| closed())?;
        let uid = MailboxUid::parse(&message.mailbox).map_err(|error| internal(&error.to_string()))?;
        let model = self.model.borrow().clone();
        let definition = definition::resolve(&model, &self.vault, &uid)?;
        let held = self.intake.held(&uid).await?.ok_or_else(|| {
            let text = format!("nobody reads {} at the moment; see `postroom mailbox show`", definition.email);
            Failure::new(Reason::NoWorker, text)
        })?;
        let task = self.task(&uid, &message, &held).await?;
        let source_key = task.source_key.clone();
        let asked = self.errands.ask(definition.clone(), Task::Fetch(task), READING).await?;
        let read = read(asked, &held, &message, &source_key).await?;
        let replayed = self.intake.replay(&uid, &held, read, by).await?;
        if let Replayed::Made(contact) = &replayed {
            tracing::info!(message = id, mailbox = %uid, contact, by, "a message was replayed");
            // When that fails, the after-intake step is done when the mailbox is next opened.
            self.errands.recall(definition).await;
        }
        let already_contact = matches!(replayed, Replayed::Already(_));
        Ok(v1::ReplayMessageResponse { message: Some(self.get(id).await?), already_contact })
    }

    async fn task(&self, uid: &MailboxUid, message: &v1::Message, held: &Held) -> Result<v1::FetchTask, Failure> {
        let raw_message = match self.ledger.message_raw(super::row(&message.id)?).await? {
            Some(Raw::Inline(bytes)) => bytes,
            // Larger than what goes along with an errand: fetched anew.
            Some(Raw::Blob(_) | Raw::None) | None => Bytes::new(),
        };
        // Under the key that it has now.
        let source_key = match message.copies.last() {
            Some(copy) => self.get(copy).await?.source_key,
            None => message.source_key.clone(),
        };
        let cursor = self.ledger.cursor(uid).await?;
        Ok(v1::FetchTask {
            source_key,
            cursor: Some(v1::Cursor { protocol: cursor.protocol, value: cursor.value }),
            max_bytes: LARGEST_MESSAGE_BYTES,
            lease: Some(v1::MailboxLease { mailbox: message.mailbox.clone(), epoch: held.epoch.0 }),
            generation: held.generation.0,
            raw_message,
            received_time: message.received_time,
        })
    }
}

/// What the worker read under `source_key`, as the message that it is.
async fn read(
    mut asked: Asked,
    held: &Held,
    message: &v1::Message,
    source_key: &str,
) -> Result<v1::ReportedMessage, Failure> {
    if asked.doer().session != held.session {
        let text = "the mailbox changed hands in this moment; try again";
        return Err(Failure::new(Reason::LeaseLost, text));
    }
    let mut read = None;
    while let Some(found) = asked.next().await.map_err(|unfinished| unreadable(unfinished, message))? {
        if let Found::Message(message) = found {
            read = Some(message);
        }
    }
    let read = read.ok_or_else(|| internal("a worker that was to fetch a message brought none"))?;
    if read.source_key != source_key {
        return Err(internal("a worker fetched another message than the one it was to"));
    }
    if read.disposition() != Disposition::Contact {
        let text =
            format!("message {} was read again, and still no contact can be made of it: {}", message.id, read.reason);
        return Err(Failure::new(Reason::MessageUnreadable, text));
    }
    Ok(v1::ReportedMessage { source_key: message.source_key.clone(), ..read })
}

fn unreadable(unfinished: Unfinished, message: &v1::Message) -> Failure {
    let Unfinished::Problem(problem) = unfinished else { return unfinished.into() };
    let kept = if message.raw_kept { "; its raw form is kept: `postroom message raw`" } else { "" };
    let text = format!("message {}: {}; {}{kept}", message.id, problem.cause, problem.remedy);
    match problem.code.as_str() {
        "MESSAGE_GONE" => Failure::new(Reason::MessageGone, text),
        "MESSAGE_NOT_GIVEN" | "MESSAGE_OVER_LIMIT" => Failure::new(Reason::MessageUnreadable, text),
        _ => Unfinished::Problem(problem).into(),
    }
}

fn internal(text: &str) -> Failure {
    Failure::new(Reason::Internal, text)
}

fn closed() -> Failure {
    Failure::new(Reason::ShuttingDown, "the control plane is stopping; try again")
}

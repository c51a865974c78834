//! Fetches one message, or takes the one that was kept, and reads it as it would be reported. The control plane commits
//! what comes of it.

use std::time::Duration;

use bytes::Bytes;
use postroom_proto::convert::from_timestamp;
use postroom_proto::v1::report_errand_request::Found;
use postroom_proto::v1::{BlobHeader, Disposition, FetchTask, MailboxDefinition, ReportedMessage};

use tokio::sync::OwnedSemaphorePermit;

use super::{Findings, Undone};
use crate::diagnosis::{self, Diagnosis};
use crate::mailbox::batch;
use crate::mailbox::cursor::{Cursor, Numbering, split};
use crate::mailbox::imap::fetch::{Summary, bodies, set, summaries_of};
use crate::mailbox::imap::guard::Limits;
use crate::mailbox::session::{self, Shared};
use crate::report;

/// How often an upload is tried; the errand's own deadline may end it earlier.
const UPLOADS: u32 = 5;
/// Pause between two tries.
const PAUSE: Duration = Duration::from_millis(500);

/// Tells of the message, its body uploaded before when it is large.
pub(super) async fn fetch(
    shared: &Shared,
    definition: &MailboxDefinition,
    task: FetchTask,
    findings: &mut Findings,
) -> Result<(), Undone> {
    let (numbering, uid) = split(&task.source_key).ok_or_else(|| diagnosis::defect("a source key that is none"))?;
    let kept = kept(&task, numbering, uid).await?;
    let ((message, blobs), _room) = match kept {
        Some(read) => (read, None),
        None => {
            let (summary, raw, room) = from_folder(shared, definition, &task, numbering, uid).await?;
            (read(numbering, summary, raw).await?.ok_or_else(diagnosis::message_not_given)?, room)
        }
    };
    for (digest, body) in blobs {
        upload(shared, &task, digest, body).await?;
    }
    findings.tell(Found::Message(message)).await
}

/// What a message is read as, and the bodies to upload before.
type Read = (ReportedMessage, Vec<(String, Bytes)>);

/// A contact, made of the raw message that was kept. `None`: none was, or it is what could not be understood then and
/// cannot now, for example a placeholder; the mailbox may have better.
async fn kept(task: &FetchTask, numbering: Numbering, uid: u32) -> Result<Option<Read>, Diagnosis> {
    if task.raw_message.is_empty() {
        return Ok(None);
    }
    let received = task.received_time.as_ref().map(from_timestamp);
    let summary = Summary { uid, seen: false, received, size: task.raw_message.len() as u64 };
    let read = read(numbering, summary, task.raw_message.clone()).await?;
    Ok(read.filter(|(message, _)| message.disposition() == Disposition::Contact))
}

/// Reads a message as a report would. Away from the mailboxes of this thread: it may be as large as any.
async fn read(numbering: Numbering, summary: Summary, raw: Bytes) -> Result<Option<Read>, Diagnosis> {
    let read = tokio::task::spawn_blocking(move || batch::single(numbering, summary, raw)).await;
    read.map_err(|_| diagnosis::defect("the reading of a message panicked"))
}

/// The message as it is in the folder now, and its part of what mailboxes may have in memory.
async fn from_folder(
    shared: &Shared,
    definition: &MailboxDefinition,
    task: &FetchTask,
    numbering: Numbering,
    uid: u32,
) -> Result<(Summary, Bytes, Option<OwnedSemaphorePermit>), Diagnosis> {
    let mut folder = session::connect(shared, definition, Limits::for_messages(task.max_bytes)).await?;
    let cursor =
        Cursor::decode(task.cursor.as_ref()).map_err(|error| diagnosis::cursor_unreadable(&error.to_string()))?;
    // By the cursor: an older state of the folder may have been put back below its UIDVALIDITY.
    let former = cursor.is_some_and(|cursor| cursor.numbering != numbering);
    if former || folder.selected.uid_validity != numbering.validity {
        return Err(diagnosis::message_renumbered(numbering.validity, folder.selected.uid_validity));
    }
    let found = summaries_of(&mut folder.commands, &set(&[uid]), 0).await.map_err(session::broken)?;
    let Some(summary) = found.into_iter().find(|summary| summary.uid == uid) else {
        session::leave(folder).await;
        return Err(diagnosis::message_gone());
    };
    // It is there twice for a while: as it came, and as it is sent.
    let room = shared.budget.take(summary.size.saturating_mul(2)).await;
    let mut got = bodies(&mut folder.commands, &[uid]).await.map_err(session::broken)?;
    session::leave(folder).await;
    if let Some((_, size)) = got.oversized.first() {
        return Err(diagnosis::message_over_limit(*size, task.max_bytes));
    }
    let (_, raw) = got.got.pop().ok_or_else(diagnosis::message_not_given)?;
    Ok((summary, raw, room))
}

async fn upload(shared: &Shared, task: &FetchTask, digest: String, body: Bytes) -> Result<(), Diagnosis> {
    let lease = task.lease.clone().unwrap_or_default();
    let header = BlobHeader {
        mailbox: lease.mailbox,
        epoch: lease.epoch,
        generation: task.generation,
        digest,
        size_bytes: body.len() as u64,
        ..BlobHeader::default()
    };
    let mut tries = 1;
    loop {
        match shared.reporter.upload(header.clone(), body.clone()).await {
            Ok(()) => return Ok(()),
            Err(report::Error::Unavailable { .. }) if tries < UPLOADS => tries += 1,
            Err(error) => return Err(diagnosis::control_plane(&error.to_string())),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

//! Fetches one message, or takes the one that was kept, and reads it as it would be reported. The control plane commits
//! what comes of it.

use std::time::Duration;

use bytes::Bytes;
use postroom_proto::convert::from_timestamp;
use postroom_proto::v1::report_errand_request::Found;
use postroom_proto::v1::{BlobHeader, FetchTask, MailboxDefinition};

use super::{Findings, Undone};
use crate::diagnosis::{self, Diagnosis};
use crate::mailbox::batch;
use crate::mailbox::cursor::split;
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
    let (validity, uid) = split(&task.source_key).ok_or_else(|| diagnosis::defect("a source key that is none"))?;
    let (summary, raw, _room) = if task.raw_message.is_empty() {
        let room = shared.budget.clone();
        let found = from_folder(shared, definition, &task, validity, uid).await?;
        (found.0, found.1, room.take(found.0.size.saturating_mul(2)).await)
    } else {
        let received = task.received_time.as_ref().map(from_timestamp);
        let summary = Summary { uid, seen: false, received, size: task.raw_message.len() as u64 };
        (summary, task.raw_message.clone(), None)
    };
    let read = tokio::task::spawn_blocking(move || batch::single(validity, summary, raw)).await;
    let read = read.map_err(|_| diagnosis::defect("the reading of a message panicked"))?;
    let (message, blobs) = read.ok_or_else(diagnosis::message_not_given)?;
    for (digest, body) in blobs {
        upload(shared, &task, digest, body).await?;
    }
    findings.tell(Found::Message(message)).await
}

/// The message as it is in the folder now.
async fn from_folder(
    shared: &Shared,
    definition: &MailboxDefinition,
    task: &FetchTask,
    validity: u32,
    uid: u32,
) -> Result<(Summary, Bytes), Diagnosis> {
    let mut folder = session::connect(shared, definition, Limits::for_messages(task.max_bytes)).await?;
    if folder.selected.uid_validity != validity {
        return Err(diagnosis::message_renumbered(validity, folder.selected.uid_validity));
    }
    let found = summaries_of(&mut folder.commands, &set(&[uid]), 0).await.map_err(session::broken)?;
    let Some(summary) = found.into_iter().find(|summary| summary.uid == uid) else {
        session::leave(folder).await;
        return Err(diagnosis::message_gone());
    };
    let mut got = bodies(&mut folder.commands, &[uid]).await.map_err(session::broken)?;
    session::leave(folder).await;
    if let Some((_, size)) = got.oversized.first() {
        return Err(diagnosis::message_over_limit(*size, task.max_bytes));
    }
    let (_, raw) = got.got.pop().ok_or_else(diagnosis::message_not_given)?;
    Ok((summary, raw))
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

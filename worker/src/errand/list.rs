//! Lists a folder, over a connection of its own, beside what reads it.
//!
//! Window by window: what is in memory is one window, however large the folder is.

use postroom_proto::convert::to_timestamp;
use postroom_proto::v1::report_errand_request::Found;
use postroom_proto::v1::{FolderMessage, FolderPart, ListTask, MailboxDefinition};

use super::{Findings, Undone};
use crate::diagnosis;
use crate::mailbox::cursor::{Cursor, Numbering, Place, source_key};
use crate::mailbox::imap::fetch::{Summary, summaries, summaries_of};
use crate::mailbox::imap::guard::Limits;
use crate::mailbox::session::{self, Shared};

/// Most messages of a part.
const PART: usize = 1000;
/// First width of a window, in UIDs, and the widest.
const WINDOW: u32 = 2000;
const MAX_WINDOW: u32 = 1 << 16;

/// Tells of every message that is in the folder now. Those that come meanwhile are not told.
pub(super) async fn list(
    shared: &Shared,
    definition: &MailboxDefinition,
    task: ListTask,
    findings: &mut Findings,
) -> Result<(), Undone> {
    let cursor = Cursor::decode(task.cursor.as_ref()).map_err(|error| diagnosis::defect(&error.to_string()))?;
    let limits = Limits::for_messages(definition.max_message_bytes);
    let mut folder = session::connect(shared, definition, limits).await?;
    let validity = folder.selected.uid_validity;
    // While it is re-keyed, what the ledger has stands there under former keys.
    let renumbered =
        cursor.as_ref().is_some_and(|cursor| cursor.numbering.validity != validity || cursor.rekeys_up_to().is_some());
    let numbering = cursor.as_ref().map_or(validity.into(), |cursor| cursor.numbering);
    findings.tell(Found::Part(FolderPart { messages: Vec::new(), renumbered })).await?;
    let last = match folder.selected.uid_next {
        Some(next) => next.saturating_sub(1),
        None => {
            let last = summaries_of(&mut folder.commands, "*", 0).await.map_err(session::broken)?;
            last.last().map_or(0, |last| last.uid)
        }
    };
    let (mut from, mut width) = (1u32, WINDOW);
    while !renumbered && from <= last {
        let to = from.saturating_add(width - 1).min(last);
        let found = summaries(&mut folder.commands, from, Some(to)).await.map_err(session::broken)?;
        width = if found.len() < width as usize / 10 { (width * 4).min(MAX_WINDOW) } else { WINDOW };
        for part in found.chunks(PART) {
            let messages = part.iter().map(|summary| describe(cursor.as_ref(), numbering, summary)).collect();
            findings.tell(Found::Part(FolderPart { messages, renumbered: false })).await?;
        }
        let Some(next) = to.checked_add(1) else { break };
        from = next;
    }
    session::leave(folder).await;
    Ok(())
}

fn describe(cursor: Option<&Cursor>, numbering: Numbering, summary: &Summary) -> FolderMessage {
    let place = match cursor {
        Some(cursor) => cursor.place(summary.uid, summary.seen, summary.received),
        // Nothing was read yet: what the start policy takes is decided when it is.
        None => Place::Pending,
    };
    FolderMessage {
        source_key: source_key(numbering, summary.uid),
        seen: summary.seen,
        received_time: summary.received.map(to_timestamp),
        size_bytes: summary.size,
        before_start: matches!(place, Place::BeforeStart { .. }),
        pending: place == Place::Pending,
        unread_since: matches!(place, Place::BeforeStart { doubtful: true }),
    }
}

//! Where reading begins: at the committed cursor, or at the first one, which is committed before anything is read.

use postroom_proto::v1::{self, MailboxDefinition};

use super::{Mail, Trouble};
use crate::diagnosis;
use crate::mailbox::commit::Committer;
use crate::mailbox::cursor::{Cursor, Start};
use crate::mailbox::imap::fetch::summaries_of;

/// The committed cursor, or the first one, committed now: it anchors what "new" means.
pub(super) async fn first_cursor(
    folder: &mut Mail,
    definition: &MailboxDefinition,
    committer: &mut Committer,
) -> Result<Cursor, Trouble> {
    if let Some(cursor) = decode(committer.committed())? {
        return Ok(cursor);
    }
    let uid_next = match folder.selected.uid_next {
        Some(uid_next) => uid_next,
        // The server does not say (RFC 3501 section 6.3.1 lets it): the last message tells.
        None => {
            let last = summaries_of(&mut folder.commands, "*", 0).await?;
            last.last().map_or(1, |last| last.uid.saturating_add(1))
        }
    };
    let start = Start::of(definition.start.as_ref());
    let cursor = Cursor::first(folder.selected.uid_validity, uid_next, start);
    committer.flush(&cursor).await?;
    Ok(cursor)
}

/// A cursor of the ledger. `None`: the mailbox was never read.
pub(super) fn decode(cursor: &v1::Cursor) -> Result<Option<Cursor>, Trouble> {
    Cursor::decode(Some(cursor)).map_err(|error| diagnosis::cursor_unreadable(&error.to_string()).into())
}

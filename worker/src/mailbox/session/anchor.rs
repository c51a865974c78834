//! Where reading begins: at the committed cursor, or at the first one, which is committed before anything is read.

use postroom_proto::v1::{self, MailboxDefinition};

use super::{Mail, Trouble};
use crate::diagnosis;
use crate::mailbox::backlog::Release;
use crate::mailbox::commit::Committer;
use crate::mailbox::cursor::{Cursor, Start};
use crate::mailbox::imap::fetch::summaries_of;
use crate::mailbox::standing::Activity;
use crate::mailbox::status::now;

/// The committed cursor, or the first one, committed now: it anchors what "new" means.
pub(super) async fn first_cursor(
    folder: &mut Mail,
    definition: &MailboxDefinition,
    committer: &mut Committer,
) -> Result<Cursor, Trouble> {
    if let Some(cursor) = decode(committer.committed())? {
        return Ok(cursor);
    }
    let anchoring = committer.stands().moving(Activity::Anchoring, folder.commands.moves());
    let uid_next = uid_next(folder).await?;
    let start = Start::of(definition.start.as_ref());
    let lease = committer.lease().clone();
    let counting = super::backlog::count(folder, definition, uid_next.saturating_sub(1));
    let waiting = tokio::select! {
        biased;
        () = lease.ending() => return Err(Trouble::Called),
        waiting = counting => waiting?,
    };
    let validity = folder.selected.uid_validity;
    let cursor = match waiting {
        None => Cursor::first(validity, uid_next, start),
        Some(count) => {
            tracing::warn!(
                mailbox = definition.mailbox,
                email = definition.email,
                count,
                "old messages wait for an operator"
            );
            Cursor::holding(validity, uid_next, start, count)
        }
    };
    drop(anchoring);
    committer.flush(&cursor).await?;
    Ok(cursor)
}

/// UIDNEXT of the folder.
async fn uid_next(folder: &mut Mail) -> Result<u32, Trouble> {
    if let Some(uid_next) = folder.selected.uid_next {
        return Ok(uid_next);
    }
    // The server does not say (RFC 3501 section 6.3.1 lets it): the last message tells.
    let last = summaries_of(&mut folder.commands, "*", 0).await?;
    Ok(last.last().map_or(1, |last| last.uid.saturating_add(1)))
}

/// The same cursor while the folder is numbered as it was; else the one with which its re-keying begins, committed now.
/// `release`: how an operator has released old messages, if some wait.
pub(super) async fn present_cursor(
    folder: &mut Mail,
    cursor: Cursor,
    release: Option<&Release>,
    committer: &mut Committer,
) -> Result<Cursor, Trouble> {
    let anchoring = committer.stands().moving(Activity::Anchoring, folder.commands.moves());
    let validity = folder.selected.uid_validity;
    if cursor.numbering.validity == validity && !went_back(folder, &cursor).await? {
        return Ok(cursor);
    }
    if cursor.waiting().is_some() && !release.is_some_and(Release::is_at_once) {
        // Which of the messages were to wait cannot be told by their new UIDs, and nobody is to be flooded with them.
        return Err(diagnosis::renumbered_while_old_messages_wait(cursor.numbering.validity, validity).into());
    }
    // An older control plane knows of no re-keying.
    let since = committer.reading_since();
    let since = since.ok_or_else(|| diagnosis::uid_validity(cursor.numbering.validity, validity))?;
    let present = cursor.renumber(validity, uid_next(folder).await?, since, release.and_then(Release::since), now());
    drop(anchoring);
    committer.forget_unsettled();
    committer.flush(&present).await?;
    Ok(present)
}

/// True when an older state of the folder was put back below its UIDVALIDITY: it gives out UIDs again that it has given out
/// already. What its UIDNEXT says counts only when the messages bear it out.
async fn went_back(folder: &mut Mail, cursor: &Cursor) -> Result<bool, Trouble> {
    let Some(next) = folder.selected.uid_next.filter(|next| *next <= cursor.reach()) else { return Ok(false) };
    Ok(summaries_of(&mut folder.commands, &format!("{next}:*"), next).await?.is_empty())
}

/// A cursor of the ledger. `None`: the mailbox was never read.
pub(super) fn decode(cursor: &v1::Cursor) -> Result<Option<Cursor>, Trouble> {
    Cursor::decode(Some(cursor)).map_err(|error| diagnosis::cursor_unreadable(&error.to_string()).into())
}

//! Marks, moves or deletes in the mailbox what is safely in the ledger.

use std::fmt;
use std::time::Duration;

use super::command::{Error, Stream};
use super::connection::{Folder, quote};
use super::fetch::{Summary, set, summaries_of};
use crate::diagnosis::imap;

/// What to do with a message after intake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AfterIntake {
    /// Set `\Seen`.
    Seen,
    /// Move it to this folder.
    Move(String),
    /// Nothing.
    Leave,
    /// Set `\Seen`, and delete it this long after its intake.
    Delete(Duration),
}

/// Does it for `uids`, ascending. Messages that are gone are no error. When it fails, some may be done. Doing it again
/// does no harm, with one exception: on a server without MOVE (RFC 6851), when the connection breaks between COPY and the
/// end of EXPUNGE, a second time copies again, and the target folder has those messages twice. None is lost.
pub async fn settle<S: Stream + fmt::Debug>(
    folder: &mut Folder<S>,
    uids: &[u32],
    after: &AfterIntake,
) -> Result<(), Error> {
    for uids in uids.chunks(500) {
        let set = set(uids);
        match after {
            AfterIntake::Leave => {}
            AfterIntake::Seen | AfterIntake::Delete(_) => {
                folder.commands.run(&format!("UID STORE {set} +FLAGS.SILENT (\\Seen)"), |_| {}).await?
            }
            AfterIntake::Move(target) => move_to(folder, &set, target).await?,
        }
    }
    Ok(())
}

/// Deletes those of `uids`, ascending, that the server received before `before`, in microseconds since 1970, and returns the
/// others that are there. Messages that are gone are no error. When it fails, some may be done; doing it again does no harm.
///
/// A server that cannot expunge single messages (RFC 4315) keeps them, marked as deleted: a plain EXPUNGE would also remove
/// what others have marked.
pub async fn delete<S: Stream + fmt::Debug>(
    folder: &mut Folder<S>,
    uids: &[u32],
    before: i64,
) -> Result<Vec<u32>, Error> {
    let mut kept = Vec::new();
    for uids in uids.chunks(500) {
        // Invariant: what is deleted is at least as old as what was taken in. A server that gives a UID out twice without a
        // word gives it to a younger message, which nobody has.
        let mut there = summaries_of(&mut folder.commands, &set(uids), 0).await?;
        there.retain(|summary| uids.contains(&summary.uid));
        let old = |summary: &Summary| summary.received.is_some_and(|received| received < before);
        kept.extend(there.iter().filter(|summary| !old(summary)).map(|summary| summary.uid));
        there.retain(old);
        if there.is_empty() {
            continue;
        }
        let set = set(&there.iter().map(|summary| summary.uid).collect::<Vec<_>>());
        folder.commands.run(&format!("UID STORE {set} +FLAGS.SILENT (\\Deleted)"), |_| {}).await?;
        if can_expunge(folder) {
            folder.commands.run(&format!("UID EXPUNGE {set}"), |_| {}).await?;
        }
    }
    Ok(kept)
}

/// True when the server can remove single messages.
pub fn can_expunge<S: Stream + fmt::Debug>(folder: &Folder<S>) -> bool {
    folder.can("UIDPLUS")
}

/// Moves into the folder `target`, which is created when it is not there yet.
async fn move_to<S: Stream + fmt::Debug>(folder: &mut Folder<S>, set: &str, target: &str) -> Result<(), Error> {
    let target = quote(target);
    let refused = match transfer(folder, set, &target).await {
        Err(Error::Refused { command, text, bad: false }) if imap::passing(&text).is_none() => (command, text),
        done => return done,
    };
    // RFC 3501 section 6.4.7 wants TRYCREATE in a refusal for want of the folder, which not every server says. Creating a
    // folder that is there is refused and changes nothing.
    match folder.commands.run(&format!("CREATE {target}"), |_| {}).await {
        Ok(()) => transfer(folder, set, &target).await,
        // Why it could not be moved tells more than that there is nothing to create.
        Err(Error::Refused { .. }) => Err(Error::Refused { command: refused.0, text: refused.1, bad: false }),
        Err(error) => Err(error),
    }
}

async fn transfer<S: Stream + fmt::Debug>(folder: &mut Folder<S>, set: &str, target: &str) -> Result<(), Error> {
    if folder.can("MOVE") {
        return folder.commands.run(&format!("UID MOVE {set} {target}"), |_| {}).await;
    }
    if !can_expunge(folder) {
        // A plain EXPUNGE would also remove what others have marked as deleted.
        let text = "the server can neither MOVE nor expunge single messages (UIDPLUS)".to_owned();
        return Err(Error::Refused { command: "UID MOVE", text, bad: false });
    }
    // Ordering: marked as deleted only after the copy is there.
    folder.commands.run(&format!("UID COPY {set} {target}"), |_| {}).await?;
    folder.commands.run(&format!("UID STORE {set} +FLAGS.SILENT (\\Deleted)"), |_| {}).await?;
    folder.commands.run(&format!("UID EXPUNGE {set}"), |_| {}).await
}

//! Marks or moves in the mailbox what is safely in the ledger.

use std::fmt;

use super::command::{Error, Stream};
use super::connection::{Folder, quote};
use super::fetch::set;
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
            AfterIntake::Seen => {
                folder.commands.run(&format!("UID STORE {set} +FLAGS.SILENT (\\Seen)"), |_| {}).await?
            }
            AfterIntake::Move(target) => move_to(folder, &set, target).await?,
        }
    }
    Ok(())
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
    if !folder.can("UIDPLUS") {
        // A plain EXPUNGE would also remove what others have marked as deleted.
        let text = "the server can neither MOVE nor expunge single messages (UIDPLUS)".to_owned();
        return Err(Error::Refused { command: "UID MOVE", text, bad: false });
    }
    // Ordering: marked as deleted only after the copy is there.
    folder.commands.run(&format!("UID COPY {set} {target}"), |_| {}).await?;
    folder.commands.run(&format!("UID STORE {set} +FLAGS.SILENT (\\Deleted)"), |_| {}).await?;
    folder.commands.run(&format!("UID EXPUNGE {set}"), |_| {}).await
}

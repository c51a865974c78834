//! Whether a mailbox that is read for the first time has to wait for an operator, and what was decided meanwhile.

use std::time::Duration;

use postroom_proto::v1::{self, MailboxDefinition, MailboxState};
use tokio::time::Instant;

use super::{Mail, Session, Trouble};
use crate::diagnosis::imap;
use crate::mailbox::backlog::Release;
use crate::mailbox::catch_up::CaughtUp;
use crate::mailbox::cursor::Start;
use crate::mailbox::imap::command::Error;
use crate::mailbox::imap::search::{self, Sought};
use crate::mailbox::standing::Activity;

/// How many messages the start policy takes of a folder that was never read, when they are more than the guard of the
/// queue allows. `None`: they are not. `last`: the last UID that is there.
pub(super) async fn count(
    folder: &mut Mail,
    definition: &MailboxDefinition,
    last: u32,
) -> Result<Option<u64>, Trouble> {
    let Some(guard) = definition.backlog_guard.map(u64::from) else { return Ok(None) };
    let there = u64::from(folder.selected.exists);
    if there <= guard {
        return Ok(None);
    }
    let sought = match Start::of(definition.start.as_ref()) {
        Start::New => return Ok(None),
        Start::All => return Ok(Some(there)),
        Start::Unseen => Sought::Unseen,
        Start::Since(since) => Sought::Since(since),
    };
    let count = match search::count(&mut folder.commands, sought, last, there).await {
        Ok(count) => count,
        // A server that does not search is no reason not to read: new mail is, and whoever decides knows how many at most.
        Err(Error::Refused { text, .. }) if imap::passing(&text).is_none() => there,
        Err(error) => return Err(error.into()),
    };
    Ok(Some(count).filter(|count| *count > guard))
}

impl Session {
    /// Tells where a mailbox stands of which everything new is read.
    pub(super) fn tell_caught_up(&mut self, caught_up: &CaughtUp) {
        self.teller.works(match (caught_up.waits, self.release) {
            (false, _) => MailboxState::Idle,
            (true, None) => MailboxState::Backlog,
            (true, Some(_)) => MailboxState::CatchingUp,
        });
    }

    /// Asks what was decided about the messages that wait, when it was not asked for `pause`: that this session is called when
    /// somebody decides is not sure.
    pub(super) async fn ask_about_backlog(&mut self, pause: Duration) {
        if self.asked.elapsed() < pause {
            return;
        }
        self.asked = Instant::now();
        let _asking = self.standing.at(Activity::Asking);
        let lease = v1::MailboxLease { mailbox: self.mailbox.to_string(), epoch: self.epoch.0 };
        match self.shared.reporter.open(lease).await {
            Ok(opened) => {
                let decided = Release::of(opened.backlog_release.as_ref(), self.asked);
                self.release = decided.map(|release| release.or_going_on(self.release));
            }
            Err(error) => tracing::debug!(mailbox = %self.mailbox, %error, "what was decided is asked for later"),
        }
    }
}

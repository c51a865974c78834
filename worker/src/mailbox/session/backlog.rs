//! Whether a mailbox that is read for the first time has to wait for an operator, and what was decided meanwhile.

use postroom_proto::v1::{self, MailboxDefinition, MailboxState};
use tokio::time::Instant;

use super::{Mail, Session, Trouble};
use crate::mailbox::backlog::Release;
use crate::mailbox::catch_up::CaughtUp;
use crate::mailbox::cursor::Start;
use crate::mailbox::imap::search::{self, Sought};

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
    let count = match Start::of(definition.start.as_ref()) {
        Start::New => 0,
        Start::All => there,
        Start::Unseen => search::count(&mut folder.commands, Sought::Unseen, last, there).await?,
        Start::Since(since) => search::count(&mut folder.commands, Sought::Since(since), last, there).await?,
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

    /// Asks what was decided about the messages that wait: that this session is called when somebody decides is not sure.
    pub(super) async fn ask_about_backlog(&mut self) {
        let lease = v1::MailboxLease { mailbox: self.mailbox.to_string(), epoch: self.epoch.0 };
        match self.shared.reporter.open(lease).await {
            Ok(opened) => self.release = Release::of(opened.backlog_release.as_ref(), Instant::now()),
            Err(error) => tracing::debug!(mailbox = %self.mailbox, %error, "what was decided is asked for later"),
        }
    }
}

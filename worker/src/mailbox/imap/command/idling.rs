//! An IDLE (RFC 2177) in progress.

use std::fmt;
use std::time::Duration;

use super::answer::{Answer, Ended, Untagged};
use super::watched::watched;
use super::{Commands, Error, STEPS_OF_A_FEW_LINES, Stream};

/// An IDLE in progress. Dropped before [`Idling::end`], it leaves the session poisoned.
#[derive(Debug)]
pub struct Idling<'c, S: Stream + fmt::Debug> {
    pub(super) commands: &'c mut Commands<S>,
    pub(super) tag: String,
}

impl<S: Stream + fmt::Debug> Idling<'_, S> {
    /// Waits for the next untagged response, without limit: the caller has its own. Safe to drop and call again.
    pub async fn next(&mut self) -> Result<Untagged, Error> {
        loop {
            match self.commands.next_within(Duration::MAX).await? {
                Answer::Untagged(untagged) => return Ok(untagged),
                Answer::Bye(text) => return Err(Error::Bye { text }),
                Answer::Done { tag, .. } if tag != self.tag => {}
                // The server ended it by itself, which only a refusal may do.
                Answer::Done { text, status, .. } => {
                    self.commands.busy = false;
                    return Err(Error::Refused { command: "IDLE", text, bad: status == Ended::Bad });
                }
            }
        }
    }

    /// True when no message is left in the folder, by what the server told so far.
    pub fn is_empty(&self) -> bool {
        self.commands.exists == 0
    }

    /// Ends IDLE and waits for its tagged OK.
    pub async fn end(self, each: impl FnMut(Untagged)) -> Result<(), Error> {
        let most = self.commands.step * STEPS_OF_A_FEW_LINES;
        tokio::time::timeout(most, self.end_watched(each)).await.unwrap_or(Err(Error::TimedOut))
    }

    async fn end_watched(self, mut each: impl FnMut(Untagged)) -> Result<(), Error> {
        let commands = self.commands;
        let sent = async { Ok(commands.session.run_command_untagged("DONE").await) };
        watched(&commands.progress, commands.step, sent).await?.map_err(|_| Error::Lost { remark: None })?;
        loop {
            match commands.next().await? {
                Answer::Untagged(untagged) => each(untagged),
                Answer::Bye(text) => return Err(Error::Bye { text }),
                Answer::Done { tag, .. } if tag != self.tag => {}
                Answer::Done { status: Ended::Ok, .. } => {
                    commands.busy = false;
                    return Ok(());
                }
                Answer::Done { text, status, .. } => {
                    commands.busy = false;
                    return Err(Error::Refused { command: "IDLE", text, bad: status == Ended::Bad });
                }
            }
        }
    }
}

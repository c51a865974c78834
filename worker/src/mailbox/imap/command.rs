//! Runs one command until its own tagged OK. Everything else is an error that says what the server said.
//!
//! Only `authenticate`, `login`, `run_command`, `run_command_untagged` and `read_response` of async-imap are used: its other
//! methods turn a tagged NO, BAD or a cut connection into a short but successful answer.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_imap::Session;
use tokio::io::{AsyncRead, AsyncWrite};

use self::answer::{Answer, Ended, receive};
pub use self::answer::{Fetched, Untagged};
pub use self::greeting::{Greeted, greet};
pub use self::idling::Idling;
use self::watched::{io_error, lost, watched};
use super::guard::{Guard, Notes, Violation};
use crate::diagnosis::imap::response_code;

mod answer;
mod greeting;
mod idling;
mod watched;

/// However much a server sends meanwhile: a command that is not answered in this time never will be.
const LONGEST_COMMAND: Duration = Duration::from_secs(3600);

/// A few lines each way, like a sign-in or the begin and end of IDLE, take this many steps at most, whatever comes meanwhile.
pub(super) const STEPS_OF_A_FEW_LINES: u32 = 4;

/// A byte stream to a server.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// Why a command did not end well.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server refused the command.
    #[error("{command} was refused: {text}")]
    Refused {
        /// First word of the command.
        command: &'static str,
        /// What the server said behind NO or BAD.
        text: String,
        /// True for BAD: the server did not understand, or would not.
        bad: bool,
    },
    /// The server ended the session with a BYE.
    #[error("the server said goodbye: {text}")]
    Bye {
        /// What it said.
        text: String,
    },
    /// The connection ended without a BYE.
    #[error("the connection was lost")]
    Lost {
        /// Last refusal or noise before the end.
        remark: Option<String>,
    },
    /// Nothing came for the time of one step.
    #[error("no answer in time")]
    TimedOut,
    /// The server sent more than is allowed.
    #[error(transparent)]
    Violation(#[from] Violation),
    /// The server sent what the parser cannot read.
    #[error("an answer could not be read")]
    Malformed,
    /// An earlier command was given up half way: its answers could be taken for this one's.
    #[error("the session was left in the middle of a command")]
    Poisoned,
}

impl Error {
    /// Response code of a refusal or BYE, upper case.
    pub fn code(&self) -> Option<String> {
        match self {
            Self::Refused { text, .. } | Self::Bye { text } => response_code(text),
            _ => None,
        }
    }

    /// True when the answer itself is at fault, so that asking for less may find the message that causes it.
    pub fn is_answer(&self) -> bool {
        matches!(self, Self::Violation(_) | Self::Malformed)
    }
}

/// A signed-in session.
pub struct Commands<S: Stream + fmt::Debug> {
    session: Session<Guard<S>>,
    progress: Arc<AtomicU64>,
    moves: Arc<AtomicU64>,
    step: Duration,
    /// Invariant: true from the first byte of a command to its tagged end, so that a command whose future was dropped
    /// leaves it true.
    busy: bool,
    /// Messages in the folder, by what the server told so far.
    exists: u32,
    news: bool,
}

impl<S: Stream + fmt::Debug> fmt::Debug for Commands<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Commands").field("busy", &self.busy).finish_non_exhaustive()
    }
}

impl<S: Stream + fmt::Debug> Commands<S> {
    /// Runs `line` until its tagged OK. Every untagged response that comes meanwhile goes to `each`.
    pub async fn run(&mut self, line: &str, each: impl FnMut(Untagged)) -> Result<(), Error> {
        let run = self.run_watched(line, each);
        tokio::time::timeout(LONGEST_COMMAND, run).await.unwrap_or(Err(Error::TimedOut))
    }

    async fn run_watched(&mut self, line: &str, mut each: impl FnMut(Untagged)) -> Result<(), Error> {
        let tag = self.begin(line).await?;
        let command = name(line);
        loop {
            match self.next().await? {
                Answer::Untagged(untagged) => each(untagged),
                Answer::Bye(text) => return Err(Error::Bye { text }),
                Answer::Done { tag: other, .. } if other != tag => {}
                Answer::Done { status, text, .. } => {
                    self.busy = false;
                    return match status {
                        Ended::Ok => Ok(()),
                        ended => Err(Error::Refused { command, text, bad: ended == Ended::Bad }),
                    };
                }
            }
        }
    }

    /// Begins IDLE (RFC 2177) and returns when the server waits. Untagged data may come before that.
    pub async fn begin_idle(&mut self, each: impl FnMut(Untagged)) -> Result<Idling<'_, S>, Error> {
        let most = self.step * STEPS_OF_A_FEW_LINES;
        let tag = tokio::time::timeout(most, self.begin_idle_watched(each)).await.unwrap_or(Err(Error::TimedOut))?;
        Ok(Idling { commands: self, tag })
    }

    async fn begin_idle_watched(&mut self, mut each: impl FnMut(Untagged)) -> Result<String, Error> {
        let tag = self.begin("IDLE").await?;
        loop {
            match self.next().await? {
                Answer::Untagged(Untagged::Continue) => return Ok(tag),
                Answer::Untagged(untagged) => each(untagged),
                Answer::Bye(text) => return Err(Error::Bye { text }),
                Answer::Done { tag: other, .. } if other != tag => {}
                // An OK without a continuation is no IDLE either.
                Answer::Done { status, text, .. } => {
                    self.busy = false;
                    return Err(Error::Refused { command: "IDLE", text, bad: status == Ended::Bad });
                }
            }
        }
    }

    /// True once after the server told of a message, in whatever answer, since the last call.
    ///
    /// A server tells of a message once: what it said in the answer to another command it does not repeat in IDLE.
    pub fn take_news(&mut self) -> bool {
        std::mem::take(&mut self.news)
    }

    /// Counts what moves: bytes of messages, data that were asked for, and ends of commands. A server that only says that it is
    /// still there moves nothing.
    pub fn moves(&self) -> Arc<AtomicU64> {
        self.moves.clone()
    }

    /// What the guard noticed.
    pub fn notes(&mut self) -> &mut Notes {
        self.session.get_mut().notes()
    }

    async fn begin(&mut self, line: &str) -> Result<String, Error> {
        if self.busy {
            return Err(Error::Poisoned);
        }
        self.busy = true;
        let sent = watched(&self.progress, self.step, async { Ok(self.session.run_command(line).await) }).await?;
        match sent {
            Ok(tag) => Ok(tag.0),
            Err(async_imap::error::Error::Io(error)) => Err(lost(io_error(error), self.session.get_mut().notes())),
            Err(_) => Err(Error::Lost { remark: None }),
        }
    }

    async fn next(&mut self) -> Result<Answer, Error> {
        self.next_within(self.step).await
    }

    async fn next_within(&mut self, step: Duration) -> Result<Answer, Error> {
        let answer = receive(&mut self.session, &self.progress, step).await;
        let answer = answer.map_err(|error| lost(error, self.session.get_mut().notes()))?;
        match &answer {
            // A count that does not rise is no mail: some servers repeat it in every answer.
            Answer::Untagged(Untagged::Exists(count)) => {
                self.news |= *count > self.exists;
                self.exists = *count;
            }
            Answer::Untagged(Untagged::Expunged) => self.exists = self.exists.saturating_sub(1),
            _ => {}
        }
        let moves = match &answer {
            Answer::Untagged(untagged) => {
                matches!(untagged, Untagged::Fetched(_) | Untagged::Expunged | Untagged::Searched(_))
            }
            Answer::Done { .. } => true,
            Answer::Bye(_) => false,
        };
        self.moves.fetch_add(u64::from(moves), Ordering::Relaxed);
        Ok(answer)
    }
}

/// First word of a command, as a name for errors. Never the rest, which may hold a secret.
fn name(line: &str) -> &'static str {
    const NAMES: [&str; 11] = [
        "UID FETCH",
        "UID SEARCH",
        "UID STORE",
        "UID MOVE",
        "UID COPY",
        "UID EXPUNGE",
        "SELECT",
        "LIST",
        "CAPABILITY",
        "NOOP",
        "LOGOUT",
    ];
    NAMES.into_iter().find(|name| line.starts_with(name)).unwrap_or("a command")
}

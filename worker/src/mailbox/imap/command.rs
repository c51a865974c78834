//! Runs one command until its own tagged OK. Everything else is an error that says what the server said.
//!
//! Only `authenticate`, `login`, `run_command`, `run_command_untagged` and `read_response` of async-imap are used: its other
//! methods turn a tagged NO, BAD or a cut connection into a short but successful answer.

use std::fmt;
use std::future::Future;
use std::io;
use std::ops::Range;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_imap::{Authenticator, Client, Session};
use bytes::Bytes;
use futures::FutureExt as _;
use imap_proto::{AttributeValue, MailboxDatum, MessageSection, Response, ResponseCode, SectionPath, Status};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};

use super::guard::{Guard, Limits, Notes, Violation};
use crate::diagnosis::imap::response_code;

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

/// One FETCH response (RFC 3501 section 7.4.2), as far as we ask.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fetched {
    /// UID of the message; responses without one are dropped before.
    pub uid: u32,
    /// True when `\Seen` is among its flags. `None`: no flags were sent.
    pub seen: Option<bool>,
    /// INTERNALDATE as text.
    pub received: Option<String>,
    /// RFC822.SIZE, an estimate.
    pub size: Option<u64>,
    /// `BODY[]`. Shares the buffer that it was read into.
    pub body: Option<Bytes>,
    /// `BODY[HEADER.FIELDS (…)]`, whichever fields were asked for. Shares the buffer, too.
    pub header: Option<Bytes>,
}

/// What an untagged response says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Untagged {
    /// Number of messages in the mailbox.
    Exists(u32),
    /// A message has gone.
    Expunged,
    /// Data of a message.
    Fetched(Fetched),
    /// UIDVALIDITY of the selected mailbox.
    UidValidity(u32),
    /// The next UID of the selected mailbox.
    UidNext(u32),
    /// What the server can do, as told in a response code.
    Capabilities(Vec<String>),
    /// UIDs that a search found.
    Searched(Vec<u32>),
    /// A continuation request; its text is of no use outside a sign-in.
    Continue,
    /// Anything else, for example `* OK Still here`.
    Other,
}

/// End of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Answer {
    Untagged(Untagged),
    Done { tag: String, status: Ended, text: String },
    Bye(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    Ok,
    No,
    Bad,
}

/// A signed-in session.
pub struct Commands<S: Stream + fmt::Debug> {
    session: Session<Guard<S>>,
    progress: Arc<AtomicU64>,
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

/// A connection that was greeted, on which nobody has signed in.
pub struct Greeted<S: Stream + fmt::Debug> {
    client: Client<Guard<S>>,
    progress: Arc<AtomicU64>,
    step: Duration,
    /// What the server can do before a sign-in, upper case. Empty: it does not say.
    pub capabilities: Vec<String>,
}

impl<S: Stream + fmt::Debug> fmt::Debug for Greeted<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Greeted").field("capabilities", &self.capabilities).finish_non_exhaustive()
    }
}

/// Waits for the greeting, and asks what the server can do unless the greeting says so. `step`: longest silence that is
/// endured.
pub async fn greet<S: Stream + fmt::Debug>(stream: S, limits: Limits, step: Duration) -> Result<Greeted<S>, Error> {
    let mut client = Client::new(Guard::new(stream, limits));
    let progress = client.get_ref().progress();
    let capabilities = match receive(&mut client, &progress, step).await {
        Ok(Answer::Untagged(Untagged::Capabilities(capabilities))) => capabilities,
        Ok(Answer::Untagged(_)) => ask_capabilities(&mut client, &progress, step).await?,
        Ok(Answer::Bye(text)) => return Err(Error::Bye { text }),
        Ok(Answer::Done { .. }) => return Err(Error::Malformed),
        Err(error) => return Err(lost(error, client.get_mut().notes())),
    };
    Ok(Greeted { client, progress, step, capabilities })
}

/// CAPABILITY before a sign-in. A server that refuses it does not say what it can do, which is no fault.
async fn ask_capabilities<S: Stream + fmt::Debug>(
    client: &mut Client<Guard<S>>,
    progress: &AtomicU64,
    step: Duration,
) -> Result<Vec<String>, Error> {
    // async-imap lets nobody run a command before the sign-in, and knows no tag of this form.
    const TAG: &str = "C0";
    let sent = async {
        let stream = client.get_mut();
        stream.write_all(format!("{TAG} CAPABILITY\r\n").as_bytes()).await?;
        stream.flush().await
    };
    watched(progress, step, sent).await?;
    loop {
        match receive(client, progress, step).await {
            Ok(Answer::Done { tag: other, .. }) if other == TAG => break,
            Ok(Answer::Bye(text)) => return Err(Error::Bye { text }),
            Ok(_) => {}
            Err(error) => return Err(lost(error, client.get_mut().notes())),
        }
    }
    let notes = client.get_mut().notes();
    notes.remark = None;
    Ok(notes.capabilities.take().unwrap_or_default())
}

impl<S: Stream + fmt::Debug> Greeted<S> {
    /// Signs in by SASL (RFC 3501 section 6.2.2).
    pub async fn authenticate(
        self,
        mechanism: &'static str,
        authenticator: impl Authenticator + Send,
    ) -> Result<Commands<S>, Error> {
        let Self { client, progress, step, .. } = self;
        let signing_in = async { Ok(client.authenticate(mechanism, authenticator).await) };
        signed_in("AUTHENTICATE", watched(&progress.clone(), step, signing_in).await?, progress, step)
    }

    /// Signs in by LOGIN (RFC 3501 section 6.2.3), for servers that know no SASL mechanism for passwords.
    pub async fn log_in(self, account: &str, password: &str) -> Result<Commands<S>, Error> {
        let Self { client, progress, step, .. } = self;
        let signing_in = async { Ok(client.login(account, password).await) };
        signed_in("LOGIN", watched(&progress.clone(), step, signing_in).await?, progress, step)
    }
}

type SignedIn<S> = Result<Session<Guard<S>>, (async_imap::error::Error, Client<Guard<S>>)>;

fn signed_in<S: Stream + fmt::Debug>(
    command: &'static str,
    result: SignedIn<S>,
    progress: Arc<AtomicU64>,
    step: Duration,
) -> Result<Commands<S>, Error> {
    match result {
        Ok(session) => Ok(Commands { session, progress, step, busy: false, exists: 0, news: false }),
        Err((error, mut client)) => {
            let remark = client.get_mut().notes().remark.take();
            Err(match error {
                // Its own text is a debug print of the parser; the guard kept the line.
                async_imap::error::Error::No(_) => {
                    Error::Refused { command, text: remark.unwrap_or_default(), bad: false }
                }
                async_imap::error::Error::Bad(_) => {
                    Error::Refused { command, text: remark.unwrap_or_default(), bad: true }
                }
                async_imap::error::Error::Io(error) => lost(io_error(error), &mut Notes { remark, ..Notes::default() }),
                async_imap::error::Error::ConnectionLost => Error::Lost { remark },
                _ => Error::Malformed,
            })
        }
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
        Ok(answer)
    }
}

/// An IDLE in progress. Dropped before [`Idling::end`], it leaves the session poisoned.
#[derive(Debug)]
pub struct Idling<'c, S: Stream + fmt::Debug> {
    commands: &'c mut Commands<S>,
    tag: String,
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

/// Runs a step that ends when nothing arrives for `step`; while bytes come it may last. A panic of the parser is an
/// unreadable answer.
async fn watched<T>(
    progress: &AtomicU64,
    step: Duration,
    work: impl Future<Output = io::Result<T>>,
) -> Result<T, Error> {
    let work = AssertUnwindSafe(work).catch_unwind();
    let mut work = std::pin::pin!(work);
    loop {
        let before = progress.load(Ordering::Relaxed);
        match tokio::time::timeout(step, &mut work).await {
            Ok(Ok(Ok(value))) => return Ok(value),
            Ok(Ok(Err(error))) => return Err(io_error(error)),
            Ok(Err(_panic)) => return Err(Error::Malformed),
            Err(_) if progress.load(Ordering::Relaxed) == before => return Err(Error::TimedOut),
            Err(_) => {}
        }
    }
}

fn io_error(error: io::Error) -> Error {
    if let Some(violation) = error.get_ref().and_then(|inner| inner.downcast_ref::<Violation>()) {
        return Error::Violation(violation.clone());
    }
    match error.kind() {
        // async-imap's parse errors quote the whole buffer: only the kind is kept.
        io::ErrorKind::Other => Error::Malformed,
        _ => Error::Lost { remark: None },
    }
}

/// Adds to a lost connection what was said before it ended.
fn lost(error: Error, notes: &mut Notes) -> Error {
    match error {
        Error::Lost { remark: None } => Error::Lost { remark: notes.remark.take() },
        error => error,
    }
}

/// Waits for one response and puts it in our own words.
async fn receive<S: Stream + fmt::Debug>(
    connection: &mut async_imap::Connection<Guard<S>>,
    progress: &AtomicU64,
    step: Duration,
) -> Result<Answer, Error> {
    let Some(raw) = watched(progress, step, connection.read_response()).await? else {
        return Err(Error::Lost { remark: None });
    };
    let answer = match raw.parsed() {
        Response::Done { tag, status, outcome } => {
            let status = match status {
                Status::Ok => Ended::Ok,
                Status::No => Ended::No,
                _ => Ended::Bad,
            };
            Answer::Done {
                tag: tag.0.clone(),
                status,
                text: tail(raw.borrow_owner(), 2, outcome.information.as_deref()),
            }
        }
        Response::Data { status: Status::Bye, outcome } => {
            Answer::Bye(tail(raw.borrow_owner(), 2, outcome.information.as_deref()))
        }
        Response::Data { outcome, .. } => Answer::Untagged(match outcome.code {
            Some(ResponseCode::UidValidity(value)) => Untagged::UidValidity(value),
            Some(ResponseCode::UidNext(value)) => Untagged::UidNext(value),
            Some(ResponseCode::Capabilities(_)) => {
                Untagged::Capabilities(capabilities(&tail(raw.borrow_owner(), 2, None)))
            }
            _ => Untagged::Other,
        }),
        Response::Continue(_) => Answer::Untagged(Untagged::Continue),
        Response::MailboxData(MailboxDatum::Exists(count)) => Answer::Untagged(Untagged::Exists(*count)),
        Response::MailboxData(MailboxDatum::Search(uids)) => Answer::Untagged(Untagged::Searched(uids.clone())),
        Response::Expunge(_) | Response::Vanished { .. } => Answer::Untagged(Untagged::Expunged),
        Response::Fetch(_, attributes) => {
            let (mut fetched, body, header) = attributes_of(attributes, raw.borrow_owner());
            if fetched.uid == 0 {
                return Ok(Answer::Untagged(Untagged::Other));
            }
            if body.is_some() || header.is_some() {
                let buffer = raw.into_owner().freeze();
                fetched.body = body.map(|place| buffer.slice(place));
                fetched.header = header.map(|place| buffer.slice(place));
            }
            return Ok(Answer::Untagged(Untagged::Fetched(fetched)));
        }
        _ => Answer::Untagged(Untagged::Other),
    };
    Ok(answer)
}

/// The words of `[CAPABILITY IMAP4rev1 …] text`, upper case.
fn capabilities(text: &str) -> Vec<String> {
    let inside = text.split(']').next().unwrap_or_default().trim_start_matches('[');
    inside.split_whitespace().skip(1).map(str::to_ascii_uppercase).collect()
}

/// The text of a status line behind its first `words` words, as the server wrote it, response code included: the parser
/// knows only some codes.
fn tail(owner: &[u8], words: usize, fallback: Option<&str>) -> String {
    let line = owner.split(|byte| *byte == b'\r' || *byte == b'\n').next().unwrap_or_default();
    let line = String::from_utf8_lossy(&line[..line.len().min(1024)]);
    match line.splitn(words + 1, ' ').nth(words) {
        Some(text) => text.to_owned(),
        None => fallback.unwrap_or_default().to_owned(),
    }
}

/// The attributes, and where in the buffer body and header stand.
fn attributes_of(
    attributes: &[AttributeValue<'_>],
    owner: &[u8],
) -> (Fetched, Option<Range<usize>>, Option<Range<usize>>) {
    let mut fetched = Fetched::default();
    let (mut body, mut header) = (None, None);
    // Zero copy: the parser's slice points into the buffer that we take over.
    let place = |data: &[u8]| {
        let at = (data.as_ptr() as usize).wrapping_sub(owner.as_ptr() as usize);
        at.checked_add(data.len()).filter(|end| *end <= owner.len()).map(|end| at..end)
    };
    for attribute in attributes {
        match attribute {
            AttributeValue::Uid(uid) => fetched.uid = *uid,
            AttributeValue::Flags(flags) => {
                fetched.seen = Some(flags.iter().any(|flag| flag.eq_ignore_ascii_case("\\Seen")));
            }
            AttributeValue::InternalDate(date) => fetched.received = Some(date.trim().to_owned()),
            AttributeValue::Rfc822Size(size) => fetched.size = Some(u64::from(*size)),
            AttributeValue::BodySection { section: None, index: None, data: Some(data) } => body = place(data),
            AttributeValue::BodySection {
                section: Some(SectionPath::Full(MessageSection::Header)),
                index: None,
                data: Some(data),
            } => header = place(data),
            _ => {}
        }
    }
    (fetched, body, header)
}

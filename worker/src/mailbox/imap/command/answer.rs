//! One response of a server in our own words.

use std::fmt;
use std::ops::Range;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use bytes::Bytes;
use imap_proto::{AttributeValue, MailboxDatum, MessageSection, Response, ResponseCode, SectionPath, Status};

use super::watched::watched;
use super::{Error, Stream};
use crate::mailbox::imap::guard::Guard;

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
pub(super) enum Answer {
    Untagged(Untagged),
    Done { tag: String, status: Ended, text: String },
    Bye(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    Ok,
    No,
    Bad,
}

/// Waits for one response and puts it in our own words.
pub(super) async fn receive<S: Stream + fmt::Debug>(
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

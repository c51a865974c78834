//! Between the socket and async-imap: lets through only whole, known and harmless responses.
//!
//! async-imap buffers a literal at its announced size, re-parses a long line at every read, recurses on nested
//! parentheses until the process aborts, and closes the stream for good at any line it does not know. So this layer
//! frames the stream itself: it hands on whole lines, holds lines, literals and nesting to limits, drops untagged
//! responses that nobody asked for, and notes what the server said for those who have to explain a failure.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::line::{self, Listed, Verdict};

/// What a server may send.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Longest line without its literals, in bytes.
    pub line: usize,
    /// Largest literal that is handed on, in bytes. A larger one is read and thrown away with its whole response.
    pub literal: u64,
    /// Largest literal that is read at all; a larger one ends the connection.
    pub endurable: u64,
    /// Most opening parentheses in one response, which also bounds how deep they nest.
    pub depth: usize,
}

impl Limits {
    /// Limits for mailboxes whose messages have at most `max_message_bytes`.
    pub fn for_messages(max_message_bytes: u64) -> Self {
        Self {
            line: 1024 * 1024,
            literal: max_message_bytes,
            endurable: max_message_bytes.saturating_mul(2).max(1024 * 1024),
            depth: 64,
        }
    }
}

/// Why the guard ended a connection. Wrapped in an [`io::Error`] of kind `InvalidData`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A line has no end.
    #[error("a line is longer than {limit} bytes")]
    LineTooLong {
        /// The limit.
        limit: usize,
    },
    /// A literal is larger than can be endured.
    #[error("a literal of {size} bytes was announced, {limit} is the most")]
    LiteralTooLarge {
        /// What was announced.
        size: u64,
        /// The limit.
        limit: u64,
    },
    /// Parentheses may be nested too deep.
    #[error("a response has more than {limit} parentheses")]
    TooDeep {
        /// The limit.
        limit: usize,
    },
}

/// A response that was thrown away because its literal was larger than a message may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Oversized {
    /// UID of the message, when the line named it before the literal.
    pub uid: Option<u32>,
    /// Announced size in bytes.
    pub size: u64,
}

/// What the guard noticed.
#[derive(Debug, Default)]
pub struct Notes {
    /// Last NO, BAD or BYE line, or line that is no IMAP at all, without its line end.
    pub remark: Option<String>,
    /// Last CAPABILITY list, upper case.
    pub capabilities: Option<Vec<String>>,
    /// Responses thrown away for their size since they were last taken.
    pub oversized: Vec<Oversized>,
    /// Folders, once somebody asks for them by putting an empty list here; of them the first `MAX_FOLDERS`.
    pub folders: Option<Vec<Listed>>,
}

/// Most folders that are kept.
const MAX_FOLDERS: usize = 5_000;

const CHUNK: usize = 16 * 1024;
/// Commands are written at once when they are flushed; more than this goes out before.
const MAX_OUTGOING: usize = 64 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Collecting a line.
    Line,
    /// Inside a literal that is handed on.
    Literal(u64),
    /// Inside a literal that is thrown away.
    Discard(u64),
}

/// The guarded stream.
pub struct Guard<S> {
    inner: S,
    limits: Limits,
    mode: Mode,
    /// Bytes not yet handed on: `ready` of them may be, the rest is the beginning of a line.
    inbox: Vec<u8>,
    ready: usize,
    /// How far the beginning of a line was searched for its end.
    searched: usize,
    /// The response goes on after a literal.
    continued: bool,
    /// The whole response is thrown away.
    dropping: bool,
    depth: usize,
    /// Bytes of the present response, literals included.
    size: u64,
    eof: bool,
    /// Told once everything before it was handed on, so that it does not matter how the network cuts what comes.
    violated: Option<Violation>,
    outgoing: Vec<u8>,
    written: usize,
    notes: Notes,
    progress: Arc<AtomicU64>,
    moves: Arc<AtomicU64>,
}

impl<S> std::fmt::Debug for Guard<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Guard").field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl<S> Guard<S> {
    /// Guards `inner`.
    pub fn new(inner: S, limits: Limits) -> Self {
        Self {
            inner,
            limits,
            mode: Mode::Line,
            inbox: Vec::new(),
            ready: 0,
            searched: 0,
            continued: false,
            dropping: false,
            depth: 0,
            size: 0,
            eof: false,
            violated: None,
            outgoing: Vec::new(),
            written: 0,
            notes: Notes::default(),
            progress: Arc::default(),
            moves: Arc::default(),
        }
    }

    /// What was noticed so far.
    pub fn notes(&mut self) -> &mut Notes {
        &mut self.notes
    }

    /// Counts bytes read, so that somebody else can see whether the server still sends.
    pub fn progress(&self) -> Arc<AtomicU64> {
        self.progress.clone()
    }

    /// Counts what is worth waiting for: bytes of literals, and whatever else somebody adds. Unlike [`Guard::progress`] it does
    /// not go on because a server says that it is still there.
    pub fn moves(&self) -> Arc<AtomicU64> {
        self.moves.clone()
    }

    /// Looks at what has arrived and decides how much may be handed on.
    fn scan(&mut self) -> Result<(), Violation> {
        loop {
            let rest = self.inbox.len() - self.ready;
            match self.mode {
                Mode::Literal(left) => {
                    let take = rest.min(usize::try_from(left).unwrap_or(usize::MAX));
                    self.moves.fetch_add(take as u64, Ordering::Relaxed);
                    self.ready += take;
                    self.searched = self.ready;
                    self.mode = if left == take as u64 { Mode::Line } else { Mode::Literal(left - take as u64) };
                }
                Mode::Discard(left) => {
                    let take = rest.min(usize::try_from(left).unwrap_or(usize::MAX));
                    self.moves.fetch_add(take as u64, Ordering::Relaxed);
                    self.inbox.drain(self.ready..self.ready + take);
                    self.searched = self.ready;
                    self.mode = if left == take as u64 { Mode::Line } else { Mode::Discard(left - take as u64) };
                }
                Mode::Line => {
                    let Some(at) = self.inbox[self.searched..].iter().position(|byte| *byte == b'\n') else {
                        self.searched = self.inbox.len();
                        if self.inbox.len() - self.ready > self.limits.line {
                            return Err(Violation::LineTooLong { limit: self.limits.line });
                        }
                        return Ok(());
                    };
                    let end = self.searched + at + 1;
                    self.judge(end)?;
                }
            }
            if self.inbox.len() == self.ready {
                return Ok(());
            }
        }
    }

    /// Decides about the line `inbox[ready..end]`, which is a whole response or a part of one between literals.
    fn judge(&mut self, end: usize) -> Result<(), Violation> {
        let text = &self.inbox[self.ready..end];
        if text.len() > self.limits.line {
            return Err(Violation::LineTooLong { limit: self.limits.line });
        }
        let bare = line::strip_end(text);
        let mut repaired = None;
        if !self.continued {
            self.depth = 0;
            self.size = 0;
            self.dropping = match line::judge(bare) {
                Verdict::Pass => false,
                Verdict::Complete(fixed) => {
                    repaired = Some(fixed);
                    false
                }
                Verdict::Capabilities(words) => {
                    self.notes.capabilities = Some(words);
                    true
                }
                Verdict::Listed(folder) => {
                    if let Some(folders) = self.notes.folders.as_mut().filter(|folders| folders.len() < MAX_FOLDERS) {
                        folders.push(folder);
                    }
                    true
                }
                Verdict::Drop => true,
                Verdict::Noise(text) => {
                    self.notes.remark = Some(text);
                    true
                }
            };
            if let Some(remark) = line::remark(bare) {
                self.notes.remark = Some(remark);
            }
        }
        // Invariant: nesting is never deeper than the number of opening parentheses, quoted or not, whatever a parser
        // makes of the rest. What we ask for needs four.
        self.depth += bare.iter().filter(|byte| **byte == b'(').count();
        if self.depth > self.limits.depth && !self.dropping {
            return Err(Violation::TooDeep { limit: self.limits.depth });
        }
        self.size += text.len() as u64;
        let literal = line::literal(bare);
        if let Some(size) = literal {
            if size > self.limits.endurable {
                return Err(Violation::LiteralTooLarge { size, limit: self.limits.endurable });
            }
            self.size = self.size.saturating_add(size);
            // Many literals in one response add up in the parser's buffer just like one.
            if self.size > self.limits.literal.saturating_add(self.limits.line as u64) || size > self.limits.literal {
                if !self.dropping {
                    self.notes.oversized.push(Oversized { uid: line::uid(bare), size });
                }
                // What was handed on of this response cannot be taken back: only its first literal may be dropped.
                if self.continued && !self.dropping {
                    return Err(Violation::LiteralTooLarge { size, limit: self.limits.literal });
                }
                self.dropping = true;
            }
        }
        self.continued = literal.is_some();
        let missing_cr = !text.ends_with(b"\r\n");
        if self.dropping {
            self.inbox.drain(self.ready..end);
        } else if repaired.is_some() || missing_cr {
            let mut fixed = repaired.unwrap_or_else(|| bare.to_vec());
            fixed.extend_from_slice(b"\r\n");
            let length = fixed.len();
            self.inbox.splice(self.ready..end, fixed);
            self.ready += length;
        } else {
            self.ready = end;
        }
        self.searched = self.ready;
        self.mode = match (literal, self.dropping) {
            (Some(size), false) if size > 0 => Mode::Literal(size),
            (Some(size), true) if size > 0 => Mode::Discard(size),
            _ => Mode::Line,
        };
        Ok(())
    }

    fn hand_on(&mut self, buf: &mut ReadBuf<'_>) {
        let take = self.ready.min(buf.remaining());
        buf.put_slice(&self.inbox[..take]);
        self.ready -= take;
        self.searched = self.searched.saturating_sub(take);
        if take == self.inbox.len() {
            self.inbox.clear();
            // Thousands of idle sessions each keep this buffer.
            self.inbox.shrink_to(64);
        } else {
            self.inbox.drain(..take);
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guard<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            if this.ready > 0 {
                this.hand_on(buf);
                return Poll::Ready(Ok(()));
            }
            if let Some(violation) = &this.violated {
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, violation.clone())));
            }
            if this.eof || buf.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            if let Mode::Literal(left) = this.mode
                && this.inbox.is_empty()
                && left >= buf.remaining() as u64
            {
                // The bulk of all bytes: straight into the reader's buffer.
                let before = buf.filled().len();
                ready!(Pin::new(&mut this.inner).poll_read(cx, buf))?;
                let read = (buf.filled().len() - before) as u64;
                this.progress.fetch_add(read, Ordering::Relaxed);
                this.moves.fetch_add(read, Ordering::Relaxed);
                this.eof = read == 0;
                this.mode = if left == read { Mode::Line } else { Mode::Literal(left - read) };
                return Poll::Ready(Ok(()));
            }
            let mut chunk = [0; CHUNK];
            let mut chunk = ReadBuf::new(&mut chunk);
            ready!(Pin::new(&mut this.inner).poll_read(cx, &mut chunk))?;
            let read = chunk.filled();
            this.progress.fetch_add(read.len() as u64, Ordering::Relaxed);
            if read.is_empty() {
                this.eof = true;
                // Half a response is handed on, so that the end is not taken for one between responses.
                if this.mode == Mode::Line
                    && let Some(fixed) = line::spaced(&this.inbox)
                {
                    this.inbox = fixed;
                }
                this.ready = this.inbox.len();
                continue;
            }
            this.inbox.extend_from_slice(read);
            this.violated = this.scan().err();
        }
    }
}

impl<S: AsyncWrite + Unpin> Guard<S> {
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.outgoing.len() {
            let sent = ready!(Pin::new(&mut self.inner).poll_write(cx, &self.outgoing[self.written..]))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += sent;
        }
        self.outgoing = Vec::new();
        self.written = 0;
        Poll::Ready(Ok(()))
    }
}

/// Gathers a command, which async-imap writes in four pieces, into one TLS record.
impl<S: AsyncWrite + Unpin> AsyncWrite for Guard<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.outgoing.len() >= MAX_OUTGOING {
            ready!(self.poll_send(cx))?;
        }
        self.outgoing.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send(cx))?;
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send(cx))?;
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;

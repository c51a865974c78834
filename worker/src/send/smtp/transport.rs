//! The byte stream under a dialogue: ours, with TLS and proxies as everywhere, and with replies put into form.
//!
//! It is lent: STARTTLS (RFC 3207) takes the stream back from the dialogue in the clear and gives it, inside TLS, to a new
//! one. Whatever the server sent ahead of TLS stays with the old dialogue and is thrown away with it.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::lines::Lines;
use crate::net::{Secure, Wire};

/// A connection to a server.
#[derive(Debug)]
pub(super) enum Link {
    Plain(Wire),
    Secure(Box<Secure>),
}

/// What a dialogue reads from and writes to.
#[derive(Debug)]
pub(super) struct Transport {
    link: Lender,
    lines: Lines,
    /// Put into form and not yet read, from `read` on.
    ready: Vec<u8>,
    read: usize,
}

/// Takes the connection back.
#[derive(Debug, Clone)]
pub(super) struct Lender(Arc<Mutex<Option<Link>>>);

impl Lender {
    fn lock(&self) -> MutexGuard<'_, Option<Link>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection, which the dialogue then finds gone.
    pub(super) fn take_back(&self) -> Option<Link> {
        self.lock().take()
    }
}

impl Transport {
    /// Lends a connection. `greeting`: what the dialogue is to hear first, before anything of the server.
    pub(super) fn lend(link: Link, greeting: &str) -> (Self, Lender) {
        let lender = Lender(Arc::new(Mutex::new(Some(link))));
        let ready = greeting.as_bytes().to_vec();
        (Self { link: lender.clone(), lines: Lines::default(), ready, read: 0 }, lender)
    }

    fn with<T>(&self, work: impl FnOnce(Pin<&mut dyn Stream>) -> Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        match self.link.lock().as_mut() {
            Some(Link::Plain(wire)) => work(Pin::new(wire)),
            Some(Link::Secure(secure)) => work(Pin::new(secure.as_mut())),
            None => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }
}

trait Stream: AsyncRead + AsyncWrite + Unpin {}
impl<S: AsyncRead + AsyncWrite + Unpin> Stream for S {}

impl AsyncRead for Transport {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while self.read == self.ready.len() {
            let mut space = [0; 4096];
            let mut heard = ReadBuf::new(&mut space);
            ready!(self.with(|stream| stream.poll_read(cx, &mut heard)))?;
            if heard.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            let this = &mut *self;
            (this.read, this.ready) = (0, Vec::new());
            this.lines.tidy(heard.filled(), &mut this.ready);
        }
        let count = out.remaining().min(self.ready.len() - self.read);
        out.put_slice(&self.ready[self.read..self.read + count]);
        self.read += count;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Transport {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.with(|stream| stream.poll_write(cx, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(|stream| stream.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(|stream| stream.poll_shutdown(cx))
    }
}

//! A dialogue with an SMTP server (RFC 5321), one command at a time, each with a deadline. Only this file knows lettre.
//!
//! Of lettre only `AsyncSmtpConnection` is used, on our own stream: its transports set no TCP_NODELAY (44 ms a mail), its
//! `send` gives the mail up at the first recipient that is refused, and its `auth` loses the reason of a refusal. Its
//! feature `tracing` stays off, for it logs credentials.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use lettre::transport::smtp::client::{AsyncSmtpConnection, AsyncTokioStream};
use lettre::transport::smtp::extension::{ClientId, Extension};
use lettre::transport::smtp::response::Response;
use rustls::ClientConfig;
use tokio::time::timeout;

use super::offers::Offers;
use super::transport::{Lender, Link, Transport};
use crate::net::{self, Place, Secure, Wire};
use crate::send::verdict::Fault;
use crate::send::verdict::smtp::{self as verdict, Reply, Step};

/// What is written at once of a mail.
const PART: usize = 64 * 1024;
/// Longest wait for a reply before there is a mail. RFC 5321 section 4.5.3.2 says five minutes, which is longer than a claim
/// lasts: then a server that says nothing would be found out never, and hold up each mail anew in place of the mailbox.
const EARLY: Duration = Duration::from_secs(30);
/// Longest wait for a reply, by step (RFC 5321 section 4.5.3.2).
const BEGIN: Duration = Duration::from_secs(60);
const COMMAND: Duration = Duration::from_secs(300);
const DATA: Duration = Duration::from_secs(120);
const BLOCK: Duration = Duration::from_secs(180);
const END: Duration = Duration::from_secs(600);
/// Longest wait for what a server said before it hung up.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Longest wait for a goodbye.
const QUIT: Duration = Duration::from_secs(1);

/// How a connection is protected.
#[derive(Debug, Clone)]
pub(super) enum Protection {
    StartTls,
    Tls,
    None,
}

/// Why a command was not answered well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::send) enum Error {
    /// With a negative reply. The dialogue goes on.
    Refused(Reply),
    /// With a negative reply, and nothing more can be written.
    RefusedAtLast(Reply),
    /// With something that is no reply.
    Strange(String),
    /// Not at all: the connection is gone, or was silent for too long.
    Lost(String),
}

impl Error {
    fn of(error: &lettre::transport::smtp::Error) -> Self {
        let detail = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
        match error.status() {
            Some(code) => Self::Refused(Reply { code: code.into(), text: detail }),
            // What lettre says of a stream that ended.
            None if error.is_response() && detail != "incomplete response" => Self::Strange(detail),
            None if error.is_client() => Self::Strange(detail),
            None => Self::Lost(detail),
        }
    }
}

/// A greeted server.
pub(in crate::send) struct Connection {
    dialogue: AsyncSmtpConnection,
    /// Takes the connection from the dialogue, which then can write no more.
    lender: Lender,
    /// What the server offers.
    pub(super) offers: Offers,
    /// It is in no state to be used again.
    broken: bool,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("offers", &self.offers).field("broken", &self.broken).finish_non_exhaustive()
    }
}

impl Connection {
    /// Connects, agrees on TLS, and hears what the server offers. `connecting`: for each step before the dialogue.
    pub(super) async fn open(
        place: &Place,
        protection: Protection,
        tls: &Arc<ClientConfig>,
        connecting: Duration,
    ) -> Result<Self, Fault> {
        let wire = net::reach(place, tls, connecting).await.map_err(Fault::of_server)?;
        Self::on(wire, place, protection, tls, connecting, |_| {}).await
    }

    /// The same on a connection that there is. `secured` is shown what TLS was agreed on.
    pub(super) async fn on(
        wire: Wire,
        place: &Place,
        protection: Protection,
        tls: &Arc<ClientConfig>,
        connecting: Duration,
        secured: impl FnOnce(&Secure),
    ) -> Result<Self, Fault> {
        let hello = hello(&wire);
        let agree = async |wire| {
            let secure = net::agree(wire, place, tls, connecting).await.map_err(Fault::of_server)?;
            secured(&secure);
            Ok::<_, Fault>(Link::Secure(Box::new(secure)))
        };
        let (link, greeting) = match protection {
            Protection::None => (Link::Plain(wire), ""),
            Protection::Tls => (agree(wire).await?, ""),
            // RFC 3207 section 4.2: the dialogue begins anew with EHLO, and nobody greets a second time.
            Protection::StartTls => (agree(in_the_clear(wire, &hello).await?).await?, "220 TLS\r\n"),
        };
        let (transport, lender) = Transport::lend(link, greeting);
        let dialogue = greeted(transport, &hello).await?;
        let mut connection = Self { dialogue, lender, offers: Offers::default(), broken: false };
        // lettre keeps no SIZE, so it is asked once more.
        let offers = connection.answered(format!("EHLO {hello}\r\n"), EARLY).await;
        let offers = offers.map_err(|error| fault(Step::Greeting, error))?;
        connection.offers = Offers::read(offers.message());
        Ok(connection)
    }

    /// Sends one command line and waits for a positive reply.
    pub(super) async fn command(&mut self, step: Step, line: &str) -> Result<Reply, Error> {
        let patience = match step {
            Step::Greeting | Step::StartTls | Step::SignIn => EARLY,
            Step::Sender => BEGIN,
            Step::Data => DATA,
            Step::Recipient | Step::End => COMMAND,
        };
        let line = format!("{line}\r\n");
        let response = self.answered(line, patience).await?;
        Ok(reply(&response))
    }

    async fn answered(&mut self, line: String, patience: Duration) -> Result<Response, Error> {
        // Invariant: a command whose answer nobody waits for any more leaves the connection broken.
        let usable = !std::mem::replace(&mut self.broken, true);
        if !usable {
            return Err(Error::Lost("the connection was left in the middle of a command".into()));
        }
        let answer = match timeout(patience, self.dialogue.command(line)).await {
            Ok(answer) => answer.map_err(|error| Error::of(&error)),
            Err(_) => Err(Error::Lost(format!("no answer within {} s", patience.as_secs()))),
        };
        self.broken = !goes_on(&answer);
        answer
    }

    /// Sends the mail after a reply of 354. `complete` is asked when all of it is written but the line that ends it: unless
    /// it agrees, that line is never written, and the connection ends.
    ///
    /// Invariant: a positive reply counts only behind that line.
    pub(super) async fn data(&mut self, raw: &Bytes, complete: impl FnOnce() -> bool + Send) -> Result<Reply, Error> {
        self.broken = true;
        // What lettre writes behind the mail begins with the end of its last line.
        let raw = raw.strip_suffix(b"\r\n").unwrap_or(raw);
        let (written, parts) = (AtomicU64::new(0), raw.len().div_ceil(PART) as u64);
        let mut chunks = raw.chunks(PART);
        let (mut complete, mut is_refused) = (Some(complete), false);
        let next = || {
            let chunk = chunks.next();
            written.fetch_add(1, Ordering::Relaxed);
            if chunk.is_none()
                && let Some(complete) = complete.take()
                && !complete()
            {
                is_refused = true;
                drop(self.lender.take_back());
            }
            chunk
        };
        let answer = {
            let work = self.dialogue.message_iter(std::iter::from_fn(next));
            tokio::pin!(work);
            loop {
                let before = written.load(Ordering::Relaxed);
                let patience = if before > parts { END } else { BLOCK };
                match timeout(patience, &mut work).await {
                    Ok(answer) => break answer.map(|response| reply(&response)).map_err(|error| Error::of(&error)),
                    Err(_) if written.load(Ordering::Relaxed) == before => {
                        break Err(Error::Lost(format!("no answer within {} s", patience.as_secs())));
                    }
                    Err(_) => {}
                }
            }
        };
        let answer = match answer {
            Err(Error::Lost(detail)) if !is_refused => Err(self.last_words().await.unwrap_or(Error::Lost(detail))),
            answer => answer,
        };
        self.broken = !goes_on(&answer);
        answer
    }

    /// What a server said before it stopped to read: why it did.
    async fn last_words(&mut self) -> Option<Error> {
        let heard = timeout(LAST_WORDS, self.dialogue.read_response()).await.ok()?;
        match Error::of(&heard.err()?) {
            // After that nobody knows where in the dialogue the server is.
            Error::Refused(reply) => Some(Error::RefusedAtLast(reply)),
            Error::Strange(_) | Error::Lost(_) | Error::RefusedAtLast(_) => None,
        }
    }

    /// True when another mail may follow on it.
    pub(super) fn is_usable(&self) -> bool {
        !self.broken
    }

    /// True when the server still answers.
    pub(super) async fn is_alive(&mut self) -> bool {
        matches!(timeout(QUIT * 5, self.answered("NOOP\r\n".into(), COMMAND)).await, Ok(Ok(_)))
    }

    /// Says goodbye, but waits for no long answer. Servers count connections until they have heard it.
    pub(super) async fn quit(mut self) {
        if !self.broken {
            let _ = timeout(QUIT, self.dialogue.command("QUIT\r\n")).await;
        }
    }
}

/// True when the dialogue goes on after this answer. RFC 5321 section 3.8: after 421 the server hangs up.
fn goes_on<T>(answer: &Result<T, Error>) -> bool {
    match answer {
        Ok(_) => true,
        Err(Error::Refused(reply)) => reply.code != 421,
        Err(_) => false,
    }
}

/// STARTTLS: the connection, when the server is ready for TLS.
async fn in_the_clear(wire: Wire, hello: &ClientId) -> Result<Wire, Fault> {
    let (transport, lender) = Transport::lend(Link::Plain(wire), "");
    let mut dialogue = greeted(transport, hello).await?;
    if !dialogue.server_info().supports_feature(Extension::StartTls) {
        return Err(verdict::no_starttls());
    }
    match timeout(EARLY, dialogue.command("STARTTLS\r\n")).await {
        Ok(Ok(response)) if response.has_code(220) => {}
        Ok(Ok(response)) => return Err(verdict::strange(Step::StartTls, &reply(&response).to_string())),
        Ok(Err(error)) => return Err(fault(Step::StartTls, Error::of(&error))),
        Err(_) => return Err(verdict::lost(Step::StartTls, "no answer in time")),
    }
    match lender.take_back() {
        Some(Link::Plain(wire)) => Ok(wire),
        _ => Err(verdict::lost(Step::StartTls, "the connection is gone")),
    }
}

async fn greeted(transport: Transport, hello: &ClientId) -> Result<AsyncSmtpConnection, Fault> {
    let greeting = AsyncSmtpConnection::connect_with_transport(Box::new(transport), hello);
    match timeout(EARLY, greeting).await {
        Ok(greeted) => greeted.map_err(|error| fault(Step::Greeting, Error::of(&error))),
        Err(_) => Err(verdict::lost(Step::Greeting, "no greeting in time")),
    }
}

/// What an error means where nobody has signed in.
fn fault(step: Step, error: Error) -> Fault {
    match error {
        Error::Refused(reply) | Error::RefusedAtLast(reply) => {
            verdict::refused(step, postroom_proto::v1::OutgoingAuthentication::None, &reply)
        }
        Error::Strange(detail) => verdict::strange(step, &detail),
        Error::Lost(detail) => verdict::lost(step, &detail),
    }
}

fn reply(response: &Response) -> Reply {
    Reply { code: response.code().into(), text: response.message().collect::<Vec<_>>().join(" ") }
}

/// RFC 5321 section 4.1.4: an address literal, for a worker need not have a name that others know.
fn hello(wire: &Wire) -> ClientId {
    match net::local_address(wire).map(|address| address.ip()) {
        Some(IpAddr::V4(address)) => ClientId::Ipv4(address),
        Some(IpAddr::V6(address)) => ClientId::Ipv6(address),
        None => ClientId::Ipv4(std::net::Ipv4Addr::LOCALHOST),
    }
}

impl AsyncTokioStream for Transport {
    fn peer_addr(&self) -> io::Result<SocketAddr> {
        // A proxy knows, and nobody asks.
        Err(io::ErrorKind::Unsupported.into())
    }
}

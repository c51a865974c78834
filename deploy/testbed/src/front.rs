//! A front before the IMAP server that speaks for it where Exchange Online differs from Dovecot, or may: it reads lines and
//! literals both ways, and changes, refuses, holds up or breaks off what it was ordered to, for whom and how often.
//! Everything else goes through.
//!
//! What Exchange does, and how it is ordered (`at` is a [`Step`], `m` a mailbox):
//!
//! | what | order |
//! |---|---|
//! | another greeting, `LOGINDISABLED`, `IMAP4rev2` on offer, another word for a sign-in | [`Front::speak_as_exchange`] |
//! | refuses a sign-in without a reason, lets somebody in and opens nothing, asks to slow down, is ill | [`Front::answer`] with a text of [`answers`] |
//! | hangs up with a BYE between commands, in IDLE or in place of an answer | [`Front::end`]; [`Front::answer`] with the BYE |
//! | wrong sizes and numbers, missing data, placeholders, hostile answers, odd codes | [`Front::change`] |
//! | hangs up on those whose commands it refuses too often | [`Front::set_patience`] |
//! | breaks off without a word, or says nothing more while the connection stands | [`Front::cut`], [`Front::stall`] |
//! | gives no answer, and says that it is still there | [`Front::change`] with [`Change::Chatter`] |
//!
//! `UID FETCH n:*` is answered with the last message also when its UID is below n, as RFC 9051 section 9 has it: Dovecot
//! does that by itself.

pub mod answers;
mod change;
mod parts;
mod session;
mod tally;

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{net::TcpListener, time::Instant};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use self::change::Change;
use self::tally::Tally;
use crate::{
    authority::Authority,
    error::{Error, Result},
    script::{Script, Stall},
};

/// Where in a conversation something happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize, clap::ValueEnum)]
pub enum Step {
    /// A sign-in, when the credentials have come. From here on it is known whose connection it is.
    SignIn,
    /// CAPABILITY after the sign-in.
    Capability,
    /// SELECT, EXAMINE, LIST, NAMESPACE and STATUS: what needs the mailbox behind the sign-in.
    Open,
    /// FETCH of anything but messages, and SEARCH.
    Look,
    /// FETCH of messages.
    Fetch,
    /// STORE.
    Mark,
    /// MOVE, COPY and EXPUNGE.
    Move,
    /// IDLE.
    Idle,
    /// In IDLE, when the client was told that the server waits. What is said there ends the connection.
    Idling,
    /// Any other command after the sign-in.
    Other,
}

impl Step {
    /// The step that a command is; `UID` belongs to its verb.
    fn of(verb: &str, line: &str) -> Self {
        match verb.strip_prefix("UID ").unwrap_or(verb) {
            "CAPABILITY" => Self::Capability,
            "SELECT" | "EXAMINE" | "LIST" | "LSUB" | "NAMESPACE" | "STATUS" => Self::Open,
            "FETCH" if line.contains("BODY") => Self::Fetch,
            "FETCH" | "SEARCH" => Self::Look,
            "STORE" => Self::Mark,
            "MOVE" | "COPY" | "EXPUNGE" => Self::Move,
            "IDLE" => Self::Idle,
            _ => Self::Other,
        }
    }
}

/// What happens to somebody who comes to a step.
#[derive(Clone, Debug)]
enum Act {
    Say(String),
    Change(Change),
}

/// A running front. Dropping it cuts its connections.
#[derive(Debug)]
pub struct Front {
    shared: Arc<Shared>,
    addr: SocketAddr,
    stop: CancellationToken,
}

/// What the front's tasks and its handle share.
#[derive(Debug)]
struct Shared {
    upstream: SocketAddr,
    connector: Arc<rustls::ClientConfig>,
    script: Script<Step, Act>,
    rules: Mutex<Rules>,
    tally: Tally,
}

#[derive(Clone, Debug, Default)]
struct Rules {
    /// Capabilities before the sign-in.
    offers: Option<String>,
    /// It greets, and says what it can do, as Exchange does.
    exchange: bool,
    /// Commands of a session that are answered BAD before it hangs up.
    patience: Option<usize>,
}

impl Front {
    /// Starts a front of the server at `upstream`, with a certificate of the same authority.
    pub async fn start(upstream: SocketAddr, authority: &Authority) -> Result<Self> {
        let listener =
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(Error::system("listen on loopback"))?;
        let addr = listener.local_addr().map_err(Error::system("learn a port"))?;
        let acceptor = TlsAcceptor::from(authority.server_config(&[])?);
        let shared = Arc::new(Shared {
            upstream,
            connector: authority.client_config()?,
            script: Script::new(),
            rules: Mutex::default(),
            tally: Tally::default(),
        });
        let stop = CancellationToken::new();
        let (tasks, state, told) = (TaskTracker::new(), Arc::clone(&shared), stop.clone());
        tokio::spawn(async move {
            while let Some(accepted) = told.run_until_cancelled(listener.accept()).await {
                let Ok((tcp, _)) = accepted else { continue };
                let (state, acceptor, told) = (Arc::clone(&state), acceptor.clone(), told.clone());
                tasks.spawn(async move {
                    let served = session::serve(tcp, acceptor, &state);
                    if let Some(Err(error)) = told.run_until_cancelled(served).await {
                        tracing::debug!(%error, "a connection by the front ended");
                    }
                });
            }
        });
        Ok(Self { shared, addr, stop })
    }

    /// Where it listens, for IMAP over TLS.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Answers the next `times` (0: all from now on) that come to `step` with `text` in place of the server, for `mailbox`
    /// (empty: for any). A text that begins with OK, NO or BAD is the end of the command; any other is the last that the
    /// connection says.
    pub fn answer(&self, step: Step, mailbox: &str, times: usize, text: &str) {
        self.shared.script.answer(step, mailbox, times, Act::Say(text.to_owned()));
    }

    /// Changes what the server answers to the next `times` (0: all from now on) that come to `step`.
    pub fn change(&self, step: Step, mailbox: &str, times: usize, change: Change) {
        self.shared.script.answer(step, mailbox, times, Act::Change(change));
    }

    /// Hangs up without a word on the next `times` (0: all from now on) that come to `step`.
    pub fn cut(&self, step: Step, mailbox: &str, times: usize) {
        self.shared.script.cut(step, mailbox, times);
    }

    /// Lets the next `times` (0: all from now on) that come to `step` wait: nothing is read or said on their connections
    /// any more in either direction, and nobody is told when the other side ends.
    pub fn stall(&self, step: Step, mailbox: &str, times: usize) -> Stall {
        self.shared.script.stall(step, mailbox, times)
    }

    /// Takes back every order but the stalls.
    pub fn mend(&self) {
        self.shared.script.mend();
    }

    /// Takes back the orders for one mailbox but the stalls.
    pub fn mend_for(&self, mailbox: &str) {
        self.shared.script.mend_for(mailbox);
    }

    /// How often somebody met an order at the mailbox.
    pub fn met(&self, mailbox: &str) -> usize {
        self.shared.script.met(mailbox)
    }

    /// Ends the connections of a mailbox, whatever they are at, each with this line (empty: without a word). How many.
    pub fn end(&self, mailbox: &str, text: &str) -> usize {
        self.shared.tally.end(mailbox, text)
    }

    /// Announces these capabilities before the sign-in, for example `IMAP4rev1 AUTH=OAUTHBEARER`, in place of the
    /// server's own.
    pub fn set_offers(&self, capabilities: &str) {
        self.shared.rules().offers = Some(capabilities.to_owned());
    }

    /// Greets and signs in with the words of Exchange, and says that it can what Exchange can.
    pub fn speak_as_exchange(&self) {
        let mut rules = self.shared.rules();
        rules.exchange = true;
        rules.offers = Some(answers::OFFERS.to_owned());
    }

    /// Hangs up on a session when so many of its commands were answered BAD; at Exchange it is about ten.
    pub fn set_patience(&self, commands: usize) {
        self.shared.rules().patience = Some(commands);
    }

    /// How clients have signed in: `AUTHENTICATE PLAIN`, `LOGIN`, …
    pub fn sign_ins(&self) -> Vec<String> {
        self.shared.tally.ways()
    }

    /// When somebody tried to sign in to the mailbox.
    pub fn tries(&self, mailbox: &str) -> Vec<Instant> {
        self.shared.tally.tries(mailbox)
    }

    /// The commands that were given after sign-ins to the mailbox, without their arguments: `SELECT`, `UID FETCH`, …
    pub fn commands(&self, mailbox: &str) -> Vec<String> {
        self.shared.tally.commands(mailbox)
    }

    /// Connections that are signed in to the mailbox now.
    pub fn open(&self, mailbox: &str) -> usize {
        self.shared.tally.open(mailbox)
    }

    /// Sessions of the mailbox that were ended because too many of their commands were refused.
    pub fn given_up(&self, mailbox: &str) -> usize {
        self.shared.tally.given_up(mailbox)
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Shared {
    fn rules(&self) -> MutexGuard<'_, Rules> {
        // Nothing panics while it is locked; poisoned rules would still be whole.
        self.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_told_apart() {
        for (line, step) in [
            ("A1 UID FETCH 1:* (UID FLAGS)", Step::Look),
            ("A1 UID FETCH 1 (UID BODY.PEEK[])", Step::Fetch),
            ("A1 SELECT INBOX", Step::Open),
            ("A1 UID MOVE 1 Done", Step::Move),
            ("A1 NOOP", Step::Other),
        ] {
            let verb =
                line.split(" ").skip(1).take(if line.contains("UID ") { 2 } else { 1 }).collect::<Vec<_>>().join(" ");
            assert_eq!(Step::of(&verb, line), step, "{line}");
        }
    }
}

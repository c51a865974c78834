//! One client's conversation.

use std::{
    future::pending,
    io,
    ops::ControlFlow::{self, Break, Continue},
    time::Duration,
};

use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf},
    net::TcpStream,
};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use super::{
    Act, Shared, Step, answers,
    change::{self, Change, Told},
    parts::{Part, Parts},
    tally::SignedIn,
};
use crate::{sasl::claimed_name, script::Met};

/// Longest wait for a message that is to be told of before IDLE begins.
const NEWS: Duration = Duration::from_secs(60);
/// How often the server is asked for it.
const ASKING: Duration = Duration::from_millis(50);
/// Between two words of a server that gives no answer.
const CHATTER: Duration = Duration::from_millis(100);
/// The tag of the front's own commands; no client uses it.
const OWN_TAG: &str = "front";
/// Longest time for a clean end.
const GOODBYE: Duration = Duration::from_secs(1);

/// Serves a client until one of both sides hangs up.
pub(super) async fn serve(tcp: TcpStream, acceptor: TlsAcceptor, shared: &Shared) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    let client = TlsStream::from(acceptor.accept(tcp).await?);
    let tcp = TcpStream::connect(shared.upstream).await?;
    tcp.set_nodelay(true)?;
    let name = ServerName::IpAddress(shared.upstream.ip().into());
    let server = TlsStream::from(TlsConnector::from(shared.connector.clone()).connect(name, tcp).await?);
    let (from_client, to_client) = tokio::io::split(client);
    let (from_server, to_server) = tokio::io::split(server);
    let mut session = Session {
        shared,
        client: Parts::new(from_client),
        to_client,
        server: Parts::new(from_server),
        to_server,
        phase: Phase::Greeted,
        mailbox: String::new(),
        signed_in: None,
        command: None,
        bads: 0,
    };
    session.greet().await?;
    loop {
        tokio::select! {
            part = session.client.next() => match part? {
                Some(part) => session.heard(part).await?,
                None => return Ok(()),
            },
            answer = session.server.whole() => match answer? {
                Some(answer) => session.answered(answer).await?,
                None => return Ok(()),
            },
            text = last_words(&mut session.signed_in) => {
                if !text.is_empty() {
                    session.say(format!("{text}\r\n").as_bytes()).await?;
                }
                return Err(session.hang_up().await);
            }
        }
    }
}

/// What a connection is told to say before it ends.
async fn last_words(signed_in: &mut Option<SignedIn<'_>>) -> String {
    let Some(signed_in) = signed_in else { return pending().await };
    let told = signed_in.last.wait_for(Option::is_some).await.ok().and_then(|last| last.clone());
    match told {
        Some(text) => text,
        None => pending().await,
    }
}

struct Session<'a> {
    shared: &'a Shared,
    client: Parts<ReadHalf<TlsStream<TcpStream>>>,
    to_client: WriteHalf<TlsStream<TcpStream>>,
    server: Parts<ReadHalf<TlsStream<TcpStream>>>,
    to_server: WriteHalf<TlsStream<TcpStream>>,
    phase: Phase,
    /// Whose sign-in was last tried; empty before one.
    mailbox: String,
    signed_in: Option<SignedIn<'a>>,
    /// The command that the server is answering.
    command: Option<Command>,
    /// Commands that were answered BAD.
    bads: usize,
}

#[derive(Clone, Debug)]
enum Phase {
    /// Nobody is signed in.
    Greeted,
    /// The client was asked for its credentials.
    Credentials { tag: String, mechanism: String },
    /// The server looks at them.
    SigningIn { tag: String },
    /// Somebody is signed in.
    In,
}

#[derive(Debug)]
struct Command {
    tag: String,
    step: Step,
    change: Option<Change>,
    /// Messages whose data have come.
    fetched: usize,
}

impl Session<'_> {
    async fn greet(&mut self) -> io::Result<()> {
        let own = self.server.whole().await?.ok_or(io::ErrorKind::UnexpectedEof)?;
        let rules = self.shared.rules().clone();
        match rules.offers {
            _ if rules.exchange => self.say(format!("{}\r\n", answers::GREETING).as_bytes()).await,
            Some(offers) => self.say(format!("* OK [CAPABILITY {offers}] the front is ready\r\n").as_bytes()).await,
            None => self.say(&own).await,
        }
    }

    /// Something came from the client.
    async fn heard(&mut self, part: Part) -> io::Result<()> {
        let Part { bytes, begins } = part;
        let idles = self.command.as_ref().is_some_and(|command| command.step == Step::Idle);
        let line = String::from_utf8_lossy(&bytes).trim_end_matches(['\r', '\n']).to_owned();
        match self.phase.clone() {
            Phase::Credentials { tag, mechanism } => {
                let mailbox = claimed_name(&mechanism, &line).unwrap_or_default();
                let command = format!("{tag} AUTHENTICATE {mechanism} {line}\r\n");
                self.sign_in(tag, mailbox, command.as_bytes()).await
            }
            Phase::Greeted if begins => self.before_sign_in(&line, &bytes).await,
            Phase::In if begins && !idles => self.command(&line, &bytes).await,
            _ => self.ask(&bytes).await,
        }
    }

    async fn before_sign_in(&mut self, line: &str, bytes: &[u8]) -> io::Result<()> {
        let mut words = line.split_whitespace();
        let mut word = || words.next().unwrap_or_default().to_owned();
        let (tag, verb, first, second) = (word(), word().to_uppercase(), word(), word());
        match verb.as_str() {
            "CAPABILITY" => {
                let Some(offers) = self.shared.rules().offers.clone() else { return self.ask(bytes).await };
                let said = format!("* CAPABILITY {offers}\r\n{tag} OK CAPABILITY completed.\r\n");
                self.say(said.as_bytes()).await
            }
            "AUTHENTICATE" => {
                let mechanism = first.to_uppercase();
                self.shared.tally.way(format!("AUTHENTICATE {mechanism}"));
                if second.is_empty() {
                    self.phase = Phase::Credentials { tag, mechanism };
                    return self.say(b"+ \r\n").await;
                }
                let mailbox = claimed_name(&mechanism, &second).unwrap_or_default();
                self.sign_in(tag, mailbox, bytes).await
            }
            "LOGIN" => {
                self.shared.tally.way("LOGIN".to_owned());
                self.sign_in(tag, first.trim_matches('"').to_owned(), bytes).await
            }
            _ => self.ask(bytes).await,
        }
    }

    /// The credentials have come; `command` hands them to the server.
    async fn sign_in(&mut self, tag: String, mailbox: String, command: &[u8]) -> io::Result<()> {
        self.shared.tally.tried(&mailbox);
        self.mailbox = mailbox;
        self.phase = Phase::Greeted;
        if self.meet(Step::SignIn, &tag).await?.is_break() {
            return Ok(());
        }
        self.phase = Phase::SigningIn { tag };
        self.ask(command).await
    }

    async fn command(&mut self, line: &str, bytes: &[u8]) -> io::Result<()> {
        let mut words = line.split_whitespace();
        let tag = words.next().unwrap_or_default().to_owned();
        let mut verb = words.next().unwrap_or_default().to_uppercase();
        if verb == "UID" {
            verb = format!("UID {}", words.next().unwrap_or_default().to_uppercase());
        }
        self.shared.tally.asked(&self.mailbox, verb.clone());
        let step = Step::of(&verb, line);
        let Continue(change) = self.meet(step, &tag).await? else { return Ok(()) };
        if change == Some(Change::ExistsFirst) {
            self.wait_for_news().await?;
        }
        let own = (self.shared.rules().exchange && step == Step::Capability)
            .then(|| Change::Capabilities(answers::CAPABILITIES.to_owned()));
        self.command = Some(Command { tag, step, change: change.or(own), fetched: 0 });
        self.ask(bytes).await
    }

    /// Something came from the server.
    async fn answered(&mut self, answer: Vec<u8>) -> io::Result<()> {
        if let Phase::SigningIn { tag } = self.phase.clone() {
            return self.sign_in_answered(&tag, answer).await;
        }
        let Some(command) = &mut self.command else { return self.say(&answer).await };
        let tag = command.tag.clone();
        let is_end = answer.starts_with(format!("{tag} ").as_bytes());
        let waits = command.step == Step::Idle && answer.starts_with(b"+");
        let is_data = change::fetch(&answer).is_some();
        let told = match &command.change {
            Some(change) => change.told(answer, &tag, command.fetched),
            None => Told::This(answer),
        };
        command.fetched += usize::from(is_data);
        let said = match told {
            Told::This(said) => said,
            Told::Nothing => Vec::new(),
            Told::Last(said) => {
                self.say(&said).await?;
                return Err(self.hang_up().await);
            }
        };
        self.say(&said).await?;
        if is_end {
            self.command = None;
            if said.starts_with(format!("{tag} BAD").as_bytes()) {
                self.count_bad().await?;
            }
        }
        if waits {
            // Whatever is said from here on the client has not asked for.
            let _ = self.meet(Step::Idling, "*").await?;
        }
        Ok(())
    }

    async fn sign_in_answered(&mut self, tag: &str, answer: Vec<u8>) -> io::Result<()> {
        let text = String::from_utf8_lossy(&answer).into_owned();
        let Some(status) = text.strip_prefix(&format!("{tag} ")) else { return self.say(&answer).await };
        if !status.starts_with("OK") {
            self.phase = Phase::Greeted;
            return self.say(&answer).await;
        }
        self.phase = Phase::In;
        self.signed_in = Some(self.shared.tally.signed_in(&self.mailbox));
        if self.shared.rules().exchange {
            return self.say(format!("{tag} {}\r\n", answers::SIGNED_IN).as_bytes()).await;
        }
        self.say(&answer).await
    }

    /// Comes to a step, and does what is ordered there. Break: the command was answered.
    async fn meet(&mut self, step: Step, tag: &str) -> io::Result<ControlFlow<(), Option<Change>>> {
        let met = self.shared.script.meet(step, &self.mailbox).await;
        match met {
            Met::Nothing => Ok(Continue(None)),
            Met::Cut => Err(cut_off()),
            Met::Answer(Act::Say(text)) => {
                let is_status = ["OK ", "NO ", "BAD "].iter().any(|word| text.starts_with(word));
                if !is_status || step == Step::Idling {
                    self.say(format!("{text}\r\n").as_bytes()).await?;
                    return Err(self.hang_up().await);
                }
                self.say(format!("{tag} {text}\r\n").as_bytes()).await?;
                if text.starts_with("BAD") {
                    self.count_bad().await?;
                }
                Ok(Break(()))
            }
            Met::Answer(Act::Change(Change::Before(text))) => {
                self.say(format!("{text}\r\n").as_bytes()).await?;
                Ok(Continue(None))
            }
            Met::Answer(Act::Change(Change::Chatter)) => loop {
                self.say(b"* OK Still here\r\n").await?;
                tokio::time::sleep(CHATTER).await;
            },
            Met::Answer(Act::Change(change)) => Ok(Continue(Some(change))),
        }
    }

    /// Exchange hangs up on those whose commands it does not understand.
    async fn count_bad(&mut self) -> io::Result<()> {
        self.bads += 1;
        if self.shared.rules().patience.is_none_or(|most| self.bads < most) {
            return Ok(());
        }
        self.shared.tally.give_up(&self.mailbox);
        self.say(format!("{}\r\n", answers::CONNECTION_CLOSED).as_bytes()).await?;
        Err(self.hang_up().await)
    }

    /// Asks the server until it has told of a message, which it then does not repeat in IDLE.
    async fn wait_for_news(&mut self) -> io::Result<()> {
        let asking = async {
            loop {
                self.ask(format!("{OWN_TAG} NOOP\r\n").as_bytes()).await?;
                let mut news = false;
                loop {
                    let answer = self.server.whole().await?.ok_or(io::ErrorKind::UnexpectedEof)?;
                    if answer.starts_with(OWN_TAG.as_bytes()) {
                        break;
                    }
                    news |= answer.ends_with(b" EXISTS\r\n");
                    self.say(&answer).await?;
                }
                if news {
                    return Ok(());
                }
                tokio::time::sleep(ASKING).await;
            }
        };
        tokio::time::timeout(NEWS, asking).await?
    }

    async fn ask(&mut self, bytes: &[u8]) -> io::Result<()> {
        send(&mut self.to_server, bytes).await
    }

    async fn say(&mut self, bytes: &[u8]) -> io::Result<()> {
        send(&mut self.to_client, bytes).await
    }

    /// Ends the connection so that what was said before arrives.
    async fn hang_up(&mut self) -> io::Error {
        // However it goes, it is over.
        let _ = tokio::time::timeout(GOODBYE, self.to_client.shutdown()).await;
        cut_off()
    }
}

async fn send(to: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> io::Result<()> {
    to.write_all(bytes).await?;
    to.flush().await
}

fn cut_off() -> io::Error {
    io::Error::other("cut off by the testbed")
}

//! One client's conversation.

use std::{io, time::Duration};

use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufStream},
    net::TcpStream,
};
use tokio_rustls::TlsAcceptor;

use super::{
    Shared, Step, answers,
    tally::SignedIn,
    upstream::{self, Upstream},
};
use crate::{sasl::claimed_name, script::Met};

/// After this time without a command it hangs up, as Exchange does.
const PATIENCE: Duration = Duration::from_secs(600);
/// Where the text of a mail that is said to begin has come is looked at: at most so much.
const HEAD_BYTES: usize = 64 << 10;

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// Serves a client until one of both hangs up.
pub(super) async fn serve(tcp: TcpStream, acceptor: TlsAcceptor, tls_first: bool, shared: &Shared) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    let stream: Box<dyn Stream> = if tls_first { Box::new(acceptor.accept(tcp).await?) } else { Box::new(tcp) };
    let mut session = Session {
        shared,
        client: BufStream::new(stream),
        secured: tls_first,
        upstream: None,
        signed_in: None,
        recipients: Vec::new(),
    };
    if session.step(Step::Greeting).await? {
        session.say(&["220 testbed Microsoft ESMTP MAIL Service ready".to_owned()]).await?;
    }
    loop {
        let line = session.line().await?;
        let mut words = line.split_whitespace();
        let verb = words.next().unwrap_or_default().to_uppercase();
        match verb.as_str() {
            "STARTTLS" if !session.secured => {
                if session.step(Step::StartTls).await? {
                    session.say(&["220 2.0.0 SMTP server ready".to_owned()]).await?;
                    let plain = std::mem::replace(&mut session.client, BufStream::new(Box::new(tokio::io::empty())));
                    session.client = BufStream::new(Box::new(acceptor.accept(plain.into_inner()).await?));
                    session.secured = true;
                }
            }
            "QUIT" => {
                session.say(&["221 2.0.0 Service closing transmission channel".to_owned()]).await?;
                return Ok(());
            }
            _ => session.command(&verb, &line).await?,
        }
    }
}

struct Session<'a> {
    shared: &'a Shared,
    client: BufStream<Box<dyn Stream>>,
    secured: bool,
    /// There from the sign-in on.
    upstream: Option<Upstream>,
    signed_in: Option<SignedIn<'a>>,
    recipients: Vec<String>,
}

impl Session<'_> {
    async fn command(&mut self, verb: &str, line: &str) -> io::Result<()> {
        match verb {
            "EHLO" | "HELO" => {
                if self.step(Step::Hello).await? {
                    self.say(&self.capabilities()).await?;
                }
                Ok(())
            }
            "AUTH" => self.sign_in(line).await,
            "MAIL" => {
                let mailbox = self.mailbox();
                if self.signed_in.is_none() {
                    return self.say(&[answers::NOT_AUTHENTICATED.to_owned()]).await;
                }
                if !self.step(Step::Sender).await? {
                    return Ok(());
                }
                if self.shared.tally.open(&mailbox) > self.shared.rules().connections {
                    return self.say(&[answers::TOO_MANY_CONNECTIONS.to_owned()]).await;
                }
                self.recipients.clear();
                self.pass(line).await.map(drop)
            }
            "RCPT" => {
                if self.step(Step::Recipient).await? && self.pass(line).await? {
                    let address = line.split_once('<').and_then(|(_, rest)| rest.split_once('>'));
                    self.recipients.push(address.map_or(line, |(address, _)| address).to_owned());
                }
                Ok(())
            }
            "DATA" => self.data().await,
            "RSET" => {
                self.recipients.clear();
                self.pass(line).await.map(drop)
            }
            _ => self.pass(line).await.map(drop),
        }
    }

    fn capabilities(&self) -> Vec<String> {
        let last = if self.secured { "250 AUTH LOGIN PLAIN XOAUTH2" } else { "250 STARTTLS" };
        let names =
            ["testbed Hello [127.0.0.1]", "SIZE 157286400", "PIPELINING", "DSN", "ENHANCEDSTATUSCODES", "8BITMIME"];
        names.iter().map(|name| format!("250-{name}")).chain([last.to_owned()]).collect()
    }

    fn mailbox(&self) -> String {
        self.signed_in.as_ref().map_or(String::new(), |it| it.mailbox().to_owned())
    }

    /// AUTH with or without an initial response.
    async fn sign_in(&mut self, line: &str) -> io::Result<()> {
        if !self.secured {
            return self.say(&["530 5.7.0 Must issue a STARTTLS command first".to_owned()]).await;
        }
        let mut words = line.split_whitespace().skip(1);
        let mechanism = words.next().unwrap_or_default().to_uppercase();
        let response = match words.next() {
            Some(response) => response.to_owned(),
            None => {
                self.say(&["334 ".to_owned()]).await?;
                self.line().await?
            }
        };
        let mailbox = claimed_name(&mechanism, &response).unwrap_or_default();
        if !self.step_for(Step::SignIn, &mailbox).await? {
            return Ok(());
        }
        let password = self.shared.rules().password.clone().filter(|_| mechanism != "XOAUTH2");
        if let Some(answer) = password {
            return self.say(&[answer]).await;
        }
        let mut upstream = Upstream::connect(self.shared.upstream, &self.shared.connector).await?;
        let mut reply = upstream.ask(&format!("AUTH {mechanism} {response}")).await?;
        if upstream::is(&reply, '3') {
            // A token that is refused is first told why, which Exchange leaves out.
            reply = upstream.ask("").await?;
        }
        if upstream::is(&reply, '2') {
            self.upstream = Some(upstream);
            self.signed_in = Some(self.shared.tally.signed_in(&mailbox));
        }
        self.say(&upstream::translated(reply)).await
    }

    /// DATA, and the mail.
    async fn data(&mut self) -> io::Result<()> {
        if self.recipients.is_empty() {
            return self.say(&["503 5.5.2 Need rcpt command".to_owned()]).await;
        }
        if !self.step(Step::Data).await? {
            return self.reset().await;
        }
        self.say(&["354 Start mail input; end with <CRLF>.<CRLF>".to_owned()]).await?;
        let mut mail = Vec::new();
        let mut is_begun = false;
        loop {
            let start = mail.len();
            if self.client.read_until(b'\n', &mut mail).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if &mail[start..] == b".\r\n" {
                break;
            }
            if !is_begun && (&mail[start..] == b"\r\n" || mail.len() > HEAD_BYTES) {
                is_begun = true;
                self.shared.tally.begin(&message_id(&mail));
                if !self.step(Step::Body).await? {
                    return self.reset().await;
                }
            }
        }
        if !self.step(Step::End).await? {
            return self.reset().await;
        }
        let Some(upstream) = &mut self.upstream else { return Ok(()) };
        let mut reply = upstream.ask("DATA").await?;
        if upstream::is(&reply, '3') {
            upstream.send(&mail).await?;
            reply = upstream.reply().await?;
        }
        if upstream::is(&reply, '2') {
            self.shared.tally.accept(&self.mailbox(), &message_id(&mail), &self.recipients);
            if !self.step(Step::Accepted).await? {
                return Ok(());
            }
        }
        self.recipients.clear();
        self.say(&upstream::translated(reply)).await
    }

    /// Forgets the mail that was begun.
    async fn reset(&mut self) -> io::Result<()> {
        self.recipients.clear();
        match &mut self.upstream {
            Some(upstream) => upstream.ask("RSET").await.map(drop),
            None => Ok(()),
        }
    }

    /// Lets Postfix answer. Whether it agreed.
    async fn pass(&mut self, line: &str) -> io::Result<bool> {
        let Some(upstream) = &mut self.upstream else {
            let reply = if line.to_uppercase().starts_with("NOOP") || line.to_uppercase().starts_with("RSET") {
                "250 2.0.0 Resetting"
            } else {
                "503 5.5.2 Send hello first"
            };
            return self.say(&[reply.to_owned()]).await.map(|()| false);
        };
        let reply = upstream.ask(line).await?;
        let agreed = upstream::is(&reply, '2');
        self.say(&upstream::translated(reply)).await?;
        Ok(agreed)
    }

    /// Comes to a step: whether the conversation goes on as if nothing had been ordered there.
    async fn step(&mut self, step: Step) -> io::Result<bool> {
        let mailbox = self.mailbox();
        self.step_for(step, &mailbox).await
    }

    async fn step_for(&mut self, step: Step, mailbox: &str) -> io::Result<bool> {
        match self.shared.script.meet(step, mailbox).await {
            Met::Nothing => Ok(true),
            Met::Answer(answer) => {
                let hangs_up = answer.starts_with("421");
                self.say(&[answer]).await?;
                if hangs_up { Err(cut_off()) } else { Ok(false) }
            }
            Met::Cut => Err(cut_off()),
        }
    }

    async fn line(&mut self) -> io::Result<String> {
        let mut line = Vec::new();
        let read = tokio::time::timeout(PATIENCE, self.client.read_until(b'\n', &mut line)).await;
        match read {
            Ok(Ok(0)) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(Ok(_)) => Ok(String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']).to_owned()),
            Ok(Err(error)) => Err(error),
            Err(_) => {
                self.say(&[answers::TIMED_OUT.to_owned()]).await?;
                Err(io::ErrorKind::TimedOut.into())
            }
        }
    }

    async fn say(&mut self, lines: &[String]) -> io::Result<()> {
        let text: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
        self.client.write_all(text.as_bytes()).await?;
        self.client.flush().await
    }
}

fn cut_off() -> io::Error {
    io::Error::other("cut off by the testbed")
}

/// The Message-ID in the head of a mail, without brackets; empty when there is none.
fn message_id(mail: &[u8]) -> String {
    let head = String::from_utf8_lossy(&mail[..mail.len().min(HEAD_BYTES)]).into_owned();
    let lines = head.lines().take_while(|line| !line.is_empty());
    let mut lines = lines.skip_while(|line| !line.to_ascii_lowercase().starts_with("message-id:"));
    let first = lines.next().map(|line| line["message-id:".len()..].to_owned());
    // Folded where it is long.
    let rest = lines.take_while(|line| line.starts_with([' ', '\t'])).map(str::to_owned);
    let value: String = first.into_iter().chain(rest).collect();
    value.trim().trim_start_matches('<').trim_end_matches('>').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_id_is_found_in_the_head_and_nowhere_else() {
        let found = |mail: &str| message_id(mail.as_bytes());
        assert_eq!(found("From: a\r\nMessage-ID: <one@x>\r\n\r\nbody"), "one@x");
        assert_eq!(found("message-id:\r\n <two@x>\r\nTo: b\r\n\r\n"), "two@x");
        assert_eq!(found("From: a\r\n\r\nMessage-ID: <three@x>\r\n"), "");
    }
}

//! What tests of sending talk to: an outbox, an SMTP server and an HTTP server, each with a script.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use postroom_proto::convert::to_duration;
use postroom_proto::v1::{
    Claim, ClaimedMail, OutgoingAuthentication, OutgoingDefinition, SendTask, SettleMailRequest, SmtpSecurity,
    Transport,
};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio_rustls::TlsAcceptor;

use super::Sending;
use super::outbox::{Error, Outbox};
use crate::config::Reading;
use crate::mailbox::session::Shared;
use crate::mailbox::status::Board;
use crate::report::nobody::Nobody;
use crate::token::broker::Broker;

pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// An SMTP server on this machine that wants no sign-in and has no TLS.
pub(crate) fn relay(port: u16) -> OutgoingDefinition {
    OutgoingDefinition {
        uid: "u".into(),
        name: "relay".into(),
        transport: Transport::Smtp.into(),
        host: "127.0.0.1".into(),
        port: port.into(),
        security: SmtpSecurity::None.into(),
        authentication: OutgoingAuthentication::None.into(),
        ..OutgoingDefinition::default()
    }
}

/// What mails share.
pub(crate) fn secure(keep: Duration) -> Sending {
    let shared = Shared::new(Reading::default(), Arc::new(Nobody), Arc::new(Board::new()));
    Sending { renewed_from: Duration::ZERO, ..Sending::new(shared, keep) }
}

/// What mails share, over plain HTTP.
pub(crate) fn sending(keep: Duration) -> Sending {
    let mut shared = Shared::new(Reading::default(), Arc::new(Nobody), Arc::new(Board::new()));
    shared.broker = Arc::new(Broker::plain(Duration::from_secs(30)));
    Sending { plain: true, renewed_from: Duration::ZERO, ..Sending::new(shared, keep) }
}

/// An outbox that holds what it is given and keeps what it is told.
#[derive(Default)]
pub(crate) struct Ledger {
    mails: Mutex<VecDeque<ClaimedMail>>,
    more: Notify,
    marks: Mutex<VecDeque<Result<Duration, Error>>>,
    raws: Mutex<HashMap<String, Bytes>>,
    /// What the next settlements are answered with.
    pub(crate) losses: Mutex<usize>,
    pub(crate) marked: Mutex<Vec<String>>,
    pub(crate) settled: Mutex<Vec<SettleMailRequest>>,
    told: Notify,
}

impl Ledger {
    /// Answers to the next marks; without any: an hour.
    pub(crate) fn marks(&self, answers: impl IntoIterator<Item = Result<Duration, Error>>) {
        self.marks.lock().unwrap().extend(answers);
    }

    pub(crate) fn put(&self, mail: ClaimedMail) {
        self.mails.lock().unwrap().push_back(mail);
        self.more.notify_one();
    }

    /// What does not come with its claim.
    pub(crate) fn put_apart(&self, mut mail: ClaimedMail) {
        let raw = std::mem::take(&mut mail.raw);
        self.raws.lock().unwrap().insert(mail.mail.clone(), raw);
        self.put(mail);
    }

    /// Waits for so many settlements.
    pub(crate) async fn settlements(&self, count: usize) -> Vec<SettleMailRequest> {
        let enough = async {
            loop {
                let told = self.told.notified();
                let settled = self.settled.lock().unwrap().clone();
                if settled.len() >= count {
                    return settled;
                }
                told.await;
            }
        };
        tokio::time::timeout(PATIENCE, enough).await.expect("settled")
    }
}

#[async_trait]
impl Outbox for Ledger {
    async fn claim(&self, _: &str, most: u32) -> Result<Vec<ClaimedMail>, Error> {
        loop {
            let more = self.more.notified();
            {
                let mut mails = self.mails.lock().unwrap();
                let count = mails.len().min(most as usize);
                if count > 0 {
                    return Ok(mails.drain(..count).collect());
                }
            }
            more.await;
        }
    }

    async fn raw(&self, claim: Claim, size: u64) -> Result<Bytes, Error> {
        let raw = self.raws.lock().unwrap().get(&claim.mail).cloned().ok_or(Error::ClaimLost)?;
        assert_eq!(raw.len() as u64, size);
        Ok(raw)
    }

    async fn mark(&self, claim: Claim) -> Result<Duration, Error> {
        let answer = self.marks.lock().unwrap().pop_front().unwrap_or(Ok(Duration::from_secs(3600)));
        if answer.is_ok() {
            self.marked.lock().unwrap().push(claim.mail);
        }
        answer
    }

    async fn settle(&self, request: SettleMailRequest) -> Result<(), Error> {
        {
            let mut losses = self.losses.lock().unwrap();
            if *losses > 0 {
                *losses -= 1;
                return Err(Error::Unavailable("the answer was lost".into()));
            }
        }
        self.settled.lock().unwrap().push(request);
        self.told.notify_waiters();
        Ok(())
    }
}

/// A claimed mail to send.
pub(crate) fn mail(id: &str, definition: &OutgoingDefinition, recipients: &[&str], raw: &str) -> ClaimedMail {
    ClaimedMail {
        traceparent: String::new(),
        mail: id.into(),
        token: format!("token-{id}"),
        time_left: Some(to_duration(Duration::from_secs(600))),
        task: SendTask::Submit.into(),
        definition: Some(definition.clone()),
        sender: "support@contoso.example".into(),
        recipients: recipients.iter().map(|one| (*one).to_owned()).collect(),
        message_id: format!("{id}@contoso.example"),
        size_bytes: raw.len() as u64,
        raw: Bytes::from(raw.to_owned()),
        attempt: 1,
    }
}

/// A certificate for 127.0.0.1, and the file by which it is trusted.
pub(crate) struct Certificate {
    pub(crate) acceptor: TlsAcceptor,
    folder: TempDir,
}

impl Certificate {
    pub(crate) fn new() -> Self {
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(signing_key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key)
            .unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), cert.pem()).unwrap();
        Self { acceptor: TlsAcceptor::from(Arc::new(config)), folder }
    }

    pub(crate) fn file(&self) -> String {
        self.folder.path().join("ca.pem").display().to_string()
    }
}

/// An SMTP server that answers each line by a function of it: `None` closes the connection, `Some("")` says nothing.
/// After a 354 it takes the mail to its end and asks the function about `"."`; after "354 half" it hangs up half way.
#[derive(Clone)]
pub(crate) struct Smtp {
    pub(crate) port: u16,
    /// Every line that came in, of all connections, and each mail as it came.
    pub(crate) heard: Arc<Mutex<Vec<String>>>,
    pub(crate) mails: Arc<Mutex<Vec<Vec<u8>>>>,
    pub(crate) connections: Arc<Mutex<usize>>,
}

/// What a script is asked for first on each connection.
pub(crate) const GREETING: &str = "<greeting>";

pub(crate) type Script = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

impl Smtp {
    /// `tls`: what STARTTLS leads to, or what is spoken from the first byte.
    pub(crate) async fn start(certificate: Option<&Certificate>, implicit: bool, script: Script) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self {
            port: listener.local_addr().unwrap().port(),
            heard: Arc::default(),
            mails: Arc::default(),
            connections: Arc::default(),
        };
        let (playing, acceptor) = (server.clone(), certificate.map(|certificate| certificate.acceptor.clone()));
        tokio::spawn(async move {
            loop {
                let Ok((socket, _)) = listener.accept().await else { return };
                *playing.connections.lock().unwrap() += 1;
                let (playing, acceptor, script) = (playing.clone(), acceptor.clone(), script.clone());
                tokio::spawn(async move {
                    match acceptor {
                        Some(acceptor) if implicit => {
                            let Ok(secure) = acceptor.accept(socket).await else { return };
                            playing.serve(secure, &script, true).await;
                        }
                        acceptor => {
                            let Some(socket) = playing.serve(socket, &script, true).await else { return };
                            let Some(acceptor) = acceptor else { return };
                            let Ok(secure) = acceptor.accept(socket).await else { return };
                            playing.serve(secure, &script, false).await;
                        }
                    }
                });
            }
        });
        server
    }

    /// Returns the stream when STARTTLS was granted.
    async fn serve<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: S, script: &Script, greets: bool) -> Option<S> {
        let mut stream = BufReader::new(stream);
        if greets {
            stream.write_all(script(GREETING)?.as_bytes()).await.ok()?;
        }
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).await.ok()? == 0 {
                return None;
            }
            let line = line.trim_end_matches("\r\n").to_owned();
            self.heard.lock().unwrap().push(line.clone());
            let answer = script(&line)?;
            stream.write_all(answer.as_bytes()).await.ok()?;
            if line == "STARTTLS" && answer.starts_with("220") {
                return Some(stream.into_inner());
            }
            if answer.starts_with("354 half") {
                let _ = stream.read_exact(&mut [0; 100]).await;
                return None;
            }
            if answer.starts_with("354") {
                let mut mail = Vec::new();
                while !mail.ends_with(b"\r\n.\r\n") {
                    let byte = stream.read_u8().await.ok()?;
                    mail.push(byte);
                }
                mail.truncate(mail.len() - 3);
                self.mails.lock().unwrap().push(mail);
                stream.write_all(script(".")?.as_bytes()).await.ok()?;
            }
        }
    }

    pub(crate) fn heard(&self) -> Vec<String> {
        self.heard.lock().unwrap().clone()
    }
}

/// A server that takes everything, with STARTTLS and sign-in by whatever is said.
pub(crate) fn obliging(line: &str) -> Option<String> {
    Some(match line.split(' ').next().unwrap_or_default() {
        GREETING => "220 ready\r\n".into(),
        "EHLO" => {
            "250-x.example\r\n250-STARTTLS\r\n250-SIZE 1000000\r\n250-AUTH XOAUTH2 PLAIN LOGIN\r\n250 8BITMIME\r\n"
                .into()
        }
        "STARTTLS" => "220 go\r\n".into(),
        "AUTH" => "334 \r\n".into(),
        "DATA" => "354 go\r\n".into(),
        "." => "250 2.0.0 queued as 1\r\n".into(),
        "QUIT" => "221 bye\r\n".into(),
        "MAIL" | "RCPT" | "NOOP" => "250 2.1.0 OK\r\n".into(),
        _ => "235 2.7.0 welcome\r\n".into(),
    })
}

/// A request that came to an HTTP server.
#[derive(Debug, Clone, Default)]
pub(crate) struct Asked {
    pub(crate) line: String,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

/// What an HTTP server does with a request: status, further header lines and body; `None` closes the connection.
pub(crate) type Answers = Arc<dyn Fn(&Asked) -> Option<(u16, String, String)> + Send + Sync>;

/// An HTTP server. It closes each connection after one answer.
pub(crate) struct Http {
    pub(crate) port: u16,
    pub(crate) asked: Arc<Mutex<Vec<Asked>>>,
}

impl Http {
    pub(crate) async fn start(answers: Answers) -> Self {
        Self::serve(None, answers).await
    }

    /// With TLS.
    pub(crate) async fn start_secure(certificate: &Certificate, answers: Answers) -> Self {
        Self::serve(Some(certificate.acceptor.clone()), answers).await
    }

    async fn serve(acceptor: Option<TlsAcceptor>, answers: Answers) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self { port: listener.local_addr().unwrap().port(), asked: Arc::default() };
        let kept = server.asked.clone();
        tokio::spawn(async move {
            loop {
                let Ok((socket, _)) = listener.accept().await else { return };
                let (kept, answers, acceptor) = (kept.clone(), answers.clone(), acceptor.clone());
                tokio::spawn(async move {
                    match acceptor {
                        None => answer(socket, &kept, &answers).await,
                        Some(acceptor) => {
                            let Ok(secure) = acceptor.accept(socket).await else { return };
                            answer(secure, &kept, &answers).await;
                        }
                    }
                });
            }
        });
        server
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.asked.lock().unwrap().iter().map(|asked| asked.line.clone()).collect()
    }
}

async fn answer<S: AsyncRead + AsyncWrite + Unpin>(socket: S, kept: &Mutex<Vec<Asked>>, answers: &Answers) {
    let mut socket = BufReader::new(socket);
    let Some(asked) = read(&mut socket).await else { return };
    kept.lock().unwrap().push(asked.clone());
    let Some((status, headers, body)) = answers(&asked) else { return };
    // Unless the script says another one.
    let length = match headers.contains("content-length") {
        true => String::new(),
        false => format!("content-length: {}\r\n", body.len()),
    };
    let answer = format!("HTTP/1.1 {status} X\r\nconnection: close\r\n{length}{headers}\r\n{body}");
    let _ = socket.write_all(answer.as_bytes()).await;
    let _ = socket.shutdown().await;
}

async fn read<S: AsyncRead + Unpin>(socket: &mut BufReader<S>) -> Option<Asked> {
    let mut asked = Asked::default();
    socket.read_line(&mut asked.line).await.ok()?;
    asked.line = asked.line.trim_end().trim_end_matches(" HTTP/1.1").to_owned();
    let mut length = 0;
    loop {
        let mut line = String::new();
        if socket.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        let lower = line.to_lowercase();
        if let Some(text) = lower.strip_prefix("content-length:") {
            length = text.trim().parse().ok()?;
        }
        if line == "\r\n" {
            break;
        }
        asked.head += &line;
    }
    asked.body = vec![0; length];
    socket.read_exact(&mut asked.body).await.ok()?;
    Some(asked)
}

/// A token endpoint's answer.
pub(crate) fn token(text: &str) -> Option<(u16, String, String)> {
    Some((200, String::new(), format!(r#"{{"access_token":"{text}","expires_in":3599}}"#)))
}

//! A bare client of submission, and tokens to sign in with.

#![allow(dead_code, clippy::unwrap_used, reason = "each test crate uses a part of it, and ends where it fails")]

use std::{fmt, io, net::SocketAddr, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use postroom_testbed::{App, Authority, Testbed};
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufStream},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

const PATIENCE: Duration = Duration::from_secs(120);

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// A connection that has said EHLO.
pub(crate) struct Client {
    stream: BufStream<Box<dyn Stream>>,
    capabilities: Vec<String>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.capabilities)
    }
}

/// The last line of a reply.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Reply(pub(crate) String);

impl Reply {
    pub(crate) fn code(&self) -> u16 {
        self.0[..3].parse().unwrap()
    }
}

impl Client {
    pub(crate) async fn plain(addr: SocketAddr) -> io::Result<Self> {
        let tcp = TcpStream::connect(addr).await?;
        Self::greeted(BufStream::new(Box::new(tcp))).await
    }

    pub(crate) async fn starttls(addr: SocketAddr, authority: &Authority) -> io::Result<Self> {
        let tcp = TcpStream::connect(addr).await?;
        let mut stream: BufStream<TcpStream> = BufStream::new(tcp);
        for command in ["", "EHLO test\r\n", "STARTTLS\r\n"] {
            stream.write_all(command.as_bytes()).await?;
            stream.flush().await?;
            read(&mut stream).await?;
        }
        let tls = secured(stream.into_inner(), authority).await?;
        let mut client = Self { stream: BufStream::new(tls), capabilities: Vec::new() };
        client.hello().await?;
        Ok(client)
    }

    pub(crate) async fn tls(addr: SocketAddr, authority: &Authority) -> io::Result<Self> {
        let tls = secured(TcpStream::connect(addr).await?, authority).await?;
        Self::greeted(BufStream::new(tls)).await
    }

    async fn greeted(stream: BufStream<Box<dyn Stream>>) -> io::Result<Self> {
        let mut client = Self { stream, capabilities: Vec::new() };
        client.reply().await?;
        client.hello().await?;
        Ok(client)
    }

    async fn hello(&mut self) -> io::Result<()> {
        self.stream.write_all(b"EHLO test\r\n").await?;
        self.stream.flush().await?;
        self.capabilities = bounded(read(&mut self.stream)).await?;
        match self.capabilities.last() {
            Some(line) if line.starts_with("250") => Ok(()),
            other => Err(io::Error::other(format!("{other:?}"))),
        }
    }

    pub(crate) fn offers(&self, capability: &str) -> bool {
        self.capabilities.iter().any(|line| line[4..].starts_with(capability))
    }

    /// Sends a command and returns the last line of its reply.
    pub(crate) async fn ask(&mut self, command: &str) -> io::Result<String> {
        self.stream.write_all(format!("{command}\r\n").as_bytes()).await?;
        self.stream.flush().await?;
        self.reply().await
    }

    pub(crate) async fn reply(&mut self) -> io::Result<String> {
        let lines = bounded(read(&mut self.stream)).await?;
        Ok(lines.last().cloned().unwrap_or_default())
    }

    pub(crate) async fn sign_in(&mut self, mailbox: &str, token: &str) -> io::Result<String> {
        let response = STANDARD.encode(format!("user={mailbox}\x01auth=Bearer {token}\x01\x01"));
        self.ask(&format!("AUTH XOAUTH2 {response}")).await
    }

    pub(crate) async fn sign_in_with_password(&mut self, mailbox: &str, password: &str) -> io::Result<String> {
        self.ask(&format!("AUTH PLAIN {}", STANDARD.encode(format!("\0{mailbox}\0{password}")))).await
    }

    /// Sends a mail as far as the server lets it: the last reply.
    pub(crate) async fn send(&mut self, from: &str, to: &[&str], mail: &str) -> io::Result<Reply> {
        let mut commands = vec![format!("MAIL FROM:<{from}>")];
        commands.extend(to.iter().map(|to| format!("RCPT TO:<{to}>")));
        commands.extend(["DATA".to_owned(), format!("{mail}.")]);
        let mut last = String::new();
        for command in commands {
            last = self.ask(&command).await?;
            if !last.starts_with(['2', '3']) {
                break;
            }
        }
        Ok(Reply(last))
    }
}

/// A short mail with this Message-ID.
pub(crate) fn mail(id: &str, to: &str) -> String {
    format!(
        "From: sales@contoso.example\r\nTo: {to}\r\nMessage-ID: <{id}>\r\nSubject: Your parcel\r\n\r\nIt is here.\r\n..\r\n"
    )
}

pub(crate) async fn app_token(testbed: &Testbed, scope: &str) -> String {
    token(testbed, testbed.service(), &[("grant_type", "client_credentials"), ("scope", scope)]).await
}

pub(crate) async fn user_token(testbed: &Testbed, scope: &str, user: &str, password: &str) -> String {
    let form = [("grant_type", "password"), ("scope", scope), ("username", user), ("password", password)];
    token(testbed, testbed.user(), &form).await
}

async fn token(testbed: &Testbed, app: &App, form: &[(&str, &str)]) -> String {
    let mut form = form.to_vec();
    form.push(("client_id", &app.client_id));
    form.extend(app.secret.as_deref().map(|secret| ("client_secret", secret)));
    let url = format!("{}/oauth2/v2.0/token", testbed.tenant.authority());
    let answer: serde_json::Value = web(testbed).post(url).form(&form).send().await.unwrap().json().await.unwrap();
    answer["access_token"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
}

/// A client of HTTP that trusts the testbed.
pub(crate) fn web(testbed: &Testbed) -> reqwest::Client {
    let mut tls = (*testbed.dovecot.authority().client_config().unwrap()).clone();
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    reqwest::Client::builder().tls_backend_preconfigured(tls).build().unwrap()
}

/// Waits until something holds.
pub(crate) async fn eventually(what: &str, holds: impl AsyncFn() -> bool) {
    let waiting = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("not within {PATIENCE:?}: {what}"));
}

async fn secured(tcp: TcpStream, authority: &Authority) -> io::Result<Box<dyn Stream>> {
    let name = ServerName::IpAddress(std::net::IpAddr::from([127, 0, 0, 1]).into());
    let connector = TlsConnector::from(authority.client_config().map_err(io::Error::other)?);
    Ok(Box::new(connector.connect(name, tcp).await?))
}

async fn read(stream: &mut (impl AsyncBufReadExt + Unpin)) -> io::Result<Vec<String>> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        lines.push(line.trim_end().to_owned());
        if line.as_bytes().get(3) != Some(&b'-') {
            return Ok(lines);
        }
    }
}

async fn bounded<T>(future: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("no answer within {PATIENCE:?}"))
}

//! A bare IMAP client (RFC 9051) over TLS, for looking at a server from outside. It reads lines and literals and
//! understands nothing of them.

use std::{net::SocketAddr, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufStream},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{
    authority::Authority,
    error::{Error, Result},
};

const ANSWER_SECONDS: u64 = 30;
/// Longest literal that is read into memory.
pub(crate) const LITERAL_BYTES: usize = 64 << 20;

/// A connection. The server's greeting has been read.
#[derive(Debug)]
pub struct Client {
    stream: BufStream<TlsStream<TcpStream>>,
    tag: u32,
}

impl Client {
    /// Connects and reads the greeting.
    pub async fn connect(addr: SocketAddr, authority: &Authority) -> Result<Self> {
        let connect = async {
            let tcp = TcpStream::connect(addr).await?;
            tcp.set_nodelay(true)?;
            let config = authority.client_config().map_err(std::io::Error::other)?;
            TlsConnector::from(config).connect(ServerName::IpAddress(addr.ip().into()), tcp).await
        };
        let tls = bounded("a TLS connection", connect).await?.map_err(Error::system(format!("connect to {addr}")))?;
        let mut client = Self { stream: BufStream::new(tls), tag: 0 };
        let greeting = client.line().await?;
        if greeting.starts_with("* OK") { Ok(client) } else { Err(refused(greeting)) }
    }

    /// Signs in with a token: SASL XOAUTH2 with an initial response.
    ///
    /// # Errors
    /// [`Error::Refused`] with the server's challenge and its tagged answer.
    pub async fn sign_in_with_token(&mut self, user: &str, token: &str) -> Result<()> {
        let response = STANDARD.encode(format!("user={user}\x01auth=Bearer {token}\x01\x01"));
        self.authenticate("XOAUTH2", &response).await
    }

    /// Signs in with a password: SASL PLAIN (RFC 4616).
    pub async fn sign_in_with_password(&mut self, user: &str, password: &str) -> Result<()> {
        let response = STANDARD.encode(format!("\0{user}\0{password}"));
        self.authenticate("PLAIN", &response).await
    }

    /// Sends a command and returns the untagged answers; literals stand in them after their `{n}`.
    ///
    /// # Errors
    /// [`Error::Refused`] with the tagged NO or BAD, or with the BYE.
    pub async fn command(&mut self, command: &str) -> Result<Vec<String>> {
        let tag = self.send(command).await?;
        self.finish(&tag).await
    }

    /// Puts messages into a folder, all in one transaction (RFC 3502, RFC 7888).
    pub async fn append<'a>(&mut self, folder: &str, messages: impl IntoIterator<Item = &'a [u8]>) -> Result<()> {
        self.tag += 1;
        let tag = format!("T{}", self.tag);
        let mut bytes = format!("{tag} APPEND {folder}").into_bytes();
        for message in messages {
            bytes.extend_from_slice(format!(" {{{}+}}\r\n", message.len()).as_bytes());
            bytes.extend_from_slice(message);
        }
        bytes.extend_from_slice(b"\r\n");
        self.write(&bytes).await?;
        self.finish(&tag).await.map(drop)
    }

    /// Sends a command without waiting for an answer, and returns its tag.
    pub async fn send(&mut self, command: &str) -> Result<String> {
        self.tag += 1;
        let tag = format!("T{}", self.tag);
        self.write(format!("{tag} {command}\r\n").as_bytes()).await?;
        Ok(tag)
    }

    /// Sends a line that is no command, for example `DONE`.
    pub async fn send_line(&mut self, line: &str) -> Result<()> {
        self.write(format!("{line}\r\n").as_bytes()).await
    }

    /// Waits for the next line that the server sends of its own accord, for example in IDLE or when it hangs up.
    pub async fn line(&mut self) -> Result<String> {
        bounded("an IMAP answer", self.read_line()).await?.map_err(Error::system("read an IMAP answer"))
    }

    async fn finish(&mut self, tag: &str) -> Result<Vec<String>> {
        let mut answers = Vec::new();
        loop {
            let line = self.line().await?;
            match line.strip_prefix(tag) {
                Some(rest) if rest.starts_with(" OK") => return Ok(answers),
                Some(_) => return Err(refused(line)),
                None if line.starts_with("* BYE") => return Err(refused(line)),
                None => answers.push(line),
            }
        }
    }

    async fn authenticate(&mut self, mechanism: &str, response: &str) -> Result<()> {
        let tag = self.send(&format!("AUTHENTICATE {mechanism} {response}")).await?;
        let mut challenge = String::new();
        loop {
            let line = self.line().await?;
            if let Some(encoded) = line.strip_prefix("+ ") {
                challenge = String::from_utf8(STANDARD.decode(encoded).unwrap_or_default()).unwrap_or_default();
                self.write(b"\r\n").await?;
            } else if let Some(rest) = line.strip_prefix(&tag) {
                return if rest.starts_with(" OK") { Ok(()) } else { Err(refused(format!("{challenge} {line}"))) };
            }
        }
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let write = async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        };
        bounded("the IMAP server to take a command", write).await?.map_err(Error::system("send an IMAP command"))
    }

    async fn read_line(&mut self) -> std::io::Result<String> {
        let mut answer = Vec::new();
        loop {
            let start = answer.len();
            if self.stream.read_until(b'\n', &mut answer).await? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            while answer.last().is_some_and(|byte| matches!(byte, b'\r' | b'\n')) {
                answer.pop();
            }
            let Some(length) = literal_length(&answer[start.min(answer.len())..]) else {
                return Ok(String::from_utf8_lossy(&answer).into_owned());
            };
            let end = answer.len();
            answer.resize(end + length.min(LITERAL_BYTES), 0);
            self.stream.read_exact(&mut answer[end..]).await?;
        }
    }
}

/// The length in `{n}` or `{n+}` (RFC 7888) at the end of a line.
pub(crate) fn literal_length(line: &[u8]) -> Option<usize> {
    let inner = line.strip_suffix(b"}")?;
    let inner = inner.strip_suffix(b"+").unwrap_or(inner);
    let start = inner.iter().rposition(|byte| *byte == b'{')?;
    std::str::from_utf8(&inner[start + 1..]).ok()?.parse().ok()
}

async fn bounded<T>(what: &str, future: impl Future<Output = T>) -> Result<T> {
    tokio::time::timeout(Duration::from_secs(ANSWER_SECONDS), future)
        .await
        .map_err(|_| Error::Late { what: what.to_owned(), seconds: ANSWER_SECONDS })
}

fn refused(said: String) -> Error {
    Error::Refused { protocol: "IMAP", said }
}

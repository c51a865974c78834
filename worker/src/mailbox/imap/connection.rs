//! From a host name to a selected folder: TCP, TLS, greeting, SASL, CAPABILITY, SELECT.
//!
//! Only SELECT proves that the mailbox can be read: Exchange accepts a sign-in and then refuses every command.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls_pki_types::ServerName;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::command::{self, Commands, Error, Stream, Untagged};
use super::guard::Limits;
use crate::diagnosis::{self, Diagnosis, imap};
use crate::tls;
use crate::token::Token;

/// Who signs in, and with what.
#[derive(Clone)]
pub enum SignIn {
    /// SASL XOAUTH2 with the mailbox to open, which need not be the token's user.
    Token {
        /// The mailbox.
        mailbox: String,
        /// The access token.
        token: Token,
    },
    /// SASL PLAIN (RFC 4616).
    Password {
        /// The account.
        account: String,
        /// Its password.
        password: SecretString,
    },
}

impl fmt::Debug for SignIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Token { .. } => "Token",
            Self::Password { .. } => "Password",
        })
    }
}

/// Why a mailbox could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("{}", .diagnosis.cause)]
pub struct Unopened {
    /// Cause and remedy.
    pub diagnosis: Diagnosis,
    /// True when token or password were refused, as opposed to everything around them.
    pub sign_in_refused: bool,
}

impl From<Diagnosis> for Unopened {
    fn from(diagnosis: Diagnosis) -> Self {
        Self { diagnosis, sign_in_refused: false }
    }
}

/// What SELECT said (RFC 3501 section 6.3.1).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Selected {
    /// UIDs mean something only together with this.
    pub uid_validity: u32,
    /// The UID that the next message will have, when the server says.
    pub uid_next: Option<u32>,
    /// Messages in the folder.
    pub exists: u32,
}

/// A selected folder of a signed-in session.
#[derive(Debug)]
pub struct Folder<S: Stream + fmt::Debug> {
    /// Runs commands.
    pub commands: Commands<S>,
    /// What the server can do, asked after the sign-in.
    pub capabilities: Vec<String>,
    /// What SELECT said.
    pub selected: Selected,
}

impl<S: Stream + fmt::Debug> Folder<S> {
    /// True when the server announced `capability`, upper case.
    pub fn can(&self, capability: &str) -> bool {
        self.capabilities.iter().any(|known| known == capability)
    }

    /// Says goodbye. Dropped sessions count against the mailbox for a while.
    pub async fn log_out(mut self) {
        // The answer is a BYE, and nothing depends on it.
        let _ = self.commands.run("LOGOUT", |_| {}).await;
    }
}

/// Connects and agrees on TLS, within `deadline`.
pub async fn connect(
    host: &str,
    port: u16,
    config: Arc<rustls::ClientConfig>,
    deadline: Duration,
) -> Result<TlsStream<TcpStream>, Diagnosis> {
    let place = format!("{host}:{port}");
    let name = ServerName::try_from(host.to_owned()).map_err(|_| diagnosis::host_invalid(host))?;
    let socket = tokio::time::timeout(deadline, TcpStream::connect((host, port))).await;
    let socket = socket.map_err(|_| diagnosis::timed_out(&place, "a connection"))?;
    let socket = socket.map_err(|error| diagnosis::unreachable(&place, &error.to_string()))?;
    // Commands are small and each waits for its answer.
    socket.set_nodelay(true).map_err(|error| diagnosis::unreachable(&place, &error.to_string()))?;
    let agreed = tokio::time::timeout(deadline, TlsConnector::from(config).connect(name, socket)).await;
    agreed.map_err(|_| diagnosis::timed_out(&place, "agree on TLS"))?.map_err(|error: io::Error| {
        tls::diagnose(&place, &error).unwrap_or_else(|| diagnosis::tls_failed(&place, &error.to_string()))
    })
}

/// Signs in on a fresh connection and selects `folder`. `step`: longest silence that is endured.
pub async fn open<S: Stream + fmt::Debug>(
    stream: S,
    limits: Limits,
    step: Duration,
    sign_in: &SignIn,
    folder: &str,
) -> Result<Folder<S>, Unopened> {
    let mut commands = authenticate(stream, limits, step, sign_in).await?;
    let asked = commands.run("CAPABILITY", |_| {}).await;
    asked.map_err(|error| Unopened::from(diagnose(&error, |text| imap::folder_refused(folder, text))))?;
    let capabilities = commands.notes().capabilities.clone().unwrap_or_default();
    let mut selected = Selected::default();
    let command = format!("SELECT {}", quote(folder));
    let done = commands.run(&command, |untagged| match untagged {
        Untagged::UidValidity(value) => selected.uid_validity = value,
        Untagged::UidNext(value) => selected.uid_next = Some(value),
        Untagged::Exists(count) => selected.exists = count,
        _ => {}
    });
    done.await.map_err(|error| Unopened::from(diagnose(&error, |text| imap::folder_refused(folder, text))))?;
    if selected.uid_validity == 0 {
        return Err(imap::folder_refused(folder, "it has no UIDVALIDITY").into());
    }
    Ok(Folder { commands, capabilities, selected })
}

/// What an error of a command means; `refused` explains a NO or BAD.
pub fn diagnose(error: &Error, refused: impl Fn(&str) -> Diagnosis) -> Diagnosis {
    match error {
        Error::Refused { text, .. } => refused(text),
        Error::Bye { text } if imap::is_token_expired(text) => imap::connection_lost(None),
        Error::Bye { text } => imap::connection_lost(Some(text)),
        Error::Lost { remark } => imap::connection_lost(remark.as_deref()),
        Error::TimedOut => diagnosis::timed_out("the mail server", "answer a command"),
        Error::Violation(violation) => imap::malformed(&violation.to_string()),
        Error::Malformed => imap::malformed("the parser gave up"),
        Error::Poisoned => diagnosis::defect("a session was used after a command was given up"),
    }
}

async fn authenticate<S: Stream + fmt::Debug>(
    stream: S,
    limits: Limits,
    step: Duration,
    sign_in: &SignIn,
) -> Result<Commands<S>, Unopened> {
    let challenge = Arc::new(Mutex::new(None));
    let (mechanism, response) = match sign_in {
        SignIn::Token { mailbox, token } => {
            ("XOAUTH2", format!("user={mailbox}\x01auth=Bearer {}\x01\x01", token.expose()))
        }
        SignIn::Password { account, password } => ("PLAIN", format!("\0{account}\0{}", password.expose_secret())),
    };
    let once = Once { response: Some(SecretString::from(response)), challenge: challenge.clone() };
    let most = step * command::STEPS_OF_A_FEW_LINES;
    let signed_in = tokio::time::timeout(most, command::sign_in(stream, limits, step, mechanism, once)).await;
    signed_in.unwrap_or(Err(Error::TimedOut)).map_err(|error| {
        let challenge = challenge.lock().unwrap_or_else(PoisonError::into_inner).take();
        let oauth = matches!(sign_in, SignIn::Token { .. });
        let refused = |text: &str| imap::sign_in_refused(text, oauth, challenge.as_deref());
        let diagnosis = diagnose(&error, refused);
        let sign_in_refused = matches!(error, Error::Refused { .. }) && !diagnosis.is_transient();
        Unopened { diagnosis, sign_in_refused }
    })
}

/// Answers the first challenge with the credentials, and every later one, which explains a failure, with nothing.
struct Once {
    response: Option<SecretString>,
    challenge: Arc<Mutex<Option<String>>>,
}

impl async_imap::Authenticator for Once {
    type Response = Vec<u8>;

    fn process(&mut self, challenge: &[u8]) -> Vec<u8> {
        match self.response.take() {
            Some(response) => response.expose_secret().as_bytes().to_vec(),
            None => {
                let text = String::from_utf8_lossy(&challenge[..challenge.len().min(1024)]).into_owned();
                *self.challenge.lock().unwrap_or_else(PoisonError::into_inner) = Some(text);
                Vec::new()
            }
        }
    }
}

/// A folder name as a quoted string (RFC 3501 section 4.3), with every `&` in modified UTF-7 (section 5.1.3). A name that
/// is in modified UTF-7 already stays as it is.
pub fn quote(folder: &str) -> String {
    let mut quoted = String::from("\"");
    let mut rest = folder;
    while let Some(c) = rest.chars().next() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '&' if !begins_shift(rest) => quoted.push_str("&-"),
            // A line end would begin another command.
            c if c.is_control() => {}
            c => quoted.push(c),
        }
        rest = &rest[c.len_utf8()..];
    }
    quoted.push('"');
    quoted
}

fn begins_shift(text: &str) -> bool {
    let Some((inside, _)) = text[1..].split_once('-') else { return false };
    inside.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'+' || b == b',')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folder_names_cannot_break_out() {
        assert_eq!(quote("INBOX"), r#""INBOX""#);
        assert_eq!(quote(r#"a"b\c"#), r#""a\"b\\c""#);
        assert_eq!(quote("R&D"), r#""R&-D""#);
        assert_eq!(quote("Entw&APw-rfe"), r#""Entw&APw-rfe""#);
        assert_eq!(quote("a\r\nA2 LOGOUT"), r#""aA2 LOGOUT""#);
    }
}

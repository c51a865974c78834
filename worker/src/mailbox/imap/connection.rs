//! From a fresh connection to a selected folder: greeting, sign-in, CAPABILITY, SELECT.
//!
//! Only SELECT proves that the mailbox can be read: Exchange accepts a sign-in and then refuses every command.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use postroom_proto::folder::in_utf7;
use secrecy::{ExposeSecret as _, SecretString};

use super::command::{self, Commands, Error, Stream, Untagged};
use super::guard::Limits;
use crate::diagnosis::{self, Diagnosis, imap};
use crate::token::Token;

/// Who signs in, and with what.
#[derive(Clone)]
pub enum SignIn {
    /// An access token, with the mailbox to open, which need not be the token's user.
    Token {
        /// The mailbox.
        mailbox: String,
        /// The access token.
        token: Token,
        /// Host and port that are connected to, which OAUTHBEARER names (RFC 7628 section 3.1).
        server: (String, u16),
    },
    /// A password.
    Password {
        /// The mailbox to open when it is another than the account's own.
        mailbox: Option<String>,
        /// The account.
        account: String,
        /// Its password.
        password: SecretString,
    },
}

impl SignIn {
    /// The initial response of a SASL mechanism.
    fn response(&self, way: Way) -> String {
        match self {
            Self::Token { mailbox, token, server: (host, port) } if way == Way::OauthBearer => {
                // RFC 5801 section 4: the name may not hold what ends it.
                let name = mailbox.replace('=', "=3D").replace(',', "=2C");
                format!("n,a={name},\x01host={host}\x01port={port}\x01auth=Bearer {}\x01\x01", token.expose())
            }
            Self::Token { mailbox, token, .. } => format!("user={mailbox}\x01auth=Bearer {}\x01\x01", token.expose()),
            Self::Password { mailbox, account, password } => {
                format!("{}\0{account}\0{}", mailbox.as_deref().unwrap_or_default(), password.expose_secret())
            }
        }
    }
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

/// Signs in on a fresh connection and selects `folder`. `step`: longest silence that is endured.
pub async fn open<S: Stream + fmt::Debug>(
    stream: S,
    limits: Limits,
    step: Duration,
    sign_in: &SignIn,
    folder: &str,
) -> Result<Folder<S>, Unopened> {
    Ok(select(authenticate(stream, limits, step, sign_in).await?, folder).await?)
}

/// Asks what the server can do, and selects `folder`.
pub async fn select<S: Stream + fmt::Debug>(mut commands: Commands<S>, folder: &str) -> Result<Folder<S>, Diagnosis> {
    let refused = |error: Error| diagnose(&error, |text| imap::folder_refused(folder, text));
    // After the sign-in: servers can do more then.
    commands.notes().capabilities = None;
    commands.run("CAPABILITY", |_| {}).await.map_err(refused)?;
    let capabilities = commands.notes().capabilities.clone().unwrap_or_default();
    let mut selected = Selected::default();
    let command = format!("SELECT {}", quote(folder));
    let done = commands.run(&command, |untagged| match untagged {
        Untagged::UidValidity(value) => selected.uid_validity = value,
        Untagged::UidNext(value) => selected.uid_next = Some(value),
        Untagged::Exists(count) => selected.exists = count,
        _ => {}
    });
    done.await.map_err(refused)?;
    if selected.uid_validity == 0 {
        return Err(imap::folder_refused(folder, "it has no UIDVALIDITY"));
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

/// Waits for the greeting and signs in, by what the server offers.
pub async fn authenticate<S: Stream + fmt::Debug>(
    stream: S,
    limits: Limits,
    step: Duration,
    sign_in: &SignIn,
) -> Result<Commands<S>, Unopened> {
    let challenge = Arc::new(Mutex::new(None));
    let most = step * command::STEPS_OF_A_FEW_LINES;
    let greeted = tokio::time::timeout(most, command::greet(stream, limits, step)).await;
    let lost = |error: Error| diagnose(&error, |text| imap::command_refused("CAPABILITY", text));
    let greeted = greeted.unwrap_or(Err(Error::TimedOut)).map_err(lost)?;
    let way = way(sign_in, &greeted.capabilities)?;
    let signing_in = async {
        match (way, sign_in) {
            (Way::Login, SignIn::Password { account, password, .. }) => {
                greeted.log_in(account, password.expose_secret()).await
            }
            _ => {
                let once = Once {
                    response: Some(SecretString::from(sign_in.response(way))),
                    // RFC 7628 section 3.2.3: a failure is acknowledged with one byte; XOAUTH2 wants an empty line.
                    acknowledgement: if way == Way::OauthBearer { "\x01" } else { "" },
                    challenge: challenge.clone(),
                };
                greeted.authenticate(way.mechanism(), once).await
            }
        }
    };
    let signed_in = tokio::time::timeout(most, signing_in).await;
    signed_in.unwrap_or(Err(Error::TimedOut)).map_err(|error| {
        let challenge = challenge.lock().unwrap_or_else(PoisonError::into_inner).take();
        let oauth = matches!(sign_in, SignIn::Token { .. });
        let refused = |text: &str| imap::sign_in_refused(text, oauth, challenge.as_deref());
        let diagnosis = diagnose(&error, refused);
        let sign_in_refused = matches!(error, Error::Refused { .. }) && !diagnosis.is_transient();
        Unopened { diagnosis, sign_in_refused }
    })
}

/// How to sign in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// SASL XOAUTH2.
    Xoauth2,
    /// SASL OAUTHBEARER (RFC 7628).
    OauthBearer,
    /// SASL PLAIN (RFC 4616).
    Plain,
    /// The LOGIN command.
    Login,
}

impl Way {
    fn mechanism(self) -> &'static str {
        match self {
            Self::Xoauth2 => "XOAUTH2",
            Self::OauthBearer => "OAUTHBEARER",
            Self::Plain => "PLAIN",
            Self::Login => "LOGIN",
        }
    }
}

/// The way that fits what the server offers. XOAUTH2 comes before OAUTHBEARER, for Exchange knows no other and so it is
/// what is proven; a server that does not say what it offers is asked for the usual.
fn way(sign_in: &SignIn, capabilities: &[String]) -> Result<Way, Diagnosis> {
    let can = |capability: &str| capabilities.iter().any(|known| known == capability);
    let silent = capabilities.is_empty();
    let offered = || -> Vec<String> {
        let ways = capabilities.iter().filter(|known| known.starts_with("AUTH=") || *known == "LOGINDISABLED");
        ways.cloned().collect()
    };
    match sign_in {
        SignIn::Token { .. } if silent || can("AUTH=XOAUTH2") => Ok(Way::Xoauth2),
        SignIn::Token { .. } if can("AUTH=OAUTHBEARER") => Ok(Way::OauthBearer),
        SignIn::Token { .. } => Err(imap::sign_in_unsupported("an access token (XOAUTH2, OAUTHBEARER)", &offered())),
        SignIn::Password { .. } if silent || can("AUTH=PLAIN") => Ok(Way::Plain),
        // LOGIN cannot say that another mailbox than the account's own is meant.
        SignIn::Password { mailbox: None, .. } if !can("LOGINDISABLED") => Ok(Way::Login),
        SignIn::Password { mailbox: Some(_), .. } => {
            Err(imap::sign_in_unsupported("the password of another account than the mailbox's (PLAIN)", &offered()))
        }
        SignIn::Password { .. } => Err(imap::sign_in_unsupported("a password (PLAIN, LOGIN)", &offered())),
    }
}

/// Answers the first challenge with the credentials, and every later one, which explains a failure, as the mechanism wants.
struct Once {
    response: Option<SecretString>,
    acknowledgement: &'static str,
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
                self.acknowledgement.as_bytes().to_vec()
            }
        }
    }
}

/// A folder name as a quoted string (RFC 3501 section 4.3) in modified UTF-7.
pub fn quote(folder: &str) -> String {
    let escaped = in_utf7(folder).replace('\\', "\\\\").replace('"', "\\\"");
    format!("\"{escaped}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folder_names_cannot_break_out() {
        assert_eq!(quote("INBOX"), r#""INBOX""#);
        assert_eq!(quote(r#"a"b\c"#), r#""a\"b\\c""#);
        assert_eq!(quote("Entwürfe"), r#""Entw&APw-rfe""#);
        assert_eq!(quote("a\r\nA2 LOGOUT"), r#""aA2 LOGOUT""#);
    }

    fn token() -> SignIn {
        let server = ("imap.x.example".into(), 993);
        SignIn::Token { mailbox: "a=b,c@x.example".into(), token: Token::new("t".into()), server }
    }

    fn password(mailbox: Option<&str>) -> SignIn {
        let mailbox = mailbox.map(str::to_owned);
        SignIn::Password { mailbox, account: "anna@x.example".into(), password: "p".to_owned().into() }
    }

    fn chosen(sign_in: &SignIn, offered: &str) -> Result<Way, String> {
        let offered: Vec<String> = offered.split_whitespace().map(str::to_owned).collect();
        way(sign_in, &offered).map_err(|found| found.code)
    }

    #[test]
    fn the_way_to_sign_in_is_one_that_the_server_offers() {
        let unsupported = Err("SIGN_IN_UNSUPPORTED".to_owned());
        assert_eq!(chosen(&token(), "IMAP4REV1 AUTH=PLAIN AUTH=OAUTHBEARER AUTH=XOAUTH2"), Ok(Way::Xoauth2));
        assert_eq!(chosen(&token(), "IMAP4REV1 AUTH=OAUTHBEARER"), Ok(Way::OauthBearer));
        assert_eq!(chosen(&token(), "IMAP4REV1 AUTH=PLAIN"), unsupported);
        assert_eq!(chosen(&token(), ""), Ok(Way::Xoauth2), "it does not say");
        assert_eq!(chosen(&password(None), "IMAP4REV1 AUTH=PLAIN LOGINDISABLED"), Ok(Way::Plain));
        assert_eq!(chosen(&password(None), "IMAP4REV1"), Ok(Way::Login));
        assert_eq!(chosen(&password(None), "IMAP4REV1 LOGINDISABLED AUTH=XOAUTH2"), unsupported);
        assert_eq!(chosen(&password(Some("b@x.example")), "IMAP4REV1"), unsupported);
        assert_eq!(chosen(&password(Some("b@x.example")), "IMAP4REV1 AUTH=PLAIN"), Ok(Way::Plain));
    }

    #[test]
    fn what_is_sent_names_who_signs_in_and_what_is_opened() {
        assert_eq!(
            token().response(Way::OauthBearer),
            "n,a=a=3Db=2Cc@x.example,\x01host=imap.x.example\x01port=993\x01auth=Bearer t\x01\x01"
        );
        assert_eq!(token().response(Way::Xoauth2), "user=a=b,c@x.example\x01auth=Bearer t\x01\x01");
        assert_eq!(password(Some("b@x.example")).response(Way::Plain), "b@x.example\0anna@x.example\0p");
        assert_eq!(password(None).response(Way::Plain), "\0anna@x.example\0p");
    }
}

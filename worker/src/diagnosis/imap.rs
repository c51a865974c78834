//! Mail servers: which entry of the catalogue their response codes (RFC 5530) and free texts are.

use std::time::Duration;

use postroom_proto::catalogue::{Entry, mail};

use super::{Diagnosis, excerpt};

/// Longest back-off that a server may impose on us.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

/// The response code of a status text (RFC 3501 section 7.1), upper case: `[UNAVAILABLE] try later` has `UNAVAILABLE`.
pub fn response_code(text: &str) -> Option<String> {
    let inside = text.trim_start().strip_prefix('[')?;
    let end = inside.find([']', ' '])?;
    let code = &inside[..end];
    let fits = !code.is_empty() && code.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    fits.then(|| code.to_ascii_uppercase())
}

/// The back-off that Exchange asks for, as in `Request is throttled. Suggested Backoff Time: 299961 milliseconds`.
pub fn backoff(text: &str) -> Option<Duration> {
    let lower = text.to_ascii_lowercase();
    let (_, rest) = lower.split_once("backoff time:")?;
    let digits: String = rest.trim_start().chars().take_while(char::is_ascii_digit).collect();
    let amount: u64 = digits.parse().ok()?;
    let unit = rest.trim_start()[digits.len()..].trim_start();
    let wait = if unit.starts_with("sec") { Duration::from_secs(amount) } else { Duration::from_millis(amount) };
    Some(wait.min(LONGEST_WAIT))
}

/// True for the end of a session whose token has run out, which is normal.
pub fn is_token_expired(text: &str) -> bool {
    mail::ACCESS_TOKEN_EXPIRED.is_said_by(text)
}

/// True when Exchange let us sign in but not reach the mailbox.
pub fn is_not_connected(text: &str) -> bool {
    mail::NOT_CONNECTED.is_said_by(text)
}

/// A passing condition of the server, whatever the command was. `None`: the text says nothing of the kind.
pub fn passing(text: &str) -> Option<Diagnosis> {
    let code = response_code(text).unwrap_or_default();
    let wait = backoff(text);
    let pause = Some(Duration::from_secs(60));
    if mail::THROTTLED.is_said_by(text) || matches!(code.as_str(), "THROTTLED" | "LIMIT") {
        return Some(said(&mail::THROTTLED, text).after(wait.or(pause)));
    }
    if mail::TOO_MANY_CONNECTIONS.is_said_by(text) {
        return Some(said(&mail::TOO_MANY_CONNECTIONS, text).after(pause));
    }
    let unavailable =
        mail::SERVER_UNAVAILABLE.is_said_by(text) || matches!(code.as_str(), "UNAVAILABLE" | "INUSE" | "SERVERBUG");
    unavailable.then(|| said(&mail::SERVER_UNAVAILABLE, text))
}

/// An entry with what the server said.
fn said(entry: &Entry, text: &str) -> Diagnosis {
    Diagnosis::of(entry, format!("{} ({})", entry.title, excerpt(text, 200)))
}

/// Sign-in was refused. `oauth` tells a token from a password; `challenge` is the JSON that some servers explain with.
pub fn sign_in_refused(text: &str, oauth: bool, challenge: Option<&str>) -> Diagnosis {
    if let Some(found) = passing(text) {
        return found;
    }
    let entry = if oauth { &mail::TOKEN_REFUSED } else { &mail::SIGN_IN_REFUSED };
    match challenge {
        Some(challenge) => said(entry, &format!("{} {}", excerpt(text, 200), excerpt(challenge, 200))),
        None => said(entry, text),
    }
}

/// The server offers nothing that the definition could sign in with.
pub fn sign_in_unsupported(wanted: &str, offered: &[String]) -> Diagnosis {
    let offered = match offered.join(", ") {
        none if none.is_empty() => "it names none".to_owned(),
        some => format!("it offers {}", excerpt(&some, 200)),
    };
    let cause = format!("the mail server offers no way to sign in with {wanted} ({offered})");
    Diagnosis::of(&mail::SIGN_IN_UNSUPPORTED, cause)
}

/// The server signed us in, but cannot or may not open the mailbox.
pub fn not_connected(text: &str) -> Diagnosis {
    said(&mail::NOT_CONNECTED, text)
}

/// The folder cannot be selected.
pub fn folder_refused(folder: &str, text: &str) -> Diagnosis {
    if is_not_connected(text) {
        return not_connected(text);
    }
    passing(text).unwrap_or_else(|| {
        let cause = format!("the folder {folder:?} cannot be opened ({})", excerpt(text, 200));
        Diagnosis::of(&mail::FOLDER_REFUSED, cause)
    })
}

/// What is done after intake was refused; reading goes on.
pub fn settle_refused(text: &str, folder: Option<&str>) -> Diagnosis {
    if let Some(found) = passing(text) {
        return found;
    }
    match folder {
        Some(folder) => {
            let cause = format!("messages are read, but cannot be moved to {folder:?} ({})", excerpt(text, 200));
            Diagnosis::of(&mail::MOVE_REFUSED, cause)
        }
        None => said(&mail::MARK_REFUSED, text),
    }
}

/// Deleting after intake was refused; reading goes on.
pub fn delete_refused(text: &str) -> Diagnosis {
    passing(text).unwrap_or_else(|| said(&mail::DELETE_REFUSED, text))
}

/// What is to be deleted after intake can only be marked as deleted; reading goes on.
pub fn expunge_unsupported() -> Diagnosis {
    Diagnosis::of(&mail::EXPUNGE_UNSUPPORTED, mail::EXPUNGE_UNSUPPORTED.title)
}

/// A command was refused that a working server grants.
pub fn command_refused(command: &str, text: &str) -> Diagnosis {
    if is_not_connected(text) {
        return not_connected(text);
    }
    passing(text).unwrap_or_else(|| {
        let cause = format!("the mail server refused {command} ({})", excerpt(text, 200));
        Diagnosis::of(&mail::COMMAND_REFUSED, cause)
    })
}

/// The server ended the session.
pub fn connection_lost(text: Option<&str>) -> Diagnosis {
    let text = text.unwrap_or_default();
    passing(text).unwrap_or_else(|| match excerpt(text, 200) {
        nothing if nothing.is_empty() => Diagnosis::of(&mail::CONNECTION_LOST, mail::CONNECTION_LOST.title),
        _ => said(&mail::CONNECTION_LOST, text),
    })
}

/// The server sent what cannot be understood, or more than is allowed.
pub fn malformed(detail: &str) -> Diagnosis {
    said(&mail::MALFORMED_ANSWER, detail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnosis::ProblemKind as Kind;

    #[test]
    fn response_codes_are_read_from_the_text() {
        assert_eq!(response_code("[UNAVAILABLE] later"), Some("UNAVAILABLE".into()));
        assert_eq!(response_code("[uidnext 5] x"), Some("UIDNEXT".into()));
        for none in ["AUTHENTICATE failed.", "[", "[]", "[a b", ""] {
            assert!(response_code(none).is_none() || none == "[a b", "{none}");
        }
    }

    #[test]
    fn exchange_says_how_long_to_wait() {
        let text = "Request is throttled. Suggested Backoff Time: 299961 milliseconds";
        assert_eq!(backoff(text), Some(Duration::from_millis(299_961)));
        let found = passing(text).map(|found| (found.kind, found.wait));
        assert_eq!(found, Some((Kind::Throttled, Some(Duration::from_millis(299_961)))));
        assert_eq!(backoff("Backoff Time: 99999999999 milliseconds"), Some(LONGEST_WAIT));
        assert_eq!(backoff("Backoff Time: soon"), None);
    }

    #[test]
    fn passing_faults_are_not_blamed_on_the_credentials() {
        for text in ["[UNAVAILABLE] Temporary authentication failure", "Server Unavailable. 15"] {
            assert!(sign_in_refused(text, true, None).is_transient(), "{text}");
        }
        assert!(!sign_in_refused("AUTHENTICATE failed.", true, None).is_transient());
    }

    #[test]
    fn signed_in_but_not_connected_names_the_permission() {
        let found = folder_refused("INBOX", "User is authenticated but not connected.");
        assert_eq!((found.kind, found.code.as_str()), (Kind::Mailbox, "NOT_CONNECTED"));
        assert!(found.remedy.contains("FullAccess"));
    }
}

//! Mail servers: response codes (RFC 5530) and the free texts of Exchange.

use std::time::Duration;

use super::{Diagnosis, ProblemKind as Kind, excerpt};

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
    text.to_ascii_lowercase().contains("accesstokenexpired")
}

/// True when Exchange let us sign in but not reach the mailbox.
pub fn is_not_connected(text: &str) -> bool {
    text.to_ascii_lowercase().contains("authenticated but not connected")
}

/// A passing condition of the server, whatever the command was. `None`: the text says nothing of the kind.
pub fn passing(text: &str) -> Option<Diagnosis> {
    let lower = text.to_ascii_lowercase();
    let code = response_code(text).unwrap_or_default();
    let quoted = excerpt(text, 200);
    let wait = backoff(text);
    if wait.is_some() || lower.contains("throttled") || matches!(code.as_str(), "THROTTLED" | "LIMIT") {
        let found = Diagnosis::new(
            Kind::Throttled,
            "THROTTLED",
            format!("the mail server asks to slow down ({quoted})"),
            "nothing to do: it is tried again after the time that the server asks for; if it returns, look for other \
             programs that read this mailbox",
        );
        return Some(found.after(wait.or(Some(Duration::from_secs(60)))));
    }
    if lower.contains("too many simultaneous connections") || lower.contains("maximum number of connections") {
        let found = Diagnosis::new(
            Kind::Throttled,
            "TOO_MANY_CONNECTIONS",
            format!("too many programs are connected to this mailbox ({quoted})"),
            "find and stop the other programs that read this mailbox, or raise the server's limit",
        );
        return Some(found.after(Some(Duration::from_secs(60))));
    }
    let unavailable =
        lower.contains("server unavailable") || matches!(code.as_str(), "UNAVAILABLE" | "INUSE" | "SERVERBUG");
    unavailable.then(|| {
        Diagnosis::new(
            Kind::Transient,
            "SERVER_UNAVAILABLE",
            format!("the mail server has a passing fault ({quoted})"),
            "nothing to do: it is tried again; if it lasts, look at the server's health",
        )
    })
}

/// Sign-in was refused. `oauth` tells a token from a password; `challenge` is the JSON that some servers explain with.
pub fn sign_in_refused(text: &str, oauth: bool, challenge: Option<&str>) -> Diagnosis {
    if let Some(found) = passing(text) {
        return found;
    }
    let said = match challenge {
        Some(challenge) => format!("{} {}", excerpt(text, 200), excerpt(challenge, 200)),
        None => excerpt(text, 200),
    };
    if oauth {
        Diagnosis::new(
            Kind::Consent,
            "SIGN_IN_REFUSED",
            format!("the mail server refused the access token ({said})"),
            "check in this order: IMAP.AccessAsApp is granted with admin consent (OAuth Service); New-ServicePrincipal \
             was run with the object id of the *enterprise application*, not of the app registration; \
             Add-MailboxPermission gives it FullAccess; the mailbox exists and IMAP is on for it (Get-CASMailbox); \
             changes may take an hour to act",
        )
    } else {
        Diagnosis::new(
            Kind::Credential,
            "SIGN_IN_REFUSED",
            format!("the mail server refused user name and password ({said})"),
            "store the account's present password in the address, and check that the server allows password sign-in",
        )
    }
}

/// The server signed us in, but cannot or may not open the mailbox.
pub fn not_connected(text: &str) -> Diagnosis {
    Diagnosis::new(
        Kind::Mailbox,
        "NOT_CONNECTED",
        format!("sign-in worked, but the mailbox cannot be opened ({})", excerpt(text, 200)),
        "give the signed-in user or service principal FullAccess (Add-MailboxPermission), check that IMAP is on for the \
         mailbox (Get-CASMailbox … ImapEnabled), that it is licensed and not being moved; after many reconnects it may \
         pass by itself",
    )
}

/// The folder cannot be selected.
pub fn folder_refused(folder: &str, text: &str) -> Diagnosis {
    if is_not_connected(text) {
        return not_connected(text);
    }
    passing(text).unwrap_or_else(|| {
        Diagnosis::new(
            Kind::Mailbox,
            "FOLDER_REFUSED",
            format!("the folder {folder:?} cannot be opened ({})", excerpt(text, 200)),
            "check the folder's name in the address, and that the account may read it",
        )
    })
}

/// What is done after intake was refused; reading goes on.
pub fn settle_refused(text: &str, folder: Option<&str>) -> Diagnosis {
    if let Some(found) = passing(text) {
        return found;
    }
    let said = excerpt(text, 200);
    match folder {
        Some(folder) => Diagnosis::new(
            Kind::Mailbox,
            "MOVE_REFUSED",
            format!("messages are read, but cannot be moved to {folder:?} ({said})"),
            "create the folder in the mailbox, or correct its name in the queue's `afterIntake`",
        ),
        None => Diagnosis::new(
            Kind::Mailbox,
            "MARK_REFUSED",
            format!("messages are read, but cannot be marked as seen ({said})"),
            "give the account the right to change the mailbox, or set the queue's `afterIntake` to leave",
        ),
    }
}

/// A command was refused that a working server grants.
pub fn command_refused(command: &str, text: &str) -> Diagnosis {
    if is_not_connected(text) {
        return not_connected(text);
    }
    passing(text).unwrap_or_else(|| {
        Diagnosis::new(
            Kind::Transient,
            "COMMAND_REFUSED",
            format!("the mail server refused {command} ({})", excerpt(text, 200)),
            "it is tried again; if it lasts, send this line to the maintainers",
        )
    })
}

/// The server ended the session.
pub fn connection_lost(text: Option<&str>) -> Diagnosis {
    let text = text.unwrap_or_default();
    passing(text).unwrap_or_else(|| {
        let said = excerpt(text, 200);
        let said = if said.is_empty() { String::new() } else { format!(" ({said})") };
        Diagnosis::new(
            Kind::Transient,
            "CONNECTION_LOST",
            format!("the mail server ended the connection{said}"),
            "nothing to do: it is opened again",
        )
    })
}

/// The server sent what cannot be understood, or more than is allowed.
pub fn malformed(detail: &str) -> Diagnosis {
    Diagnosis::new(
        Kind::Transient,
        "MALFORMED_ANSWER",
        format!("the mail server sent an answer that cannot be read ({})", excerpt(detail, 200)),
        "it is tried again, message by message; if it lasts, send this line to the maintainers",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

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

//! Texts that explain a refusal: of mail servers, and of token endpoints.

use std::time::Duration;

use postroom_worker::diagnosis::{Diagnosis, entra, imap};
use postroom_worker::token::grant::{Error, understand};

use crate::run;

/// Nobody is left alone for longer, whatever a server asks for.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);
/// Ten years: longer than any token lives.
const LONGEST_LIFE: Duration = Duration::from_secs(315_360_000);

/// Finds out what a mail server means by a text.
///
/// # Panics
/// When what is told of it is not bounded, or a wait is asked for that nobody should have to keep.
pub fn throttle(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Some(code) = imap::response_code(&text) {
        assert!(text.len() >= code.len() && !code.is_empty());
    }
    assert!(imap::backoff(&text).is_none_or(|wait| wait <= LONGEST_WAIT));
    let _ = (imap::is_token_expired(&text), imap::is_not_connected(&text));
    let found = [
        imap::passing(&text).unwrap_or_else(|| imap::malformed(&text)),
        imap::sign_in_refused(&text, true, Some(&text)),
        imap::sign_in_refused(&text, false, None),
        imap::folder_refused("INBOX", &text),
        imap::settle_refused(&text, Some("Done")),
        imap::command_refused("UID FETCH", &text),
        imap::connection_lost(Some(&text)),
    ];
    found.iter().for_each(is_told_well);
}

/// Reads what a token endpoint answers: two bytes of its status, one of how long it wants to be left alone, and the body.
///
/// # Panics
/// When a token is told to anybody, a life or wait is absurd, or what is told is not bounded.
pub fn token(data: &[u8]) {
    let Some((head, body)) = data.split_first_chunk::<3>() else { return };
    let status = 100 + u16::from_be_bytes([head[0], head[1]]) % 500;
    let retry_after = (head[2] > 0).then(|| u64::from(head[2]).pow(5));
    match run(understand(status, retry_after, body)) {
        Ok(granted) => {
            assert!(granted.life <= LONGEST_LIFE);
            let shown = format!("{granted:?}");
            assert!(
                granted.token.expose().len() < 16 || !shown.contains(granted.token.expose()),
                "a token is not shown"
            );
        }
        Err(error) => {
            is_told_well(&error.diagnosis());
            if let Error::Refused(refusal) = &error {
                let _ = entra::is_refused_password(refusal);
                assert!(refusal.retry_after.is_none_or(|wait| wait <= LONGEST_WAIT));
            }
        }
    }
}

fn is_told_well(found: &Diagnosis) {
    assert!(!found.code.is_empty() && found.code.len() <= 64, "{found:?}");
    assert!(found.cause.chars().count() <= 1000, "{found:?}");
    assert!(!found.cause.chars().any(char::is_control), "{found:?}");
    assert!(!found.remedy.is_empty(), "{found:?}");
}

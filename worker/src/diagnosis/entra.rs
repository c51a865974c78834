//! The token endpoint of Microsoft Entra: which entry of the catalogue its AADSTS numbers and OAuth error names are.
//!
//! Numbers are for people only, as Entra asks (its numbers change): when one is not known, the OAuth `error` of RFC 6749
//! section 5.2 decides what kind of problem it is.

use std::time::Duration;

use postroom_proto::catalogue::{entra, oauth};

use super::{Diagnosis, excerpt};

/// What a token endpoint said when it refused.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Refusal {
    /// OAuth error name (RFC 6749 section 5.2), for example `invalid_grant`.
    pub error: String,
    /// Text for people.
    pub description: String,
    /// AADSTS numbers.
    pub codes: Vec<u64>,
    /// Finer name, for example `bad_token`.
    pub suberror: String,
    /// For Microsoft's support.
    pub trace_id: String,
    /// Finds the attempt in the sign-in log.
    pub correlation_id: String,
    /// HTTP status of the answer.
    pub status: u16,
    /// `Retry-After` of the answer.
    pub retry_after: Option<Duration>,
}

const WRONG_PASSWORD: &[u64] = &[50126, 50034, 50053, 50055, 50144, 50056, 50057];

/// The codes of a refused password: each further try brings the account nearer to its lock-out.
pub fn is_refused_password(refusal: &Refusal) -> bool {
    refusal.codes.iter().any(|code| WRONG_PASSWORD.contains(code))
        || (refusal.codes.is_empty() && refusal.error == "invalid_grant")
}

/// What a refusal means.
pub fn diagnose(refusal: &Refusal) -> Diagnosis {
    let codes = &refusal.codes;
    let known = codes.iter().find_map(|code| Some((*code, entra::find(*code)?)));
    let found = match known {
        Some((code, entry)) => {
            let trace = match (refusal.correlation_id.as_str(), refusal.trace_id.as_str()) {
                ("", "") => String::new(),
                (correlation, trace) => {
                    format!(" (correlation id {}, trace id {})", excerpt(correlation, 64), excerpt(trace, 64))
                }
            };
            Diagnosis::coded(entry, format!("AADSTS{code}"), format!("{}{trace}", entry.title))
        }
        None => by_error(refusal),
    };
    let wait = refusal.retry_after.or_else(|| codes.contains(&50_196).then_some(Duration::from_secs(300)));
    found.after(wait)
}

/// A server error or a 429 without anything that could be read.
pub fn of_status(host: &str, status: u16) -> Diagnosis {
    let entry = if status == 429 { &oauth::HTTP_429 } else { &oauth::HTTP_500 };
    Diagnosis::of(entry, format!("{host} answered HTTP {status}"))
}

/// Numbers come and go; the OAuth error names stay.
fn by_error(refusal: &Refusal) -> Diagnosis {
    let entry = match refusal.error.to_uppercase().as_str() {
        _ if refusal.status == 429 => &oauth::HTTP_429,
        _ if refusal.status >= 500 => &oauth::HTTP_500,
        name => oauth::ALL.iter().find(|entry| entry.code() == name).unwrap_or(&oauth::TOKEN_REQUEST_REFUSED),
    };
    // The first line of Entra's text; what follows are ids and a time. An unknown number stands in it.
    let text = refusal.description.lines().next().unwrap_or_default();
    let text = text.split(" Trace ID").next().unwrap_or_default();
    let number = refusal.codes.first().map(|code| format!("AADSTS{code}")).unwrap_or_default();
    let number = if text.contains(&number) { String::new() } else { format!(" {number}") };
    let cause = match excerpt(text, 300) {
        text if text.is_empty() => {
            format!("the token endpoint answered {} {}{number}", refusal.status, excerpt(&refusal.error, 64))
        }
        text => format!("the token endpoint refused: {text}{number}"),
    };
    Diagnosis::of(entry, cause)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnosis::ProblemKind as Kind;

    fn refusal(error: &str, code: u64) -> Refusal {
        let codes = if code == 0 { vec![] } else { vec![code] };
        Refusal { error: error.into(), codes, status: 400, ..Refusal::default() }
    }

    #[test]
    fn every_number_of_the_catalogue_is_recognised() {
        for code in entra::ALL.iter().flat_map(|entry| entry.codes) {
            let number = code.trim_start_matches("AADSTS").parse().unwrap();
            assert_eq!(diagnose(&refusal("x", number)).code, *code);
        }
    }

    #[test]
    fn an_expired_secret_names_the_secret() {
        let found = diagnose(&refusal("invalid_client", 7_000_222));
        assert_eq!(found.kind, Kind::Configuration);
        assert!(found.remedy.contains("secret"), "{}", found.remedy);
    }

    #[test]
    fn unknown_numbers_fall_back_to_the_error_name() {
        let found = diagnose(&refusal("interaction_required", 999_999));
        assert_eq!((found.kind, found.code.as_str()), (Kind::Interaction, "INTERACTION_REQUIRED"));
        assert!(found.cause.contains("AADSTS999999"), "{}", found.cause);
        for strange in ["", "nobody_knows_this", "[2J"] {
            assert_eq!(diagnose(&refusal(strange, 0)).code, "TOKEN_REQUEST_REFUSED");
        }
        assert_eq!(diagnose(&refusal("temporarily_unavailable", 0)).kind, Kind::Transient);
        let busy = Refusal { status: 429, retry_after: Some(Duration::from_secs(7)), ..refusal("", 0) };
        let found = diagnose(&busy);
        assert_eq!((found.kind, found.wait), (Kind::Throttled, Some(Duration::from_secs(7))));
    }

    #[test]
    fn only_refused_passwords_count_towards_the_lock_out() {
        assert!(is_refused_password(&refusal("invalid_grant", 50_126)));
        assert!(is_refused_password(&refusal("invalid_grant", 0)));
        assert!(!is_refused_password(&refusal("invalid_grant", 50_076)));
        assert!(!is_refused_password(&refusal("invalid_client", 7_000_215)));
    }
}

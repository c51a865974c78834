//! What went wrong, why, and how to mend it: error codes and server texts turned into a cause and a remedy.
//!
//! Pure. What each code means and how it is mended stands in [`postroom_proto::catalogue`]; here is what tells which of
//! them it is. [`entra`] reads the token endpoint, [`imap`] mail servers, [`claims`] tokens, and what Postroom finds out by
//! itself (an untrusted certificate, a folder that is missing) stands here.

pub mod claims;
pub mod entra;
pub mod imap;

use std::time::Duration;

use postroom_proto::catalogue::{self, Entry, mail, own};
use postroom_proto::v1;
pub use postroom_proto::v1::ProblemKind;

/// A problem with its cause and its remedy. Never holds a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnosis {
    /// Who can mend it.
    pub kind: ProblemKind,
    /// Short stable name: `AADSTS50126`, or one of Postroom's own such as `TLS_UNTRUSTED`.
    pub code: String,
    /// What happened, in one sentence.
    pub cause: String,
    /// What to do about it.
    pub remedy: String,
    /// How long the server asked to wait, when it did.
    pub wait: Option<Duration>,
}

impl Diagnosis {
    /// A problem of the catalogue; `cause` says what happened here. Invariant: there is no other way to make one, so that
    /// every code that is ever shown can be looked up.
    pub fn of(entry: &Entry, cause: impl Into<String>) -> Self {
        Self::coded(entry, entry.code(), cause)
    }

    /// The same for one code of an entry that has several.
    fn coded(entry: &Entry, code: impl Into<String>, cause: impl Into<String>) -> Self {
        Self { kind: entry.kind, code: code.into(), cause: cause.into(), remedy: entry.remedy.into(), wait: None }
    }

    /// The same problem with a remedy that fits this case better than the usual one.
    pub fn mended_by(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = remedy.into();
        self
    }

    /// The same problem, not to be tried again before `wait` has passed.
    pub fn after(mut self, wait: Option<Duration>) -> Self {
        self.wait = wait.or(self.wait);
        self
    }

    /// True when it passes without anybody's doing.
    pub fn is_transient(&self) -> bool {
        catalogue::passes(self.kind)
    }

    /// As metrics say it: `failed` passes by itself, of what was `refused` it does not.
    pub fn outcome(&self) -> &'static str {
        if self.is_transient() { "failed" } else { "refused" }
    }

    /// The problem for the wire.
    pub fn problem(&self, since_micros: i64, next_attempt_micros: i64) -> v1::Problem {
        v1::Problem {
            kind: self.kind.into(),
            code: self.code.clone(),
            cause: self.cause.clone(),
            remedy: self.remedy.clone(),
            since_time: Some(postroom_proto::convert::to_timestamp(since_micros)),
            next_attempt_time: Some(postroom_proto::convert::to_timestamp(next_attempt_micros)),
        }
    }
}

/// The certificate of `host` is signed by nobody we trust. `detail`: which
/// certificate is at fault, and who signed it.
pub fn untrusted(host: &str, detail: &str) -> Diagnosis {
    let cause = format!("the certificate of {host} is not signed by a CA that this worker trusts ({detail})");
    Diagnosis::of(&own::TLS_UNTRUSTED, cause)
}

/// The certificate of `host` is trusted but does not fit.
pub fn bad_certificate(host: &str, detail: &str) -> Diagnosis {
    Diagnosis::of(&own::TLS_BAD_CERTIFICATE, format!("the certificate of {host} cannot be used ({detail})"))
}

/// TLS could not be agreed on for another reason.
pub fn tls_failed(host: &str, detail: &str) -> Diagnosis {
    Diagnosis::of(&own::TLS_FAILED, format!("TLS with {host} failed ({detail})"))
}

/// The CA file of the definition cannot be used.
pub fn bad_ca_file(path: &str, detail: &str) -> Diagnosis {
    Diagnosis::of(&own::CA_FILE_UNREADABLE, format!("the CA file {path} cannot be used ({detail})"))
}

/// `host` is no host name.
pub fn host_invalid(host: &str) -> Diagnosis {
    Diagnosis::of(&own::HOST_INVALID, format!("{host:?} is no host name"))
}

/// The name of `host` is not known.
pub fn host_not_found(host: &str, detail: &str) -> Diagnosis {
    Diagnosis::of(&own::HOST_NOT_FOUND, format!("the name {host} is not known ({detail})"))
}

/// `host` does not answer.
pub fn unreachable(host: &str, detail: &str) -> Diagnosis {
    Diagnosis::of(&own::UNREACHABLE, format!("{host} cannot be reached ({detail})"))
}

/// `host` stopped answering within a step.
pub fn timed_out(host: &str, step: &str) -> Diagnosis {
    Diagnosis::of(&own::TIMED_OUT, format!("{host} did not answer in time to {step}"))
}

/// A session stood still; `doing` says at what, and `lasted` for how long.
pub fn stalled(doing: &str, lasted: Duration) -> Diagnosis {
    let lasted = postroom_proto::duration::write(lasted.as_secs());
    Diagnosis::of(&own::STALLED, format!("the reading of the mailbox stood still for {lasted}: it {doing}"))
}

/// The proxy of the definition has a form that is not known.
pub fn proxy_invalid(detail: &str) -> Diagnosis {
    Diagnosis::of(&own::PROXY_INVALID, format!("the proxy of the incoming server cannot be used ({detail})"))
}

/// The proxy does not answer.
pub fn proxy_unreachable(proxy: &str, detail: &str) -> Diagnosis {
    Diagnosis::of(&own::PROXY_UNREACHABLE, format!("the proxy {proxy} cannot be reached ({detail})"))
}

/// The proxy answers, and does not connect to `host`.
pub fn proxy_refused(proxy: &str, host: &str, detail: &str) -> Diagnosis {
    Diagnosis::of(&own::PROXY_REFUSED, format!("the proxy {proxy} does not connect to {host} ({detail})"))
}

/// Something that a token endpoint does not say was answered by `host`.
pub fn strange_token_answer(host: &str) -> Diagnosis {
    Diagnosis::of(&own::TOKEN_ANSWER_STRANGE, format!("{host} answered, but not as a token endpoint does"))
}

/// The address of the incoming server is none; `detail` says what is wrong with it.
pub fn address_invalid(detail: &str) -> Diagnosis {
    Diagnosis::of(&own::ADDRESS_INVALID, format!("the address of the incoming server {detail}"))
}

/// A defect of Postroom, for example a panic.
pub fn defect(what: &str) -> Diagnosis {
    Diagnosis::of(&own::DEFECT, format!("Postroom made a mistake: {what}"))
}

/// An errand that this version does not know.
pub fn unknown_errand() -> Diagnosis {
    Diagnosis::of(&own::ERRAND_UNKNOWN, own::ERRAND_UNKNOWN.title)
}

/// The message that was to be fetched is not in its folder any more.
pub fn message_gone() -> Diagnosis {
    Diagnosis::of(&mail::MESSAGE_GONE, "the message is not in its folder any more: somebody moved or deleted it")
}

/// The folder of the message that was to be fetched has another UIDVALIDITY than the message.
pub fn message_renumbered(known: u32, found: u32) -> Diagnosis {
    let cause = format!("the folder is numbered anew since the message was seen (UIDVALIDITY {known}, now {found})");
    let found = Diagnosis::of(&mail::MESSAGE_GONE, cause);
    found.mended_by("look for it in the mailbox; it can only be discarded here")
}

/// The message that was to be fetched is listed and not given.
pub fn message_not_given() -> Diagnosis {
    let cause = "the server lists the message but does not give it, or sends a placeholder in its place";
    Diagnosis::of(&mail::MESSAGE_NOT_GIVEN, cause)
}

/// The message that was to be fetched is larger than anything that is taken.
pub fn message_over_limit(size: u64, limit: u64) -> Diagnosis {
    let cause = format!("the message has {size} bytes, and {limit} are the most that can be taken in");
    Diagnosis::of(&mail::MESSAGE_OVER_LIMIT, cause)
}

/// A password was refused, by what `found` says, as often as it may be within an hour.
pub fn locked_out(found: &Diagnosis) -> Diagnosis {
    Diagnosis {
        kind: ProblemKind::Credential,
        cause: format!(
            "{}; refused three times within the hour, so it is not tried again before that hour is over",
            found.cause
        ),
        remedy: format!("{}; a changed password is tried at once", found.remedy),
        ..found.clone()
    }
}

/// The control plane refuses or cannot be reached.
pub fn control_plane(detail: &str) -> Diagnosis {
    Diagnosis::of(&own::CONTROL_PLANE, format!("the control plane did not take a report ({detail})"))
}

/// The control plane cannot read a secret of the definition; `detail` is what it says.
pub fn secret_unreadable(detail: &str) -> Diagnosis {
    Diagnosis::of(&own::SECRET_UNREADABLE, excerpt(detail, 500))
}

/// The control plane has no definition of the mailbox; `detail` is what it says.
pub fn definition_not_found(detail: &str) -> Diagnosis {
    Diagnosis::of(&own::NOT_FOUND, excerpt(detail, 500))
}

/// What was committed of the mailbox cannot be read.
pub fn cursor_unreadable(detail: &str) -> Diagnosis {
    Diagnosis::of(&own::CURSOR_UNREADABLE, detail)
}

/// The mailbox has another UIDVALIDITY than the one its cursor belongs to.
pub fn uid_validity(committed: u32, found: u32) -> Diagnosis {
    let cause = format!("the server has renumbered the folder (UIDVALIDITY {committed} became {found})");
    Diagnosis::of(&own::UIDVALIDITY_CHANGED, cause)
}

/// The same while old messages wait for an operator.
pub fn renumbered_while_old_messages_wait(committed: u32, found: u32) -> Diagnosis {
    let cause = format!(
        "the server has renumbered the folder (UIDVALIDITY {committed} became {found}) while old messages wait for an operator"
    );
    Diagnosis::of(&own::RENUMBERED_WHILE_WAITING, cause)
}

/// The first `max` characters of a text from a server, on one line and without control characters.
pub fn excerpt(text: &str, max: usize) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(max).collect::<String>().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_that_can_be_shown_is_in_the_catalogue() {
        let refusal = |error: &str, status, codes: &[u64]| {
            entra::diagnose(&entra::Refusal {
                error: error.into(),
                status,
                codes: codes.to_vec(),
                ..entra::Refusal::default()
            })
        };
        let found = [
            untrusted("h", "d"),
            bad_certificate("h", "d"),
            tls_failed("h", "d"),
            bad_ca_file("h", "d"),
            host_invalid("h"),
            host_not_found("h", "d"),
            unreachable("h", "d"),
            timed_out("h", "d"),
            stalled("waits", Duration::from_secs(1)),
            proxy_invalid("d"),
            proxy_unreachable("p", "d"),
            proxy_refused("p", "h", "d"),
            strange_token_answer("h"),
            address_invalid("d"),
            defect("d"),
            unknown_errand(),
            locked_out(&imap::sign_in_refused("no", false, None)),
            control_plane("d"),
            secret_unreadable("d"),
            definition_not_found("d"),
            cursor_unreadable("d"),
            uid_validity(1, 2),
            renumbered_while_old_messages_wait(1, 2),
            message_gone(),
            message_renumbered(1, 2),
            message_not_given(),
            message_over_limit(2, 1),
            entra::of_status("h", 429),
            entra::of_status("h", 502),
            refusal("invalid_grant", 400, &[]),
            refusal("never_heard_of", 400, &[123]),
            refusal("", 503, &[]),
            refusal("invalid_client", 401, &[7_000_215]),
            imap::sign_in_refused("no", true, None),
            imap::sign_in_unsupported("a token", &[]),
            imap::not_connected("no"),
            imap::folder_refused("f", "no"),
            imap::settle_refused("no", None),
            imap::settle_refused("no", Some("f")),
            imap::delete_refused("no"),
            imap::expunge_unsupported(),
            imap::command_refused("NOOP", "no"),
            imap::command_refused("NOOP", "[UNAVAILABLE] no"),
            imap::command_refused("NOOP", "too many simultaneous connections"),
            imap::command_refused("NOOP", "Request is throttled."),
            imap::connection_lost(None),
            imap::malformed("no"),
        ];
        for found in found {
            assert!(catalogue::find(&found.code).is_some(), "{found:?}");
            assert!(!found.cause.is_empty() && !found.remedy.is_empty(), "{found:?}");
        }
    }
}

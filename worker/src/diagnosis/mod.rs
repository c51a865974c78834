//! What went wrong, why, and how to mend it: error codes and server texts turned into a cause and a remedy.
//!
//! Pure tables. [`entra`] knows the token endpoint, [`imap`] knows mail servers, and what Postroom finds out by itself
//! (an untrusted certificate, a folder that is missing) stands here.

pub mod entra;
pub mod imap;

use std::time::Duration;

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
    /// A problem without a waiting time asked for.
    pub fn new(
        kind: ProblemKind,
        code: impl Into<String>,
        cause: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { kind, code: code.into(), cause: cause.into(), remedy: remedy.into(), wait: None }
    }

    /// The same problem, not to be tried again before `wait` has passed.
    pub fn after(mut self, wait: Option<Duration>) -> Self {
        self.wait = wait.or(self.wait);
        self
    }

    /// True when it passes without anybody's doing.
    pub fn is_transient(&self) -> bool {
        matches!(self.kind, ProblemKind::Transient | ProblemKind::Throttled)
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

/// The certificate of `host` is signed by nobody we trust.
pub fn untrusted(host: &str, detail: &str) -> Diagnosis {
    Diagnosis::new(
        ProblemKind::Configuration,
        "TLS_UNTRUSTED",
        format!("the certificate of {host} is not signed by a CA that this worker trusts ({detail})"),
        "put the signing CA certificate (PEM) on the worker's machine and name the file in the incoming server's \
         `caFile`; if a proxy opens TLS on the way, its CA is the one to trust",
    )
}

/// The certificate of `host` is trusted but does not fit.
pub fn bad_certificate(host: &str, detail: &str) -> Diagnosis {
    Diagnosis::new(
        ProblemKind::Configuration,
        "TLS_BAD_CERTIFICATE",
        format!("the certificate of {host} cannot be used ({detail})"),
        "compare the host in the definition with the names in the certificate, and look at its dates and at the \
         worker's clock",
    )
}

/// TLS could not be agreed on for another reason.
pub fn tls_failed(host: &str, detail: &str) -> Diagnosis {
    Diagnosis::new(
        ProblemKind::Transient,
        "TLS_FAILED",
        format!("TLS with {host} failed ({detail})"),
        "if it lasts, check that the port speaks TLS from the first byte and that nothing on the way interferes",
    )
}

/// The CA file of the definition cannot be used.
pub fn bad_ca_file(path: &str, detail: &str) -> Diagnosis {
    Diagnosis::new(
        ProblemKind::Configuration,
        "CA_FILE_UNREADABLE",
        format!("the CA file {path} cannot be used ({detail})"),
        "`caFile` names a PEM file with certificates on the worker's own machine that the worker may read",
    )
}

/// `host` does not answer.
pub fn unreachable(host: &str, detail: &str) -> Diagnosis {
    Diagnosis::new(
        ProblemKind::Transient,
        "UNREACHABLE",
        format!("{host} cannot be reached ({detail})"),
        "if it lasts, check name, port, DNS, routes and firewalls between the worker and that host",
    )
}

/// `host` stopped answering within a step.
pub fn timed_out(host: &str, step: &str) -> Diagnosis {
    Diagnosis::new(
        ProblemKind::Transient,
        "TIMED_OUT",
        format!("{host} did not answer in time to {step}"),
        "if it lasts, look at the load of the server and at what lies between it and the worker",
    )
}

/// A defect of Postroom, for example a panic.
pub fn defect(what: &str) -> Diagnosis {
    Diagnosis::new(
        ProblemKind::Defect,
        "DEFECT",
        format!("Postroom made a mistake: {what}"),
        "send this line, the version and the worker's log around this time to the maintainers; the mailbox is tried \
         again by itself",
    )
}

/// An errand that this version does not know.
pub fn unknown_errand() -> Diagnosis {
    Diagnosis::new(
        ProblemKind::Configuration,
        "ERRAND_UNKNOWN",
        "this worker does not know how to do what it was asked to",
        "the worker is older than the control plane: bring it to the same version",
    )
}

/// The message that was to be fetched is not in its folder any more.
pub fn message_gone() -> Diagnosis {
    Diagnosis::new(
        ProblemKind::Mailbox,
        "MESSAGE_GONE",
        "the message is not in its folder any more: somebody moved or deleted it",
        "move it back into the folder, where it is read as a new message; or discard it",
    )
}

/// The folder of the message that was to be fetched has another UIDVALIDITY than the message.
pub fn message_renumbered(known: u32, found: u32) -> Diagnosis {
    Diagnosis::new(
        ProblemKind::Mailbox,
        "MESSAGE_GONE",
        format!("the folder is numbered anew since the message was seen (UIDVALIDITY {known}, now {found})"),
        "look for it in the mailbox; it can only be discarded here",
    )
}

/// The message that was to be fetched is listed and not given.
pub fn message_not_given() -> Diagnosis {
    Diagnosis::new(
        ProblemKind::Mailbox,
        "MESSAGE_NOT_GIVEN",
        "the server lists the message but does not give it, or sends a placeholder in its place",
        "open it in another program; if that fails too, it is damaged on the server",
    )
}

/// The message that was to be fetched is larger than anything that is taken.
pub fn message_over_limit(size: u64, limit: u64) -> Diagnosis {
    Diagnosis::new(
        ProblemKind::Mailbox,
        "MESSAGE_OVER_LIMIT",
        format!("the message has {size} bytes, and {limit} are the most that can be taken in"),
        "read it in the mailbox, then discard it here",
    )
}

/// A password was refused as often as it may be within an hour.
pub fn locked_out(code: &str, cause: &str, remedy: &str) -> Diagnosis {
    Diagnosis::new(
        ProblemKind::Credential,
        code,
        format!("{cause}; refused three times within the hour, so it is not tried again before that hour is over"),
        format!("{remedy}; a changed password is tried at once"),
    )
}

/// The control plane refuses or cannot be reached.
pub fn control_plane(detail: &str) -> Diagnosis {
    Diagnosis::new(
        ProblemKind::Transient,
        "CONTROL_PLANE",
        format!("the control plane did not take a report ({detail})"),
        "nothing is lost: it is repeated; if it lasts, look at the control plane and its storage",
    )
}

/// The control plane cannot read a secret of the definition; `detail` is what it says.
pub fn secret_unreadable(detail: &str) -> Diagnosis {
    Diagnosis::new(
        ProblemKind::Configuration,
        "SECRET_UNREADABLE",
        excerpt(detail, 500),
        "restore the key file secret.key of the control plane from the backup, or apply the secret or password again",
    )
}

/// The control plane has no definition of the mailbox; `detail` is what it says.
pub fn definition_not_found(detail: &str) -> Diagnosis {
    Diagnosis::new(
        ProblemKind::Configuration,
        "NOT_FOUND",
        excerpt(detail, 500),
        "nothing to do if the address was taken out: the mailbox is let go soon; otherwise apply its definition again",
    )
}

/// The mailbox has another UIDVALIDITY than the one its cursor belongs to.
pub fn uid_validity(committed: u32, found: u32) -> Diagnosis {
    Diagnosis::new(
        ProblemKind::Mailbox,
        "UIDVALIDITY_CHANGED",
        format!("the server has renumbered the folder (UIDVALIDITY {committed} became {found})"),
        "reading has stopped so that nothing is taken twice or lost: find out why the folder was recreated, restored \
         or moved",
    )
}

/// The first `max` characters of a text from a server, on one line and without control characters.
pub fn excerpt(text: &str, max: usize) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(max).collect::<String>().trim().to_owned()
}

//! What went wrong, what to do about it, and the exit code.

use std::io;

use postroom_proto::reason::{FieldFault, Reason};
use tonic::Code;

use crate::client;
use crate::render::text;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// Decides the exit code.
    pub kind: Kind,
    /// What failed. Never contains a secret.
    pub message: String,
    /// Every single fault, where there are several or where they have a place.
    pub faults: Vec<FieldFault>,
    /// What to do next.
    pub help: Option<String>,
    /// The failure of the command's own streams, where it was one.
    #[source]
    pub source: Option<io::Error>,
}

/// Kind of a failure. Scripts rely on the numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The command line cannot be understood, or does not say which control plane.
    Usage,
    /// What was named does not exist.
    NotFound,
    /// A model file or a field is at fault.
    Invalid,
    /// The token is missing, unknown, or its role is not enough.
    Refused,
    /// Somebody else was faster, or the thing has moved on.
    Conflict,
    /// The control plane cannot be reached or cannot serve.
    Unavailable,
    /// Anything else.
    Internal,
}

/// The table of exit codes for `--help`.
pub const EXIT_CODES: &str = "\
Exit codes:
  0  done
  2  usage: the command line, or no control plane is named
  3  not found
  4  invalid input: a model file or a field is at fault
  5  refused: token missing, unknown, or without the role
  6  conflict: changed meanwhile, or no longer allocated
  7  unavailable: not reachable, or not serving at the moment
  8  anything else";

impl Kind {
    /// The exit code that belongs to the kind.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Usage => 2,
            Self::NotFound => 3,
            Self::Invalid => 4,
            Self::Refused => 5,
            Self::Conflict => 6,
            Self::Unavailable => 7,
            Self::Internal => 8,
        }
    }
}

impl Error {
    /// An error without faults and help.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), faults: Vec::new(), help: None, source: None }
    }

    /// Adds what to do next.
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Adds single faults.
    pub fn faults(mut self, faults: Vec<FieldFault>) -> Self {
        self.faults = faults;
        self
    }

    /// The code that the process ends with.
    pub fn exit_code(&self) -> u8 {
        self.kind.exit_code()
    }

    /// True when the reader of standard output went away, for example `postroom contact list | head -1`.
    pub fn is_broken_pipe(&self) -> bool {
        self.source.as_ref().is_some_and(|source| source.kind() == io::ErrorKind::BrokenPipe)
    }

    /// The error as it is shown: `error:`, one line a fault, `help:`.
    pub fn render(&self) -> String {
        let mut shown = format!("error: {}\n", text::lines(&self.message));
        for fault in &self.faults {
            shown += &format!("  {}: {}\n", text::line(&fault.field), text::line(&fault.description));
        }
        if let Some(help) = &self.help {
            shown += &format!("help: {}\n", text::lines(help));
        }
        shown
    }
}

impl From<io::Error> for Error {
    /// Failures of the command's own streams.
    fn from(source: io::Error) -> Self {
        Self { source: Some(source), ..Self::new(Kind::Internal, "cannot write the output") }
    }
}

impl From<client::Error> for Error {
    fn from(error: client::Error) -> Self {
        match error {
            client::Error::Answered { failure } => {
                let (kind, help) = of_reason(failure.reason);
                // One fault is already told by the message.
                let faults = if failure.fields.len() > 1 { failure.fields } else { Vec::new() };
                Self { faults, help: help.map(Into::into), ..Self::new(kind, failure.message) }
            }
            client::Error::Deadline { endpoint, seconds } => {
                Self::new(Kind::Unavailable, format!("{endpoint} did not answer within {seconds} s"))
                    .help("see whether the control plane is overloaded or stopped, then try again")
            }
            client::Error::Untrusted { endpoint, detail } => {
                Self::new(Kind::Unavailable, format!("the certificate of {endpoint} is not trusted: {detail}"))
                    .help("name the CA that signed it by --ca-file FILE")
            }
            client::Error::Unreachable { endpoint, detail } => {
                Self::new(Kind::Unavailable, format!("cannot reach the control plane at {endpoint}: {detail}"))
                    .help("see whether it runs and whether the address is right; `postroom up` starts one here")
            }
            client::Error::Foreign { endpoint, code, message } => {
                Self::new(of_code(code), format!("{endpoint} answered {code:?}: {message}")).help(
                    "something between here and the control plane may have answered; see that the endpoint is right",
                )
            }
            client::Error::Setup { message, help } => Self::new(Kind::Usage, message).help(help),
        }
    }
}

/// Exit code and remedy of a reason. The message of the control plane says what happened.
fn of_reason(reason: Reason) -> (Kind, Option<&'static str>) {
    match reason {
        Reason::NotFound => (Kind::NotFound, Some("see the `list` command of the noun for what exists")),
        Reason::InvalidField | Reason::BlobInvalid => (Kind::Invalid, Some("correct it and try again")),
        Reason::Unauthenticated => {
            (Kind::Refused, Some("name a valid token by --token-file FILE, or an installation by --data DIR"))
        }
        Reason::PermissionDenied => (Kind::Refused, Some("use a token with a role that may do this")),
        Reason::EtagMismatch => {
            (Kind::Conflict, Some("somebody changed the model meanwhile: look at it and apply again"))
        }
        Reason::AllocationLost => (Kind::Conflict, Some("the contact went back to its queue: take contacts again")),
        Reason::LeaseLost | Reason::CursorMismatch => (Kind::Conflict, Some("try again")),
        Reason::NoLeader | Reason::NotCaughtUp | Reason::ShuttingDown => {
            (Kind::Unavailable, Some("the control plane is starting or changing its leader: try again in a moment"))
        }
        Reason::OutcomeUnknown => {
            (Kind::Unavailable, Some("it is not known whether the call took effect: look, then try again"))
        }
        Reason::StorageFailed => (Kind::Unavailable, Some("see the control plane's log, and whether its disk is full")),
        Reason::TooMany => (Kind::Unavailable, Some("the control plane is busy: try again in a moment")),
        Reason::NoWorker => (Kind::Unavailable, Some("see whether a worker runs: `postroom mailbox list` names them")),
        Reason::ErrandFailed => (Kind::Unavailable, Some("mend what the message names, then try again")),
        Reason::SecretUnreadable => (Kind::Internal, Some("restore the control plane's key file")),
        Reason::SessionEnded | Reason::BlobMissing | Reason::RevisionCompacted => (Kind::Internal, None),
        Reason::Internal | Reason::Unspecified => {
            (Kind::Internal, Some("this is a defect: report it with the message above and the control plane's log"))
        }
    }
}

/// Kind of an answer that does not come from Postroom.
fn of_code(code: Code) -> Kind {
    match code {
        Code::NotFound => Kind::NotFound,
        Code::InvalidArgument => Kind::Invalid,
        Code::Unauthenticated | Code::PermissionDenied => Kind::Refused,
        Code::Aborted => Kind::Conflict,
        Code::Unavailable | Code::DeadlineExceeded | Code::ResourceExhausted | Code::Cancelled => Kind::Unavailable,
        _ => Kind::Internal,
    }
}

#[cfg(test)]
mod tests {
    use postroom_proto::reason::Failure;

    use super::*;

    fn fault(field: &str, description: &str) -> FieldFault {
        FieldFault { field: field.into(), description: description.into() }
    }

    #[test]
    fn every_fault_has_its_line_and_the_remedy_comes_last() {
        let failure = Failure::invalid(vec![
            fault("queues[0].name", "is empty; give the queue a name"),
            fault("queues[0].addresses[2].email", "\"billing\" has no domain; write billing@example.com"),
        ]);
        let error = Error::from(client::Error::Answered { failure });
        insta::assert_snapshot!(error.render(), @r#"
        error: 2 fields are at fault
          queues[0].name: is empty; give the queue a name
          queues[0].addresses[2].email: "billing" has no domain; write billing@example.com
        help: correct it and try again
        "#);
        assert_eq!(error.exit_code(), 4);
    }

    #[test]
    fn every_exit_code_is_documented_and_is_the_only_one_of_its_kind() {
        let kinds = [
            Kind::Usage,
            Kind::NotFound,
            Kind::Invalid,
            Kind::Refused,
            Kind::Conflict,
            Kind::Unavailable,
            Kind::Internal,
        ];
        for (kind, code) in kinds.into_iter().zip(2u8..) {
            assert_eq!(kind.exit_code(), code);
            assert!(EXIT_CODES.contains(&format!("\n  {code}  ")), "{kind:?}");
        }
    }

    #[test]
    fn a_message_cannot_steer_the_terminal() {
        let shown = Error::new(Kind::NotFound, "no queue \u{1b}]0;owned\u{7}").render();
        assert!(!shown.contains('\u{1b}') && !shown.contains('\u{7}'), "{shown:?}");
    }
}

//! What went wrong, what to do about it, and the exit code.

use std::io;

use postroom_proto::reason::{FieldFault, Reason};
use tonic::Code;

use crate::client;
use crate::render::style::{Tone, painted};
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
    /// What to do next. None: what [`Kind::remedy`] says.
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
    /// The command did its work, and what it looked at needs somebody: a check failed, a status is not well, a mailbox
    /// and the ledger differ.
    NotWell,
    /// Time ran out before the end was seen. What was asked for may have happened, or may still happen.
    TimedOut,
    /// Stopped by Ctrl-C.
    Interrupted,
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
  8  anything else
  9  not well: a check failed, or something needs a person
  10  timed out: it is not known whether it was done
  130  interrupted by Ctrl-C
Of several things of which some failed, the code is that of the failures when they are all of one kind, else 6.";

impl Kind {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Usage,
        Self::NotFound,
        Self::Invalid,
        Self::Refused,
        Self::Conflict,
        Self::Unavailable,
        Self::Internal,
        Self::NotWell,
        Self::TimedOut,
        Self::Interrupted,
    ];

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
            Self::NotWell => 9,
            Self::TimedOut => 10,
            Self::Interrupted => 130,
        }
    }

    /// What to do about a failure that says nothing better.
    pub fn remedy(self) -> &'static str {
        match self {
            Self::Usage => "see --help of the command",
            Self::NotFound => "see the `list` command of the noun for what exists",
            Self::Invalid => "correct it and try again",
            Self::Refused => "use a token with a role that may do this",
            Self::Conflict => "look at what is there now, then try again",
            Self::Unavailable => "see whether the control plane runs, then try again",
            Self::Internal => "see the control plane's log; if it does not say what to do, report it with this message",
            Self::NotWell => "see above what is wrong, and its remedy",
            Self::TimedOut => "look whether it took effect, then try again",
            Self::Interrupted => "start it again when it suits",
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

    /// What to do next.
    pub fn remedy(&self) -> &str {
        self.help.as_deref().unwrap_or_else(|| self.kind.remedy())
    }

    /// The failure of some of several things that were asked for at once: `reasons` has one name of a
    /// [`Reason`] for each that failed, as outcomes on the wire name it. None: nothing failed.
    ///
    /// The kind is that of the failures when they are all of one kind, else conflict.
    pub fn partial<'a>(
        asked: usize,
        what: &str,
        done: &str,
        reasons: impl IntoIterator<Item = &'a str>,
    ) -> Option<Self> {
        let all: Vec<(Kind, &'static str)> = reasons.into_iter().map(|name| of_reason(reason_named(name))).collect();
        let (first, remedy) = *all.first()?;
        let kind = if all.iter().all(|(kind, _)| *kind == first) { first } else { Kind::Conflict };
        let remedy =
            if all.iter().all(|(_, other)| *other == remedy) { remedy } else { "see the reason of each above" };
        Some(Self::new(kind, format!("{} of {asked} {what} could not be {done}", all.len())).help(remedy))
    }

    /// The error as it is shown: `error:`, one line a fault, `help:`.
    pub fn render(&self) -> String {
        self.render_in(false)
    }

    /// The same, in colour or not.
    pub fn render_in(&self, color: bool) -> String {
        let (error, help) = (painted(color, Tone::Bad, "error:"), painted(color, Tone::Label, "help:"));
        let mut shown = format!("{error} {}\n", text::lines(&self.message));
        for fault in &self.faults {
            shown += &format!("  {}: {}\n", text::line(&fault.field), text::line(&fault.description));
        }
        shown += &format!("{help} {}\n", text::lines(self.remedy()));
        shown
    }
}

/// An error with all its causes in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

impl From<io::Error> for Error {
    /// Failures of the command's own streams.
    fn from(source: io::Error) -> Self {
        let message = format!("cannot write the output: {source}");
        let error = Self::new(Kind::Internal, message).help("see whether the disk is full or the terminal is gone");
        Self { source: Some(source), ..error }
    }
}

impl From<client::Error> for Error {
    fn from(error: client::Error) -> Self {
        match error {
            client::Error::Answered { failure } => {
                let (kind, help) = of_reason(failure.reason);
                // One fault is already told by the message.
                let faults = if failure.fields.len() > 1 { failure.fields } else { Vec::new() };
                Self { faults, ..Self::new(kind, failure.message) }.help(help)
            }
            client::Error::Deadline { endpoint, seconds } => {
                Self::new(Kind::TimedOut, format!("{endpoint} did not answer within {seconds} s")).help(
                    "see whether the control plane is overloaded or stopped, and whether the call took effect, then try again",
                )
            }
            client::Error::Untrusted { endpoint, detail } => {
                Self::new(Kind::Unavailable, format!("the certificate of {endpoint} is not trusted: {detail}"))
                    .help("name the CA that signed it by --ca-file FILE")
            }
            client::Error::NoTls { endpoint } => {
                Self::new(Kind::Unavailable, format!("{endpoint} does not speak TLS"))
                    .help("where it serves plaintext, write http:// in place of https:// (beyond this machine also --insecure); else see that the port is right")
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

/// The reason with this name on the wire.
fn reason_named(name: &str) -> Reason {
    Reason::from_str_name(&format!("REASON_{name}")).unwrap_or_default()
}

/// Kind and remedy of a reason. The message of the control plane says what happened.
fn of_reason(reason: Reason) -> (Kind, &'static str) {
    match reason {
        Reason::NotFound => (Kind::NotFound, Kind::NotFound.remedy()),
        Reason::InvalidField | Reason::BlobInvalid => (Kind::Invalid, Kind::Invalid.remedy()),
        Reason::Unauthenticated => {
            (Kind::Refused, "name a valid token by --token-file FILE, or an installation by --data DIR")
        }
        Reason::PermissionDenied => (Kind::Refused, Kind::Refused.remedy()),
        Reason::EtagMismatch => (Kind::Conflict, "somebody changed the model meanwhile: look at it and apply again"),
        Reason::AllocationLost => (Kind::Conflict, "what went back to its queue can be taken again"),
        Reason::WrongState => (Kind::Conflict, "look at it with `postroom contact show ID`"),
        Reason::LeaseLost | Reason::CursorMismatch => (Kind::Conflict, "try again"),
        Reason::RevisionCompacted => {
            (Kind::Conflict, "what was asked to go on from is no longer kept: begin again without it")
        }
        Reason::SessionEnded | Reason::BlobMissing => (Kind::Conflict, "start again from the first step"),
        Reason::NoLeader | Reason::NotCaughtUp | Reason::ShuttingDown => {
            (Kind::Unavailable, "the control plane is starting or changing its leader: try again in a moment")
        }
        Reason::OutcomeUnknown => {
            (Kind::TimedOut, "it is not known whether the call took effect: look, then try again")
        }
        Reason::StorageFailed => (Kind::Unavailable, "see the control plane's log, and whether its disk is full"),
        Reason::TooMany => (Kind::Unavailable, "the control plane is busy: try again in a moment"),
        Reason::NoWorker => (Kind::Unavailable, "see whether a worker runs: `postroom worker list`"),
        Reason::StoreNotOurs => (Kind::Unavailable, "see `postroom store show` for what is wrong and what to do"),
        Reason::ErrandFailed => (Kind::Unavailable, "mend what the message names, then try again"),
        Reason::KeyUnusable => (Kind::Conflict, "mend the key as the message says, then run it again"),
        Reason::SecretUnreadable => (Kind::Internal, "restore the control plane's key file"),
        Reason::MessageGone => {
            (Kind::Conflict, "nothing can be made of it any more: `postroom message discard ID` takes it off the list")
        }
        Reason::MessageUnreadable => {
            (Kind::Conflict, "look at it in the mailbox; `postroom message discard ID` takes it off the list")
        }
        Reason::RequestReused => (Kind::Conflict, "leave the request id out, or choose a new one for a new mail"),
        Reason::MailLoop => (
            Kind::Conflict,
            "look at the correspondence with `postroom outbox list --address ADDRESS`, then send again",
        ),
        Reason::NoBacklog => (Kind::Conflict, "see `postroom mailbox show MAILBOX` for how it is read"),
        Reason::TlsRequired => (Kind::Conflict, "see docs/access.md for how the control plane gets a certificate"),
        Reason::ClaimLost => (Kind::Conflict, "start again from the first step"),
        Reason::WrongDisposition => (Kind::Conflict, "see `postroom message show ID` for what it is"),
        Reason::Internal | Reason::Unspecified => {
            (Kind::Internal, "this is a defect: report it with the message above and the control plane's log")
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
        Code::DeadlineExceeded => Kind::TimedOut,
        Code::Unavailable | Code::ResourceExhausted | Code::Cancelled => Kind::Unavailable,
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
    fn every_kind_has_a_remedy_and_an_exit_code_that_is_documented_and_its_own() {
        let mut codes: Vec<u8> = Kind::ALL.iter().map(|kind| kind.exit_code()).collect();
        for kind in Kind::ALL {
            assert!(EXIT_CODES.contains(&format!("\n  {}  ", kind.exit_code())), "{kind:?}");
            assert!(!kind.remedy().is_empty());
        }
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes, [2, 3, 4, 5, 6, 7, 8, 9, 10, 130]);
    }

    /// Golden: scripts rely on these codes, people on these remedies. A reason is added here by `INSTA_UPDATE=always`.
    #[test]
    fn every_reason_has_its_exit_code_and_a_remedy() {
        let mut table = String::new();
        // Numbers may be left out.
        for reason in (0..200).filter_map(|number| Reason::try_from(number).ok()) {
            let failure = Failure::new(reason, "what happened");
            let error = Error::from(client::Error::Answered { failure });
            assert!(!error.remedy().is_empty(), "{reason:?}");
            let name = postroom_proto::reason::name(reason);
            assert_eq!(reason_named(name), reason);
            table += &format!("{name}: {}, {}\n", error.exit_code(), error.remedy());
        }
        insta::assert_snapshot!(table);
    }

    #[test]
    fn every_failure_of_a_call_has_its_exit_code_and_a_remedy() {
        let endpoint = || "https://postroom.example:7430".to_owned();
        let mut shown = String::new();
        for error in [
            client::Error::Deadline { endpoint: endpoint(), seconds: 10 },
            client::Error::Untrusted { endpoint: endpoint(), detail: "UnknownIssuer".into() },
            client::Error::NoTls { endpoint: endpoint() },
            client::Error::Unreachable { endpoint: endpoint(), detail: "connection refused".into() },
            client::Error::Foreign { endpoint: endpoint(), code: Code::PermissionDenied, message: "blocked".into() },
            client::Error::Foreign { endpoint: endpoint(), code: Code::DeadlineExceeded, message: "slow".into() },
            client::Error::Foreign { endpoint: endpoint(), code: Code::Unimplemented, message: String::new() },
            client::Error::Setup { message: "no endpoint".into(), help: "write https://host:port".into() },
        ] {
            let error = Error::from(error);
            assert!(!error.remedy().is_empty(), "{error}");
            shown += &format!("exit code {}\n{}", error.exit_code(), error.render());
        }
        insta::assert_snapshot!(shown);
    }

    #[test]
    fn the_failure_of_some_has_the_code_of_all_that_failed_or_is_a_conflict() {
        let code = |reasons: &[&str]| {
            Error::partial(4, "contacts", "accepted", reasons.iter().copied()).map(|error| error.exit_code())
        };
        assert_eq!(code(&[]), None);
        assert_eq!(code(&["NOT_FOUND", "NOT_FOUND"]), Some(3));
        assert_eq!(code(&["ALLOCATION_LOST"]), Some(6));
        assert_eq!(code(&["NOT_FOUND", "ALLOCATION_LOST"]), Some(6));
        assert_eq!(code(&["OF_A_NEWER_CONTROL_PLANE"]), Some(8));
    }

    #[test]
    fn a_message_cannot_steer_the_terminal() {
        let shown = Error::new(Kind::NotFound, "no queue \u{1b}]0;owned\u{7}").render();
        assert!(!shown.contains('\u{1b}') && !shown.contains('\u{7}'), "{shown:?}");
    }
}

//! Why a call failed, as both sides of the wire know it.
//!
//! One [`Failure`] becomes one `google.rpc.Status` with exactly one `ErrorInfo`, and can be read back on the other side.

use std::collections::HashMap;
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt as _};

pub use crate::v1::Reason;

/// `ErrorInfo.domain` of every error of Postroom.
pub const DOMAIN: &str = "postroom";

/// A field at fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldFault {
    /// Path of the field in the words of the model file, for example `queues[0].addresses[2].email`.
    pub field: String,
    /// What is wrong with it, and what to write instead.
    pub description: String,
}

/// An error that a client can tell apart and act on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// What kind of failure.
    pub reason: Reason,
    /// For people: what failed and what to do. Never contains a secret.
    pub message: String,
    /// Every field at fault; only with [`Reason::InvalidField`].
    pub fields: Vec<FieldFault>,
    /// When to try again, where trying again makes sense.
    pub retry_after: Option<Duration>,
    /// Facts for programs, for example the cursor that is committed.
    pub metadata: HashMap<String, String>,
}

impl Failure {
    /// A failure without fields or facts.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        let retry_after = match reason {
            Reason::NoLeader | Reason::NotCaughtUp | Reason::ShuttingDown => Some(Duration::from_millis(200)),
            Reason::TooMany | Reason::StorageFailed | Reason::NoWorker | Reason::StoreNotOurs => {
                Some(Duration::from_secs(1))
            }
            _ => None,
        };
        Self { reason, message: message.into(), fields: Vec::new(), retry_after, metadata: HashMap::new() }
    }

    /// A request with faults in its fields.
    pub fn invalid(fields: Vec<FieldFault>) -> Self {
        let message = match fields.as_slice() {
            [only] => format!("{}: {}", only.field, only.description),
            all => format!("{} fields are at fault", all.len()),
        };
        Self { fields, ..Self::new(Reason::InvalidField, message) }
    }

    /// A request with one fault.
    pub fn invalid_field(field: impl Into<String>, description: impl Into<String>) -> Self {
        Self::invalid(vec![FieldFault { field: field.into(), description: description.into() }])
    }

    /// Adds a fact for programs.
    pub fn with(mut self, key: &str, value: impl Into<String>) -> Self {
        self.metadata.insert(key.into(), value.into());
        self
    }

    /// Reads a failure back from a status of Postroom. `None`: the status does not come from Postroom, but from
    /// something in between or from the transport.
    pub fn from_status(status: &Status) -> Option<Self> {
        let details = status.get_error_details();
        let info = details.error_info().filter(|info| info.domain == DOMAIN)?;
        let fields = details.bad_request().map(|bad| {
            let faults = bad.field_violations.iter();
            faults.map(|f| FieldFault { field: f.field.clone(), description: f.description.clone() }).collect()
        });
        Some(Self {
            reason: Reason::from_str_name(&format!("REASON_{}", info.reason)).unwrap_or(Reason::Unspecified),
            message: status.message().into(),
            fields: fields.unwrap_or_default(),
            retry_after: details.retry_info().and_then(|retry| retry.retry_delay),
            metadata: info.metadata.clone(),
        })
    }
}

/// The name of a reason on the wire: the enum value without its prefix.
pub fn name(reason: Reason) -> &'static str {
    reason.as_str_name().trim_start_matches("REASON_")
}

/// The gRPC code that belongs to a reason.
pub fn code(reason: Reason) -> Code {
    match reason {
        Reason::Unspecified => Code::Unknown,
        Reason::NotFound => Code::NotFound,
        Reason::InvalidField | Reason::BlobInvalid => Code::InvalidArgument,
        Reason::EtagMismatch | Reason::LeaseLost | Reason::CursorMismatch | Reason::AllocationLost => Code::Aborted,
        Reason::ClaimLost => Code::Aborted,
        Reason::RequestReused => Code::AlreadyExists,
        Reason::NoLeader
        | Reason::NotCaughtUp
        | Reason::OutcomeUnknown
        | Reason::StorageFailed
        | Reason::NoWorker
        | Reason::StoreNotOurs
        | Reason::ShuttingDown => Code::Unavailable,
        Reason::SessionEnded | Reason::BlobMissing | Reason::SecretUnreadable | Reason::ErrandFailed => {
            Code::FailedPrecondition
        }
        Reason::MessageGone
        | Reason::MessageUnreadable
        | Reason::WrongDisposition
        | Reason::WrongState
        | Reason::NoBacklog
        | Reason::TlsRequired
        | Reason::KeyUnusable
        | Reason::MailLoop => Code::FailedPrecondition,
        Reason::RevisionCompacted => Code::OutOfRange,
        Reason::TooMany => Code::ResourceExhausted,
        Reason::Unauthenticated => Code::Unauthenticated,
        Reason::PermissionDenied => Code::PermissionDenied,
        Reason::Internal => Code::Internal,
    }
}

impl From<Failure> for Status {
    fn from(failure: Failure) -> Self {
        let mut details = ErrorDetails::with_error_info(name(failure.reason), DOMAIN, failure.metadata);
        if !failure.fields.is_empty() {
            let faults = failure.fields.into_iter();
            details.set_bad_request(faults.map(|f| FieldViolation::new(f.field, f.description)).collect::<Vec<_>>());
        }
        if let Some(delay) = failure.retry_after {
            details.set_retry_info(Some(delay));
        }
        Status::with_error_details(code(failure.reason), failure.message, details)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_survives_the_wire() {
        // Numbers may be left out.
        for reason in (1..1000).filter_map(|number| Reason::try_from(number).ok()) {
            let failure = Failure::new(reason, "what happened").with("mailbox", "mbx-1");
            let status = Status::from(failure.clone());
            assert_ne!(status.code(), Code::Unknown, "{reason:?}");
            assert_eq!(Failure::from_status(&status), Some(failure));
        }
    }

    #[test]
    fn faults_in_fields_survive_the_wire() {
        let failure = Failure::invalid_field("queues[0].name", "is empty; give the queue a name");
        assert_eq!(Failure::from_status(&Status::from(failure.clone())), Some(failure));
    }

    #[test]
    fn a_status_of_something_in_between_is_not_ours() {
        assert_eq!(Failure::from_status(&Status::unavailable("tcp connect error")), None);
    }
}

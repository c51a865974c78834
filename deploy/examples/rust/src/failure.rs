//! What to do about a call that failed: one function decides, from what the control plane says.

use std::time::Duration;

use postroom_proto::reason::{Failure, Reason};
use tonic::{Code, Status};

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Repeat the same call, with the same ids, after this time.
    Retry(Duration),
    /// Drop these contacts, they are not yours any more, and take others.
    TakeAgain,
    /// Stop: the request, the token or the settings are wrong, and repeating it helps nobody.
    Fix,
    /// Stop: a defect. Tell the operator what the message says.
    GiveUp,
}

/// Decides; `attempt` counts from 0. Reasons that this client does not know are judged by their gRPC code, as are failures
/// that the control plane never saw: no connection, a proxy, a deadline that passed.
pub(crate) fn decide(status: &Status, attempt: u32) -> Decision {
    let failure = Failure::from_status(status);
    // Bounded below and above, so that many clients come back neither all at once nor never. A real one adds jitter.
    let backoff = Duration::from_millis(100).saturating_mul(1 << attempt.min(10)).min(Duration::from_secs(5));
    let least = failure.as_ref().and_then(|failure| failure.retry_after).unwrap_or_default();
    match failure.map(|failure| failure.reason) {
        Some(Reason::AllocationLost | Reason::WrongState) => Decision::TakeAgain,
        Some(Reason::Internal) => Decision::GiveUp,
        Some(
            Reason::OutcomeUnknown
            | Reason::NoLeader
            | Reason::NotCaughtUp
            | Reason::StorageFailed
            | Reason::ShuttingDown
            | Reason::TooMany,
        ) => Decision::Retry(backoff.max(least)),
        _ => match status.code() {
            Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown => {
                Decision::Retry(backoff.max(least))
            }
            Code::Aborted => Decision::TakeAgain,
            Code::Internal => Decision::GiveUp,
            _ => Decision::Fix,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decided(reason: Reason) -> Decision {
        decide(&Failure::new(reason, "").into(), 0)
    }

    #[test]
    fn only_what_passes_by_itself_is_repeated() {
        for reason in [Reason::OutcomeUnknown, Reason::StorageFailed, Reason::ShuttingDown, Reason::TooMany] {
            assert!(matches!(decided(reason), Decision::Retry(_)), "{reason:?}");
        }
        assert_eq!(decided(Reason::AllocationLost), Decision::TakeAgain);
        for reason in [Reason::NotFound, Reason::InvalidField, Reason::Unauthenticated, Reason::PermissionDenied] {
            assert_eq!(decided(reason), Decision::Fix, "{reason:?}");
        }
        assert_eq!(decided(Reason::Internal), Decision::GiveUp);
        assert!(matches!(decide(&Status::unavailable("tcp connect error"), 3), Decision::Retry(_)));
        assert_eq!(decide(&Status::unimplemented("a proxy"), 0), Decision::Fix);
    }

    #[test]
    fn the_control_plane_says_how_long_to_wait() {
        let failure = Failure { retry_after: Some(Duration::from_secs(30)), ..Failure::new(Reason::TooMany, "") };
        assert_eq!(decide(&failure.into(), 0), Decision::Retry(Duration::from_secs(30)));
    }
}

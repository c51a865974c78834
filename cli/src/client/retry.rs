//! Which failures are tried again, and when (AIP-194).

use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};
use postroom_proto::reason::Failure;
use tonic::{Code, Status};

use super::connect;

/// What may be repeated after a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeat {
    /// The same call.
    Call,
    /// The whole operation: it read nothing before that a conflict would have made stale.
    Operation,
    /// Nothing: done twice it would do harm, or hide that it was done.
    Never,
}

/// Most tries while nobody answers at all: an operator should not wait long to learn that nothing runs there.
const MAX_UNREACHABLE: u32 = 3;

/// The tries of one call.
#[derive(Debug)]
pub(super) struct Tries {
    repeat: Repeat,
    delays: ExponentialBackoff,
    unreachable: u32,
}

impl Tries {
    pub(super) fn new(repeat: Repeat) -> Self {
        // 0.1 + 0.2 + … + 2 + 2 s: about 10 s in all, which outlasts a change of leader.
        let delays = ExponentialBuilder::new()
            .with_min_delay(Duration::from_millis(100))
            .with_max_delay(Duration::from_secs(2))
            .with_max_times(8)
            .with_jitter();
        Self { repeat, delays: delays.build(), unreachable: 0 }
    }

    /// How long to wait before the next try. `None`: give up.
    pub(super) fn delay_after(&mut self, status: &Status) -> Option<Duration> {
        if self.repeat == Repeat::Never {
            return None;
        }
        let least = match Failure::from_status(status) {
            Some(failure) => match status.code() {
                Code::Unavailable => failure.retry_after.unwrap_or_default(),
                Code::ResourceExhausted => failure.retry_after?,
                Code::Aborted if self.repeat == Repeat::Operation => failure.retry_after.unwrap_or_default(),
                _ => return None,
            },
            None if connect::is_untrusted(status) => return None,
            None if connect::is_transport(status) || status.code() == Code::Unavailable => {
                self.unreachable += 1;
                if self.unreachable >= MAX_UNREACHABLE {
                    return None;
                }
                Duration::ZERO
            }
            None => return None,
        };
        // Whoever asks for a minute is not waited for at a shell: the failure says to try later.
        let delay = self.delays.next()?.max(least);
        (delay <= Duration::from_secs(10)).then_some(delay)
    }
}

#[cfg(test)]
mod tests {
    use postroom_proto::reason::Reason;

    use super::*;

    fn tries(repeat: Repeat, status: &Status) -> usize {
        let mut tries = Tries::new(repeat);
        std::iter::from_fn(|| tries.delay_after(status)).count()
    }

    #[test]
    fn only_what_passes_by_itself_is_tried_again() {
        let of = |reason| Status::from(Failure::new(reason, ""));
        assert_eq!(tries(Repeat::Call, &of(Reason::NoLeader)), 8);
        assert_eq!(tries(Repeat::Call, &of(Reason::OutcomeUnknown)), 8);
        assert_eq!(tries(Repeat::Call, &of(Reason::TooMany)), 8);
        for reason in [Reason::NotFound, Reason::InvalidField, Reason::PermissionDenied, Reason::Internal] {
            assert_eq!(tries(Repeat::Operation, &of(reason)), 0, "{reason:?}");
        }
    }

    #[test]
    fn a_conflict_repeats_the_operation_and_never_the_call() {
        let status = Status::from(Failure::new(Reason::EtagMismatch, ""));
        assert_eq!(tries(Repeat::Call, &status), 0);
        assert_eq!(tries(Repeat::Operation, &status), 8);
    }

    #[test]
    fn the_control_plane_says_how_long_to_wait() {
        let mut failure = Failure::new(Reason::TooMany, "");
        failure.retry_after = Some(Duration::from_secs(3));
        let delay = Tries::new(Repeat::Call).delay_after(&Status::from(failure.clone()));
        assert_eq!(delay, Some(Duration::from_secs(3)));
        failure.retry_after = Some(Duration::from_secs(60));
        assert_eq!(Tries::new(Repeat::Call).delay_after(&Status::from(failure.clone())), None);
        failure.retry_after = None;
        assert_eq!(Tries::new(Repeat::Call).delay_after(&Status::from(failure)), None);
    }

    #[test]
    fn what_must_not_be_done_twice_is_not_tried_again() {
        assert_eq!(tries(Repeat::Never, &Status::from(Failure::new(Reason::OutcomeUnknown, ""))), 0);
        assert_eq!(tries(Repeat::Never, &Status::unavailable("connection reset")), 0);
    }

    #[test]
    fn nobody_there_is_told_soon() {
        assert_eq!(tries(Repeat::Call, &Status::unavailable("tcp connect error")), 2);
        assert_eq!(tries(Repeat::Call, &Status::unknown("from a proxy")), 0);
    }
}

//! When to try again. Pure.

use std::time::Duration;

use crate::diagnosis::{Diagnosis, ProblemKind};

const SECOND: Duration = Duration::from_secs(1);

/// A connection that lasted this long has shown that it can.
const PROVEN: Duration = Duration::from_secs(60);

/// Failures in a row after one more. `worked`: it had reached the end of the mailbox, and `lasted` so long.
///
/// One that works and is lost at once, each time, is failing too: some servers end every IDLE.
pub fn in_a_row(failures: u32, worked: bool, lasted: Duration) -> u32 {
    if worked && lasted >= PROVEN { 1 } else { failures.saturating_add(1) }
}

/// How long to wait after the `failures`-th failure in a row (from 1). `random`: 0.0 to 1.0.
///
/// Doubles from a second to five minutes for what passes by itself, and from half a minute to a quarter of an hour for
/// what somebody has to mend. Never shorter than what the server asked for, so the jitter only lengthens that.
pub fn delay(found: &Diagnosis, failures: u32, random: f64) -> Duration {
    let (first, longest) = match found.kind {
        ProblemKind::Transient => (SECOND, 300 * SECOND),
        ProblemKind::Throttled => (30 * SECOND, 600 * SECOND),
        _ => (30 * SECOND, 900 * SECOND),
    };
    let doubled = first.saturating_mul(1u32 << failures.saturating_sub(1).min(16)).min(longest);
    let random = random.clamp(0.0, 1.0);
    match found.wait {
        Some(asked) => asked.max(SECOND).mul_f64(1.0 + 0.1 * random),
        None => doubled.mul_f64(0.8 + 0.4 * random),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnosis::imap;

    #[test]
    fn waits_grow_and_stay_bounded() {
        let found = imap::connection_lost(None);
        assert_eq!(delay(&found, 1, 0.5), SECOND);
        assert_eq!(delay(&found, 2, 0.5), 2 * SECOND);
        assert_eq!(delay(&found, 1000, 0.5), 300 * SECOND);
        assert!(delay(&imap::not_connected("x"), 1, 0.0) >= 24 * SECOND);
    }

    #[test]
    fn only_a_connection_that_lasts_begins_anew() {
        let day = Duration::from_secs(86_400);
        assert_eq!(in_a_row(0, false, SECOND), 1);
        assert_eq!(in_a_row(7, true, SECOND), 8);
        assert_eq!(in_a_row(7, true, day), 1);
        assert_eq!(in_a_row(7, false, day), 8, "it never got to the end");
    }

    #[test]
    fn what_the_server_asks_for_is_kept() {
        let found = imap::connection_lost(None).after(Some(Duration::from_secs(100)));
        for random in [0.0, 0.5, 1.0] {
            assert!(delay(&found, 1, random) >= Duration::from_secs(100));
            assert!(delay(&found, 9, random) <= Duration::from_secs(110));
        }
    }
}

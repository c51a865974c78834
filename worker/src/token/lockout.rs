//! A refused password is tried at most three times an hour, over restarts too, so that Postroom never locks an account.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use super::CredentialDigest;

/// Tries with a refused password within [`WINDOW_MICROS`].
pub const MAX_TRIES: usize = 3;
/// One hour.
pub const WINDOW_MICROS: i64 = 3_600_000_000;

/// When credentials were refused, for the whole worker: mailboxes that share an account share its tries.
///
/// Times are microseconds since 1970, because they have to survive a restart.
#[derive(Debug, Default)]
pub struct Lockout {
    refused: Mutex<HashMap<CredentialDigest, Vec<i64>>>,
}

impl Lockout {
    /// Takes over what a former holder reported.
    pub fn recall(&self, digest: CredentialDigest, times: &[i64], now: i64) {
        let mut refused = self.lock();
        let known = refused.entry(digest).or_default();
        // A time ahead of our clock would shut the account out for longer than an hour.
        known.extend(times.iter().map(|time| (*time).min(now)));
        known.sort_unstable();
        known.dedup();
        prune(known, now);
        if known.is_empty() {
            refused.remove(&digest);
        }
    }

    /// `Err`: not to be tried before this time.
    pub fn check(&self, digest: CredentialDigest, now: i64) -> Result<(), i64> {
        let mut refused = self.lock();
        let Some(known) = refused.get_mut(&digest) else { return Ok(()) };
        prune(known, now);
        match known.len().checked_sub(MAX_TRIES) {
            Some(oldest) => Err(known[oldest] + WINDOW_MICROS),
            None => Ok(()),
        }
    }

    /// The credentials were refused.
    pub fn refused(&self, digest: CredentialDigest, now: i64) {
        let mut refused = self.lock();
        let known = refused.entry(digest).or_default();
        prune(known, now);
        known.push(now);
    }

    /// The credentials were good.
    pub fn accepted(&self, digest: CredentialDigest) {
        self.lock().remove(&digest);
    }

    /// When the credentials were refused within the last hour, oldest first.
    pub fn times(&self, digest: CredentialDigest, now: i64) -> Vec<i64> {
        let mut refused = self.lock();
        let Some(known) = refused.get_mut(&digest) else { return Vec::new() };
        prune(known, now);
        known.clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<CredentialDigest, Vec<i64>>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn prune(times: &mut Vec<i64>, now: i64) {
    times.retain(|time| *time > now - WINDOW_MICROS);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const A: CredentialDigest = CredentialDigest([1; 32]);
    const B: CredentialDigest = CredentialDigest([2; 32]);

    #[test]
    fn the_fourth_try_within_an_hour_waits() {
        let lockout = Lockout::default();
        for minute in 0..3 {
            assert_eq!(lockout.check(A, minute), Ok(()));
            lockout.refused(A, minute);
        }
        assert_eq!(lockout.check(A, 3), Err(WINDOW_MICROS));
        assert_eq!(lockout.check(B, 3), Ok(()), "others go on");
        assert_eq!(lockout.check(A, WINDOW_MICROS), Ok(()));
    }

    #[test]
    fn a_restart_forgets_nothing() {
        let lockout = Lockout::default();
        lockout.recall(A, &[10, 20, 30], 40);
        lockout.recall(A, &[10, 20, 30], 40);
        assert_eq!(lockout.times(A, 40), vec![10, 20, 30]);
        assert!(lockout.check(A, 40).is_err());
        lockout.accepted(A);
        assert_eq!(lockout.check(A, 40), Ok(()));
    }

    proptest! {
        #[test]
        fn never_more_than_three_within_any_hour(steps in proptest::collection::vec(0i64..WINDOW_MICROS, 1..60)) {
            let lockout = Lockout::default();
            let mut now = 0;
            let mut tried: Vec<i64> = Vec::new();
            for step in steps {
                now += step;
                if lockout.check(A, now).is_ok() {
                    lockout.refused(A, now);
                    tried.push(now);
                }
            }
            for start in &tried {
                let within = tried.iter().filter(|time| (*start..start + WINDOW_MICROS).contains(time)).count();
                prop_assert!(within <= MAX_TRIES);
            }
        }
    }
}

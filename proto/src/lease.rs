//! The times that worker and leader agree on.

use std::time::Duration;

use crate::{convert, v1};

/// A moment on the monotonic clock of one process, as the time since it started. Moments of two processes do not compare.
pub type Moment = Duration;

/// Terms of the leases of a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseTerms {
    /// Time between two heartbeats of a session, before ±20 % of jitter.
    pub heartbeat: Duration,
    /// A heartbeat without an answer is abandoned after this time.
    pub heartbeat_timeout: Duration,
    /// The leader ends a session that it has not heard for this time.
    pub ttl: Duration,
    /// The worker trusts an answer until `ttl - margin` after it sent the heartbeat.
    pub margin: Duration,
    /// Life of the leader's key. A new leader waits `ttl + leader_ttl` before it ends a session it has not heard.
    pub leader_ttl: Duration,
}

impl Default for LeaseTerms {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_secs(2),
            heartbeat_timeout: Duration::from_secs(1),
            ttl: Duration::from_secs(12),
            margin: Duration::from_secs(1),
            leader_ttl: Duration::from_secs(5),
        }
    }
}

/// Why terms are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTerms {
    /// A crash of the leader would make workers stop.
    #[error(
        "ttl - margin is {trust:?}, but a crash of the leader may take 1.2 heartbeats + leader ttl + 3 s = {needed:?}; \
         raise ttl or shorten heartbeat and leader ttl"
    )]
    TooShort {
        /// How long a worker trusts an answer.
        trust: Duration,
        /// How long it must.
        needed: Duration,
    },
    /// A time is zero, or a part is longer than the whole.
    #[error("heartbeat, heartbeat timeout, ttl and leader ttl must be longer than zero, and margin shorter than ttl")]
    Degenerate,
}

impl LeaseTerms {
    /// How long a worker trusts an answer, counted from the moment it *sent* the heartbeat.
    pub fn trust(&self) -> Duration {
        self.ttl.saturating_sub(self.margin)
    }

    /// How long a leader trusts that it leads, counted from the moment it *sent* the renewal of its key.
    pub fn leader_trust(&self) -> Duration {
        self.leader_ttl - self.margin.min(self.leader_ttl / 5)
    }

    /// How long a new leader waits before its first plan: two heartbeats, and until a former leader whose key was taken
    /// from it early has stopped answering.
    pub fn settle(&self) -> Duration {
        (self.heartbeat * 2).max(self.leader_trust())
    }

    /// Refuses terms under which the loss of a leader would suspend workers.
    pub fn check(self) -> Result<Self, InvalidTerms> {
        let times = [self.heartbeat, self.heartbeat_timeout, self.ttl, self.leader_ttl];
        if times.contains(&Duration::ZERO) || self.margin >= self.ttl {
            return Err(InvalidTerms::Degenerate);
        }
        let needed = self.heartbeat.mul_f64(1.2) + self.leader_ttl + Duration::from_secs(3);
        if self.trust() < needed {
            return Err(InvalidTerms::TooShort { trust: self.trust(), needed });
        }
        Ok(self)
    }
}

impl From<LeaseTerms> for v1::LeaseTerms {
    fn from(terms: LeaseTerms) -> Self {
        Self {
            heartbeat: Some(convert::to_duration(terms.heartbeat)),
            heartbeat_timeout: Some(convert::to_duration(terms.heartbeat_timeout)),
            ttl: Some(convert::to_duration(terms.ttl)),
            margin: Some(convert::to_duration(terms.margin)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_survive_the_loss_of_a_leader() {
        assert!(LeaseTerms::default().check().is_ok());
    }

    #[test]
    fn a_new_leader_plans_when_the_former_one_is_silent() {
        let terms = LeaseTerms { heartbeat: Duration::from_millis(500), ..LeaseTerms::default() };
        assert_eq!(terms.settle(), terms.leader_trust());
        assert_eq!(LeaseTerms::default().settle(), Duration::from_secs(4));
    }

    #[test]
    fn terms_that_would_suspend_workers_are_refused() {
        let terms = LeaseTerms { ttl: Duration::from_secs(10), ..LeaseTerms::default() };
        assert!(matches!(terms.check(), Err(InvalidTerms::TooShort { .. })));
        let terms = LeaseTerms { heartbeat: Duration::ZERO, ..LeaseTerms::default() };
        assert_eq!(terms.check(), Err(InvalidTerms::Degenerate));
    }
}

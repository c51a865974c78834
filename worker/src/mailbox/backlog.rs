//! How old messages that wait are read once they are released: how many now, and when the next. Pure.
//!
//! They come in steps, so that new mail is looked at between two of them. At a rate the steps are small and regular; who
//! receives the contacts is not to get a minute's worth at once. The allowance of a time in which nobody read is not made up
//! for: after a restart the first step waits for its turn.

use std::time::Duration;

use postroom_proto::convert::from_timestamp;
use postroom_proto::v1;
use tokio::time::Instant;

/// Steps a minute, at a rate that gives each of them a message at least.
const STEPS: u32 = 30;
/// Most messages of a step.
const LARGEST_STEP: u32 = 1000;
const MINUTE: Duration = Duration::from_secs(60);

/// What may be read of them now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// So many at most.
    pub count: u32,
    /// What the server received before this time, in microseconds since 1970, is left, and does not count.
    pub since: Option<i64>,
}

/// The release of old messages that wait, as an operator decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Release {
    step: Step,
    /// Between two steps.
    interval: Duration,
    /// When the next one is due.
    next: Instant,
}

impl Release {
    /// What the control plane says when the mailbox is opened. `None`: they wait.
    pub fn of(decided: Option<&v1::BacklogRelease>, now: Instant) -> Option<Self> {
        let decided = decided.filter(|decided| decided.released)?;
        let since = decided.since_time.as_ref().map(from_timestamp);
        let rate = decided.rate_per_minute;
        let count = if rate == 0 { LARGEST_STEP } else { rate.div_ceil(STEPS).min(LARGEST_STEP) };
        let interval = if rate == 0 { Duration::ZERO } else { MINUTE.mul_f64(f64::from(count) / f64::from(rate)) };
        Some(Self { step: Step { count, since }, interval, next: now + interval })
    }

    /// True when they may come as fast as they can be read.
    pub fn is_at_once(&self) -> bool {
        self.interval.is_zero()
    }

    /// What the server received before this time, in microseconds since 1970, is left.
    pub fn since(&self) -> Option<i64> {
        self.step.since
    }

    /// The same release, asked for again, goes on at its step; another one begins.
    pub fn or_going_on(self, before: Option<Self>) -> Self {
        before.filter(|before| (before.step, before.interval) == (self.step, self.interval)).unwrap_or(self)
    }

    /// A step, when one is due.
    pub fn step(&mut self, now: Instant) -> Option<Step> {
        if now < self.next {
            return None;
        }
        self.next = now + self.interval;
        Some(self.step)
    }

    /// How long it is until a step is due.
    pub fn wait(&self, now: Instant) -> Duration {
        self.next.saturating_duration_since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn released(rate_per_minute: u32) -> v1::BacklogRelease {
        v1::BacklogRelease { released: true, since_time: None, rate_per_minute }
    }

    #[test]
    fn what_nobody_released_waits() {
        let now = Instant::now();
        assert_eq!(Release::of(None, now), None);
        assert_eq!(Release::of(Some(&v1::BacklogRelease::default()), now), None);
    }

    #[test]
    fn without_a_rate_step_follows_step() {
        let now = Instant::now();
        let mut release = Release::of(Some(&released(0)), now).expect("released");
        for _ in 0..3 {
            assert_eq!((release.wait(now), release.step(now)), (Duration::ZERO, Some(release.step)));
        }
    }

    #[test]
    fn a_rate_is_kept_in_any_minute_and_over_restarts() {
        for rate in [1, 7, 30, 31, 600, 29_999, 30_000, 100_000] {
            let begun = Instant::now();
            let mut now = begun;
            let mut release = Release::of(Some(&released(rate)), now).expect("released");
            let (mut taken, mut steps) = (0, 0);
            while now < begun + MINUTE * 3 {
                if steps % 5 == 4 {
                    release = Release::of(Some(&released(rate)), now).expect("released");
                }
                assert_eq!(release.step(now), None, "right after the start, and between two steps");
                now += release.wait(now);
                taken += release.step(now).expect("it is due").count;
                steps += 1;
                let most = f64::from(rate) * (now - begun).as_secs_f64() / 60.0;
                assert!(f64::from(taken) <= most * 1.0001, "{rate}: {taken} of {most}");
                assert!(f64::from(taken) >= most * 0.9999 - 1.0, "{rate}: {taken} of {most}");
            }
            // Nobody read for an hour: it is not made up for.
            now += MINUTE * 60;
            assert!(release.step(now).is_some() && release.step(now).is_none());
        }
    }
}

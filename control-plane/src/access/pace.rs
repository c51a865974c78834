//! How many calls a credential may make. Pure: one moment stands for the whole bucket (GCRA).

use std::time::Duration;

/// Calls of one credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// So many a second in the long run. 0: no limit.
    pub per_second: u32,
    /// So many at once.
    pub burst: u32,
}

/// When a credential may call next. Times are counted from any moment, the same for all calls.
#[derive(Debug, Clone, Copy, Default)]
pub struct Pace {
    /// When everything that was let through would have been due, one after the other.
    due: Duration,
}

impl Pace {
    /// Lets a call through, or says how long to wait before the next one. A call that is refused uses up nothing.
    pub fn take(&mut self, now: Duration, rate: Rate) -> Result<(), Duration> {
        if rate.per_second == 0 {
            return Ok(());
        }
        let each = Duration::from_secs(1) / rate.per_second;
        let ahead = each * rate.burst.max(1).saturating_sub(1);
        let due = self.due.max(now);
        let early = due.saturating_sub(now);
        if early > ahead {
            return Err(early - ahead);
        }
        self.due = due + each;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RATE: Rate = Rate { per_second: 10, burst: 5 };

    #[test]
    fn a_burst_then_the_rate() {
        let mut pace = Pace::default();
        let now = Duration::from_secs(7);
        let taken = (0..100).filter(|_| pace.take(now, RATE).is_ok()).count();
        assert_eq!(taken, 5);
        let wait = pace.take(now, RATE).unwrap_err();
        assert_eq!(wait, Duration::from_millis(100));
        assert!(pace.take(now + wait - Duration::from_millis(1), RATE).is_err());
        assert!(pace.take(now + wait, RATE).is_ok());
        assert!((0..100).all(|_| pace.take(now, Rate { per_second: 0, burst: 0 }).is_ok()));
    }

    proptest! {
        #[test]
        fn no_window_has_more_than_burst_and_rate(steps in proptest::collection::vec(0u64..300, 1..200)) {
            let mut pace = Pace::default();
            let (mut now, mut taken) = (Duration::ZERO, Vec::new());
            for step in steps {
                now += Duration::from_millis(step);
                if pace.take(now, RATE).is_ok() {
                    taken.push(now);
                }
            }
            for (index, from) in taken.iter().enumerate() {
                let within = taken[index..].iter().filter(|at| **at < *from + Duration::from_secs(1)).count();
                prop_assert!(within <= 15, "{within} calls within a second");
            }
        }
    }
}

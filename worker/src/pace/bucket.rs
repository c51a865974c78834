//! A token bucket that hands out moments: so many at once, then so many a second. Pure.

use std::time::Duration;

use postroom_proto::lease::Moment;

/// Allowance of starts.
#[derive(Debug)]
pub struct Bucket {
    interval: Duration,
    /// How far ahead of the clock it may be.
    ahead: Duration,
    /// When it is full again.
    full: Moment,
}

impl Bucket {
    /// `burst` at once, then `rate` a second. Both at least 1.
    pub fn new(burst: u32, rate: u32) -> Self {
        let interval = Duration::from_secs(1) / rate.max(1);
        Self { interval, ahead: interval * (burst.max(1) - 1), full: Moment::ZERO }
    }

    /// Takes one. It may be used from this moment on, which is `now` while there are some left.
    pub fn take(&mut self, now: Moment) -> Moment {
        let full = self.full.max(now);
        self.full = full + self.interval;
        now.max(full.saturating_sub(self.ahead))
    }

    /// Puts back one that was not used.
    pub fn put_back(&mut self) {
        self.full = self.full.saturating_sub(self.interval);
    }

    /// Mean distance between two once the burst is over.
    pub fn interval(&self) -> Duration {
        self.interval
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(millis: u64) -> Moment {
        Duration::from_millis(millis)
    }

    #[test]
    fn so_many_at_once_then_so_many_a_second() {
        let mut bucket = Bucket::new(3, 10);
        let taken: Vec<_> = (0..6).map(|_| bucket.take(at(5000))).collect();
        assert_eq!(taken, [5000, 5000, 5000, 5100, 5200, 5300].map(at));
        assert_eq!(bucket.take(at(60_000)), at(60_000), "full again");
        bucket.put_back();
        let taken: Vec<_> = (0..4).map(|_| bucket.take(at(60_000))).collect();
        assert_eq!(taken, [60_000, 60_000, 60_000, 60_100].map(at));
    }

    proptest! {
        #[test]
        fn no_second_has_more_than_burst_and_rate(
            burst in 1u32..50,
            rate in 1u32..50,
            gaps in prop::collection::vec(0u64..300, 1..200),
        ) {
            let mut bucket = Bucket::new(burst, rate);
            let mut now = 0;
            let moments: Vec<_> = gaps.iter().map(|gap| { now += gap; bucket.take(at(now)) }).collect();
            for (index, start) in moments.iter().enumerate() {
                let within = moments[index..].iter().filter(|it| **it < *start + Duration::from_secs(1)).count();
                // One more, for the one that falls due at the very end of the second.
                prop_assert!(within <= (burst + rate + 1) as usize, "{within}");
            }
        }
    }
}

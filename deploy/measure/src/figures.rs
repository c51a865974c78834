//! From single runs to what is said of them: medians, spans, and ratios taken within each run.

use serde::Serialize;

use crate::process::Usage;

/// One client in one run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Lap {
    /// How long it took.
    pub(crate) seconds: f64,
    /// Messages read in that time.
    pub(crate) messages: u64,
    /// What the client used from its start to then.
    #[serde(flatten)]
    pub(crate) usage: Usage,
}

impl Lap {
    /// Messages a second.
    pub(crate) fn rate(&self) -> f64 {
        self.messages as f64 / self.seconds.max(f64::MIN_POSITIVE)
    }
}

/// A client's runs, in their order.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Series {
    /// The client, for people.
    pub(crate) client: &'static str,
    /// Its runs.
    pub(crate) runs: Vec<Lap>,
}

impl Series {
    /// Median, least and largest of a value of its runs.
    pub(crate) fn spread(&self, value: impl Fn(&Lap) -> f64) -> Spread {
        Spread::of(self.runs.iter().map(value).collect())
    }

    /// How many times as fast as `other` it is: the ratio of messages a second within each run.
    pub(crate) fn speed_against(&self, other: &Self) -> Spread {
        Spread::of(self.runs.iter().zip(&other.runs).map(|(own, other)| own.rate() / other.rate()).collect())
    }
}

/// Several values of the same thing.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Spread {
    /// The one in the middle; of an even number, the mean of the two there.
    pub(crate) median: f64,
    /// The least.
    pub(crate) min: f64,
    /// The largest.
    pub(crate) max: f64,
}

impl Spread {
    /// Of values in any order.
    pub(crate) fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let at = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
        let half = values.len() / 2;
        let median = if values.len() % 2 == 1 { at(half) } else { (at(half.wrapping_sub(1)) + at(half)) / 2.0 };
        Self { median, min: at(0), max: at(values.len().wrapping_sub(1)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(seconds: &[f64]) -> Series {
        let lap = |seconds: &f64| Lap { seconds: *seconds, messages: 12, usage: Usage::default() };
        Series { client: "it", runs: seconds.iter().map(lap).collect() }
    }

    #[test]
    fn the_middle_and_the_ends() {
        let spread = series(&[3.0, 1.0, 2.0]).spread(|lap| lap.seconds);
        assert_eq!(spread, Spread { median: 2.0, min: 1.0, max: 3.0 });
        assert_eq!(series(&[4.0, 1.0]).spread(|lap| lap.seconds).median, 2.5);
        assert_eq!(series(&[4.0]).spread(Lap::rate).median, 3.0);
    }

    #[test]
    fn ratios_are_taken_within_a_run() {
        // The machine was three times as slow in the second run, for both.
        let ratio = series(&[2.0, 6.0]).speed_against(&series(&[1.0, 3.0]));
        assert_eq!(ratio, Spread { median: 0.5, min: 0.5, max: 0.5 });
    }
}

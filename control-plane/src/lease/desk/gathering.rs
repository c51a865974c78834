//! Waits for the workers of an installation that starts. Whoever registers first would be given everything, and what is
//! too much for him would then have to move: at most so much at a time, and each after it was let go.

use std::time::Duration;

use postroom_proto::lease::Moment;

/// So long nobody must have come for everybody to be there.
pub const CALM: Duration = Duration::from_millis(500);
/// Longest wait from the first one on.
pub const LONGEST: Duration = Duration::from_secs(2);

/// Workers that come one after the other.
#[derive(Debug, Default)]
pub(super) struct Gathering(Option<(Moment, Moment)>);

impl Gathering {
    /// A worker has come.
    pub(super) fn joined(&mut self, now: Moment) {
        let first = self.0.filter(|_| self.until().is_some_and(|until| now < until)).map_or(now, |(first, _)| first);
        self.0 = Some((first, now));
    }

    /// When all are there.
    pub(super) fn until(&self) -> Option<Moment> {
        self.0.map(|(first, last)| (last + CALM).min(first + LONGEST))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_ends_when_nobody_comes_any_more_and_not_too_late() {
        let at = Duration::from_millis;
        let mut gathering = Gathering::default();
        assert_eq!(gathering.until(), None);
        gathering.joined(at(1000));
        assert_eq!(gathering.until(), Some(at(1500)));
        for now in (1400..=2600).step_by(400) {
            gathering.joined(at(now));
        }
        assert_eq!(gathering.until(), Some(at(3000)), "somebody still comes");
        gathering.joined(at(9000));
        assert_eq!(gathering.until(), Some(at(9500)), "that is another one");
    }
}

//! The brake: when more than half of the workers fall silent at once, it is likelier that the network has failed than that
//! all of them died, and giving them up would move everything for nothing.

use std::time::Duration;

use postroom_proto::lease::Moment;

/// How long nobody is ended.
pub const BRAKE: Duration = Duration::from_secs(60);
/// Up to so many may be silent at once without it.
const FEW: usize = 3;

/// The brake that was pulled last.
#[derive(Debug, Clone, Copy)]
pub(super) struct Brake {
    since: Moment,
    pub(super) until: Moment,
}

impl Brake {
    /// True while nobody may be ended for being silent; to be asked when somebody would be. `last_signs` are the moments
    /// at which those that live were last heard, and whoever is silent for `silence` counts.
    ///
    /// Those that were silent already when it was pulled have had their time once it is over: they do not count again.
    pub(super) fn pulled(brake: &mut Option<Self>, now: Moment, silence: Duration, last_signs: &[Moment]) -> bool {
        if let Some(brake) = brake
            && now < brake.until
        {
            return true;
        }
        let spent = brake.map(|brake| brake.since);
        let counts = |&&last: &&Moment| last + silence <= now && spent.is_none_or(|since| last > since);
        let silent = last_signs.iter().filter(counts).count();
        let pulled = silent > FEW && silent * 2 > last_signs.len();
        if pulled {
            *brake = Some(Self { since: now, until: now + BRAKE });
        }
        pulled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SILENCE: Duration = Duration::from_secs(6);

    fn at(seconds: u64) -> Moment {
        Duration::from_secs(seconds)
    }

    fn pulled(brake: &mut Option<Brake>, now: u64, last_signs: &[u64]) -> bool {
        let last_signs: Vec<_> = last_signs.iter().copied().map(at).collect();
        Brake::pulled(brake, at(now), SILENCE, &last_signs)
    }

    #[test]
    fn it_takes_more_than_half_and_more_than_three() {
        assert!(!pulled(&mut None, 100, &[88, 88, 88]), "three are few");
        assert!(!pulled(&mut None, 100, &[88, 88, 88, 88, 99, 99, 99, 99]), "half is not more than half");
        assert!(pulled(&mut None, 100, &[88, 88, 88, 88, 99, 99, 99]));
        assert!(pulled(&mut None, 100, &[88, 94, 94, 94, 99]), "half of the time counts as silent");
        assert!(!pulled(&mut None, 100, &[88, 95, 95, 95, 99]));
    }

    #[test]
    fn it_holds_for_its_time_and_not_again_for_the_same_silence() {
        let mut brake = None;
        assert!(pulled(&mut brake, 100, &[88; 5]));
        assert!(pulled(&mut brake, 159, &[88, 158, 158, 158, 158]), "whoever is back");
        assert!(!pulled(&mut brake, 160, &[88; 5]), "they have had their time");
        assert!(pulled(&mut brake, 200, &[190; 5]), "these fell silent later");
    }
}

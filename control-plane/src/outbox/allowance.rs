//! When a sending mailbox may send next. Pure.
//!
//! A server counts what it is handed; we know when each attempt ended. Invariant: whatever the server's way of counting,
//! it sees no more than the limit within any minute, since an attempt counts from its claim until a minute after its end.

use crate::ledger::{Micros, micros};
use crate::outbox::Terms;

/// An hour of the counts of recipients.
pub const HOUR: Micros = 3600 * 1_000_000;
/// Hours of which the recipients count: a day, and the part of an hour that the oldest reaches into it.
pub const HOURS: i64 = 25;

/// What a sending mailbox has under way and behind it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Load {
    /// Mails that workers are to hand over at the moment.
    pub sending: u32,
    /// Looks into its sent mail that workers have under way.
    pub looking: u32,
    /// Recipients of those that are being sent.
    pub sending_recipients: u64,
    /// When attempts ended that handed over data, oldest first. Older ones than a minute do no harm.
    pub ended: Vec<Micros>,
    /// Recipients by hour since 1970, oldest first. Older ones than [`HOURS`] do no harm.
    pub hours: Vec<(i64, u64)>,
    /// Until when it is, or was, to be left alone, for each of the credentials that did not work.
    pub left_alone: Vec<(Vec<u8>, Micros)>,
    /// When it had its last turn. 0: never.
    pub turn: i64,
}

/// What a sending mailbox may do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Allowance {
    /// Claim so many mails.
    Now {
        /// Most mails, 1 at least.
        mails: u32,
        /// Most recipients of all of them together.
        recipients: u64,
    },
    /// Nothing before then.
    At(Micros),
    /// Nothing before one that is under way ends.
    AfterAnother,
}

impl Load {
    /// Until when it is to be left alone with these credentials. `None`: it may be tried.
    pub fn left_alone_until(&self, credentials: &[u8], now: Micros) -> Option<Micros> {
        Some(self.last_left_alone(credentials)).filter(|until| *until > now)
    }

    /// Until when it was, or is, left alone with these credentials; 0: it never was, as far as that is remembered.
    pub fn last_left_alone(&self, credentials: &[u8]) -> Micros {
        self.left_alone.iter().find(|(of, _)| of == credentials).map_or(0, |(_, until)| *until)
    }

    /// What may be claimed at `now`, by whom it is not to be left alone.
    pub fn allowance(&self, terms: &Terms, now: Micros) -> Allowance {
        let free = terms.connections.saturating_sub(self.sending.saturating_add(self.looking));
        if free == 0 {
            return Allowance::AfterAnother;
        }
        let minute = micros(terms.minute);
        let recent: Vec<Micros> =
            self.ended.iter().copied().filter(|ended| ended.saturating_add(minute) > now).collect();
        let counted = usize::try_from(self.sending).unwrap_or(usize::MAX).saturating_add(recent.len());
        let limit = usize::try_from(terms.per_minute).unwrap_or(usize::MAX);
        if counted >= limit {
            // As many have to leave the minute as are too many.
            let leaving = counted - limit;
            return match recent.get(leaving) {
                Some(ended) => Allowance::At(ended.saturating_add(minute)),
                None => Allowance::AfterAnother,
            };
        }
        let hour = now.div_euclid(HOUR);
        let counting = |at: i64| at > hour - HOURS;
        let used = self.hours.iter().filter(|(at, _)| counting(*at)).map(|(_, count)| count).sum::<u64>();
        let used = used.saturating_add(self.sending_recipients);
        let left = u64::from(terms.per_day).saturating_sub(used);
        if left == 0 {
            let oldest = self.hours.iter().find(|(at, count)| counting(*at) && *count > 0);
            return match oldest {
                Some((at, _)) => Allowance::At(at.saturating_add(HOURS).saturating_mul(HOUR)),
                None => Allowance::AfterAnother,
            };
        }
        let mails = u32::try_from(limit - counted).unwrap_or(u32::MAX).min(free);
        Allowance::Now { mails, recipients: left }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Micros = 1_000_000;
    const NOW: Micros = 500_000 * HOUR;

    fn terms() -> Terms {
        Terms { connections: 3, per_minute: 5, per_day: 100, ..Terms::default() }
    }

    fn mails(allowance: Allowance) -> u32 {
        match allowance {
            Allowance::Now { mails, .. } => mails,
            Allowance::At(_) | Allowance::AfterAnother => 0,
        }
    }

    #[test]
    fn connections_come_first_then_the_minute_then_the_day() {
        let idle = Load::default();
        assert_eq!(idle.allowance(&terms(), NOW), Allowance::Now { mails: 3, recipients: 100 });
        let busy = Load { sending: 2, looking: 1, ..Load::default() };
        assert_eq!(busy.allowance(&terms(), NOW), Allowance::AfterAnother);
        let ended = [50, 40, 30, 20, 10].map(|ago| NOW - ago * SECOND).to_vec();
        let full = Load { ended, ..Load::default() };
        assert_eq!(full.allowance(&terms(), NOW), Allowance::At(NOW + 10 * SECOND));
        assert_eq!(mails(full.allowance(&terms(), NOW + 10 * SECOND)), 1);
        let one_more = Load { sending: 1, ..full };
        assert_eq!(one_more.allowance(&terms(), NOW), Allowance::At(NOW + 20 * SECOND));
        let deferred = Load { left_alone: vec![(b"old".to_vec(), NOW + 1)], ..Load::default() };
        assert_eq!(deferred.left_alone_until(b"old", NOW), Some(NOW + 1));
        assert_eq!(deferred.left_alone_until(b"old", NOW + 1), None);
        assert_eq!(deferred.left_alone_until(b"new", NOW), None, "mended");
    }

    #[test]
    fn recipients_count_for_a_day() {
        let hour = NOW / HOUR;
        let load =
            |count| Load { hours: vec![(hour - 20, count), (hour, 10)], sending_recipients: 5, ..Load::default() };
        assert_eq!(load(0).allowance(&terms(), NOW), Allowance::Now { mails: 3, recipients: 85 });
        assert_eq!(load(85).allowance(&terms(), NOW), Allowance::At((hour + 5) * HOUR));
        assert_eq!(mails(load(85).allowance(&terms(), (hour + 5) * HOUR)), 3);
        let only_under_way = Load { sending_recipients: 100, ..Load::default() };
        assert_eq!(only_under_way.allowance(&terms(), NOW), Allowance::AfterAnother);
    }

    /// What a sending mailbox does in a run of the next test.
    #[derive(Debug, Clone)]
    struct Run {
        /// How long each attempt takes, and after which part of it (in 100) its data is handed over.
        attempts: Vec<(Micros, i64)>,
        connections: u32,
        per_minute: u32,
    }

    fn run() -> impl Strategy<Value = Run> {
        let attempt = (0..90 * SECOND, 0..=100i64);
        (prop::collection::vec(attempt, 1..120), 1..5u32, 1..12u32)
            .prop_map(|(attempts, connections, per_minute)| Run { attempts, connections, per_minute })
    }

    proptest! {
        /// However long attempts take and whenever in them the data is handed over, no minute sees more than the limit,
        /// and waiting until the time that is named is never in vain.
        #[test]
        fn no_minute_sees_more_than_the_limit(run in run()) {
            let terms = Terms { connections: run.connections, per_minute: run.per_minute, per_day: u32::MAX, ..terms() };
            let (mut now, mut under_way, mut ended, mut handed) = (NOW, Vec::new(), Vec::new(), Vec::new());
            let mut attempts = run.attempts.iter();
            let mut waited = false;
            'all: loop {
                under_way.sort_unstable();
                while under_way.first().is_some_and(|end| *end <= now) {
                    ended.push(under_way.remove(0));
                }
                let load = Load { sending: under_way.len() as u32, ended: ended.clone(), ..Load::default() };
                match load.allowance(&terms, now) {
                    Allowance::Now { mails, .. } => {
                        prop_assert!(mails >= 1);
                        for _ in 0..mails {
                            let Some((takes, part)) = attempts.next() else { break 'all };
                            handed.push(now + takes * part / 100);
                            under_way.push(now + takes);
                        }
                        prop_assert!(under_way.len() <= run.connections as usize);
                        waited = false;
                    }
                    Allowance::At(at) => {
                        prop_assert!(at > now, "it names the future");
                        prop_assert!(!waited, "once that time has come there is something to do");
                        let sooner = under_way.first().copied().filter(|end| *end < at);
                        waited = sooner.is_none();
                        now = sooner.unwrap_or(at);
                    }
                    Allowance::AfterAnother => {
                        prop_assert!(!under_way.is_empty(), "somebody is under way");
                        now = under_way[0].max(now);
                    }
                }
            }
            handed.sort_unstable();
            let minute = micros(terms.minute);
            for (n, first) in handed.iter().enumerate() {
                let within = handed[n..].iter().take_while(|at| **at < first + minute).count();
                prop_assert!(within <= run.per_minute as usize, "{within} within a minute");
            }
        }
    }

    #[test]
    fn with_short_attempts_the_limit_is_reached() {
        let terms = Terms { connections: 3, per_minute: 30, ..Terms::default() };
        let (mut now, mut ended) = (NOW, Vec::new());
        while now < NOW + 600 * SECOND {
            let load = Load { ended: ended.clone(), ..Load::default() };
            match load.allowance(&terms, now) {
                Allowance::Now { .. } => {
                    now += SECOND / 10;
                    ended.push(now);
                }
                Allowance::At(at) => now = at,
                Allowance::AfterAnother => panic!("nothing is under way"),
            }
        }
        assert!(ended.len() >= 290, "{} in ten minutes", ended.len());
    }
}

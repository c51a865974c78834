//! That mailboxes are read: when each was last seen to be, and what waits in it. Told to the control plane, which keeps it
//! in memory.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use postroom_proto::convert::{to_duration, to_timestamp};
use postroom_proto::metric;
use postroom_proto::v1;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::now;
use crate::mailbox::catch_up::Budget;
use crate::report::Reporter;

/// Most lives in one call.
const MAX_LIVES: usize = 500;
/// Time between two rounds, each with the lives that have changed.
const ROUND: Duration = Duration::from_secs(2);
/// After this time all are told, for a control plane that was started meanwhile.
const ALL: Duration = Duration::from_secs(60);

/// Stands for a time that is not known.
const NONE: i64 = i64::MIN;

/// What is seen of one mailbox under one lease. All times in microseconds since 1970.
#[derive(Debug)]
pub struct Life {
    /// When the mailbox was first read: what came before says nothing of how reading goes now.
    since: AtomicI64,
    proof: AtomicI64,
    unfetched: AtomicI64,
    lag: AtomicI64,
    changed: AtomicBool,
}

impl Default for Life {
    fn default() -> Self {
        let none = || AtomicI64::new(NONE);
        Self {
            since: AtomicI64::new(i64::MAX),
            proof: none(),
            unfetched: none(),
            lag: none(),
            changed: AtomicBool::new(false),
        }
    }
}

impl Life {
    /// When the mailbox was first read, if it was.
    pub fn read_since(&self, since: Option<i64>) {
        // Servers tell whole seconds: what came later within the same one must not look older.
        self.since.store(since.map_or(i64::MAX, |since| since - since.rem_euclid(1_000_000)), Ordering::Relaxed);
    }

    /// Messages are about to be fetched that were received then.
    pub fn fetches(&self, received: impl IntoIterator<Item = i64>) {
        let since = self.since.load(Ordering::Relaxed);
        let Some(oldest) = received.into_iter().filter(|received| *received >= since).min() else { return };
        let known = self.unfetched.load(Ordering::Relaxed);
        self.set(&self.unfetched, if known == NONE { oldest } else { oldest.min(known) });
    }

    /// Messages were committed that were received then.
    pub fn committed(&self, received: impl IntoIterator<Item = i64>) {
        let (now, since) = (now(), self.since.load(Ordering::Relaxed));
        let mut newest = NONE;
        for received in received.into_iter().filter(|received| *received >= since) {
            // Clocks of servers run ahead, too.
            metric::DELIVERY_LAG.observe(&[], micros(now.saturating_sub(received)));
            newest = newest.max(received);
        }
        if newest != NONE {
            self.set(&self.lag, now.saturating_sub(newest).max(0));
            // What is left came after it, or nearly.
            self.set(&self.unfetched, newest);
        }
        self.set(&self.proof, now);
    }

    /// It was looked through to its end: nothing waits.
    pub fn caught_up(&self) {
        self.set(&self.unfetched, NONE);
        self.set(&self.proof, now());
    }

    fn set(&self, place: &AtomicI64, value: i64) {
        place.store(value, Ordering::Relaxed);
        // Ordering: after the value, so that whoever takes the mark finds it.
        self.changed.store(true, Ordering::Release);
    }

    fn told(&self, mailbox: &str) -> v1::MailboxLife {
        let time = |place: &AtomicI64| Some(place.load(Ordering::Relaxed)).filter(|time| *time != NONE);
        v1::MailboxLife {
            mailbox: mailbox.into(),
            proof_time: time(&self.proof).map(to_timestamp),
            unfetched_time: time(&self.unfetched).map(to_timestamp),
            delivery_lag: time(&self.lag).map(|lag| to_duration(micros(lag))),
        }
    }
}

fn micros(micros: i64) -> Duration {
    Duration::from_micros(u64::try_from(micros).unwrap_or(0))
}

/// The lives of a worker's mailboxes. Those of mailboxes that were let go are dropped.
#[derive(Debug, Default)]
pub struct Pulse {
    // Held only to look up or change, never across an await.
    lives: Mutex<HashMap<String, Weak<Life>>>,
}

impl Pulse {
    /// Begins to look after a mailbox, for as long as somebody has what is returned.
    pub fn begin(&self, mailbox: &str) -> Arc<Life> {
        let life = Arc::new(Life::default());
        self.lock().insert(mailbox.to_owned(), Arc::downgrade(&life));
        life
    }

    /// What is to be told: what has changed, or everything.
    fn take(&self, everything: bool) -> Vec<v1::MailboxLife> {
        let mut lives = self.lock();
        lives.retain(|_, life| life.strong_count() > 0);
        let lives = lives.iter().filter_map(|(mailbox, life)| Some((mailbox, life.upgrade()?)));
        let news = lives.filter(|(_, life)| life.changed.swap(false, Ordering::Acquire) || everything);
        news.map(|(mailbox, life)| life.told(mailbox)).collect()
    }

    /// Tells the control plane until `stop`.
    pub async fn forward(&self, reporter: &dyn Reporter, budget: &Budget, stop: CancellationToken) {
        let mut everything = Instant::now() + ALL;
        loop {
            tokio::select! {
                () = sleep(ROUND) => {}
                () = stop.cancelled() => return,
            }
            #[allow(clippy::cast_precision_loss)]
            metric::BUDGET_FREE.set(&[], budget.free() as f64);
            let all = Instant::now() >= everything;
            if all {
                everything = Instant::now() + ALL;
            }
            for lives in self.take(all).chunks(MAX_LIVES) {
                if let Err(error) = reporter.lives(lives.to_vec()).await {
                    tracing::debug!(%error, "that mailboxes are read could not be told");
                    // Everything again, as soon as somebody answers.
                    everything = Instant::now();
                    break;
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Weak<Life>>> {
        self.lives.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000_000;

    #[test]
    fn what_has_changed_is_told_once_and_everything_now_and_then() {
        let pulse = Pulse::default();
        let (life, _other) = (pulse.begin("mbx-1"), pulse.begin("mbx-2"));
        assert!(pulse.take(false).is_empty(), "nothing is known yet");
        life.read_since(Some(0));
        life.fetches([now() - HOUR, now() - 2 * HOUR]);
        life.fetches([now()]);
        let told = pulse.take(false);
        assert_eq!((told.len(), told[0].proof_time), (1, None));
        let waits = told[0].unfetched_time.map(|time| postroom_proto::convert::from_timestamp(&time));
        assert!(waits.is_some_and(|time| time <= now() - 2 * HOUR), "the oldest");
        life.committed([now() - 2 * HOUR, now() - HOUR]);
        life.caught_up();
        let told = pulse.take(false).remove(0);
        assert_eq!(told.unfetched_time, None);
        assert!(told.proof_time.is_some());
        assert!(told.delivery_lag.is_some_and(|lag| (3600..3700).contains(&lag.seconds)), "of the newest");
        assert!(pulse.take(false).is_empty());
        assert_eq!(pulse.take(true).len(), 2);
        drop(life);
        assert_eq!(pulse.take(true).len(), 1, "one that was let go is forgotten");
    }

    #[test]
    fn what_lay_there_before_says_nothing_of_the_lag() {
        let pulse = Pulse::default();
        let life = pulse.begin("mbx-1");
        life.fetches([now() - HOUR]);
        life.read_since(Some(now()));
        life.fetches([now() - HOUR]);
        life.committed([now() - HOUR]);
        let told = pulse.take(false).remove(0);
        assert!(told.proof_time.is_some() && told.delivery_lag.is_none() && told.unfetched_time.is_none());
        life.committed([now() + HOUR]);
        assert_eq!(
            pulse.take(false).remove(0).delivery_lag.map(|lag| lag.seconds),
            Some(0),
            "a server's clock runs ahead"
        );
    }
}

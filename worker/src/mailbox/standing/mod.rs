//! Where a session stands: what it is at, since when, and whether something moves.
//!
//! The session enters an activity and leaves it by dropping what it was given. Committing goes beside fetching, so there are two
//! tracks; within one, the activity that was entered last is where the session stands. Reading order: [`activity`] (the table, pure),
//! [`Standing`], [`watchdog`] (who looks at it).

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

pub use activity::Activity;

use crate::config::Reading;

pub mod activity;
pub mod watchdog;

/// Counts whatever moves in an activity: bytes of messages, answers, others who had their turn.
pub type Moves = Arc<AtomicU64>;

/// Where a session stands. Cheap to share.
#[derive(Debug, Clone, Default)]
pub struct Standing {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    // Held only to change or look, never across an await.
    entries: Mutex<Entries>,
    woken: Notify,
}

#[derive(Debug, Default)]
struct Entries {
    last: u64,
    entered: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    id: u64,
    activity: Activity,
    track: Track,
    since: Instant,
    /// How long it is meant to last, where that is known.
    own: Duration,
    moves: Option<Moves>,
    /// What `moves` said when it was looked at last.
    seen: u64,
    /// Its time counts from here: its beginning, the last time that something moved, or that an activity within it ended.
    moved: Instant,
}

/// Activities of one track follow each other; two tracks go side by side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Track {
    Reading,
    Committing,
}

/// What a session is at until this is dropped.
#[derive(Debug)]
#[must_use = "the activity ends when it is dropped"]
pub struct Here {
    inner: Arc<Inner>,
    id: u64,
    rests: bool,
}

/// An activity that has lasted longer than it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stalled {
    /// Which.
    pub activity: Activity,
    /// How long nothing has moved.
    pub lasted: Duration,
}

/// Where a session stands now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Look {
    /// What it is at. `None`: between two activities.
    at: Option<At>,
    /// When to look again.
    again: Instant,
}

/// An activity, since when it lasts, and until when it may if nothing moves. `None`: however long it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct At {
    activity: Activity,
    since: Instant,
    until: Option<Instant>,
}

impl Standing {
    /// Enters an activity of reading, whose progress nobody counts.
    pub fn at(&self, activity: Activity) -> Here {
        self.enter(activity, Track::Reading, Duration::ZERO, None)
    }

    /// Enters an activity of reading that goes on as long as `moves` does.
    pub fn moving(&self, activity: Activity, moves: Moves) -> Here {
        self.enter(activity, Track::Reading, Duration::ZERO, Some(moves))
    }

    /// Enters an activity of reading that is meant to last this long.
    pub fn lasting(&self, activity: Activity, own: Duration) -> Here {
        self.enter(activity, Track::Reading, own, None)
    }

    /// Enters an activity that goes on beside reading.
    pub fn beside(&self, activity: Activity) -> Here {
        self.enter(activity, Track::Committing, Duration::ZERO, None)
    }

    fn enter(&self, activity: Activity, track: Track, own: Duration, moves: Option<Moves>) -> Here {
        let now = Instant::now();
        let mut entries = self.inner.lock();
        entries.last += 1;
        let id = entries.last;
        let seen = moves.as_ref().map_or(0, |moves| moves.load(Ordering::Relaxed));
        entries.entered.push(Entry { id, activity, track, since: now, own, moves, seen, moved: now });
        Here { inner: self.inner.clone(), id, rests: activity.is_rest() }
    }

    /// Whoever watches has slept, and the session with it, perhaps: all times begin anew.
    fn forgive(&self, now: Instant) {
        self.forgive_what(now, |_| true);
    }

    /// The times of these activities begin anew.
    fn forgive_what(&self, now: Instant, what: impl Fn(Activity) -> bool) {
        let mut entries = self.inner.lock();
        entries.entered.iter_mut().filter(|entry| what(entry.activity)).for_each(|entry| entry.moved = now);
    }

    /// Returns when a session that rested works again.
    async fn woken(&self) {
        self.inner.woken.notified().await;
    }

    /// Looks at where it stands, and says when to look again: after `tick` at the latest while it works. `Err`: an activity has
    /// lasted too long.
    fn look(&self, now: Instant, reading: &Reading, tick: Duration) -> Result<Look, Stalled> {
        let mut entries = self.inner.lock();
        let mut look = Look { at: None, again: now + tick };
        for track in [Track::Committing, Track::Reading] {
            let Some(entry) = entries.entered.iter_mut().rfind(|entry| entry.track == track) else { continue };
            let until = entry.until(now, reading);
            if until.is_some_and(|until| until <= now) {
                let lasted = now.saturating_duration_since(entry.moved);
                return Err(Stalled { activity: entry.activity, lasted });
            }
            // What rests is looked at when it is to end, or when it does.
            let again = match until {
                Some(until) if entry.activity.is_rest() => until,
                Some(until) => until.min(now + tick),
                None => now + tick,
            };
            let at = At { activity: entry.activity, since: entry.since, until };
            look = Look { at: Some(at), again: if look.at.is_some() { again.min(look.again) } else { again } };
        }
        Ok(look)
    }
}

impl Entry {
    fn until(&mut self, now: Instant, reading: &Reading) -> Option<Instant> {
        let moves = self.moves.as_ref().filter(|_| self.activity.line().counts == activity::Counts::SinceProgress);
        if let Some(seen) = moves.map(|moves| moves.load(Ordering::Relaxed)).filter(|seen| *seen != self.seen) {
            (self.seen, self.moved) = (seen, now);
        }
        Some(self.moved + self.activity.most(reading, self.own)?)
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Here {
    fn drop(&mut self) {
        let now = Instant::now();
        let mut entries = self.inner.lock();
        let Some(at) = entries.entered.iter().position(|entry| entry.id == self.id) else { return };
        let left = entries.entered.remove(at);
        // The time of one within it is not its own, and that it ended is progress.
        if let Some(around) = entries.entered.iter_mut().rfind(|entry| entry.track == left.track) {
            around.moved = now;
        }
        drop(entries);
        if self.rests {
            self.inner.woken.notify_one();
        }
    }
}

#[cfg(test)]
mod tests;

//! Whether a process lives, and whether it can do its work.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep};

/// Time between two beats of the process's runtime.
const BEAT: Duration = Duration::from_millis(500);
/// A runtime that has not beaten for this time is too busy to do its work.
const BUSY: Duration = Duration::from_secs(5);
/// One that has not for this time hangs: only a restart helps.
const HANGS: Duration = Duration::from_secs(60);

/// What a process says of itself. Cheap to share.
#[derive(Debug, Clone)]
pub struct Health {
    // Held only to read or change it, never across an await.
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    beat: Instant,
    reasons: Vec<String>,
}

impl Health {
    /// A process that is starting: it lives, and is not ready.
    pub fn starting() -> Self {
        let state = State { beat: Instant::now(), reasons: vec!["it is starting".into()] };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// Says why the process is not ready; nothing: it is.
    pub fn set(&self, reasons: Vec<String>) {
        self.lock().reasons = reasons;
    }

    /// Beats for ever, on the runtime that is looked after.
    pub async fn beat(&self) {
        loop {
            self.lock().beat = Instant::now();
            sleep(BEAT).await;
        }
    }

    /// Why it must be restarted; nothing: it lives.
    pub fn unwell(&self) -> Vec<String> {
        hangs(self.lock().beat.elapsed()).into_iter().collect()
    }

    /// Why it cannot do its work now; nothing: it can.
    pub fn unready(&self) -> Vec<String> {
        let state = self.lock();
        state.reasons.iter().cloned().chain(busy(state.beat.elapsed())).collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What it means that a runtime has not beaten for so long, if it hangs.
fn hangs(silent: Duration) -> Option<String> {
    let text = || format!("nothing has run in it for {} s: it hangs, or the machine is far too slow", silent.as_secs());
    (silent >= HANGS).then(text)
}

/// The same, if it is too busy.
fn busy(silent: Duration) -> Option<String> {
    (silent >= BUSY).then(|| format!("it is too busy: nothing has run in it for {} s", silent.as_secs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_ready_when_nothing_is_against_it() {
        let health = Health::starting();
        assert_eq!(health.unready(), ["it is starting"]);
        assert!(health.unwell().is_empty(), "a slow start is no reason to begin it anew");
        health.set(vec!["one".into(), "two".into()]);
        assert_eq!(health.unready(), ["one", "two"]);
        health.set(Vec::new());
        assert!(health.unready().is_empty());
    }

    #[test]
    fn one_that_is_busy_is_not_ready_and_one_that_hangs_does_not_live() {
        assert_eq!((busy(BEAT * 2), hangs(BEAT * 2)), (None, None));
        assert!(busy(BUSY).is_some_and(|why| why.contains("for 5 s")) && hangs(BUSY).is_none());
        assert!(busy(HANGS).is_some() && hangs(HANGS).is_some_and(|why| why.contains("for 60 s: it hangs")));
    }
}

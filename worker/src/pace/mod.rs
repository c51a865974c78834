//! How fast mailboxes begin to connect, so that neither a fleet that starts nor a server that comes back is met by
//! everybody at once.
//!
//! A start needs room at its host and at its tenant, and a moment from the worker's own allowance. Who waits for one
//! host is not in the way of those who wait for another, whatever that host does. Reading order: [`bucket`] (the
//! allowance, pure), [`ramp`] (who may begin when, pure), [`Pace`] (who waits), [`crowd`] (who does not even ask at once,
//! pure).

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use postroom_proto::v1::MailboxDefinition;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};

use crate::config::Start;
use crate::mailbox::standing::Moves;
use postroom_proto::lease::Moment;
use ramp::{Line, Ramp};

pub mod bucket;
pub mod crowd;
pub mod ramp;

/// Hands out permits to connect. Cheap to share.
#[derive(Debug, Clone)]
pub struct Pace {
    state: Arc<Mutex<State>>,
    start: Instant,
}

#[derive(Debug)]
struct State {
    ramp: Ramp,
    waiting: HashMap<u64, Waiting>,
}

#[derive(Debug)]
struct Waiting {
    line: Line,
    answer: oneshot::Sender<Moment>,
    /// Counts how often somebody before it is done.
    moves: Moves,
}

/// Leave to connect, sign in and select the folder. Given back when it is dropped.
#[derive(Debug)]
pub struct Permit {
    pace: Pace,
    line: Line,
    id: u64,
    used: bool,
}

impl Pace {
    /// Nobody has connected yet.
    pub fn new(limits: Start) -> Self {
        let state = State { ramp: Ramp::new(limits), waiting: HashMap::new() };
        Self { state: Arc::new(Mutex::new(state)), start: Instant::now() }
    }

    /// Waits until a mailbox may connect. Dropped while it waits, it gives its place up. `moves` goes on as long as somebody for
    /// the same host or tenant is done.
    pub async fn permit(&self, definition: &MailboxDefinition, moves: Moves) -> Permit {
        let line = Line { host: definition.imap_host.clone(), tenant: definition.authority.clone() };
        let (answer, admitted) = oneshot::channel();
        let id = {
            let mut state = self.lock();
            let id = state.ramp.ask(line.clone());
            state.waiting.insert(id, Waiting { line: line.clone(), answer, moves });
            id
        };
        // Ordering: from here on its drop gives back whatever was given.
        let permit = Permit { pace: self.clone(), line, id, used: false };
        self.admit();
        if let Ok(moment) = admitted.await {
            sleep_until(self.start + moment).await;
        }
        permit
    }

    /// Tells everybody for whom there is room now.
    fn admit(&self) {
        let now = self.start.elapsed();
        let mut state = self.lock();
        while let Some((id, moment)) = state.ramp.admit(now, rand::random()) {
            if let Some(waiting) = state.waiting.remove(&id) {
                // Whoever is gone gives the place back by its permit.
                let _ = waiting.answer.send(moment);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Permit {
    /// A server was reached. A permit under which none was costs nothing of the worker's allowance: a host that refuses
    /// at once must not use up what others need.
    pub fn used(&mut self) {
        self.used = true;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        {
            let mut state = self.pace.lock();
            state.waiting.remove(&self.id);
            state.ramp.leave(&self.line, self.id, self.used);
            let before =
                |waiting: &&Waiting| waiting.line.host == self.line.host || waiting.line.tenant == self.line.tenant;
            for waiting in state.waiting.values().filter(before) {
                waiting.moves.fetch_add(1, Ordering::Relaxed);
            }
        }
        self.pace.admit();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::FutureExt as _;
    use tokio::time::timeout;

    use super::*;

    fn limits() -> Start {
        Start { burst: 1000, rate: 1000, per_host: 2, per_tenant: 2, spread: Duration::ZERO }
    }

    fn at(host: &str) -> MailboxDefinition {
        MailboxDefinition { imap_host: host.into(), ..MailboxDefinition::default() }
    }

    #[tokio::test]
    async fn a_host_that_answers_nobody_holds_up_no_other() {
        let pace = Pace::new(limits());
        let (dead, alive) = (at("dead"), at("alive"));
        let held = [pace.permit(&dead, Moves::default()).await, pace.permit(&dead, Moves::default()).await];
        let mut waiting: Vec<_> = (0..100).map(|_| Box::pin(pace.permit(&dead, Moves::default()))).collect();
        for one in &mut waiting {
            assert!(one.now_or_never().is_none());
        }
        for _ in 0..100 {
            let permit = timeout(Duration::from_secs(60), pace.permit(&alive, Moves::default())).await;
            permit.expect("without waiting for the dead one").used();
        }
        drop(held);
        drop(waiting);
        let permit = timeout(Duration::from_secs(60), pace.permit(&dead, Moves::default())).await;
        assert!(permit.is_ok(), "whoever gave up is in nobody's way");
        assert!(pace.lock().waiting.is_empty());
    }

    #[tokio::test]
    async fn a_permit_goes_to_the_next_when_it_is_given_back() {
        let pace = Pace::new(limits());
        let host = at("host");
        let first = pace.permit(&host, Moves::default()).await;
        let _second = pace.permit(&host, Moves::default()).await;
        let moves = Moves::default();
        let mut third = Box::pin(pace.permit(&host, moves.clone()));
        assert!((&mut third).now_or_never().is_none());
        drop(pace.permit(&at("another"), Moves::default()).await);
        let seen = moves.load(Ordering::Relaxed);
        drop(first);
        assert!(moves.load(Ordering::Relaxed) > seen, "the line moves");
        third.await;
    }
}

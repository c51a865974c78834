//! Whether a mailbox may be written to right now.
//!
//! Cheap to ask, and asked before every report and every command that changes the mailbox. Time only makes duplicate
//! work rare; what makes it harmless is the fence in the ledger.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::Instant;

/// Until when the whole worker trusts its last heartbeat. One for all mailboxes.
#[derive(Debug, Clone)]
pub struct Trust {
    until: Arc<watch::Sender<Option<Instant>>>,
}

impl Default for Trust {
    fn default() -> Self {
        Self { until: Arc::new(watch::Sender::new(None)) }
    }
}

impl Trust {
    /// No trust yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Trusts until `until`: the moment a heartbeat was sent, plus ttl, less margin.
    pub fn extend(&self, until: Instant) {
        self.until.send_if_modified(|known| {
            let later = known.is_none_or(|known| known < until);
            if later {
                *known = Some(until);
            }
            later
        });
    }

    /// Trusts no longer.
    pub fn end(&self) {
        self.until.send_replace(None);
    }
}

/// What the worker was told about one mailbox, in the order in which it can happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Held,
    Draining,
    Closed,
}

/// The holder's end: says what the mailbox's session may do.
#[derive(Debug)]
pub struct Switch {
    phase: watch::Sender<Phase>,
}

impl Switch {
    /// A lease that is held, together with its switch.
    pub fn new(trust: &Trust) -> (Self, Lease) {
        let (phase, seen) = watch::channel(Phase::Held);
        (Self { phase }, Lease { phase: seen, trust: trust.until.subscribe() })
    }

    /// Finish the report in flight, then let go.
    pub fn drain(&self) {
        self.advance(Phase::Draining);
    }

    /// Let go at once.
    pub fn close(&self) {
        self.advance(Phase::Closed);
    }

    fn advance(&self, to: Phase) {
        self.phase.send_if_modified(|phase| {
            let later = *phase < to;
            *phase = to.max(*phase);
            later
        });
    }
}

/// The lease is over: touch nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the mailbox is no longer held")]
pub struct Closed;

/// The session's end.
#[derive(Debug, Clone)]
pub struct Lease {
    phase: watch::Receiver<Phase>,
    trust: watch::Receiver<Option<Instant>>,
}

impl Lease {
    /// Returns when a report or a change is allowed. Waits while trust has lapsed, and then has what `suspended` gives
    /// for as long as it waits.
    pub async fn may_write<W>(&mut self, suspended: impl FnOnce() -> W) -> Result<(), Closed> {
        if let Some(known) = self.answer() {
            return known;
        }
        let _suspended = suspended();
        loop {
            if let Some(known) = self.answer() {
                return known;
            }
            tokio::select! {
                changed = self.phase.changed() => changed.map_err(|_| Closed)?,
                changed = self.trust.changed() => changed.map_err(|_| Closed)?,
            }
        }
    }

    /// Whether writing is allowed. `None`: not now, and what changes that is noticed from here on.
    fn answer(&mut self) -> Option<Result<(), Closed>> {
        let phase = *self.phase.borrow_and_update();
        let trusted = is_trusted(*self.trust.borrow_and_update());
        match phase {
            Phase::Closed => Some(Err(Closed)),
            // What is in flight may be finished while draining.
            Phase::Held | Phase::Draining => trusted.then_some(Ok(())),
        }
    }

    /// True while trust has lapsed.
    pub fn is_suspended(&self) -> bool {
        !is_trusted(*self.trust.borrow())
    }

    /// True when nothing new may be begun.
    pub fn is_ending(&self) -> bool {
        *self.phase.borrow() >= Phase::Draining
    }

    /// Returns when nothing new may be begun.
    pub async fn ending(&self) {
        self.reached(Phase::Draining).await;
    }

    /// Returns when everything must be dropped.
    pub async fn closed(&self) {
        self.reached(Phase::Closed).await;
    }

    async fn reached(&self, wanted: Phase) {
        let mut phase = self.phase.clone();
        // A switch that is gone without a word has closed.
        let _ = phase.wait_for(|phase| *phase >= wanted).await;
    }
}

fn is_trusted(until: Option<Instant>) -> bool {
    until.is_some_and(|until| Instant::now() < until)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::FutureExt as _;

    use super::*;

    fn ask(lease: &mut Lease) -> Option<Result<(), Closed>> {
        let mut waited = false;
        let answer = lease.may_write(|| waited = true).now_or_never();
        match answer {
            None => assert!(waited, "whoever waits is suspended"),
            Some(Ok(())) => assert!(!waited, "and nobody else"),
            Some(Err(Closed)) => {}
        }
        answer
    }

    #[tokio::test]
    async fn writing_needs_a_lease_and_trust() {
        let trust = Trust::new();
        let (switch, mut lease) = Switch::new(&trust);
        assert_eq!(ask(&mut lease), None, "no trust yet");
        trust.extend(Instant::now() + Duration::from_secs(60));
        assert_eq!(ask(&mut lease), Some(Ok(())));
        trust.end();
        assert_eq!(ask(&mut lease), None);
        trust.extend(Instant::now());
        assert_eq!(ask(&mut lease), None, "a late answer");
        trust.extend(Instant::now() + Duration::from_secs(60));
        switch.drain();
        assert!(lease.is_ending());
        assert_eq!(ask(&mut lease), Some(Ok(())), "what is in flight is finished");
        switch.close();
        assert_eq!(ask(&mut lease), Some(Err(Closed)));
        switch.drain();
        assert_eq!(ask(&mut lease), Some(Err(Closed)), "there is no way back");
    }

    #[tokio::test]
    async fn a_switch_that_is_gone_closes() {
        let trust = Trust::new();
        let (switch, mut lease) = Switch::new(&trust);
        drop(switch);
        assert_eq!(ask(&mut lease), Some(Err(Closed)));
        lease.closed().await;
    }
}

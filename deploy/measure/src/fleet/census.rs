//! Who holds what, as the workers themselves believe it, and every change of hands.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::bail;
use postroom_proto::id::{Epoch, MailboxUid};
use tokio::time::Instant;

/// Time between two looks at what is waited for.
const LOOK: Duration = Duration::from_millis(10);

/// One life of a worker. Lives of one name are told apart by their number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Life {
    pub(crate) name: usize,
    pub(crate) number: u64,
}

/// A mailbox that changed hands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Move {
    /// Name of the worker that had it before, as a number.
    pub(crate) from: usize,
    /// Name of the one that has it now.
    pub(crate) to: usize,
}

/// The sum of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Mailboxes that somebody holds.
    pub(crate) held: usize,
    /// Of those, the ones whose holder has opened them.
    pub(crate) opened: usize,
}

/// All mailboxes that were ever held.
#[derive(Debug, Default)]
pub(crate) struct Census(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    seats: HashMap<MailboxUid, Seat>,
    counts: Counts,
    moves: Vec<Move>,
    moved: Option<Instant>,
    overlaps: usize,
}

#[derive(Debug)]
struct Seat {
    /// Who had it last.
    name: usize,
    holder: Option<(Life, Epoch)>,
    opened: bool,
}

impl Census {
    /// A worker begins to hold a mailbox.
    pub(crate) fn take(&self, life: &Life, mailbox: &MailboxUid, epoch: Epoch) {
        let mut state = self.state();
        let state = &mut *state;
        let seat =
            state.seats.entry(mailbox.clone()).or_insert_with(|| Seat { name: life.name, holder: None, opened: false });
        match seat.holder.replace((life.clone(), epoch)) {
            Some(_) => {
                state.overlaps += 1;
                state.counts.opened -= usize::from(seat.opened);
            }
            None => state.counts.held += 1,
        }
        seat.opened = false;
        let from = std::mem::replace(&mut seat.name, life.name);
        if from != life.name {
            state.moves.push(Move { from, to: life.name });
            state.moved = Some(Instant::now());
        }
    }

    /// It has opened it.
    pub(crate) fn opened(&self, life: &Life, mailbox: &MailboxUid, epoch: Epoch) {
        let mut state = self.state();
        let state = &mut *state;
        let Some(seat) = state.seats.get_mut(mailbox) else { return };
        if !seat.opened && seat.holder.as_ref().is_some_and(|(it, under)| it == life && *under == epoch) {
            seat.opened = true;
            state.counts.opened += 1;
        }
    }

    /// It holds it no longer.
    pub(crate) fn let_go(&self, life: &Life, mailbox: &MailboxUid, epoch: Epoch) {
        self.state().vacate(life, mailbox, Some(epoch));
    }

    /// A worker is gone, with all it had.
    pub(crate) fn bury(&self, life: &Life) {
        let mut state = self.state();
        let had = state.seats.iter().filter(|(_, seat)| seat.holder.as_ref().is_some_and(|(it, _)| it == life));
        let had: Vec<_> = had.map(|(mailbox, _)| mailbox.clone()).collect();
        for mailbox in had {
            state.vacate(life, &mailbox, None);
        }
    }

    /// How many mailboxes are held and opened.
    pub(crate) fn counts(&self) -> Counts {
        self.state().counts
    }

    /// How many mailboxes the worker of this name holds.
    pub(crate) fn held_by(&self, name: usize) -> usize {
        let held = |seat: &&Seat| seat.holder.as_ref().is_some_and(|(life, _)| life.name == name);
        self.state().seats.values().filter(held).count()
    }

    /// How often a worker took what another one still held.
    pub(crate) fn overlaps(&self) -> usize {
        self.state().overlaps
    }

    /// When a mailbox last changed hands.
    pub(crate) fn moved(&self) -> Option<Instant> {
        self.state().moved
    }

    /// The changes of hands since the last call, in their order.
    pub(crate) fn moves(&self) -> Vec<Move> {
        std::mem::take(&mut self.state().moves)
    }

    /// Waits until `enough` says so; when that was, or an error after `patience`.
    pub(crate) async fn until(
        &self,
        what: &str,
        patience: Duration,
        enough: impl Fn(Counts) -> bool,
    ) -> anyhow::Result<Instant> {
        let until = Instant::now() + patience;
        loop {
            let counts = self.counts();
            let now = Instant::now();
            if enough(counts) {
                return Ok(now);
            }
            if now >= until {
                bail!("not within {} s: {what}; {counts:?}", patience.as_secs());
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is locked; a poisoned state would still be whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn vacate(&mut self, life: &Life, mailbox: &MailboxUid, epoch: Option<Epoch>) {
        let Some(seat) = self.seats.get_mut(mailbox) else { return };
        let is_it = |(it, under): &(Life, Epoch)| it == life && epoch.is_none_or(|epoch| epoch == *under);
        if seat.holder.as_ref().is_some_and(is_it) {
            seat.holder = None;
            self.counts.held -= 1;
            self.counts.opened -= usize::from(std::mem::take(&mut seat.opened));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mailbox(name: &str) -> MailboxUid {
        MailboxUid::derive(name, "INBOX", "x.example")
    }

    fn life(name: usize, number: u64) -> Life {
        Life { name, number }
    }

    #[test]
    fn a_name_that_comes_back_moves_nothing_and_another_one_does() {
        let census = Census::default();
        let a = mailbox("a");
        census.take(&life(0, 1), &a, Epoch(1));
        census.opened(&life(0, 1), &a, Epoch(1));
        assert_eq!(census.counts(), Counts { held: 1, opened: 1 });
        census.let_go(&life(0, 1), &a, Epoch(1));
        assert_eq!(census.counts(), Counts::default());
        census.take(&life(0, 2), &a, Epoch(2));
        assert_eq!((census.moves(), census.moved()), (Vec::new(), None));
        census.bury(&life(0, 2));
        census.take(&life(1, 3), &a, Epoch(3));
        assert_eq!(census.moves(), [Move { from: 0, to: 1 }]);
        assert!(census.moved().is_some());
        assert_eq!((census.overlaps(), census.held_by(1)), (0, 1));
    }

    #[test]
    fn what_is_taken_while_another_holds_it_is_an_overlap() {
        let census = Census::default();
        let a = mailbox("a");
        census.take(&life(0, 1), &a, Epoch(1));
        census.opened(&life(0, 1), &a, Epoch(1));
        census.take(&life(1, 2), &a, Epoch(2));
        assert_eq!((census.overlaps(), census.counts()), (1, Counts { held: 1, opened: 0 }));
        // Whoever had it before cannot change what is said of its new holder.
        census.let_go(&life(0, 1), &a, Epoch(1));
        census.opened(&life(0, 1), &a, Epoch(1));
        assert_eq!(census.counts(), Counts { held: 1, opened: 0 });
    }
}

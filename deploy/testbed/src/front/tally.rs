//! Who is connected, and what was asked when.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::{sync::watch, time::Instant};

#[derive(Debug, Default)]
pub(super) struct Tally {
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    /// How clients have signed in: `AUTHENTICATE PLAIN`, `LOGIN`, …
    ways: Vec<String>,
    /// By mailbox, in lower case.
    boxes: HashMap<String, Kept>,
    /// The number of the next connection that signs in.
    next: u64,
}

#[derive(Debug, Default)]
struct Kept {
    /// When somebody tried to sign in.
    tries: Vec<Instant>,
    commands: Vec<String>,
    /// Sessions that the front ended because of too many refusals.
    given_up: usize,
    /// What the connections there are may be told to say.
    open: HashMap<u64, watch::Sender<Option<String>>>,
}

/// A connection that is signed in. Dropping it ends that.
#[derive(Debug)]
pub(super) struct SignedIn<'a> {
    tally: &'a Tally,
    mailbox: String,
    number: u64,
    /// What it is to say before it ends.
    pub(super) last: watch::Receiver<Option<String>>,
}

impl Tally {
    pub(super) fn way(&self, way: String) {
        self.counts().ways.push(way);
    }

    pub(super) fn ways(&self) -> Vec<String> {
        self.counts().ways.clone()
    }

    pub(super) fn tried(&self, mailbox: &str) {
        self.of(mailbox, |kept| kept.tries.push(Instant::now()));
    }

    pub(super) fn tries(&self, mailbox: &str) -> Vec<Instant> {
        self.of(mailbox, |kept| kept.tries.clone())
    }

    pub(super) fn asked(&self, mailbox: &str, command: String) {
        self.of(mailbox, |kept| kept.commands.push(command));
    }

    pub(super) fn commands(&self, mailbox: &str) -> Vec<String> {
        self.of(mailbox, |kept| kept.commands.clone())
    }

    pub(super) fn give_up(&self, mailbox: &str) {
        self.of(mailbox, |kept| kept.given_up += 1);
    }

    pub(super) fn given_up(&self, mailbox: &str) -> usize {
        self.of(mailbox, |kept| kept.given_up)
    }

    pub(super) fn open(&self, mailbox: &str) -> usize {
        self.of(mailbox, |kept| kept.open.len())
    }

    /// Ends the connections of a mailbox, each with this text. How many there are.
    pub(super) fn end(&self, mailbox: &str, text: &str) -> usize {
        self.of(mailbox, |kept| {
            kept.open.values().for_each(|last| drop(last.send_replace(Some(text.to_owned()))));
            kept.open.len()
        })
    }

    pub(super) fn signed_in(&self, mailbox: &str) -> SignedIn<'_> {
        let (last, told) = watch::channel(None);
        let mut counts = self.counts();
        counts.next += 1;
        let (mailbox, number) = (mailbox.to_lowercase(), counts.next);
        counts.boxes.entry(mailbox.clone()).or_default().open.insert(number, last);
        SignedIn { tally: self, mailbox, number, last: told }
    }

    fn of<T>(&self, mailbox: &str, what: impl FnOnce(&mut Kept) -> T) -> T {
        what(self.counts().boxes.entry(mailbox.to_lowercase()).or_default())
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        // Nothing panics while it is locked; poisoned counts would still be whole.
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for SignedIn<'_> {
    fn drop(&mut self) {
        let number = self.number;
        self.tally.of(&self.mailbox, |kept| kept.open.remove(&number));
    }
}

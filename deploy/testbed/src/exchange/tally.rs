//! Who is connected, and what was taken when.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::time::Instant;

/// A mail that was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// Who had signed in.
    pub mailbox: String,
    /// The mail's Message-ID, without brackets.
    pub message_id: String,
    /// Who gets it.
    pub recipients: Vec<String>,
    /// When.
    pub at: Instant,
}

#[derive(Debug, Default)]
pub(super) struct Tally {
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    connections: u64,
    /// By mailbox, in lower case: now, and at most.
    open: HashMap<String, (usize, usize)>,
    /// By Message-ID.
    begun: HashMap<String, usize>,
    accepted: Vec<Accepted>,
}

/// A connection that is signed in. Dropping it ends that.
#[derive(Debug)]
pub(super) struct SignedIn<'a> {
    tally: &'a Tally,
    mailbox: String,
}

impl Tally {
    pub(super) fn connected(&self) {
        self.counts().connections += 1;
    }

    pub(super) fn connections(&self) -> u64 {
        self.counts().connections
    }

    pub(super) fn signed_in(&self, mailbox: &str) -> SignedIn<'_> {
        let mailbox = mailbox.to_lowercase();
        let mut counts = self.counts();
        let (open, most) = counts.open.entry(mailbox.clone()).or_default();
        *open += 1;
        *most = (*most).max(*open);
        SignedIn { tally: self, mailbox }
    }

    pub(super) fn open(&self, mailbox: &str) -> usize {
        self.counts().open.get(&mailbox.to_lowercase()).map_or(0, |(open, _)| *open)
    }

    pub(super) fn most(&self, mailbox: &str) -> usize {
        self.counts().open.get(&mailbox.to_lowercase()).map_or(0, |(_, most)| *most)
    }

    pub(super) fn begin(&self, message_id: &str) {
        *self.counts().begun.entry(message_id.to_owned()).or_default() += 1;
    }

    pub(super) fn begun(&self, message_id: &str) -> usize {
        self.counts().begun.get(message_id).copied().unwrap_or_default()
    }

    pub(super) fn accept(&self, mailbox: &str, message_id: &str, recipients: &[String]) {
        let mut counts = self.counts();
        counts.accepted.push(Accepted {
            mailbox: mailbox.to_owned(),
            message_id: message_id.to_owned(),
            recipients: recipients.to_vec(),
            at: Instant::now(),
        });
    }

    pub(super) fn accepted(&self) -> Vec<Accepted> {
        self.counts().accepted.clone()
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        // Nothing panics while it is locked; poisoned counts would still be whole.
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SignedIn<'_> {
    pub(super) fn mailbox(&self) -> &str {
        &self.mailbox
    }
}

impl Drop for SignedIn<'_> {
    fn drop(&mut self) {
        if let Some((open, _)) = self.tally.counts().open.get_mut(&self.mailbox) {
            *open -= 1;
        }
    }
}

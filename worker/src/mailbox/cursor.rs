//! How far a folder has been read. Pure; opaque to everybody else.
//!
//! A low-water mark and a bounded set of messages below it that are still to be read: one that fails neither blocks the
//! mailbox nor is skipped.

use std::collections::BTreeMap;

use postroom_proto::v1;

pub use self::key::{Numbering, source_key, split, uid_of};
pub use self::renumbered::Renumbered;
pub use self::stored::Error;
use self::waiting::Waiting;

mod key;
mod renumbered;
mod stored;
mod waiting;

/// The name of this encoding in [`v1::Cursor::protocol`].
pub const PROTOCOL: &str = "imap";
/// A message is tried this often before it is put aside.
pub const MAX_ATTEMPTS: u32 = 3;
/// Most messages kept pending. When there are more, the next one that fails is put aside at once.
pub const MAX_PENDING: usize = 200;

/// Which of the messages that were there at the first reading are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// Those without `\Seen`.
    Unseen,
    /// None.
    New,
    /// All.
    All,
    /// Those that the server received at or after this time, in microseconds since 1970.
    Since(i64),
}

impl Start {
    /// The policy of a queue.
    pub fn of(start: Option<&v1::Start>) -> Self {
        let Some(start) = start else { return Self::Unseen };
        match start.policy() {
            v1::StartPolicy::Unseen | v1::StartPolicy::Unspecified => Self::Unseen,
            v1::StartPolicy::New => Self::New,
            v1::StartPolicy::All => Self::All,
            v1::StartPolicy::Since => {
                Self::Since(start.since_time.as_ref().map_or(0, postroom_proto::convert::from_timestamp))
            }
        }
    }
}

/// Where a message of the folder stands, as far as the cursor knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// It is still to be read, or to be tried again.
    Pending,
    /// It was there before the first reading, and the start policy left it.
    BeforeStart {
        /// The policy went by `\Seen`, and the message does not have it now: it was marked as unread later.
        doubtful: bool,
    },
    /// It was dealt with: the ledger has it.
    Done,
}

/// What to do with a message that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Try it again later; it is pending.
    Again,
    /// Put it aside; it is not pending any more.
    GiveUp,
}

/// How far a folder has been read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    /// The numbering that all UIDs here belong to.
    pub numbering: Numbering,
    /// Every message up to this UID is dealt with, or pending, unless it waits for an operator.
    pub done: u32,
    /// Messages up to this UID were there at the first reading, or as the folder was numbered anew, or came into it while it
    /// was being restored: `start` decides about them, and `renumbered`.
    anchor: u32,
    start: Start,
    /// Failed attempts by UID.
    pending: BTreeMap<u32, u32>,
    renumbered: Option<Renumbered>,
    /// Those up to the anchor that wait, or waited, for an operator.
    waiting: Option<Waiting>,
}

impl Cursor {
    /// The cursor of a folder that was never read: `uid_next` is what SELECT said.
    pub fn first(uid_validity: u32, uid_next: u32, start: Start) -> Self {
        let anchor = uid_next.saturating_sub(1);
        let done = if start == Start::New { anchor } else { 0 };
        let numbering = uid_validity.into();
        Self { numbering, done, anchor, start, pending: BTreeMap::new(), renumbered: None, waiting: None }
    }

    /// The highest UID that the folder is known to have given out: its UIDNEXT is above it, unless an older state of the
    /// folder was put back.
    pub fn reach(&self) -> u32 {
        self.done.max(self.anchor)
    }

    /// True when a message is to be taken; false when it was there before and the start policy leaves it.
    ///
    /// While a folder is re-keyed, only messages that the ledger does not have are asked about. What the server received
    /// after the first reading is always taken, and what it received before it is what the start policy left then: what it
    /// took is in the ledger. Only when not all of that had been read yet, flags have to tell once more.
    pub fn takes(&self, uid: u32, seen: bool, received: Option<i64>) -> bool {
        uid > self.anchor || self.is_newer(received) || self.takes_old(seen, received)
    }

    /// The same of a message that is, or passes for, one that was there at the first reading.
    fn takes_old(&self, seen: bool, received: Option<i64>) -> bool {
        if self.renumbered.is_some() && self.was_left_for_its_age(received) {
            return false;
        }
        match self.start {
            Start::Unseen if self.renumbered.is_some_and(|it| !it.backlog) => false,
            Start::Unseen => !seen,
            Start::New => false,
            Start::All => true,
            // A time that the server does not say is no reason to lose a message.
            Start::Since(since) => received.is_none_or(|received| received >= since),
        }
    }

    /// Where a message of the folder stands.
    ///
    /// What the start policy left is not recorded anywhere, so under [`Start::Unseen`] all that was there before the first
    /// reading may be such a message: whoever asks has to look into the ledger first.
    pub fn place(&self, uid: u32, seen: bool, received: Option<i64>) -> Place {
        let left = Place::BeforeStart { doubtful: false };
        if self.pending.contains_key(&uid) {
            return Place::Pending;
        }
        if uid > self.done || self.waits(uid) {
            return if self.takes(uid, seen, received) { Place::Pending } else { left };
        }
        if uid > self.anchor || self.is_newer(received) {
            return Place::Done;
        }
        if self.may_be_left(uid, received) {
            return left;
        }
        match self.start {
            Start::Unseen => Place::BeforeStart { doubtful: !seen },
            Start::New | Start::All | Start::Since(_) if self.takes(uid, seen, received) => Place::Done,
            Start::New | Start::All | Start::Since(_) => left,
        }
    }

    /// UIDs that are still to be read, ascending.
    pub fn pending(&self) -> Vec<u32> {
        self.pending.keys().copied().collect()
    }

    /// How often a message has failed. `None`: it was dealt with.
    pub fn attempts(&self, uid: u32) -> Option<u32> {
        self.pending.get(&uid).copied().or((uid > self.done || self.waits(uid)).then_some(0))
    }

    /// A message was dealt with, whatever became of it.
    pub fn settle(&mut self, uid: u32) {
        self.pending.remove(&uid);
        self.advance(uid, true);
        self.done = self.done.max(uid);
    }

    /// Every message up to `uid` was looked at.
    pub fn pass(&mut self, uid: u32) {
        self.advance(uid, false);
        self.done = self.done.max(uid);
    }

    /// A message could not be read this time.
    pub fn fail(&mut self, uid: u32) -> Verdict {
        let attempts = self.pending.get(&uid).copied().unwrap_or(0) + 1;
        self.advance(uid, true);
        self.done = self.done.max(uid);
        let full = self.pending.len() >= MAX_PENDING && !self.pending.contains_key(&uid);
        if attempts >= MAX_ATTEMPTS || full {
            self.pending.remove(&uid);
            return Verdict::GiveUp;
        }
        self.pending.insert(uid, attempts);
        Verdict::Again
    }
}

#[cfg(test)]
mod tests;

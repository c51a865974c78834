//! What the desk wants written, and what became of it.

use postroom_proto::id::{Epoch, MailboxUid, SessionId};
use postroom_proto::v1::MoveReason;

use super::word::Ended;
use crate::store::Revision;

/// A write that the desk wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// To a session's record.
    EndSession(EndSession),
    /// To a mailbox's assignment.
    Assign(Assign),
    /// Removes a mailbox's assignment.
    Unassign(Unassign),
    /// Removes a session's record.
    Forget(Forget),
}

/// Marks a session as ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndSession {
    /// Which one.
    pub session: SessionId,
    /// Guard: the revision of its record.
    pub expected: Revision,
    /// To be recorded with it.
    pub how: Ended,
}

/// Gives a mailbox to a session. The revision of the write becomes the epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assign {
    /// Which mailbox.
    pub mailbox: MailboxUid,
    /// Guard: the revision of the assignment; `None`: there must be none.
    pub expected: Option<Epoch>,
    /// The new owner.
    pub to: SessionId,
    /// Name of the active worker that the new owner, a spare, stands in for.
    pub home: Option<String>,
    /// Why it moves, for people.
    pub reason: MoveReason,
    /// Name of the worker that had it, for people.
    pub former: Option<String>,
    /// The old owner did not let go in time. Safe, because the ledger's fence stops it, but worth a warning.
    pub forced: bool,
}

/// Takes a mailbox that is no longer to be read from whoever had it. If it is ever to be read again, its next assignment
/// has a higher epoch, since revisions of the store only grow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unassign {
    /// Which mailbox.
    pub mailbox: MailboxUid,
    /// Guard: the revision of the assignment.
    pub expected: Epoch,
}

/// Removes the record of a session that ended and owns nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forget {
    /// Which one.
    pub session: SessionId,
    /// Guard: the revision of its record.
    pub expected: Revision,
}

/// What became of a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settled<T> {
    /// It is durable, as this revision.
    Committed(Revision),
    /// It certainly did not happen; this is what the key holds. With several writes in a commit, each of them.
    Conflict(Option<T>),
    /// It may have happened or may happen yet; this is what the key held when it was read *after* the attempt. While
    /// it cannot be read, the write is not settled.
    Unknown(Option<T>),
}

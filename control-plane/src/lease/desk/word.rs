//! What the desk is told and what it answers.

use std::collections::BTreeMap;
use std::time::Duration;

use postroom_proto::id::{Epoch, MailboxUid, SessionId};

use crate::lease::decision::{Decision, Freeze};
use crate::lease::profile::Profile;
use crate::ledger::Micros;
use crate::store::Revision;

/// A session as the store has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// Which one.
    pub id: SessionId,
    /// What its worker said about itself.
    pub profile: Profile,
    /// When it began, for people. `None`: not recorded.
    pub begun: Option<Micros>,
    /// Set once it has ended.
    pub ended: Option<Ended>,
    /// Revision of its record. Invariant: the record of a session is written when it begins and when it ends, so while
    /// it lives this tells which of two sessions is the newer.
    pub revision: Revision,
}

/// How a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ended {
    /// It said that a process of the same name will be back soon.
    pub returning: bool,
    /// It did not say goodbye: it was not heard for too long.
    pub silent: bool,
}

/// Who has a mailbox, as the store has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// The owner.
    pub session: SessionId,
    /// Revision that made it the owner.
    pub epoch: Epoch,
    /// Name of the active worker that the owner, a spare, stands in for.
    pub home: Option<String>,
}

/// What a session says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heartbeat {
    /// Who speaks.
    pub session: SessionId,
    /// Counts the heartbeats of the session from 1.
    pub sequence: u64,
    /// Term of the last answer that it took; 0: none yet.
    pub term: u64,
    /// Everything it holds, mailboxes that it is letting go included.
    pub held: Vec<Held>,
    /// It is stopping and must be given nothing new.
    pub draining: bool,
}

/// A mailbox that a session says it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Which one.
    pub mailbox: MailboxUid,
    /// The epoch it is held under.
    pub epoch: Epoch,
    /// Revision of the definition that it is read by; 0: none yet. Decides nothing here.
    pub definition_revision: u64,
}

/// What a session that lives last said it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Running {
    /// Name of its worker.
    pub worker: String,
    /// Which one.
    pub session: SessionId,
    /// What it holds, and by which revision of its definition it reads each.
    pub held: BTreeMap<MailboxUid, u64>,
}

/// A mailbox that a session should hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// Which one.
    pub mailbox: MailboxUid,
    /// The epoch to open it with.
    pub epoch: Epoch,
}

/// A session that lives, as people look at it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Which one.
    pub session: SessionId,
    /// Name of its worker.
    pub worker: String,
    /// How long ago it was last heard; `None`: this desk never heard it.
    pub silent_for: Option<Duration>,
    /// It is stopping.
    pub draining: bool,
    /// Mailboxes that are assigned to it.
    pub mailboxes: usize,
}

/// Why a heartbeat gets no offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The session has ended, or its end is decided. It must let go of everything and register again.
    #[error("the session has ended")]
    Ended,
    /// The desk never heard of it. Read its record: if there is one that has not ended, it was made without this desk,
    /// so hand it to [`super::Desk::register`] if this replica still leads; otherwise the session has ended.
    #[error("the session is not known")]
    Unknown,
}

/// What operators have decided.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Decided {
    /// About workers, by name.
    pub workers: BTreeMap<String, Decision>,
    /// The fleet is frozen.
    pub freeze: Option<Freeze>,
}

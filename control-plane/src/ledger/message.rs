//! Messages as people look at them and decide about them.

use postroom_proto::id::MailboxUid;
use postroom_proto::v1;

use super::{Fence, Intake, Message, Micros};

/// Which messages to list. Everything that is set narrows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MessageFilter {
    /// Only of this mailbox.
    pub mailbox: Option<MailboxUid>,
    /// Only with one of these dispositions; empty means any.
    pub dispositions: Vec<v1::Disposition>,
    /// Only settled, or only unsettled ones.
    pub settled: Option<bool>,
    /// Only recorded at or after this time.
    pub since: Option<Micros>,
    /// Only recorded before this time.
    pub until: Option<Micros>,
    /// Only with this text in their reason, whatever the case of ASCII letters.
    pub reason: String,
}

/// A message that is to become a contact after all, read again under a lease.
#[derive(Debug, Clone, PartialEq)]
pub struct Replay {
    /// The mailbox.
    pub mailbox: MailboxUid,
    /// The lease under which it was read again.
    pub fence: Fence,
    /// Where the contact goes.
    pub intake: Intake,
    /// The message as a contact.
    pub message: Message,
    /// Who wants it.
    pub by: String,
}

/// What a replay came to. The contact's id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Replayed {
    /// It is a contact now.
    Made(String),
    /// It was a contact before.
    Already(String),
}

/// Why a replay was not committed. Nothing of it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotReplayed {
    /// The mailbox is under another fence.
    #[error("the lease on this mailbox is held by another session or epoch")]
    LeaseLost,
    /// The ledger has no such message.
    #[error("the ledger has no such message")]
    Unknown,
}

/// What a discard came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Discarded {
    /// It is filtered now, or was before.
    Filtered,
    /// It is a contact: nothing was changed.
    Contact,
    /// The ledger has no such message.
    Unknown,
}

/// What reconciling needs of one message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Its row.
    pub id: i64,
    /// Identity within the mailbox.
    pub source_key: String,
    /// What became of it.
    pub disposition: v1::Disposition,
    /// Nothing is left to do in the mailbox.
    pub settled: bool,
    /// When the mail server received it.
    pub received_at: Option<Micros>,
    /// In bytes, as far as known.
    pub size_bytes: u64,
    /// Of a duplicate: the row that it is under a former key.
    pub duplicate_of: Option<i64>,
}

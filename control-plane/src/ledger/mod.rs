//! The record of every message ever seen, of the contacts made of them, and of how far each mailbox is read.
//!
//! Invariant: what a worker reports is written by one transaction whose first statement is the fence; nothing matched,
//! nothing written. Invariant: a message stands here once, however often it is reported.
//!
//! Every back end behaves alike; `suite` holds them to it. Deadlines run on the ledger's clock, which is handed in.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use postroom_proto::id::{Epoch, Generation, MailboxUid, SessionId};
use postroom_proto::v1;
use tokio::sync::watch;

use self::backlog::{Backlog, Decision, Release};
pub use self::binding::{Adoption, Bound};
pub use self::contact::{
    Allocated, Answer, AnswerOutcome, Answered, ContactChange, ContactChanges, ContactFilter, ContactPage,
    ContactPosition, Take, Transfer,
};
use self::known::Sought;
use self::message::{Discarded, MessageFilter, NotReplayed, Replay, Replayed, Standing};
use self::tally::Tally;

pub mod audit;
pub mod backlog;
mod binding;
mod contact;
pub mod known;
pub mod message;
#[cfg(test)]
mod order;
pub mod outbox;
pub mod sqlite;
#[cfg(test)]
mod suite;
pub mod tally;

/// Microseconds since 1970.
pub type Micros = i64;

/// A span of time in microseconds.
pub(crate) fn micros(span: Duration) -> Micros {
    i64::try_from(span.as_micros()).unwrap_or(i64::MAX)
}

/// What every write of a worker carries and the ledger compares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fence {
    /// Generation of the store.
    pub generation: Generation,
    /// Epoch of the lease.
    pub epoch: Epoch,
    /// Who holds it.
    pub session: SessionId,
}

/// How far a mailbox is read; opaque here.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cursor {
    /// Protocol that wrote it; empty when nothing was ever read.
    pub protocol: String,
    /// The protocol's own encoding.
    pub value: Vec<u8>,
}

/// What the ledger knows of a mailbox that was opened.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Opened {
    /// Go on from here.
    pub cursor: Cursor,
    /// Source keys of the present numbering that are not yet settled, oldest first, at most 500.
    pub unsettled: Vec<String>,
    /// What its reader last said.
    pub status: Option<v1::MailboxStatus>,
    /// When its first report was committed.
    pub reading_since: Option<Micros>,
    /// What was decided last about old messages that wait (`Some(None)`: they go on waiting). `None`: none ever waited.
    pub release: Option<Option<Release>>,
}

/// Where contacts of a mailbox go, frozen into each at intake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Intake {
    /// Uid of the instance.
    pub instance_uid: String,
    /// Its name.
    pub instance: String,
    /// Uid of the queue.
    pub queue_uid: String,
    /// Its name.
    pub queue: String,
    /// E-mail of the address.
    pub address: String,
    /// Effective priority.
    pub priority: u32,
    /// Effective language.
    pub language: String,
}

/// Where the raw message is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Raw {
    /// It was not fetched.
    None,
    /// Here.
    Inline(Bytes),
    /// In the blob of this digest, which is durable already.
    Blob(String),
}

/// One message of a batch.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// Identity within the mailbox.
    pub source_key: String,
    /// What becomes of it.
    pub disposition: v1::Disposition,
    /// Why it is no contact.
    pub reason: String,
    /// When the mail server received it.
    pub received_at: Option<Micros>,
    /// Length of the raw message, or what is known of it.
    pub size_bytes: u64,
    /// The limit that it is larger than; 0 when it is not.
    pub limit_bytes: u64,
    /// How often it was tried before it was put aside; 0 when it was not.
    pub attempt_count: u32,
    /// Hash of the headers that do not change.
    pub fingerprint: Vec<u8>,
    /// The raw message.
    pub raw: Raw,
    /// What was read out of it; contacts have one.
    pub content: Option<v1::ContactContent>,
    /// What sort of message it is.
    pub kind: v1::ContactKind,
    /// What it says of a mail that was sent. When that is one of the outbox, this message becomes no contact.
    pub bounce: Option<outbox::Bounce>,
    /// Of a duplicate: the row that it is under a former key.
    pub duplicate_of: Option<i64>,
}

/// What a worker reports, committed as one.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// The mailbox.
    pub mailbox: MailboxUid,
    /// The lease it is reported under.
    pub fence: Fence,
    /// The worker's name for this batch.
    pub id: String,
    /// The cursor that must be committed now.
    pub expected: Cursor,
    /// The cursor afterwards.
    pub next: Cursor,
    /// Where its contacts go.
    pub intake: Intake,
    /// The messages.
    pub messages: Vec<Message>,
    /// Source keys whose after-intake step is done.
    pub settled: Vec<String>,
    /// How often the folder was numbered anew. A row is a duplicate's original once in each numbering.
    pub numbering: u32,
    /// What it does to old messages that wait: it begins to hold them back, or deals with some. The latter is refused while
    /// they are not released.
    pub backlog: Option<backlog::Progress>,
}

/// Why a batch was not committed. Nothing of it was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotCommitted {
    /// The mailbox is under another fence.
    #[error("the lease on this mailbox is held by another session or epoch")]
    LeaseLost,
    /// The mailbox was read further, or less far, than the worker believes.
    #[error("the committed cursor is not the expected one")]
    CursorMismatch {
        /// The committed one.
        committed: Cursor,
    },
}

/// What the ledger counts of a mailbox.
#[derive(Debug, Clone, PartialEq)]
pub struct MailboxRecord {
    /// The mailbox.
    pub uid: MailboxUid,
    /// What its reader last said.
    pub status: Option<v1::MailboxStatus>,
    /// Messages seen; duplicates do not count.
    pub message_count: u64,
    /// Contacts among them.
    pub contact_count: u64,
    /// Quarantined ones among them.
    pub quarantined_count: u64,
    /// Too large ones among them.
    pub too_large_count: u64,
    /// Last committed report.
    pub reported_at: Option<Micros>,
    /// Old messages that wait, or waited, without the decisions about them.
    pub backlog: Option<Backlog>,
}

/// Why the ledger could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database could not be opened.
    #[error(transparent)]
    Open(#[from] crate::sqlite::OpenError),
    /// A write failed.
    #[error("the ledger failed to {attempt}")]
    Write {
        /// What was tried.
        attempt: &'static str,
        /// Why; also says whether it may have happened.
        #[source]
        source: crate::sqlite::writer::WriteError,
    },
    /// A read failed.
    #[error("the ledger failed to {attempt}")]
    Read {
        /// What was tried.
        attempt: &'static str,
        /// Why.
        #[source]
        source: sqlx::Error,
    },
}

/// Messages, contacts, cursors and fences.
#[async_trait]
pub trait Ledger: Send + Sync + 'static {
    /// Id of this ledger, minted when it was created.
    fn id(&self) -> &str;

    /// Which store's epochs its fences compare with.
    async fn bound(&self) -> Result<Bound, Error>;

    /// Ties a ledger that belongs to no store yet to this one; any other stays where it belongs.
    async fn bind(&self, store_id: &str) -> Result<(), Error>;

    /// Ties the ledger to this store whatever it belonged to, raises the generation and records who did it: what was
    /// leased before is below every fence to come. `None`: the generation is not `expected` any more.
    async fn adopt(
        &self,
        expected: Generation,
        store_id: &str,
        by: &str,
        now: Micros,
    ) -> Result<Option<Generation>, Error>;

    /// The last adoptions, newest first.
    async fn adoptions(&self, limit: u32) -> Result<Vec<Adoption>, Error>;

    /// Epoch of every mailbox that was opened in the present generation, in no order.
    async fn fences(&self) -> Result<Vec<(MailboxUid, Epoch)>, Error>;

    /// Raises the fence of a mailbox, never lowers it. `None`: a higher one stands, or another session's equal one.
    async fn open(&self, mailbox: &MailboxUid, fence: &Fence) -> Result<Option<Opened>, Error>;

    /// Messages of the mailbox, in its present numbering, that are to be deleted there when what was taken in before
    /// `taken_before` is: contacts and bounces of the outbox that are not yet settled, oldest first, at most 500 keys.
    async fn due(&self, mailbox: &MailboxUid, taken_before: Micros) -> Result<Vec<String>, Error>;

    /// Commits a batch; the last one, repeated, returns its stored answer.
    async fn report(&self, batch: Batch, now: Micros) -> Result<Result<v1::ReportResponse, NotCommitted>, Error>;

    /// Which of these messages the mailbox has from numberings before `numbering`, in the order of `sought`: the row of each,
    /// none of them twice.
    async fn known(
        &self,
        mailbox: &MailboxUid,
        fence: &Fence,
        numbering: u32,
        sought: Vec<Sought>,
    ) -> Result<Result<Vec<Option<i64>>, NotCommitted>, Error>;

    /// Records what readers say; of mailboxes under another fence nothing is recorded. A status of generation 0 takes
    /// back neither refusals nor a renumbering nor the wish of a mail server: its reader did not learn of them.
    async fn record_statuses(&self, statuses: Vec<(MailboxUid, Fence, v1::MailboxStatus)>) -> Result<(), Error>;

    /// What is known of these mailboxes, in no order; those never opened are missing.
    async fn mailboxes(&self, uids: &[MailboxUid]) -> Result<Vec<MailboxRecord>, Error>;

    /// Hands out the best waiting contacts, best first. What a request that is known still holds is returned instead.
    async fn allocate(&self, take: Take, now: Micros) -> Result<Allocated, Error>;

    /// Takes an answer for contacts of an instance; outcomes in the order of `contacts`.
    async fn answer(
        &self,
        instance_uid: &str,
        answer: Answer,
        contacts: Vec<Answered>,
        now: Micros,
    ) -> Result<Vec<AnswerOutcome>, Error>;

    /// Moves contacts of an instance to another queue; outcomes in the order of its contacts.
    async fn transfer(&self, instance_uid: &str, transfer: Transfer, now: Micros) -> Result<Vec<AnswerOutcome>, Error>;

    /// Puts back what was not accepted in time; the instances that have waiting contacts because of it.
    async fn lapse(&self, now: Micros) -> Result<Vec<String>, Error>;

    /// Contacts that pass a filter, from behind `after`, without their content's text and html. In the order (instance,
    /// state, priority, since when they wait); of a queue or a thread without the instance.
    async fn contacts(
        &self,
        filter: &ContactFilter,
        after: Option<&ContactPosition>,
        limit: usize,
    ) -> Result<ContactPage, Error>;

    /// How many contacts of an instance wait or are handed out and not accepted, by the uid of their mailbox.
    async fn waiting(&self, instance_uid: &str) -> Result<std::collections::HashMap<String, u64>, Error>;

    /// One contact with everything, and the uid of its instance.
    async fn contact(&self, id: &str) -> Result<Option<(String, v1::Contact)>, Error>;

    /// The raw message of a contact, and the uid of its instance.
    async fn raw(&self, id: &str) -> Result<Option<(String, Raw)>, Error>;

    /// Messages, those recorded last first, from before row `before`, without what was decided about them.
    async fn messages(
        &self,
        filter: &MessageFilter,
        before: Option<i64>,
        limit: usize,
    ) -> Result<Vec<v1::Message>, Error>;

    /// One message by its row, with everything.
    async fn message(&self, id: i64) -> Result<Option<v1::Message>, Error>;

    /// The raw message of a message; `None`: the ledger has no such message.
    async fn message_raw(&self, id: i64) -> Result<Option<Raw>, Error>;

    /// Makes a message filtered, unless it is a contact. `by` decided it, `text` is their reason.
    async fn discard(&self, id: i64, by: &str, text: &str, now: Micros) -> Result<Discarded, Error>;

    /// Makes a contact of a message that is none.
    async fn replay(&self, replay: Replay, now: Micros) -> Result<Result<Replayed, NotReplayed>, Error>;

    /// Old messages of a mailbox that wait, or waited, and what was decided about them. `None`: none ever did.
    async fn backlog(&self, mailbox: &MailboxUid) -> Result<Option<Backlog>, Error>;

    /// Decides about those that wait. `false`: none does. That they go on waiting is not recorded again.
    async fn decide_backlog(&self, mailbox: &MailboxUid, decision: Decision) -> Result<bool, Error>;

    /// What it counts as a whole, at a cost that does not grow with it.
    async fn tally(&self) -> Result<Tally, Error>;

    /// How far a mailbox is read, under whatever fence.
    async fn cursor(&self, mailbox: &MailboxUid) -> Result<Cursor, Error>;

    /// The last row of a mailbox, and how many it has.
    async fn extent(&self, mailbox: &MailboxUid) -> Result<(i64, u64), Error>;

    /// Those of these source keys that the ledger has, in no order.
    async fn standing_of(&self, mailbox: &MailboxUid, keys: &[String]) -> Result<Vec<Standing>, Error>;

    /// Messages of a mailbox behind row `after` and up to row `last`, in their order.
    async fn standing_after(
        &self,
        mailbox: &MailboxUid,
        after: i64,
        last: i64,
        limit: usize,
    ) -> Result<Vec<Standing>, Error>;

    /// Changes of contacts behind a revision, of an instance or of all, looking at `window` of them at most. `None`: that
    /// part of the sequence is gone, or was never reached.
    async fn contact_changes(
        &self,
        instance_uid: Option<&str>,
        after: u64,
        window: u32,
    ) -> Result<Option<ContactChanges>, Error>;

    /// Revision of the newest change of a contact; 0 when there was none yet.
    async fn newest_contact_change(&self) -> Result<u64, Error>;

    /// Cuts off the oldest changes so that `keep` of them stay.
    async fn trim_contact_changes(&self, keep: u64) -> Result<(), Error>;

    /// How many contacts wait in each of these queues, up to [`tally::MOST_COUNTED`], and since when the oldest does.
    async fn waiting_in(&self, queues: &[String]) -> Result<Vec<tally::QueueWaiting>, Error>;

    /// Changes after every commit. Closed when nothing can be written any more.
    fn commits(&self) -> watch::Receiver<()>;
}

/// A ledger that can be shared.
pub type SharedLedger = Arc<dyn Ledger>;

//! Mail on its way out, as the ledger keeps it. A second trait of the same back ends.
//!
//! Invariant: one transaction decides which mails are claimed, and it counts what is under way and behind each sending
//! mailbox itself, so that no number of claimers exceeds a limit. Invariant: every change that people can see has a
//! revision of its own, written with it.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use postroom_proto::id::SessionId;
use postroom_proto::v1::{self, OutboxState};

use super::{Error, Micros, Raw};
use crate::outbox::Terms;
use crate::outbox::allowance::Load;
use crate::outbox::state::{Decision, Recipient, Settlement, WrongState};

/// A mail that is to be sent.
#[derive(Debug, Clone, PartialEq)]
pub struct NewMail {
    /// Its id.
    pub id: String,
    /// Whose mail it is, and which way it goes.
    pub lane: Lane,
    /// Name of the instance.
    pub instance: String,
    /// Name of the queue.
    pub queue: String,
    /// Contact that it answers; may be empty.
    pub contact: String,
    /// The caller's name for it.
    pub request_id: String,
    /// Digest of everything that the caller sent.
    pub digest: Vec<u8>,
    /// From.
    pub from: v1::EmailAddress,
    /// To whom, each address once.
    pub recipients: Vec<(v1::RecipientKind, v1::EmailAddress)>,
    /// Its subject.
    pub subject: String,
    /// Its Message-ID without brackets. Nobody had it before.
    pub message_id: String,
    /// Length in bytes as it is sent.
    pub size_bytes: u64,
    /// The mail as it is sent. A blob is durable already.
    pub raw: Raw,
    /// Nobody wrote it.
    pub automatic: bool,
}

/// Who writes to whom, as the breaker counts it. Addresses in small letters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Writing {
    /// From.
    pub from: String,
    /// To whom.
    pub to: Vec<String>,
    /// Nobody wrote it.
    pub automatic: bool,
}

/// Why a mail was not stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotAdded {
    /// The request was used for another mail: this one.
    Reused {
        /// Id of that mail.
        mail: String,
    },
    /// One address was written to too often in the last hour.
    Loop {
        /// The address.
        address: String,
        /// How often, without this mail.
        count: u64,
    },
}

impl NewMail {
    /// Who writes to whom.
    pub fn writing(&self) -> Writing {
        Writing::new(&self.from, &self.recipients, self.automatic)
    }
}

impl Writing {
    /// From this address to these.
    pub fn new(from: &v1::EmailAddress, to: &[(v1::RecipientKind, v1::EmailAddress)], automatic: bool) -> Self {
        let to = to.iter().map(|(_, address)| address.address.to_lowercase()).collect();
        Self { from: from.address.to_lowercase(), to, automatic }
    }
}

/// A mail with what people do not see.
#[derive(Debug, Clone, PartialEq)]
pub struct Mail {
    /// Place in the order of creation.
    pub row: i64,
    /// Uid of its instance.
    pub instance_uid: String,
    /// Where it waits.
    pub lane: Lane,
    /// UNKNOWN: where it is looked for. Empty: nowhere.
    pub look_in: String,
    /// The mail, without recipients unless they were asked for.
    pub mail: v1::OutboxMail,
}

/// Mail of one queue from one address. All of it goes the same way.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Lane {
    /// Uid of the instance.
    pub instance_uid: String,
    /// Uid of the queue.
    pub queue_uid: String,
    /// The address in small letters.
    pub from: String,
}

impl Lane {
    /// Mail of this instance and queue from this address, however that is written.
    pub fn new(instance_uid: &str, queue_uid: &str, from: &str) -> Self {
        Self { instance_uid: instance_uid.into(), queue_uid: queue_uid.into(), from: from.to_lowercase() }
    }

    /// As it stands in the database.
    pub fn key(&self) -> String {
        format!("{}/{}/{}", self.instance_uid, self.queue_uid, self.from)
    }

    /// Back from [`key`](Self::key).
    pub fn parse(key: &str) -> Option<Self> {
        let mut parts = key.splitn(3, '/');
        Some(Self { instance_uid: parts.next()?.into(), queue_uid: parts.next()?.into(), from: parts.next()?.into() })
    }
}

/// What waits, as a claimer needs to know it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Waiting {
    /// Lanes with mail that is QUEUED, and when the first of it is due.
    pub queued: Vec<(Lane, Micros)>,
    /// Lanes with mail that is UNKNOWN and that nobody looks for at the moment, each with where it is to be looked for and
    /// when the first of it is due.
    pub unknown: Vec<(Lane, String, Micros)>,
}

/// A lane and the way that its mail goes at the moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    /// Whose mail.
    pub lane: Lane,
    /// The sending mailbox, whose limits count.
    pub sender: String,
    /// Names the credentials by which it signs in.
    pub credentials: Vec<u8>,
    /// Name of the outgoing server.
    pub outgoing_server: String,
    /// Where a copy of what goes this way is looked for. Empty: nowhere.
    pub look_in: String,
}

/// A wish for mails to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claiming {
    /// Who wants them.
    pub session: SessionId,
    /// Name of its worker.
    pub worker: String,
    /// Whose mail it may have.
    pub ways: Vec<Way>,
    /// Most mails.
    pub max: usize,
}

/// A mail that was claimed.
#[derive(Debug, Clone, PartialEq)]
pub struct Claimed {
    /// Its id.
    pub mail: String,
    /// The contact that it answers; empty: none.
    pub contact: String,
    /// Whose mail it is.
    pub lane: Lane,
    /// Names the claim.
    pub token: String,
    /// When the claim lapses.
    pub deadline_at: Micros,
    /// What is to be done.
    pub task: v1::SendTask,
    /// Address of the envelope's sender.
    pub sender: String,
    /// Those who have not got it.
    pub recipients: Vec<String>,
    /// Message-ID without brackets.
    pub message_id: String,
    /// Length in bytes.
    pub size_bytes: u64,
    /// Which attempt this is, from 1.
    pub attempt: u32,
}

/// Names a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Who has it.
    pub session: SessionId,
    /// Id of the mail.
    pub mail: String,
    /// Its token.
    pub token: String,
}

/// The claim does not stand any more, or never did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClaimLost;

/// Why a settlement was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotSettled {
    /// The claim is another's.
    ClaimLost,
    /// The verdict does not fit what was to be done.
    Verdict(WrongState),
}

/// What became of a decision about a mail.
#[derive(Debug, Clone, PartialEq)]
pub enum Decided {
    /// There is no such mail.
    Unknown,
    /// Its state does not allow it.
    Refused(OutboxState, WrongState),
    /// The mail as it stands now, with its recipients.
    Done(Box<Mail>),
}

/// Which mails to list. What is `None` or empty does not narrow.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MailFilter {
    /// Only of this instance.
    pub instance_uid: Option<String>,
    /// Only in these states.
    pub states: Vec<OutboxState>,
    /// Only answers to this contact.
    pub contact: Option<String>,
    /// Only to or from this address, in small letters.
    pub address: Option<String>,
}

/// Some changes of mails, in order; of each mail the last one.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct MailChanges {
    /// Each with its revision.
    pub changes: Vec<(u64, Mail)>,
    /// Everything up to here is among them.
    pub upto: u64,
    /// The newest change there is.
    pub newest: u64,
}

/// What a message says of a mail that it calls sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bounce {
    /// Message-ID of that mail.
    pub message_id: String,
    /// Those whom it did not reach, addresses in small letters. Empty: it is not told whom.
    pub recipients: Vec<Recipient>,
    /// False: it is still on its way, or was handed on; nothing came back.
    pub failed: bool,
}

/// What went wrong lately.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Trouble {
    /// Mails whose outcome is unknown.
    pub unknown: u64,
    /// Mails that failed within the time that was asked for; counted up to [`COUNTED`].
    pub failed: u64,
}

/// So far failed mails are counted.
pub const COUNTED: u64 = 1000;

/// Mail on its way out.
#[async_trait]
pub trait Outbox: Send + Sync + 'static {
    /// Why a mail would not be stored: whom it would write to too often.
    async fn too_often(&self, writing: &Writing, terms: &Terms, now: Micros) -> Result<Option<NotAdded>, Error>;

    /// Stores a mail, or returns the one that was stored under the same request, with its recipients.
    async fn add(&self, mail: NewMail, terms: &Terms, now: Micros) -> Result<Result<Mail, NotAdded>, Error>;

    /// The mail that was stored under a request of an instance, with its recipients, and the digest of the request.
    async fn stored(&self, instance_uid: &str, request_id: &str) -> Result<Option<(Vec<u8>, Mail)>, Error>;

    /// One mail with its recipients.
    async fn mail(&self, id: &str) -> Result<Option<Mail>, Error>;

    /// Mails that pass a filter, newest first, from before row `before`, without their recipients.
    async fn mails(&self, filter: &MailFilter, before: Option<i64>, limit: usize) -> Result<Vec<Mail>, Error>;

    /// The mail as it is sent, and the uid of its instance.
    async fn mail_raw(&self, id: &str) -> Result<Option<(String, Raw)>, Error>;

    /// What waits, at a cost that grows with lanes, not with mails.
    async fn waiting_mail(&self) -> Result<Waiting, Error>;

    /// What these sending mailboxes have under way and behind them; those are left out that have nothing.
    async fn loads(&self, senders: &[String], terms: &Terms, now: Micros) -> Result<HashMap<String, Load>, Error>;

    /// Claims what may be sent or looked for now.
    async fn claim(&self, claiming: Claiming, terms: &Terms, now: Micros) -> Result<Vec<Claimed>, Error>;

    /// The bytes of a claimed mail.
    async fn claimed_raw(&self, claim: &Claim, now: Micros) -> Result<Result<Raw, ClaimLost>, Error>;

    /// Records that the data of a claimed mail is handed over now; until when the claim stands.
    async fn mark(&self, claim: Claim, terms: &Terms, now: Micros) -> Result<Result<Micros, ClaimLost>, Error>;

    /// Takes what a worker says of an attempt; where the mail stands now. Repeated, it changes nothing.
    async fn settle(
        &self,
        claim: Claim,
        said: Settlement,
        terms: &Terms,
        now: Micros,
    ) -> Result<Result<OutboxState, NotSettled>, Error>;

    /// Ends claims whose time is over; how many.
    async fn lapse_claims(&self, terms: &Terms, now: Micros) -> Result<usize, Error>;

    /// Does what somebody decided about a mail; with `instance_uid` only when it is of that instance.
    async fn decide(
        &self,
        id: &str,
        instance_uid: Option<&str>,
        decision: Decision,
        now: Micros,
    ) -> Result<Decided, Error>;

    /// Sending mailboxes and credentials that are left alone, each with why.
    async fn left_alone(&self, now: Micros) -> Result<HashMap<(String, Vec<u8>), v1::Problem>, Error>;

    /// Leaves a sending mailbox alone no more.
    async fn try_again(&self, sender: &str) -> Result<(), Error>;

    /// Forgets what sending mailboxes did so long ago that it counts no more.
    async fn forget_loads(&self, terms: &Terms, now: Micros) -> Result<(), Error>;

    /// Changes behind a revision, of an instance or of all, looking at `window` of them at most. `None`: that part of the
    /// sequence is gone, or was never reached.
    async fn mail_changes(
        &self,
        instance_uid: Option<&str>,
        after: u64,
        window: u32,
    ) -> Result<Option<MailChanges>, Error>;

    /// Revision of the newest change of a mail; 0 when there was none yet.
    async fn newest_mail_change(&self) -> Result<u64, Error>;

    /// Cuts off the oldest changes so that `keep` of them stay.
    async fn trim_mail_changes(&self, keep: u64) -> Result<(), Error>;

    /// How many mails each instance (uid) has in each state, at a cost that does not grow with them.
    async fn mail_tally(&self) -> Result<Vec<(String, OutboxState, u64)>, Error>;

    /// What went wrong since then.
    async fn mail_trouble(&self, since: Micros) -> Result<Trouble, Error>;
}

/// An outbox that can be shared.
pub type SharedOutbox = Arc<dyn Outbox>;

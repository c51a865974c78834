//! What is asked of the ledger about contacts, and what it answers.

use postroom_proto::v1::{self, ContactKind, ContactState};

use super::Micros;
use crate::contact::allocation::Refused;
use crate::definition::model::Allocation;

/// A wish for contacts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Take {
    /// Uid of the instance.
    pub instance_uid: String,
    /// How its contacts are put in order.
    pub policy: Allocation,
    /// Most contacts.
    pub max: u32,
    /// The taker's name for this taking.
    pub request_id: String,
    /// How long it may take to accept.
    pub accept_within: Micros,
}

/// What was handed out.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Allocated {
    /// Best first.
    pub contacts: Vec<v1::Contact>,
    /// True: contacts of the instance were put back on the way, so others who wait should look again.
    pub put_back: bool,
}

/// What an instance says about contacts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Take custody.
    Accept,
    /// Give back.
    Reject,
    /// Hold allocated ones for so long from now.
    Extend(Micros),
    /// Done with accepted ones; how it ended.
    End(String),
    /// Hand out dead ones again.
    Requeue,
}

/// One contact of an answer: its id and the allocation it is meant under; an empty one means whichever it is in.
pub type Answered = (String, String);

/// What became of one contact of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AnswerOutcome {
    /// Its state now; unspecified when there is no such contact.
    pub state: ContactState,
    /// Until when it must be accepted; only while allocated.
    pub deadline_at: Option<Micros>,
    /// Why nothing was done.
    pub refused: Option<Refused>,
}

impl AnswerOutcome {
    /// It is done.
    pub fn done(state: ContactState) -> Self {
        Self { state, deadline_at: None, refused: None }
    }

    /// It was not done.
    pub fn refused(why: Refused, state: ContactState) -> Self {
        Self { state, deadline_at: None, refused: Some(why) }
    }

    /// The state that it was brought to, or why it was not.
    pub fn result(&self) -> Result<ContactState, Refused> {
        self.refused.map_or(Ok(self.state), Err)
    }
}

/// A move of contacts to another queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transfer {
    /// The caller's name for it.
    pub request_id: String,
    /// Contacts, each with the allocation it is meant under.
    pub contacts: Vec<Answered>,
    /// Uid of the instance that receives them.
    pub instance_uid: String,
    /// Its name.
    pub instance: String,
    /// Uid of the queue.
    pub queue_uid: String,
    /// Its name.
    pub queue: String,
    /// Priority they get.
    pub priority: u32,
    /// Language they get.
    pub language: String,
}

/// Position behind the last contact of a page.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ContactPosition {
    /// Instance of the last contact.
    pub instance_uid: String,
    /// Its state.
    pub state: i32,
    /// Its priority.
    pub priority: u32,
    /// Since when it waits.
    pub waiting_since: Micros,
    /// Its message.
    pub message: i64,
}

/// Which contacts to list. What is `None` or empty does not narrow.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ContactFilter {
    /// Only of this instance.
    pub instance_uid: Option<String>,
    /// Only in this state.
    pub state: Option<ContactState>,
    /// Only of this queue.
    pub queue_uid: Option<String>,
    /// Only of this thread.
    pub thread: Option<String>,
    /// Only with this priority.
    pub priority: Option<u32>,
    /// Only what came in by this address.
    pub address: Option<String>,
    /// Only of this kind.
    pub kind: Option<ContactKind>,
    /// Only received at or after this time.
    pub received_since: Option<Micros>,
    /// Only received before this time.
    pub received_until: Option<Micros>,
    /// Only where From contains this text, in lower case.
    pub sender: String,
}

/// One page of contacts, each with its position.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ContactPage {
    /// In order.
    pub rows: Vec<(ContactPosition, v1::Contact)>,
    /// Where to go on. `None`: there are no more.
    pub next: Option<ContactPosition>,
}

/// A change of a contact.
#[derive(Debug, Clone, PartialEq)]
pub struct ContactChange {
    /// Its place in the sequence of changes.
    pub revision: u64,
    /// True: the instance that is watched has it no more.
    pub left: bool,
    /// The contact as it stands, without text and html.
    pub contact: v1::Contact,
}

/// Some changes of contacts, in order; of each contact the last one.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ContactChanges {
    /// The changes.
    pub changes: Vec<ContactChange>,
    /// Everything up to here is among them.
    pub upto: u64,
    /// The newest change there is.
    pub newest: u64,
}

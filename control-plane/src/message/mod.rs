//! Messages of the ledger, for people: what became of each, and what they decide about those that are no contact.
//!
//! `replay` makes a contact of one after all, `reconcile` compares a mailbox with the ledger; both have a worker look into
//! the mailbox.

use std::sync::Arc;

use postroom_proto::id::MailboxUid;
use postroom_proto::reason::{Failure, Reason};
use postroom_proto::v1::{self, Disposition};
use tokio::sync::{Semaphore, watch};

use crate::access::vault::Vault;
use crate::clock;
use crate::definition::model::Model;
use crate::errand::Errands;
use crate::intake::Intake;
use crate::ledger::message::{Discarded, MessageFilter};
use crate::ledger::{Raw, SharedLedger};

pub mod reconcile;
mod replay;

/// Replays at one time: each may have the kept raw message in memory, up to 1 MiB.
const REPLAYS: usize = 2;
/// Reconciliations at one time: each has a bit in memory for each message of its mailbox.
const RECONCILIATIONS: usize = 4;

/// What people do with messages.
#[derive(Clone)]
pub struct Messages {
    model: watch::Receiver<Arc<Model>>,
    vault: Arc<Vault>,
    ledger: SharedLedger,
    intake: Intake,
    errands: Errands,
    replays: Arc<Semaphore>,
    reconciliations: Arc<Semaphore>,
}

impl Messages {
    /// Over these.
    pub fn new(
        model: watch::Receiver<Arc<Model>>,
        vault: Arc<Vault>,
        ledger: SharedLedger,
        intake: Intake,
        errands: Errands,
    ) -> Self {
        let (replays, reconciliations) = (Arc::new(Semaphore::new(REPLAYS)), Arc::new(Semaphore::new(RECONCILIATIONS)));
        Self { model, vault, ledger, intake, errands, replays, reconciliations }
    }

    /// Messages, those recorded last first.
    pub async fn list(
        &self,
        filter: &MessageFilter,
        before: Option<i64>,
        limit: usize,
    ) -> Result<Vec<v1::Message>, Failure> {
        let messages = self.ledger.messages(filter, before, limit).await?;
        let model = self.model.borrow().clone();
        Ok(messages.into_iter().map(|message| named(&model, message)).collect())
    }

    /// One message with everything.
    pub async fn get(&self, id: &str) -> Result<v1::Message, Failure> {
        let message = self.ledger.message(row(id)?).await?.ok_or_else(|| unknown(id))?;
        let model = self.model.borrow().clone();
        Ok(named(&model, message))
    }

    /// The raw message.
    pub async fn raw(&self, id: &str) -> Result<Raw, Failure> {
        match self.ledger.message_raw(row(id)?).await?.ok_or_else(|| unknown(id))? {
            Raw::None => Err(Failure::new(
                Reason::NotFound,
                format!("the raw form of message {id} was not kept; look at it in the mailbox"),
            )),
            raw => Ok(raw),
        }
    }

    /// What people decide about a duplicate is decided about the message that it is a copy of.
    async fn original(&self, id: &str) -> Result<v1::Message, Failure> {
        let message = self.get(id).await?;
        if message.duplicate_of.is_empty() { Ok(message) } else { self.get(&message.duplicate_of).await }
    }

    /// Decides that a message stays without a contact.
    pub async fn discard(&self, id: &str, by: &str, text: &str) -> Result<v1::Message, Failure> {
        let id = self.original(id).await?.id;
        self.discard_original(&id, by, text).await
    }

    async fn discard_original(&self, id: &str, by: &str, text: &str) -> Result<v1::Message, Failure> {
        match self.ledger.discard(row(id)?, by, text, clock::now()).await? {
            Discarded::Filtered => self.get(id).await,
            Discarded::Unknown => Err(unknown(id)),
            Discarded::Contact => {
                let contact = self.get(id).await?.contact;
                let text = format!("message {id} is contact {contact}, and a contact cannot be discarded");
                Err(Failure::new(Reason::WrongDisposition, text).with("contact", contact))
            }
        }
    }
}

/// Adds the e-mail of the mailbox, while a queue reads it.
fn named(model: &Model, message: v1::Message) -> v1::Message {
    let uid = MailboxUid::parse(&message.mailbox).ok();
    let place = uid.as_ref().and_then(|uid| model.mailbox(uid));
    v1::Message { email: place.map(|place| place.address.email.clone()).unwrap_or_default(), ..message }
}

fn is_contact(message: &v1::Message) -> bool {
    message.disposition() == Disposition::Contact
}

/// The row that an id names. What is no number names no message.
fn row(id: &str) -> Result<i64, Failure> {
    id.parse().map_err(|_| unknown(id))
}

fn unknown(id: &str) -> Failure {
    Failure::new(Reason::NotFound, format!("there is no message {id:?}; see `postroom message list`"))
}

//! What an instance says about contacts: accept, extend, reject, end, requeue, transfer.

use std::num::NonZeroU32;

use postroom_proto::{convert, v1};

use super::super::Session;
use crate::args::{EndContacts, ExtendContacts, RequeueContacts, SettleContacts, TransferContacts};
use crate::client;
use crate::error::Error;
use crate::render::{table, time, words};

/// Most contacts of one call.
const BATCH: usize = 500;

pub(super) async fn accept(session: &mut Session<'_, '_>, args: SettleContacts) -> Result<(), Error> {
    let client = session.client()?;
    let call = async |contacts| {
        let request = v1::AcceptContactsRequest { instance: args.instance.clone(), contacts };
        Ok(client.accept_contacts(request).await?.outcomes)
    };
    let all = in_batches(&args, call).await;
    all.tell(session, "accepted", |outcomes| v1::AcceptContactsResponse { outcomes })
}

pub(super) async fn extend(session: &mut Session<'_, '_>, args: ExtendContacts) -> Result<(), Error> {
    let client = session.client()?;
    let call = async |contacts| {
        let request = v1::ExtendContactsRequest {
            instance: args.contacts.instance.clone(),
            contacts,
            accept_within: args.accept_within.map(convert::to_duration),
        };
        Ok(client.extend_contacts(request).await?.outcomes)
    };
    let all = in_batches(&args.contacts, call).await;
    all.tell(session, "extended", |outcomes| v1::ExtendContactsResponse { outcomes })
}

pub(super) async fn reject(session: &mut Session<'_, '_>, args: SettleContacts) -> Result<(), Error> {
    let client = session.client()?;
    let call = async |contacts| {
        let request = v1::RejectContactsRequest { instance: args.instance.clone(), contacts };
        Ok(client.reject_contacts(request).await?.outcomes)
    };
    let all = in_batches(&args, call).await;
    all.tell(session, "given back", |outcomes| v1::RejectContactsResponse { outcomes })
}

pub(super) async fn end(session: &mut Session<'_, '_>, args: EndContacts) -> Result<(), Error> {
    let client = session.client()?;
    let call = async |contacts| {
        let instance = args.contacts.instance.clone();
        let request = v1::EndContactsRequest { instance, contacts, outcome: args.outcome.clone() };
        Ok(client.end_contacts(request).await?.outcomes)
    };
    let all = in_batches(&args.contacts, call).await;
    all.tell(session, "ended", |outcomes| v1::EndContactsResponse { outcomes })
}

pub(super) async fn requeue(session: &mut Session<'_, '_>, args: RequeueContacts) -> Result<(), Error> {
    let client = session.client()?;
    let call = async |contacts: Vec<v1::AllocatedContact>| {
        let contacts = contacts.into_iter().map(|contact| contact.contact).collect();
        let request = v1::RequeueContactsRequest { instance: args.instance.clone(), contacts };
        Ok(client.requeue_contacts(request).await?.outcomes)
    };
    let named = SettleContacts { instance: args.instance.clone(), request_id: None, ids: args.ids.clone() };
    let all = in_batches(&named, call).await;
    all.tell(session, "requeued", |outcomes| v1::RequeueContactsResponse { outcomes })
}

pub(super) async fn transfer(session: &mut Session<'_, '_>, args: TransferContacts) -> Result<(), Error> {
    let client = session.client()?;
    let call = async |contacts| {
        let request = v1::TransferContactsRequest {
            instance: args.contacts.instance.clone(),
            contacts,
            queue: args.queue.clone(),
            request_id: uuid::Uuid::new_v4().to_string(),
            priority: args.priority.map_or(0, NonZeroU32::get),
        };
        Ok(client.transfer_contacts(request).await?.outcomes)
    };
    let all = in_batches(&args.contacts, call).await;
    all.tell(session, "transferred", |outcomes| v1::TransferContactsResponse { outcomes })
}

/// What was done, and what ended it early.
struct All {
    done: Vec<v1::ContactOutcome>,
    failed: Option<client::Error>,
}

/// Calls for one batch after the other.
async fn in_batches(
    args: &SettleContacts,
    call: impl AsyncFn(Vec<v1::AllocatedContact>) -> Result<Vec<v1::ContactOutcome>, client::Error>,
) -> All {
    let mut done = Vec::new();
    for contacts in batches(args) {
        match call(contacts).await {
            Ok(outcomes) => done.extend(outcomes),
            Err(error) => return All { done, failed: Some(error) },
        }
    }
    All { done, failed: None }
}

fn batches(args: &SettleContacts) -> impl Iterator<Item = Vec<v1::AllocatedContact>> {
    let request_id = args.request_id.clone().unwrap_or_default();
    args.ids.chunks(BATCH).map(move |ids| {
        let named = |id: &String| v1::AllocatedContact { contact: id.clone(), request_id: request_id.clone() };
        ids.iter().map(named).collect()
    })
}

impl All {
    /// Shows the outcomes, and fails when not all are what was wanted. A call that failed after others succeeded is told
    /// with what was done before it.
    fn tell<M: prost::Message + prost::Name>(
        self,
        session: &mut Session<'_, '_>,
        done: &str,
        answer: impl FnOnce(Vec<v1::ContactOutcome>) -> M,
    ) -> Result<(), Error> {
        if self.failed.is_none() || !self.done.is_empty() {
            session.show(&answer(self.done.clone()), |_| outcomes(&self.done))?;
        }
        if let Some(error) = self.failed {
            let error = Error::from(error);
            let message = match self.done.len() {
                0 => error.message,
                told => format!("{}; only the first {told} contacts were dealt with", error.message),
            };
            return Err(Error { message, ..error });
        }
        let refused = self.done.iter().map(|outcome| outcome.reason.as_str()).filter(|reason| !reason.is_empty());
        Error::partial(self.done.len(), "contacts", done, refused).map_or(Ok(()), Err)
    }
}

fn outcomes(outcomes: &[v1::ContactOutcome]) -> String {
    let row = |o: &v1::ContactOutcome| {
        [o.contact.clone(), words::contact_state(o.state), o.reason.clone(), o.message.clone()]
    };
    if outcomes.iter().all(|outcome| outcome.deadline_time.is_none()) {
        return table::rows(["ID", "STATE", "REASON", "MESSAGE"], outcomes.iter().map(row));
    }
    let row = |o: &v1::ContactOutcome| {
        let [id, state, reason, message] = row(o);
        [id, state, time::time(o.deadline_time.as_ref()), reason, message]
    };
    table::rows(["ID", "STATE", "DEADLINE", "REASON", "MESSAGE"], outcomes.iter().map(row))
}

//! `contact`: list, show, take, accept, reject, raw.

use postroom_proto::{convert, v1};

use super::Session;
use crate::args::{Contact, ListContacts, SettleContacts, State, TakeContacts};
use crate::client;
use crate::error::Error;
use crate::render::{table, text, time, words};

/// Most contacts of one accept or reject.
const BATCH: usize = 500;

pub(super) async fn run(session: &mut Session<'_, '_>, verb: Contact) -> Result<(), Error> {
    match verb {
        Contact::List(args) => list(session, args).await,
        Contact::Show { id } => {
            let contact = session.client()?.get_contact(id).await?;
            session.show(&contact, one)
        }
        Contact::Take(args) => take(session, args).await,
        Contact::Accept(args) => accept(session, args).await,
        Contact::Reject(args) => reject(session, args).await,
        Contact::Raw { id } => raw(session, id).await,
    }
}

async fn list(session: &mut Session<'_, '_>, args: ListContacts) -> Result<(), Error> {
    let state = match args.state {
        None => v1::ContactState::Unspecified,
        Some(State::Queued) => v1::ContactState::Queued,
        Some(State::Allocated) => v1::ContactState::Allocated,
        Some(State::Accepted) => v1::ContactState::Accepted,
    };
    let limit = args.limit.get();
    let progress = session.progress("reading contacts");
    let client = session.client()?.with_progress(&progress);
    let listing = client.list_contacts(args.instance.unwrap_or_default(), state, limit);
    let mut all = progress.during(listing).await?;
    let more = !std::mem::take(&mut all.next_page_token).is_empty();
    session.show(&all, |all| listed(&all.contacts))?;
    if more {
        session.note(&format!("there are more than these {limit} contacts; --limit N lists more"));
    }
    Ok(())
}

async fn take(session: &mut Session<'_, '_>, args: TakeContacts) -> Result<(), Error> {
    let request = v1::AllocateContactsRequest {
        instance: args.instance.clone(),
        max_count: args.max,
        wait: args.wait.map(convert::to_duration),
        request_id: uuid::Uuid::new_v4().to_string(),
        accept_within: args.accept_within.map(convert::to_duration),
    };
    let taken = session.client()?.allocate_contacts(request).await?;
    session.show(&taken, |taken| best_first(&taken.contacts))?;
    let Some(first) = taken.contacts.first() else {
        session.note("no contact is waiting");
        return Ok(());
    };
    let allocation = first.allocation.clone().unwrap_or_default();
    let deadline = time::time(allocation.deadline_time.as_ref());
    let ids = if taken.contacts.len() == 1 { first.id.as_str() } else { "ID..." };
    let args = ["contact", "accept", "--instance", &args.instance, "--request-id", &allocation.request_id];
    let accept = session.next_command(&args);
    session.note(&format!("accept before {deadline}: {accept} {ids}"));
    Ok(())
}

async fn accept(session: &mut Session<'_, '_>, args: SettleContacts) -> Result<(), Error> {
    let client = session.client()?;
    let call = async |contacts| {
        let request = v1::AcceptContactsRequest { instance: args.instance.clone(), contacts };
        Ok(client.accept_contacts(request).await?.outcomes)
    };
    let (done, failed) = in_batches(&args, call).await;
    if failed.is_none() || !done.is_empty() {
        session.show(&v1::AcceptContactsResponse { outcomes: done.clone() }, |all| outcomes(&all.outcomes))?;
    }
    verdict(&done, "accepted", failed)
}

async fn reject(session: &mut Session<'_, '_>, args: SettleContacts) -> Result<(), Error> {
    let client = session.client()?;
    let call = async |contacts| {
        let request = v1::RejectContactsRequest { instance: args.instance.clone(), contacts };
        Ok(client.reject_contacts(request).await?.outcomes)
    };
    let (done, failed) = in_batches(&args, call).await;
    if failed.is_none() || !done.is_empty() {
        session.show(&v1::RejectContactsResponse { outcomes: done.clone() }, |all| outcomes(&all.outcomes))?;
    }
    verdict(&done, "given back", failed)
}

/// Calls for one batch after the other; what was done, and what ended it early.
async fn in_batches(
    args: &SettleContacts,
    call: impl AsyncFn(Vec<v1::AllocatedContact>) -> Result<Vec<v1::ContactOutcome>, client::Error>,
) -> (Vec<v1::ContactOutcome>, Option<client::Error>) {
    let mut done = Vec::new();
    for contacts in batches(args) {
        match call(contacts).await {
            Ok(outcomes) => done.extend(outcomes),
            Err(error) => return (done, Some(error)),
        }
    }
    (done, None)
}

async fn raw(session: &mut Session<'_, '_>, id: String) -> Result<(), Error> {
    session.only_bytes("`contact show ID -o json` has what was read from the message")?;
    let mut message = session.client()?.get_raw_message(id).await?;
    while let Some(chunk) = message.next().await? {
        session.write(&chunk)?;
    }
    Ok(())
}

fn batches(args: &SettleContacts) -> impl Iterator<Item = Vec<v1::AllocatedContact>> {
    let request_id = args.request_id.clone().unwrap_or_default();
    args.ids.chunks(BATCH).map(move |ids| {
        let named = |id: &String| v1::AllocatedContact { contact: id.clone(), request_id: request_id.clone() };
        ids.iter().map(named).collect()
    })
}

/// What the command ends with. A call that failed after others succeeded is told with what was done before it.
fn verdict(outcomes: &[v1::ContactOutcome], done: &str, failed: Option<client::Error>) -> Result<(), Error> {
    if let Some(error) = failed {
        let error = Error::from(error);
        let message = match outcomes.len() {
            0 => error.message,
            told => format!("{}; only the first {told} contacts were dealt with", error.message),
        };
        return Err(Error { message, ..error });
    }
    let refused = outcomes.iter().map(|outcome| outcome.reason.as_str()).filter(|reason| !reason.is_empty());
    Error::partial(outcomes.len(), "contacts", done, refused).map_or(Ok(()), Err)
}

fn outcomes(outcomes: &[v1::ContactOutcome]) -> String {
    let row = |o: &v1::ContactOutcome| {
        [o.contact.clone(), words::contact_state(o.state), o.reason.clone(), o.message.clone()]
    };
    table::rows(["ID", "STATE", "REASON", "MESSAGE"], outcomes.iter().map(row))
}

fn best_first(contacts: &[v1::Contact]) -> String {
    let row = |c: &v1::Contact| {
        let received = time::time(c.received_time.as_ref());
        [c.id.clone(), c.priority.to_string(), c.queue.clone(), received, from(c), subject(c)]
    };
    table::rows(["ID", "PRIORITY", "QUEUE", "RECEIVED", "FROM", "SUBJECT"], contacts.iter().map(row))
}

fn listed(contacts: &[v1::Contact]) -> String {
    let row = |c: &v1::Contact| {
        let received = time::time(c.received_time.as_ref());
        let state = words::contact_state(c.state);
        [
            c.id.clone(),
            c.priority.to_string(),
            c.instance.clone(),
            c.queue.clone(),
            state,
            received,
            from(c),
            subject(c),
        ]
    };
    let header = ["ID", "PRIORITY", "INSTANCE", "QUEUE", "STATE", "RECEIVED", "FROM", "SUBJECT"];
    table::rows(header, contacts.iter().map(row))
}

fn one(contact: &v1::Contact) -> String {
    let content = contact.content.clone().unwrap_or_default();
    let mut pairs = vec![
        ("id", contact.id.clone()),
        ("instance", contact.instance.clone()),
        ("queue", contact.queue.clone()),
        ("address", contact.address.clone()),
        ("mailbox", contact.mailbox.clone()),
        ("state", words::contact_state(contact.state)),
        ("priority", contact.priority.to_string()),
        ("language", contact.language.clone()),
        ("received", time::time(contact.received_time.as_ref())),
        ("size", time::size(contact.size_bytes)),
        ("refusals", contact.refusal_count.to_string()),
    ];
    if let Some(allocation) = &contact.allocation {
        pairs.extend([
            ("request id", allocation.request_id.clone()),
            ("allocated", time::time(allocation.allocated_time.as_ref())),
            ("deadline", time::time(allocation.deadline_time.as_ref())),
            ("accepted", time::time(allocation.accepted_time.as_ref())),
        ]);
    }
    pairs.extend([
        ("from", addresses(&content.from)),
        ("to", addresses(&content.to)),
        ("cc", addresses(&content.cc)),
        ("reply to", addresses(&content.reply_to)),
        ("date", time::time(content.date_time.as_ref())),
        ("message id", content.message_id.clone()),
        ("subject", content.subject.clone()),
        ("truncated", content.truncated.join(", ")),
    ]);
    pairs.extend(content.attachments.iter().map(|attachment| {
        let size = time::size(attachment.size_bytes);
        ("attachment", format!("{} {} ({}, {size})", attachment.index, attachment.name, attachment.media_type))
    }));
    let mut shown = table::pairs(pairs);
    if !content.text.is_empty() {
        shown += &format!("\n{}\n", text::lines(content.text.trim_end()));
    }
    shown
}

fn from(contact: &v1::Contact) -> String {
    contact.content.as_ref().map(|content| addresses(&content.from)).unwrap_or_default()
}

fn subject(contact: &v1::Contact) -> String {
    contact.content.as_ref().map(|content| content.subject.clone()).unwrap_or_default()
}

fn addresses(addresses: &[v1::EmailAddress]) -> String {
    let shown = addresses.iter().map(|address| match (address.name.as_str(), address.address.as_str()) {
        ("", address) => address.to_owned(),
        (name, "") => name.to_owned(),
        (name, address) => format!("{name} <{address}>"),
    });
    shown.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contact(id: &str, priority: u32, subject: &str) -> v1::Contact {
        v1::Contact {
            id: id.into(),
            instance: "core1".into(),
            queue: "Billing".into(),
            address: "billing@contoso.example".into(),
            state: v1::ContactState::Allocated.into(),
            priority,
            language: "en".into(),
            received_time: Some(convert::to_timestamp(1_772_366_400_000_000)),
            size_bytes: 2048,
            content: Some(v1::ContactContent {
                from: vec![v1::EmailAddress { name: "Zoë".into(), address: "zoe@fabrikam.example".into() }],
                subject: subject.into(),
                text: "Hello,\r\n\r\nmy invoice \u{1b}[2J is wrong.\n".into(),
                attachments: vec![v1::Attachment {
                    name: "../invoice\n.pdf".into(),
                    media_type: "application/pdf".into(),
                    size_bytes: 1024,
                    ..Default::default()
                }],
                ..Default::default()
            }),
            allocation: Some(v1::Allocation { request_id: "r-1".into(), ..Default::default() }),
            ..Default::default()
        }
    }

    #[test]
    fn what_is_taken_is_a_line_a_contact() {
        let contacts = [
            contact("0198c0ffee0198c0ffee0198c0ffee01", 1, "Invoice 4711"),
            contact("0198c0ffee0198c0ffee0198c0ffee02", 10, "\u{1b}]0;owned\u{7}Re:\nhello"),
        ];
        insta::assert_snapshot!(best_first(&contacts));
        insta::assert_snapshot!(listed(&contacts[..1]));
    }

    #[test]
    fn one_contact_is_shown_with_everything() {
        insta::assert_snapshot!(one(&contact("0198c0ffee0198c0ffee0198c0ffee01", 1, "Invoice 4711")));
    }
}

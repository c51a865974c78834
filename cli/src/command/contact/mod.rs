//! `contact`: list, show, take, raw; the answers of instances, watching and attachments in files of their own.

use std::num::NonZeroU32;

use jiff::Timestamp;
use postroom_proto::{convert, v1};

use super::Session;
use crate::args::{Contact, Kind, ListContacts, State, TakeContacts};
use crate::error::Error;
use crate::render::{table, text, time, words};

mod answer;
mod attachment;
mod watch;

pub(super) async fn run(session: &mut Session<'_, '_>, verb: Contact) -> Result<(), Error> {
    match verb {
        Contact::List(args) => list(session, args).await,
        Contact::Show { id } => {
            let contact = session.client()?.get_contact(id).await?;
            session.show(&contact, one)
        }
        Contact::Take(args) => take(session, args).await,
        Contact::Accept(args) => answer::accept(session, args).await,
        Contact::Extend(args) => answer::extend(session, args).await,
        Contact::Reject(args) => answer::reject(session, args).await,
        Contact::End(args) => answer::end(session, args).await,
        Contact::Requeue(args) => answer::requeue(session, args).await,
        Contact::Transfer(args) => answer::transfer(session, args).await,
        Contact::Watch(args) => watch::watch(session, args).await,
        Contact::Raw { id } => raw(session, id).await,
        Contact::Attachment(args) => attachment::run(session, args).await,
    }
}

fn filter(args: ListContacts) -> v1::ListContactsRequest {
    let state = args.state.map(|state| match state {
        State::Queued => v1::ContactState::Queued,
        State::Allocated => v1::ContactState::Allocated,
        State::Accepted => v1::ContactState::Accepted,
        State::Ended => v1::ContactState::Ended,
        State::Dead => v1::ContactState::Dead,
    });
    let kind = args.kind.map(|kind| match kind {
        Kind::Normal => v1::ContactKind::Normal,
        Kind::AutoReply => v1::ContactKind::AutoReply,
        Kind::Bounce => v1::ContactKind::Bounce,
        Kind::Receipt => v1::ContactKind::Receipt,
        Kind::Bulk => v1::ContactKind::Bulk,
        Kind::Calendar => v1::ContactKind::Calendar,
    });
    let received = |time: Timestamp| convert::to_timestamp(time.as_microsecond());
    v1::ListContactsRequest {
        instance: args.instance.unwrap_or_default(),
        state: state.unwrap_or_default().into(),
        queue: args.queue.unwrap_or_default(),
        address: args.address.unwrap_or_default(),
        kind: kind.unwrap_or_default().into(),
        thread: args.thread.unwrap_or_default(),
        received_since_time: args.since.map(received),
        received_until_time: args.until.map(received),
        sender: args.from.unwrap_or_default(),
        priority: args.priority.map_or(0, NonZeroU32::get),
        ..Default::default()
    }
}

async fn list(session: &mut Session<'_, '_>, args: ListContacts) -> Result<(), Error> {
    let limit = args.limit.get();
    let progress = session.progress("reading contacts");
    let client = session.client()?.with_progress(&progress);
    let listing = client.list_contacts(filter(args), limit);
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

async fn raw(session: &mut Session<'_, '_>, id: String) -> Result<(), Error> {
    session.only_bytes("`contact show ID -o json` has what was read from the message")?;
    let mut message = session.client()?.get_raw_message(id).await?;
    while let Some(chunk) = message.next().await? {
        session.write(&chunk.data)?;
    }
    Ok(())
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
        ("kind", words::contact_kind(contact.kind)),
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
    if let Some(ended) = &contact.ended_time {
        pairs.extend([("ended", time::time(Some(ended))), ("outcome", contact.outcome.clone())]);
    }
    if let Some(dead) = &contact.dead_time {
        pairs.push(("dead since", time::time(Some(dead))));
    }
    pairs.extend(contact.transfers.iter().map(|transfer| {
        let when = time::time(transfer.transferred_time.as_ref());
        let v1::Transfer { from_queue, from_instance, from_priority, .. } = transfer;
        ("transferred", format!("{when} from {from_queue} of {from_instance}, priority {from_priority}"))
    }));
    pairs.extend([
        ("from", addresses(&content.from)),
        ("to", addresses(&content.to)),
        ("cc", addresses(&content.cc)),
        ("reply to", addresses(&content.reply_to)),
        ("date", time::time(content.date_time.as_ref())),
        ("message id", content.message_id.clone()),
        ("thread", contact.thread.clone()),
        ("earlier", contact.earlier_contacts.join(", ")),
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

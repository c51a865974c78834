//! `message`: list, show, raw, replay, discard.

use jiff::Timestamp;
use postroom_proto::{convert, v1};

use super::Session;
use crate::args::{Disposition, ListMessages, Message};
use crate::error::Error;
use crate::render::{table, time, words};

pub(super) async fn run(session: &mut Session<'_, '_>, verb: Message) -> Result<(), Error> {
    match verb {
        Message::List(args) => list(session, args).await,
        Message::Show { id } => {
            let message = session.client()?.get_message(id).await?;
            session.show(&message, one)
        }
        Message::Raw { id } => {
            session.only_bytes("`message show ID -o json` has what is known of it")?;
            let mut raw = session.client()?.get_message_raw(id).await?;
            while let Some(chunk) = raw.next().await? {
                session.write(&chunk.data)?;
            }
            Ok(())
        }
        Message::Replay { id } => {
            let progress = session.progress("reading the message again");
            let client = session.client()?;
            let replayed = progress.during(client.replay_message(id)).await?;
            session.show(&replayed, |replayed| replayed.message.as_ref().map(one).unwrap_or_default())?;
            if replayed.already_contact {
                session.note("it was a contact before; nothing was changed");
            }
            Ok(())
        }
        Message::Discard { id, reason } => {
            let message = session.client()?.discard_message(id, reason).await?;
            session.show(&message, one)
        }
    }
}

async fn list(session: &mut Session<'_, '_>, args: ListMessages) -> Result<(), Error> {
    let when = |time: Timestamp| convert::to_timestamp(time.as_microsecond());
    let request = v1::ListMessagesRequest {
        mailbox: args.mailbox.unwrap_or_default(),
        dispositions: args.disposition.into_iter().map(|it| disposition(it).into()).collect(),
        settled: match (args.settled, args.unsettled) {
            (true, _) => Some(true),
            (_, true) => Some(false),
            _ => None,
        },
        since_time: args.since.map(when),
        until_time: args.until.map(when),
        reason: args.reason.unwrap_or_default(),
        ..Default::default()
    };
    let limit = args.limit.get();
    let progress = session.progress("reading messages");
    let client = session.client()?.with_progress(&progress);
    let mut all = progress.during(client.list_messages(request, limit)).await?;
    let more = !std::mem::take(&mut all.next_page_token).is_empty();
    session.show(&all, |all| listed(&all.messages))?;
    if more {
        session.note(&format!("there are more than these {limit} messages; --limit N lists more"));
    }
    Ok(())
}

fn disposition(disposition: Disposition) -> v1::Disposition {
    match disposition {
        Disposition::Contact => v1::Disposition::Contact,
        Disposition::Quarantined => v1::Disposition::Quarantined,
        Disposition::TooLarge => v1::Disposition::TooLarge,
        Disposition::Vanished => v1::Disposition::Vanished,
        Disposition::Filtered => v1::Disposition::Filtered,
        Disposition::Duplicate => v1::Disposition::Duplicate,
    }
}

fn listed(messages: &[v1::Message]) -> String {
    let row = |m: &v1::Message| {
        [
            m.id.clone(),
            place(m),
            words::disposition(m.disposition),
            time::time(m.recorded_time.as_ref()),
            size(m.size_bytes),
            if m.contact.is_empty() { m.reason.clone() } else { format!("contact {}", m.contact) },
        ]
    };
    let header = ["ID", "MAILBOX", "DISPOSITION", "RECORDED", "SIZE", "REASON"];
    table::rows(header, messages.iter().map(row))
}

/// The e-mail, or the uid of a mailbox that no queue reads any more.
fn place(message: &v1::Message) -> String {
    if message.email.is_empty() { message.mailbox.clone() } else { message.email.clone() }
}

fn size(bytes: u64) -> String {
    if bytes == 0 { String::new() } else { time::size(bytes) }
}

fn one(m: &v1::Message) -> String {
    let mut pairs = vec![
        ("id", m.id.clone()),
        ("mailbox", place(m)),
        ("source key", m.source_key.clone()),
        ("disposition", words::disposition(m.disposition)),
        ("reason", m.reason.clone()),
        ("received", time::time(m.received_time.as_ref())),
        ("recorded", time::time(m.recorded_time.as_ref())),
        ("size", size(m.size_bytes)),
    ];
    if !m.duplicate_of.is_empty() {
        pairs.push(("duplicate of", m.duplicate_of.clone()));
    }
    if !m.copies.is_empty() {
        pairs.push(("copies", m.copies.join(", ")));
    }
    if m.limit_bytes > 0 {
        pairs.push(("limit", time::size(m.limit_bytes)));
    }
    if m.attempt_count > 0 {
        pairs.push(("attempts", m.attempt_count.to_string()));
    }
    pairs.extend([
        ("contact", m.contact.clone()),
        ("raw kept", if m.raw_kept { "yes" } else { "no" }.to_owned()),
        ("settled", if m.settled { "yes" } else { "no" }.to_owned()),
    ]);
    let mut shown = table::pairs(pairs);
    for decision in &m.decisions {
        let kind = words::message_decision(decision.kind);
        let before = words::disposition(decision.former_disposition);
        let why =
            if decision.former_reason.is_empty() { String::new() } else { format!(" ({})", decision.former_reason) };
        let when = time::time(decision.time.as_ref());
        shown += &table::indented(0, &format!("{kind} by {} at {when}; it was {before}{why}", decision.by));
    }
    shown
}

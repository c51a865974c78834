//! `outbox`: list, show, raw, retry, cancel, confirm; composing and watching in files of their own.

use postroom_proto::v1;

use super::Session;
use crate::args::{ListOutbox, Outbox, OutboxState};
use crate::error::Error;
use crate::render::{table, time, words};

pub(super) mod compose;
mod watch;

pub(super) async fn run(session: &mut Session<'_, '_>, verb: Outbox) -> Result<(), Error> {
    match verb {
        Outbox::List(args) => list(session, args).await,
        Outbox::Show { id } => {
            let mail = session.client()?.get_outbox_mail(id).await?;
            session.show(&mail, one)
        }
        Outbox::Raw { id } => {
            session.only_bytes("`outbox show ID -o json` has what is known of it")?;
            let mut raw = session.client()?.get_outbox_raw(id).await?;
            while let Some(chunk) = raw.next().await? {
                session.write(&chunk.data)?;
            }
            Ok(())
        }
        Outbox::Retry { id, may_arrive_twice } => {
            let mail = session.client()?.retry_outbox_mail(id, may_arrive_twice).await?;
            session.show(&mail, one)
        }
        Outbox::Cancel { id } => {
            let mail = session.client()?.cancel_outbox_mail(id).await?;
            session.show(&mail, one)
        }
        Outbox::Confirm { id } => {
            let mail = session.client()?.confirm_outbox_mail(id).await?;
            session.show(&mail, one)
        }
        Outbox::Watch(args) => watch::watch(session, args).await,
    }
}

async fn list(session: &mut Session<'_, '_>, args: ListOutbox) -> Result<(), Error> {
    let limit = args.limit.get();
    let filter = v1::ListOutboxRequest {
        instance: args.instance.unwrap_or_default(),
        states: args.state.into_iter().map(|it| state(it).into()).collect(),
        contact: args.contact.unwrap_or_default(),
        address: args.address.unwrap_or_default(),
        ..Default::default()
    };
    let progress = session.progress("reading mails");
    let client = session.client()?.with_progress(&progress);
    let mut all = progress.during(client.list_outbox(filter, limit)).await?;
    let more = !std::mem::take(&mut all.next_page_token).is_empty();
    session.show(&all, |all| listed(&all.mails))?;
    if more {
        session.note(&format!("there are more than these {limit} mails; --limit N lists more"));
    }
    if all.mails.iter().any(|mail| mail.state() == v1::OutboxState::Unknown) {
        session.note(
            "of unknown ones it is not known whether they arrived: ask the recipient, then `outbox confirm ID`, or \
             `outbox retry ID --may-arrive-twice`",
        );
    }
    Ok(())
}

fn state(state: OutboxState) -> v1::OutboxState {
    match state {
        OutboxState::Queued => v1::OutboxState::Queued,
        OutboxState::Sending => v1::OutboxState::Sending,
        OutboxState::Sent => v1::OutboxState::Sent,
        OutboxState::Unknown => v1::OutboxState::Unknown,
        OutboxState::Failed => v1::OutboxState::Failed,
        OutboxState::Bounced => v1::OutboxState::Bounced,
    }
}

fn listed(mails: &[v1::OutboxMail]) -> String {
    let row = |m: &v1::OutboxMail| {
        [
            m.id.clone(),
            m.instance.clone(),
            words::outbox_state(m.state),
            time::time(m.created_time.as_ref()),
            address(m.from.as_ref()),
            m.recipient_count.to_string(),
            m.subject.clone(),
            m.problem.as_ref().map(|problem| problem.code.clone()).unwrap_or_default(),
        ]
    };
    let header = ["ID", "INSTANCE", "STATE", "CREATED", "FROM", "RECIPIENTS", "SUBJECT", "PROBLEM"];
    table::rows(header, mails.iter().map(row))
}

/// One mail, its recipients below.
fn one(m: &v1::OutboxMail) -> String {
    let mut pairs = vec![
        ("id", m.id.clone()),
        ("instance", m.instance.clone()),
        ("queue", m.queue.clone()),
        ("contact", m.contact.clone()),
        ("state", words::outbox_state(m.state)),
        ("from", address(m.from.as_ref())),
        ("subject", m.subject.clone()),
        ("message id", m.message_id.clone()),
        ("request id", m.request_id.clone()),
        ("size", time::size(m.size_bytes)),
        ("automatic", if m.automatic { "yes" } else { "no" }.into()),
        ("created", time::time(m.created_time.as_ref())),
        ("attempts", m.attempt_count.to_string()),
        ("outgoing server", m.outgoing_server.clone()),
    ];
    for (name, when) in [("next attempt", &m.next_attempt_time), ("sent", &m.sent_time)] {
        pairs.extend(when.as_ref().map(|when| (name, time::time(Some(when)))));
    }
    for (name, text) in [("worker", &m.worker), ("response", &m.response)] {
        if !text.is_empty() {
            pairs.push((name, text.clone()));
        }
    }
    if let Some(problem) = &m.problem {
        pairs.extend([
            ("problem", format!("{}: {}", problem.code, problem.cause)),
            ("remedy", problem.remedy.clone()),
            ("since", time::time(problem.since_time.as_ref())),
        ]);
    }
    let mut shown = table::pairs(pairs);
    if !m.recipients.is_empty() {
        let row = |r: &v1::OutboxRecipient| {
            [
                address(r.address.as_ref()),
                words::recipient_kind(r.kind),
                words::recipient_state(r.state),
                r.status.clone(),
                r.diagnostic.clone(),
            ]
        };
        shown.push('\n');
        shown += &table::rows(["RECIPIENT", "KIND", "STATE", "STATUS", "DIAGNOSTIC"], m.recipients.iter().map(row));
    }
    shown
}

fn address(address: Option<&v1::EmailAddress>) -> String {
    match address {
        None => String::new(),
        Some(it) if it.name.is_empty() => it.address.clone(),
        Some(it) => format!("{} <{}>", it.name, it.address),
    }
}

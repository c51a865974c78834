//! `mailbox backlog`: the old messages of a mailbox that wait for an operator.

use jiff::Timestamp;
use postroom_proto::{convert, v1};

use super::Session;
use crate::args::{ApproveBacklog, Backlog};
use crate::error::Error;
use crate::render::{table, time, words};

pub(super) async fn run(session: &mut Session<'_, '_>, verb: Backlog) -> Result<(), Error> {
    let (client, now) = (session.client()?, session.now());
    let backlog = match verb {
        Backlog::Show { mailbox } => client.get_backlog(mailbox).await?,
        Backlog::Approve(ApproveBacklog { mailbox, since, rate }) => {
            let since_time = since.map(|since| convert::to_timestamp(since.as_microsecond()));
            client.approve_backlog(v1::ApproveBacklogRequest { mailbox, since_time, rate_per_minute: rate }).await?
        }
        Backlog::Stop { mailbox } => client.stop_backlog(mailbox).await?,
    };
    session.show(&backlog, |backlog| show(backlog, now))
}

/// In a few words, for those who look at the mailbox.
pub(super) fn brief(backlog: &v1::Backlog) -> String {
    let state = words::backlog_state(backlog.state);
    let gone = backlog.taken_count + backlog.left_count;
    format!("{state}: {gone} of {} taken or left", backlog.message_count)
}

fn show(backlog: &v1::Backlog, now: Timestamp) -> String {
    let when = |time: &Option<prost_types::Timestamp>| time::time_and_age(time.as_ref(), now);
    let mut pairs = vec![
        ("email", backlog.email.clone()),
        ("uid", backlog.mailbox.clone()),
        ("state", words::backlog_state(backlog.state)),
        ("messages", backlog.message_count.to_string()),
        ("taken", backlog.taken_count.to_string()),
        ("left", backlog.left_count.to_string()),
        ("held since", when(&backlog.held_time)),
        ("last taken", when(&backlog.progress_time)),
    ];
    if backlog.finished_time.is_some() {
        pairs.push(("finished", when(&backlog.finished_time)));
    }
    if !backlog.cause.is_empty() {
        pairs.extend([("cause", backlog.cause.clone()), ("remedy", backlog.remedy.clone())]);
    } else {
        pairs.push(("rate", rate(backlog.rate_per_minute)));
        pairs.push(("since", time::time(backlog.since_time.as_ref())));
    }
    let mut shown = table::pairs(pairs);
    for decision in &backlog.decisions {
        let kind = words::backlog_decision(decision.kind);
        let mut line = format!("{kind} by {} at {}", decision.by, time::time(decision.time.as_ref()));
        if decision.kind() == v1::BacklogDecisionKind::Approved {
            line += &format!(", {}", rate(decision.rate_per_minute));
            if decision.since_time.is_some() {
                line += &format!(", without what is older than {}", time::time(decision.since_time.as_ref()));
            }
        }
        shown += &table::indented(0, &line);
    }
    shown
}

fn rate(per_minute: u32) -> String {
    if per_minute == 0 { "as many as can be read".into() } else { format!("{per_minute} a minute") }
}

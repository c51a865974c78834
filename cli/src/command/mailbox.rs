//! `mailbox`: who reads each, and what is wrong with it.

use jiff::Timestamp;
use postroom_proto::convert::from_duration;
use postroom_proto::v1;

use super::{Session, backlog, check, reconcile};
use crate::args::Mailbox;
use crate::error::Error;
use crate::render::{table, time, words};

pub(super) async fn run(session: &mut Session<'_, '_>, verb: Mailbox) -> Result<(), Error> {
    let (client, now) = (session.client()?, session.now());
    match verb {
        Mailbox::List => {
            let progress = session.progress("reading mailboxes");
            let client = client.with_progress(&progress);
            let all = progress.during(client.list_mailboxes()).await?;
            session.show(&all, |all| list(&all.mailboxes, now))
        }
        Mailbox::Backlog(verb) => backlog::run(session, verb).await,
        Mailbox::Reconcile { mailbox, all } => reconcile::run(session, mailbox, all).await,
        Mailbox::Show { mailbox } => {
            let mailbox = client.get_mailbox(mailbox).await?;
            session.show(&mailbox, |mailbox| show(mailbox, now))
        }
        Mailbox::Check { mailbox } => {
            let steps = client.check_mailbox(mailbox).await?;
            check::follow(session, steps).await
        }
    }
}

fn list(mailboxes: &[v1::Mailbox], now: Timestamp) -> String {
    let row = |m: &v1::Mailbox| {
        [
            m.email.clone(),
            m.queue.clone(),
            m.instance.clone(),
            words::mailbox_state(m.state),
            time::time_and_age(m.since_time.as_ref(), now),
            worker(m),
            time::time_and_age(m.holder.as_ref().and_then(|holder| holder.since_time.as_ref()), now),
            why(m),
            m.contact_count.to_string(),
            set_aside(m),
            m.problem.as_ref().map(|problem| problem.code.clone()).unwrap_or_default(),
        ]
    };
    let header = [
        "EMAIL",
        "QUEUE",
        "INSTANCE",
        "STATE",
        "SINCE",
        "WORKER",
        "HELD SINCE",
        "WHY",
        "CONTACTS",
        "SET ASIDE",
        "PROBLEM",
    ];
    let mut shown = table::rows(header, mailboxes.iter().map(row));
    for backlog in mailboxes.iter().filter_map(|mailbox| mailbox.backlog.as_ref()).filter(|it| !it.remedy.is_empty()) {
        shown.push('\n');
        shown += &table::indented(0, &format!("{} BACKLOG", backlog.email));
        shown += &table::indented(1, &format!("cause: {}", backlog.cause));
        shown += &table::indented(1, &format!("remedy: {}", backlog.remedy));
    }
    for mailbox in mailboxes {
        let Some(problem) = &mailbox.problem else { continue };
        shown.push('\n');
        shown += &table::indented(0, &format!("{} {}", mailbox.email, problem.code));
        shown += &table::indented(1, &format!("cause: {}", problem.cause));
        shown += &table::indented(1, &format!("remedy: {}", problem.remedy));
        if problem.next_attempt_time.is_some() {
            let next = time::time_and_age(problem.next_attempt_time.as_ref(), now);
            shown += &table::indented(1, &format!("next attempt: {next}"));
        }
    }
    shown
}

/// Why it came to its worker, or why nobody reads it.
fn why(mailbox: &v1::Mailbox) -> String {
    match &mailbox.holder {
        Some(holder) => words::move_reason(holder.reason),
        None => words::unassigned_reason(mailbox.unassigned_reason),
    }
}

/// Messages that are in the ledger but no contacts: too large, not readable, or gone before they could be read.
fn set_aside(mailbox: &v1::Mailbox) -> String {
    let count = mailbox.message_count.saturating_sub(mailbox.contact_count).to_string();
    match (mailbox.quarantined_count, mailbox.too_large_count) {
        (0, 0) => count,
        (quarantined, 0) => format!("{count} ({quarantined} quarantined)"),
        (0, too_large) => format!("{count} ({too_large} too large)"),
        (quarantined, too_large) => format!("{count} ({quarantined} quarantined, {too_large} too large)"),
    }
}

fn show(mailbox: &v1::Mailbox, now: Timestamp) -> String {
    let when = |time: &Option<prost_types::Timestamp>| time::time_and_age(time.as_ref(), now);
    let mut pairs = vec![
        ("email", mailbox.email.clone()),
        ("folder", mailbox.folder.clone()),
        ("uid", mailbox.uid.clone()),
        ("queue", mailbox.queue.clone()),
        ("instance", mailbox.instance.clone()),
        ("pool", mailbox.pool.clone()),
        ("server", mailbox.server.clone()),
        ("state", words::mailbox_state(mailbox.state)),
        ("since", when(&mailbox.since_time)),
    ];
    if let Some(activity) = &mailbox.activity {
        pairs.extend([("at", activity.doing.clone()), ("at it since", when(&activity.since_time))]);
        if activity.until_time.is_some() {
            pairs.push(("at it until", when(&activity.until_time)));
        }
    }
    pairs.extend([("next", mailbox.next.clone()), ("worker", worker(mailbox))]);
    if let Some(holder) = &mailbox.holder {
        pairs.extend([
            ("held since", when(&holder.since_time)),
            ("moved because", why(mailbox)),
            ("former worker", holder.former_worker.clone()),
            ("session", holder.session.clone()),
            ("epoch", holder.epoch.to_string()),
        ]);
    } else {
        pairs.push(("unread because", why(mailbox)));
    }
    pairs.extend([
        ("messages", mailbox.message_count.to_string()),
        ("contacts", mailbox.contact_count.to_string()),
        ("set aside", set_aside(mailbox)),
        ("last report", when(&mailbox.last_report_time)),
    ]);
    if mailbox.proof_time.is_some() {
        pairs.push(("last seen", when(&mailbox.proof_time)));
    }
    if mailbox.unfetched_time.is_some() {
        pairs.push(("mail waits since", when(&mailbox.unfetched_time)));
    }
    if let Some(lag) = mailbox.delivery_lag.as_ref().and_then(from_duration) {
        pairs.push(("delivery lag", format!("{:.1} s", lag.as_secs_f64())));
    }
    if let Some(renumbering) = &mailbox.renumbering {
        let became = format!(
            "{} known, {} new, {} left",
            renumbering.known_count, renumbering.new_count, renumbering.left_count
        );
        let (named, time) = match renumbering.finished_time {
            None => ("re-keying since", &renumbering.began_time),
            Some(_) => ("re-keyed", &renumbering.finished_time),
        };
        pairs.extend([(named, when(time)), ("re-keyed messages", became)]);
    }
    if let Some(old) = &mailbox.backlog {
        pairs.push(("backlog", backlog::brief(old)));
        if !old.remedy.is_empty() {
            pairs.extend([("backlog cause", old.cause.clone()), ("backlog remedy", old.remedy.clone())]);
        }
    }
    if let Some(problem) = &mailbox.problem {
        pairs.extend([
            ("problem", problem.code.clone()),
            ("kind", words::problem_kind(problem.kind)),
            ("cause", problem.cause.clone()),
            ("remedy", problem.remedy.clone()),
            ("problem since", when(&problem.since_time)),
            ("next attempt", when(&problem.next_attempt_time)),
        ]);
    }
    table::pairs(pairs)
}

fn worker(mailbox: &v1::Mailbox) -> String {
    mailbox.holder.as_ref().map(|holder| holder.worker.clone()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use postroom_proto::convert;

    use super::*;

    const NOW: i64 = 1_772_366_400_000_000;

    fn now() -> Timestamp {
        Timestamp::from_microsecond(NOW).unwrap()
    }

    fn at(seconds: i64) -> Option<prost_types::Timestamp> {
        Some(convert::to_timestamp(NOW + seconds * 1_000_000))
    }

    fn healthy() -> v1::Mailbox {
        v1::Mailbox {
            uid: "mbx-0123456789abcdef01234567".into(),
            email: "billing@contoso.example".into(),
            folder: "INBOX".into(),
            queue: "Billing".into(),
            instance: "core1".into(),
            server: "Office 365 (service)".into(),
            state: v1::MailboxState::Idle.into(),
            since_time: at(-200),
            holder: Some(v1::Holder {
                worker: "worker-1".into(),
                session: "abc".into(),
                epoch: 17,
                since_time: at(-900),
                reason: v1::MoveReason::WorkerSilent.into(),
                former_worker: "worker-2".into(),
            }),
            pool: "default".into(),
            message_count: 12,
            contact_count: 11,
            last_report_time: at(-30),
            next: "looks what is new when the server tells of mail".into(),
            ..Default::default()
        }
    }

    fn failing() -> v1::Mailbox {
        v1::Mailbox {
            email: "sales@contoso.example".into(),
            queue: "Sales".into(),
            state: v1::MailboxState::Failing.into(),
            problem: Some(v1::Problem {
                kind: v1::ProblemKind::Credential.into(),
                code: "AADSTS7000215".into(),
                cause: "the client secret is wrong".into(),
                remedy: "use the secret's value, not its id, then apply the model again".into(),
                since_time: at(-4000),
                next_attempt_time: at(90),
            }),
            ..healthy()
        }
    }

    #[test]
    fn a_list_tells_below_what_is_wrong() {
        let unassigned = v1::Mailbox {
            email: "new@contoso.example".into(),
            state: v1::MailboxState::Unassigned.into(),
            unassigned_reason: v1::UnassignedReason::NoCapacity.into(),
            holder: None,
            contact_count: 0,
            ..healthy()
        };
        insta::assert_snapshot!(list(&[healthy(), unassigned, failing()], now()));
    }

    #[test]
    fn a_folder_that_was_numbered_anew_is_told() {
        let renumbering = |finished_time| {
            let shown = v1::Mailbox {
                renumbering: Some(v1::Renumbering {
                    began_time: at(-300),
                    finished_time,
                    known_count: 40,
                    new_count: 2,
                    left_count: 7,
                }),
                ..healthy()
            };
            show(&shown, now())
        };
        let (under_way, done) = (renumbering(None), renumbering(at(-100)));
        assert!(under_way.contains("re-keying since") && under_way.contains("40 known, 2 new, 7 left"), "{under_way}");
        assert!(done.contains("re-keyed ") && !done.contains("re-keying since"), "{done}");
        assert!(!show(&healthy(), now()).contains("re-key"));
    }

    #[test]
    fn what_a_reader_is_at_for_long_is_shown_with_its_end() {
        let activity = v1::MailboxActivity {
            doing: "waits for its turn to connect".into(),
            since_time: at(-60),
            until_time: at(1740),
            next: "signs in".into(),
        };
        let shown = v1::Mailbox { activity: Some(activity), next: "signs in".into(), ..healthy() };
        insta::assert_snapshot!(show(&shown, now()));
        assert!(!show(&healthy(), now()).contains("at it"));
    }

    #[test]
    fn one_mailbox_is_shown_with_everything() {
        insta::assert_snapshot!(show(&failing(), now()));
    }
}

//! `status`: one screen.

use jiff::Timestamp;
use postroom_proto::convert::from_timestamp;
use postroom_proto::v1;

use super::Session;
use crate::args::Status;
use crate::error::{Error, Kind};
use crate::render::style::{Tone, paint};
use crate::render::{table, text, time, words};

pub(super) async fn run(session: &mut Session<'_, '_>, args: &Status) -> Result<(), Error> {
    let client = session.client()?;
    let status = client.get_status().await?;
    // Ages are told against the clock that the times come from.
    let read = status.read_time.as_ref().and_then(|time| Timestamp::from_microsecond(from_timestamp(time)).ok());
    let now = read.unwrap_or_else(|| session.now());
    session.show(&status, |status| screen(client.endpoint(), status, now))?;
    match status.concerns.len() {
        count if count > 0 && args.check => Err(Error::new(Kind::NotWell, need(count))),
        _ => Ok(()),
    }
}

fn screen(endpoint: &str, status: &v1::Status, now: Timestamp) -> String {
    let up = time::time_and_age(status.start_time.as_ref(), now);
    let mut shown = table::pairs([
        ("postroom", format!("{} at {endpoint}", status.version)),
        ("up since", up),
        ("revision", status.model_revision.to_string()),
        ("mailboxes", counted(status.mailboxes.iter().map(|tally| (words::mailbox_state(tally.state), tally.count)))),
        (
            "set aside",
            counted(status.messages.iter().map(|tally| (words::disposition(tally.disposition), tally.count))),
        ),
        ("ledger", time::size(status.ledger_bytes)),
    ]);
    shown.push('\n');
    shown += &concerns(&status.concerns, now);
    let told = |m: &&v1::Mailbox| status.concerns.iter().any(|concern| concern.subject == m.email);
    let untold: Vec<_> = status.failing_mailboxes.iter().filter(|mailbox| !told(mailbox)).collect();
    shown += &tried_again(&untold, now);
    let contacts = |tallies: &[v1::ContactTally]| {
        counted(tallies.iter().map(|tally| (words::contact_state(tally.state), tally.count)))
    };
    let row = |i: &v1::InstanceStatus| {
        let oldest = time::time_and_age(i.oldest_time.as_ref(), now);
        [i.instance.clone(), contacts(&i.contacts), oldest, i.oldest_contact.clone()]
    };
    shown.push('\n');
    shown += &table::rows(["INSTANCE", "CONTACTS", "WAITS LONGEST", "ID"], status.instances.iter().map(row));
    let row = |w: &v1::WorkerStatus| {
        let heard = time::time_and_age(w.heartbeat_time.as_ref(), now);
        [w.worker.clone(), w.mailbox_count.to_string(), heard, if w.draining { "draining" } else { "live" }.into()]
    };
    shown.push('\n');
    shown + &table::rows(["WORKER", "MAILBOXES", "LAST HEARTBEAT", "STATE"], status.workers.iter().map(row))
}

fn concerns(concerns: &[v1::Concern], now: Timestamp) -> String {
    if concerns.is_empty() {
        return format!("{}\n", paint(Tone::Good, "nothing needs somebody"));
    }
    let mut shown = format!("{}\n", paint(Tone::Bad, &format!("{}:", need(concerns.len()))));
    for concern in concerns {
        shown += &titled(&concern.code, &concern.subject, concern.since_time.as_ref(), now);
        shown += &table::indented(2, &format!("cause: {}", concern.cause));
        shown += &table::indented(2, &format!("remedy: {}", concern.remedy));
    }
    shown
}

/// What should pass by itself.
fn tried_again(failing: &[&v1::Mailbox], now: Timestamp) -> String {
    if failing.is_empty() {
        return String::new();
    }
    let mut shown = format!("{}\n", paint(Tone::Waiting, "tried again by themselves:"));
    for mailbox in failing {
        let problem = mailbox.problem.clone().unwrap_or_default();
        shown += &titled(&problem.code, &mailbox.email, problem.since_time.as_ref(), now);
        shown += &table::indented(2, &format!("cause: {}", problem.cause));
        let next = time::time_and_age(problem.next_attempt_time.as_ref(), now);
        shown += &table::indented(2, &format!("next attempt: {next}"));
    }
    shown
}

fn titled(code: &str, subject: &str, since: Option<&prost_types::Timestamp>, now: Timestamp) -> String {
    let mut title = code.to_owned();
    if !subject.is_empty() {
        title += &format!(" {subject}");
    }
    if since.is_some() {
        title += &format!(", since {}", time::time_and_age(since, now));
    }
    format!("  {}\n", paint(Tone::Label, &text::line(&title)))
}

fn need(count: usize) -> String {
    if count == 1 { "1 thing needs somebody".into() } else { format!("{count} things need somebody") }
}

/// "idle 3, failing 1"; "none" of nothing.
fn counted(counts: impl Iterator<Item = (String, u64)>) -> String {
    let counts: Vec<String> = counts.map(|(word, count)| format!("{word} {count}")).collect();
    if counts.is_empty() { "none".into() } else { counts.join(", ") }
}

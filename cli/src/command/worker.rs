//! `worker`.

use std::time::Duration;

use jiff::Timestamp;
use postroom_proto::v1;
use tokio::time::{Instant, sleep};

use super::Session;
use crate::args::{Role, Worker};
use crate::client::Client;
use crate::error::{Error, Kind};
use crate::progress::Progress;
use crate::render::style::{Tone, paint};
use crate::render::{table, text, time, words};

/// Time between two looks.
const LOOK: Duration = Duration::from_millis(500);

pub(super) async fn run(session: &mut Session<'_, '_>, verb: Worker) -> Result<(), Error> {
    let client = session.client()?;
    let now = session.now();
    match verb {
        Worker::List => session.show(&client.list_workers().await?, |all| listed(all, now)),
        Worker::Drain { worker, wait, timeout } => {
            let drained = client.drain_worker(worker.clone()).await?;
            if !wait {
                return session.show(&drained, |worker| shown(worker, now));
            }
            drain(session, &client, drained, timeout).await
        }
        Worker::Enroll { worker, ttl } => super::token::enroll(session, worker, ttl).await,
        Worker::Undrain { worker } => session.show(&client.undrain_worker(worker).await?, |worker| shown(worker, now)),
        Worker::SetRole { worker, role } => {
            let role = match role {
                Role::Active => v1::WorkerRole::Active,
                Role::Spare => v1::WorkerRole::Spare,
                Role::Own => v1::WorkerRole::Unspecified,
            };
            session.show(&client.set_worker_role(worker, role).await?, |worker| shown(worker, now))
        }
        Worker::Freeze { duration, note } => {
            session.show(&client.freeze_workers(note, duration).await?, |freeze| frozen(freeze, now))
        }
        Worker::Unfreeze => {
            session.show(&client.unfreeze_workers().await?, |_| "the fleet is not frozen any more\n".into())
        }
    }
}

/// Waits until a worker that is drained holds nothing.
async fn drain(
    session: &mut Session<'_, '_>,
    client: &Client,
    worker: v1::Worker,
    timeout: Duration,
) -> Result<(), Error> {
    let progress = session.progress(&format!("draining {}: mailboxes", worker.name));
    let last = progress.during(until_empty(client, worker, timeout, &progress)).await?;
    let now = session.now();
    session.show(&last, |worker| shown(worker, now))?;
    if is_empty(&last) {
        return Ok(());
    }
    let message = format!("{} still holds {} mailboxes after {} s", last.name, left(&last), timeout.as_secs());
    Err(Error::new(Kind::TimedOut, message)
        .help("it stays drained; what nobody else can carry stays with it: see `postroom worker list`, or wait longer by --timeout"))
}

/// The last look.
async fn until_empty(
    client: &Client,
    mut worker: v1::Worker,
    timeout: Duration,
    progress: &Progress,
) -> Result<v1::Worker, Error> {
    let until = Instant::now() + timeout;
    let all = u64::from(left(&worker));
    loop {
        let rest = u64::from(left(&worker));
        progress.at(all.saturating_sub(rest), all);
        if rest == 0 || Instant::now() >= until {
            return Ok(worker);
        }
        sleep(LOOK.min(until - Instant::now())).await;
        let found = client.list_workers().await?.workers.into_iter().find(|other| other.name == worker.name);
        // One that is not listed any more has nothing.
        worker = found.unwrap_or(v1::Worker { mailbox_count: 0, held_count: 0, ..worker });
    }
}

/// Mailboxes that are assigned to it, or that it has not let go of yet.
fn left(worker: &v1::Worker) -> u32 {
    worker.mailbox_count.max(worker.held_count)
}

fn is_empty(worker: &v1::Worker) -> bool {
    left(worker) == 0
}

fn listed(all: &v1::ListWorkersResponse, now: Timestamp) -> String {
    let row = |worker: &v1::Worker| {
        [
            worker.name.clone(),
            words::worker_state(worker.state),
            worker.pool.clone(),
            words::worker_role(worker.role),
            worker.mailbox_count.to_string(),
            worker.held_count.to_string(),
            capacity(worker),
            heard(worker, now),
            notes(worker),
        ]
    };
    let header = ["NAME", "STATE", "POOL", "ROLE", "MAILBOXES", "HELD", "CAPACITY", "HEARD", "NOTES"];
    let mut shown = table::rows(header, all.workers.iter().map(row));
    if let Some(freeze) = &all.freeze {
        shown += &frozen(freeze, now);
    }
    if let Some(until) = &all.brake_until_time {
        let until = time::time_and_age(Some(until), now);
        let told = format!("so many workers are silent at once that none is given up before {until}: see the network");
        shown += &format!("{}\n", paint(Tone::Bad, &told));
    }
    shown
}

fn shown(worker: &v1::Worker, now: Timestamp) -> String {
    let role = words::worker_role(worker.role);
    table::pairs([
        ("name", worker.name.clone()),
        ("state", words::worker_state(worker.state)),
        ("pool", worker.pool.clone()),
        ("role", if worker.role_set { format!("{role} (set by an operator)") } else { role }),
        ("drained", if worker.drained { "yes" } else { "no" }.into()),
        ("mailboxes", worker.mailbox_count.to_string()),
        ("held", worker.held_count.to_string()),
        ("capacity", capacity(worker)),
        ("stands in for", worker.stands_in_for.join(", ")),
        ("decided", time::time_and_age(worker.decision_time.as_ref(), now)),
        ("decided by", worker.decided_by.clone()),
        ("session", worker.session.clone()),
        ("build", worker.build.clone()),
        ("started", time::time_and_age(worker.start_time.as_ref(), now)),
        ("heard", time::time_and_age(worker.heartbeat_time.as_ref(), now)),
    ])
}

fn capacity(worker: &v1::Worker) -> String {
    if worker.capacity == 0 { String::new() } else { worker.capacity.to_string() }
}

fn heard(worker: &v1::Worker, now: Timestamp) -> String {
    let time = worker.heartbeat_time.as_ref().map(postroom_proto::convert::from_timestamp);
    let time = time.and_then(|time| Timestamp::from_microsecond(time).ok());
    time.map(|time| time::age(time, now)).unwrap_or_default()
}

fn notes(worker: &v1::Worker) -> String {
    let mut notes = Vec::new();
    if worker.drained {
        notes.push("drained".to_owned());
    }
    if worker.role_set {
        notes.push("role set".to_owned());
    }
    if !worker.stands_in_for.is_empty() {
        notes.push(format!("stands in for {}", worker.stands_in_for.join(", ")));
    }
    notes.join("; ")
}

fn frozen(freeze: &v1::Freeze, now: Timestamp) -> String {
    let since = time::time_and_age(freeze.since_time.as_ref(), now);
    let until = match &freeze.until_time {
        Some(until) => format!("until {}", time::time_and_age(Some(until), now)),
        None => "until `postroom worker unfreeze`".into(),
    };
    let mut told = format!("the fleet is frozen by {} since {since}, {until}", freeze.frozen_by);
    if !freeze.note.is_empty() {
        told += &format!(": {}", freeze.note);
    }
    format!("{}\n", paint(Tone::Waiting, &text::line(&told)))
}

//! `rollout`.

use std::time::Duration;

use postroom_proto::v1;
use tokio::time::{Instant, sleep};

use super::Session;
use crate::args::Rollout;
use crate::client::Client;
use crate::error::{Error, Kind};
use crate::progress::Progress;
use crate::render::table;

/// Time between two looks.
const LOOK: Duration = Duration::from_millis(500);

pub(super) async fn run(session: &mut Session<'_, '_>, verb: Rollout) -> Result<(), Error> {
    let Rollout::Status { wait, timeout } = verb;
    let client = session.client()?;
    if !wait {
        return session.show(&client.get_rollout().await?, shown);
    }
    let progress = session.progress("rolling out: mailboxes");
    let (last, done) = progress.during(until_done(&client, timeout, &progress)).await?;
    session.show(&last, shown)?;
    if done {
        return Ok(());
    }
    let late = last.workers.iter().filter(|it| it.lagging_count > 0).map(|it| it.worker.clone());
    let late: Vec<String> = late.collect();
    let mut what = Vec::new();
    if last.unread_count > 0 {
        what.push(format!("{} mailboxes are read by nobody", last.unread_count));
    }
    if !late.is_empty() {
        what.push(format!("behind: {}", late.join(", ")));
    }
    let message =
        format!("revision {} had not arrived after {} s: {}", last.revision, timeout.as_secs(), what.join("; "));
    Err(Error::new(Kind::TimedOut, message)
        .help("`postroom mailbox list` says what is wrong with a mailbox; or wait longer by --timeout"))
}

/// The last look, and whether everything had arrived.
async fn until_done(client: &Client, timeout: Duration, progress: &Progress) -> Result<(v1::Rollout, bool), Error> {
    let until = Instant::now() + timeout;
    loop {
        let rollout = client.get_rollout().await?;
        let held: u64 = rollout.workers.iter().map(|it| u64::from(it.mailbox_count)).sum();
        let lagging: u64 = rollout.workers.iter().map(|it| u64::from(it.lagging_count)).sum();
        progress.at(held - lagging.min(held), held + u64::from(rollout.unread_count));
        if rollout.done || Instant::now() >= until {
            let done = rollout.done;
            return Ok((rollout, done));
        }
        sleep(LOOK.min(until - Instant::now())).await;
    }
}

fn shown(rollout: &v1::Rollout) -> String {
    let replica = |it: &v1::ReplicaRollout| {
        ["replica".into(), it.name.clone(), it.revision.to_string(), String::new(), String::new()]
    };
    let worker = |it: &v1::WorkerRollout| {
        let behind = if it.lagging_count == 0 { String::new() } else { it.lagging_count.to_string() };
        ["worker".into(), it.worker.clone(), it.revision.to_string(), it.mailbox_count.to_string(), behind]
    };
    let rows = rollout.replicas.iter().map(replica).chain(rollout.workers.iter().map(worker));
    let mut shown = table::rows(["KIND", "NAME", "REVISION", "MAILBOXES", "BEHIND"], rows);
    if rollout.unread_count > 0 {
        shown += &format!("{} mailboxes are read by nobody\n", rollout.unread_count);
    }
    shown + &format!("revision {}: {}\n", rollout.revision, if rollout.done { "everywhere" } else { "on its way" })
}

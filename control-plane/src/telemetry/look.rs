//! One look at everything after the other, each made into gauges.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use postroom_proto::convert::from_timestamp;
use postroom_proto::metric;
use postroom_proto::reason::Failure;
use postroom_proto::v1::{ContactState, QueueStatus, WorkerState};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::{mailboxes, number, seconds, word};
use crate::clock;
use crate::definition::model::Model;
use crate::definition::normalise;
use crate::intake::lives::Lives;
use crate::lease::desk::look::FleetSeen;
use crate::lease::profile::Role;
use crate::ledger::outbox::SharedOutbox;
use crate::status::{Look, Overview};

/// A look takes at most this part of the time: one in so many, as long as the pause may grow.
const SHARE: u32 = 20;
/// Longest time for a look.
const LONGEST: Duration = Duration::from_secs(120);
/// Longest pause for the sake of that share. With the longest look it is less than the five minutes after which an
/// alert says that nothing is renewed.
const LONGEST_PAUSE: Duration = Duration::from_secs(120);

/// How metrics of the whole are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// Time between two looks.
    pub interval: Duration,
    /// Most mailboxes that have numbers of their own.
    pub mailboxes: usize,
}

impl Default for Terms {
    fn default() -> Self {
        Self { interval: Duration::from_secs(15), mailboxes: 2000 }
    }
}

impl Terms {
    /// How long nothing is looked at after a look that took so long.
    fn pause(&self, took: Duration) -> Duration {
        self.interval.max(took.saturating_mul(SHARE).min(LONGEST_PAUSE))
    }
}

/// Looks at everything.
pub struct Telemetry {
    /// The data folder.
    pub data: PathBuf,
    /// What `postroom status` looks at.
    pub overview: Overview,
    /// Counts mails.
    pub outbox: SharedOutbox,
    /// When mailboxes were seen to be read.
    pub lives: Arc<Lives>,
    /// What there is.
    pub model: watch::Receiver<Arc<Model>>,
    /// How often, and how much of it is shown.
    pub terms: Terms,
}

impl Telemetry {
    /// Looks until it is told to stop.
    pub async fn run(self, stop: CancellationToken) {
        loop {
            let begun = Instant::now();
            tokio::select! {
                () = stop.cancelled() => return,
                looked = tokio::time::timeout(LONGEST, self.look()) => {
                    let failed = match looked {
                        Ok(Ok(())) => None,
                        Ok(Err(failure)) => Some(failure.message),
                        Err(_) => Some(format!("it took longer than {LONGEST:?}")),
                    };
                    metric::OVERVIEW_FAILED.set(&[], if failed.is_some() { 1.0 } else { 0.0 });
                    if let Some(why) = failed {
                        tracing::warn!(error = why, "metrics could not be put together: the former ones are shown");
                    }
                }
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(self.terms.pause(begun.elapsed())) => {}
            }
        }
    }

    async fn look(&self) -> Result<(), Failure> {
        let model = self.model.borrow().clone();
        self.lives.keep(&model, clock::now());
        let looked = self.overview.look().await?;
        let mails = self.outbox.mail_tally().await?;
        let data = self.data.clone();
        let space = tokio::task::spawn_blocking(move || rustix::fs::statvfs(&data)).await;

        mailboxes::show(&looked.mailboxes, &self.lives, self.terms.mailboxes);
        contacts(&looked);
        let names: BTreeMap<&str, &str> =
            model.instances().map(|instance| (instance.uid.as_str(), instance.name.as_str())).collect();
        let named = |uid: &str| names.get(uid).copied().unwrap_or(uid).to_owned();
        metric::OUTBOX.replace(mails.into_iter().map(|(instance, state, count)| {
            ([named(&instance), word(state.as_str_name(), "OUTBOX_STATE_")], number(count))
        }));
        let queues = &looked.status.queues;
        let place = |it: &QueueStatus| [it.instance.clone(), it.queue.clone()];
        metric::QUEUE_WAITING.replace(queues.iter().map(|it| (place(it), number(it.waiting_count))));
        let oldest = |it: &QueueStatus| Some(seconds(from_timestamp(it.oldest_time.as_ref()?)));
        metric::QUEUE_OLDEST.replace(queues.iter().filter_map(|it| Some((place(it), oldest(it)?))));
        let ends = model.servers().filter_map(|it| Some((it, normalise::day(&it.secret_expires)?)));
        let ends = ends.map(|(it, day)| ([it.name.clone()], seconds(day.saturating_mul(1_000_000))));
        metric::SECRET_EXPIRY.replace(ends);
        fleet(looked.fleet.as_ref());
        whole(&looked);
        if let Ok(Ok(space)) = space {
            metric::DISK_FREE.set(&[], number(space.f_bavail.saturating_mul(space.f_frsize)));
            metric::DISK_SIZE.set(&[], number(space.f_blocks.saturating_mul(space.f_frsize)));
        }
        // Ordering: last, so that whoever sees a young time sees what belongs to it.
        metric::OVERVIEW_TIME.set(&[], seconds(postroom_proto::convert::micros(SystemTime::now())));
        Ok(())
    }
}

/// What is true of the installation as a whole.
fn whole(looked: &Look) {
    metric::LEADER.set(&[], if looked.fleet.is_some() { 1.0 } else { 0.0 });
    metric::MODEL_REVISION.set(&[], number(looked.status.model_revision));
    metric::LEDGER_BYTES.set(&[], number(looked.tally.size_bytes));
    let mut concerns: BTreeMap<String, u64> = BTreeMap::new();
    for concern in &looked.status.concerns {
        *concerns.entry(concern.code.clone()).or_default() += 1;
    }
    metric::CONCERNS.replace(concerns.into_iter().map(|(code, count)| ([code], number(count))));
}

fn contacts(looked: &Look) {
    let instances = &looked.status.instances;
    metric::CONTACTS.replace(instances.iter().flat_map(|it| {
        it.contacts.iter().map(|tally| {
            let state = ContactState::try_from(tally.state).unwrap_or_default();
            ([it.instance.clone(), word(state.as_str_name(), "CONTACT_STATE_")], number(tally.count))
        })
    }));
    let oldest = instances.iter().filter_map(|it| Some((it, it.oldest_time.as_ref()?)));
    let oldest = oldest.map(|(it, time)| ([it.instance.clone()], seconds(from_timestamp(time))));
    metric::OLDEST_CONTACT.replace(oldest);
    metric::MESSAGES_ASIDE.replace(
        looked
            .tally
            .aside
            .iter()
            .map(|(disposition, count)| ([word(disposition.as_str_name(), "DISPOSITION_")], number(*count))),
    );
}

/// Nothing of it is known while nobody leads.
fn fleet(fleet: Option<&FleetSeen>) {
    let workers = fleet.map(|fleet| fleet.workers.as_slice()).unwrap_or_default();
    let role = |role: Role| if role == Role::Spare { "spare" } else { "active" };
    let mut states: BTreeMap<[String; 3], u64> = BTreeMap::new();
    for worker in workers {
        let state = word(worker.state.as_str_name(), "WORKER_STATE_");
        *states.entry([worker.pool.clone(), role(worker.role).into(), state]).or_default() += 1;
    }
    metric::WORKERS.replace(states.into_iter().map(|(labels, count)| (labels, number(count))));
    let spares = workers.iter().filter(|worker| worker.role == Role::Spare && !worker.pool.is_empty());
    let pools: BTreeSet<&str> = spares.clone().map(|worker| worker.pool.as_str()).collect();
    let free = |pool: &str| {
        let free = spares.clone().filter(|it| it.pool == pool && it.state == WorkerState::Live && it.assigned == 0);
        number(free.count() as u64)
    };
    metric::SPARES_FREE.replace(pools.into_iter().map(|pool| ([pool.to_owned()], free(pool))));
    let live = workers.iter().filter(|worker| worker.session.is_some());
    let place = |worker: &crate::lease::desk::look::WorkerSeen| [worker.name.clone(), worker.pool.clone()];
    metric::WORKER_MAILBOXES.replace(live.clone().map(|it| (place(it), number(it.assigned as u64))));
    let now = clock::now();
    metric::WORKER_HEARTBEAT.replace(live.filter_map(|it| {
        let silent = i64::try_from(it.silent_for?.as_micros()).unwrap_or(i64::MAX);
        Some((place(it), seconds(now.saturating_sub(silent))))
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_look_is_followed_by_a_longer_pause_which_ends_in_time() {
        let terms = Terms::default();
        let pause = |millis| terms.pause(Duration::from_millis(millis)).as_millis();
        assert_eq!([pause(0), pause(750), pause(1000), pause(6000)], [15_000, 15_000, 20_000, 120_000]);
        assert_eq!(terms.pause(LONGEST), LONGEST_PAUSE, "forty minutes would be an outage of the metrics");
        let rare = Terms { interval: Duration::from_secs(600), ..terms };
        assert_eq!(rare.pause(LONGEST), rare.interval, "what was asked for is not bounded");
    }
}

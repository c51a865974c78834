//! From the outbox to the workers that send: who gets which mail, when, and what becomes of it.
//!
//! Whose turn it is and how much a sending mailbox may do is decided in one transaction of the ledger; here it is found
//! out which lanes have a road, and waited for mail that comes and for limits that open.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use postroom_proto::catalogue::outbox as catalogue;
use postroom_proto::convert::to_duration;
use postroom_proto::id::SessionId;
use postroom_proto::reason::{Failure, Reason};
use postroom_proto::trace;
use postroom_proto::v1;
use tokio::sync::{OwnedMutexGuard, watch};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::Terms;
use super::allowance::Allowance;
use super::state::{Settlement, problem};
use crate::access::vault::Vault;
use crate::clock;
use crate::definition::model::Model;
use crate::definition::sending::{NoRoad, Road, road};
use crate::failure::chain;
use crate::lease::decision::Decision as WorkerDecision;
use crate::lease::record::{SessionRecord, living};
use crate::ledger::outbox::{Claim, Claimed, Claiming, Lane, Mail, NotSettled, SharedOutbox, Waiting, Way};
use crate::ledger::{Micros, Raw};
use crate::store::{SharedStore, key};
use crate::telemetry::traces;
use crate::watching::KEPT;

/// Most bytes of mails that come along in one answer: with the rest it fits 4 MiB, which is what gRPC clients take.
const LARGEST_ANSWER: u64 = 3 * 1024 * 1024;
/// Larger mails are fetched by themselves.
const INLINE: u64 = 1024 * 1024;
/// A mail that is due is looked at again after this time at the latest, whatever was missed.
const LOOK: Duration = Duration::from_secs(10);
/// How often what counts no more is forgotten.
const FORGET: Duration = Duration::from_secs(600);

/// Hands mail to workers. Cheap to share.
#[derive(Clone)]
pub struct Sending {
    inner: Arc<Inner>,
}

struct Inner {
    outbox: SharedOutbox,
    store: SharedStore,
    model: watch::Receiver<Arc<Model>>,
    vault: Arc<Vault>,
    terms: Terms,
    /// Changes when mail came, or a limit may have opened.
    news: watch::Sender<u64>,
    /// One for each pool: whoever has it looks and claims, the others wait for it. So news cost one look, however many
    /// workers wait, and workers take turns.
    batons: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
    /// Lanes whose secrets cannot be opened, of which that was logged, and the revision of the model in which.
    logged: Mutex<(u64, HashSet<Lane>)>,
    stopping: CancellationToken,
}

/// What a look has found.
struct Look {
    /// Ways of which something may be claimed now, by sending mailbox: those first that had to wait longest.
    ready: Vec<Vec<Way>>,
    /// What those ways are of.
    model: Arc<Model>,
    /// When something else becomes ready by itself.
    next: Option<Micros>,
}

impl Sending {
    /// `model` and `vault` say how mail is sent, `store` which sessions live; `stopping` ends every wait.
    pub fn new(
        outbox: SharedOutbox,
        store: SharedStore,
        model: watch::Receiver<Arc<Model>>,
        vault: Arc<Vault>,
        terms: Terms,
        stopping: CancellationToken,
    ) -> Self {
        let (news, _) = watch::channel(0);
        let (batons, logged) = (Mutex::default(), Mutex::default());
        let inner = Inner { outbox, store, model, vault, terms, news, batons, logged, stopping };
        Self { inner: Arc::new(inner) }
    }

    /// Tells those who wait to look again.
    pub fn raise(&self) {
        self.inner.news.send_modify(|count| *count += 1);
    }

    /// Mails for a worker, or none when none came within `wait`.
    pub async fn claim(
        &self,
        session: &SessionId,
        max: usize,
        wait: Duration,
    ) -> Result<Vec<v1::ClaimedMail>, Failure> {
        let until = Instant::now() + wait;
        let worker = self.inner.session(session).await?;
        let mut baton = None;
        // Ordering: subscribe before looking, so that what comes in between is either found or announced.
        let (mut news, mut model) = (self.inner.news.subscribe(), self.inner.model.clone());
        loop {
            news.mark_unchanged();
            model.mark_unchanged();
            let mut next = None;
            if self.inner.is_drained(&worker.profile.worker).await? {
                // It keeps asking, and may be undrained meanwhile; the others are not to wait for that.
                baton = None;
            } else if baton.is_none() {
                baton = self.inner.baton(&worker.profile.pool, until).await?;
                if baton.is_none() {
                    return Ok(Vec::new());
                }
                // Time has passed, and much may have changed.
                continue;
            } else {
                let look = self.inner.look(&worker.profile.pool).await?;
                let claiming =
                    Claiming { session: session.clone(), worker: worker.profile.worker.clone(), ways: Vec::new(), max };
                let mails = self.inner.claim(&look, claiming).await?;
                if !mails.is_empty() {
                    return Ok(mails);
                }
                next = look.next;
            }
            if Instant::now() >= until {
                return Ok(Vec::new());
            }
            let next = Instant::now() + next.map_or(LOOK, |at| until_then(at).min(LOOK));
            tokio::select! {
                () = self.inner.stopping.cancelled() => return Err(stopping()),
                () = tokio::time::sleep_until(next.min(until)) => {}
                // Neither ends before the control plane does.
                _ = news.changed() => {}
                _ = model.changed() => {}
            }
        }
    }

    /// The bytes of a claimed mail.
    pub async fn raw(&self, claim: &Claim) -> Result<Raw, Failure> {
        self.inner.outbox.claimed_raw(claim, clock::now()).await?.map_err(|_| claim_lost(&claim.mail))
    }

    /// Records that the data is handed over now; how much time there is.
    pub async fn mark(&self, claim: Claim) -> Result<Duration, Failure> {
        let mail = claim.mail.clone();
        let until = self.inner.outbox.mark(claim, &self.inner.terms, clock::now()).await?;
        until.map(until_then).map_err(|_| claim_lost(&mail))
    }

    /// Takes what became of an attempt; where the mail stands now.
    pub async fn settle(&self, claim: Claim, said: Settlement) -> Result<v1::OutboxState, Failure> {
        let mail = claim.mail.clone();
        let settled = self.inner.outbox.settle(claim, said, &self.inner.terms, clock::now()).await?;
        self.raise();
        settled.map_err(|why| match why {
            NotSettled::ClaimLost => claim_lost(&mail),
            NotSettled::Verdict(wrong) => Failure::invalid_field("verdict", format!("does not fit: {wrong}")),
        })
    }

    /// Ends claims whose time is over, and cuts off old changes, every `interval`, and now and then forgets what counts no
    /// more, until told to stop.
    pub async fn keep_deadlines(self, interval: Duration) {
        let tick = |interval| {
            let mut tick = tokio::time::interval(interval);
            tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            tick
        };
        let (mut clock_tick, mut now_and_then) = (tick(interval), tick(FORGET));
        loop {
            tokio::select! {
                () = self.inner.stopping.cancelled() => return,
                _ = clock_tick.tick() => {}
                _ = now_and_then.tick() => {
                    if let Err(error) = self.inner.outbox.forget_loads(&self.inner.terms, clock::now()).await {
                        tracing::error!(error = chain(&error), "what sending mailboxes did long ago is still kept");
                    }
                    continue;
                }
            }
            match self.inner.outbox.lapse_claims(&self.inner.terms, clock::now()).await {
                Ok(0) => {}
                Ok(lapsed) => {
                    tracing::warn!(count = lapsed, "claims of mails have lapsed: their workers were not heard in time");
                    self.raise();
                }
                Err(error) => tracing::error!(error = chain(&error), "claims could not be ended"),
            }
            if let Err(error) = self.inner.outbox.trim_mail_changes(KEPT).await {
                tracing::error!(error = chain(&error), "old changes of mails could not be cut off");
            }
        }
    }

    /// Tries the sending mailbox again by which a mail goes, if it was left alone: whoever says so has mended what was
    /// wrong, or finds out that he has not.
    pub async fn try_mailbox_again(&self, mail: &Mail) -> Result<(), Failure> {
        let model = self.inner.model.borrow().clone();
        if let Ok(road) = road_of(&model, &mail.lane) {
            self.inner.outbox.try_again(&road.mailbox()).await?;
        }
        Ok(())
    }

    /// Adds to mails that wait what keeps them waiting, where no attempt has said so: that nothing sends them at the
    /// moment, or that their sending mailbox is left alone. And says when they are tried.
    pub async fn explain(&self, mails: &mut [Mail]) -> Result<(), Failure> {
        let waits = |mail: &Mail| matches!(mail.mail.state(), v1::OutboxState::Queued | v1::OutboxState::Unknown);
        if !mails.iter().any(waits) {
            return Ok(());
        }
        let alone = self.inner.outbox.left_alone(clock::now()).await?;
        let model = self.inner.model.borrow().clone();
        let mut known: HashMap<Lane, Told> = HashMap::new();
        for mail in mails.iter_mut().filter(|mail| waits(mail)) {
            let told = known.entry(mail.lane.clone()).or_insert_with(|| self.inner.told(&model, &mail.lane));
            let queued = mail.mail.state() == v1::OutboxState::Queued;
            match told {
                Told::Nothing(problem) if queued => {
                    mail.mail.problem = Some(problem.clone());
                    mail.mail.next_attempt_time = None;
                }
                Told::By { mailbox, .. } if queued => {
                    if let Some(problem) = alone.get(mailbox) {
                        mail.mail.next_attempt_time = problem.next_attempt_time;
                        mail.mail.problem = Some(problem.clone());
                    }
                }
                Told::By { look_in, .. } if !mail.look_in.is_empty() && mail.look_in == *look_in => {}
                // Nobody looks for it.
                Told::By { .. } | Told::Nothing(_) => mail.mail.next_attempt_time = None,
            }
        }
        Ok(())
    }
}

/// What can be said of a lane.
enum Told {
    Nothing(v1::Problem),
    By { mailbox: (String, Vec<u8>), look_in: String },
}

impl Inner {
    async fn session(&self, session: &SessionId) -> Result<SessionRecord, Failure> {
        living(&self.store, session).await?.ok_or_else(|| {
            Failure::new(Reason::SessionEnded, "the session is over; drop everything and register again")
        })
    }

    async fn is_drained(&self, worker: &str) -> Result<bool, Failure> {
        let entry = self.store.get(&key::worker(worker)).await?;
        Ok(entry.and_then(|entry| WorkerDecision::decode(&entry.value)).is_some_and(|decision| decision.drained))
    }

    /// The baton of a pool. `None`: somebody else had it all the time.
    async fn baton(&self, pool: &str, until: Instant) -> Result<Option<OwnedMutexGuard<()>>, Failure> {
        let baton = {
            let mut batons = self.batons.lock().unwrap_or_else(PoisonError::into_inner);
            batons.entry(pool.to_owned()).or_default().clone()
        };
        tokio::select! {
            () = self.stopping.cancelled() => Err(stopping()),
            taken = timeout_at(until, baton.lock_owned()) => Ok(taken.ok()),
        }
    }

    /// What workers of a pool may claim now, and when there is more.
    async fn look(&self, pool: &str) -> Result<Look, Failure> {
        let now = clock::now();
        let waiting = self.outbox.waiting_mail().await?;
        let model = self.model.borrow().clone();
        let mut next = None;
        let mut by_sender: BTreeMap<String, Vec<Way>> = BTreeMap::new();
        let mut known = HashSet::new();
        for (lane, due, place) in lanes(&waiting) {
            let Ok(road) = road_of(&model, lane) else { continue };
            if road.instance.pool() != pool {
                continue;
            }
            let look_in = road.look_in(&model);
            if place.is_some_and(|place| place != look_in) {
                continue;
            }
            if due > now {
                next = earliest(next, due);
            } else if known.insert(lane) {
                let (sender, credentials) = (road.mailbox(), road.credentials());
                let outgoing_server = road.server.name.clone();
                let way = Way { lane: lane.clone(), sender: sender.clone(), credentials, outgoing_server, look_in };
                by_sender.entry(sender).or_default().push(way);
            }
        }
        let senders: Vec<String> = by_sender.keys().cloned().collect();
        let mut loads = self.outbox.loads(&senders, &self.terms, now).await?;
        let mut ready = Vec::new();
        for (sender, mut ways) in by_sender {
            let load = loads.remove(&sender).unwrap_or_default();
            ways.retain(|way| match load.left_alone_until(&way.credentials, now) {
                Some(until) => {
                    next = earliest(next, until);
                    false
                }
                None => true,
            });
            match load.allowance(&self.terms, now) {
                // A settlement raises.
                Allowance::AfterAnother => {}
                Allowance::At(at) => next = earliest(next, at),
                Allowance::Now { .. } if ways.is_empty() => {}
                Allowance::Now { .. } => ready.push((load.turn, ways)),
            }
        }
        ready.sort_by_key(|(turn, _)| *turn);
        Ok(Look { ready: ready.into_iter().map(|(_, ways)| ways).collect(), model, next })
    }

    /// Claims some of what a look has found. Few sending mailboxes at a time, since all writing waits meanwhile; and secrets
    /// are opened only for those.
    async fn claim(&self, look: &Look, wish: Claiming) -> Result<Vec<v1::ClaimedMail>, Failure> {
        for some in look.ready.chunks(wish.max.saturating_mul(2).max(1)) {
            let (mut ways, mut definitions) = (Vec::new(), HashMap::new());
            for way in some.iter().flatten() {
                if let Some(definition) = self.resolve(&look.model, &way.lane) {
                    definitions.insert(way.lane.clone(), definition);
                    ways.push(way.clone());
                }
            }
            if ways.is_empty() {
                continue;
            }
            // Invariant: what is claimed goes to a session that lives; time has passed since it was asked for.
            self.session(&wish.session).await?;
            let claimed = self.outbox.claim(Claiming { ways, ..wish.clone() }, &self.terms, clock::now()).await?;
            if !claimed.is_empty() {
                return Ok(self.hand_out(claimed, &definitions).await);
            }
        }
        Ok(Vec::new())
    }

    /// How mail of a lane is sent, secrets opened. `None`: they cannot be, which is logged once for each model.
    fn resolve(&self, model: &Model, lane: &Lane) -> Option<v1::OutgoingDefinition> {
        match road_of(model, lane).ok()?.resolve(model, &self.vault) {
            Ok(definition) => Some(definition),
            Err(failure) => {
                let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
                if logged.0 != model.revision() {
                    *logged = (model.revision(), HashSet::new());
                }
                if logged.1.insert(lane.clone()) {
                    tracing::warn!(email = lane.from, error = failure.message, "mail cannot be sent");
                }
                None
            }
        }
    }

    fn told(&self, model: &Model, lane: &Lane) -> Told {
        let road = match road_of(model, lane) {
            Ok(road) => road,
            Err(NoRoad::SenderGone) => return Told::Nothing(problem(&catalogue::SENDER_GONE, Some(&lane.from))),
            Err(NoRoad::NoServer) => return Told::Nothing(problem(&catalogue::NO_OUTGOING_SERVER, Some(&lane.from))),
        };
        match road.resolve(model, &self.vault) {
            Ok(_) => Told::By { mailbox: (road.mailbox(), road.credentials()), look_in: road.look_in(model) },
            Err(failure) => {
                let entry = &postroom_proto::catalogue::own::SECRET_UNREADABLE;
                Told::Nothing(v1::Problem { cause: failure.message, ..problem(entry, None) })
            }
        }
    }

    /// Puts together what workers are told of what they have claimed.
    async fn hand_out(
        &self,
        claimed: Vec<Claimed>,
        definitions: &HashMap<Lane, v1::OutgoingDefinition>,
    ) -> Vec<v1::ClaimedMail> {
        let mut left = LARGEST_ANSWER;
        let mut mails = Vec::with_capacity(claimed.len());
        for claimed in claimed {
            let mut raw = Bytes::new();
            let inline = claimed.task == v1::SendTask::Submit && claimed.size_bytes <= INLINE.min(left);
            if inline {
                // What is claimed is handed out in any case: without its bytes here, the worker fetches them.
                match self.outbox.mail_raw(&claimed.mail).await {
                    Ok(Some((_, Raw::Inline(bytes)))) => {
                        left = left.saturating_sub(bytes.len() as u64);
                        raw = bytes;
                    }
                    Ok(_) => {}
                    Err(error) => {
                        tracing::warn!(mail = claimed.mail, error = chain(&error), "its bytes do not come along")
                    }
                }
            }
            mails.push(v1::ClaimedMail {
                traceparent: trace::header_of(traces::of_mail(&claimed.mail, &claimed.contact)),
                mail: claimed.mail,
                token: claimed.token,
                time_left: Some(to_duration(until_then(claimed.deadline_at))),
                task: claimed.task.into(),
                definition: definitions.get(&claimed.lane).cloned(),
                sender: claimed.sender,
                recipients: claimed.recipients,
                message_id: claimed.message_id,
                size_bytes: claimed.size_bytes,
                raw,
                attempt: claimed.attempt,
            });
        }
        mails
    }
}

/// Every lane with when its first mail is due, and where that is to be looked for, if it is.
fn lanes(waiting: &Waiting) -> impl Iterator<Item = (&Lane, Micros, Option<&str>)> {
    let queued = waiting.queued.iter().map(|(lane, due)| (lane, *due, None));
    queued.chain(waiting.unknown.iter().map(|(lane, place, due)| (lane, *due, Some(place.as_str()))))
}

fn road_of<'m>(model: &'m Model, lane: &Lane) -> Result<Road<'m>, NoRoad> {
    road(model, &lane.instance_uid, &lane.queue_uid, &lane.from)
}

fn earliest(known: Option<Micros>, other: Micros) -> Option<Micros> {
    Some(known.map_or(other, |known| known.min(other)))
}

/// How long it is until then by the ledger's clock.
fn until_then(at: Micros) -> Duration {
    Duration::from_micros(u64::try_from(at.saturating_sub(clock::now())).unwrap_or(0))
}

fn claim_lost(mail: &str) -> Failure {
    let text = format!("the claim on mail {mail} lapsed, or is another worker's; drop the mail");
    Failure::new(Reason::ClaimLost, text)
}

fn stopping() -> Failure {
    Failure::new(Reason::ShuttingDown, "the control plane is stopping; claim again")
}

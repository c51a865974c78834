//! What runs in a worker, and in which order it stops.
//!
//! | task | what it does | on stop |
//! |---|---|---|
//! | leases | heartbeats, and hands what may be read to the supervisor | first: drains every mailbox, waits for sending, says goodbye |
//! | sending | claims mails of the outbox and sends them, a task each | with the leases: claims no more, ends what is under way or gives it up, before the goodbye ends the session |
//! | mailboxes | one each, owned by the supervisor | drained by the task above, closed when that takes too long |
//! | nudges | hears when a heartbeat is due early | with the leases: dropped at once |
//! | errands | finds out what the control plane asks, a task each | with the leases: dropped at once |
//! | identity | renews this worker's certificate | with the leases: dropped at once |
//! | beats | shows that the runtime is not stuck | with the leases: dropped at once |
//! | lives | tells that mailboxes are read | with the leases: dropped at once |
//! | statuses | tells how reading goes | last, so that the last words are heard |
//!
//! The listener for metrics and health has a thread of its own, and is there until the very end.
//!
//! Every task but a mailbox's is essential: when one ends before it was told to, the worker stops.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::future::{BoxFuture, OptionFuture};
use postroom_proto::lease::{LeaseTerms, Moment};
use postroom_proto::observe::{Health, ListenError, Listener};
use postroom_proto::{metric, v1};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Config;
use crate::control::{self, Control, Invalid};
use crate::errand::{self, Errands};
use crate::holder::{self, Action, Holder, Offer, Ticket};
use crate::mailbox::lease::Trust;
use crate::mailbox::session::Shared;
use crate::mailbox::status::Board;
use crate::nudge;
use crate::pace::crowd::Crowd;
use crate::report::{Client, Deadlines, Reporter};
use crate::send::desk::Desk;
use crate::send::{self, Sending};
use crate::supervisor::{Event, Supervisor};

/// Longest time to drain everything and say goodbye.
pub const GRACE: Duration = Duration::from_secs(12);
/// Pause before a registration is tried again. It doubles each time.
const REGISTER_AGAIN: Duration = Duration::from_millis(300);
/// Longest such pause: a control plane that is back must not wait for its workers.
const REGISTER_AT_LEAST: Duration = Duration::from_secs(3);

/// Why a worker did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The control plane cannot be called at all.
    #[error(transparent)]
    Control(#[from] Invalid),
    /// Metrics and health cannot be served.
    #[error("{error}: {}", .error.source)]
    Observe {
        /// Why.
        #[from]
        error: ListenError,
    },
}

/// A running worker.
#[derive(Debug)]
pub struct App {
    stopping: CancellationToken,
    quiet: CancellationToken,
    failed: CancellationToken,
    refused: Arc<OnceLock<String>>,
    leases: TaskTracker,
    statuses: TaskTracker,
    health: Health,
    listener: Option<Listener>,
}

impl App {
    /// Starts to register, and to read what is leased to this worker.
    pub fn start(config: Config) -> Result<Self, StartError> {
        let health = Health::starting();
        let listener = Listener::start(config.observe, health.clone())?;
        metric::BUILD.set(&["worker", env!("CARGO_PKG_VERSION")], 1.0);
        metric::START_TIME.set(&["worker"], seconds(SystemTime::now()));
        let control = Control::new(&config)?;
        let (channel, bearer) = control.channel();
        let desk = Arc::new(errand::Client::new(channel.clone(), bearer.clone()));
        let outbox = Arc::new(send::outbox::Client::new(channel.clone(), bearer.clone()));
        let reporter = Arc::new(Client::new(channel, bearer, Deadlines::default()));
        let board = Arc::new(Board::new());
        let app = Self {
            stopping: CancellationToken::new(),
            quiet: CancellationToken::new(),
            failed: CancellationToken::new(),
            refused: Arc::default(),
            leases: TaskTracker::new(),
            statuses: TaskTracker::new(),
            health: health.clone(),
            listener,
        };
        let (beating, told) = (health.clone(), app.stopping.clone());
        let beats = async move {
            tokio::select! {
                () = beating.beat() => {}
                () = told.cancelled() => {}
            }
        };
        app.leases.spawn(essential("beats", beats, app.stopping.clone(), app.failed.clone()));
        let (told, board_, reporter_) = (app.quiet.clone(), board.clone(), reporter.clone());
        let forward = async move { board_.forward(&*reporter_, told).await };
        app.statuses.spawn(essential("statuses", forward, app.quiet.clone(), app.failed.clone()));

        let trust = Trust::new();
        let crowd = Crowd::new(config.reading.start.burst as usize);
        let shared = Shared::new(config.reading.clone(), reporter.clone() as Arc<dyn Reporter>, board);
        let (registered, sessions) = watch::channel(String::new());
        let (pulse, budget) = (shared.pulse.clone(), shared.budget.clone());
        let (told, reporter_) = (app.stopping.clone(), reporter.clone());
        let lives = async move { pulse.forward(&*reporter_, &budget, told).await };
        app.leases.spawn(essential("lives", lives, app.stopping.clone(), app.failed.clone()));
        let nudged = Arc::new(Notify::new());
        let nudges = nudge::listen(control.clone(), sessions.clone(), nudged.clone(), app.stopping.clone());
        app.leases.spawn(essential("nudges", nudges, app.stopping.clone(), app.failed.clone()));
        let identity = control.clone().keep_identity(app.stopping.clone());
        app.leases.spawn(essential("identity", identity, app.stopping.clone(), app.failed.clone()));
        let sending = Sending::new(shared.clone(), config.sending.keep);
        let desk_of_mails = Desk::new(outbox, sending.clone(), sessions.clone()).run(app.stopping.clone());
        let sent = CancellationToken::new();
        // Also when it panics: nobody waits for one that is gone.
        let ended = sent.clone().drop_guard();
        let sends = async move {
            let _ended = ended;
            desk_of_mails.await;
        };
        app.leases.spawn(essential("sending", sends, app.stopping.clone(), app.failed.clone()));
        let errands = Errands::new(desk, sending, sessions).run(app.stopping.clone());
        app.leases.spawn(essential("errands", errands, app.stopping.clone(), app.failed.clone()));
        let (supervisor, events) = Supervisor::new(shared, trust.clone());
        let leases = Leases {
            registration: v1::RegisterRequest {
                worker_name: config.name,
                build: postroom_proto::version::full(),
                pool: config.pool,
                role: config.role.into(),
                capacity: config.capacity,
            },
            returning: config.returning,
            refused: app.refused.clone(),
            control,
            reporter: Box::new(move |session| {
                reporter.set_session(session);
                // Nobody may wait for errands any more: the worker stops.
                let _ = registered.send(session.to_owned());
            }),
            holder: Holder::new(LeaseTerms::default()),
            terms: LeaseTerms::default(),
            supervisor,
            trust,
            start: Instant::now(),
            jitter: 0.0,
            registered: false,
            crowd,
            nudged,
            sent,
            health,
            told: None,
        };
        let run = leases.run(events, app.stopping.clone());
        app.leases.spawn(essential("leases", run, app.stopping.clone(), app.failed.clone()));
        Ok(app)
    }

    /// Returns when a task ended that should not have; the worker must then be stopped.
    pub async fn failed(&self) {
        self.failed.cancelled().await;
    }

    /// Where metrics and health are served, if they are.
    pub fn observed_at(&self) -> Option<SocketAddr> {
        self.listener.as_ref().map(Listener::address)
    }

    /// Why the control plane does not take this worker, where that is why it [failed](App::failed).
    pub fn refused(&self) -> Option<&str> {
        self.refused.get().map(String::as_str)
    }

    /// Stops, in the order of the table above.
    pub async fn stop(self) {
        self.stopping.cancel();
        self.health.set(vec!["it is stopping".into()]);
        self.leases.close();
        if timeout(GRACE * 2, self.leases.wait()).await.is_err() {
            tracing::warn!("mailboxes were still being let go; what was not confirmed will be read again");
        }
        self.quiet.cancel();
        self.statuses.close();
        if timeout(GRACE, self.statuses.wait()).await.is_err() {
            tracing::warn!("the last statuses could not be told");
        }
    }
}

/// Seconds since 1970, as metrics say it.
fn seconds(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// Runs a task to its end; an end that nobody asked for, by return or by panic, fails the worker.
async fn essential(
    name: &'static str,
    task: impl Future<Output = ()> + Send + 'static,
    told: CancellationToken,
    failed: CancellationToken,
) {
    /// Speaks up when it is dropped, which a panic cannot prevent.
    struct Watchman(&'static str, CancellationToken, CancellationToken);
    impl Drop for Watchman {
        fn drop(&mut self) {
            if !self.1.is_cancelled() {
                tracing::error!(task = self.0, "an essential task has ended; the worker must stop");
                self.2.cancel();
            }
        }
    }
    let _watchman = Watchman(name, told, failed);
    task.await;
}

type Answer = Result<holder::Answer, control::Error>;

/// The shell around the holder: heartbeats out, answers in, actions to the supervisor.
struct Leases {
    /// What this worker says of itself.
    registration: v1::RegisterRequest,
    /// After a stop its mailboxes wait for a process of the same name.
    returning: bool,
    /// Why the control plane does not take this worker.
    refused: Arc<OnceLock<String>>,
    control: Control,
    /// Tells the reporter, and who takes errands, under which session to call.
    reporter: Box<dyn Fn(&str) + Send + Sync>,
    holder: Holder,
    terms: LeaseTerms,
    supervisor: Supervisor,
    trust: Trust,
    start: Instant,
    jitter: f64,
    /// The control plane has taken this worker once.
    registered: bool,
    crowd: Crowd,
    /// A heartbeat is worth sending before its time.
    nudged: Arc<Notify>,
    /// No mail is under way any more, and none will be. The session lives until then: what became of mails is told under it.
    sent: CancellationToken,
    health: Health,
    /// Whether it was told that there is a session, and that it is trusted.
    told: Option<(bool, bool)>,
}

impl Leases {
    async fn run(mut self, mut events: mpsc::Receiver<Event>, stopping: CancellationToken) {
        // Invariant: one heartbeat in flight; the answer to an abandoned one is dropped with its future.
        let mut in_flight: Option<BoxFuture<'static, (Ticket, Answer)>> = None;
        let mut until = None;
        loop {
            if !stopping.is_cancelled() {
                self.tell_health();
            }
            if self.holder.session().is_none() {
                tokio::select! {
                    () = stopping.cancelled() => break,
                    taken = self.register() => if !taken { return },
                }
                in_flight = None;
            }
            if stopping.is_cancelled() && until.is_none() {
                until = Some(Instant::now() + GRACE);
                let actions = self.holder.stop();
                self.act(actions);
            }
            let sent = self.sent.is_cancelled();
            if until.is_some_and(|until| self.holder.is_empty() && sent || Instant::now() >= until) {
                break;
            }
            let beat = self.holder.heartbeat_due(self.jitter).map(|due| self.start + due);
            let lapse = self.holder.trust_ends().map(|end| self.start + end);
            tokio::select! {
                () = stopping.cancelled(), if until.is_none() => {}
                () = sleep_until(until.unwrap_or_else(Instant::now)), if until.is_some() => {}
                () = self.sent.cancelled(), if until.is_some() && !sent => {}
                Some((ticket, answer)) = OptionFuture::from(in_flight.as_mut()) => {
                    in_flight = None;
                    self.answered(ticket, answer);
                }
                () = sleep_until(beat.unwrap_or_else(Instant::now)), if beat.is_some() => {
                    in_flight = self.beat();
                }
                () = sleep_until(lapse.unwrap_or_else(Instant::now)), if lapse.is_some() => {
                    let actions = self.holder.tick(self.now());
                    self.act(actions);
                }
                () = self.nudged.notified() => self.holder.nudged(),
                Some(event) = events.recv() => self.happened(event),
            }
        }
        self.goodbye().await;
    }

    /// Tells whether the worker can do its work, when that has changed.
    fn tell_health(&mut self) {
        let stands = (self.holder.session().is_some(), self.holder.is_trusted(self.now()));
        if self.told == Some(stands) {
            return;
        }
        self.told = Some(stands);
        metric::TRUSTED.set(&[], if stands.1 { 1.0 } else { 0.0 });
        self.health.set(match stands {
            (false, _) => vec!["it is not registered: see its log for what the control plane said".into()],
            (true, false) => {
                vec!["the control plane is silent: nothing is reported or changed until it answers".into()]
            }
            (true, true) => Vec::new(),
        });
    }

    fn now(&self) -> Moment {
        self.start.elapsed()
    }

    /// Registers, however long it takes. False: the control plane refuses this worker, which it never took before; more
    /// tries would not help. One that it took before may be refused for a moment only, as while it is restored.
    async fn register(&mut self) -> bool {
        let mut pause = REGISTER_AGAIN;
        loop {
            match self.control.register(self.registration.clone()).await {
                Ok((session, terms)) => {
                    tracing::info!(worker = self.registration.worker_name, %session, "registered");
                    (self.reporter)(session.as_str());
                    self.terms = terms;
                    self.registered = true;
                    self.holder.registered(session, terms);
                    return true;
                }
                Err(control::Error::Refused(why)) if !self.registered => {
                    // A second word on it would say the same.
                    let _ = self.refused.set(why);
                    return false;
                }
                Err(error) => {
                    tracing::warn!(%error, again_in = ?pause, "this worker is not registered yet; trying again");
                }
            }
            tokio::time::sleep(pause.mul_f64(rand::random_range(0.8..=1.2))).await;
            pause = (pause * 2).min(REGISTER_AT_LEAST);
        }
    }

    fn beat(&mut self) -> Option<BoxFuture<'static, (Ticket, Answer)>> {
        self.jitter = rand::random_range(-1.0..=1.0);
        let mut heartbeat = self.holder.heartbeat(self.now())?;
        for held in &mut heartbeat.held {
            held.definition_revision = self.supervisor.running(&held.mailbox, held.epoch);
        }
        #[allow(clippy::cast_precision_loss)]
        metric::HELD.set(&[], heartbeat.held.len() as f64);
        let (control, patience) = (self.control.clone(), self.terms.heartbeat_timeout);
        Some(Box::pin(async move {
            let begun = Instant::now();
            let answer = control.heartbeat(&heartbeat, patience).await;
            metric::HEARTBEATS.count(&[match &answer {
                Ok(_) => "answered",
                Err(control::Error::SessionEnded) => "session-ended",
                Err(control::Error::Unanswered(_)) => "unanswered",
                Err(control::Error::Refused(_)) => "refused",
            }]);
            if answer.is_ok() {
                metric::HEARTBEAT_TIME.observe(&[], begun.elapsed());
            }
            (heartbeat.ticket, answer)
        }))
    }

    fn answered(&mut self, ticket: Ticket, answer: Answer) {
        let actions = match answer {
            Ok(answer) => {
                self.terms = answer.terms;
                self.holder.answered(self.now(), ticket, answer)
            }
            Err(control::Error::SessionEnded) => match self.holder.session().cloned() {
                Some(session) => self.holder.session_ended(&session),
                None => Vec::new(),
            },
            Err(control::Error::Unanswered(why) | control::Error::Refused(why)) => {
                tracing::debug!(why, "a heartbeat was not answered");
                self.holder.abandoned(ticket);
                Vec::new()
            }
        };
        // Ordering: trust first, so that what is opened below may write at once.
        self.extend_trust();
        self.act(actions);
    }

    fn extend_trust(&self) {
        if let Some(end) = self.holder.trust_ends() {
            self.trust.extend(self.start + end);
        }
    }

    fn act(&mut self, actions: Vec<Action>) {
        let opens = actions.iter().filter(|action| matches!(action, Action::Open(_))).count();
        let spread = self.crowd.is_one(opens);
        for action in actions {
            match action {
                // The loop registers whenever there is no session.
                Action::Register => {}
                Action::Open(offer) => {
                    let Offer { mailbox, epoch, definition_revision } = offer;
                    tracing::info!(%mailbox, %epoch, "a mailbox is leased to this worker");
                    self.supervisor.open(&mailbox, epoch, definition_revision, spread);
                }
                Action::Reopen(offer) => self.supervisor.reopen(&offer.mailbox, offer.definition_revision),
                Action::Drain(mailbox, _) => self.supervisor.drain(&mailbox),
                Action::Close(mailbox, epoch) => {
                    tracing::info!(%mailbox, %epoch, "a mailbox was let go");
                    self.supervisor.close(&mailbox);
                }
                Action::Suspend => {
                    tracing::warn!("the control plane is silent: nothing is reported or changed until it answers");
                    self.trust.end();
                }
                Action::Resume => {
                    tracing::info!("the control plane answers again");
                    // Ordering: again, for an answer that comes after trust has lapsed suspends before it resumes.
                    self.extend_trust();
                }
            }
        }
    }

    fn happened(&mut self, event: Event) {
        let actions = match event {
            Event::Gone { mailbox, epoch } => {
                tracing::info!(%mailbox, %epoch, "a mailbox was let go");
                self.supervisor.forget(&mailbox, epoch);
                self.holder.let_go(&mailbox, epoch);
                Vec::new()
            }
            Event::LeaseLost { mailbox, epoch } => {
                tracing::warn!(%mailbox, %epoch, "the lease on a mailbox was lost");
                self.supervisor.forget(&mailbox, epoch);
                self.holder.lost(&mailbox, epoch)
            }
            Event::SessionEnded { mailbox, epoch } => {
                self.supervisor.forget(&mailbox, epoch);
                // News of a lease that is not held any more is news of a session before this one.
                match self.holder.session().cloned().filter(|_| self.holder.holds(&mailbox, epoch)) {
                    Some(session) => self.holder.session_ended(&session),
                    None => Vec::new(),
                }
            }
        };
        self.act(actions);
    }

    /// Lets go of what is left, and says so.
    async fn goodbye(self) {
        let session = self.holder.session().cloned();
        if timeout(GRACE, self.supervisor.stop()).await.is_err() {
            tracing::warn!("mailboxes were still being closed");
        }
        if let Some(session) = session
            && let Err(error) = self.control.leave(&session, self.returning).await
        {
            tracing::warn!(%error, "the control plane could not be told goodbye; it will notice the silence");
        }
    }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use bytes::Bytes;
    use postroom_proto::id::{Epoch, MailboxUid, SessionId};

    use super::*;
    use crate::config::Reading;
    use crate::mailbox::lease::{Lease, Switch};
    use crate::report::Error;

    /// Answers nothing.
    struct Silent;

    #[async_trait]
    impl Reporter for Silent {
        async fn open(&self, _: v1::MailboxLease) -> Result<v1::OpenedMailbox, Error> {
            std::future::pending().await
        }

        async fn report(&self, _: &v1::ReportRequest) -> Result<v1::ReportResponse, Error> {
            std::future::pending().await
        }

        async fn upload(&self, _: v1::BlobHeader, _: Bytes) -> Result<(), Error> {
            std::future::pending().await
        }

        async fn find_known(&self, _: &v1::FindKnownRequest) -> Result<v1::FindKnownResponse, Error> {
            std::future::pending().await
        }

        async fn status(&self, _: Vec<v1::MailboxStatus>) -> Result<(), Error> {
            Ok(())
        }
    }

    /// A registered worker that holds one mailbox under epoch 7 since a heartbeat sent `before` now.
    fn holding(before: Duration) -> (Leases, MailboxUid, Lease, Switch) {
        let trust = Trust::new();
        let (switch, lease) = Switch::new(&trust);
        let shared = Shared::new(Reading::default(), Arc::new(Silent), Arc::new(Board::new()));
        let (supervisor, _) = Supervisor::new(shared, trust.clone());
        let mut leases = Leases {
            registration: v1::RegisterRequest::default(),
            returning: true,
            refused: Arc::default(),
            control: Control::new(&Config::new("http://127.0.0.1:1", "t".into(), "w")).expect("a URL"),
            reporter: Box::new(|_| {}),
            holder: Holder::new(LeaseTerms::default()),
            terms: LeaseTerms::default(),
            supervisor,
            trust,
            start: Instant::now().checked_sub(before).expect("the machine runs longer"),
            jitter: 0.0,
            registered: false,
            crowd: Crowd::new(50),
            nudged: Arc::default(),
            sent: CancellationToken::new(),
            health: Health::starting(),
            told: None,
        };
        leases.holder.registered(SessionId::parse("s").expect("a session"), LeaseTerms::default());
        let mailbox = MailboxUid::derive("a", "INBOX", "x.example");
        let ticket = leases.holder.heartbeat(Moment::ZERO).expect("registered").ticket;
        let actions = leases.holder.answered(Moment::ZERO, ticket, offering(&mailbox));
        leases.act(actions);
        (leases, mailbox, lease, switch)
    }

    fn offering(mailbox: &MailboxUid) -> holder::Answer {
        let offer = Offer { mailbox: mailbox.clone(), epoch: Epoch(7), definition_revision: 1 };
        holder::Answer { term: 1, terms: LeaseTerms::default(), offers: vec![offer] }
    }

    #[tokio::test]
    async fn the_answer_that_ends_a_silence_allows_to_write_at_once() {
        let terms = LeaseTerms::default();
        let (mut leases, mailbox, mut lease, _switch) = holding(terms.trust() + Duration::from_secs(1));
        let ticket = leases.holder.heartbeat(leases.now()).expect("registered").ticket;
        leases.answered(ticket, Ok(offering(&mailbox)));
        assert_eq!(futures::FutureExt::now_or_never(lease.may_write()), Some(Ok(())));
    }

    #[tokio::test]
    async fn only_a_lease_that_is_held_can_tell_that_the_session_is_over() {
        let (mut leases, mailbox, _lease, _switch) = holding(Duration::ZERO);
        leases.happened(Event::SessionEnded { mailbox: mailbox.clone(), epoch: Epoch(6) });
        assert!(leases.holder.session().is_some(), "a straggler of the session before");
        leases.happened(Event::SessionEnded { mailbox, epoch: Epoch(7) });
        assert!(leases.holder.session().is_none());
    }
}

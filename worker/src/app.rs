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

use postroom_proto::lease::LeaseTerms;
use postroom_proto::observe::{Health, ListenError, Listener};
use postroom_proto::{metric, v1};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::leases::Leases;
use crate::config::Config;
use crate::control::{Control, Invalid};
use crate::errand::{self, Errands};
use crate::holder::Holder;
use crate::mailbox::lease::Trust;
use crate::mailbox::session::Shared;
use crate::mailbox::status::Board;
use crate::nudge;
use crate::pace::crowd::Crowd;
use crate::report::{Client, Deadlines, Reporter};
use crate::send::desk::Desk;
use crate::send::{self, Sending};
use crate::supervisor::Supervisor;

mod leases;

/// Longest time to drain everything and say goodbye.
pub const GRACE: Duration = Duration::from_secs(12);

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

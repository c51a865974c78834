//! What runs in a control plane, and in which order it stops.
//!
//! | task | what it does | on stop |
//! |---|---|---|
//! | server | answers gRPC | first: refuses new calls, ends waits, finishes what is under way within [`GRACE`] |
//! | deadlines | puts contacts back that were not accepted, cuts off old changes | with the server |
//! | claims | ends claims of mails that lapsed, cuts off old changes | with the server |
//! | lease plane | leads | after the server, so that goodbyes of workers are heard |
//! | nudges | tells workers that a heartbeat is due early | with the lease plane |
//! | definitions | follows the model in the store | with the lease plane |
//! | credentials | follows in the store who may call | with the lease plane |
//! | uses | records when credentials were used, now and then | with the lease plane |
//! | certificates | renews those of the port | with the lease plane |
//! | telemetry | looks at everything from time to time, for metrics | with the server |
//! | readiness | says whether it can serve | with the server, and says so |
//! | audit | writes down what was turned away, removes what is old | with the lease plane, after a last writing |
//! | binding | looks whether the store is the ledger's | with the lease plane |
//! | writers' watch | notices when the writer of store or ledger has died | with the lease plane |
//! | writers | commit to store and ledger, which own them | last, when nobody is left to write: they finish and close |
//!
//! The listener for metrics and health has a thread of its own, and is there until the very end.
//!
//! Every task is essential: when one ends before it was told to, the control plane stops.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::future::OptionFuture;
use postroom_proto::metric;
use postroom_proto::observe::{Health, Listener};
use postroom_proto::v1::access_service_server::AccessServiceServer;
use postroom_proto::v1::audit_service_server::AuditServiceServer;
use postroom_proto::v1::backup_service_server::BackupServiceServer;
use postroom_proto::v1::contact_service_server::ContactServiceServer;
use postroom_proto::v1::definition_service_server::DefinitionServiceServer;
use postroom_proto::v1::errand_service_server::ErrandServiceServer;
use postroom_proto::v1::lease_service_server::LeaseServiceServer;
use postroom_proto::v1::message_service_server::MessageServiceServer;
use postroom_proto::v1::operator_service_server::OperatorServiceServer;
use postroom_proto::v1::outbox_service_server::OutboxServiceServer;
use postroom_proto::v1::report_service_server::ReportServiceServer;
use postroom_proto::v1::secret_service_server::SecretServiceServer;
use postroom_proto::v1::send_service_server::SendServiceServer;
use postroom_proto::v1::store_service_server::StoreServiceServer;
use postroom_proto::v1::worker_service_server::WorkerServiceServer;
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::ground::Ground;
use self::passage::{LARGEST_ANSWER, LARGEST_MODEL, LARGEST_MODEL_ANSWER, LARGEST_REQUEST};
pub use self::start_error::StartError;
use crate::access::directory::Directory;
use crate::access::gate::Gate;
use crate::access::issuing::Issuer;
use crate::access::sessions::Sessions;
use crate::access::{context, listening, tls, usage};
use crate::api;
use crate::api::contact::Contacts;
use crate::api::large::Large;
use crate::api::lease::Leases;
use crate::api::operator::Operators;
use crate::api::report::Reports;
use crate::audit::Audit;
use crate::backlog::Backlogs;
use crate::check::Checker;
use crate::config::Config;
use crate::contact::arrival::Arrivals;
use crate::contact::taking::Allocator;
use crate::errand::Errands;
use crate::fleet::Fleet;
use crate::intake::Intake;
use crate::lease::nudge::Nudges;
use crate::lease::nudging;
use crate::lease::run::{LeasePlane, Settings};
use crate::message::Messages;
use crate::observation::Observer;
use crate::outbox::composing::Composer;
use crate::outbox::sending::Sending;
use crate::outbox::watching::Mails;
use crate::status::Overview;
use crate::store::opened::Opened;
use crate::telemetry::look::Telemetry;
use crate::telemetry::readiness;
use crate::watching::Watcher;
use crate::{clock, contact, folder, ledger};

mod ground;
mod passage;
mod start_error;

/// How long calls under way may take when the control plane stops.
pub const GRACE: Duration = Duration::from_secs(5);

/// A running control plane.
#[derive(Debug)]
pub struct App {
    address: SocketAddr,
    serving: CancellationToken,
    keeping: CancellationToken,
    failed: CancellationToken,
    front: TaskTracker,
    back: TaskTracker,
    store: Option<Opened>,
    ledger: Option<Arc<ledger::sqlite::Sqlite>>,
    reload: Arc<Notify>,
    endpoint: String,
    ca_file: Option<PathBuf>,
    health: Health,
    observed: Option<Listener>,
    // Held until the end: whoever has the lock owns the data folder.
    _lock: File,
}

macro_rules! limited {
    ($server:ident, $service:expr) => {
        $server::new($service).max_decoding_message_size(LARGEST_REQUEST).max_encoding_message_size(LARGEST_ANSWER)
    };
}

impl App {
    /// Opens everything in the data folder, binds the address and starts to serve.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        config.check()?;
        let lock = folder::lock(&config.data)?;
        folder::refuse_half_restored(&config.data)?;
        let listen = |source| StartError::Listen { address: config.listen, source };
        let health = Health::starting();
        let observed = Listener::start(config.observe, health.clone())?;
        let listener = TcpListener::bind(config.listen).await.map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        let mut app = Self {
            address,
            serving: CancellationToken::new(),
            keeping: CancellationToken::new(),
            failed: CancellationToken::new(),
            front: TaskTracker::new(),
            back: TaskTracker::new(),
            store: None,
            ledger: None,
            reload: Arc::default(),
            endpoint: String::new(),
            ca_file: None,
            health,
            observed,
            _lock: lock,
        };
        match app.run(listener, config).await {
            Ok(()) => Ok(app),
            Err(error) => {
                app.stop().await;
                Err(error)
            }
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL by which it is called.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// PEM file with the CA certificates by which clients on this machine trust it; `None`: the system's.
    pub fn ca_file(&self) -> Option<&Path> {
        self.ca_file.as_deref()
    }

    /// Looks at the files of certificates at once, and not only when it is time to.
    pub fn reload(&self) {
        self.reload.notify_one();
    }

    /// Where metrics and health are served, if they are.
    pub fn observed_at(&self) -> Option<SocketAddr> {
        self.observed.as_ref().map(Listener::address)
    }

    /// Returns when a task ended that should not have; the control plane must then be stopped.
    pub async fn failed(&self) {
        self.failed.cancelled().await;
    }

    /// Stops, in the order of the table above.
    pub async fn stop(self) {
        self.serving.cancel();
        self.front.close();
        if tokio::time::timeout(GRACE, self.front.wait()).await.is_err() {
            tracing::warn!("calls were still under way after {GRACE:?}; their callers will repeat them");
        }
        self.keeping.cancel();
        self.back.close();
        if tokio::time::timeout(GRACE, self.back.wait()).await.is_err() {
            tracing::warn!("the lease plane had not ended after {GRACE:?}; its next writes will be refused");
        }
        // Ordering: after every task, so that whoever still has something to write is heard.
        let closed = async {
            tokio::join!(
                OptionFuture::from(self.store.as_ref().map(Opened::close)),
                OptionFuture::from(self.ledger.as_ref().map(|ledger| ledger.close())),
            )
        };
        if tokio::time::timeout(GRACE, closed).await.is_err() {
            tracing::warn!("writes were still under way after {GRACE:?}; what was not confirmed will be repeated");
        }
    }

    async fn run(&mut self, listener: TcpListener, mut config: Config) -> Result<(), StartError> {
        metric::BUILD.set(&["control-plane", env!("CARGO_PKG_VERSION")], 1.0);
        metric::START_TIME.set(&["control-plane"], clock::now() as f64 / 1e6);
        // Where it is alone no worker of a former process lives.
        let quiet = if config.alone { Duration::ZERO } else { config.terms.ttl };
        let ground = self.open(&config, quiet).await?;
        let directory = Directory::load(std::mem::take(&mut config.tokens), &ground.store).await?;
        self.keep("credentials", directory.clone().follow(ground.store.clone(), self.keeping.clone()));
        let (seen, every) = (ground.store.clone(), config.upkeep_interval);
        self.keep("uses", usage::keep(directory.clone(), seen, every, self.keeping.clone()));
        let certificates = tls::Ground {
            store: ground.store.clone(),
            vault: ground.vault.clone(),
            directory: directory.clone(),
            ca_file: config.data.join(folder::CA),
        };
        let secured = self.secure(&config.tls, certificates, every).await?;
        let (configuration, names) = secured.unzip();
        let called = || context::endpoint(self.address, config.tls.is_tls(), names.as_deref().unwrap_or_default());
        self.endpoint = config.endpoint.clone().unwrap_or_else(called);
        let definitions = ground.definitions.clone();
        let (following, told) = (definitions.clone(), self.keeping.clone());
        self.keep("definitions", async move { following.run(told).await });
        let Config { replica, alone, .. } = &config;
        let settings = Settings { replica: replica.clone(), terms: config.terms, alone: *alone };
        let nudges = Nudges::new(self.serving.clone());
        let (leader, plane) = LeasePlane::new(
            ground.store.clone(),
            settings,
            definitions.subscribe(),
            ground.binding.may_lead(),
            nudges.clone(),
        );
        self.keep("lease plane", plane.run(self.keeping.clone()));
        self.keep("nudges", nudging::run(ground.store.clone(), nudges.clone(), self.keeping.clone()));

        let arrivals = Arc::new(Arrivals::default());
        let allocator = Allocator::new(ground.ledger.clone(), arrivals.clone(), self.serving.clone());
        let commits = ground.ledger.commits();
        let watched = contact::watching::Contacts(ground.ledger.clone());
        let watcher = Watcher::new(watched, commits.clone(), self.serving.clone());
        self.serve("deadlines", allocator.clone().keep_deadlines(config.deadline_interval));
        let Ground { store, ledger, outbox, blobs, vault, binding, backups, rotations, log, .. } = ground;
        let model = definitions.subscribe();
        let sessions = Sessions::new(store.clone());
        let issuer = Issuer {
            store: store.clone(),
            vault: vault.clone(),
            directory: directory.clone(),
            model: model.clone(),
            tls: configuration.is_some(),
            certificate_lifetime: config.certificate_lifetime,
        };
        let errands = Errands::new(store.clone(), model.clone(), self.serving.clone());
        let fleet = Fleet::new(store.clone(), leader.clone());
        let sending = Sending::new(
            outbox.clone(),
            store.clone(),
            model.clone(),
            vault.clone(),
            config.outbox.clone(),
            self.serving.clone(),
        );
        self.serve("claims", sending.clone().keep_deadlines(config.deadline_interval));
        let composer = Composer::new(
            outbox.clone(),
            ledger.clone(),
            blobs.clone(),
            model.clone(),
            sending.clone(),
            config.outbox.clone(),
        );
        let mailed = outbox.clone();
        let mails = Watcher::new(Mails(outbox.clone(), sending.clone()), commits, self.serving.clone());
        let outbox = api::outbox::Service::new(model.clone(), outbox, blobs.clone(), composer, sending.clone(), mails);
        let intake = Intake::new(
            store.clone(),
            ledger.clone(),
            model.clone(),
            vault.clone(),
            blobs.clone(),
            arrivals.clone(),
            binding.clone(),
        );
        let observer =
            Observer::new(store, ledger.clone(), model.clone(), intake.unstored(), intake.lives(), leader.clone());
        let checker = Checker::new(observer.clone(), errands.clone(), model.clone(), vault.clone());
        let backlogs = Backlogs::new(observer.clone(), ledger.clone(), errands.clone(), model.clone(), vault.clone());
        let messages = Messages::new(model.clone(), vault.clone(), ledger.clone(), intake.clone(), errands.clone());
        let messages = api::message::Service::new(messages, observer.clone(), blobs.clone());
        let stores = api::store::Service::new(binding.clone(), definitions.clone());
        let definitions_service = Arc::new(api::definition::Service::new(
            definitions,
            vault,
            ledger.clone(),
            leader.clone(),
            binding.clone(),
            replica.clone(),
        ));
        let sized = |largest| {
            DefinitionServiceServer::from_arc(definitions_service.clone())
                .max_decoding_message_size(largest)
                .max_encoding_message_size(LARGEST_MODEL_ANSWER)
        };
        let definitions = Large::new("ApplyModel", sized(LARGEST_MODEL), sized(LARGEST_REQUEST));
        let overview = Overview::new(observer.clone(), ledger.clone(), leader.clone(), model.clone(), binding);
        if self.observed.is_some() {
            let telemetry = Telemetry {
                data: config.data.clone(),
                overview: overview.clone(),
                outbox: mailed,
                lives: intake.lives(),
                model: model.clone(),
                terms: config.telemetry,
            };
            self.serve("telemetry", telemetry.run(self.serving.clone()));
        }
        let (reporter, healths) = tonic_health::server::health_reporter();
        let stop = self.serving.clone();
        let readiness = readiness::run(self.health.clone(), reporter, leader.clone(), ledger.clone(), stop);
        self.serve("readiness", readiness);
        let reflection = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(postroom_proto::v1::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .build_v1()?;
        let leases = Leases::new(leader, model.clone(), config.terms, nudges, sessions.clone());
        let audit = Audit::new(log.clone());
        self.keep("audit", audit.clone().run(config.audit_kept, self.keeping.clone()));
        let router = passage::server(Gate::new(directory, config.limits), audit)
            .add_service(limited!(AuditServiceServer, api::audit::Service(log)))
            .add_service(healths)
            .add_service(reflection)
            .add_service(definitions)
            .add_service(limited!(AccessServiceServer, issuer))
            .add_service(limited!(LeaseServiceServer, leases))
            .add_service(limited!(ReportServiceServer, Reports::new(intake, sessions.clone())))
            .add_service(limited!(OutboxServiceServer, outbox))
            .add_service(limited!(SendServiceServer, api::send::Service::new(sending, blobs.clone(), sessions.clone())))
            .add_service(limited!(ErrandServiceServer, api::errand::Service::new(errands, sessions)))
            .add_service(limited!(MessageServiceServer, messages))
            .add_service(limited!(OperatorServiceServer, Operators::new(observer, checker, overview, backlogs)))
            .add_service(limited!(
                ContactServiceServer,
                Contacts::new(model, ledger, blobs, arrivals, allocator, watcher)
            ))
            .add_service(limited!(BackupServiceServer, backups))
            .add_service(limited!(SecretServiceServer, rotations))
            .add_service(limited!(StoreServiceServer, stores))
            .add_service(limited!(WorkerServiceServer, fleet));
        let incoming = listening::incoming(listener, configuration);
        let stopping = self.serving.clone();
        self.serve("server", async move {
            if let Err(error) = router.serve_with_incoming_shutdown(incoming, stopping.cancelled_owned()).await {
                tracing::error!(%error, "serving has failed");
            }
        });
        Ok(())
    }

    /// The port's TLS and the names of its certificate, if it is to have one.
    async fn secure(
        &mut self,
        choice: &tls::Choice,
        ground: tls::Ground,
        every: Duration,
    ) -> Result<Option<(watch::Receiver<Arc<tls::Configuration>>, Vec<String>)>, StartError> {
        // Whoever reads the context may do so from another folder.
        let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.into());
        self.ca_file = match choice {
            tls::Choice::Plain => return Ok(None),
            tls::Choice::Files { ca, .. } => ca.as_deref().map(absolute),
            tls::Choice::Own { .. } => Some(absolute(&ground.ca_file)),
        };
        let keeper = tls::Keeper::begin(choice.clone(), ground).await?;
        let secured = (keeper.configuration(), keeper.names());
        self.keep("certificates", keeper.keep(every, self.reload.clone(), self.keeping.clone()));
        Ok(Some(secured))
    }

    fn serve(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.front.spawn(essential(name, task, self.serving.clone(), self.failed.clone()));
    }

    fn keep(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.back.spawn(essential(name, task, self.keeping.clone(), self.failed.clone()));
    }
}

/// Runs a task to its end; an end that nobody asked for, by return or by panic, fails the control plane.
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
                tracing::error!(task = self.0, "an essential task has ended; the control plane must stop");
                self.2.cancel();
            }
        }
    }
    let _watchman = Watchman(name, told, failed);
    task.await;
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::*;
    use crate::access::token::Tokens;

    /// Reached only when something hangs.
    const PATIENCE: Duration = Duration::from_secs(20);

    async fn start(data: &Path) -> Result<App, StartError> {
        App::start(Config::new(data.into(), ([127, 0, 0, 1], 0).into(), Tokens::default())).await
    }

    fn logs(data: &Path) -> Vec<PathBuf> {
        ["store.db-wal", "ledger.db-wal"].map(|log| data.join(log)).into_iter().filter(|log| log.exists()).collect()
    }

    /// Waits until the logs were taken into the files. The thread of a connection whose last query was given up closes it a
    /// moment after everything else has ended.
    async fn gone(data: &Path) {
        let waiting = async {
            while !logs(data).is_empty() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.expect("the logs stay");
    }

    #[tokio::test]
    async fn both_databases_are_closed_when_it_stops_or_cannot_start() {
        let data = tempfile::tempdir().unwrap();
        let app = start(data.path()).await.unwrap();
        assert_eq!(logs(data.path()).len(), 2, "both write to their logs");
        app.stop().await;
        gone(data.path()).await;

        std::fs::write(data.path().join("secret.key"), "no key").unwrap();
        assert!(matches!(start(data.path()).await, Err(StartError::Vault(_))));
        gone(data.path()).await;
    }

    #[tokio::test]
    async fn a_writer_that_ends_fails_the_control_plane() {
        for of_store in [true, false] {
            let data = tempfile::tempdir().unwrap();
            let app = start(data.path()).await.unwrap();
            if of_store {
                app.store.as_ref().unwrap().close().await;
            } else {
                app.ledger.as_ref().unwrap().close().await;
            }
            tokio::time::timeout(PATIENCE, app.failed()).await.unwrap();
            app.stop().await;
        }
    }
}

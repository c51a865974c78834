//! A control plane to play on.

use std::path::Path;
use std::time::Duration;

use postroom_control_plane::access::role::Role;
use postroom_control_plane::access::token::{Tokens, mint};
use postroom_control_plane::app::App;
use postroom_control_plane::config::{Config, StoreChoice};
use postroom_proto::lease::LeaseTerms;
use postroom_proto::reason::{Failure, Reason};
use postroom_proto::v1::contact_service_client::ContactServiceClient;
use postroom_proto::v1::definition_service_client::DefinitionServiceClient;
use postroom_proto::v1::lease_service_client::LeaseServiceClient;
use postroom_proto::v1::report_service_client::ReportServiceClient;
use postroom_proto::v1::store_service_client::StoreServiceClient;
use postroom_proto::v1::{self, open_outcome::Outcome};
use secrecy::{ExposeSecret as _, SecretString};
use tonic::transport::Channel;
use tonic::{Request, Status};

/// A control plane with one mailbox.
pub(crate) struct Bench {
    pub(crate) app: App,
    pub(crate) channel: Channel,
    admin: SecretString,
    worker: SecretString,
    instance: SecretString,
}

impl Bench {
    pub(crate) async fn start(data: &Path) -> Self {
        let bench = Self::start_undefined(data).await;
        bench.define_mailbox().await;
        bench
    }

    /// A control plane over whatever the folder holds.
    pub(crate) async fn start_undefined(data: &Path) -> Self {
        Self::start_with(settings(data).await).await
    }

    /// The same over a folder that a backup was restored into, with a store that takes over what was in the backup.
    pub(crate) async fn start_restored(data: &Path) -> Self {
        let bench = Self::start_undefined(data).await;
        let mut stores = StoreServiceClient::new(bench.channel.clone());
        let store = stores.get_store(bench.as_admin(v1::GetStoreRequest {})).await.unwrap().into_inner();
        let request = bench.as_admin(v1::AdoptStoreRequest { store_id: store.store_id });
        // Changes nothing where the store came with the backup.
        stores.adopt_store(request).await.unwrap();
        bench
    }

    pub(crate) async fn start_with(config: Config) -> Self {
        let (admin, worker, instance) = (mint().unwrap(), mint().unwrap(), mint().unwrap());
        let mut tokens = Tokens::default();
        tokens.grant(&admin, Role::Admin);
        tokens.grant(&worker, Role::Worker(None));
        tokens.grant(&instance, Role::Instance("core2".into()));
        let app = App::start(Config { tokens, ..config }).await.unwrap();
        let channel = Channel::from_shared(format!("http://{}", app.address())).unwrap().connect_lazy();
        Self { app, channel, admin, worker, instance }
    }

    pub(crate) async fn define_mailbox(&self) {
        define_mailbox(&self.channel, &self.admin).await;
    }

    pub(crate) fn as_admin<T>(&self, message: T) -> Request<T> {
        bearing(&self.admin, message)
    }

    /// As an instance that is not the one of the mailbox.
    pub(crate) fn as_core2<T>(&self, message: T) -> Request<T> {
        bearing(&self.instance, message)
    }

    pub(crate) fn as_worker<T>(&self, message: T) -> Request<T> {
        bearing(&self.worker, message)
    }

    pub(crate) fn reports(&self) -> ReportServiceClient<Channel> {
        ReportServiceClient::new(self.channel.clone())
    }

    pub(crate) async fn register(&self, name: &str) -> Session<'_> {
        self.register_as(v1::RegisterRequest { worker_name: name.into(), build: "test".into(), ..Default::default() })
            .await
    }

    pub(crate) async fn register_as(&self, request: v1::RegisterRequest) -> Session<'_> {
        let mut leases = LeaseServiceClient::new(self.channel.clone());
        loop {
            match leases.register(self.as_worker(request.clone())).await {
                Ok(answer) => return Session { bench: self, id: answer.into_inner().session, sequence: 0, term: 0 },
                Err(status) => assert_eq!(reason(&status), Reason::NoLeader, "{status:?}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub(crate) async fn contacts(&self) -> usize {
        let request = self.as_admin(v1::ListContactsRequest::default());
        ContactServiceClient::new(self.channel.clone())
            .list_contacts(request)
            .await
            .unwrap()
            .into_inner()
            .contacts
            .len()
    }
}

/// One instance, and one queue of it with one mailbox.
pub(crate) async fn define_mailbox(channel: &Channel, admin: &SecretString) {
    let model = v1::Model {
        instances: vec![v1::Instance { name: "core1".into(), ..Default::default() }],
        incoming_servers: vec![v1::IncomingServer {
            name: "Münster / \"Büro\" #1 🙂".into(),
            authentication: v1::Authentication::Password.into(),
            imap_host: "127.0.0.1".into(),
            ..Default::default()
        }],
        queues: vec![v1::Queue {
            name: "Billing".into(),
            instance: "core1".into(),
            addresses: vec![v1::Address {
                email: "billing@contoso.example".into(),
                password: Some(v1::SecretInput { value: "planted".into(), clear: false }),
                server: "Münster / \"Büro\" #1 🙂".into(),
                ..Default::default()
            }],
            ..Default::default()
        }],
        ..Default::default()
    };
    let request = v1::ApplyModelRequest { model: Some(model), ..Default::default() };
    DefinitionServiceClient::new(channel.clone()).apply_model(bearing(admin, request)).await.unwrap();
}

/// Where a control plane over a data folder keeps its definitions: in the folder, or with POSTROOM_TEST_STORE=etcd below
/// a prefix of its own in an etcd that all tests here share.
pub(crate) async fn store_of(data: &Path) -> StoreChoice {
    match std::env::var("POSTROOM_TEST_STORE").as_deref() {
        Ok("etcd") => {
            let etcd = postroom_testbed::etcd::shared().await;
            etcd.url(&format!("/postroom{}", data.display())).parse().unwrap()
        }
        Ok("sqlite") | Err(_) => StoreChoice::Sqlite,
        Ok(other) => panic!("POSTROOM_TEST_STORE={other} is neither sqlite nor etcd"),
    }
}

/// Settings with which tests are short, and nobody may call.
pub(crate) async fn settings(data: &Path) -> Config {
    Config {
        store: store_of(data).await,
        terms: LeaseTerms {
            heartbeat: Duration::from_millis(50),
            heartbeat_timeout: Duration::from_secs(1),
            ttl: Duration::from_secs(5),
            margin: Duration::from_millis(500),
            leader_ttl: Duration::from_secs(1),
        },
        deadline_interval: Duration::from_millis(50),
        ..Config::new(data.into(), "127.0.0.1:0".parse().unwrap(), Tokens::default())
    }
}

pub(crate) fn bearing<T>(token: &SecretString, message: T) -> Request<T> {
    let mut request = Request::new(message);
    let value = format!("Bearer {}", token.expose_secret()).parse().unwrap();
    request.metadata_mut().insert("authorization", value);
    request
}

pub(crate) fn reason(status: &Status) -> Reason {
    Failure::from_status(status).unwrap_or_else(|| panic!("{status:?}")).reason
}

/// One life of a worker, played by the test.
pub(crate) struct Session<'b> {
    bench: &'b Bench,
    pub(crate) id: String,
    sequence: u64,
    term: u64,
}

impl Session<'_> {
    pub(crate) async fn heartbeat(&mut self) -> Vec<v1::OfferedMailbox> {
        self.sequence += 1;
        let (session, sequence, term) = (self.id.clone(), self.sequence, self.term);
        let request = v1::HeartbeatRequest { session, sequence, term, ..Default::default() };
        let mut leases = LeaseServiceClient::new(self.bench.channel.clone());
        let answer = leases.heartbeat(self.bench.as_worker(request)).await.unwrap().into_inner();
        self.term = answer.term;
        answer.mailboxes
    }

    /// Beats until the mailbox is offered.
    pub(crate) async fn offered(&mut self) -> v1::OfferedMailbox {
        for _ in 0..500 {
            if let Some(offer) = self.heartbeat().await.pop() {
                return offer;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("the mailbox was never offered");
    }

    pub(crate) async fn open(&self, mailbox: &str, epoch: u64) -> Outcome {
        let leases = vec![v1::MailboxLease { mailbox: mailbox.into(), epoch }];
        let request = v1::OpenMailboxesRequest { session: self.id.clone(), leases };
        let answer = self.bench.reports().open_mailboxes(self.bench.as_worker(request)).await.unwrap();
        answer.into_inner().outcomes.remove(0).outcome.unwrap()
    }

    pub(crate) fn batch(&self, offer: &v1::OfferedMailbox, from: u8, to: u8) -> v1::ReportRequest {
        let cursor = |value: u8| {
            let (protocol, value) = if value == 0 { (String::new(), vec![]) } else { ("imap".into(), vec![value]) };
            v1::Cursor { protocol, value }
        };
        v1::ReportRequest {
            session: self.id.clone(),
            mailbox: offer.mailbox.clone(),
            epoch: offer.epoch,
            generation: 1,
            batch_id: uuid::Uuid::new_v4().to_string(),
            expected_cursor: Some(cursor(from)),
            next_cursor: Some(cursor(to)),
            messages: vec![v1::ReportedMessage {
                source_key: format!("1:{to}"),
                disposition: v1::Disposition::Contact.into(),
                size_bytes: 3,
                raw: Some(v1::reported_message::Raw::RawMessage("raw".into())),
                content: Some(v1::ContactContent::default()),
                ..Default::default()
            }],
            settled_source_keys: Vec::new(),
            backlog: None,
            numbering: 0,
        }
    }

    pub(crate) async fn report(&self, batch: &v1::ReportRequest) -> Result<v1::ReportResponse, Reason> {
        let answer = self.bench.reports().report(self.bench.as_worker(batch.clone())).await;
        answer.map(tonic::Response::into_inner).map_err(|status| reason(&status))
    }

    pub(crate) async fn leave(&self) {
        let request = v1::LeaveRequest { session: self.id.clone(), returning: false };
        LeaseServiceClient::new(self.bench.channel.clone()).leave(self.bench.as_worker(request)).await.unwrap();
    }
}

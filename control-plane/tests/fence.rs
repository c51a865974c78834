//! Who holds no lease changes nothing: through the real services, over real gRPC.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

use std::path::Path;
use std::time::Duration;

use postroom_control_plane::access::role::Role;
use postroom_control_plane::access::token::{Tokens, mint};
use postroom_control_plane::app::App;
use postroom_control_plane::config::Config;
use postroom_proto::lease::LeaseTerms;
use postroom_proto::reason::{Failure, Reason};
use postroom_proto::v1::contact_service_client::ContactServiceClient;
use postroom_proto::v1::definition_service_client::DefinitionServiceClient;
use postroom_proto::v1::lease_service_client::LeaseServiceClient;
use postroom_proto::v1::report_service_client::ReportServiceClient;
use postroom_proto::v1::{self, open_outcome::Outcome};
use secrecy::{ExposeSecret as _, SecretString};
use tonic::transport::Channel;
use tonic::{Request, Status};

/// A control plane with one mailbox.
struct Bench {
    app: App,
    channel: Channel,
    admin: SecretString,
    worker: SecretString,
}

impl Bench {
    async fn start(data: &Path) -> Self {
        let (admin, worker) = (mint().unwrap(), mint().unwrap());
        let mut tokens = Tokens::default();
        tokens.grant(&admin, Role::Admin);
        tokens.grant(&worker, Role::Worker);
        let config = Config {
            data: data.into(),
            listen: "127.0.0.1:0".parse().unwrap(),
            insecure: false,
            tokens,
            terms: LeaseTerms {
                heartbeat: Duration::from_millis(50),
                heartbeat_timeout: Duration::from_secs(1),
                ttl: Duration::from_secs(5),
                margin: Duration::from_millis(500),
                leader_ttl: Duration::from_secs(1),
            },
            deadline_interval: Duration::from_millis(50),
        };
        let app = App::start(config).await.unwrap();
        let channel = Channel::from_shared(format!("http://{}", app.address())).unwrap().connect_lazy();
        let bench = Self { app, channel, admin, worker };
        bench.define_mailbox().await;
        bench
    }

    async fn define_mailbox(&self) {
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
                    password: Some(v1::SecretInput { value: "planted".into() }),
                    server: "Münster / \"Büro\" #1 🙂".into(),
                    ..Default::default()
                }],
                ..Default::default()
            }],
        };
        let request = v1::ApplyModelRequest { model: Some(model), ..Default::default() };
        DefinitionServiceClient::new(self.channel.clone()).apply_model(self.as_admin(request)).await.unwrap();
    }

    fn as_admin<T>(&self, message: T) -> Request<T> {
        bearing(&self.admin, message)
    }

    fn as_worker<T>(&self, message: T) -> Request<T> {
        bearing(&self.worker, message)
    }

    fn reports(&self) -> ReportServiceClient<Channel> {
        ReportServiceClient::new(self.channel.clone())
    }

    async fn register(&self, name: &str) -> Session<'_> {
        let request = v1::RegisterRequest { worker_name: name.into(), build: "test".into() };
        let mut leases = LeaseServiceClient::new(self.channel.clone());
        loop {
            match leases.register(self.as_worker(request.clone())).await {
                Ok(answer) => return Session { bench: self, id: answer.into_inner().session, sequence: 0 },
                Err(status) => assert_eq!(reason(&status), Reason::NoLeader, "{status:?}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn contacts(&self) -> usize {
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

fn bearing<T>(token: &SecretString, message: T) -> Request<T> {
    let mut request = Request::new(message);
    let value = format!("Bearer {}", token.expose_secret()).parse().unwrap();
    request.metadata_mut().insert("authorization", value);
    request
}

fn reason(status: &Status) -> Reason {
    Failure::from_status(status).unwrap_or_else(|| panic!("{status:?}")).reason
}

/// One life of a worker, played by the test.
struct Session<'b> {
    bench: &'b Bench,
    id: String,
    sequence: u64,
}

impl Session<'_> {
    async fn heartbeat(&mut self) -> Vec<v1::OfferedMailbox> {
        self.sequence += 1;
        let request = v1::HeartbeatRequest { session: self.id.clone(), sequence: self.sequence, ..Default::default() };
        let mut leases = LeaseServiceClient::new(self.bench.channel.clone());
        leases.heartbeat(self.bench.as_worker(request)).await.unwrap().into_inner().mailboxes
    }

    /// Beats until the mailbox is offered.
    async fn offered(&mut self) -> v1::OfferedMailbox {
        for _ in 0..500 {
            if let Some(offer) = self.heartbeat().await.pop() {
                return offer;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("the mailbox was never offered");
    }

    async fn open(&self, mailbox: &str, epoch: u64) -> Outcome {
        let leases = vec![v1::MailboxLease { mailbox: mailbox.into(), epoch }];
        let request = v1::OpenMailboxesRequest { session: self.id.clone(), leases };
        let answer = self.bench.reports().open_mailboxes(self.bench.as_worker(request)).await.unwrap();
        answer.into_inner().outcomes.remove(0).outcome.unwrap()
    }

    fn batch(&self, offer: &v1::OfferedMailbox, from: u8, to: u8) -> v1::ReportRequest {
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
        }
    }

    async fn report(&self, batch: &v1::ReportRequest) -> Result<v1::ReportResponse, Reason> {
        let answer = self.bench.reports().report(self.bench.as_worker(batch.clone())).await;
        answer.map(tonic::Response::into_inner).map_err(|status| reason(&status))
    }

    async fn leave(&self) {
        let request = v1::LeaveRequest { session: self.id.clone(), returning: false };
        LeaseServiceClient::new(self.bench.channel.clone()).leave(self.bench.as_worker(request)).await.unwrap();
    }
}

#[tokio::test]
async fn a_report_held_back_until_the_lease_has_moved_is_refused() {
    let data = tempfile::tempdir().unwrap();
    let bench = Bench::start(data.path()).await;
    let mut first = bench.register("first").await;
    let offer = first.offered().await;
    assert!(matches!(first.open(&offer.mailbox, offer.epoch).await, Outcome::Opened(_)));
    let in_time = first.batch(&offer, 0, 1);
    first.report(&in_time).await.unwrap();
    let held_back = first.batch(&offer, 1, 2);

    let mut second = bench.register("second").await;
    second.heartbeat().await;
    first.leave().await;
    let moved = second.offered().await;
    assert!(moved.epoch > offer.epoch);
    // Assigned but not yet opened: what the first had under way may still arrive, and the second will find it.
    let Outcome::Opened(opened) = second.open(&moved.mailbox, moved.epoch).await else { panic!("not opened") };
    assert_eq!(opened.cursor.unwrap().value, [1], "it goes on where the first was");

    assert_eq!(first.report(&held_back).await, Err(Reason::LeaseLost));
    assert_eq!(first.report(&in_time).await, Err(Reason::LeaseLost), "not even what it had committed is repeated");
    assert_eq!(bench.contacts().await, 1);
    let next = second.batch(&moved, 1, 2);
    let answer = second.report(&next).await.unwrap();
    assert_eq!(second.report(&next).await.unwrap(), answer, "a lost answer is repeated");
    assert_eq!(bench.contacts().await, 2);
    bench.app.stop().await;
}

#[tokio::test]
async fn a_worker_cannot_open_what_it_does_not_hold() {
    let data = tempfile::tempdir().unwrap();
    let bench = Bench::start(data.path()).await;
    let mut owner = bench.register("owner").await;
    let offer = owner.offered().await;
    assert!(matches!(owner.open(&offer.mailbox, offer.epoch).await, Outcome::Opened(_)));
    owner.report(&owner.batch(&offer, 0, 1)).await.unwrap();

    let intruder = bench.register("intruder").await;
    for (session, epoch) in [(&intruder, offer.epoch), (&intruder, 1 << 60), (&owner, 1 << 60), (&owner, 0)] {
        let Outcome::Refused(refusal) = session.open(&offer.mailbox, epoch).await else {
            panic!("epoch {epoch} was opened")
        };
        assert_eq!(refusal.reason, "LEASE_LOST");
    }
    let mut stolen = owner.batch(&offer, 1, 2);
    stolen.session = intruder.id.clone();
    assert_eq!(intruder.report(&stolen).await, Err(Reason::LeaseLost));

    owner.report(&owner.batch(&offer, 1, 2)).await.expect("the owner is undisturbed");
    assert_eq!(bench.contacts().await, 2);
    bench.app.stop().await;
}

#[tokio::test]
async fn secrets_go_to_the_holder_and_rest_in_no_file() {
    let data = tempfile::tempdir().unwrap();
    let bench = Bench::start(data.path()).await;
    let mut owner = bench.register("owner").await;
    let offer = owner.offered().await;
    let Outcome::Opened(opened) = owner.open(&offer.mailbox, offer.epoch).await else { panic!("not opened") };
    assert_eq!(opened.definition.unwrap().password, "planted");

    let refused = bench.reports().open_mailboxes(bench.as_admin(v1::OpenMailboxesRequest::default())).await;
    assert_eq!(reason(&refused.unwrap_err()), Reason::PermissionDenied);
    let export = bench.as_admin(v1::ExportModelRequest {});
    let export = DefinitionServiceClient::new(bench.channel.clone()).export_model(export).await.unwrap();
    assert!(!format!("{export:?}").contains("planted"));
    bench.app.stop().await;
    for file in std::fs::read_dir(data.path()).unwrap().flatten().filter(|file| file.path().is_file()) {
        let bytes = std::fs::read(file.path()).unwrap();
        let found = bytes.windows(b"planted".len()).any(|window| window == b"planted");
        assert!(!found, "{} holds a secret in clear", file.path().display());
    }
}

#[tokio::test]
async fn nobody_gets_past_the_gate_without_a_token_of_the_right_role() {
    let data = tempfile::tempdir().unwrap();
    let bench = Bench::start(data.path()).await;
    let mut definitions = DefinitionServiceClient::new(bench.channel.clone());
    let bare = definitions.export_model(v1::ExportModelRequest {}).await.unwrap_err();
    assert_eq!(reason(&bare), Reason::Unauthenticated);
    let forged = bearing(&"forged".to_owned().into(), v1::ExportModelRequest {});
    assert_eq!(reason(&definitions.export_model(forged).await.unwrap_err()), Reason::Unauthenticated);
    let worker = bench.as_worker(v1::ExportModelRequest {});
    assert_eq!(reason(&definitions.export_model(worker).await.unwrap_err()), Reason::PermissionDenied);
    bench.app.stop().await;
}

#[tokio::test]
async fn a_data_folder_belongs_to_one_process() {
    let data = tempfile::tempdir().unwrap();
    let bench = Bench::start(data.path()).await;
    let second = App::start(Config {
        data: data.path().into(),
        listen: "127.0.0.1:0".parse().unwrap(),
        insecure: false,
        tokens: Tokens::default(),
        terms: LeaseTerms::default(),
        deadline_interval: Duration::from_secs(1),
    });
    let error = second.await.unwrap_err().to_string();
    assert!(error.contains("in use by another process"), "{error}");
    bench.app.stop().await;
}

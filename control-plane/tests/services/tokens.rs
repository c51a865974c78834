//! Tokens: made, used, listed and ended.

use std::time::Duration;

use postroom_control_plane::access::gate::Limits;
use postroom_control_plane::config::Config;
use postroom_proto::convert::to_duration;
use postroom_proto::reason::{Failure, Reason};
use postroom_proto::v1;
use postroom_proto::v1::access_service_client::AccessServiceClient;
use postroom_proto::v1::contact_service_client::ContactServiceClient;
use postroom_proto::v1::definition_service_client::DefinitionServiceClient;
use postroom_proto::v1::worker_service_client::WorkerServiceClient;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::time::timeout;
use tonic::Status;
use tonic::transport::Channel;

use crate::bench::{Bench, bearing, reason, settings};

/// Reached only when something hangs.
const PATIENCE: Duration = Duration::from_secs(20);

fn wanted(name: &str, role: &str) -> v1::CreateTokenRequest {
    v1::CreateTokenRequest { name: name.into(), role: role.into(), ..Default::default() }
}

async fn create(bench: &Bench, request: v1::CreateTokenRequest) -> Result<SecretString, Status> {
    let made = AccessServiceClient::new(bench.channel.clone()).create_token(bench.as_admin(request)).await?;
    Ok(made.into_inner().token.into())
}

async fn revoke(bench: &Bench, credential: &str) -> Result<v1::RevokeCredentialsResponse, Status> {
    let request = v1::RevokeCredentialsRequest { credential: credential.into(), worker: String::new() };
    let ended = AccessServiceClient::new(bench.channel.clone()).revoke_credentials(bench.as_admin(request)).await?;
    Ok(ended.into_inner())
}

async fn list(bench: &Bench) -> Vec<v1::Credential> {
    let request = bench.as_admin(v1::ListCredentialsRequest {});
    AccessServiceClient::new(bench.channel.clone()).list_credentials(request).await.unwrap().into_inner().credentials
}

async fn look(channel: &Channel, token: &SecretString) -> Result<(), Reason> {
    let request = bearing(token, v1::ExportModelRequest::default());
    let looked = DefinitionServiceClient::new(channel.clone()).export_model(request).await;
    looked.map(drop).map_err(|status| reason(&status))
}

#[tokio::test]
async fn a_token_holds_over_restarts_until_it_is_revoked_and_rests_as_a_digest() {
    let data = tempfile::tempdir().unwrap();
    let bench = Bench::start_undefined(data.path()).await;
    let token = create(&bench, wanted("ada", "viewer")).await.unwrap();
    assert_eq!(look(&bench.channel, &token).await, Ok(()));
    let all = list(&bench).await;
    assert_eq!((all.len(), all[0].name.as_str(), all[0].role.as_str()), (1, "ada", "viewer"));
    assert_eq!((all[0].created_by.as_str(), all[0].expired), ("admin", false));
    assert!(!format!("{all:?}").contains(token.expose_secret()));
    bench.app.stop().await;
    for file in std::fs::read_dir(data.path()).unwrap().flatten().filter(|file| file.path().is_file()) {
        let bytes = std::fs::read(file.path()).unwrap();
        let found = bytes.windows(43).any(|window| window == token.expose_secret().as_bytes());
        assert!(!found, "{} holds a token in clear", file.path().display());
    }

    let bench = Bench::start_undefined(data.path()).await;
    assert_eq!(look(&bench.channel, &token).await, Ok(()), "after a restart");
    assert_eq!(revoke(&bench, "ada").await.unwrap().credentials[0].id, all[0].id);
    assert_eq!(look(&bench.channel, &token).await, Err(Reason::Unauthenticated));
    assert_eq!(reason(&revoke(&bench, "ada").await.unwrap_err()), Reason::NotFound);
    assert!(list(&bench).await.is_empty());
    // Whoever ends its own token hears that it is done.
    let own = create(&bench, wanted("grace", "admin")).await.unwrap();
    let request = v1::RevokeCredentialsRequest { credential: "grace".into(), ..Default::default() };
    let mut access = AccessServiceClient::new(bench.channel.clone());
    let ended = access.revoke_credentials(bearing(&own, request.clone())).await.unwrap().into_inner();
    assert_eq!(ended.credentials[0].name, "grace");
    let again = access.revoke_credentials(bearing(&own, request)).await.unwrap_err();
    assert_eq!(reason(&again), Reason::Unauthenticated);
    // Its name is free again, and another token is no less another.
    let next = create(&bench, wanted("ada", "viewer")).await.unwrap();
    assert_eq!((look(&bench.channel, &next).await, look(&bench.channel, &token).await.is_err()), (Ok(()), true));
    bench.app.stop().await;
}

#[tokio::test]
async fn a_running_stream_and_a_waiting_call_end_with_their_token() {
    let data = tempfile::tempdir().unwrap();
    let bench = Bench::start(data.path()).await;
    let instance = v1::CreateTokenRequest { instance: "core1".into(), ..wanted("cem", "instance") };
    let revoked = create(&bench, instance.clone()).await.unwrap();
    let watch = async |token: &SecretString| {
        let request = v1::WatchContactsRequest { instance: "core1".into(), ..Default::default() };
        let mut contacts = ContactServiceClient::new(bench.channel.clone());
        let mut stream = contacts.watch_contacts(bearing(token, request)).await.unwrap().into_inner();
        // The snapshot of nothing comes at once.
        stream.message().await.unwrap().unwrap();
        stream
    };
    let mut first = watch(&revoked).await;
    // Long enough to begin a stream by it, however slow the machine is.
    let ttl = Some(to_duration(Duration::from_secs(8)));
    let expiring = create(&bench, v1::CreateTokenRequest { name: "short".into(), ttl, ..instance }).await.unwrap();
    let mut second = watch(&expiring).await;
    let ended = async |stream: &mut tonic::Streaming<v1::WatchContactsResponse>| {
        let reading = async {
            loop {
                match stream.message().await {
                    Err(status) => return status,
                    Ok(None) => panic!("it ended without a word"),
                    Ok(Some(_)) => {}
                }
            }
        };
        timeout(PATIENCE, reading).await.expect("the stream goes on")
    };
    let take = v1::AllocateContactsRequest {
        instance: "core1".into(),
        max_count: 1,
        wait: Some(to_duration(Duration::from_secs(25))),
        request_id: uuid::Uuid::new_v4().to_string(),
        ..Default::default()
    };
    let mut contacts = ContactServiceClient::new(bench.channel.clone());
    let waiting = tokio::spawn({
        let request = bearing(&revoked, take);
        async move { contacts.allocate_contacts(request).await }
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    revoke(&bench, "cem").await.unwrap();
    let status = ended(&mut first).await;
    assert_eq!(reason(&status), Reason::Unauthenticated);
    assert!(status.message().contains("was revoked"), "{status:?}");
    let waited = timeout(PATIENCE, waiting).await.expect("the call waits on").unwrap();
    assert_eq!(reason(&waited.unwrap_err()), Reason::Unauthenticated);
    let status = ended(&mut second).await;
    assert!(status.message().contains("has expired"), "{status:?}");
    assert_eq!(look(&bench.channel, &expiring).await, Err(Reason::Unauthenticated));
    assert!(list(&bench).await.iter().any(|it| it.name == "short" && it.expired), "it is still listed");
    bench.app.stop().await;
}

#[tokio::test]
async fn a_token_of_one_instance_sees_nothing_of_another() {
    let data = tempfile::tempdir().unwrap();
    let bench = Bench::start(data.path()).await;
    let model = v1::Model {
        instances: vec![v1::Instance { name: "core2".into(), ..Default::default() }],
        ..Default::default()
    };
    let request = bench.as_admin(v1::ApplyModelRequest { model: Some(model), ..Default::default() });
    DefinitionServiceClient::new(bench.channel.clone()).apply_model(request).await.unwrap();
    let own = v1::CreateTokenRequest { instance: "core1".into(), ..wanted("one", "instance") };
    let own = create(&bench, own).await.unwrap();
    let other = v1::CreateTokenRequest { instance: "core2".into(), ..wanted("two", "instance") };
    let other = create(&bench, other).await.unwrap();

    let mut worker = bench.register("worker").await;
    let offer = worker.offered().await;
    let _ = worker.open(&offer.mailbox, offer.epoch).await;
    worker.report(&worker.batch(&offer, 0, 1)).await.unwrap();
    let mut contacts = ContactServiceClient::new(bench.channel.clone());
    let listed = v1::ListContactsRequest { instance: "core1".into(), ..Default::default() };
    let seen = contacts.list_contacts(bearing(&own, listed.clone())).await.unwrap().into_inner().contacts;
    assert_eq!(seen.len(), 1);
    let contact = seen[0].id.clone();
    assert_eq!(reason(&contacts.list_contacts(bearing(&other, listed)).await.unwrap_err()), Reason::PermissionDenied);
    let get = v1::GetContactRequest { contact: contact.clone() };
    assert!(contacts.get_contact(bearing(&own, get.clone())).await.is_ok());
    assert_eq!(reason(&contacts.get_contact(bearing(&other, get)).await.unwrap_err()), Reason::NotFound);
    let raw = v1::GetRawMessageRequest { contact: contact.clone() };
    assert_eq!(reason(&contacts.get_raw_message(bearing(&other, raw)).await.unwrap_err()), Reason::NotFound);
    let accept = |instance: &str| v1::AcceptContactsRequest {
        instance: instance.into(),
        contacts: vec![v1::AllocatedContact { contact: contact.clone(), ..Default::default() }],
    };
    let foreign = contacts.accept_contacts(bearing(&other, accept("core1"))).await.unwrap_err();
    assert_eq!(reason(&foreign), Reason::PermissionDenied);
    let mine = contacts.accept_contacts(bearing(&other, accept("core2"))).await.unwrap().into_inner();
    assert_eq!(mine.outcomes[0].reason, "NOT_FOUND", "{mine:?}");
    bench.app.stop().await;
}

#[tokio::test]
async fn whoever_calls_too_often_is_told_when_to_call_again_and_is_in_nobody_elses_way() {
    let data = tempfile::tempdir().unwrap();
    let config = Config { limits: Limits::per_second(5), ..settings(data.path()).await };
    let bench = Bench::start_with(config).await;
    let token = create(&bench, wanted("eager", "viewer")).await.unwrap();
    // At once, so that it matters little how fast the machine is.
    let calls = (0..100).map(|_| {
        let mut definitions = DefinitionServiceClient::new(bench.channel.clone());
        let request = bearing(&token, v1::ExportModelRequest::default());
        async move { definitions.export_model(request).await.err() }
    });
    let refused = futures::future::join_all(calls).await.into_iter().flatten().next();
    let refused = Failure::from_status(&refused.expect("a hundred calls got through")).unwrap();
    assert_eq!(refused.reason, Reason::TooMany);
    let wait = refused.retry_after.expect("it is not said when");
    assert!(wait <= Duration::from_secs(1), "{wait:?}");
    assert_eq!(list(&bench).await.len(), 1, "the admin is not slowed down");
    tokio::time::sleep(wait).await;
    assert_eq!(look(&bench.channel, &token).await, Ok(()));
    bench.app.stop().await;
}

#[tokio::test]
async fn every_fault_of_a_wish_is_told_and_no_name_is_given_twice() {
    let data = tempfile::tempdir().unwrap();
    let bench = Bench::start_undefined(data.path()).await;
    let fields = async |request: v1::CreateTokenRequest| {
        let failure = Failure::from_status(&create(&bench, request).await.unwrap_err()).unwrap();
        failure.fields.into_iter().map(|fault| fault.field).collect::<Vec<_>>()
    };
    let ttl = Some(to_duration(Duration::ZERO));
    let request = v1::CreateTokenRequest { worker: "w".into(), ttl, ..wanted(" ", "root") };
    assert_eq!(fields(request).await, ["name", "worker", "role", "ttl"]);
    assert_eq!(fields(wanted("a", "instance")).await, ["instance"]);
    let nobody = v1::CreateTokenRequest { instance: "nobody".into(), ..wanted("a", "instance") };
    assert_eq!(fields(nobody).await, ["instance"]);
    assert_eq!(fields(v1::CreateTokenRequest { worker: "W 1".into(), ..wanted("a", "worker") }).await, ["worker"]);
    create(&bench, wanted("a", "viewer")).await.unwrap();
    assert_eq!(fields(wanted("a", "viewer")).await, ["name"]);
    assert_eq!(fields(wanted("admin", "admin")).await, ["name"], "the one of the data folder");
    let request = v1::EnrollWorkerRequest { worker: "mail-1".into(), ttl: None };
    let enrolled = AccessServiceClient::new(bench.channel.clone()).enroll_worker(bench.as_admin(request)).await;
    assert_eq!(reason(&enrolled.unwrap_err()), Reason::TlsRequired);
    bench.app.stop().await;
}

#[tokio::test]
async fn it_is_written_down_who_did_something_and_when_a_token_was_used() {
    let data = tempfile::tempdir().unwrap();
    let config = Config { upkeep_interval: Duration::from_millis(20), ..settings(data.path()).await };
    let bench = Bench::start_with(config).await;
    let token = create(&bench, wanted("grace", "operator")).await.unwrap();
    assert!(list(&bench).await[0].last_use_time.is_none());
    let _worker = bench.register("mail-1").await;
    let request = bearing(&token, v1::DrainWorkerRequest { worker: "mail-1".into() });
    let drained = WorkerServiceClient::new(bench.channel.clone()).drain_worker(request).await.unwrap().into_inner();
    assert_eq!(drained.decided_by, "grace");
    let used = async {
        while list(&bench).await[0].last_use_time.is_none() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, used).await.expect("its use is not recorded");
    bench.app.stop().await;
}

//! Who did what, over the real services.

use http_body_util::BodyExt as _;
use postroom_control_plane::access::role::Role;
use postroom_control_plane::audit::table::rule;
use postroom_proto::reason::Reason;
use postroom_proto::v1::audit_service_client::AuditServiceClient;
use postroom_proto::v1::definition_service_client::DefinitionServiceClient;
use postroom_proto::v1::worker_service_client::WorkerServiceClient;
use postroom_proto::v1::{self, AuditOutcome};
use prost_reflect::DescriptorPool;
use sqlx::{ConnectOptions as _, Connection as _};
use tonic::Request;
use tower::ServiceExt as _;

use crate::bench::{Bench, bearing, reason};

async fn audit(bench: &Bench, request: v1::ListAuditRequest) -> Vec<v1::AuditEntry> {
    let mut audit = AuditServiceClient::new(bench.channel.clone());
    audit.list_audit(bench.as_admin(request)).await.unwrap().into_inner().entries
}

fn of(rpc: &str) -> v1::ListAuditRequest {
    v1::ListAuditRequest { rpc: rpc.into(), ..Default::default() }
}

fn instance(name: &str) -> v1::ApplyModelRequest {
    let instances = vec![v1::Instance { name: name.into(), ..Default::default() }];
    v1::ApplyModelRequest { model: Some(v1::Model { instances, ..Default::default() }), ..Default::default() }
}

/// Something that the ledger does from now on.
async fn alter(data: &std::path::Path, statement: &'static str) {
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(data.join("ledger.db"));
    let mut ledger = options.connect().await.unwrap();
    sqlx::query(statement).execute(&mut ledger).await.unwrap();
    ledger.close().await.unwrap();
}

#[tokio::test]
async fn a_change_is_told_with_who_where_what_and_each_field_and_no_secret() {
    let data = tempfile::tempdir().unwrap();
    let bench = Bench::start(data.path()).await;
    let mut definitions = DefinitionServiceClient::new(bench.channel.clone());
    let queue = v1::Queue { name: "Billing".into(), instance: "core1".into(), priority: 7, ..Default::default() };
    let request = v1::ApplyModelRequest {
        model: Some(v1::Model { queues: vec![queue], ..Default::default() }),
        validate_only: true,
        ..Default::default()
    };
    definitions.apply_model(bench.as_admin(request.clone())).await.unwrap();
    let request = v1::ApplyModelRequest { validate_only: false, ..request };
    definitions.apply_model(bench.as_admin(request)).await.unwrap();
    let entries = audit(&bench, of("ApplyModel")).await;
    assert_eq!(entries.len(), 2, "what only asks is not written down: {entries:?}");
    let (second, first) = (&entries[0], &entries[1]);
    assert_eq!(
        (second.outcome(), second.role.as_str(), second.address.as_str()),
        (AuditOutcome::Done, "admin", "127.0.0.1")
    );
    assert!(!second.who.is_empty() && second.time.is_some() && second.count == 1, "{second:?}");
    let told: serde_json::Value = serde_json::from_str(&second.changes).unwrap();
    assert_eq!(told["revision"], 2, "{told}");
    let fields = told["changes"][0]["fields"].as_array().unwrap();
    assert!(fields.iter().any(|it| it["field"] == "priority" && it["new"] == "7"), "{told}");
    assert!(first.changes.contains("password: set") && !format!("{entries:?}").contains("planted"), "{first:?}");

    // One that is refused by what it asks for, and one by somebody who may not.
    let failed =
        definitions.rollback_model(bench.as_admin(v1::RollbackModelRequest { revision: 99, ..Default::default() }));
    failed.await.unwrap_err();
    let failed = audit(&bench, of("RollbackModel")).await.remove(0);
    let expected = (AuditOutcome::Failed, "NOT_FOUND", "99");
    assert_eq!((failed.outcome(), failed.reason.as_str(), failed.subject.as_str()), expected);
    let mut workers = WorkerServiceClient::new(bench.channel.clone());
    let drain = v1::DrainWorkerRequest { worker: "mail-1".into() };
    workers.drain_worker(bench.as_core2(drain)).await.unwrap_err();
    let listing = AuditServiceClient::new(bench.channel.clone()).list_audit(bench.as_worker(of(""))).await;
    assert_eq!(reason(&listing.unwrap_err()), Reason::PermissionDenied, "it is for admins");
    bench.app.stop().await;

    // What was turned away is written down at the latest when it stops.
    let bench = Bench::start_undefined(data.path()).await;
    let refused = audit(&bench, v1::ListAuditRequest { refused: true, ..of("DrainWorker") }).await.remove(0);
    assert_eq!((refused.outcome(), refused.reason.as_str()), (AuditOutcome::Refused, "PERMISSION_DENIED"));
    assert_eq!((refused.role.as_str(), refused.address.as_str()), ("instance:core2", "127.0.0.1"));
    bench.app.stop().await;
}

/// By the table: a call that is to be written down and is not would change something behind the audit.
#[tokio::test]
async fn every_call_that_changes_something_is_written_down_whatever_becomes_of_it() {
    let data = tempfile::tempdir().unwrap();
    let bench = Bench::start_undefined(data.path()).await;
    let pool = DescriptorPool::decode(v1::FILE_DESCRIPTOR_SET).unwrap();
    let paths = pool.services().flat_map(|service| {
        let name = service.full_name().to_owned();
        service.methods().map(move |method| format!("/{name}/{}", method.name())).collect::<Vec<_>>()
    });
    let changing: Vec<String> = paths.filter(|path| rule(path).covers(&Role::Admin)).collect();
    assert!(changing.len() > 20, "{changing:?}");
    for path in &changing {
        // An empty message, as any client would send it.
        let body = tonic::body::Body::new(http_body_util::Full::new(bytes::Bytes::from_static(&[0; 5])));
        let (metadata, _, ()) = bench.as_admin(()).into_parts();
        let mut request = http::Request::post(path.as_str()).body(body).unwrap();
        request.headers_mut().extend(metadata.into_headers());
        request.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
        request.headers_mut().insert("te", "trailers".parse().unwrap());
        let answer = bench.channel.clone().oneshot(request).await.unwrap();
        drop(answer.into_body().collect().await);
    }
    let request = v1::ListAuditRequest { page_size: 1000, ..Default::default() };
    let told = audit(&bench, request).await;
    for path in &changing {
        let entry = told.iter().find(|entry| entry.rpc == path[1..]);
        let entry = entry.unwrap_or_else(|| panic!("{path} left nothing in the audit"));
        assert!([AuditOutcome::Done, AuditOutcome::Failed].contains(&entry.outcome()), "{entry:?}");
    }
    bench.app.stop().await;
}

#[tokio::test]
async fn what_cannot_be_written_down_is_not_done_and_an_outcome_that_cannot_is_not_known() {
    let data = tempfile::tempdir().unwrap();
    let bench = Bench::start(data.path()).await;
    let mut definitions = DefinitionServiceClient::new(bench.channel.clone());
    alter(data.path(), "CREATE TRIGGER full BEFORE INSERT ON audit BEGIN SELECT RAISE(ABORT, 'disk full'); END").await;
    let refused = definitions.apply_model(bench.as_admin(instance("core7"))).await.unwrap_err();
    assert_eq!(reason(&refused), Reason::StorageFailed);
    assert!(refused.message().contains("nothing was done") && refused.message().contains("disk full"), "{refused:?}");
    let model = definitions.export_model(bench.as_admin(v1::ExportModelRequest::default())).await.unwrap().into_inner();
    assert_eq!(model.revision, 1, "and nothing was");
    alter(data.path(), "DROP TRIGGER full").await;

    alter(data.path(), "CREATE TRIGGER full BEFORE INSERT ON audit_outcome BEGIN SELECT RAISE(ABORT, 'full'); END")
        .await;
    definitions.apply_model(bench.as_admin(instance("core7"))).await.unwrap();
    let entry = audit(&bench, of("ApplyModel")).await.remove(0);
    assert_eq!(entry.outcome(), AuditOutcome::Unknown, "{entry:?}");
    bench.app.stop().await;
}

#[tokio::test]
async fn a_flood_of_forged_tokens_is_few_rows_and_counted_whole() {
    let data = tempfile::tempdir().unwrap();
    let bench = Bench::start_undefined(data.path()).await;
    let mut definitions = DefinitionServiceClient::new(bench.channel.clone());
    for n in 0..300 {
        let forged = bearing(&format!("forged-{n}").into(), instance("core1"));
        assert_eq!(reason(&definitions.apply_model(forged).await.unwrap_err()), Reason::Unauthenticated);
    }
    definitions.apply_model(Request::new(instance("core1"))).await.unwrap_err();
    bench.app.stop().await;
    let bench = Bench::start_undefined(data.path()).await;
    let told = audit(&bench, v1::ListAuditRequest { refused: true, ..Default::default() }).await;
    assert_eq!(told.iter().map(|it| it.count).sum::<u64>(), 301, "{told:?}");
    assert!(told.len() <= 4, "a row a minute and call: {told:?}");
    assert!(!format!("{told:?}").contains("forged"), "no token is kept");
    bench.app.stop().await;
}

#[tokio::test]
async fn the_audit_is_listed_page_by_page() {
    let data = tempfile::tempdir().unwrap();
    let bench = Bench::start_undefined(data.path()).await;
    let mut definitions = DefinitionServiceClient::new(bench.channel.clone());
    for n in 0..7 {
        definitions.apply_model(bench.as_admin(instance(&format!("core{n}")))).await.unwrap();
    }
    let (mut seen, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = v1::ListAuditRequest { page_size: 3, page_token, ..of("ApplyModel") };
        let mut client = AuditServiceClient::new(bench.channel.clone());
        let page = client.list_audit(bench.as_admin(request)).await.unwrap().into_inner();
        seen.extend(page.entries.into_iter().map(|it| it.id.parse::<u64>().unwrap()));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert!(seen.len() == 7 && seen.is_sorted_by(|a, b| a > b), "{seen:?}");
    bench.app.stop().await;
}

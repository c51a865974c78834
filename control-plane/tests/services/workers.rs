//! What operators see of the workers and decide about them, over the real services.

use std::time::Duration;

use postroom_proto::reason::{Failure, Reason};
use postroom_proto::v1::operator_service_client::OperatorServiceClient;
use postroom_proto::v1::worker_service_client::WorkerServiceClient;
use postroom_proto::v1::{self, MoveReason, UnassignedReason, WorkerRole, WorkerState};
use tonic::transport::Channel;
use tonic::{Response, Status};

use crate::bench::{Bench, Session};

fn workers(bench: &Bench) -> WorkerServiceClient<Channel> {
    WorkerServiceClient::new(bench.channel.clone())
}

async fn list(bench: &Bench) -> v1::ListWorkersResponse {
    workers(bench).list_workers(bench.as_admin(v1::ListWorkersRequest {})).await.unwrap().into_inner()
}

async fn drain(bench: &Bench, worker: &str) -> Result<v1::Worker, Status> {
    let request = bench.as_admin(v1::DrainWorkerRequest { worker: worker.into() });
    workers(bench).drain_worker(request).await.map(Response::into_inner)
}

async fn undrain(bench: &Bench, worker: &str) -> v1::Worker {
    let request = bench.as_admin(v1::UndrainWorkerRequest { worker: worker.into() });
    workers(bench).undrain_worker(request).await.unwrap().into_inner()
}

async fn freeze(bench: &Bench, note: &str, duration: Option<i64>) -> Result<v1::Freeze, Status> {
    let duration = duration.map(|seconds| prost_types::Duration { seconds, nanos: 0 });
    let request = bench.as_admin(v1::FreezeWorkersRequest { note: note.into(), duration });
    workers(bench).freeze_workers(request).await.map(Response::into_inner)
}

async fn mailbox(bench: &Bench) -> v1::Mailbox {
    let request = bench.as_admin(v1::GetMailboxRequest { mailbox: "billing@contoso.example".into() });
    OperatorServiceClient::new(bench.channel.clone()).get_mailbox(request).await.unwrap().into_inner()
}

async fn concerns(bench: &Bench) -> Vec<String> {
    let request = bench.as_admin(v1::GetStatusRequest {});
    let status = OperatorServiceClient::new(bench.channel.clone()).get_status(request).await.unwrap().into_inner();
    status.concerns.into_iter().map(|concern| concern.code).collect()
}

/// Beats both until the second is offered the mailbox.
async fn handed_over(from: &mut Session<'_>, to: &mut Session<'_>) -> v1::OfferedMailbox {
    for _ in 0..500 {
        from.heartbeat().await;
        if let Some(offer) = to.heartbeat().await.pop() {
            return offer;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the mailbox was never handed over");
}

fn fields(status: &Status) -> Vec<String> {
    let failure = Failure::from_status(status).unwrap();
    assert_eq!(failure.reason, Reason::InvalidField);
    failure.fields.into_iter().map(|fault| fault.field).collect()
}

#[tokio::test]
async fn a_drained_worker_gives_its_mailbox_away_and_the_mailbox_says_why() {
    let data = tempfile::tempdir().unwrap();
    let bench = Bench::start(data.path()).await;
    let mut first = bench.register("first").await;
    let before = first.offered().await;
    assert_eq!(mailbox(&bench).await.holder.unwrap().reason(), MoveReason::New);
    let mut second = bench.register("second").await;

    let drained = drain(&bench, "first").await.unwrap();
    assert!(drained.drained && drained.decided_by == "admin" && drained.decision_time.is_some(), "{drained:?}");
    assert!(list(&bench).await.workers[0].drained, "whoever looks next sees it");
    let after = handed_over(&mut first, &mut second).await;
    assert!(after.epoch > before.epoch && after.mailbox == before.mailbox);
    let held = mailbox(&bench).await;
    let holder = held.holder.unwrap();
    assert_eq!((holder.worker.as_str(), holder.former_worker.as_str()), ("second", "first"));
    assert_eq!((holder.reason(), held.pool.as_str()), (MoveReason::Operator, "default"));
    assert!(holder.since_time.is_some());

    let again = drain(&bench, "first").await.unwrap();
    assert_eq!(again.decision_time, drained.decision_time, "deciding it again changes nothing");
    assert!(!undrain(&bench, "first").await.drained);
    second.leave().await;
    first.offered().await;
    let holder = mailbox(&bench).await.holder.unwrap();
    assert_eq!((holder.worker.as_str(), holder.reason()), ("first", MoveReason::WorkerLeft));
    bench.app.stop().await;
}

#[tokio::test]
async fn workers_are_listed_with_what_they_said_and_what_was_decided() {
    let data = tempfile::tempdir().unwrap();
    let bench = Bench::start(data.path()).await;
    let mut active = bench.register("active").await;
    active.offered().await;
    let request = v1::RegisterRequest {
        worker_name: "north-1".into(),
        build: "1.2.3".into(),
        pool: "north".into(),
        role: WorkerRole::Spare.into(),
        capacity: 50,
    };
    let north = bench.register_as(request).await;
    let listed = list(&bench).await;
    assert!(listed.freeze.is_none() && listed.brake_until_time.is_none());
    let [one, two] = listed.workers.as_slice() else { panic!("{listed:?}") };
    assert_eq!((one.name.as_str(), one.state(), one.mailbox_count), ("active", WorkerState::Live, 1));
    assert_eq!((two.name.as_str(), two.pool.as_str(), two.build.as_str()), ("north-1", "north", "1.2.3"));
    assert_eq!((two.role(), two.role_set, two.capacity, two.mailbox_count), (WorkerRole::Spare, false, 50, 0));
    assert!(two.session == north.id && two.start_time.is_some() && two.heartbeat_time.is_some());

    let set = |role: WorkerRole| {
        let request = v1::SetWorkerRoleRequest { worker: "north-1".into(), role: role.into() };
        let (mut client, request) = (workers(&bench), bench.as_admin(request));
        async move { client.set_worker_role(request).await.unwrap().into_inner() }
    };
    let changed = set(WorkerRole::Active).await;
    assert_eq!((changed.role(), changed.role_set), (WorkerRole::Active, true));
    north.leave().await;
    let gone = list(&bench).await.workers.remove(1);
    assert_eq!((gone.state(), gone.role_set), (WorkerState::Gone, true), "what is in force keeps it known");
    let back = set(WorkerRole::Unspecified).await;
    assert!(!back.role_set);
    assert_eq!(list(&bench).await.workers.len(), 1);

    let unknown = drain(&bench, "nobody").await.unwrap_err();
    assert_eq!(Failure::from_status(&unknown).unwrap().reason, Reason::NotFound);
    let request = v1::SetWorkerRoleRequest { worker: "active".into(), role: 9 };
    let wrong = workers(&bench).set_worker_role(bench.as_admin(request)).await.unwrap_err();
    assert_eq!(fields(&wrong), ["role"]);
    bench.app.stop().await;
}

#[tokio::test]
async fn a_freeze_keeps_everything_where_it_is_until_it_ends() {
    let data = tempfile::tempdir().unwrap();
    let bench = Bench::start(data.path()).await;
    let mut first = bench.register("first").await;
    first.offered().await;
    let wrong = freeze(&bench, &"x".repeat(201), Some(8 * 24 * 3600)).await.unwrap_err();
    assert_eq!(fields(&wrong), ["note", "duration"]);
    assert_eq!(fields(&freeze(&bench, "", Some(-1)).await.unwrap_err()), ["duration"]);

    let frozen = freeze(&bench, "etcd is moved", Some(3600)).await.unwrap();
    assert!(frozen.frozen_by == "admin" && frozen.until_time.is_some(), "{frozen:?}");
    assert_eq!(list(&bench).await.freeze, Some(frozen));
    let mut second = bench.register("second").await;
    first.leave().await;
    for _ in 0..10 {
        assert!(second.heartbeat().await.is_empty());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let unread = mailbox(&bench).await;
    assert_eq!((unread.holder.is_none(), unread.unassigned_reason()), (true, UnassignedReason::Frozen));
    assert_eq!(concerns(&bench).await, ["FROZEN", "UNREAD_MAILBOXES"]);
    workers(&bench).unfreeze_workers(bench.as_admin(v1::UnfreezeWorkersRequest {})).await.unwrap();
    second.offered().await;
    assert!(list(&bench).await.freeze.is_none() && concerns(&bench).await.is_empty());
    bench.app.stop().await;
}

#[tokio::test]
async fn a_mailbox_that_nobody_can_carry_or_whose_pool_has_no_worker_says_so() {
    let data = tempfile::tempdir().unwrap();
    let bench = Bench::start(data.path()).await;
    let request = v1::RegisterRequest { worker_name: "north-1".into(), pool: "north".into(), ..Default::default() };
    let mut north = bench.register_as(request).await;
    for _ in 0..500 {
        assert!(north.heartbeat().await.is_empty());
        if mailbox(&bench).await.unassigned_reason() == UnassignedReason::NoWorker {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(mailbox(&bench).await.unassigned_reason(), UnassignedReason::NoWorker);
    assert_eq!(concerns(&bench).await, ["UNREAD_MAILBOXES"]);
    bench.app.stop().await;
}

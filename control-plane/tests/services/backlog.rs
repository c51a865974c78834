//! Old messages that wait for an operator, with a worker that is played here: what it is told, when it is called, and what is
//! refused.

use postroom_proto::reason::{Failure, Reason};
use postroom_proto::v1::errand::Task;
use postroom_proto::v1::operator_service_client::OperatorServiceClient;
use postroom_proto::v1::{self, BacklogState, open_outcome::Outcome};
use tonic::Status;
use tonic::transport::Channel;

use crate::bench::{Bench, Session, reason};
use crate::messages::{answer, errand};

const EMAIL: &str = "billing@contoso.example";

fn operators(bench: &Bench) -> OperatorServiceClient<Channel> {
    OperatorServiceClient::new(bench.channel.clone())
}

async fn approve(bench: &Bench, request: v1::ApproveBacklogRequest) -> Result<v1::Backlog, Status> {
    operators(bench).approve_backlog(bench.as_admin(request)).await.map(tonic::Response::into_inner)
}

async fn stop(bench: &Bench) -> Result<v1::Backlog, Status> {
    let request = v1::StopBacklogRequest { mailbox: EMAIL.into() };
    operators(bench).stop_backlog(bench.as_admin(request)).await.map(tonic::Response::into_inner)
}

fn at_once(mailbox: &str) -> v1::ApproveBacklogRequest {
    v1::ApproveBacklogRequest { mailbox: mailbox.into(), ..Default::default() }
}

fn progress(taken_count: u64, finished: bool) -> Option<v1::BacklogProgress> {
    Some(v1::BacklogProgress { message_count: 7, taken_count, left_count: 0, finished })
}

/// What the worker is told of the decision when it opens the mailbox.
async fn told(worker: &Session<'_>, offer: &v1::OfferedMailbox) -> Option<v1::BacklogRelease> {
    let Outcome::Opened(opened) = worker.open(&offer.mailbox, offer.epoch).await else { panic!("it is not opened") };
    assert_eq!(opened.definition.unwrap().backlog_guard, Some(1000));
    opened.backlog_release
}

#[tokio::test]
async fn the_reader_is_called_when_somebody_decides_and_takes_nothing_against_it() {
    let data = tempfile::tempdir().unwrap();
    let bench = Bench::start(data.path()).await;
    let mut worker = bench.register("worker").await;
    let offer = worker.offered().await;
    assert_eq!(told(&worker, &offer).await, None);
    let refused = approve(&bench, at_once(EMAIL)).await.unwrap_err();
    assert_eq!(reason(&refused), Reason::NoBacklog);
    let anchor = v1::ReportRequest { messages: vec![], backlog: progress(0, false), ..worker.batch(&offer, 0, 1) };
    worker.report(&anchor).await.unwrap();
    assert_eq!(told(&worker, &offer).await, Some(v1::BacklogRelease::default()));

    let request = bench.as_admin(v1::GetMailboxRequest { mailbox: EMAIL.into() });
    let shown = operators(&bench).get_mailbox(request).await.unwrap().into_inner().backlog.unwrap();
    assert_eq!((shown.state(), shown.message_count), (BacklogState::Waiting, 7));
    assert!(shown.cause.contains("7 of 7") && shown.remedy.contains(&format!("approve {EMAIL}")), "{shown:?}");
    let status = operators(&bench).get_status(bench.as_admin(v1::GetStatusRequest {})).await.unwrap().into_inner();
    let concern = status.concerns.iter().find(|concern| concern.code == "BACKLOG").unwrap();
    assert_eq!((concern.subject.as_str(), &concern.remedy), (EMAIL, &shown.remedy));

    let take = |from: u8, taken, finished| v1::ReportRequest {
        backlog: progress(taken, finished),
        ..worker.batch(&offer, from, from + 1)
    };
    assert_eq!(worker.report(&take(1, 1, false)).await.unwrap_err(), Reason::CursorMismatch);
    assert_eq!(bench.contacts().await, 0);
    let since_time = Some(prost_types::Timestamp { seconds: 1_767_225_600, nanos: 0 });
    let request = v1::ApproveBacklogRequest { since_time, rate_per_minute: 30, ..at_once(EMAIL) };
    let (approved, ()) = tokio::join!(approve(&bench, request), called(&bench, &worker));
    let approved = approved.unwrap();
    assert_eq!((approved.state(), approved.rate_per_minute), (BacklogState::Releasing, 30));
    let decision = &approved.decisions[0];
    assert_eq!((decision.by.as_str(), decision.since_time, decision.time.is_some()), ("admin", since_time, true));
    let release = v1::BacklogRelease { released: true, since_time, rate_per_minute: 30 };
    assert_eq!(told(&worker, &offer).await, Some(release));
    worker.report(&take(1, 3, false)).await.unwrap();

    let (stopped, ()) = tokio::join!(stop(&bench), called(&bench, &worker));
    let stopped = stopped.unwrap();
    assert_eq!((stopped.state(), stopped.taken_count, stopped.decisions.len()), (BacklogState::Stopped, 3, 2));
    assert!(stopped.cause.contains("4 of 7"), "{stopped:?}");
    assert_eq!(worker.report(&take(2, 4, false)).await.unwrap_err(), Reason::CursorMismatch);
    assert_eq!(bench.contacts().await, 1);

    let (again, ()) = tokio::join!(approve(&bench, at_once(EMAIL)), called(&bench, &worker));
    again.unwrap();
    worker.report(&take(2, 7, true)).await.unwrap();
    let request = bench.as_admin(v1::GetBacklogRequest { mailbox: EMAIL.into() });
    let ended = operators(&bench).get_backlog(request).await.unwrap().into_inner();
    assert_eq!((ended.state(), ended.taken_count, ended.remedy.as_str()), (BacklogState::Finished, 7, ""));
    assert_eq!(reason(&stop(&bench).await.unwrap_err()), Reason::NoBacklog);
    bench.app.stop().await;
}

/// The worker is called to open the mailbox again.
async fn called(bench: &Bench, worker: &Session<'_>) {
    let call = errand(bench, &worker.id).await;
    assert!(matches!(call.task, Some(Task::Settle(_))), "{call:?}");
    answer(bench, &worker.id, &call, vec![], None).await;
}

#[tokio::test]
async fn what_is_asked_for_in_vain_is_told_with_a_remedy() {
    let data = tempfile::tempdir().unwrap();
    let bench = Bench::start(data.path()).await;
    let future = Some(prost_types::Timestamp { seconds: 32_503_680_000, nanos: 0 });
    let refused =
        approve(&bench, v1::ApproveBacklogRequest { since_time: future, ..at_once(EMAIL) }).await.unwrap_err();
    let failure = Failure::from_status(&refused).unwrap();
    assert_eq!((failure.reason, failure.fields[0].field.as_str()), (Reason::InvalidField, "since"));
    assert!(failure.fields[0].description.contains("2026-01-31"), "{failure}");
    assert_eq!(reason(&approve(&bench, at_once("nobody@contoso.example")).await.unwrap_err()), Reason::NotFound);
    let refused = stop(&bench).await.unwrap_err();
    assert_eq!(reason(&refused), Reason::NoBacklog);
    assert!(refused.message().contains("mailbox show"), "{refused:?}");
    bench.app.stop().await;
}

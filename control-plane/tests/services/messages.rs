//! Messages replayed, discarded and reconciled, with a worker that is played here: what it is asked, and that only what the
//! holder read becomes a contact.

use futures::StreamExt as _;
use postroom_control_plane::access::role::Role;
use postroom_proto::reason::Reason;
use postroom_proto::v1::errand::Task;
use postroom_proto::v1::errand_service_client::ErrandServiceClient;
use postroom_proto::v1::message_service_client::MessageServiceClient;
use postroom_proto::v1::reconcile_mailbox_response::Told;
use postroom_proto::v1::report_errand_request::Found;
use postroom_proto::v1::reported_message::Raw;
use postroom_proto::v1::{self, Disposition, FindingKind};
use tonic::Status;
use tonic::transport::Channel;

use crate::bench::{Bench, Session, reason};

const EMAIL: &str = "billing@contoso.example";

fn messages(bench: &Bench) -> MessageServiceClient<Channel> {
    MessageServiceClient::new(bench.channel.clone())
}

async fn get(bench: &Bench, id: &str) -> v1::Message {
    let request = bench.as_admin(v1::GetMessageRequest { message: id.into() });
    messages(bench).get_message(request).await.unwrap().into_inner()
}

async fn replay(bench: &Bench, id: &str) -> Result<v1::ReplayMessageResponse, Status> {
    let request = bench.as_admin(v1::ReplayMessageRequest { message: id.into() });
    messages(bench).replay_message(request).await.map(tonic::Response::into_inner)
}

/// Reports one quarantined message whose raw form is kept; its id.
async fn quarantined(bench: &Bench, worker: &Session<'_>, offer: &v1::OfferedMailbox) -> String {
    let mut batch = worker.batch(offer, 0, 1);
    batch.messages[0] = v1::ReportedMessage {
        source_key: "1:1".into(),
        disposition: Disposition::Quarantined.into(),
        reason: "a defect".into(),
        attempt_count: 2,
        raw: Some(Raw::RawMessage("kept".into())),
        ..Default::default()
    };
    worker.report(&batch).await.unwrap();
    let listed = messages(bench).list_messages(bench.as_admin(v1::ListMessagesRequest::default())).await;
    let [message] = listed.unwrap().into_inner().messages.try_into().unwrap();
    assert_eq!((message.attempt_count, message.email.as_str(), message.raw_kept), (2, EMAIL, true));
    message.id
}

/// Waits for the next errand of a session.
pub(crate) async fn errand(bench: &Bench, session: &str) -> v1::Errand {
    let mut errands = ErrandServiceClient::new(bench.channel.clone());
    loop {
        let wait = Some(prost_types::Duration { seconds: 5, nanos: 0 });
        let request = v1::TakeErrandsRequest { session: session.into(), wait };
        let taken = errands.take_errands(bench.as_worker(request)).await.unwrap().into_inner().errands;
        if let Some(errand) = taken.into_iter().next() {
            return errand;
        }
    }
}

pub(crate) async fn answer(
    bench: &Bench,
    session: &str,
    errand: &v1::Errand,
    found: Vec<Found>,
    problem: Option<v1::Problem>,
) {
    let mut errands = ErrandServiceClient::new(bench.channel.clone());
    let count = found.len();
    let told = found.into_iter().map(Some).chain([None]);
    for (at, found) in told.enumerate() {
        let ended = at == count;
        let request = v1::ReportErrandRequest {
            session: session.into(),
            errand: errand.id.clone(),
            sequence: u32::try_from(at).unwrap() + 1,
            found,
            ended,
            problem: problem.clone().filter(|_| ended),
        };
        errands.report_errand(bench.as_worker(request)).await.unwrap();
    }
}

fn read(key: &str) -> Found {
    Found::Message(v1::ReportedMessage {
        source_key: key.into(),
        disposition: Disposition::Contact.into(),
        size_bytes: 4,
        raw: Some(Raw::RawMessage("kept".into())),
        content: Some(v1::ContactContent::default()),
        ..Default::default()
    })
}

#[tokio::test]
async fn a_kept_message_is_read_by_the_holder_and_becomes_one_contact() {
    let data = tempfile::tempdir().unwrap();
    let bench = Bench::start(data.path()).await;
    let mut worker = bench.register("worker").await;
    let offer = worker.offered().await;
    worker.open(&offer.mailbox, offer.epoch).await;
    let id = quarantined(&bench, &worker, &offer).await;

    let doing = async {
        let fetch = errand(&bench, &worker.id).await;
        let Some(Task::Fetch(task)) = &fetch.task else { panic!("{fetch:?}") };
        assert_eq!((task.source_key.as_str(), task.raw_message.as_ref()), ("1:1", b"kept".as_slice()));
        assert_eq!(task.lease.as_ref().map(|lease| lease.epoch), Some(offer.epoch));
        answer(&bench, &worker.id, &fetch, vec![read("1:1")], None).await;
        // Only now, when it is durable, the worker is called to settle.
        let settle = errand(&bench, &worker.id).await;
        assert!(matches!(settle.task, Some(Task::Settle(_))), "{settle:?}");
        assert!(!get(&bench, &id).await.settled);
        answer(&bench, &worker.id, &settle, vec![], None).await;
    };
    let (replayed, ()) = tokio::join!(replay(&bench, &id), doing);
    let replayed = replayed.unwrap();
    let message = replayed.message.unwrap();
    assert!(!replayed.already_contact && message.disposition() == Disposition::Contact);
    assert_eq!(bench.contacts().await, 1);
    let again = replay(&bench, &id).await.unwrap();
    assert!(again.already_contact && again.message.unwrap().contact == message.contact, "nobody is asked again");
    let discard = bench.as_admin(v1::DiscardMessageRequest { message: id, reason: String::new() });
    let refused = messages(&bench).discard_message(discard).await.unwrap_err();
    assert_eq!(reason(&refused), Reason::WrongDisposition);
    bench.app.stop().await;
}

#[tokio::test]
async fn what_a_former_holder_read_becomes_nothing() {
    let data = tempfile::tempdir().unwrap();
    let bench = Bench::start(data.path()).await;
    let mut first = bench.register("first").await;
    let offer = first.offered().await;
    first.open(&offer.mailbox, offer.epoch).await;
    let id = quarantined(&bench, &first, &offer).await;

    let doing = async {
        let fetch = errand(&bench, &first.id).await;
        // The answer is under way while the mailbox moves to another worker, which opens it.
        let mut second = bench.register("second").await;
        second.heartbeat().await;
        let name = second.id.clone();
        first.leave().await;
        let moved = second.offered().await;
        second.open(&moved.mailbox, moved.epoch).await;
        answer(&bench, &first.id, &fetch, vec![read("1:1")], None).await;
        name
    };
    let (replayed, _) = tokio::join!(replay(&bench, &id), doing);
    let refused = reason(&replayed.unwrap_err());
    assert!(matches!(refused, Reason::LeaseLost | Reason::NoWorker), "{refused:?}");
    assert_eq!((bench.contacts().await, get(&bench, &id).await.disposition()), (0, Disposition::Quarantined));
    bench.app.stop().await;
}

#[tokio::test]
async fn what_cannot_be_read_again_says_why() {
    let data = tempfile::tempdir().unwrap();
    let bench = Bench::start(data.path()).await;
    let mut worker = bench.register("worker").await;
    let offer = worker.offered().await;
    worker.open(&offer.mailbox, offer.epoch).await;
    let id = quarantined(&bench, &worker, &offer).await;
    let problem = |code: &str| v1::Problem { code: code.into(), cause: "it is so".into(), ..Default::default() };
    for (found, problem, expected) in [
        (vec![], Some(problem("MESSAGE_GONE")), Reason::MessageGone),
        (vec![], Some(problem("MESSAGE_NOT_GIVEN")), Reason::MessageUnreadable),
        (vec![], Some(problem("UNREACHABLE")), Reason::ErrandFailed),
        (vec![], None, Reason::Internal),
        (vec![read("1:2")], None, Reason::Internal),
    ] {
        worker.heartbeat().await;
        let doing = async {
            let fetch = errand(&bench, &worker.id).await;
            answer(&bench, &worker.id, &fetch, found, problem).await;
        };
        let (replayed, ()) = tokio::join!(replay(&bench, &id), doing);
        assert_eq!(reason(&replayed.unwrap_err()), expected);
    }
    assert_eq!((bench.contacts().await, get(&bench, &id).await.disposition()), (0, Disposition::Quarantined));
    let unknown = replay(&bench, "no-number").await.unwrap_err();
    assert_eq!(reason(&unknown), Reason::NotFound);
    bench.app.stop().await;
}

#[tokio::test]
async fn a_message_that_the_ledger_has_lost_is_found() {
    let data = tempfile::tempdir().unwrap();
    let bench = Bench::start(data.path()).await;
    let mut worker = bench.register("worker").await;
    let offer = worker.offered().await;
    worker.open(&offer.mailbox, offer.epoch).await;
    for to in 1..=3 {
        worker.report(&worker.batch(&offer, to - 1, to)).await.unwrap();
    }
    let listed = |key: &str, pending| v1::FolderMessage { source_key: key.into(), pending, ..Default::default() };
    for (renumbered, clean) in [(false, false), (true, false)] {
        worker.heartbeat().await;
        let doing = async {
            let list = errand(&bench, &worker.id).await;
            let Some(Task::List(task)) = &list.task else { panic!("{list:?}") };
            assert_eq!(task.cursor.as_ref().map(|cursor| cursor.value.clone()), Some(vec![3]), "what is committed");
            let first = v1::FolderPart { messages: vec![], renumbered };
            let both = vec![listed("1:1", false), listed("1:4", true)];
            let rest = vec![listed("1:2", false), listed("1:99", false)];
            let parts = [both, rest].map(|messages| Found::Part(v1::FolderPart { messages, renumbered: false }));
            let parts = std::iter::once(Found::Part(first)).chain(parts.into_iter().filter(|_| !renumbered));
            answer(&bench, &worker.id, &list, parts.collect(), None).await;
        };
        let request = bench.as_admin(v1::ReconcileMailboxRequest { mailbox: EMAIL.into(), all: false });
        let mut client = messages(&bench);
        let telling = async {
            let stream = client.reconcile_mailbox(request).await.unwrap().into_inner();
            stream.map(|told| told.unwrap().told.unwrap()).collect::<Vec<_>>().await
        };
        let (mut told, ()) = tokio::join!(telling, doing);
        let Some(Told::Summary(summary)) = told.pop() else { panic!("{told:?}") };
        assert_eq!((summary.clean, summary.renumbered, summary.ledger_count), (clean, renumbered, 3));
        let findings: Vec<_> = told
            .iter()
            .filter_map(|told| match told {
                Told::Finding(finding) => Some((finding.kind(), finding.source_key.as_str())),
                _ => None,
            })
            .collect();
        let expected =
            [(FindingKind::Pending, "1:4"), (FindingKind::Missing, "1:99"), (FindingKind::GoneUnsettled, "1:3")];
        assert_eq!(findings, if renumbered { &[][..] } else { &expected });
    }
    bench.app.stop().await;
}

#[test]
fn viewers_look_and_operators_decide() {
    let path = |method: &str| format!("/postroom.v1.MessageService/{method}");
    for method in ["ListMessages", "GetMessage", "ReconcileMailbox"] {
        assert!(Role::Viewer.may_call(&path(method)) && !Role::Worker(None).may_call(&path(method)), "{method}");
    }
    for method in ["GetMessageRaw", "ReplayMessage", "DiscardMessage"] {
        assert!(!Role::Viewer.may_call(&path(method)) && Role::Operator.may_call(&path(method)), "{method}");
        assert!(!Role::Instance("core1".into()).may_call(&path(method)), "{method}");
    }
}

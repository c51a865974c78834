use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use postroom_proto::v1::report_service_server::{ReportService, ReportServiceServer};
use tokio::net::TcpListener;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Streaming};

use super::*;

/// Opens every mailbox but `mbx-refused`, slowly, and counts the calls.
#[derive(Clone, Default)]
struct Desk {
    calls: Arc<AtomicUsize>,
    largest: Arc<AtomicUsize>,
}

#[tonic::async_trait]
impl ReportService for Desk {
    async fn open_mailboxes(
        &self,
        request: Request<v1::OpenMailboxesRequest>,
    ) -> Result<Response<v1::OpenMailboxesResponse>, Status> {
        let leases = request.into_inner().leases;
        self.calls.fetch_add(1, Ordering::SeqCst);
        self.largest.fetch_max(leases.len(), Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(20)).await;
        let outcomes = leases.into_iter().map(|lease| v1::OpenOutcome {
            outcome: Some(match lease.mailbox.as_str() {
                "mbx-refused" => v1::open_outcome::Outcome::Refused(v1::Refusal {
                    reason: "LEASE_LOST".into(),
                    message: String::new(),
                }),
                _ => v1::open_outcome::Outcome::Opened(v1::OpenedMailbox {
                    generation: lease.epoch,
                    ..v1::OpenedMailbox::default()
                }),
            }),
            mailbox: lease.mailbox,
        });
        Ok(Response::new(v1::OpenMailboxesResponse { outcomes: outcomes.collect() }))
    }

    async fn upload_blob(
        &self,
        _: Request<Streaming<v1::UploadBlobRequest>>,
    ) -> Result<Response<v1::UploadBlobResponse>, Status> {
        Err(Status::unimplemented("not asked for"))
    }

    async fn report(&self, _: Request<v1::ReportRequest>) -> Result<Response<v1::ReportResponse>, Status> {
        Err(Status::unimplemented("not asked for"))
    }

    async fn find_known(&self, _: Request<v1::FindKnownRequest>) -> Result<Response<v1::FindKnownResponse>, Status> {
        Err(Status::unimplemented("not asked for"))
    }

    async fn report_status(
        &self,
        _: Request<v1::ReportStatusRequest>,
    ) -> Result<Response<v1::ReportStatusResponse>, Status> {
        Err(Status::unimplemented("not asked for"))
    }
}

#[tokio::test]
async fn a_thousand_mailboxes_are_opened_by_a_few_calls_each_with_its_own_outcome() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = listener.local_addr().expect("an address");
    let desk = Desk::default();
    let served = tonic::transport::Server::builder().add_service(ReportServiceServer::new(desk.clone()));
    tokio::spawn(served.serve_with_incoming(TcpIncoming::from(listener)));
    let channel = Channel::from_shared(format!("http://{address}")).expect("a URL").connect_lazy();
    let client = Arc::new(Client::new(channel, |request: Request<()>| Ok(request), Deadlines::default()));
    let opens = (0..1000_u64).map(|number| {
        let client = client.clone();
        let mailbox = if number == 500 { "mbx-refused".to_owned() } else { format!("mbx-{number}") };
        // As in the worker: each from a task of its own.
        tokio::spawn(async move { client.open(v1::MailboxLease { mailbox, epoch: number }).await })
    });
    let opened = futures::future::join_all(opens).await;
    for (number, outcome) in opened.into_iter().enumerate() {
        match outcome.expect("no panic") {
            Ok(opened) => assert_eq!(opened.generation, number as u64),
            Err(error) => assert_eq!((number, error), (500, Error::LeaseLost)),
        }
    }
    let calls = desk.calls.load(Ordering::SeqCst);
    assert!(calls <= 6, "{calls} calls");
    assert!(desk.largest.load(Ordering::SeqCst) <= MAX_OPENS);
}

#[test]
fn reasons_become_what_the_caller_does() {
    let of = |reason| Error::from(Status::from(Failure::new(reason, "why")));
    assert_eq!(of(Reason::LeaseLost), Error::LeaseLost);
    assert_eq!(of(Reason::CursorMismatch), Error::CursorMismatch);
    assert_eq!(of(Reason::SessionEnded), Error::SessionEnded);
    assert_eq!(of(Reason::BlobMissing), Error::BlobMissing);
    assert_eq!(of(Reason::SecretUnreadable), Error::SecretUnreadable { detail: "why".into() });
    assert_eq!(of(Reason::NotFound), Error::NotFound { detail: "why".into() });
    for again in [Reason::OutcomeUnknown, Reason::StorageFailed, Reason::NotCaughtUp, Reason::TooMany] {
        assert!(matches!(of(again), Error::Unavailable { .. }), "{again:?}");
    }
    assert!(matches!(of(Reason::InvalidField), Error::Refused { .. }));
}

#[test]
fn an_answer_that_was_lost_on_the_way_is_repeated() {
    for status in [
        Status::unavailable("tcp connect error"),
        Status::unknown("h2 protocol error"),
        Status::cancelled("Timeout expired"),
        Status::internal("h2 protocol error: http2 error"),
    ] {
        assert!(matches!(Error::from(status), Error::Unavailable { .. }));
    }
    assert!(matches!(Error::from(Status::unauthenticated("no token")), Error::Refused { .. }));
}

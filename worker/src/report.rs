//! Tells the control plane what was found, so that nothing is lost and nothing told twice.
//!
//! [`Reporter`] is what a mailbox's session needs; [`Client`] is the one over gRPC. A call is one attempt: who repeats it,
//! with the same batch id, is the caller, because only the caller knows whether the lease still holds.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use postroom_proto::reason::{Failure, Reason};
use postroom_proto::trace::{self, identity};
use postroom_proto::v1;
use postroom_proto::v1::report_service_client::ReportServiceClient;
use tokio::sync::oneshot;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

/// Largest part of an uploaded body.
const CHUNK: usize = 256 * 1024;
/// Most mailboxes opened in one call.
const MAX_OPENS: usize = 500;
/// How long a call waits for others who want to open at the same time.
const GATHERING: Duration = Duration::from_millis(2);
/// Largest answer: 500 mailboxes with a definition, a cursor, a status and 500 short keys each, with room to spare.
const MAX_ANSWER: usize = 64 * 1024 * 1024;

/// Why a call did not do what it should.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The mailbox belongs to somebody else: drop it, touch nothing in it.
    #[error("the lease is lost")]
    LeaseLost,
    /// The session is over: drop everything.
    #[error("the session has ended")]
    SessionEnded,
    /// Another cursor is committed: open again and go on from there.
    #[error("another cursor is committed")]
    CursorMismatch,
    /// An uploaded body is not there: upload it again, then report.
    #[error("an uploaded body is missing")]
    BlobMissing,
    /// The definition holds a secret that the control plane cannot read. It can once its key file is restored.
    #[error("a secret of the definition cannot be read: {detail}")]
    SecretUnreadable {
        /// For people.
        detail: String,
    },
    /// The definition is gone. The end of the lease follows, unless it comes back.
    #[error("there is no such definition: {detail}")]
    NotFound {
        /// For people.
        detail: String,
    },
    /// It is not known whether it took effect, or it did not: repeat the very same call.
    #[error("unavailable: {detail}")]
    Unavailable {
        /// How long to wait, when the server says.
        after: Option<Duration>,
        /// For people.
        detail: String,
    },
    /// Repeating it would not help.
    #[error("refused: {detail}")]
    Refused {
        /// For people.
        detail: String,
    },
}

impl Error {
    fn unavailable(detail: impl Into<String>) -> Self {
        Self::Unavailable { after: None, detail: detail.into() }
    }

    fn of(failure: Failure) -> Self {
        let detail = failure.message;
        match failure.reason {
            Reason::LeaseLost => Self::LeaseLost,
            Reason::SessionEnded => Self::SessionEnded,
            Reason::CursorMismatch => Self::CursorMismatch,
            Reason::BlobMissing => Self::BlobMissing,
            Reason::SecretUnreadable => Self::SecretUnreadable { detail },
            Reason::NotFound => Self::NotFound { detail },
            Reason::NoLeader
            | Reason::NotCaughtUp
            | Reason::OutcomeUnknown
            | Reason::StorageFailed
            | Reason::ShuttingDown
            | Reason::TooMany => Self::Unavailable { after: failure.retry_after, detail },
            _ => Self::Refused { detail },
        }
    }
}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        if let Some(failure) = Failure::from_status(&status) {
            return Self::of(failure);
        }
        let detail = format!("{}: {}", status.code(), status.message());
        match status.code() {
            Code::InvalidArgument
            | Code::NotFound
            | Code::AlreadyExists
            | Code::PermissionDenied
            | Code::FailedPrecondition
            | Code::OutOfRange
            | Code::Unimplemented
            | Code::Unauthenticated => Self::Refused { detail },
            _ => Self::unavailable(detail),
        }
    }
}

/// What a mailbox's session tells and asks. `session` of a request is filled in by the reporter.
#[async_trait]
pub trait Reporter: Send + Sync + 'static {
    /// Opens a mailbox under a lease.
    async fn open(&self, lease: v1::MailboxLease) -> Result<v1::OpenedMailbox, Error>;
    /// Commits a batch.
    async fn report(&self, request: &v1::ReportRequest) -> Result<v1::ReportResponse, Error>;
    /// Stores a body that is too large for a report.
    async fn upload(&self, header: v1::BlobHeader, body: Bytes) -> Result<(), Error>;
    /// Asks what the ledger has of a folder that was numbered anew. At most 500 messages.
    async fn find_known(&self, request: &v1::FindKnownRequest) -> Result<v1::FindKnownResponse, Error>;
    /// Says how the reading goes. At most 500.
    async fn status(&self, statuses: Vec<v1::MailboxStatus>) -> Result<(), Error>;
    /// Says that mailboxes are read. At most 500. Whoever has no use for it drops it.
    async fn lives(&self, lives: Vec<v1::MailboxLife>) -> Result<(), Error> {
        drop(lives);
        Ok(())
    }
}

/// Deadlines of calls.
#[derive(Debug, Clone, Copy)]
pub struct Deadlines {
    /// For opening and status.
    pub call: Duration,
    /// For a report, which waits for the disk of the control plane.
    pub report: Duration,
    /// For an upload.
    pub upload: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self { call: Duration::from_secs(10), report: Duration::from_secs(15), upload: Duration::from_secs(120) }
    }
}

type Waiting = (v1::MailboxLease, oneshot::Sender<Result<v1::OpenedMailbox, Error>>);

/// A reporter over gRPC.
pub struct Client<I> {
    client: ReportServiceClient<InterceptedService<Channel, I>>,
    deadlines: Deadlines,
    session: Mutex<String>,
    waiting: Mutex<Vec<Waiting>>,
    flight: tokio::sync::Mutex<()>,
}

impl<I> std::fmt::Debug for Client<I> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("deadlines", &self.deadlines).finish_non_exhaustive()
    }
}

impl<I: Interceptor + Clone + Send + Sync + 'static> Client<I> {
    /// A client on `channel`; `interceptor` adds the worker's token to each call.
    pub fn new(channel: Channel, interceptor: I, deadlines: Deadlines) -> Self {
        let client = ReportServiceClient::with_interceptor(channel, interceptor);
        Self {
            client: client.max_decoding_message_size(MAX_ANSWER),
            deadlines,
            session: Mutex::default(),
            waiting: Mutex::default(),
            flight: tokio::sync::Mutex::default(),
        }
    }

    /// The session to call under, after each registration.
    pub fn set_session(&self, session: &str) {
        session.clone_into(&mut self.session.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn session(&self) -> String {
        self.session.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Opens everything that waits, and answers everybody who waits.
    async fn open_waiting(&self) {
        let mut batch: Vec<Waiting> = {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            let count = waiting.len().min(MAX_OPENS);
            waiting.drain(..count).collect()
        };
        // Those who were dropped meanwhile need no answer.
        batch.retain(|(_, answer)| !answer.is_closed());
        if batch.is_empty() {
            return;
        }
        let leases = batch.iter().map(|(lease, _)| lease.clone()).collect();
        let request = v1::OpenMailboxesRequest { session: self.session(), leases };
        let mut client = self.client.clone();
        match timed(self.deadlines.call, client.open_mailboxes(request)).await {
            Ok(response) => {
                let outcomes = response.outcomes.into_iter();
                let mut outcomes: HashMap<_, _> = outcomes.map(|outcome| (outcome.mailbox, outcome.outcome)).collect();
                for (lease, answer) in batch {
                    let result = match outcomes.remove(&lease.mailbox).flatten() {
                        Some(v1::open_outcome::Outcome::Opened(opened)) => Ok(opened),
                        Some(v1::open_outcome::Outcome::Refused(refusal)) => Err(refused(refusal)),
                        None => Err(Error::unavailable("no outcome for this mailbox")),
                    };
                    let _ = answer.send(result);
                }
            }
            Err(error) => {
                for (_, answer) in batch {
                    let _ = answer.send(Err(error.clone()));
                }
            }
        }
    }
}

fn refused(refusal: v1::Refusal) -> Error {
    let reason = Reason::from_str_name(&format!("REASON_{}", refusal.reason)).unwrap_or(Reason::Unspecified);
    Error::of(Failure::new(reason, refusal.message))
}

async fn timed<T>(
    deadline: Duration,
    call: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<T, Error> {
    match tokio::time::timeout(deadline, call).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(status.into()),
        Err(_) => Err(Error::unavailable("no answer in time")),
    }
}

#[async_trait]
impl<I: Interceptor + Clone + Send + Sync + 'static> Reporter for Client<I> {
    /// Mailboxes that are opened at the same time share a call, and so do those that come while one is under way.
    async fn open(&self, lease: v1::MailboxLease) -> Result<v1::OpenedMailbox, Error> {
        let (answer, mut answered) = oneshot::channel();
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push((lease, answer));
        loop {
            let flight = tokio::select! {
                biased;
                result = &mut answered => return result.unwrap_or_else(|_| Err(Error::unavailable("given up"))),
                flight = self.flight.lock() => flight,
            };
            if let Ok(result) = answered.try_recv() {
                return result;
            }
            // Ordering: before it is looked who waits, so that all of one answer to a heartbeat are among them.
            tokio::time::sleep(GATHERING).await;
            self.open_waiting().await;
            drop(flight);
        }
    }

    async fn report(&self, request: &v1::ReportRequest) -> Result<v1::ReportResponse, Error> {
        let mut request = Request::new(v1::ReportRequest { session: self.session(), ..request.clone() });
        let span = trace::call("ReportService/Report");
        if let Some(header) = span.as_ref().and_then(|span| identity::header(span.context()).parse().ok()) {
            request.metadata_mut().insert(trace::HEADER, header);
        }
        let mut client = self.client.clone();
        let reported = timed(self.deadlines.report, client.report(request)).await;
        if let Some(span) = span {
            span.failed(reported.as_ref().err().map(ToString::to_string)).end();
        }
        reported
    }

    async fn upload(&self, header: v1::BlobHeader, body: Bytes) -> Result<(), Error> {
        use v1::upload_blob_request::Part;
        let header = v1::BlobHeader { session: self.session(), ..header };
        let chunks =
            (0..body.len()).step_by(CHUNK).map(move |at| Part::Chunk(body.slice(at..body.len().min(at + CHUNK))));
        let parts = std::iter::once(Part::Header(header)).chain(chunks);
        let requests = tokio_stream::iter(parts.map(|part| v1::UploadBlobRequest { part: Some(part) }));
        let mut client = self.client.clone();
        timed(self.deadlines.upload, client.upload_blob(requests)).await.map(|_| ())
    }

    async fn find_known(&self, request: &v1::FindKnownRequest) -> Result<v1::FindKnownResponse, Error> {
        let request = v1::FindKnownRequest { session: self.session(), ..request.clone() };
        let mut client = self.client.clone();
        timed(self.deadlines.report, client.find_known(request)).await
    }

    async fn status(&self, statuses: Vec<v1::MailboxStatus>) -> Result<(), Error> {
        let request = v1::ReportStatusRequest { session: self.session(), statuses, lives: Vec::new() };
        let mut client = self.client.clone();
        timed(self.deadlines.call, client.report_status(request)).await.map(|_| ())
    }

    async fn lives(&self, lives: Vec<v1::MailboxLife>) -> Result<(), Error> {
        let request = v1::ReportStatusRequest { session: self.session(), statuses: Vec::new(), lives };
        let mut client = self.client.clone();
        timed(self.deadlines.call, client.report_status(request)).await.map(|_| ())
    }
}

#[cfg(test)]
pub(crate) mod nobody;
#[cfg(test)]
mod tests;

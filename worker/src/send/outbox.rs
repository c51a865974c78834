//! Calls about mail that is to be sent, each one attempt with a deadline: who repeats them is the caller.

use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use postroom_proto::convert::{from_duration, to_duration};
use postroom_proto::reason::{Failure, Reason};
use postroom_proto::v1::send_service_client::SendServiceClient;
use postroom_proto::v1::{self, Claim, ClaimedMail};
use tokio::time::timeout;
use tonic::Status;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;

use crate::control::Bearer;

/// How long the control plane is asked to wait for a mail.
pub(super) const WAIT: Duration = Duration::from_secs(20);
/// Longest wait for an answer, beyond [`WAIT`].
const ANSWER: Duration = Duration::from_secs(10);
/// Longest silence while a mail's bytes come.
const SILENCE: Duration = Duration::from_secs(30);
/// Largest answer: as many mails as are claimed at once, of at most 1 MiB each, with what is said of them.
const LARGEST_ANSWER: usize = 128 * 1024 * 1024;

/// Why a call did not do what it should.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The claim is over, or another's.
    #[error("the claim is lost")]
    ClaimLost,
    /// The session is over: wait for the next one.
    #[error("the session has ended")]
    SessionEnded,
    /// Try the very same call again.
    #[error("unavailable: {0}")]
    Unavailable(String),
}

/// Where mail that is to be sent comes from, and where is told what became of it.
#[async_trait]
pub trait Outbox: Send + Sync + 'static {
    /// Claims at most `most` mails for a session, and waits for the first.
    async fn claim(&self, session: &str, most: u32) -> Result<Vec<ClaimedMail>, Error>;
    /// The bytes of a mail that did not come with its claim, `size` of them.
    async fn raw(&self, claim: Claim, size: u64) -> Result<Bytes, Error>;
    /// Records that the data is handed over now. Answers how long the claim stands from then on.
    async fn mark(&self, claim: Claim) -> Result<Duration, Error>;
    /// Says what became of a mail.
    async fn settle(&self, request: v1::SettleMailRequest) -> Result<(), Error>;
}

/// The outbox over gRPC.
#[derive(Debug, Clone)]
pub struct Client {
    client: SendServiceClient<InterceptedService<Channel, Bearer>>,
}

impl Client {
    /// A client on `channel`.
    pub fn new(channel: Channel, bearer: Bearer) -> Self {
        let client = SendServiceClient::with_interceptor(channel, bearer);
        Self { client: client.max_decoding_message_size(LARGEST_ANSWER) }
    }
}

#[async_trait]
impl Outbox for Client {
    async fn claim(&self, session: &str, most: u32) -> Result<Vec<ClaimedMail>, Error> {
        let request = v1::ClaimMailsRequest { session: session.into(), max_count: most, wait: Some(to_duration(WAIT)) };
        let mut client = self.client.clone();
        Ok(within(WAIT + ANSWER, client.claim_mails(request)).await?.mails)
    }

    async fn raw(&self, claim: Claim, size: u64) -> Result<Bytes, Error> {
        let mut client = self.client.clone();
        let request = v1::GetClaimedRawRequest { claim: Some(claim) };
        let mut chunks = within(ANSWER, client.get_claimed_raw(request)).await?;
        let length = usize::try_from(size).map_err(|_| Error::Unavailable("it is too large".into()))?;
        let mut raw = BytesMut::with_capacity(length);
        while let Some(chunk) = within_silence(chunks.message()).await? {
            if raw.len() + chunk.data.len() > length {
                return Err(Error::Unavailable("more came than was announced".into()));
            }
            raw.extend_from_slice(&chunk.data);
        }
        // A stream that ends early is no short mail.
        if raw.len() < length {
            return Err(Error::Unavailable(format!("{} bytes of {length} came", raw.len())));
        }
        Ok(raw.freeze())
    }

    async fn mark(&self, claim: Claim) -> Result<Duration, Error> {
        let mut client = self.client.clone();
        let request = v1::MarkSubmittingRequest { claim: Some(claim) };
        let answer = within(ANSWER, client.mark_submitting(request)).await?;
        let left = answer.time_left.as_ref().and_then(from_duration);
        left.ok_or_else(|| Error::Unavailable("a mark was answered without a time".into()))
    }

    async fn settle(&self, request: v1::SettleMailRequest) -> Result<(), Error> {
        let mut client = self.client.clone();
        within(ANSWER, client.settle_mail(request)).await.map(|_| ())
    }
}

async fn within<T>(
    patience: Duration,
    call: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<T, Error> {
    match timeout(patience, call).await {
        Err(_) => Err(Error::Unavailable(format!("no answer within {patience:?}"))),
        Ok(Ok(answer)) => Ok(answer.into_inner()),
        Ok(Err(status)) => Err(of(&status)),
    }
}

async fn within_silence<T>(chunk: impl Future<Output = Result<T, Status>>) -> Result<T, Error> {
    match timeout(SILENCE, chunk).await {
        Err(_) => Err(Error::Unavailable(format!("nothing came for {SILENCE:?}"))),
        Ok(chunk) => chunk.map_err(|status| of(&status)),
    }
}

fn of(status: &Status) -> Error {
    match Failure::from_status(status) {
        Some(failure) if failure.reason == Reason::ClaimLost => Error::ClaimLost,
        Some(failure) if failure.reason == Reason::SessionEnded => Error::SessionEnded,
        Some(failure) => Error::Unavailable(failure.message),
        None => Error::Unavailable(format!("{:?}: {}", status.code(), status.message())),
    }
}

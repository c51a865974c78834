//! Mail on its way out, as workers claim and settle it.

use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use postroom_proto::convert::{from_duration, to_duration};
use postroom_proto::reason::{Failure, Reason};
use postroom_proto::v1::{self, RecipientState, SendVerdict, send_service_server::SendService};
use tonic::{Extensions, Request, Response, Status};

use super::{bytes, caller, session};
use crate::access::sessions::Sessions;
use crate::blob::Blobs;
use crate::ledger::micros;
use crate::ledger::outbox::Claim;
use crate::outbox::sending::Sending;
use crate::outbox::state::{Recipient, Settlement};

/// Most mails of one claim.
const MOST: u32 = 64;
/// Longest wait for mail.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// Longest time that a server can ask to wait.
const LONGEST_RETRY: Duration = Duration::from_secs(24 * 3600);
/// Longest text of a server that is kept, in bytes.
const LONGEST_TEXT: usize = 2000;

/// Serves [`SendService`].
#[derive(Clone)]
pub struct Service {
    sending: Sending,
    blobs: Blobs,
    sessions: Sessions,
}

impl Service {
    /// Hands out what `sending` has; `sessions` knows whose each is.
    pub fn new(sending: Sending, blobs: Blobs, sessions: Sessions) -> Self {
        Self { sending, blobs, sessions }
    }

    /// The claim, which must be of a session of the caller's.
    async fn claim(&self, extensions: &Extensions, named: Option<v1::Claim>) -> Result<Claim, Failure> {
        let claim = claim(named)?;
        self.sessions.require(caller(extensions)?, &claim.session).await?;
        Ok(claim)
    }
}

#[tonic::async_trait]
impl SendService for Service {
    type GetClaimedRawStream = BoxStream<'static, Result<v1::RawMessageChunk, Status>>;

    async fn claim_mails(
        &self,
        request: Request<v1::ClaimMailsRequest>,
    ) -> Result<Response<v1::ClaimMailsResponse>, Status> {
        let caller = caller(request.extensions())?.clone();
        let request = request.into_inner();
        if !(1..=MOST).contains(&request.max_count) {
            return Err(Failure::invalid_field("maxCount", format!("must be 1 to {MOST}")).into());
        }
        let wait = request.wait.as_ref().map_or(Some(Duration::ZERO), from_duration);
        let wait = wait.filter(|wait| *wait <= LONGEST_WAIT);
        let wait = wait.ok_or_else(|| Failure::invalid_field("wait", "must be between 0 and 30 s"))?;
        let session = session("session", &request.session)?;
        self.sessions.require(&caller, &session).await?;
        let mails = self.sending.claim(&session, request.max_count as usize, wait).await?;
        Ok(Response::new(v1::ClaimMailsResponse { mails }))
    }

    async fn get_claimed_raw(
        &self,
        request: Request<v1::GetClaimedRawRequest>,
    ) -> Result<Response<Self::GetClaimedRawStream>, Status> {
        let claim = self.claim(request.extensions(), request.get_ref().claim.clone()).await?;
        let raw = self.sending.raw(&claim).await?;
        let pieces = bytes::all(&self.blobs, raw).await?.ok_or_else(|| {
            Failure::new(Reason::StorageFailed, format!("the bytes of mail {} are not here", claim.mail))
        })?;
        Ok(Response::new(pieces.map(|piece| piece.map(|data| v1::RawMessageChunk { data })).boxed()))
    }

    async fn mark_submitting(
        &self,
        request: Request<v1::MarkSubmittingRequest>,
    ) -> Result<Response<v1::MarkSubmittingResponse>, Status> {
        let claim = self.claim(request.extensions(), request.get_ref().claim.clone()).await?;
        let left = self.sending.mark(claim).await?;
        Ok(Response::new(v1::MarkSubmittingResponse { time_left: Some(to_duration(left)) }))
    }

    async fn settle_mail(
        &self,
        request: Request<v1::SettleMailRequest>,
    ) -> Result<Response<v1::SettleMailResponse>, Status> {
        let claim = self.claim(request.extensions(), request.get_ref().claim.clone()).await?;
        let request = request.into_inner();
        let state = self.sending.settle(claim, settlement(request)?).await?;
        Ok(Response::new(v1::SettleMailResponse { state: state.into() }))
    }
}

fn claim(claim: Option<v1::Claim>) -> Result<Claim, Failure> {
    let claim = claim.ok_or_else(|| Failure::invalid_field("claim", "is missing"))?;
    Ok(Claim { session: session("claim.session", &claim.session)?, mail: claim.mail, token: claim.token })
}

fn settlement(request: v1::SettleMailRequest) -> Result<Settlement, Failure> {
    let verdict = SendVerdict::try_from(request.verdict).ok().filter(|verdict| *verdict != SendVerdict::Unspecified);
    let verdict = verdict.ok_or_else(|| Failure::invalid_field("verdict", "is missing or not known here"))?;
    let retry_after = request.retry_after.as_ref().map_or(Some(Duration::ZERO), from_duration);
    let retry_after = retry_after.ok_or_else(|| Failure::invalid_field("retryAfter", "is negative"))?;
    let recipients = request.recipients.into_iter().enumerate().map(|(index, outcome)| {
        let state = outcome.state();
        if !matches!(state, RecipientState::Accepted | RecipientState::Refused | RecipientState::Pending) {
            let text = "must be ACCEPTED, REFUSED or PENDING";
            return Err(Failure::invalid_field(format!("recipients[{index}].state"), text));
        }
        Ok(Recipient {
            key: outcome.address.to_lowercase(),
            state,
            status: shortened(outcome.status, 20),
            diagnostic: shortened(outcome.diagnostic, LONGEST_TEXT),
        })
    });
    let problem = request.problem.map(|problem| v1::Problem {
        cause: shortened(problem.cause, LONGEST_TEXT),
        remedy: shortened(problem.remedy, LONGEST_TEXT),
        // The ledger's clock dates them.
        since_time: None,
        next_attempt_time: None,
        ..problem
    });
    Ok(Settlement {
        verdict,
        recipients: recipients.collect::<Result<_, _>>()?,
        problem,
        response: shortened(request.response, LONGEST_TEXT),
        retry_after: micros(retry_after.min(LONGEST_RETRY)),
        whole_mailbox: request.whole_mailbox,
    })
}

fn shortened(mut text: String, longest: usize) -> String {
    text.truncate(text.floor_char_boundary(longest));
    text
}

//! The lease plane.

use std::sync::Arc;

use futures::stream::{BoxStream, StreamExt as _};
use postroom_proto::id::{Epoch, MailboxUid, SessionId, is_name};
use postroom_proto::lease::LeaseTerms;
use postroom_proto::reason::Failure;
use postroom_proto::v1::{self, lease_service_server::LeaseService};
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use crate::definition::model::Model;
use crate::lease::desk::{Heartbeat, Held, Offer};
use crate::lease::handle::Handle;
use crate::lease::nudge::Nudges;

/// Serves [`LeaseService`].
#[derive(Clone)]
pub struct Leases {
    leader: Handle,
    model: watch::Receiver<Arc<Model>>,
    terms: LeaseTerms,
    nudges: Nudges,
}

impl Leases {
    /// Asks `leader`, tells workers `terms`, and lets them hear `nudges`.
    pub fn new(leader: Handle, model: watch::Receiver<Arc<Model>>, terms: LeaseTerms, nudges: Nudges) -> Self {
        Self { leader, model, terms, nudges }
    }

    /// Offers with the revision of what they are about. What is no longer in the model is not offered.
    fn offered(&self, offers: Vec<Offer>) -> Vec<v1::OfferedMailbox> {
        let model = self.model.borrow().clone();
        let offered = offers.into_iter().filter_map(|offer| {
            Some(v1::OfferedMailbox {
                definition_revision: model.mailbox(&offer.mailbox)?.revision,
                mailbox: offer.mailbox.to_string(),
                epoch: offer.epoch.0,
            })
        });
        offered.collect()
    }
}

#[tonic::async_trait]
impl LeaseService for Leases {
    async fn register(&self, request: Request<v1::RegisterRequest>) -> Result<Response<v1::RegisterResponse>, Status> {
        let request = request.into_inner();
        if !is_name(&request.worker_name) {
            let text = "must be 1 to 62 lower-case letters, digits and hyphens, a letter first";
            return Err(Failure::invalid_field("workerName", text).into());
        }
        let session = self.leader.register(request.worker_name, request.build).await?;
        Ok(Response::new(v1::RegisterResponse { session: session.to_string(), terms: Some(self.terms.into()) }))
    }

    async fn heartbeat(
        &self,
        request: Request<v1::HeartbeatRequest>,
    ) -> Result<Response<v1::HeartbeatResponse>, Status> {
        let request = request.into_inner();
        let held = request.held.iter().map(|held| {
            let (epoch, definition_revision) = (Epoch(held.epoch), held.definition_revision);
            Ok(Held { mailbox: mailbox(&held.mailbox)?, epoch, definition_revision })
        });
        let heartbeat = Heartbeat {
            session: session(&request.session)?,
            sequence: request.sequence,
            term: request.term,
            held: held.collect::<Result<_, Failure>>()?,
            draining: request.draining,
        };
        let answer = self.leader.heartbeat(heartbeat).await?;
        let mailboxes = self.offered(answer.offers);
        Ok(Response::new(v1::HeartbeatResponse { terms: Some(self.terms.into()), mailboxes, term: answer.term.0 }))
    }

    async fn leave(&self, request: Request<v1::LeaveRequest>) -> Result<Response<v1::LeaveResponse>, Status> {
        let request = request.into_inner();
        self.leader.leave(session(&request.session)?, request.returning).await?;
        Ok(Response::new(v1::LeaveResponse {}))
    }

    type WatchNudgeStream = BoxStream<'static, Result<v1::Nudge, Status>>;

    async fn watch_nudge(
        &self,
        request: Request<v1::WatchNudgeRequest>,
    ) -> Result<Response<Self::WatchNudgeStream>, Status> {
        let nudges = self.nudges.listen(&session(&request.get_ref().session)?)?;
        Ok(Response::new(nudges.map(|()| Ok(v1::Nudge {})).boxed()))
    }
}

fn session(text: &str) -> Result<SessionId, Failure> {
    SessionId::parse(text).map_err(|error| Failure::invalid_field("session", error.to_string()))
}

fn mailbox(text: &str) -> Result<MailboxUid, Failure> {
    MailboxUid::parse(text).map_err(|error| Failure::invalid_field("held.mailbox", error.to_string()))
}

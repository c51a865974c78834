//! The lease plane.

use std::sync::Arc;

use futures::stream::{BoxStream, StreamExt as _};
use postroom_proto::id::{Epoch, MailboxUid, NAME_RULE, SessionId, is_name};
use postroom_proto::lease::LeaseTerms;
use postroom_proto::reason::{Failure, FieldFault};
use postroom_proto::v1::{self, WorkerRole, lease_service_server::LeaseService};
use tokio::sync::watch;
use tonic::{Extensions, Request, Response, Status};

use super::{caller, session};
use crate::access::sessions::{Sessions, require_name};
use crate::definition::model::{DEFAULT_POOL, Model};
use crate::lease::desk::{Heartbeat, Held, Offer};
use crate::lease::handle::Handle;
use crate::lease::nudge::Nudges;
use crate::lease::profile::{Profile, Role};

/// Longest name of a build, in bytes.
const BUILD: usize = 200;

/// Serves [`LeaseService`].
#[derive(Clone)]
pub struct Leases {
    leader: Handle,
    model: watch::Receiver<Arc<Model>>,
    terms: LeaseTerms,
    nudges: Nudges,
    sessions: Sessions,
}

impl Leases {
    /// Asks `leader`, tells workers `terms`, and lets them hear `nudges`; `sessions` knows whose each is.
    pub fn new(
        leader: Handle,
        model: watch::Receiver<Arc<Model>>,
        terms: LeaseTerms,
        nudges: Nudges,
        sessions: Sessions,
    ) -> Self {
        Self { leader, model, terms, nudges, sessions }
    }

    /// The session, which must be the caller's.
    async fn own(&self, extensions: &Extensions, id: &str) -> Result<SessionId, Failure> {
        let session = session("session", id)?;
        self.sessions.require(caller(extensions)?, &session).await?;
        Ok(session)
    }

    /// Offers with the revision of what they are about. What is no longer in the model is not offered.
    fn offered(&self, offers: Vec<Offer>) -> Vec<v1::OfferedMailbox> {
        let model = self.model.borrow().clone();
        let offered = offers.into_iter().filter_map(|offer| {
            Some(v1::OfferedMailbox {
                definition_revision: model.mailbox_revision(&offer.mailbox)?,
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
        let profile = profile(request.get_ref().clone())?;
        require_name(caller(request.extensions())?, &profile.worker)?;
        let session = self.leader.register(profile).await?;
        Ok(Response::new(v1::RegisterResponse { session: session.to_string(), terms: Some(self.terms.into()) }))
    }

    async fn heartbeat(
        &self,
        request: Request<v1::HeartbeatRequest>,
    ) -> Result<Response<v1::HeartbeatResponse>, Status> {
        let session = self.own(request.extensions(), &request.get_ref().session).await?;
        let request = request.into_inner();
        let held = request.held.iter().map(|held| {
            let (epoch, definition_revision) = (Epoch(held.epoch), held.definition_revision);
            Ok(Held { mailbox: mailbox(&held.mailbox)?, epoch, definition_revision })
        });
        let heartbeat = Heartbeat {
            session,
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
        let session = self.own(request.extensions(), &request.get_ref().session).await?;
        self.leader.leave(session, request.get_ref().returning).await?;
        Ok(Response::new(v1::LeaveResponse {}))
    }

    type WatchNudgeStream = BoxStream<'static, Result<v1::Nudge, Status>>;

    async fn watch_nudge(
        &self,
        request: Request<v1::WatchNudgeRequest>,
    ) -> Result<Response<Self::WatchNudgeStream>, Status> {
        let nudges = self.nudges.listen(&self.own(request.extensions(), &request.get_ref().session).await?)?;
        Ok(Response::new(nudges.map(|()| Ok(v1::Nudge {})).boxed()))
    }
}

/// What a worker says about itself, or every fault of it.
fn profile(request: v1::RegisterRequest) -> Result<Profile, Failure> {
    let mut faults = Vec::new();
    let mut fault = |field: &str, description: &str| {
        faults.push(FieldFault { field: field.into(), description: description.into() });
    };
    let name = format!("must be {NAME_RULE}");
    if !is_name(&request.worker_name) {
        fault("workerName", &name);
    }
    let pool = if request.pool.is_empty() { DEFAULT_POOL.into() } else { request.pool };
    if !is_name(&pool) {
        fault("pool", &name);
    }
    if request.build.len() > BUILD {
        fault("build", "is longer than 200 bytes; name version and commit only");
    }
    let role = match WorkerRole::try_from(request.role) {
        Ok(WorkerRole::Unspecified | WorkerRole::Active) => Role::Active,
        Ok(WorkerRole::Spare) => Role::Spare,
        Err(_) => {
            fault("role", "is none that this version knows; give ACTIVE or SPARE");
            Role::Active
        }
    };
    let capacity = request.capacity;
    if faults.is_empty() {
        return Ok(Profile { worker: request.worker_name, build: request.build, pool, role, capacity });
    }
    Err(Failure::invalid(faults))
}

fn mailbox(text: &str) -> Result<MailboxUid, Failure> {
    MailboxUid::parse(text).map_err(|error| Failure::invalid_field("held.mailbox", error.to_string()))
}

#[cfg(test)]
mod tests {
    use postroom_proto::reason::Reason;

    use super::*;

    #[test]
    fn who_says_nothing_more_is_an_active_worker_of_the_default_pool() {
        let request = v1::RegisterRequest { worker_name: "w1".into(), build: "1".into(), ..Default::default() };
        assert_eq!(profile(request), Ok(Profile { build: "1".into(), ..Profile::new("w1") }));
        let request = v1::RegisterRequest {
            worker_name: "w1".into(),
            pool: "north".into(),
            role: WorkerRole::Spare.into(),
            capacity: 7,
            ..Default::default()
        };
        let expected = Profile { pool: "north".into(), role: Role::Spare, capacity: 7, ..Profile::new("w1") };
        assert_eq!(profile(request), Ok(expected));
    }

    #[test]
    fn every_fault_of_a_registration_is_named() {
        let request = v1::RegisterRequest {
            worker_name: "W 1".into(),
            build: "x".repeat(BUILD + 1),
            pool: "North".into(),
            role: 9,
            capacity: 0,
        };
        let failure = profile(request).unwrap_err();
        assert_eq!(failure.reason, Reason::InvalidField);
        let fields: Vec<_> = failure.fields.iter().map(|fault| fault.field.as_str()).collect();
        assert_eq!(fields, ["workerName", "pool", "build", "role"]);
    }
}

//! Calls to the control plane's lease plane, each with a deadline.

use std::sync::Arc;
use std::time::Duration;

use postroom_proto::convert::from_duration;
use postroom_proto::id::{Epoch, MailboxUid, SessionId};
use postroom_proto::lease::{LeaseTerms, Moment};
use postroom_proto::reason::{Failure, Reason};
use postroom_proto::v1::lease_service_client::LeaseServiceClient;
use postroom_proto::v1::{self, Phase};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::time::timeout;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status, Streaming};

use crate::config::{Config, Identity};
use crate::holder::{Answer, Heartbeat, Offer};
use crate::identity::Presence;

mod enrolment;
mod road;
mod wire;

use road::Road;

/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// Longest wait for an answer other than a heartbeat's.
const ANSWER: Duration = Duration::from_secs(10);
/// Largest answer: 100,000 offered mailboxes.
const LARGEST_ANSWER: usize = 16 * 1024 * 1024;

type Bearing = InterceptedService<Channel, Bearer>;

/// Puts the worker's token on every call, if it has one.
#[derive(Clone)]
pub struct Bearer {
    authorization: Option<MetadataValue<Ascii>>,
}

impl Bearer {
    /// Whoever is known by the certificate of its connection.
    fn none() -> Self {
        Self { authorization: None }
    }

    fn of(token: &SecretString) -> Result<Self, Invalid> {
        let value = format!("Bearer {}", token.expose_secret());
        let mut authorization: MetadataValue<Ascii> = value.parse().map_err(|_| Invalid::Token)?;
        authorization.set_sensitive(true);
        Ok(Self { authorization: Some(authorization) })
    }
}

impl std::fmt::Debug for Bearer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Bearer([redacted])")
    }
}

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(authorization) = &self.authorization {
            request.metadata_mut().insert("authorization", authorization.clone());
        }
        Ok(request)
    }
}

/// Why the control plane cannot be called at all.
#[derive(Debug, thiserror::Error)]
pub enum Invalid {
    /// The endpoint is no URL.
    #[error("the endpoint {0:?} is no URL of a control plane; write https://host:port")]
    Endpoint(String),
    /// Nobody said where the control plane is.
    #[error("no control plane is named")]
    NoEndpoint,
    /// A certificate cannot be shown without TLS.
    #[error("a client certificate is shown over TLS alone; write https:// in place of http:// in {0:?}")]
    NoTls(String),
    /// The token has characters that no token has.
    #[error("the worker's token has characters that cannot be sent in a header")]
    Token,
}

/// Why a call failed, as far as the worker must tell.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The session is over: drop everything and register again.
    #[error("the session has ended")]
    SessionEnded,
    /// No answer, or one that says nothing about the session. Try again.
    #[error("the control plane did not answer: {0}")]
    Unanswered(String),
    /// The token is not known there, or is of another role.
    #[error("the control plane refuses this worker: {0}")]
    Refused(String),
}

/// The control plane, as a worker sees it.
#[derive(Debug, Clone)]
pub struct Control {
    leases: LeaseServiceClient<Bearing>,
    channel: Channel,
    bearer: Bearer,
    presence: Arc<Presence>,
    /// Some connections are over TLS.
    secured: bool,
    /// Name of this worker.
    worker: String,
}

impl Control {
    /// Connections that are made when they are needed, and made again when they break.
    pub fn new(config: &Config) -> Result<Self, Invalid> {
        let Config { endpoints, identity, ca_file, name, .. } = config;
        let bearer = match identity {
            Identity::Token(token) => Bearer::of(token)?,
            Identity::Certificate { .. } | Identity::Enrolled { .. } => Bearer::none(),
        };
        if let Some(plain) = endpoints.iter().find(|one| bearer.authorization.is_none() && one.starts_with("http://")) {
            return Err(Invalid::NoTls(plain.clone()));
        }
        let presence = Arc::new(Presence::new(identity.clone(), ca_file.clone()));
        let road = Road::to(endpoints, presence.clone())?;
        let first = endpoints.first().ok_or(Invalid::NoEndpoint)?;
        // Of it only the authority is used, by which calls are addressed: the road makes the connections.
        let named = first.replacen("https://", "http://", 1);
        let endpoint = Endpoint::from_shared(named)
            .map_err(|_| Invalid::Endpoint(first.clone()))?
            .connect_timeout(CONNECT)
            .http2_keep_alive_interval(Duration::from_secs(10))
            .keep_alive_timeout(Duration::from_secs(5))
            .keep_alive_while_idle(true);
        // A connection of its own: on one that is full of uploads, or whose window or streams are used up by reports, a
        // heartbeat would wait behind them until trust lapses, and every mailbox would stop for want of it.
        let leases = LeaseServiceClient::with_interceptor(road.channel(&endpoint), bearer.clone())
            .max_decoding_message_size(LARGEST_ANSWER);
        let secured = endpoints.iter().any(|one| one.starts_with("https://"));
        Ok(Self { leases, channel: road.channel(&endpoint), bearer, presence, secured, worker: name.clone() })
    }

    /// The other connection, for reports, which have deadlines and repetitions of their own.
    pub fn channel(&self) -> (Channel, Bearer) {
        (self.channel.clone(), self.bearer.clone())
    }

    /// Opens a session. A worker that is to be enrolled is so before, and anew when it is refused and has a token for
    /// that.
    pub async fn register(&self, request: v1::RegisterRequest) -> Result<(SessionId, LeaseTerms), Error> {
        self.enrol().await?;
        match self.open_session(request.clone()).await {
            Err(Error::Refused(why)) => {
                self.enrol_again(why).await?;
                self.open_session(request).await
            }
            answer => answer,
        }
    }

    async fn open_session(&self, request: v1::RegisterRequest) -> Result<(SessionId, LeaseTerms), Error> {
        let mut leases = self.leases.clone();
        let answer = within(ANSWER, leases.register(request)).await?;
        let session = SessionId::parse(&answer.session).map_err(|error| Error::Unanswered(error.to_string()))?;
        Ok((session, terms(answer.terms)))
    }

    /// Sends a heartbeat; everything the session should hold.
    pub async fn heartbeat(&self, heartbeat: &Heartbeat, patience: Duration) -> Result<Answer, Error> {
        let held = heartbeat.held.iter().map(|held| v1::HeldMailbox {
            mailbox: held.mailbox.to_string(),
            epoch: held.epoch.0,
            phase: if held.draining { Phase::Draining } else { Phase::Held }.into(),
            definition_revision: held.definition_revision,
        });
        let request = v1::HeartbeatRequest {
            session: heartbeat.session.to_string(),
            sequence: heartbeat.ticket.sequence,
            held: held.collect(),
            draining: heartbeat.draining,
            term: heartbeat.term,
        };
        let mut leases = self.leases.clone();
        let answer = within(patience, leases.heartbeat(request)).await?;
        let offers = answer.mailboxes.into_iter().filter_map(|offered| {
            // A mailbox whose uid this version does not understand is left to others.
            let mailbox = MailboxUid::parse(&offered.mailbox).ok()?;
            Some(Offer { mailbox, epoch: Epoch(offered.epoch), definition_revision: offered.definition_revision })
        });
        Ok(Answer { term: answer.term, terms: terms(answer.terms), offers: offers.collect() })
    }

    /// Nudges of a session from now on. One comes at once.
    pub async fn watch_nudge(&self, session: &SessionId) -> Result<Streaming<v1::Nudge>, Error> {
        let mut leases = self.leases.clone();
        within(ANSWER, leases.watch_nudge(v1::WatchNudgeRequest { session: session.to_string() })).await
    }

    /// Ends the session, after everything was let go.
    pub async fn leave(&self, session: &SessionId, returning: bool) -> Result<(), Error> {
        let request = v1::LeaveRequest { session: session.to_string(), returning };
        let mut leases = self.leases.clone();
        within(ANSWER, leases.leave(request)).await?;
        Ok(())
    }
}

/// Waits for an answer, but not longer than `patience`.
async fn within<T>(
    patience: Duration,
    call: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<T, Error> {
    match timeout(patience, call).await {
        Err(_) => Err(Error::Unanswered(format!("no answer within {patience:?}"))),
        Ok(Ok(answer)) => Ok(answer.into_inner()),
        Ok(Err(status)) => match Failure::from_status(&status) {
            Some(failure) if failure.reason == Reason::SessionEnded => Err(Error::SessionEnded),
            Some(failure) if matches!(failure.reason, Reason::Unauthenticated | Reason::PermissionDenied) => {
                Err(Error::Refused(failure.message))
            }
            Some(failure) => Err(Error::Unanswered(failure.message)),
            None => Err(Error::Unanswered(format!("{:?}: {}", status.code(), innermost(&status)))),
        },
    }
}

/// What is at the bottom of a status: the outer errors only say that there is no connection.
fn innermost(status: &Status) -> String {
    let mut text = status.message().to_owned();
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        text = error.to_string();
        // An io error is transparent: its source() skips the very error that it wraps.
        cause = match error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    text
}

/// Terms of the wire. The leader's own part of them is none of a worker's business and keeps its default.
fn terms(terms: Option<v1::LeaseTerms>) -> LeaseTerms {
    let default = LeaseTerms::default();
    let Some(terms) = terms else { return default };
    let or = |value: Option<prost_types::Duration>, default: Moment| {
        value.as_ref().and_then(from_duration).unwrap_or(default)
    };
    LeaseTerms {
        heartbeat: or(terms.heartbeat, default.heartbeat),
        heartbeat_timeout: or(terms.heartbeat_timeout, default.heartbeat_timeout),
        ttl: or(terms.ttl, default.ttl),
        margin: or(terms.margin, default.margin),
        ..default
    }
}

//! The calls of a worker, and how many bytes its heartbeats take.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use postroom_proto::convert::from_duration;
use postroom_proto::id::{Epoch, MailboxUid, SessionId};
use postroom_proto::lease::LeaseTerms;
use postroom_proto::reason::{Failure, Reason};
use postroom_proto::v1::lease_service_client::LeaseServiceClient;
use postroom_proto::v1::report_service_client::ReportServiceClient;
use postroom_proto::v1::{self, Phase};
use postroom_worker::holder::{Answer, Heartbeat, Offer};
use prost::Message;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status, Streaming};

/// Longest wait for a connection, and for an answer other than a heartbeat's.
const ANSWER: Duration = Duration::from_secs(10);
/// Largest answer.
const LARGEST_ANSWER: usize = 64 * 1024 * 1024;
/// What gRPC puts before each message.
const FRAME: usize = 5;

/// Heartbeats of all workers since the start.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    pub(crate) heartbeats: AtomicU64,
    /// Of those, the ones without an answer in time.
    pub(crate) abandoned: AtomicU64,
    pub(crate) bytes_up: AtomicU64,
    pub(crate) bytes_down: AtomicU64,
}

/// The same at one moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reading {
    pub(crate) heartbeats: u64,
    pub(crate) abandoned: u64,
    pub(crate) bytes_up: u64,
    pub(crate) bytes_down: u64,
}

impl Traffic {
    pub(crate) fn read(&self) -> Reading {
        let of = |value: &AtomicU64| value.load(Ordering::Relaxed);
        Reading {
            heartbeats: of(&self.heartbeats),
            abandoned: of(&self.abandoned),
            bytes_up: of(&self.bytes_up),
            bytes_down: of(&self.bytes_down),
        }
    }
}

/// Why a call has no answer to work with.
#[derive(Debug)]
pub(crate) enum Miss {
    /// The session is over.
    SessionEnded,
    /// Anything else: try again.
    Unanswered(String),
}

/// The control plane, as one worker sees it: a connection for the leases and one for the rest, as a real worker has.
#[derive(Clone)]
pub(crate) struct Wire {
    leases: LeaseServiceClient<Channel>,
    reports: ReportServiceClient<Channel>,
    token: MetadataValue<Ascii>,
}

impl Wire {
    pub(crate) fn new(endpoint: &str, token: &str) -> anyhow::Result<Self> {
        let endpoint = Endpoint::from_shared(endpoint.to_owned())
            .with_context(|| format!("{endpoint} is no URL"))?
            .connect_timeout(ANSWER)
            .tcp_nodelay(true);
        let leases = LeaseServiceClient::new(endpoint.connect_lazy());
        let reports = ReportServiceClient::new(endpoint.connect_lazy());
        let mut token: MetadataValue<Ascii> = format!("Bearer {token}").parse().context("the token is no header")?;
        token.set_sensitive(true);
        Ok(Self {
            leases: leases.max_decoding_message_size(LARGEST_ANSWER),
            reports: reports.max_decoding_message_size(LARGEST_ANSWER),
            token,
        })
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert("authorization", self.token.clone());
        request
    }

    pub(crate) async fn register(&self, worker: &str) -> Result<(SessionId, LeaseTerms), Miss> {
        let request = v1::RegisterRequest {
            worker_name: worker.into(),
            build: env!("CARGO_PKG_VERSION").into(),
            ..Default::default()
        };
        let answer = within(ANSWER, self.leases.clone().register(self.request(request))).await?;
        let session = SessionId::parse(&answer.session).map_err(|error| Miss::Unanswered(error.to_string()))?;
        Ok((session, terms(answer.terms)))
    }

    pub(crate) async fn heartbeat(
        &self,
        heartbeat: &Heartbeat,
        patience: Duration,
        traffic: &Traffic,
    ) -> Result<Answer, Miss> {
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
        let count = |counter: &AtomicU64, value: usize| counter.fetch_add(value as u64, Ordering::Relaxed);
        count(&traffic.heartbeats, 1);
        count(&traffic.bytes_up, FRAME + request.encoded_len());
        let answer = within(patience, self.leases.clone().heartbeat(self.request(request))).await;
        let answer = answer.inspect_err(|_| {
            count(&traffic.abandoned, 1);
        })?;
        count(&traffic.bytes_down, FRAME + answer.encoded_len());
        let offers = answer.mailboxes.into_iter().filter_map(|offered| {
            let mailbox = MailboxUid::parse(&offered.mailbox).ok()?;
            Some(Offer { mailbox, epoch: Epoch(offered.epoch), definition_revision: offered.definition_revision })
        });
        Ok(Answer { term: answer.term, terms: terms(answer.terms), offers: offers.collect() })
    }

    pub(crate) async fn leave(&self, session: &SessionId) -> Result<(), Miss> {
        let request = v1::LeaveRequest { session: session.to_string(), returning: true };
        within(ANSWER, self.leases.clone().leave(self.request(request))).await.map(drop)
    }

    /// `None` where the control plane has no nudges to give.
    pub(crate) async fn nudges(&self, session: &SessionId) -> Option<Streaming<v1::Nudge>> {
        let request = v1::WatchNudgeRequest { session: session.to_string() };
        within(ANSWER, self.leases.clone().watch_nudge(self.request(request))).await.ok()
    }

    /// Opens mailboxes; those that were not refused, with the revision by which they are read.
    pub(crate) async fn open(
        &self,
        session: &SessionId,
        batch: &[(MailboxUid, Epoch)],
    ) -> Result<Vec<(MailboxUid, u64)>, Miss> {
        let lease =
            |(mailbox, epoch): &(MailboxUid, Epoch)| v1::MailboxLease { mailbox: mailbox.to_string(), epoch: epoch.0 };
        let request =
            v1::OpenMailboxesRequest { session: session.to_string(), leases: batch.iter().map(lease).collect() };
        let answer = within(ANSWER, self.reports.clone().open_mailboxes(self.request(request))).await?;
        let opened = answer.outcomes.into_iter().filter_map(|outcome| match outcome.outcome? {
            v1::open_outcome::Outcome::Opened(opened) => {
                let revision = opened.definition.map_or(0, |definition| definition.revision);
                Some((MailboxUid::parse(&outcome.mailbox).ok()?, revision))
            }
            v1::open_outcome::Outcome::Refused(_) => None,
        });
        Ok(opened.collect())
    }
}

async fn within<T>(
    patience: Duration,
    call: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<T, Miss> {
    match tokio::time::timeout(patience, call).await {
        Err(_) => Err(Miss::Unanswered(format!("no answer within {patience:?}"))),
        Ok(Ok(answer)) => Ok(answer.into_inner()),
        Ok(Err(status)) => match Failure::from_status(&status) {
            Some(failure) if failure.reason == Reason::SessionEnded => Err(Miss::SessionEnded),
            _ => Err(Miss::Unanswered(format!("{:?}: {}", status.code(), status.message()))),
        },
    }
}

fn terms(terms: Option<v1::LeaseTerms>) -> LeaseTerms {
    let default = LeaseTerms::default();
    let Some(terms) = terms else { return default };
    let or = |value: Option<prost_types::Duration>, default| value.as_ref().and_then(from_duration).unwrap_or(default);
    LeaseTerms {
        heartbeat: or(terms.heartbeat, default.heartbeat),
        heartbeat_timeout: or(terms.heartbeat_timeout, default.heartbeat_timeout),
        ttl: or(terms.ttl, default.ttl),
        margin: or(terms.margin, default.margin),
        ..default
    }
}

//! Errands: what the control plane wants to know about a mailbox, found out beside the reading of mailboxes.
//!
//! This file takes errands, runs each as a task of its own (bounded in number and time, and no panic gets out of it) and
//! hands what they find to the control plane, one report after the other. What an errand does stands in a file a task. One
//! that this version does not know ends with a problem that says so.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt as _;
use postroom_proto::convert::{from_duration, to_duration};
use postroom_proto::reason::{Failure, Reason};
use postroom_proto::v1::errand_service_client::ErrandServiceClient;
use postroom_proto::v1::{self, errand::Task, report_errand_request::Found};
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::Status;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;

use crate::control::Bearer;
use crate::diagnosis::{self, Diagnosis};
use crate::mailbox::status::now;
use crate::send::Sending;

mod check;
mod check_outgoing;
mod fetch;
mod list;
mod steps;

/// Errands under way at one time; further ones wait.
const AT_ONCE: usize = 8;
/// How long the control plane is asked to wait for an errand.
const WAIT: Duration = Duration::from_secs(20);
/// Longest wait for an answer about errands, beyond [`WAIT`].
const ANSWER: Duration = Duration::from_secs(10);
/// Pause before a call that failed is made again.
const AGAIN: Duration = Duration::from_millis(500);
/// Time for an errand that says none.
const DEFAULT_TIME: Duration = Duration::from_secs(60);
/// Longest time for any errand.
const LONGEST_TIME: Duration = Duration::from_secs(3600);

/// Why a call about errands failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The session is over: wait for the next one.
    #[error("the session has ended")]
    SessionEnded,
    /// Nobody waits for the errand any more.
    #[error("the errand is over")]
    Over,
    /// Try the very same call again.
    #[error("unavailable: {0}")]
    Unavailable(String),
}

/// Where errands come from.
#[async_trait]
pub trait Desk: Send + Sync + 'static {
    /// Waits for errands of a session.
    async fn take(&self, session: &str) -> Result<Vec<v1::Errand>, Error>;
    /// Says what was found.
    async fn report(&self, request: v1::ReportErrandRequest) -> Result<(), Error>;
}

/// The desk over gRPC.
#[derive(Debug, Clone)]
pub struct Client {
    client: ErrandServiceClient<InterceptedService<Channel, Bearer>>,
}

impl Client {
    /// A client on `channel`.
    pub fn new(channel: Channel, bearer: Bearer) -> Self {
        Self { client: ErrandServiceClient::with_interceptor(channel, bearer) }
    }
}

#[async_trait]
impl Desk for Client {
    async fn take(&self, session: &str) -> Result<Vec<v1::Errand>, Error> {
        let request = v1::TakeErrandsRequest { session: session.into(), wait: Some(to_duration(WAIT)) };
        let mut client = self.client.clone();
        Ok(within(WAIT + ANSWER, client.take_errands(request)).await?.errands)
    }

    async fn report(&self, request: v1::ReportErrandRequest) -> Result<(), Error> {
        let mut client = self.client.clone();
        within(ANSWER * 3, client.report_errand(request)).await.map(|_| ())
    }
}

async fn within<T>(
    patience: Duration,
    call: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<T, Error> {
    match timeout(patience, call).await {
        Err(_) => Err(Error::Unavailable(format!("no answer within {patience:?}"))),
        Ok(Ok(answer)) => Ok(answer.into_inner()),
        Ok(Err(status)) => Err(match Failure::from_status(&status) {
            Some(failure) if failure.reason == Reason::SessionEnded => Error::SessionEnded,
            // Whatever is wrong with a report, sending it again does not help.
            Some(failure) if matches!(failure.reason, Reason::NotFound | Reason::InvalidField) => Error::Over,
            Some(failure) => Error::Unavailable(failure.message),
            None => Error::Unavailable(format!("{:?}: {}", status.code(), status.message())),
        }),
    }
}

/// Why an errand is not done.
#[derive(Debug)]
pub enum Undone {
    /// Nobody waits for it any more.
    Over,
    /// It cannot be done.
    Problem(Diagnosis),
}

impl From<Diagnosis> for Undone {
    fn from(found: Diagnosis) -> Self {
        Self::Problem(found)
    }
}

/// What an errand has found, on its way to whoever asked.
pub struct Findings {
    desk: Arc<dyn Desk>,
    session: String,
    errand: String,
    sequence: u32,
}

impl std::fmt::Debug for Findings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Findings").field("errand", &self.errand).field("sequence", &self.sequence).finish()
    }
}

impl Findings {
    /// Tells one thing. `Err`: nobody listens any more, stop.
    pub async fn tell(&mut self, found: Found) -> Result<(), Undone> {
        self.send(Some(found), false, None).await
    }

    async fn end(&mut self, problem: Option<v1::Problem>) -> Result<(), Undone> {
        self.send(None, true, problem).await
    }

    /// Repeats the report until it is taken; the errand's own deadline ends that.
    async fn send(&mut self, found: Option<Found>, ended: bool, problem: Option<v1::Problem>) -> Result<(), Undone> {
        self.sequence += 1;
        let request = v1::ReportErrandRequest {
            session: self.session.clone(),
            errand: self.errand.clone(),
            sequence: self.sequence,
            found,
            ended,
            problem,
        };
        loop {
            match self.desk.report(request.clone()).await {
                Ok(()) => return Ok(()),
                Err(Error::Over | Error::SessionEnded) => return Err(Undone::Over),
                Err(Error::Unavailable(why)) => {
                    tracing::debug!(errand = self.errand, error = why, "a finding is told again")
                }
            }
            sleep(AGAIN).await;
        }
    }
}

/// Takes errands of the worker's present session and runs them.
pub struct Errands {
    desk: Arc<dyn Desk>,
    sending: Sending,
    sessions: watch::Receiver<String>,
}

impl std::fmt::Debug for Errands {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Errands").finish_non_exhaustive()
    }
}

impl Errands {
    /// Errands from `desk`. `sending`: what the mails of the worker share, for a check counts among their connections;
    /// `sessions` holds the session to take errands under; empty: none yet.
    pub fn new(desk: Arc<dyn Desk>, sending: Sending, sessions: watch::Receiver<String>) -> Self {
        Self { desk, sending, sessions }
    }

    /// Runs until told to stop; what is under way is then dropped, and the control plane tells whoever asked.
    pub async fn run(mut self, told: CancellationToken) {
        let (tasks, room) = (TaskTracker::new(), Arc::new(Semaphore::new(AT_ONCE)));
        while !told.is_cancelled() {
            let taken = tokio::select! {
                () = told.cancelled() => break,
                taken = self.take(&room) => taken,
            };
            let Some((session, errands)) = taken else { break };
            for errand in errands {
                let (desk, sending) = (self.desk.clone(), self.sending.clone());
                let findings = Findings { desk, session: session.clone(), errand: errand.id.clone(), sequence: 0 };
                let (room, told) = (room.clone(), told.clone());
                tasks.spawn(async move {
                    tokio::select! {
                        () = told.cancelled() => {}
                        () = carry_out(sending, errand, findings, room) => {}
                    }
                });
            }
        }
        tasks.close();
        tasks.wait().await;
    }

    /// Errands, once there is a session and room for one. `None`: there will never be a session again.
    async fn take(&mut self, room: &Semaphore) -> Option<(String, Vec<v1::Errand>)> {
        loop {
            let session = self.sessions.wait_for(|session| !session.is_empty()).await.ok()?.clone();
            // What is taken begins at once, or nearly so: another worker has none of it to do.
            drop(room.acquire().await.ok()?);
            let taken = tokio::select! {
                taken = self.desk.take(&session) => taken,
                changed = self.sessions.changed() => match changed {
                    Ok(()) => continue,
                    Err(_) => return None,
                },
            };
            match taken {
                Ok(errands) if errands.is_empty() => {}
                Ok(errands) => return Some((session, errands)),
                Err(error) => {
                    tracing::debug!(%error, "no errands were taken");
                    sleep(AGAIN).await;
                }
            }
        }
    }
}

/// One errand, to its end: done, not possible, out of time, or a panic.
async fn carry_out(sending: Sending, errand: v1::Errand, mut findings: Findings, room: Arc<Semaphore>) {
    let time = errand.time_left.as_ref().and_then(from_duration).unwrap_or(DEFAULT_TIME).min(LONGEST_TIME);
    let work = async {
        let _room = room.acquire().await;
        perform(&sending, errand, &mut findings).await
    };
    let undone = match timeout(time, AssertUnwindSafe(work).catch_unwind()).await {
        Ok(Ok(Ok(()))) => None,
        Ok(Ok(Err(Undone::Over))) => return,
        Ok(Ok(Err(Undone::Problem(found)))) => Some(found),
        Ok(Err(_panic)) => {
            tracing::error!(errand = findings.errand, "an errand panicked");
            Some(diagnosis::defect("an errand panicked"))
        }
        Err(_) => Some(diagnosis::timed_out("the worker", "do what it was asked to")),
    };
    let problem = undone.map(|found| found.problem(now(), now()));
    // Whoever asked does not wait longer than the errand's time; a little more is for the way.
    if timeout(ANSWER, findings.end(problem)).await.is_err() {
        tracing::debug!(errand = findings.errand, "the end of an errand could not be told");
    }
}

/// The tasks, each in a file of its own.
async fn perform(sending: &Sending, errand: v1::Errand, findings: &mut Findings) -> Result<(), Undone> {
    let shared = &sending.shared;
    let definition = errand.definition.unwrap_or_default();
    match errand.task {
        Some(Task::List(task)) => list::list(shared, &definition, task, findings).await,
        Some(Task::Fetch(task)) => fetch::fetch(shared, &definition, task, findings).await,
        Some(Task::Settle(_)) => {
            // One that is not read here is opened by whoever reads it next, and settled then.
            shared.recalls.recall(&definition.mailbox);
            Ok(())
        }
        Some(Task::Check(_)) => check::run(shared, &definition, findings).await,
        Some(Task::CheckOutgoing(task)) => {
            let outgoing = task.definition.unwrap_or_default();
            Box::pin(check_outgoing::run(sending, &outgoing, &task.sender, findings)).await
        }
        None => Err(diagnosis::unknown_errand().into()),
    }
}

#[cfg(test)]
mod tests;

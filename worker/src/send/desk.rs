//! Claims mails as long as there is room, and runs each as a task of its own: no panic, no server and no time out of one
//! is anything to the others. Whatever happens here, a claim lapses at the control plane by itself.
//!
//! Told to stop, it claims no more, lets what is under way come to its end for a while, and then gives it up: what was not
//! handed over goes back, and of what was, the outcome is told as not known.

use std::collections::HashSet;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::join_all;
use postroom_proto::catalogue::send;
use postroom_proto::convert::from_duration;
use postroom_proto::metric;
use postroom_proto::trace;
use postroom_proto::v1::{Claim, ClaimedMail, OutgoingDefinition, SendTask, SendVerdict, Transport};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::claim::{AGAIN, AGAIN_AT_LEAST, Broken, Deadline, UnderWay};
use super::outbox::{Error, Outbox};
use super::verdict::{Fate, Fault, Verdict};
use super::{Sending, graph, sent, smtp};
use crate::diagnosis::{self, Diagnosis};
use crate::mailbox::status::now;

/// Most mails under way at one time.
pub const AT_ONCE: usize = 64;
/// Time for what is under way when the worker stops.
pub const STOPPING: Duration = Duration::from_secs(9);
/// Time to tell what became of what was given up then.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// Pause before a claim that failed is made again. It doubles each time.
const CLAIM_AGAIN: Duration = Duration::from_millis(500);
/// Longest such pause: mail must not wait long for a control plane that is back, nor one that hands out none be asked
/// without rest.
const CLAIM_AGAIN_AT_LEAST: Duration = Duration::from_secs(5);
/// So long before its claim lapses an attempt is given up, to tell in time what became of it.
const MARGIN: Duration = Duration::from_secs(5);
/// How long after its claim has lapsed the end of a mail is still told.
const TELL_AFTER: Duration = Duration::from_secs(60);
/// Time of a claim that says none.
const DEFAULT_TIME: Duration = Duration::from_secs(120);
/// Pause between looks for connections that were kept long enough.
const SWEEP: Duration = Duration::from_secs(5);

/// Claims mails of the worker's present session and sends them.
pub struct Desk {
    outbox: Arc<dyn Outbox>,
    sending: Sending,
    sessions: watch::Receiver<String>,
}

impl std::fmt::Debug for Desk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Desk").finish_non_exhaustive()
    }
}

impl Desk {
    /// A desk that claims from `outbox`. `sessions` holds the session to claim under; empty: none yet.
    pub fn new(outbox: Arc<dyn Outbox>, sending: Sending, sessions: watch::Receiver<String>) -> Self {
        Self { outbox, sending, sessions }
    }

    /// Runs until told to stop, and until what is under way then has come to an end.
    pub async fn run(mut self, told: CancellationToken) {
        let (tasks, room) = (TaskTracker::new(), Arc::new(Semaphore::new(AT_ONCE)));
        let (given_up, trouble) = (CancellationToken::new(), Trouble::default());
        {
            let sweeping = sweep(&self.sending);
            tokio::pin!(sweeping);
            loop {
                let claimed = tokio::select! {
                    () = told.cancelled() => break,
                    () = &mut sweeping => break,
                    claimed = claim(&*self.outbox, &mut self.sessions, &room) => claimed,
                };
                let Some(Claimed { session, mails, received, seats }) = claimed else { break };
                for (mail, seat) in mails.into_iter().zip(seats) {
                    let errand = Errand {
                        outbox: self.outbox.clone(),
                        sending: self.sending.clone(),
                        session: session.clone(),
                        received,
                        given_up: given_up.clone(),
                        trouble: trouble.clone(),
                        _seat: seat,
                    };
                    tasks.spawn(errand.carry_out(mail));
                }
            }
        }
        tasks.close();
        if timeout(STOPPING, tasks.wait()).await.is_err() {
            tracing::info!(count = tasks.len(), "mails under way are given up, for the worker stops");
            given_up.cancel();
            let _ = timeout(LAST_WORDS, tasks.wait()).await;
        }
        close(self.sending.pool.sweep(Instant::now() + DEFAULT_TIME)).await;
    }
}

/// Closes connections that were kept long enough, for ever.
async fn sweep(sending: &Sending) {
    loop {
        sleep(SWEEP).await;
        close(sending.pool.sweep(Instant::now())).await;
    }
}

async fn close(connections: Vec<smtp::Over>) {
    join_all(connections.into_iter().map(smtp::Over::quit)).await;
}

/// Mails of one claim, with a seat for each.
struct Claimed {
    session: String,
    mails: Vec<ClaimedMail>,
    received: Instant,
    seats: Vec<OwnedSemaphorePermit>,
}

/// Mails, once there is a session and room for one. `None`: there will never be a session again.
async fn claim(outbox: &dyn Outbox, sessions: &mut watch::Receiver<String>, room: &Arc<Semaphore>) -> Option<Claimed> {
    let mut pause = CLAIM_AGAIN;
    loop {
        let session = sessions.wait_for(|session| !session.is_empty()).await.ok()?.clone();
        let mut seats = vec![room.clone().acquire_owned().await.ok()?];
        while seats.len() < AT_ONCE
            && let Ok(seat) = room.clone().try_acquire_owned()
        {
            seats.push(seat);
        }
        let most = u32::try_from(seats.len()).unwrap_or(1);
        let claimed = tokio::select! {
            claimed = outbox.claim(&session, most) => claimed,
            changed = sessions.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return None,
            },
        };
        match claimed {
            Ok(mails) if mails.is_empty() => {}
            Ok(mails) => return Some(Claimed { session, mails, received: Instant::now(), seats }),
            Err(error) => {
                tracing::debug!(%error, "no mails were claimed");
                drop(seats);
                sleep(pause).await;
                pause = (pause * 2).min(CLAIM_AGAIN_AT_LEAST);
            }
        }
    }
}

/// Uids of outgoing servers that do not work, so that the end of a failure is told, too.
type Trouble = Arc<Mutex<HashSet<String>>>;

/// One mail to be dealt with.
struct Errand {
    outbox: Arc<dyn Outbox>,
    sending: Sending,
    session: String,
    received: Instant,
    given_up: CancellationToken,
    trouble: Trouble,
    _seat: OwnedSemaphorePermit,
}

impl Errand {
    /// To its end: handed over, refused, not to be known, given up or a panic; and told.
    async fn carry_out(self, mut mail: ClaimedMail) {
        let definition = mail.definition.take().unwrap_or_default();
        let token = std::mem::take(&mut mail.token);
        let claim = Claim { session: self.session.clone(), mail: mail.mail.clone(), token };
        let time = mail.time_left.as_ref().and_then(from_duration).unwrap_or(DEFAULT_TIME);
        let left = time.saturating_sub(self.received.elapsed());
        let under_way = UnderWay::new(self.outbox.clone(), claim.clone(), Deadline::after(left));
        tracing::debug!(
            mail = mail.mail,
            outgoing_server = definition.name,
            attempt = mail.attempt,
            "a mail is claimed"
        );
        let span = trace::of_caller(&mail.traceparent).and_then(|of| trace::part(&of, "hand-over"));
        let end = self.end(&mut mail, &definition, &claim, &under_way).await;
        let Some(verdict) = under_way.verdict(end, mail.attempt, rand::random()) else {
            tracing::info!(mail = mail.mail, "the claim on a mail was lost; it is dropped");
            return;
        };
        if let Some(span) = span {
            let span = span.with("mail", mail.mail.clone()).with("outgoing_server", definition.name.clone());
            let span = span.with("verdict", word(verdict.verdict)).with("attempt", i64::from(mail.attempt));
            span.failed(verdict.found.as_ref().map(|found| found.code.clone())).end();
        }
        self.note(&mail, &definition, &verdict);
        self.tell(&verdict, claim, under_way.until() + TELL_AFTER).await;
    }

    /// Ordering: whatever the attempt holds, above all its connection, is dropped before its end is told. The time is looked
    /// at before the work: a process that did not run for a while finds both due.
    async fn end(
        &self,
        mail: &mut ClaimedMail,
        definition: &OutgoingDefinition,
        claim: &Claim,
        under_way: &UnderWay,
    ) -> Result<Verdict, Broken> {
        let raw = std::mem::take(&mut mail.raw);
        let work = perform(&self.sending, mail, definition, raw, claim, under_way, &*self.outbox);
        let mut work = Box::pin(AssertUnwindSafe(work).catch_unwind());
        let lost = |found: Diagnosis| Err(Broken::Lost(Fault::of(found, Fate::Again)));
        loop {
            let until = under_way.until();
            tokio::select! {
                biased;
                // A mark gives new time.
                () = sleep_until(until.checked_sub(MARGIN).unwrap_or(until)) => if under_way.until() <= until {
                    return lost(diagnosis::timed_out(&definition.host, "take the mail"));
                },
                end = &mut work => return end.unwrap_or_else(|_panic| {
                    tracing::error!(mail = mail.mail, "the sending of a mail panicked");
                    lost(diagnosis::defect("the sending of a mail panicked"))
                }),
                () = self.given_up.cancelled() => {
                    return lost(Diagnosis::of(&send::WORKER_STOPPED, send::WORKER_STOPPED.title));
                }
            }
        }
    }

    /// For the log: failures and their end. Never addresses, and of a server's words only what is not about a recipient.
    fn note(&self, mail: &ClaimedMail, definition: &OutgoingDefinition, verdict: &Verdict) {
        let (mail, server) = (mail.mail.as_str(), definition.name.as_str());
        let found = verdict.found.as_ref();
        let code = found.map_or("", |found| found.code.as_str());
        let transport = if definition.transport() == Transport::Graph { "graph" } else { "smtp" };
        metric::SENDS.count(&[transport, &word(verdict.verdict), code]);
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        match verdict.verdict {
            SendVerdict::Sent => {
                if trouble.remove(&definition.uid) {
                    tracing::info!(outgoing_server = server, "sending works again");
                }
                tracing::debug!(mail, outgoing_server = server, "a mail was sent");
            }
            SendVerdict::Deferred if verdict.whole_mailbox => {
                trouble.insert(definition.uid.clone());
                let cause = found.map_or("", |found| found.cause.as_str());
                tracing::info!(mail, outgoing_server = server, code, cause, delay = ?verdict.after, "sending failed");
            }
            SendVerdict::Unknown => {
                tracing::warn!(mail, outgoing_server = server, code, "a mail was handed over and the answer was lost");
            }
            SendVerdict::Deferred | SendVerdict::Failed => {
                tracing::info!(mail, outgoing_server = server, code, delay = ?verdict.after, "a mail was not sent");
            }
            SendVerdict::Found | SendVerdict::NotFound | SendVerdict::Unspecified => {
                tracing::info!(mail, outgoing_server = server, verdict = ?verdict.verdict, "a mail was looked for");
            }
        }
    }

    /// Repeats it until it is taken, or until nobody waits for it any more.
    async fn tell(&self, verdict: &Verdict, claim: Claim, until: Instant) {
        let mail = claim.mail.clone();
        let request = verdict.request(claim, now());
        let mut pause = AGAIN;
        while Instant::now() < until {
            match self.outbox.settle(request.clone()).await {
                Ok(()) => return,
                Err(error @ (Error::ClaimLost | Error::SessionEnded)) => {
                    tracing::info!(mail, %error, "what became of a mail came too late");
                    return;
                }
                Err(Error::Unavailable(why)) => {
                    tracing::debug!(mail, error = why, "what became of a mail is told again")
                }
            }
            sleep(pause).await;
            pause = (pause * 2).min(AGAIN_AT_LEAST);
        }
        tracing::warn!(mail, "what became of a mail could not be told; the control plane finds out");
    }
}

/// As metrics say it.
fn word(verdict: SendVerdict) -> String {
    verdict.as_str_name().trim_start_matches("SEND_VERDICT_").to_lowercase().replace('_', "-")
}

/// What is to be done with a mail.
async fn perform(
    sending: &Sending,
    mail: &ClaimedMail,
    definition: &OutgoingDefinition,
    raw: Bytes,
    claim: &Claim,
    under_way: &UnderWay,
    outbox: &dyn Outbox,
) -> Result<Verdict, Broken> {
    match (mail.task(), definition.transport()) {
        (SendTask::LookFor, _) => Ok(sent::look_for(sending, mail, definition).await?),
        (SendTask::Submit, Transport::Smtp) => {
            let expectation = sending.pool.expect(definition, &mail.sender);
            let (raw, _room) = body(sending, mail, raw, claim, outbox).await?;
            smtp::submit(sending, mail, definition, &raw, under_way, expectation).await
        }
        (SendTask::Submit, Transport::Graph) => {
            let (raw, _room) = body(sending, mail, raw, claim, outbox).await?;
            graph::submit(sending, mail, definition, &raw, under_way).await
        }
        _ => Err(Fault::of_server(diagnosis::unknown_errand()).into()),
    }
}

/// The bytes of a mail. Those that did not come along are fetched once there is room for them.
async fn body(
    sending: &Sending,
    mail: &ClaimedMail,
    raw: Bytes,
    claim: &Claim,
    outbox: &dyn Outbox,
) -> Result<(Bytes, Option<OwnedSemaphorePermit>), Broken> {
    if !raw.is_empty() {
        return Ok((raw, None));
    }
    let room = sending.budget.take(mail.size_bytes).await;
    let mut pause = AGAIN;
    loop {
        match outbox.raw(claim.clone(), mail.size_bytes).await {
            Ok(raw) => return Ok((raw, room)),
            Err(Error::ClaimLost | Error::SessionEnded) => return Err(Broken::ClaimLost),
            Err(Error::Unavailable(why)) => tracing::debug!(mail = mail.mail, error = why, "a mail is fetched again"),
        }
        sleep(pause).await;
        pause = (pause * 2).min(AGAIN_AT_LEAST);
    }
}

#[cfg(test)]
mod tests;

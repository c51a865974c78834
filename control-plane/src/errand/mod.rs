//! Errands: what only a worker can find out, asked for by whoever serves an operator.
//!
//! [`desk`] decides (pure); this file holds the desk, the askers who wait, and the workers who wait for errands.
//!
//! An errand goes to the session that holds the mailbox by the store's assignment, because it reads the mailbox from
//! where it is read. When nobody holds it, any session of its pool will do that lives and asks this replica for errands,
//! the least busy first; it gets the credentials although it holds no lease, because it may be given the mailbox at any time.
//!
//! Everything is in memory. An errand lives as long as its [`Asked`]: dropping that, the deadline, the end of the
//! worker's session and the end of the control plane all end it, and the worker learns so from its next report.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use postroom_proto::id::{MailboxUid, SessionId};
use postroom_proto::lease::Moment;
use postroom_proto::reason::{Failure, Reason};
use postroom_proto::v1::{self, errand::Task, report_errand_request::Found};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;

use self::desk::{Desk, Refusal, Report};
use crate::definition::model::Model;
use crate::lease::record::{SessionRecord, assignment, living};
use crate::store::{SharedStore, key};

pub mod desk;

/// Findings that wait for their asker. A worker that finds faster waits.
const FINDINGS: usize = 16;
/// Longest wait until a reader was called.
const CALLING: Duration = Duration::from_secs(5);
/// How often it is looked whether the session that has an errand still lives.
const LOOK: Duration = Duration::from_secs(1);

/// Why an errand ended without having been done.
#[derive(Debug, Clone, PartialEq)]
pub enum Unfinished {
    /// The worker says why it could not do it.
    Problem(v1::Problem),
    /// It was never done: no time left, the worker is gone, the control plane stops.
    Failed(Failure),
}

impl From<Unfinished> for Failure {
    fn from(unfinished: Unfinished) -> Self {
        match unfinished {
            Unfinished::Failed(failure) => failure,
            Unfinished::Problem(problem) => {
                let text = format!("{}; {}", problem.cause, problem.remedy);
                Failure::new(Reason::ErrandFailed, text).with("code", problem.code)
            }
        }
    }
}

/// The way back to an asker.
struct Asker {
    found: mpsc::Sender<Found>,
    ended: oneshot::Sender<Result<(), v1::Problem>>,
}

#[derive(Default)]
struct State {
    desk: Desk,
    askers: HashMap<String, Asker>,
}

/// The errands of this replica. Cheap to share.
#[derive(Clone)]
pub struct Errands {
    inner: Arc<Inner>,
}

struct Inner {
    store: SharedStore,
    model: watch::Receiver<Arc<Model>>,
    // Held only to look up or change, never across an await.
    state: Mutex<State>,
    /// Changes when an errand was asked for.
    news: watch::Sender<u64>,
    stopping: CancellationToken,
    start: Instant,
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Moment {
        self.start.elapsed()
    }

    fn end(&self, id: &str) {
        let mut state = self.state();
        state.desk.end(id);
        state.askers.remove(id);
    }

    async fn lives(&self, session: &SessionId) -> Result<bool, Failure> {
        Ok(self.record(session).await?.is_some())
    }

    async fn record(&self, session: &SessionId) -> Result<Option<SessionRecord>, Failure> {
        Ok(living(&self.store, session).await?)
    }
}

/// Who does an errand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Doer {
    /// The session.
    pub session: SessionId,
    /// Name of its worker.
    pub worker: String,
    /// True when it holds the mailbox.
    pub holds: bool,
}

impl Errands {
    /// No errands yet. `model` knows the pool of a mailbox; `stopping` ends every wait.
    pub fn new(store: SharedStore, model: watch::Receiver<Arc<Model>>, stopping: CancellationToken) -> Self {
        let (news, _) = watch::channel(0);
        let inner = Inner { store, model, state: Mutex::default(), news, stopping, start: Instant::now() };
        Self { inner: Arc::new(inner) }
    }

    /// Gives a worker something to find out about the mailbox that `definition` describes, within `time`.
    pub async fn ask(&self, definition: v1::MailboxDefinition, task: Task, time: Duration) -> Result<Asked, Failure> {
        let mailbox = MailboxUid::parse(&definition.mailbox).ok();
        let doer = self.doer(mailbox.as_ref()).await?;
        self.give(doer, Some(definition), task, time)
    }

    /// Gives any worker of a pool (`None`: of whichever) something to find out that is about no mailbox.
    pub async fn ask_anybody(&self, pool: Option<&str>, task: Task, time: Duration) -> Result<Asked, Failure> {
        let doer = self.anybody(pool).await?;
        self.give(doer, None, task, time)
    }

    /// Calls the reader of a mailbox back to the ledger, which has something that it does not know of. It may fail: whoever
    /// opens the mailbox next learns of it all the same.
    pub async fn recall(&self, definition: v1::MailboxDefinition) {
        let mailbox = definition.mailbox.clone();
        let called = match self.ask(definition, Task::Settle(v1::SettleTask {}), CALLING).await {
            Ok(mut asked) => asked.next().await.map(drop).map_err(Failure::from),
            Err(failure) => Err(failure),
        };
        if let Err(failure) = called {
            tracing::debug!(mailbox, error = failure.message, "the reader of a mailbox could not be called");
        }
    }

    fn give(
        &self,
        doer: Doer,
        definition: Option<v1::MailboxDefinition>,
        task: Task,
        time: Duration,
    ) -> Result<Asked, Failure> {
        let id = uuid::Uuid::new_v4().simple().to_string();
        let errand = v1::Errand { id: id.clone(), definition, time_left: None, task: Some(task) };
        let (found, findings) = mpsc::channel(FINDINGS);
        let (ended, end) = oneshot::channel();
        {
            let mut state = self.inner.state();
            state.desk.ask(&doer.session, errand, self.inner.now() + time).map_err(|desk::Full| {
                let text = format!("the worker {} has {} errands already", doer.worker, desk::MOST_OF_A_SESSION);
                Failure::new(Reason::TooMany, text)
            })?;
            state.askers.insert(id.clone(), Asker { found, ended });
        }
        self.inner.news.send_modify(|count| *count += 1);
        Ok(Asked { inner: self.inner.clone(), id, doer, until: Instant::now() + time, time, findings, end })
    }

    /// Who would do an errand about a mailbox: its holder, or else any worker of its pool; of one that no queue reads, any.
    pub async fn doer(&self, mailbox: Option<&MailboxUid>) -> Result<Doer, Failure> {
        if let Some(mailbox) = mailbox
            && let Some(entry) = self.inner.store.get(&key::assignment(mailbox)).await?
            && let Some((_, assignment)) = assignment(&entry)
            && let Some(record) = self.inner.record(&assignment.session).await?
        {
            return Ok(Doer { session: assignment.session, worker: record.profile.worker, holds: true });
        }
        let model = self.inner.model.borrow().clone();
        let pool = mailbox.and_then(|mailbox| model.mailbox(mailbox)).map(|mailbox| mailbox.instance.pool());
        self.anybody(pool).await
    }

    async fn anybody(&self, pool: Option<&str>) -> Result<Doer, Failure> {
        let listening = self.inner.state().desk.listening(self.inner.now());
        for session in listening {
            match self.inner.record(&session).await? {
                Some(record) if pool.is_some_and(|pool| pool != record.profile.pool) => {}
                Some(record) => return Ok(Doer { session, worker: record.profile.worker, holds: false }),
                None => self.inner.state().desk.forget(&session),
            }
        }
        let of = pool.map(|pool| format!(" of pool {pool}")).unwrap_or_default();
        let text = format!("no worker{of} is connected that could look; start one, or wait until it has registered");
        Err(Failure::new(Reason::NoWorker, text))
    }

    /// A worker waits for errands, at most `wait`.
    pub async fn take(&self, session: &SessionId, wait: Duration) -> Result<Vec<v1::Errand>, Failure> {
        if !self.inner.lives(session).await? {
            self.inner.state().desk.forget(session);
            let text = "the session is over; drop everything and register again";
            return Err(Failure::new(Reason::SessionEnded, text));
        }
        let until = Instant::now() + wait;
        // Ordering: subscribe before looking, so that an errand asked for in between is either found or announced.
        let mut news = self.inner.news.subscribe();
        loop {
            news.mark_unchanged();
            let taken = self.inner.state().desk.take(self.inner.now(), session);
            if !taken.is_empty() || Instant::now() >= until {
                return Ok(taken);
            }
            tokio::select! {
                () = self.inner.stopping.cancelled() => return Err(stopping()),
                // The wait is over: one last look.
                _ = timeout_at(until, news.changed()) => {}
            }
        }
    }

    /// A worker says what it has found.
    pub async fn report(&self, session: &SessionId, request: v1::ReportErrandRequest) -> Result<(), Failure> {
        let over = || Failure::new(Reason::NotFound, format!("the errand {:?} is over", request.errand));
        // Ordering: room with the asker first, so that what is counted as taken is handed over in the same breath.
        let asker = self.inner.state().askers.get(&request.errand).map(|asker| asker.found.clone()).ok_or_else(over)?;
        let room = asker.reserve().await.map_err(|_| over())?;
        let mut state = self.inner.state();
        match state.desk.report(session, &request.errand, request.sequence, request.ended) {
            Err(Refusal::Over) => Err(over()),
            Err(Refusal::Gap) => Err(Failure::invalid_field("sequence", "leaves out a report; send them one by one")),
            Ok(Report::Known) => Ok(()),
            Ok(Report::News) => {
                if let Some(found) = request.found {
                    room.send(found);
                }
                if request.ended
                    && let Some(asker) = state.askers.remove(&request.errand)
                {
                    // Whoever asked may have gone in this moment.
                    let _ = asker.ended.send(request.problem.map_or(Ok(()), Err));
                }
                Ok(())
            }
        }
    }
}

/// An errand under way. Dropping it gives the errand up.
pub struct Asked {
    inner: Arc<Inner>,
    id: String,
    doer: Doer,
    until: Instant,
    time: Duration,
    findings: mpsc::Receiver<Found>,
    end: oneshot::Receiver<Result<(), v1::Problem>>,
}

impl std::fmt::Debug for Asked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Asked").field("id", &self.id).field("doer", &self.doer).finish_non_exhaustive()
    }
}

impl Asked {
    /// Who does it.
    pub fn doer(&self) -> &Doer {
        &self.doer
    }

    /// What was found next. `None`: it is done, nothing follows.
    pub async fn next(&mut self) -> Result<Option<Found>, Unfinished> {
        loop {
            tokio::select! {
                biased;
                found = self.findings.recv() => match found {
                    Some(found) => return Ok(Some(found)),
                    None => return self.ended().await,
                },
                () = self.inner.stopping.cancelled() => return Err(Unfinished::Failed(stopping())),
                () = tokio::time::sleep_until(self.until) => {
                    let text = format!("the worker {} was not ready within {:?}", self.doer.worker, self.time);
                    return Err(Unfinished::Failed(Failure::new(Reason::ErrandFailed, text)));
                }
                () = sleep(LOOK) => self.look().await?,
            }
        }
    }

    /// Fails when the worker's session has ended.
    async fn look(&self) -> Result<(), Unfinished> {
        if self.inner.lives(&self.doer.session).await.map_err(Unfinished::Failed)? {
            return Ok(());
        }
        let text = format!("the worker {} has gone in the middle of it; ask again", self.doer.worker);
        Err(Unfinished::Failed(Failure::new(Reason::NoWorker, text)))
    }

    async fn ended(&mut self) -> Result<Option<Found>, Unfinished> {
        match (&mut self.end).await {
            Ok(Ok(())) => Ok(None),
            Ok(Err(problem)) => Err(Unfinished::Problem(problem)),
            // Only the end of an errand drops the way back to its asker, and it says how it ended.
            Err(_) => Err(Unfinished::Failed(Failure::new(Reason::Internal, "an errand was lost"))),
        }
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.inner.end(&self.id);
    }
}

fn stopping() -> Failure {
    Failure::new(Reason::ShuttingDown, "the control plane is stopping; ask again")
}

#[cfg(test)]
mod tests;

//! How the reading of each mailbox goes, for operators and for later holders.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use postroom_proto::convert::{micros, to_timestamp};
use postroom_proto::v1::{self, MailboxState};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::diagnosis::Diagnosis;
use crate::report::Reporter;

/// Most statuses in one call.
const MAX_STATUSES: usize = 500;
/// Time between two calls, so that a storm of changes is told once.
const PACE: Duration = Duration::from_millis(200);

/// Statuses not yet told. Bounded by the number of mailboxes: a newer one takes the place of the older.
#[derive(Debug, Default)]
pub struct Board {
    changed: Mutex<HashMap<String, v1::MailboxStatus>>,
    wake: Notify,
}

impl Board {
    /// An empty board.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts up a status.
    pub fn publish(&self, status: v1::MailboxStatus) {
        self.lock().insert(status.mailbox.clone(), status);
        self.wake.notify_one();
    }

    /// Takes down up to 500 statuses.
    pub fn take(&self) -> Vec<v1::MailboxStatus> {
        let mut changed = self.lock();
        let names: Vec<String> = changed.keys().take(MAX_STATUSES).cloned().collect();
        names.iter().filter_map(|name| changed.remove(name)).collect()
    }

    /// Puts back what could not be told, unless there is something newer.
    fn put_back(&self, statuses: Vec<v1::MailboxStatus>) {
        let mut changed = self.lock();
        for status in statuses {
            changed.entry(status.mailbox.clone()).or_insert(status);
        }
    }

    /// Tells the control plane until `stop`, and what is left then, once.
    pub async fn forward(&self, reporter: &dyn Reporter, stop: CancellationToken) {
        loop {
            let statuses = self.take();
            if statuses.is_empty() {
                tokio::select! {
                    () = self.wake.notified() => {}
                    () = stop.cancelled() => return,
                }
                continue;
            }
            let told = reporter.status(statuses.clone()).await;
            let pause = match told {
                Ok(()) => PACE,
                Err(error) => {
                    tracing::debug!(%error, "statuses could not be told");
                    self.put_back(statuses);
                    PACE * 10
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                // A last round for what is left, unless it just failed.
                () = stop.cancelled() => {
                    let _ = reporter.status(self.take()).await;
                    return;
                }
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, v1::MailboxStatus>> {
        self.changed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells the status of one mailbox.
#[derive(Debug)]
pub struct Teller {
    board: Arc<Board>,
    status: v1::MailboxStatus,
}

impl Teller {
    /// Nothing told yet.
    pub fn new(board: Arc<Board>, mailbox: &str, epoch: u64) -> Self {
        let status = v1::MailboxStatus { mailbox: mailbox.to_owned(), epoch, ..v1::MailboxStatus::default() };
        Self { board, status }
    }

    /// It was not opened (again): of which generation the mailbox is now is not known. 0 leaves it to the control plane.
    pub fn unopened(&mut self) {
        self.status.generation = 0;
    }

    /// Takes over what a former holder told, so that "since when" survives a hand-over.
    pub fn recall(&mut self, generation: u64, former: Option<&v1::MailboxStatus>) {
        self.status.generation = generation;
        if let Some(former) = former {
            // What was told of refusals stays told until there is something newer to tell.
            self.status.refused_credentials.clone_from(&former.refused_credentials);
            self.status.refused_times.clone_from(&former.refused_times);
        }
        if let Some(former) = former
            && self.status.problem.is_none()
        {
            self.status.problem = former.problem.clone();
        }
    }

    /// It works, and stands in this state.
    pub fn works(&mut self, state: MailboxState) {
        self.tell(state, None);
    }

    /// A step of a new try, which says nothing about a problem that lasts.
    pub fn tries(&mut self) {
        let problem = self.status.problem.clone();
        let state = if problem.is_some() { MailboxState::Failing } else { MailboxState::Connecting };
        self.tell(state, problem);
    }

    /// It does not work; the next try is after `delay`.
    pub fn fails(&mut self, found: &Diagnosis, delay: Duration) {
        let now = now();
        let next = now.saturating_add(i64::try_from(delay.as_micros()).unwrap_or(i64::MAX));
        let mut problem = found.problem(now, next);
        if let Some(before) = self.status.problem.as_ref().filter(|before| before.code == found.code) {
            problem.since_time = before.since_time;
        }
        self.tell(MailboxState::Failing, Some(problem));
    }

    /// Which credentials were refused, and when; no times: they were not.
    pub fn refused(&mut self, credentials: &[u8], times: Vec<i64>) {
        self.status.refused_credentials = if times.is_empty() { Vec::new() } else { credentials.to_vec() };
        self.status.refused_times = times.into_iter().map(to_timestamp).collect();
    }

    /// What there is to tell, for a caller who has to know that it was told.
    pub fn status(&self) -> v1::MailboxStatus {
        self.status.clone()
    }

    fn tell(&mut self, state: MailboxState, problem: Option<v1::Problem>) {
        let before = (self.status.state, self.status.problem.as_ref());
        if before == (state.into(), problem.as_ref()) && self.status.since_time.is_some() {
            return;
        }
        if self.status.state != i32::from(state) || self.status.since_time.is_none() {
            self.status.since_time = Some(to_timestamp(now()));
        }
        self.status.state = state.into();
        self.status.problem = problem;
        self.board.publish(self.status.clone());
    }
}

/// Microseconds since 1970.
pub(crate) fn now() -> i64 {
    micros(SystemTime::now())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnosis::imap;

    #[test]
    fn a_problem_keeps_its_beginning_and_goes_when_it_works() {
        let board = Arc::new(Board::new());
        let mut teller = Teller::new(board.clone(), "mbx-1", 7);
        let found = imap::connection_lost(None);
        teller.fails(&found, Duration::from_secs(1));
        let first = board.take().remove(0);
        teller.tries();
        teller.fails(&found, Duration::from_secs(9));
        let second = board.take().remove(0);
        let since = |status: &v1::MailboxStatus| status.problem.as_ref().and_then(|problem| problem.since_time);
        assert_eq!(since(&first), since(&second));
        assert_ne!(first.problem, second.problem, "the next attempt is told");
        teller.works(MailboxState::Idle);
        let third = board.take().remove(0);
        assert_eq!((third.state(), third.problem), (MailboxState::Idle, None));
        teller.works(MailboxState::Idle);
        assert!(board.take().is_empty(), "nothing new");
    }
}

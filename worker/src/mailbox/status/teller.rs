//! What is told of one mailbox.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use postroom_proto::catalogue::own::PASSWORD_REFUSED;
use postroom_proto::convert::to_timestamp;
use postroom_proto::v1::{self, MailboxState, ProblemKind};

use super::{Board, now};
use crate::diagnosis::Diagnosis;
use crate::mailbox::cursor::Renumbered;
use crate::report::{Error, Reporter};

/// Tells the status of one mailbox: the session what it does, and its watchdog how long it has been at that. Cheap to share.
#[derive(Debug, Clone)]
pub struct Teller {
    board: Arc<Board>,
    // Held only to change it, never across an await.
    told: Arc<Mutex<Told>>,
}

#[derive(Debug, Default)]
struct Told {
    status: v1::MailboxStatus,
    /// Something beside state and problem is news.
    untold: bool,
}

/// A later end of an activity is told when it is this much later, in seconds.
const LATER: i64 = 60;

impl Teller {
    /// Nothing told yet.
    pub fn new(board: Arc<Board>, mailbox: &str, epoch: u64) -> Self {
        let status = v1::MailboxStatus { mailbox: mailbox.to_owned(), epoch, ..v1::MailboxStatus::default() };
        Self { board, told: Arc::new(Mutex::new(Told { status, untold: false })) }
    }

    /// It was not opened (again): of which generation the mailbox is now is not known. 0 leaves it to the control plane.
    pub fn unopened(&self) {
        self.lock().status.generation = 0;
    }

    /// Takes over what a former holder told, so that "since when" survives a hand-over.
    pub fn recall(&self, generation: u64, former: Option<&v1::MailboxStatus>) {
        let status = &mut self.lock().status;
        status.generation = generation;
        if let Some(former) = former {
            // What was told of refusals stays told until there is something newer to tell.
            status.refused_credentials.clone_from(&former.refused_credentials);
            status.refused_times.clone_from(&former.refused_times);
            status.renumbering = former.renumbering;
            status.throttled_until_time = former.throttled_until_time;
        }
        if let Some(former) = former
            && status.problem.is_none()
        {
            status.problem = former.problem.clone();
        }
    }

    /// It works, and stands in this state.
    pub fn works(&self, state: MailboxState) {
        self.tell(&mut self.lock(), state, None);
    }

    /// A step of a new try, which says nothing about a problem that lasts.
    pub fn tries(&self) {
        let mut told = self.lock();
        let problem = told.status.problem.clone();
        let state = if problem.is_some() { MailboxState::Failing } else { MailboxState::Connecting };
        self.tell(&mut told, state, problem);
    }

    /// It does not work; the next try is after `delay`.
    pub fn fails(&self, found: &Diagnosis, delay: Duration) {
        let mut told = self.lock();
        let now = now();
        let next = now.saturating_add(i64::try_from(delay.as_micros()).unwrap_or(i64::MAX));
        let mut problem = found.problem(now, next);
        match &told.status.problem {
            // That a refused password is held back says nothing new: why it was refused is what helps.
            Some(before) if found.code == PASSWORD_REFUSED.code() && before.kind() == ProblemKind::Credential => {
                problem = v1::Problem { next_attempt_time: problem.next_attempt_time, ..before.clone() };
            }
            Some(before) if before.code == found.code => problem.since_time = before.since_time,
            _ => {}
        }
        self.tell(&mut told, MailboxState::Failing, Some(problem));
    }

    /// Which credentials were refused, and when; no times: they were not.
    pub fn refused(&self, credentials: &[u8], times: Vec<i64>) {
        let status = &mut self.lock().status;
        status.refused_credentials = if times.is_empty() { Vec::new() } else { credentials.to_vec() };
        status.refused_times = times.into_iter().map(to_timestamp).collect();
    }

    /// How the folder was numbered anew the last time. Told with the next state.
    pub fn renumbered(&self, renumbered: Option<&Renumbered>) {
        let now_told = renumbered.map(|it| v1::Renumbering {
            began_time: Some(to_timestamp(it.began)),
            finished_time: it.finished.map(to_timestamp),
            known_count: it.known,
            new_count: it.new,
            left_count: it.left,
        });
        let mut told = self.lock();
        told.untold |= told.status.renumbering != now_told;
        told.status.renumbering = now_told;
    }

    /// What it is at within its state, once that lasts. `None`: nothing that lasts.
    pub fn stands(&self, activity: Option<v1::MailboxActivity>) {
        let mut told = self.lock();
        // Whoever has said nothing yet has no state to be in.
        if told.status.since_time.is_some() && differ(told.status.activity.as_ref(), activity.as_ref()) {
            told.status.activity = activity;
            self.board.publish(told.status.clone());
        }
    }

    /// Tells all there is to tell, for a caller who has to know that it was told.
    pub async fn tell_at_once(&self, reporter: &dyn Reporter) -> Result<(), Error> {
        let mailbox = {
            let mut told = self.lock();
            told.untold = false;
            self.board.publish(told.status.clone());
            told.status.mailbox.clone()
        };
        self.board.tell(reporter, &mailbox).await
    }

    fn tell(&self, told: &mut Told, state: MailboxState, problem: Option<v1::Problem>) {
        let status = &mut told.status;
        let before = (status.state, status.problem.as_ref());
        let known = before == (state.into(), problem.as_ref()) && status.since_time.is_some();
        if known && !std::mem::take(&mut told.untold) {
            return;
        }
        if status.state != i32::from(state) || status.since_time.is_none() {
            status.since_time = Some(to_timestamp(now()));
            // It belonged to the former state.
            status.activity = None;
        }
        told.untold = false;
        status.state = state.into();
        let throttled = problem.as_ref().filter(|problem| problem.kind() == ProblemKind::Throttled);
        status.throttled_until_time = throttled.and_then(|problem| problem.next_attempt_time);
        status.problem = problem;
        self.board.publish(status.clone());
    }

    fn lock(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// True when two activities are not the same one, or the same one with clearly another end.
fn differ(before: Option<&v1::MailboxActivity>, now: Option<&v1::MailboxActivity>) -> bool {
    let (Some(before), Some(now)) = (before, now) else { return before.is_some() != now.is_some() };
    let apart = |a: &Option<prost_types::Timestamp>, b: &Option<prost_types::Timestamp>| {
        let seconds = |time: &Option<prost_types::Timestamp>| time.as_ref().map_or(0, |time| time.seconds);
        (seconds(a) - seconds(b)).abs()
    };
    before.doing != now.doing
        || apart(&before.since_time, &now.since_time) > 2
        || apart(&before.until_time, &now.until_time) > LATER
}

#[cfg(test)]
mod tests {
    use postroom_proto::catalogue::entra;

    use super::*;
    use crate::diagnosis::imap;

    #[test]
    fn a_problem_keeps_its_beginning_and_goes_when_it_works() {
        let board = Arc::new(Board::new());
        let teller = Teller::new(board.clone(), "mbx-1", 7);
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

    #[test]
    fn the_wish_of_a_server_is_told_for_as_long_as_it_is_why_nothing_works() {
        let board = Arc::new(Board::new());
        let teller = Teller::new(board.clone(), "mbx-1", 7);
        let wish = |board: &Board| board.take().remove(0).throttled_until_time;
        teller.fails(&imap::command_refused("SELECT", "[THROTTLED] later"), Duration::from_secs(60));
        let throttled = board.take().remove(0);
        assert_eq!(throttled.problem.as_ref().map(v1::Problem::kind), Some(ProblemKind::Throttled));
        assert!(throttled.throttled_until_time.is_some());
        assert_eq!(throttled.throttled_until_time, throttled.problem.and_then(|problem| problem.next_attempt_time));
        teller.tries();
        teller.fails(&imap::connection_lost(None), Duration::from_secs(1));
        assert_eq!(wish(&board), None);
        teller.works(MailboxState::Idle);
        assert_eq!(wish(&board), None);
    }

    #[test]
    fn how_a_folder_was_numbered_anew_is_told_once_and_survives_a_hand_over() {
        let board = Arc::new(Board::new());
        let teller = Teller::new(board.clone(), "mbx-1", 7);
        let mut renumbered =
            Renumbered { since: 1, backlog: false, began: 2, finished: None, known: 3, new: 4, left: 5 };
        teller.renumbered(Some(&renumbered));
        teller.works(MailboxState::Rekeying);
        let first = board.take().remove(0);
        assert_eq!(first.renumbering.map(|it| (it.known_count, it.finished_time)), Some((3, None)));
        teller.renumbered(Some(&renumbered));
        teller.works(MailboxState::Rekeying);
        assert!(board.take().is_empty(), "nothing new");
        renumbered.finished = Some(6);
        teller.renumbered(Some(&renumbered));
        teller.works(MailboxState::Rekeying);
        let second = board.take().remove(0);
        assert!(second.renumbering.is_some_and(|it| it.finished_time.is_some()));
        let next = Teller::new(board.clone(), "mbx-1", 8);
        next.recall(1, Some(&second));
        next.works(MailboxState::Connecting);
        assert_eq!(board.take().remove(0).renumbering, second.renumbering);
    }

    #[test]
    fn what_it_is_at_is_told_when_it_lasts_and_goes_with_its_state() {
        let board = Arc::new(Board::new());
        let teller = Teller::new(board.clone(), "mbx-1", 7);
        let at = |seconds| Some(prost_types::Timestamp { seconds, nanos: 0 });
        let activity = |doing: &str, until| {
            let next = "goes on".into();
            Some(v1::MailboxActivity { doing: doing.into(), since_time: at(100), until_time: at(until), next })
        };
        teller.stands(activity("fetches", 200));
        assert!(board.take().is_empty(), "nobody has said anything yet");
        teller.works(MailboxState::CatchingUp);
        teller.stands(None);
        assert_eq!(board.take().remove(0).activity, None);
        teller.stands(activity("fetches", 200));
        assert_eq!(board.take().remove(0).activity, activity("fetches", 200));
        teller.stands(activity("fetches", 210));
        assert!(board.take().is_empty(), "that its end moves with it is no news each time");
        teller.stands(activity("fetches", 300));
        teller.stands(activity("waits", 300));
        assert_eq!(board.take().remove(0).activity, activity("waits", 300));
        teller.works(MailboxState::CatchingUp);
        assert!(board.take().is_empty(), "still in the same state");
        teller.works(MailboxState::Idle);
        assert_eq!(board.take().remove(0).activity, None);
    }

    #[test]
    fn a_password_that_is_held_back_keeps_the_reason_it_was_refused_for() {
        let board = Arc::new(Board::new());
        let teller = Teller::new(board.clone(), "mbx-1", 7);
        let refused = Diagnosis::of(entra::find(50_126).unwrap(), "wrong password");
        teller.fails(&refused, Duration::from_secs(1));
        let first = board.take().remove(0).problem.unwrap();
        teller.fails(&crate::token::broker::locked(now() + 3_600_000_000), Duration::from_secs(3600));
        let second = board.take().remove(0).problem.unwrap();
        assert_eq!((second.code.as_str(), &second.cause), ("AADSTS50126", &first.cause));
        assert_ne!(second.next_attempt_time, first.next_attempt_time);

        // A new holder that was told nothing has only this to say.
        let other = Teller::new(board.clone(), "mbx-2", 7);
        other.fails(&crate::token::broker::locked(now() + 3_600_000_000), Duration::from_secs(3600));
        assert_eq!(board.take().remove(0).problem.unwrap().code, PASSWORD_REFUSED.code());
    }
}

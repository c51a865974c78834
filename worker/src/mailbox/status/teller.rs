//! What is told of one mailbox.

use std::sync::Arc;
use std::time::Duration;

use postroom_proto::catalogue::own::PASSWORD_REFUSED;
use postroom_proto::convert::to_timestamp;
use postroom_proto::v1::{self, MailboxState, ProblemKind};

use super::{Board, now};
use crate::diagnosis::Diagnosis;
use crate::mailbox::cursor::Renumbered;

/// Tells the status of one mailbox.
#[derive(Debug)]
pub struct Teller {
    board: Arc<Board>,
    status: v1::MailboxStatus,
    /// Something beside state and problem is news.
    untold: bool,
}

impl Teller {
    /// Nothing told yet.
    pub fn new(board: Arc<Board>, mailbox: &str, epoch: u64) -> Self {
        let status = v1::MailboxStatus { mailbox: mailbox.to_owned(), epoch, ..v1::MailboxStatus::default() };
        Self { board, status, untold: false }
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
            self.status.renumbering = former.renumbering;
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
        match &self.status.problem {
            // That a refused password is held back says nothing new: why it was refused is what helps.
            Some(before) if found.code == PASSWORD_REFUSED.code() && before.kind() == ProblemKind::Credential => {
                problem = v1::Problem { next_attempt_time: problem.next_attempt_time, ..before.clone() };
            }
            Some(before) if before.code == found.code => problem.since_time = before.since_time,
            _ => {}
        }
        self.tell(MailboxState::Failing, Some(problem));
    }

    /// Which credentials were refused, and when; no times: they were not.
    pub fn refused(&mut self, credentials: &[u8], times: Vec<i64>) {
        self.status.refused_credentials = if times.is_empty() { Vec::new() } else { credentials.to_vec() };
        self.status.refused_times = times.into_iter().map(to_timestamp).collect();
    }

    /// How the folder was numbered anew the last time. Told with the next state.
    pub fn renumbered(&mut self, renumbered: Option<&Renumbered>) {
        let told = renumbered.map(|it| v1::Renumbering {
            began_time: Some(to_timestamp(it.began)),
            finished_time: it.finished.map(to_timestamp),
            known_count: it.known,
            new_count: it.new,
            left_count: it.left,
        });
        self.untold |= self.status.renumbering != told;
        self.status.renumbering = told;
    }

    /// What there is to tell, for a caller who has to know that it was told.
    pub fn status(&self) -> v1::MailboxStatus {
        self.status.clone()
    }

    fn tell(&mut self, state: MailboxState, problem: Option<v1::Problem>) {
        let before = (self.status.state, self.status.problem.as_ref());
        let told = before == (state.into(), problem.as_ref()) && self.status.since_time.is_some();
        let untold = std::mem::take(&mut self.untold);
        if told && !untold {
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

#[cfg(test)]
mod tests {
    use postroom_proto::catalogue::entra;

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

    #[test]
    fn how_a_folder_was_numbered_anew_is_told_once_and_survives_a_hand_over() {
        let board = Arc::new(Board::new());
        let mut teller = Teller::new(board.clone(), "mbx-1", 7);
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
        let mut next = Teller::new(board.clone(), "mbx-1", 8);
        next.recall(1, Some(&second));
        next.works(MailboxState::Connecting);
        assert_eq!(board.take().remove(0).renumbering, second.renumbering);
    }

    #[test]
    fn a_password_that_is_held_back_keeps_the_reason_it_was_refused_for() {
        let board = Arc::new(Board::new());
        let mut teller = Teller::new(board.clone(), "mbx-1", 7);
        let refused = Diagnosis::of(entra::find(50_126).unwrap(), "wrong password");
        teller.fails(&refused, Duration::from_secs(1));
        let first = board.take().remove(0).problem.unwrap();
        teller.fails(&crate::token::broker::locked(now() + 3_600_000_000), Duration::from_secs(3600));
        let second = board.take().remove(0).problem.unwrap();
        assert_eq!((second.code.as_str(), &second.cause), ("AADSTS50126", &first.cause));
        assert_ne!(second.next_attempt_time, first.next_attempt_time);

        // A new holder that was told nothing has only this to say.
        let mut other = Teller::new(board.clone(), "mbx-2", 7);
        other.fails(&crate::token::broker::locked(now() + 3_600_000_000), Duration::from_secs(3600));
        assert_eq!(board.take().remove(0).problem.unwrap().code, PASSWORD_REFUSED.code());
    }
}

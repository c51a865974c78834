//! Old messages that wait for an operator, because a mailbox was first read with more of them than its queue allows.

use postroom_proto::convert::to_timestamp;
use postroom_proto::v1::{self, BacklogDecisionKind, BacklogState};

use super::Micros;

/// How they may be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Release {
    /// What the server received before this time is left.
    pub since: Option<Micros>,
    /// Most messages in a minute; 0: as many as can be read.
    pub rate_per_minute: u32,
}

/// What a report does to them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// How many there were at the first reading.
    pub message_count: u64,
    /// Taken by now.
    pub taken_count: u64,
    /// Left by now.
    pub left_count: u64,
    /// None waits any more.
    pub finished: bool,
}

/// What somebody decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// `None`: they wait from now on.
    pub release: Option<Release>,
    /// When.
    pub made_at: Micros,
    /// Role of who decided.
    pub made_by: String,
}

/// The old messages of a mailbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backlog {
    /// When the mailbox was first read.
    pub held_at: Micros,
    /// How far the reading of them is.
    pub progress: Progress,
    /// When the last of them were taken or left.
    pub progress_at: Option<Micros>,
    /// When the last one was dealt with.
    pub finished_at: Option<Micros>,
    /// Where they stand.
    pub state: BacklogState,
    /// How they are, or were, read. `None`: they wait.
    pub release: Option<Release>,
    /// What was decided, newest first, where that was asked for.
    pub decisions: Vec<Decision>,
}

impl Backlog {
    /// True when they wait for somebody's word.
    pub fn waits(&self) -> bool {
        matches!(self.state, BacklogState::Waiting | BacklogState::Stopped)
    }

    /// How many are still there, as far as they were counted.
    pub fn waiting_count(&self) -> u64 {
        self.progress.message_count.saturating_sub(self.progress.taken_count).saturating_sub(self.progress.left_count)
    }

    /// The same for the wire, of the mailbox `email`.
    pub fn describe(&self, mailbox: &str, email: &str) -> v1::Backlog {
        let (cause, remedy) = if self.waits() { self.explain(email) } else { Default::default() };
        v1::Backlog {
            mailbox: mailbox.into(),
            email: email.into(),
            state: self.state.into(),
            message_count: self.progress.message_count,
            taken_count: self.progress.taken_count,
            left_count: self.progress.left_count,
            held_time: Some(to_timestamp(self.held_at)),
            progress_time: self.progress_at.map(to_timestamp),
            finished_time: self.finished_at.map(to_timestamp),
            since_time: self.release.and_then(|release| release.since).map(to_timestamp),
            rate_per_minute: self.release.map_or(0, |release| release.rate_per_minute),
            decisions: self.decisions.iter().map(decision).collect(),
            cause,
            remedy,
        }
    }

    /// Why they wait, and what to do.
    fn explain(&self, email: &str) -> (String, String) {
        let count = self.waiting_count();
        let cause = format!(
            "{count} of {} messages that were in the mailbox when it was first read wait for an operator, more than the \
             queue's `backlogGuard`; new mail is read",
            self.progress.message_count
        );
        let remedy = format!(
            "take them with `postroom mailbox backlog approve {email}`, with --rate N only so many a minute; --since TIME \
             leaves what is older"
        );
        (cause, remedy)
    }
}

fn decision(decision: &Decision) -> v1::BacklogDecision {
    let kind = match decision.release {
        Some(_) => BacklogDecisionKind::Approved,
        None => BacklogDecisionKind::Stopped,
    };
    v1::BacklogDecision {
        kind: kind.into(),
        time: Some(to_timestamp(decision.made_at)),
        by: decision.made_by.clone(),
        since_time: decision.release.and_then(|release| release.since).map(to_timestamp),
        rate_per_minute: decision.release.map_or(0, |release| release.rate_per_minute),
    }
}

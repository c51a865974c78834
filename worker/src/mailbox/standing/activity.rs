//! The activities of a session: what each is called, how long it may last, and what comes next. Pure.
//!
//! Most have deadlines of their own, whose errors tell more. These are the ones behind them: for waits that have none, and
//! for servers that say just enough to keep every other deadline from ending.

use std::time::Duration;

use crate::config::Reading;

/// What a session is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activity {
    /// Asks the control plane what to read.
    Opening,
    /// May not write: the control plane was not heard for a while.
    Suspended,
    /// Waits until it may connect.
    Turn,
    /// Token, connection, TLS, sign-in and SELECT.
    SigningIn,
    /// Finds out where reading begins.
    Anchoring,
    /// Looks what is there.
    Looking,
    /// Fetches messages.
    Fetching,
    /// Reads what was fetched.
    Parsing,
    /// Waits until other mailboxes have committed what they fetched.
    Room,
    /// Asks the control plane something, or tells it.
    Asking,
    /// Commits a report.
    Committing,
    /// Marks, moves or deletes messages.
    Settling,
    /// Everything is read; waits for mail.
    Waiting,
    /// Waits for its next try.
    Resting,
    /// Ends its connection.
    Leaving,
}

/// From when on the time of an activity counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counts {
    /// From its beginning.
    Whole,
    /// From the last time that something moved.
    SinceProgress,
}

/// One line of the table.
#[derive(Debug, Clone, Copy)]
pub struct Line {
    /// What the session does, for people: "fetches messages".
    pub doing: &'static str,
    /// What it does next, for people.
    pub next: &'static str,
    /// What to look at when it lasts too long.
    pub remedy: &'static str,
    /// From when on its time counts.
    pub counts: Counts,
}

const CONTROL_PLANE: &str =
    "nothing to do: it begins anew; if it lasts, look whether the control plane runs, and at its log and disk";
const SERVER: &str = "nothing to do: it begins anew; if it lasts, look at the health of the mail server, and what lies between it \
                      and the worker";
const WORKER: &str =
    "nothing to do: it begins anew; if it lasts, look at the load of the worker's machine, and restart the worker";

impl Activity {
    /// Every one.
    pub const ALL: [Self; 15] = [
        Self::Opening,
        Self::Suspended,
        Self::Turn,
        Self::SigningIn,
        Self::Anchoring,
        Self::Looking,
        Self::Fetching,
        Self::Parsing,
        Self::Room,
        Self::Asking,
        Self::Committing,
        Self::Settling,
        Self::Waiting,
        Self::Resting,
        Self::Leaving,
    ];

    /// What is to be known of it.
    pub fn line(self) -> Line {
        let line = |doing, next, remedy, counts| Line { doing, next, remedy, counts };
        let (whole, moving) = (Counts::Whole, Counts::SinceProgress);
        match self {
            Self::Opening => line("asks the control plane what to read", "connects", CONTROL_PLANE, whole),
            Self::Suspended => line(
                "waits until the control plane is heard again; until then nothing may be written",
                "goes on where it was",
                "nothing to do: it goes on by itself; if it lasts, look whether the control plane runs, and whether \
                 the worker reaches it",
                whole,
            ),
            Self::Turn => line(
                "waits for its turn to connect, behind other mailboxes of the same mail server or tenant",
                "signs in",
                "nothing to do: it asks for its turn anew; if it lasts, look at the mail server that the mailboxes before \
                 it connect to, or raise the worker's start.per-host",
                moving,
            ),
            Self::SigningIn => line("signs in and opens the folder", "looks what is new", SERVER, whole),
            Self::Anchoring => line("finds out where reading begins", "looks what is new", SERVER, moving),
            Self::Looking => line("looks what is new", "fetches it", SERVER, moving),
            Self::Fetching => line("fetches messages", "reports them", SERVER, moving),
            Self::Parsing => line("reads what it fetched", "reports it", WORKER, whole),
            Self::Room => line(
                "waits for room in the worker's memory",
                "fetches messages",
                "nothing to do: it begins anew; if it lasts, raise the worker's reading.byte-budget, and look whether the \
                 control plane takes reports",
                moving,
            ),
            Self::Asking => line("asks the control plane", "goes on reading", CONTROL_PLANE, whole),
            Self::Committing => line(
                "waits until the control plane has taken a report",
                "marks what was taken in, and goes on reading",
                CONTROL_PLANE,
                whole,
            ),
            Self::Settling => line("marks, moves or deletes what was taken in", "goes on reading", SERVER, moving),
            Self::Waiting => line("waits for new mail", "looks what is new", SERVER, whole),
            Self::Resting => line("waits for its next try", "tries again", WORKER, whole),
            Self::Leaving => line("ends its connection", "goes on with another", SERVER, whole),
        }
    }

    /// Longest time in it; `None`: however long it takes. `own`: how long it is meant to last, where it is known
    /// before.
    pub fn most(self, reading: &Reading, own: Duration) -> Option<Duration> {
        let (step, stall) = (reading.step_timeout, reading.longest_stall);
        Some(match self {
            // A session that begins anew could not write either, and would have given its connection up.
            Self::Suspended => return None,
            Self::Opening | Self::Turn | Self::Parsing | Self::Room | Self::Asking | Self::Committing => stall,
            Self::SigningIn => (reading.token_timeout + reading.connect_timeout) * 2 + step * 12,
            Self::Anchoring | Self::Looking | Self::Fetching | Self::Settling => step * 10,
            Self::Waiting | Self::Resting => own.saturating_add(step * 10),
            Self::Leaving => step,
        })
    }

    /// True when nothing is wrong with it however long it lasts, so that nobody has to be told.
    pub fn is_rest(self) -> bool {
        matches!(self, Self::Waiting | Self::Resting)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_activity_has_its_words_and_its_time() {
        let reading = Reading::default();
        let mut doing = BTreeSet::new();
        for activity in Activity::ALL {
            let line = activity.line();
            assert!(doing.insert(line.doing), "{activity:?} is called like another");
            assert!(!line.doing.is_empty() && !line.next.is_empty() && !line.remedy.is_empty(), "{activity:?}");
            let Some(most) = activity.most(&reading, Duration::ZERO) else {
                assert_eq!(activity, Activity::Suspended, "all others have one");
                continue;
            };
            assert!(most >= Duration::from_secs(60) && most <= Duration::from_secs(3600), "{activity:?}: {most:?}");
        }
    }

    #[test]
    fn the_deadlines_of_each_step_themselves_come_first() {
        let reading = Reading::default();
        let most = |activity: Activity| activity.most(&reading, Duration::ZERO).expect("a largest time");
        for activity in [Activity::Anchoring, Activity::Looking, Activity::Fetching, Activity::Settling] {
            assert!(most(activity) > reading.step_timeout * 4, "{activity:?}: a silent server is told as one");
        }
        // A token, two tries to connect, and a few lines for greeting, sign-in and SELECT.
        let usual = reading.token_timeout + reading.connect_timeout * 2 + reading.step_timeout * 10;
        assert!(most(Activity::SigningIn) > usual);
    }

    #[test]
    fn a_wait_that_is_meant_to_be_long_may_be() {
        let reading = Reading::default();
        let day = Duration::from_secs(86_400);
        for activity in [Activity::Resting, Activity::Waiting] {
            assert!(activity.most(&reading, day).is_some_and(|most| most > day), "{activity:?}");
        }
    }
}

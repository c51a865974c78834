//! Mailboxes whose reports cannot be stored at the moment: their reader waits and repeats, and can say nothing of it
//! where everything it says would be stored. So the control plane remembers it, in memory, until a report is stored or
//! the mailbox is opened anew.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use postroom_proto::catalogue::own::STORAGE_FAILED;
use postroom_proto::convert::to_timestamp;
use postroom_proto::id::MailboxUid;
use postroom_proto::reason::{Failure, Reason};
use postroom_proto::v1;

use crate::clock;
use crate::ledger::Micros;

/// What is remembered. It is at most one entry a mailbox.
#[derive(Debug, Default)]
pub struct Unstored {
    // Held only to look up or change, never across an await.
    since: Mutex<HashMap<MailboxUid, (Micros, String)>>,
}

impl Unstored {
    /// Takes note of how the storing of a report, or of a body, ended.
    pub fn note<T>(&self, mailbox: &str, outcome: &Result<T, Failure>) {
        let Ok(uid) = MailboxUid::parse(mailbox) else { return };
        match outcome {
            Ok(_) => drop(self.lock().remove(&uid)),
            // A full disk is often noticed by the commit itself, which then cannot say whether it happened.
            Err(failure) if matches!(failure.reason, Reason::StorageFailed | Reason::OutcomeUnknown) => {
                let mut since = self.lock();
                let begun = since.get(&uid).map_or_else(clock::now, |(begun, _)| *begun);
                since.insert(uid, (begun, failure.message.clone()));
            }
            Err(_) => {}
        }
    }

    /// Why reports of a mailbox are not stored. `None`: they are.
    pub fn problem(&self, mailbox: &MailboxUid) -> Option<v1::Problem> {
        let (begun, why) = self.lock().get(mailbox).cloned()?;
        Some(v1::Problem {
            kind: STORAGE_FAILED.kind.into(),
            code: STORAGE_FAILED.code().into(),
            cause: format!("{} ({why})", STORAGE_FAILED.title),
            remedy: STORAGE_FAILED.remedy.into(),
            since_time: Some(to_timestamp(begun)),
            next_attempt_time: None,
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<MailboxUid, (Micros, String)>> {
        self.since.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_stored_is_told_until_something_is() {
        let unstored = Unstored::default();
        let (one, other) = (MailboxUid::derive("a", "INBOX", "x"), MailboxUid::derive("b", "INBOX", "x"));
        let full: Result<(), _> = Err(Failure::new(Reason::StorageFailed, "the disk is full"));
        let unknown: Result<(), _> = Err(Failure::new(Reason::OutcomeUnknown, "the commit failed"));
        unstored.note(one.as_str(), &unknown);
        assert!(unstored.problem(&one).is_some());
        unstored.note(one.as_str(), &full);
        let problem = unstored.problem(&one).unwrap();
        assert!(problem.code == "STORAGE_FAILED" && problem.cause.contains("the disk is full"), "{problem:?}");
        assert_eq!(unstored.problem(&other), None);
        let stale: Result<(), _> = Err(Failure::new(Reason::LeaseLost, "another's"));
        unstored.note(one.as_str(), &stale);
        unstored.note(one.as_str(), &full);
        assert_eq!(unstored.problem(&one).unwrap().since_time, problem.since_time, "since it began");
        unstored.note(one.as_str(), &Ok(()));
        assert_eq!(unstored.problem(&one), None);
    }
}

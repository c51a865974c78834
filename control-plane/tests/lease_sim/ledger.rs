//! A model of the ledger: a fence and a cursor for each mailbox, and what must always hold for them.

use std::collections::{BTreeMap, BTreeSet};

use postroom_proto::id::{Epoch, MailboxUid, SessionId};

use crate::mutation::Mutation;

#[derive(Debug, Default)]
pub(crate) struct Ledger {
    rows: BTreeMap<MailboxUid, Row>,
    /// Under which leases mailboxes were opened, and at which cursors.
    opened: BTreeSet<(MailboxUid, Epoch, SessionId, u64)>,
}

#[derive(Debug, Default)]
struct Row {
    fence: Option<(Epoch, SessionId)>,
    /// Messages are numbered; this many are committed.
    cursor: u64,
    last_batch: u64,
}

/// Messages `from + 1` to `from + count` of a mailbox.
#[derive(Debug, Clone)]
pub(crate) struct Report {
    pub(crate) mailbox: MailboxUid,
    pub(crate) epoch: Epoch,
    pub(crate) session: SessionId,
    pub(crate) batch: u64,
    pub(crate) from: u64,
    pub(crate) count: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Committed {
        cursor: u64,
    },
    /// This batch was committed before.
    Repeated {
        cursor: u64,
    },
    CursorMismatch {
        cursor: u64,
    },
    LeaseLost,
}

impl Ledger {
    /// Raises the fence and answers the cursor. `None`: the fence is higher, or another session has this epoch.
    pub(crate) fn open(&mut self, mailbox: &MailboxUid, epoch: Epoch, session: &SessionId) -> Option<u64> {
        let row = self.rows.entry(mailbox.clone()).or_default();
        match &row.fence {
            Some((fence, owner)) if *fence > epoch || (*fence == epoch && owner != session) => return None,
            _ => row.fence = Some((epoch, session.clone())),
        }
        self.opened.insert((mailbox.clone(), epoch, session.clone(), row.cursor));
        Some(row.cursor)
    }

    /// True when it has opened a mailbox under this lease at this cursor.
    pub(crate) fn has_opened(&self, mailbox: &MailboxUid, epoch: Epoch, session: &SessionId, cursor: u64) -> bool {
        self.opened.contains(&(mailbox.clone(), epoch, session.clone(), cursor))
    }

    /// Commits a report, or not. An error tells which invariant broke.
    pub(crate) fn report(&mut self, report: &Report, mutation: Option<Mutation>) -> Result<Verdict, String> {
        let row = self.rows.entry(report.mailbox.clone()).or_default();
        let lease = (report.epoch, report.session.clone());
        if row.fence.as_ref() != Some(&lease) && mutation != Some(Mutation::NoFence) {
            return Ok(Verdict::LeaseLost);
        }
        if report.batch == row.last_batch {
            return Ok(Verdict::Repeated { cursor: row.cursor });
        }
        if report.from != row.cursor && mutation != Some(Mutation::NoCursorCompare) {
            return Ok(Verdict::CursorMismatch { cursor: row.cursor });
        }
        let Report { mailbox, epoch, session, from, .. } = report;
        match &row.fence {
            Some((fence, owner)) if *fence > *epoch || (*fence == *epoch && owner != session) => {
                return Err(format!("{mailbox}: a commit of epoch {epoch} behind the fence {fence}"));
            }
            _ if *from != row.cursor => {
                return Err(format!("{mailbox}: a commit from {from} on, but the cursor is {}", row.cursor));
            }
            _ => {}
        }
        row.cursor = from + report.count;
        row.last_batch = report.batch;
        Ok(Verdict::Committed { cursor: row.cursor })
    }
}

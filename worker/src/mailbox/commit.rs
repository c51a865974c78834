//! Commits reports, one at a time, each with its own id until its outcome is known.

use std::sync::Arc;
use std::time::Duration;

use postroom_proto::v1::{self, BlobHeader, Disposition, ReportRequest};

use super::batch::Draft;
use super::cursor::{Cursor, source_key, uid_of};
use super::lease::{Closed, Lease};
use crate::diagnosis::{Diagnosis, control_plane};
use crate::report::{Error, Reporter};

/// Most settled keys in one report.
const MAX_SETTLED: usize = 500;
/// Most unsettled messages that an opening names.
const MAX_UNSETTLED: usize = 500;
/// Most messages remembered for settling; the ledger remembers the others.
const MAX_TO_SETTLE: usize = 10_000;
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Why nothing more may be committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// The lease was let go.
    Closed,
    /// Somebody else holds the mailbox.
    LeaseLost,
    /// The worker's session is over.
    SessionEnded,
    /// Open the mailbox again and go on from the committed cursor.
    Reopen,
    /// The control plane refuses for good.
    Refused(Diagnosis),
}

impl From<Closed> for Stop {
    fn from(_: Closed) -> Self {
        Self::Closed
    }
}

/// Commits the reports of one opened mailbox.
pub struct Committer {
    reporter: Arc<dyn Reporter>,
    lease: Lease,
    mailbox: String,
    epoch: u64,
    generation: u64,
    committed: v1::Cursor,
    /// Messages in the ledger that are still to be marked or moved, UIDs ascending as far as they were committed so.
    pub to_settle: Vec<u32>,
    /// Done in the mailbox, to be told with the next report.
    pub settled: Vec<String>,
    /// The ledger has more to settle than is remembered here.
    more_to_settle: bool,
}

impl std::fmt::Debug for Committer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Committer").field("mailbox", &self.mailbox).field("epoch", &self.epoch).finish_non_exhaustive()
    }
}

impl Committer {
    /// Goes on from what `OpenMailboxes` said.
    pub fn new(
        reporter: Arc<dyn Reporter>,
        lease: Lease,
        mailbox: &str,
        epoch: u64,
        opened: &v1::OpenedMailbox,
    ) -> Self {
        Self {
            reporter,
            lease,
            mailbox: mailbox.to_owned(),
            epoch,
            generation: opened.generation,
            committed: opened.cursor.clone().unwrap_or_default(),
            to_settle: Vec::new(),
            settled: Vec::new(),
            more_to_settle: false,
        }
    }

    /// Remembers what the opening named as not yet settled, as far as it belongs to this numbering.
    pub fn recall_unsettled(&mut self, uid_validity: u32, keys: &[String]) {
        let before = self.to_settle.len();
        self.to_settle.extend(keys.iter().filter_map(|key| uid_of(key, uid_validity)));
        // What belongs to another numbering is never settled: a load of such keys alone would be named again and again.
        self.more_to_settle |= keys.len() >= MAX_UNSETTLED && self.to_settle.len() > before;
    }

    /// True when everything known is settled and told, and the next opening will name more.
    pub fn has_more_to_settle(&self) -> bool {
        self.more_to_settle && self.to_settle.is_empty() && self.settled.is_empty()
    }

    /// The cursor that the ledger has.
    pub fn committed(&self) -> &v1::Cursor {
        &self.committed
    }

    /// The lease, to ask before the mailbox is changed.
    pub fn lease(&mut self) -> &mut Lease {
        &mut self.lease
    }

    /// Commits one report, with uploads before it. Repeats until the outcome is known; waits while trust has lapsed.
    pub async fn commit(&mut self, draft: Draft) -> Result<(), Stop> {
        let uid_validity = draft.next.uid_validity;
        let settled = self.settled.len().min(MAX_SETTLED);
        let request = ReportRequest {
            mailbox: self.mailbox.clone(),
            epoch: self.epoch,
            generation: self.generation,
            batch_id: uuid::Uuid::new_v4().to_string(),
            expected_cursor: Some(self.committed.clone()),
            next_cursor: Some(draft.next.encode()),
            messages: draft.messages,
            settled_source_keys: self.settled[..settled].to_vec(),
            ..ReportRequest::default()
        };
        self.upload(&draft.blobs).await?;
        let mut pause = FIRST_PAUSE;
        let response = loop {
            self.lease.may_write().await?;
            match self.reporter.report(&request).await {
                Ok(response) => break response,
                Err(Error::BlobMissing) => {
                    self.upload(&draft.blobs).await?;
                    self.pause(&mut pause, None).await?;
                }
                Err(error) => self.again(error, &mut pause).await?,
            }
        };
        // Ordering: what rode on this report is forgotten only now that it is durable.
        self.settled.drain(..settled);
        self.committed = request.next_cursor.unwrap_or_default();
        // Only contacts and bounces of the outbox are marked or moved: what was put aside stays as it is, for people to find.
        let done = |disposition| matches!(disposition, Disposition::Contact | Disposition::Filtered);
        let done = response.outcomes.iter().filter(|outcome| done(outcome.disposition()));
        let room = MAX_TO_SETTLE.saturating_sub(self.to_settle.len());
        let mut uids = done.filter_map(|outcome| uid_of(&outcome.source_key, uid_validity));
        self.to_settle.extend(uids.by_ref().take(room));
        self.more_to_settle |= uids.next().is_some();
        Ok(())
    }

    /// Commits where the cursor stands and what was settled, when either is news.
    pub async fn flush(&mut self, cursor: &Cursor) -> Result<(), Stop> {
        while !self.settled.is_empty() || self.committed != cursor.encode() {
            self.commit(Draft { messages: Vec::new(), blobs: Vec::new(), next: cursor.clone() }).await?;
        }
        Ok(())
    }

    /// These messages, UIDs ascending, are done in the mailbox.
    pub fn mark_settled(&mut self, uid_validity: u32, uids: &[u32]) {
        self.settled.extend(uids.iter().map(|uid| source_key(uid_validity, *uid)));
        self.to_settle.retain(|uid| uids.binary_search(uid).is_err());
    }

    async fn upload(&mut self, blobs: &[(String, bytes::Bytes)]) -> Result<(), Stop> {
        for (digest, body) in blobs {
            let header = BlobHeader {
                mailbox: self.mailbox.clone(),
                epoch: self.epoch,
                generation: self.generation,
                digest: digest.clone(),
                size_bytes: body.len() as u64,
                ..BlobHeader::default()
            };
            let mut pause = FIRST_PAUSE;
            loop {
                self.lease.may_write().await?;
                match self.reporter.upload(header.clone(), body.clone()).await {
                    Ok(()) => break,
                    Err(error) => self.again(error, &mut pause).await?,
                }
            }
        }
        Ok(())
    }

    /// Returns when the very same call may be repeated.
    async fn again(&mut self, error: Error, pause: &mut Duration) -> Result<(), Stop> {
        match error {
            Error::LeaseLost => Err(Stop::LeaseLost),
            Error::SessionEnded => Err(Stop::SessionEnded),
            Error::CursorMismatch | Error::BlobMissing => Err(Stop::Reopen),
            Error::Refused { detail } => Err(Stop::Refused(control_plane(&detail))),
            // The lease goes with its definition; a key file may be restored.
            Error::NotFound { detail } | Error::SecretUnreadable { detail } => {
                tracing::debug!(mailbox = self.mailbox, detail, "a report is repeated");
                self.pause(pause, None).await
            }
            Error::Unavailable { after, detail } => {
                tracing::debug!(mailbox = self.mailbox, detail, "a report is repeated");
                self.pause(pause, after).await
            }
        }
    }

    async fn pause(&mut self, pause: &mut Duration, after: Option<Duration>) -> Result<(), Stop> {
        let wait = after.unwrap_or(*pause).max(*pause).mul_f64(0.8 + 0.4 * rand::random::<f64>());
        *pause = (*pause * 2).min(LONGEST_PAUSE);
        tokio::select! {
            () = tokio::time::sleep(wait) => Ok(()),
            () = self.lease.closed() => Err(Stop::Closed),
        }
    }
}

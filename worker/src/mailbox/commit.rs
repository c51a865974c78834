//! Commits reports, one at a time, each with its own id until its outcome is known.

use std::sync::Arc;
use std::time::Duration;

use postroom_proto::convert::from_timestamp;
use postroom_proto::metric;
use postroom_proto::v1::{self, BlobHeader, Disposition, ReportRequest};
use tokio::time::Instant;

use super::batch::Draft;
use super::cursor::{Cursor, Numbering, source_key, uid_of};
use super::known::Finder;
use super::lease::{Closed, Lease};
use super::standing::{Activity, Here, Standing};
use super::status::{Life, now};
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
    /// When the first report of the mailbox was committed, in microseconds since 1970.
    reading_since: Option<i64>,
    /// How old messages that wait stand by the committed cursor.
    backlog: Option<v1::BacklogProgress>,
    /// Messages in the ledger that are still to be marked or moved, UIDs ascending as far as they were committed so.
    pub to_settle: Vec<u32>,
    /// Messages in the ledger that are to be deleted now.
    pub to_delete: Vec<u32>,
    /// Done in the mailbox, to be told with the next report.
    pub settled: Vec<String>,
    /// The ledger has more to settle than is remembered here.
    more_to_settle: bool,
    standing: Standing,
    life: Arc<Life>,
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
            reading_since: opened.reading_since_time.as_ref().map(from_timestamp),
            // One that cannot be read is told when it is to be gone on from.
            backlog: Cursor::decode(opened.cursor.as_ref()).ok().flatten().and_then(|cursor| cursor.progress()),
            to_settle: Vec::new(),
            to_delete: Vec::new(),
            settled: Vec::new(),
            more_to_settle: false,
            standing: Standing::default(),
            life: Arc::default(),
        }
    }

    /// The same committer, which tells there at what it is.
    pub fn standing(mut self, standing: Standing) -> Self {
        self.standing = standing;
        self
    }

    /// Where it is told at what this mailbox is.
    pub fn stands(&self) -> Standing {
        self.standing.clone()
    }

    /// Tells there what was committed.
    pub fn telling(self, life: Arc<Life>) -> Self {
        life.read_since(self.reading_since);
        Self { life, ..self }
    }

    /// Remembers what the opening named as not yet settled, as far as it belongs to this numbering.
    pub fn recall_unsettled(&mut self, numbering: Numbering, keys: &[String]) {
        let before = self.to_settle.len();
        self.to_settle.extend(keys.iter().filter_map(|key| uid_of(key, numbering)));
        // What belongs to another numbering is never settled: a load of such keys alone would be named again and again.
        self.more_to_settle |= keys.len() >= MAX_UNSETTLED && self.to_settle.len() > before;
    }

    /// Remembers what the opening named as to be deleted now, as far as it belongs to this numbering.
    pub fn recall_due(&mut self, numbering: Numbering, keys: &[String]) {
        self.to_delete = keys.iter().filter_map(|key| uid_of(key, numbering)).collect();
        self.to_delete.sort_unstable();
        self.more_to_settle = keys.len() >= MAX_UNSETTLED && !self.to_delete.is_empty();
    }

    /// The folder was numbered anew: UIDs that were remembered mean other messages now, or none. What is still to be settled
    /// is named as its messages are known again.
    pub fn forget_unsettled(&mut self) {
        self.to_settle.clear();
        self.to_delete.clear();
        self.more_to_settle = false;
    }

    /// When the mailbox was first read. `None`: it was not, or the control plane does not know.
    pub fn reading_since(&self) -> Option<i64> {
        self.reading_since
    }

    /// Asks what the ledger has of a folder that is numbered anew.
    pub fn finder(&self) -> Finder {
        let standing = self.standing.clone();
        Finder::new(self.reporter.clone(), self.lease.clone(), &self.mailbox, self.epoch, self.generation, standing)
    }

    /// True when everything known is settled and told, and the next opening will name more.
    pub fn has_more_to_settle(&self) -> bool {
        let known = [&self.to_settle, &self.to_delete];
        self.more_to_settle && known.iter().all(|uids| uids.is_empty()) && self.settled.is_empty()
    }

    /// The cursor that the ledger has.
    pub fn committed(&self) -> &v1::Cursor {
        &self.committed
    }

    /// The lease that is read under.
    pub fn lease(&self) -> &Lease {
        &self.lease
    }

    /// Returns when the mailbox may be changed. Waits while trust has lapsed.
    pub async fn may_change(&mut self) -> Result<(), Stop> {
        let Self { lease, standing, .. } = self;
        Ok(lease.may_write(|| standing.at(Activity::Suspended)).await?)
    }

    /// How old messages that wait stand after this report, when it does something to them: some are dealt with, or one that
    /// failed before is.
    fn backlog_of(&self, draft: &Draft) -> Option<v1::BacklogProgress> {
        let (cursor, progress) = (&draft.next, draft.next.progress()?);
        let mut uids = draft.messages.iter().filter_map(|message| uid_of(&message.source_key, cursor.numbering));
        let news = self.backlog != Some(progress);
        (news || (!progress.finished && uids.any(|uid| cursor.is_old(uid)))).then_some(progress)
    }

    /// Commits one report, with uploads before it. Repeats until the outcome is known; waits while trust has lapsed.
    pub async fn commit(&mut self, draft: Draft) -> Result<(), Stop> {
        let _committing = self.standing.beside(Activity::Committing);
        let numbering = draft.next.numbering;
        let settled = self.settled.len().min(MAX_SETTLED);
        let backlog = self.backlog_of(&draft);
        let request = ReportRequest {
            mailbox: self.mailbox.clone(),
            epoch: self.epoch,
            generation: self.generation,
            batch_id: uuid::Uuid::new_v4().to_string(),
            expected_cursor: Some(self.committed.clone()),
            next_cursor: Some(draft.next.encode()),
            messages: draft.messages,
            settled_source_keys: self.settled[..settled].to_vec(),
            numbering: numbering.round,
            backlog,
            ..ReportRequest::default()
        };
        let (begun, begun_at) = (now(), Instant::now());
        self.upload(&draft.blobs).await?;
        let mut pause = FIRST_PAUSE;
        let response = loop {
            let mut patience = Patience { lease: &mut self.lease, mailbox: &self.mailbox, pause };
            patience.may_write(|| self.standing.beside(Activity::Suspended)).await?;
            let missing = match self.reporter.report(&request).await {
                Ok(response) => break response,
                Err(Error::BlobMissing) => {
                    patience.wait(None).await?;
                    true
                }
                Err(error) => {
                    patience.again(error).await?;
                    false
                }
            };
            pause = patience.pause;
            if missing {
                self.upload(&draft.blobs).await?;
            }
        };
        // Ordering: what rode on this report is forgotten only now that it is durable.
        self.settled.drain(..settled);
        if self.committed.protocol.is_empty() {
            self.reading_since.get_or_insert(begun);
            self.life.read_since(self.reading_since);
        }
        self.tell(&request.messages, begun_at.elapsed());
        if let Some(fetched) = draft.fetched {
            fetched.tell(&self.mailbox, &request.messages, &response.outcomes);
        }
        self.committed = request.next_cursor.unwrap_or_default();
        self.backlog = draft.next.progress();
        // Only contacts and bounces of the outbox are marked or moved: what was put aside stays as it is, for people to find.
        let done = |outcome: &v1::MessageOutcome| match outcome.disposition() {
            Disposition::Contact | Disposition::Filtered => true,
            // As it was under its former key.
            Disposition::Duplicate => outcome.unsettled,
            _ => false,
        };
        let done = response.outcomes.iter().filter(|outcome| done(outcome));
        let room = MAX_TO_SETTLE.saturating_sub(self.to_settle.len());
        let mut uids = done.filter_map(|outcome| uid_of(&outcome.source_key, numbering));
        self.to_settle.extend(uids.by_ref().take(room));
        self.more_to_settle |= uids.next().is_some();
        Ok(())
    }

    /// Measures what was committed.
    fn tell(&self, messages: &[v1::ReportedMessage], took: Duration) {
        metric::REPORT_TIME.observe(&[], took);
        if messages.is_empty() {
            return;
        }
        metric::FETCHED.add(&[], messages.len() as u64);
        metric::FETCHED_BYTES.add(&[], messages.iter().map(|message| message.size_bytes).sum());
        let received = messages.iter().filter_map(|message| message.received_time.as_ref()).map(from_timestamp);
        self.life.committed(received);
    }

    /// Commits where the cursor stands and what was settled, when either is news.
    pub async fn flush(&mut self, cursor: &Cursor) -> Result<(), Stop> {
        while !self.settled.is_empty() || self.committed != cursor.encode() {
            let draft = Draft { messages: Vec::new(), blobs: Vec::new(), next: cursor.clone(), fetched: None };
            self.commit(draft).await?;
        }
        Ok(())
    }

    /// These messages, UIDs ascending, are done in the mailbox.
    pub fn mark_settled(&mut self, numbering: Numbering, uids: &[u32]) {
        self.settled.extend(uids.iter().map(|uid| source_key(numbering, *uid)));
        self.to_settle.retain(|uid| uids.binary_search(uid).is_err());
        self.to_delete.retain(|uid| uids.binary_search(uid).is_err());
    }

    /// What is to be done with these messages, UIDs ascending, right after their intake is done; another step is left for
    /// later, and the ledger will name them.
    pub fn settled_for_now(&mut self, uids: &[u32]) {
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
            let mut patience = Patience::new(&mut self.lease, &self.mailbox);
            loop {
                patience.may_write(|| self.standing.beside(Activity::Suspended)).await?;
                match self.reporter.upload(header.clone(), body.clone()).await {
                    Ok(()) => break,
                    Err(error) => patience.again(error).await?,
                }
            }
        }
        Ok(())
    }
}

/// How a call that is repeated waits in between.
pub(super) struct Patience<'l> {
    lease: &'l mut Lease,
    mailbox: &'l str,
    pause: Duration,
}

impl<'l> Patience<'l> {
    /// For calls about `mailbox` while the lease lasts.
    pub(super) fn new(lease: &'l mut Lease, mailbox: &'l str) -> Self {
        Self { lease, mailbox, pause: FIRST_PAUSE }
    }

    /// Waits while trust has lapsed, which whoever waits is at by `suspended`.
    pub(super) async fn may_write(&mut self, suspended: impl FnOnce() -> Here) -> Result<(), Stop> {
        Ok(self.lease.may_write(suspended).await?)
    }

    /// Returns when the very same call may be repeated.
    pub(super) async fn again(&mut self, error: Error) -> Result<(), Stop> {
        match error {
            Error::LeaseLost => Err(Stop::LeaseLost),
            Error::SessionEnded => Err(Stop::SessionEnded),
            Error::CursorMismatch | Error::BlobMissing => Err(Stop::Reopen),
            Error::Refused { detail } => Err(Stop::Refused(control_plane(&detail))),
            // The lease goes with its definition; a key file may be restored.
            Error::NotFound { detail } | Error::SecretUnreadable { detail } => {
                tracing::debug!(mailbox = self.mailbox, error = detail, "a report is repeated");
                self.wait(None).await
            }
            Error::Unavailable { after, detail } => {
                tracing::debug!(mailbox = self.mailbox, error = detail, "a report is repeated");
                self.wait(after).await
            }
        }
    }

    pub(super) async fn wait(&mut self, after: Option<Duration>) -> Result<(), Stop> {
        let wait = after.unwrap_or(self.pause).max(self.pause).mul_f64(0.8 + 0.4 * rand::random::<f64>());
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        tokio::select! {
            () = tokio::time::sleep(wait) => Ok(()),
            () = self.lease.closed() => Err(Stop::Closed),
        }
    }
}

//! A folder, a ledger in memory, and what reads the one into the other.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use postroom_proto::v1::{self, Disposition, ReportRequest};
use prost::Message as _;
use tokio::time::{Instant, timeout};

use super::super::*;
use crate::mailbox::commit::Committer;
use crate::mailbox::cursor::{Start, source_key};
use crate::mailbox::imap::settle::AfterIntake;
use crate::mailbox::imap::sim::Server;
use crate::mailbox::lease::{Switch, Trust};
use crate::mailbox::standing::Activity;
use crate::mailbox::standing::watchdog::watch;
use crate::mailbox::status::Teller;
use crate::report::{Error as ReportError, Reporter};

pub(super) const MAX: u64 = 4000;
/// 2024-01-01 10:00 UTC, in minutes since 1970.
pub(super) const MINUTES: i64 = 28_401_720;

/// A ledger in memory that refuses whatever a real one would.
#[derive(Default)]
pub(super) struct Ledger {
    pub(super) kept: Mutex<Kept>,
}

#[derive(Default)]
pub(super) struct Kept {
    pub(super) cursor: v1::Cursor,
    pub(super) rows: BTreeMap<String, (Disposition, String)>,
    /// What is known of each row, and the numbering in which it was last seen.
    pub(super) marks: BTreeMap<String, (Vec<u8>, u32)>,
    pub(super) settled: Vec<String>,
    pub(super) blobs: BTreeMap<String, usize>,
    pub(super) last: Option<(String, v1::ReportResponse)>,
    pub(super) reports: usize,
    /// The answers to the next so many reports are lost after they were committed.
    pub(super) lose: usize,
    /// The next so many reports are not taken.
    pub(super) refuse: usize,
    /// No more reports than so many are taken.
    pub(super) most: Option<usize>,
    /// Old messages that wait, as they were last reported, and whether they are released.
    pub(super) backlog: Option<v1::BacklogProgress>,
    pub(super) released: bool,
}

#[async_trait]
impl Reporter for Ledger {
    async fn open(&self, _: v1::MailboxLease) -> Result<v1::OpenedMailbox, ReportError> {
        unreachable!("the tests open for themselves")
    }

    async fn report(&self, request: &ReportRequest) -> Result<v1::ReportResponse, ReportError> {
        let mut kept = self.kept.lock().expect("the ledger");
        assert!(request.encoded_len() <= 3 * 1024 * 1024 && request.messages.len() <= 500);
        if kept.refuse > 0 {
            kept.refuse -= 1;
            return Err(ReportError::Unavailable { after: None, detail: "busy".into() });
        }
        if kept.most.is_some_and(|most| kept.reports >= most) {
            return Err(ReportError::Unavailable { after: None, detail: "full".into() });
        }
        if let Some((_, response)) = kept.last.as_ref().filter(|(id, _)| *id == request.batch_id) {
            return Ok(response.clone());
        }
        if request.expected_cursor.as_ref() != Some(&kept.cursor) {
            return Err(ReportError::CursorMismatch);
        }
        if request.backlog.is_some() && kept.backlog.is_some() && !kept.released {
            return Err(ReportError::CursorMismatch);
        }
        kept.backlog = request.backlog.or(kept.backlog);
        let mut outcomes = Vec::new();
        for message in &request.messages {
            if let Some(v1::reported_message::Raw::RawDigest(digest)) = &message.raw {
                assert!(kept.blobs.contains_key(digest), "uploaded before");
            }
            if message.disposition() == Disposition::Duplicate {
                let (_, numbering) = kept.marks.get_mut(&message.duplicate_of).expect("an original");
                assert!(*numbering < request.numbering, "{} was taken twice", message.duplicate_of);
                *numbering = request.numbering;
            } else {
                let mark = (message.fingerprint.clone(), request.numbering);
                kept.marks.insert(message.source_key.clone(), mark);
            }
            let row = (message.disposition(), message.reason.clone());
            let known = kept.rows.insert(message.source_key.clone(), row);
            assert!(known.is_none(), "{} twice", message.source_key);
            outcomes.push(v1::MessageOutcome {
                source_key: message.source_key.clone(),
                disposition: message.disposition,
                ..Default::default()
            });
        }
        for key in &request.settled_source_keys {
            assert!(kept.rows.contains_key(key), "{key} was settled before it was committed");
        }
        kept.settled.extend(request.settled_source_keys.iter().cloned());
        kept.cursor = request.next_cursor.clone().expect("a cursor");
        kept.reports += 1;
        let response = v1::ReportResponse { outcomes };
        kept.last = Some((request.batch_id.clone(), response.clone()));
        if kept.lose > 0 {
            kept.lose -= 1;
            return Err(ReportError::Unavailable { after: None, detail: "lost".into() });
        }
        Ok(response)
    }

    async fn upload(&self, header: v1::BlobHeader, body: Bytes) -> Result<(), ReportError> {
        assert_eq!(header.size_bytes, body.len() as u64);
        self.kept.lock().expect("the ledger").blobs.insert(header.digest, body.len());
        Ok(())
    }

    /// Knows a message by its headers alone.
    async fn find_known(&self, request: &v1::FindKnownRequest) -> Result<v1::FindKnownResponse, ReportError> {
        let mut kept = self.kept.lock().expect("the ledger");
        assert!(request.messages.len() <= 500);
        if kept.refuse > 0 {
            kept.refuse -= 1;
            return Err(ReportError::Unavailable { after: None, detail: "busy".into() });
        }
        let mut given = Vec::new();
        let mut known = Vec::new();
        for message in &request.messages {
            let same = |(key, (mark, numbering)): &(&String, &(Vec<u8>, u32))| {
                !mark.is_empty()
                    && *mark == message.fingerprint
                    && *numbering < request.numbering
                    && !given.contains(*key)
            };
            let found = kept.marks.iter().find(same).map(|(key, _)| key.clone()).unwrap_or_default();
            given.push(found.clone());
            known.push(found);
        }
        Ok(v1::FindKnownResponse { known })
    }

    async fn status(&self, _: Vec<v1::MailboxStatus>) -> Result<(), ReportError> {
        Ok(())
    }
}

pub(super) struct Rig {
    pub(super) server: Server,
    pub(super) ledger: Arc<Ledger>,
    pub(super) committer: Committer,
    pub(super) care: Care,
    pub(super) reading: Reading,
    pub(super) budget: Budget,
    pub(super) switch: Switch,
    pub(super) trust: Trust,
    pub(super) after: AfterIntake,
    pub(super) max: u64,
}

impl Rig {
    pub(super) async fn new(server: Server, start: Start) -> Self {
        let next = server.mails.lock().expect("mails").keys().max().map_or(1, |uid| uid + 1);
        Self::anchored(server, Cursor::first(9, next, start)).await
    }

    pub(super) async fn anchored(server: Server, first: Cursor) -> Self {
        let (ledger, trust) = (Arc::new(Ledger::default()), Trust::new());
        trust.extend(Instant::now() + Duration::from_secs(600));
        let (switch, lease) = Switch::new(&trust);
        let opened = v1::OpenedMailbox::default();
        let mut committer = Committer::new(ledger.clone(), lease, "mbx-1", 7, &opened);
        committer.flush(&first).await.expect("the anchor");
        let reading = Reading { pending_retry: Duration::ZERO, batch_messages: 7, ..Reading::default() };
        let budget = Budget::new(64 * 1024);
        let care = Care::default();
        Self { server, ledger, committer, care, reading, budget, switch, trust, after: AfterIntake::Seen, max: MAX }
    }

    pub(super) async fn once(&mut self) -> Result<CaughtUp, Broken> {
        self.once_until(|| false).await
    }

    pub(super) async fn once_until(&mut self, stop: impl Fn() -> bool) -> Result<CaughtUp, Broken> {
        self.step_until(None, stop).await
    }

    pub(super) async fn step_until(&mut self, step: Option<Step>, stop: impl Fn() -> bool) -> Result<CaughtUp, Broken> {
        let mut folder = self.server.connect(self.max).await;
        let cursor = Cursor::decode(Some(self.committer.committed())).expect("decodes").expect("a cursor");
        let (budget, finder) = (self.budget.clone(), self.committer.finder());
        let reader = Reader::new(&mut folder, &mut self.care, cursor, &self.reading, self.max, budget, finder);
        let reader = reader.with_step(step);
        run(reader, &mut self.committer, &self.after, stop).await
    }

    /// As the session does it: connects again and again until nothing is pending.
    pub(super) async fn until_done(&mut self) {
        for _ in 0..60 {
            match self.once().await {
                Ok(CaughtUp { pending: false, .. }) => return,
                Ok(_) | Err(Broken::Imap(_)) => {}
                Err(broken) => panic!("{broken:?}"),
            }
        }
        panic!("it never ends");
    }

    /// Watches for a while what is read, and with little patience. At what it stands still, if it does.
    pub(super) fn blamed_for_standing_still(&self) -> impl Future<Output = Option<Activity>> + use<> {
        const PATIENCE: Duration = Duration::from_millis(200);
        let reading = Reading { step_timeout: PATIENCE / 10, longest_stall: PATIENCE, ..self.reading.clone() };
        let (standing, lease) = (self.committer.stands(), self.committer.lease().clone());
        let teller = Teller::new(Arc::default(), "mbx-1", 7);
        async move {
            let stalled = timeout(PATIENCE * 3, watch(standing, &lease, &reading, teller)).await;
            stalled.ok().map(|stalled| stalled.activity)
        }
    }

    /// The folder is another one now, in which reading has begun in minute `since`.
    pub(super) async fn renumber(&mut self, server: Server, since: i64) {
        self.renumber_at(server, since, 5).await;
    }

    /// The same, noticed at this time in microseconds since 1970: for a day messages are restored into it.
    pub(super) async fn renumber_at(&mut self, server: Server, since: i64, began: i64) {
        let next = server.mails.lock().expect("mails").keys().max().map_or(1, |uid| uid + 1);
        self.server = server;
        self.care = Care::default();
        let cursor = self.cursor().renumber(8, next, (MINUTES + since) * 60_000_000, None, began);
        self.committer.forget_unsettled();
        self.committer.flush(&cursor).await.expect("the beginning");
    }

    pub(super) fn cursor(&self) -> Cursor {
        Cursor::decode(Some(self.committer.committed())).expect("decodes").expect("a cursor")
    }

    pub(super) fn rows(&self) -> Vec<(String, Disposition)> {
        let kept = self.ledger.kept.lock().expect("the ledger");
        kept.rows.iter().map(|(key, (disposition, _))| (key.clone(), *disposition)).collect()
    }

    pub(super) fn of(&self, disposition: Disposition) -> Vec<String> {
        self.rows().into_iter().filter(|(_, other)| *other == disposition).map(|(key, _)| key).collect()
    }
}

pub(super) fn keys(uids: impl IntoIterator<Item = u32>) -> Vec<String> {
    let mut keys: Vec<String> = uids.into_iter().map(|uid| source_key(9, uid)).collect();
    keys.sort();
    keys
}

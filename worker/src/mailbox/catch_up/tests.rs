//! Whole folders into a ledger, with everything that can go wrong on the way.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use postroom_proto::v1::{self, Disposition, ReportRequest};
use prost::Message as _;

use super::*;
use crate::mailbox::cursor::{Start, source_key};
use crate::mailbox::imap::sim::{Body, Server};
use crate::mailbox::lease::{Switch, Trust};
use crate::report::{Error as ReportError, Reporter};

mod backlog;

const MAX: u64 = 4000;
/// 2024-01-01 10:00 UTC, in minutes since 1970.
const MINUTES: i64 = 28_401_720;

/// A ledger in memory that refuses whatever a real one would.
#[derive(Default)]
struct Ledger {
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    cursor: v1::Cursor,
    rows: BTreeMap<String, (Disposition, String)>,
    /// What is known of each row, and the numbering in which it was last seen.
    marks: BTreeMap<String, (Vec<u8>, u32)>,
    settled: Vec<String>,
    blobs: BTreeMap<String, usize>,
    last: Option<(String, v1::ReportResponse)>,
    reports: usize,
    /// The answers to the next so many reports are lost after they were committed.
    lose: usize,
    /// The next so many reports are not taken.
    refuse: usize,
    /// Old messages that wait, as they were last reported, and whether they are released.
    backlog: Option<v1::BacklogProgress>,
    released: bool,
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

struct Rig {
    server: Server,
    ledger: Arc<Ledger>,
    committer: Committer,
    care: Care,
    reading: Reading,
    budget: Budget,
    switch: Switch,
    trust: Trust,
    after: AfterIntake,
    max: u64,
}

impl Rig {
    async fn new(server: Server, start: Start) -> Self {
        let next = server.mails.lock().expect("mails").keys().max().map_or(1, |uid| uid + 1);
        Self::anchored(server, Cursor::first(9, next, start)).await
    }

    async fn anchored(server: Server, first: Cursor) -> Self {
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

    async fn once(&mut self) -> Result<CaughtUp, Broken> {
        self.once_until(|| false).await
    }

    async fn once_until(&mut self, stop: impl Fn() -> bool) -> Result<CaughtUp, Broken> {
        self.step_until(None, stop).await
    }

    async fn step_until(&mut self, step: Option<Step>, stop: impl Fn() -> bool) -> Result<CaughtUp, Broken> {
        let mut folder = self.server.connect(self.max).await;
        let cursor = Cursor::decode(Some(self.committer.committed())).expect("decodes").expect("a cursor");
        let (budget, finder) = (self.budget.clone(), self.committer.finder());
        let reader = Reader::new(&mut folder, &mut self.care, cursor, &self.reading, self.max, budget, finder);
        let reader = reader.with_step(step);
        run(reader, &mut self.committer, &self.after, stop).await
    }

    /// As the session does it: connects again and again until nothing is pending.
    async fn until_done(&mut self) {
        for _ in 0..60 {
            match self.once().await {
                Ok(CaughtUp { pending: false, .. }) => return,
                Ok(_) | Err(Broken::Imap(_)) => {}
                Err(broken) => panic!("{broken:?}"),
            }
        }
        panic!("it never ends");
    }

    /// The folder is another one now, in which reading has begun in minute `since`.
    async fn renumber(&mut self, server: Server, since: i64) {
        let next = server.mails.lock().expect("mails").keys().max().map_or(1, |uid| uid + 1);
        self.server = server;
        self.care = Care::default();
        let cursor = self.cursor().renumber(8, next, (MINUTES + since) * 60_000_000, None, 5);
        self.committer.forget_unsettled();
        self.committer.flush(&cursor).await.expect("the beginning");
    }

    fn cursor(&self) -> Cursor {
        Cursor::decode(Some(self.committer.committed())).expect("decodes").expect("a cursor")
    }

    fn rows(&self) -> Vec<(String, Disposition)> {
        let kept = self.ledger.kept.lock().expect("the ledger");
        kept.rows.iter().map(|(key, (disposition, _))| (key.clone(), *disposition)).collect()
    }

    fn of(&self, disposition: Disposition) -> Vec<String> {
        self.rows().into_iter().filter(|(_, other)| *other == disposition).map(|(key, _)| key).collect()
    }
}

fn keys(uids: impl IntoIterator<Item = u32>) -> Vec<String> {
    let mut keys: Vec<String> = uids.into_iter().map(|uid| source_key(9, uid)).collect();
    keys.sort();
    keys
}

#[tokio::test]
async fn a_whole_folder_is_taken_once_marked_and_told() {
    let server = Server::default();
    server.put_good(1..=100);
    let mut rig = Rig::new(server, Start::Unseen).await;
    rig.until_done().await;
    assert_eq!(rig.of(Disposition::Contact), keys(1..=100));
    assert_eq!(rig.server.seen(), (1..=100).collect::<Vec<_>>());
    let mut settled = rig.ledger.kept.lock().expect("the ledger").settled.clone();
    settled.sort();
    assert_eq!(settled, keys(1..=100));
    let reports = rig.ledger.kept.lock().expect("the ledger").reports;
    rig.until_done().await;
    assert_eq!(rig.ledger.kept.lock().expect("the ledger").reports, reports, "nothing new, nothing written");
    rig.server.put_good([105]);
    rig.until_done().await;
    assert_eq!(rig.of(Disposition::Contact).len(), 101);
}

#[tokio::test]
async fn seen_mail_from_before_is_left_and_later_mail_is_taken() {
    let server = Server::default();
    server.put_good([1, 3]);
    server.put(2, true, Body::Good(b"Subject: old\r\n\r\n".to_vec()));
    let mut rig = Rig::new(server, Start::Unseen).await;
    rig.server.put(4, true, Body::Good(b"Subject: read elsewhere\r\n\r\n".to_vec()));
    rig.until_done().await;
    assert_eq!(rig.of(Disposition::Contact), keys([1, 3, 4]));
}

#[tokio::test]
async fn lost_and_refused_answers_are_repeated_and_nothing_doubles() {
    let server = Server::default();
    server.put_good(1..=30);
    let mut rig = Rig::new(server, Start::All).await;
    {
        let mut kept = rig.ledger.kept.lock().expect("the ledger");
        (kept.lose, kept.refuse) = (2, 2);
    }
    rig.until_done().await;
    assert_eq!(rig.of(Disposition::Contact), keys(1..=30));
}

#[tokio::test]
async fn one_that_fails_neither_blocks_nor_is_skipped() {
    let server = Server::default();
    server.put_good(1..=40);
    for uid in [5, 6, 7, 20, 40] {
        server.put(uid, false, Body::Missing);
    }
    for uid in [8, 33] {
        server.put(uid, false, Body::Broken);
    }
    server.put(12, false, Body::Huge(400_000_000));
    server.put(13, false, Body::Good(vec![b'x'; 5000]));
    server.put(14, false, Body::Good(vec![b'x'; 7000]));
    let mut rig = Rig::new(server, Start::All).await;
    rig.once().await.expect_err("broken");
    rig.server.put_good([7]);
    rig.server.mails.lock().expect("mails").remove(&6);
    rig.until_done().await;
    assert_eq!(rig.of(Disposition::Quarantined), keys([5, 8, 20, 33, 40]));
    assert_eq!(rig.of(Disposition::TooLarge), keys([12, 13, 14]));
    assert_eq!(rig.of(Disposition::Vanished), keys([6]));
    let contacts = rig.of(Disposition::Contact);
    assert_eq!(contacts.len(), 31, "{contacts:?}");
    assert!(contacts.contains(&source_key(9, 7)));
}

#[tokio::test]
async fn a_run_of_messages_that_break_the_connection_takes_one_break_each() {
    let server = Server::default();
    server.put_good(1..=20);
    for uid in 3..=8 {
        server.put(uid, false, Body::Broken);
    }
    let mut rig = Rig::new(server, Start::All).await;
    rig.reading.pending_retry = Duration::from_secs(600);
    let mut breaks = 0;
    while rig.once().await.is_err() {
        breaks += 1;
    }
    // One for each group that had some of them, and one for each of them.
    assert_eq!(breaks, 2 + 6);
    assert_eq!(rig.of(Disposition::Contact).len(), 14);
    rig.reading.pending_retry = Duration::ZERO;
    rig.until_done().await;
    assert_eq!(rig.of(Disposition::Quarantined), keys(3..=8));
}

#[tokio::test]
async fn what_was_pending_and_is_gone_has_vanished() {
    let server = Server::default();
    server.put(1, false, Body::Missing);
    server.put_good([2]);
    let mut rig = Rig::new(server, Start::All).await;
    assert!(rig.once().await.expect("caught up").pending);
    rig.server.mails.lock().expect("mails").remove(&1);
    rig.until_done().await;
    assert_eq!(rig.of(Disposition::Vanished), keys([1]));
    assert_eq!(rig.of(Disposition::Contact), keys([2]));
}

#[tokio::test]
async fn our_own_move_is_not_taken_for_a_loss() {
    let server = Server::default();
    server.put_good(1..=20);
    let mut rig = Rig::new(server, Start::All).await;
    rig.after = AfterIntake::Move("Done".into());
    rig.until_done().await;
    rig.until_done().await;
    assert_eq!(rig.of(Disposition::Contact), keys(1..=20));
    assert!(rig.of(Disposition::Vanished).is_empty());
    assert!(rig.server.mails.lock().expect("mails").is_empty());
}

#[tokio::test]
async fn a_message_larger_than_the_whole_budget_passes_alone() {
    let server = Server::default();
    server.put_good(1..=3);
    server.put(4, false, Body::Good(format!("Subject: l\r\n\r\n{}", "x".repeat(3_000_000)).into_bytes()));
    server.put_good(5..=6);
    let mut rig = Rig::new(server, Start::All).await;
    rig.max = 10_000_000;
    rig.until_done().await;
    assert_eq!(rig.of(Disposition::Contact), keys(1..=6));
    assert_eq!(rig.ledger.kept.lock().expect("the ledger").blobs.len(), 1);
    assert_eq!(rig.budget.kib.available_permits(), 64);
}

#[tokio::test]
async fn while_suspended_nothing_is_written_and_afterwards_all_goes_on() {
    let server = Server::default();
    server.put_good(1..=20);
    let mut rig = Rig::new(server, Start::All).await;
    rig.trust.end();
    let (ledger, seen) = (rig.ledger.clone(), rig.server.clone());
    let trust = rig.trust.clone();
    let suspended = async move {
        // It reads ahead while it may not write, and then waits.
        while !seen.log.lock().expect("log").iter().any(|line| line.contains("BODY.PEEK")) {
            tokio::task::yield_now().await;
        }
        for _ in 0..200 {
            tokio::task::yield_now().await;
        }
        assert_eq!(ledger.kept.lock().expect("the ledger").reports, 1, "only the anchor from before");
        assert!(seen.seen().is_empty());
        trust.extend(Instant::now() + Duration::from_secs(600));
    };
    futures::join!(rig.until_done(), suspended);
    assert_eq!(rig.of(Disposition::Contact), keys(1..=20));
}

#[tokio::test]
async fn draining_ends_with_what_is_in_flight() {
    let server = Server::default();
    server.put_good(1..=50);
    let mut rig = Rig::new(server, Start::All).await;
    rig.switch.drain();
    let caught_up = rig.once().await.expect("ended");
    assert!(caught_up.ending);
    assert!(rig.rows().is_empty());
    rig.switch.close();
    assert!(matches!(rig.committer.flush(&Cursor::first(9, 77, Start::All)).await, Err(Stop::Closed)));
}

#[tokio::test]
async fn a_reason_to_stop_is_heeded_after_the_group_under_way() {
    let server = Server::default();
    server.put_good(1..=50);
    let mut rig = Rig::new(server, Start::All).await;
    let ledger = rig.ledger.clone();
    // The anchor is the first report.
    let stop = move || ledger.kept.lock().expect("the ledger").reports > 1;
    let caught_up = rig.once_until(stop).await.expect("at rest");
    assert!(caught_up.stopped && !caught_up.ending);
    let taken = rig.of(Disposition::Contact).len();
    assert!((7..50).contains(&taken), "{taken}");
    assert_eq!(rig.server.seen().len(), taken, "what was taken is marked too");
    rig.until_done().await;
    assert_eq!(rig.of(Disposition::Contact), keys(1..=50));
}

#[tokio::test]
async fn a_full_load_of_unsettled_messages_is_settled_and_more_is_asked_for() {
    let server = Server::default();
    server.put_good(1..=600);
    let mut rig = Rig::new(server, Start::New).await;
    let load = |uids: std::ops::RangeInclusive<u32>| uids.map(|uid| source_key(9, uid)).collect::<Vec<_>>();
    let known = load(1..=600).into_iter().map(|key| (key, (Disposition::Contact, String::new())));
    rig.ledger.kept.lock().expect("the ledger").rows.extend(known);
    let foreign: Vec<String> = (1..=500).map(|uid| source_key(8, uid)).collect();
    rig.committer.recall_unsettled(9.into(), &foreign);
    assert!(!rig.committer.has_more_to_settle(), "nothing would ever come of it");
    rig.committer.recall_unsettled(9.into(), &load(1..=500));
    assert!(!rig.committer.has_more_to_settle(), "first these");
    rig.until_done().await;
    assert_eq!(rig.server.seen().len(), 500);
    assert!(rig.committer.has_more_to_settle());

    let (_switch, lease) = Switch::new(&rig.trust);
    let opened = v1::OpenedMailbox { cursor: Some(rig.committer.committed().clone()), ..v1::OpenedMailbox::default() };
    rig.committer = Committer::new(rig.ledger.clone(), lease, "mbx-1", 7, &opened);
    rig.committer.recall_unsettled(9.into(), &load(501..=600));
    rig.until_done().await;
    assert_eq!((rig.server.seen().len(), rig.committer.has_more_to_settle()), (600, false));
}

#[tokio::test]
async fn a_cursor_that_is_not_the_committed_one_opens_again() {
    let server = Server::default();
    server.put_good(1..=5);
    let mut rig = Rig::new(server, Start::All).await;
    rig.ledger.kept.lock().expect("the ledger").cursor = v1::Cursor::default();
    assert!(matches!(rig.once().await, Err(Broken::Stop(Stop::Reopen))));
    assert!(rig.server.seen().is_empty());
}

#[tokio::test]
async fn whatever_the_bytes_each_message_is_accounted_for_and_the_good_ones_do_not_wait() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let mut files: Vec<_> =
        std::fs::read_dir(folder).expect("the corpus").map(|entry| entry.expect("a file").path()).collect();
    files.sort();
    files.retain(|path| path.extension().is_some_and(|end| end == "eml"));
    assert!(files.len() > 50);
    let server = Server::default();
    let mut placeholder = 0;
    for (path, uid) in files.iter().zip(1..) {
        // Servers hand on what was delivered, null bytes too, and messages without a byte.
        server.put(uid, false, Body::Good(std::fs::read(path).expect("a message")));
        if path.ends_with("exchange-placeholder.eml") {
            placeholder = uid;
        }
    }
    let last = u32::try_from(files.len()).expect("few");
    server.put_good([last + 1]);
    let mut rig = Rig::new(server, Start::All).await;
    assert!(rig.once().await.expect("the first look").pending);
    let first: Vec<_> = (1..=last + 1)
        .filter(|uid| *uid != placeholder)
        .map(|uid| (source_key(9, uid), Disposition::Contact))
        .collect();
    let sorted = |mut rows: Vec<(String, Disposition)>| {
        rows.sort();
        rows
    };
    assert_eq!(sorted(rig.rows()), sorted(first.clone()), "all but the one that is tried again");
    rig.until_done().await;
    let all = first.into_iter().chain([(source_key(9, placeholder), Disposition::Quarantined)]).collect();
    assert_eq!(sorted(rig.rows()), sorted(all));
}

fn second(uid: u32, round: u32) -> String {
    source_key(crate::mailbox::cursor::Numbering { validity: 8, round }, uid)
}

/// `rig.until_done`, until what came later is read as well.
async fn until_rekeyed(rig: &mut Rig) {
    for _ in 0..60 {
        if rig.cursor().rekeys_up_to().is_none() {
            return rig.until_done().await;
        }
        match rig.once().await {
            Ok(_) | Err(Broken::Imap(_)) => {}
            Err(broken) => panic!("{broken:?}"),
        }
    }
    panic!("it never ends");
}

#[tokio::test]
async fn a_folder_that_is_numbered_anew_doubles_nothing_and_skips_nothing() {
    let server = Server::default();
    server.put_good(1..=700);
    let mut rig = Rig::new(server, Start::New).await;
    rig.server.put_good(701..=1500);
    rig.until_done().await;
    assert_eq!(rig.of(Disposition::Contact).len(), 800);

    // In another order, with gaps, without some; and with new ones, of which one is the copy of a known one.
    let kept = (1..=1500).filter(|uid| uid % 10 != 0).map(|uid| (uid, 10_000 - uid * 3));
    let renumbered = rig.server.renumbered(kept.chain([(1499, 12_000)]));
    for (uid, minute) in [(12_001, 30), (12_002, 29)] {
        renumbered.put(uid, true, Body::Good(format!("Subject: new {uid}\r\n\r\n").into_bytes()));
        renumbered.mails.lock().expect("mails").get_mut(&uid).expect("it").minute = minute;
    }
    rig.ledger.kept.lock().expect("the ledger").refuse = 3;
    rig.renumber(renumbered, 30).await;
    until_rekeyed(&mut rig).await;
    // What is alike in everything is as old as what it is a copy of: only the newer one is taken.
    let taken: Vec<_> = rig.of(Disposition::Contact).into_iter().filter(|key| key.starts_with("8.")).collect();
    assert_eq!(taken, [second(12_001, 1)]);
    assert_eq!(rig.of(Disposition::Duplicate).len(), 720);
    let cursor = rig.cursor();
    let counted = cursor.renumbered().expect("it was numbered anew");
    assert_eq!((counted.known, counted.new, counted.left), (720, 1, 630 + 1 + 1));
    assert!(counted.finished.is_some() && cursor.done >= 12_002);

    rig.server.put_good([12_003]);
    rig.until_done().await;
    assert!(rig.of(Disposition::Contact).contains(&second(12_003, 1)), "reading goes on");
}

#[tokio::test]
async fn rekeying_that_is_cut_off_anywhere_goes_on_where_it_was() {
    let server = Server::default();
    server.put_good(1..=600);
    let mut rig = Rig::new(server, Start::All).await;
    rig.until_done().await;
    let renumbered = rig.server.renumbered((1..=600).map(|uid| (uid, uid + 5)));
    for uid in [100, 300, 301, 500] {
        renumbered.put(uid, false, Body::Good(format!("Subject: new {uid}\r\n\r\n").into_bytes()));
    }
    rig.renumber(renumbered, 0).await;
    let mut attempts = 0;
    while rig.cursor().rekeys_up_to().is_some() {
        // Each time one more step is allowed before it is cut off.
        let steps = std::cell::Cell::new(0);
        let most = attempts / 2;
        let stop = || {
            steps.set(steps.get() + 1);
            steps.get() > most
        };
        let caught_up = rig.once_until(stop).await.expect("stopped");
        attempts += 1;
        assert!(caught_up.stopped || caught_up.rekeyed);
        if attempts == 8 {
            // Numbered anew once more, in the middle.
            let again = rig.server.renumbered((6..=605).map(|uid| (uid, uid + 100)));
            rig.renumber(again, 0).await;
        }
    }
    assert!(attempts > 10, "{attempts}");
    rig.until_done().await;
    let of_round = |prefix: &str| {
        let rows = rig.of(Disposition::Contact).into_iter().chain(rig.of(Disposition::Duplicate));
        rows.filter(|key| key.starts_with(prefix)).count()
    };
    assert_eq!(of_round("8.2:"), 600, "each message of the folder stands there under its present key");
    assert_eq!(rig.of(Disposition::Contact).len(), 604, "each message is a contact once");
}

//! Whole folders into a ledger, with everything that can go wrong on the way.

use std::time::Duration;

use postroom_proto::v1::{self, Disposition};
use tokio::time::Instant;

use self::rig::{Rig, keys};
use super::*;
use crate::mailbox::commit::Committer;
use crate::mailbox::cursor::{Start, source_key};
use crate::mailbox::imap::settle::AfterIntake;
use crate::mailbox::imap::sim::{Body, Server};
use crate::mailbox::lease::Switch;

mod backlog;
mod deleting;
mod rekeying;
mod rig;

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
    let blamed = rig.blamed_for_standing_still();
    let suspended = async move {
        // It reads ahead while it may not write, and then waits.
        while !seen.log.lock().expect("log").iter().any(|line| line.contains("BODY.PEEK")) {
            tokio::task::yield_now().await;
        }
        assert_eq!(blamed.await, None, "that it may not write is not its fault");
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
async fn what_is_committed_is_marked_while_the_next_report_waits_and_nothing_else_is() {
    let server = Server::default();
    server.put_good(1..=21);
    let mut rig = Rig::new(server, Start::All).await;
    // The first report is the cursor's, the second has seven messages.
    rig.ledger.kept.lock().expect("the ledger").most = Some(2);
    let (mailbox, ledger) = (rig.server.clone(), rig.ledger.clone());
    let meanwhile = async {
        while mailbox.seen().is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        ledger.kept.lock().expect("the ledger").most = None;
        mailbox.seen()
    };
    let ((), seen) = tokio::join!(rig.until_done(), meanwhile);
    assert_eq!(seen, (1..=7).collect::<Vec<_>>());
    assert_eq!(rig.server.seen(), (1..=21).collect::<Vec<_>>());
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

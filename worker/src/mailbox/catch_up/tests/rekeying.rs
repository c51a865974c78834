//! A folder that is numbered anew is known again.

use super::rig::MINUTES;
use super::*;

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

#[tokio::test]
async fn a_slow_restore_replays_no_archive() {
    let server = Server::default();
    server.put_good(1..=20);
    let mut rig = Rig::new(server, Start::New).await;
    let at = |server: &Server, uids: std::ops::RangeInclusive<u32>, minute| {
        let mut mails = server.mails.lock().expect("mails");
        uids.for_each(|uid| mails.get_mut(&uid).expect("it").minute = minute);
    };
    rig.server.put_good(21..=30);
    at(&rig.server, 21..=30, 20);
    rig.until_done().await;
    assert_eq!(rig.of(Disposition::Contact).len(), 10);

    // It is seen empty. Then it is filled, in parts, with mail in between that was never taken, and with new mail.
    let former = rig.server.clone();
    rig.renumber_at(Server::default(), 10, now()).await;
    until_rekeyed(&mut rig).await;
    let restore = |rig: &Rig, uids: std::ops::RangeInclusive<u32>, by: u32| {
        let restored = former.renumbered(uids.map(|uid| (uid, uid + by)));
        rig.server.mails.lock().expect("mails").append(&mut restored.mails.lock().expect("mails"));
    };
    restore(&rig, 1..=12, 100);
    rig.until_done().await;
    assert_eq!(rig.of(Disposition::Contact).len(), 10, "none of the archive");
    rig.server.put_good(150..=151);
    at(&rig.server, 150..=151, 25);
    restore(&rig, 13..=30, 200);
    rig.until_done().await;
    let second = |uid| second(uid, 1);
    let taken: Vec<_> = rig.of(Disposition::Contact).into_iter().filter(|key| key.starts_with("8.")).collect();
    assert_eq!(taken, [second(150), second(151)], "what came after the first reading");
    assert_eq!(rig.of(Disposition::Duplicate).len(), 10);
    let cursor = rig.cursor();
    let received = Some(MINUTES * 60_000_000);
    for uid in [101, 112, 213, 220] {
        let place = cursor.place(uid, false, received);
        assert_eq!(place, crate::mailbox::cursor::Place::BeforeStart { doubtful: false }, "{uid}");
    }
    rig.server.put_good([300]);
    at(&rig.server, 300..=300, 50);
    rig.until_done().await;
    assert_eq!(rig.of(Disposition::Contact).len(), 13, "reading goes on");
}

/// A folder of `count` contacts that is numbered anew, with these messages whose headers are not given.
async fn withholding(count: u32, uids: &[(u32, bool)]) -> Rig {
    let server = Server::default();
    server.put_good(1..=count);
    let mut rig = Rig::new(server, Start::All).await;
    rig.until_done().await;
    let renumbered = rig.server.renumbered((1..=count).map(|uid| (uid, uid)));
    for (uid, refused) in uids {
        let Body::Good(raw) = renumbered.mails.lock().expect("mails")[uid].body.clone() else { panic!("a good one") };
        renumbered.put(*uid, false, Body::NoHeader(raw, *refused));
    }
    rig.reading.pending_retry = Duration::from_secs(600);
    rig.server.log.lock().expect("log").clear();
    rig.renumber(renumbered, 0).await;
    rig
}

#[tokio::test]
async fn headers_that_are_not_given_hold_up_nobody_and_take_nothing_twice() {
    let mut rig = withholding(30, &[(5, true), (9, false), (23, true)]).await;
    until_rekeyed_but(&mut rig, 3).await;
    assert_eq!((rig.of(Disposition::Duplicate).len(), rig.cursor().pending()), (27, vec![5, 9, 23]));
    // One is mended, one is deleted, one stays as it is.
    rig.server.put_good([5]);
    rig.server.mails.lock().expect("mails").remove(&23);
    (rig.reading.pending_retry, rig.care) = (Duration::ZERO, Care::default());
    rig.until_done().await;
    assert_eq!(rig.of(Disposition::Duplicate).len(), 28);
    assert_eq!(rig.of(Disposition::Vanished), [second(23, 1)]);
    assert_eq!(rig.of(Disposition::Quarantined), [second(9, 1)]);
    assert_eq!(rig.of(Disposition::Contact), keys(1..=30), "none of them twice");
    let log = rig.server.log.lock().expect("log");
    assert!(!log.iter().any(|line| line.contains("BODY.PEEK[]")), "{log:?}");
}

/// Re-keys all but so many, which are pending then.
async fn until_rekeyed_but(rig: &mut Rig, pending: usize) {
    while rig.cursor().rekeys_up_to().is_some() {
        rig.once().await.expect("nothing breaks");
    }
    assert_eq!(rig.cursor().pending().len(), pending);
}

#[tokio::test]
async fn a_server_that_refuses_every_header_puts_nothing_aside() {
    let refused: Vec<_> = (1..=20).map(|uid| (uid, true)).collect();
    let mut rig = withholding(20, &refused).await;
    let error = rig.once().await.expect_err("it is told");
    assert!(matches!(error, Broken::Imap(Error::Refused { bad: false, .. })), "{error:?}");
    assert_eq!((rig.rows().len(), rig.cursor().pending()), (20, vec![]));
    rig.server.put_good(1..=20);
    until_rekeyed(&mut rig).await;
    assert_eq!((rig.of(Disposition::Duplicate).len(), rig.of(Disposition::Contact).len()), (20, 20));
}

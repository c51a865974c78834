//! A folder that is numbered anew is known again.

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

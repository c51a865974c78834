//! What is deleted after intake.

use super::*;

fn load(uids: impl IntoIterator<Item = u32>) -> Vec<String> {
    uids.into_iter().map(|uid| source_key(9, uid)).collect()
}

fn there(rig: &Rig) -> Vec<u32> {
    rig.server.mails.lock().expect("mails").keys().copied().collect()
}

fn settled(rig: &Rig) -> Vec<String> {
    rig.ledger.kept.lock().expect("the ledger").settled.clone()
}

#[tokio::test]
async fn what_is_taken_in_is_marked_and_goes_when_the_ledger_names_it() {
    let server = Server::default();
    server.put_good(1..=8);
    server.put(9, false, Body::Good(vec![b'x'; 9000]));
    let mut rig = Rig::new(server, Start::All).await;
    rig.after = AfterIntake::Delete(Duration::from_secs(60));
    rig.until_done().await;
    assert_eq!(rig.of(Disposition::Contact), keys(1..=8));
    assert_eq!((rig.server.seen(), there(&rig).len()), ((1..=8).collect(), 9), "marked, and all there");
    assert!(settled(&rig).is_empty() && !rig.committer.has_more_to_settle(), "it is not done yet");

    // What belongs to another numbering is another message, and one is gone already.
    rig.server.mails.lock().expect("mails").remove(&2);
    let mut due = load([4, 1, 2]);
    due.push(source_key(8, 5));
    rig.committer.recall_due(9.into(), &due);
    rig.until_done().await;
    assert_eq!((there(&rig), settled(&rig)), (vec![3, 5, 6, 7, 8, 9], load([1, 2, 4])));
    let log = rig.server.log.lock().expect("log").join("\n");
    assert!(log.contains("UID EXPUNGE 1,4") && !log.contains(" EXPUNGE\n"), "only these: {log}");

    // It is named again, as after a crash before that was reported.
    rig.committer.recall_due(9.into(), &load([1, 4, 5]));
    rig.until_done().await;
    assert_eq!(there(&rig), [3, 6, 7, 8, 9]);
    // Numbered anew: nothing that was named means anything now.
    rig.committer.recall_due(9.into(), &load([6]));
    rig.committer.forget_unsettled();
    rig.until_done().await;
    assert_eq!(there(&rig), [3, 6, 7, 8, 9]);
}

#[tokio::test]
async fn while_suspended_nothing_is_deleted() {
    let server = Server::default();
    server.put_good(1..=3);
    let mut rig = Rig::new(server, Start::All).await;
    rig.after = AfterIntake::Delete(Duration::from_secs(60));
    rig.until_done().await;
    rig.committer.recall_due(9.into(), &load(1..=3));
    rig.trust.end();
    let mailbox = rig.server.clone();
    let trust = rig.trust.clone();
    let blamed = rig.blamed_for_standing_still();
    let suspended = async move {
        assert_eq!(blamed.await, None, "that it may not write is not its fault");
        assert_eq!(mailbox.mails.lock().expect("mails").len(), 3);
        trust.extend(Instant::now() + Duration::from_secs(600));
    };
    futures::join!(rig.until_done(), suspended);
    assert!(there(&rig).is_empty());
}

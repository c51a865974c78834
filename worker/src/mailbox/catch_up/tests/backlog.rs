//! Old messages that wait: held back while new mail is read, released in steps, stopped, and each taken once or left.

use super::*;

/// A folder with unread messages 1 to `old`, of which the operator has said nothing yet.
async fn holding(old: u32) -> Rig {
    let server = Server::default();
    server.put_good(1..=old);
    let first = Cursor::holding(9, old + 1, Start::Unseen, u64::from(old));
    Rig::anchored(server, first).await
}

fn step(count: u32) -> Option<Step> {
    Some(Step { count, since: None })
}

fn released(rig: &Rig, released: bool) {
    rig.ledger.kept.lock().expect("the ledger").released = released;
}

/// UIDs in the ledger, and how many are told to be taken, left, and whether that is all.
fn standing(rig: &Rig) -> (Vec<u32>, (u64, u64, bool)) {
    let kept = rig.ledger.kept.lock().expect("the ledger");
    let uid = |key: &String| crate::mailbox::cursor::uid_of(key, 9).expect("a key of this numbering");
    let mut uids: Vec<u32> = kept.rows.keys().map(uid).collect();
    uids.sort_unstable();
    let backlog = kept.backlog.expect("some wait");
    (uids, (backlog.taken_count, backlog.left_count, backlog.finished))
}

#[tokio::test]
async fn new_mail_is_read_while_the_old_waits_and_then_comes_in_steps() {
    let mut rig = holding(30).await;
    rig.server.put_good([31]);
    let caught_up = rig.once().await.expect("reads");
    assert!(caught_up.waits);
    assert_eq!(standing(&rig), (vec![31], (0, 0, false)));
    // Two of them are not to be taken any more: somebody has read one and deleted the other.
    rig.server.put(2, true, Body::Good(b"x".to_vec()));
    rig.server.mails.lock().expect("mails").remove(&3);
    released(&rig, true);
    let caught_up = rig.step_until(step(5), || false).await.expect("reads");
    assert!(caught_up.waits);
    assert_eq!(standing(&rig), (vec![1, 4, 5, 6, 7, 31], (5, 0, false)));
    rig.server.put_good([32]);
    let mut waits = true;
    for _ in 0..10 {
        waits = waits && rig.step_until(step(5), || false).await.expect("reads").waits;
    }
    assert!(!waits);
    let (uids, progress) = standing(&rig);
    assert_eq!((uids, progress), ((1..=32).filter(|uid| ![2, 3].contains(uid)).collect(), (28, 0, true)));
    assert_eq!(rig.server.seen().len(), 31, "each is settled");
}

#[tokio::test]
async fn what_is_stopped_is_not_taken_and_goes_on_where_it_was() {
    let mut rig = holding(20).await;
    // One fails for now, and is to be tried again only when that is allowed.
    rig.server.put(2, false, Body::Missing);
    released(&rig, true);
    assert!(rig.step_until(step(3), || false).await.expect("reads").pending);
    assert_eq!(standing(&rig), (vec![1, 3], (3, 0, false)));
    released(&rig, false);
    // The reader has not heard of it.
    let refused = rig.step_until(step(3), || false).await;
    assert!(matches!(refused, Err(Broken::Stop(Stop::Reopen))), "{refused:?}");
    rig.server.put_good([2]);
    let refused = rig.step_until(step(1), || false).await;
    assert!(matches!(refused, Err(Broken::Stop(Stop::Reopen))), "not even what was tried before: {refused:?}");
    let held = rig.once().await.expect("reads");
    assert!(held.waits && !held.pending);
    assert_eq!(standing(&rig), (vec![1, 3], (3, 0, false)));
    released(&rig, true);
    assert!(!rig.step_until(step(100), || false).await.expect("reads").waits);
    assert_eq!(standing(&rig), ((1..=20).collect(), (20, 0, true)));
}

#[tokio::test]
async fn what_is_older_than_the_operator_wants_is_left_and_counts_for_nothing() {
    // The server received all on this day.
    let noon = "2024-01-01T12:00:00Z".parse::<jiff::Timestamp>().expect("a time").as_microsecond();
    let mut rig = holding(200).await;
    rig.server.put(7, true, Body::Good(b"x".to_vec()));
    released(&rig, true);
    let none = Some(Step { count: 1, since: Some(noon) });
    assert!(!rig.step_until(none, || false).await.expect("reads").waits);
    assert_eq!(standing(&rig), (vec![], (0, 199, true)));
    assert_eq!(rig.server.seen(), [7], "nothing is done to them");

    let mut rig = holding(5).await;
    released(&rig, true);
    let all = Some(Step { count: 5, since: Some(noon - 86_400_000_000) });
    rig.step_until(all, || false).await.expect("reads");
    assert_eq!(standing(&rig), ((1..=5).collect(), (5, 0, true)));
}

#[tokio::test]
async fn one_that_breaks_the_answers_holds_up_no_other() {
    let mut rig = holding(40).await;
    rig.server.put(11, false, Body::Broken);
    released(&rig, true);
    for _ in 0..60 {
        let ended = rig.step_until(step(9), || false).await;
        if ended.is_ok_and(|caught_up| !caught_up.waits && !caught_up.pending) {
            break;
        }
    }
    assert_eq!(standing(&rig), ((1..=40).collect(), (40, 0, true)));
    let kept = rig.ledger.kept.lock().expect("the ledger");
    assert_eq!(kept.rows[&source_key(9, 11)].0, Disposition::Quarantined);
}

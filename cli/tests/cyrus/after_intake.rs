//! What becomes of messages in the mailbox once they are contacts.

use std::time::Duration;

use postroom_testbed::Mail;

use crate::harness::eventually;
use crate::house::{BOX, House, assert_checked, assert_clean, idle, named, taken, text};

/// `Erledigt/Grün ☂`, as IMAP names it.
const DONE: &str = "Erledigt/Gr&APw-n &JgI-";

#[tokio::test(flavor = "multi_thread")]
async fn messages_are_moved_into_a_folder_that_is_made_for_them() {
    let house = House::with(&[BOX]).await;
    house.deliver(BOX, "before", 3).await;
    let up = house.up(&house.model("afterIntake: 'move:Erledigt/Grün ☂'", "")).await;
    eventually("they are moved", || async { house.subjects("INBOX").await.is_empty() }).await;
    let folders = house.cyrus.folders(BOX).await.unwrap();
    assert!(folders.iter().any(|name| name == DONE), "{folders:?}");
    assert_checked(&up, BOX);
    for round in 0..2 {
        house.deliver(BOX, &format!("idle-{round}"), 2).await;
        eventually("these too", || async { house.subjects(DONE).await.len() == 5 + 2 * round }).await;
    }
    let all = named(&[("before", 3), ("idle-0", 2), ("idle-1", 2)]);
    taken(&up, &all).await;
    assert!(house.subjects(DONE).await.iter().eq(&all), "each once");
    assert!(house.subjects("INBOX").await.is_empty());
    assert_clean(&up, BOX).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn contacts_are_deleted_once_their_time_has_come_and_nothing_else_is() {
    let house = House::with(&[BOX]).await;
    // Left by the start policy, and marked as deleted by somebody else, who alone may expunge it.
    house.deliver(BOX, "old", 2).await;
    let marks = ["UID STORE 1:2 +FLAGS.SILENT (\\Seen)", "UID STORE 2 +FLAGS.SILENT (\\Deleted)"];
    house.cyrus.work(BOX, "INBOX", &marks).await.unwrap();
    let model = house.model("maxMessageBytes: 20000, afterIntake: 'delete:1s'", "");
    let up = house.up(&model).await;
    idle(&up, BOX).await;
    house.deliver(BOX, "a", 3).await;
    let large = Mail::to(BOX).subject("large-0").size(200_000);
    house.cyrus.deliver([large.delivery()]).await.unwrap();
    taken(&up, &named(&[("a", 3)])).await;
    assert_checked(&up, BOX);
    up.kill();
    tokio::time::sleep(Duration::from_millis(1100)).await;

    // What is due is asked for at the start.
    let up = house.up(&model).await;
    eventually("they are deleted", || async { house.subjects("INBOX").await == ["large-0", "old-0", "old-1"] }).await;
    house.deliver(BOX, "b", 1).await;
    taken(&up, &named(&[("a", 3), ("b", 1)])).await;
    assert_eq!(house.subjects("INBOX").await, ["b-0", "large-0", "old-0", "old-1"]);
    let reconciled = up.postroom(&["mailbox", "reconcile", BOX]);
    assert!(reconciled.status.success(), "{}", text(&reconciled));
    assert_checked(&up, BOX);
}

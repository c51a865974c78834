//! People work in the mailbox while it is read for the first time.

use std::collections::BTreeSet;
use std::time::Duration;

use postroom_proto::v1::Disposition;
use postroom_testbed::Link;

use crate::harness::{contacts, eventually};
use crate::house::{BOX, House, assert_clean, idle, mails, messages, taken};

#[tokio::test(flavor = "multi_thread")]
async fn what_people_do_during_catch_up_loses_nothing() {
    const COUNT: usize = 800;
    let house = House::with(&[BOX]).await;
    house.cyrus.open(BOX).await.unwrap().command("CREATE Elsewhere").await.unwrap();
    house.put("INBOX", &mails("a", COUNT)).await;
    let link = Link::start(house.cyrus.imap_addr()).await.unwrap();
    // So that there is a time between the first and the last.
    link.set_delay(Duration::from_millis(100));
    let up = house.up(&(house.server(link.addr().port()) + &House::queue(BOX, "start: all", ""))).await;
    let client = up.client();
    eventually("some are contacts", || async { !contacts(&client).await.is_empty() }).await;
    // Whatever is on its way meanwhile waits.
    link.set_silent(true);
    let before = contacts(&client).await.len();
    assert!(before < COUNT, "they are read already");
    let stored = house.cyrus.messages(BOX, "INBOX").await.unwrap();
    let every = |rest: usize| {
        let uids = stored.iter().enumerate().filter(|(at, _)| at % 4 == rest).map(|(_, it)| it.uid.to_string());
        uids.collect::<Vec<_>>().join(",")
    };
    let (delete, shift, mark) = (every(0), every(1), every(2));
    let commands = [
        format!("UID STORE {delete} +FLAGS.SILENT (\\Deleted)"),
        format!("UID EXPUNGE {delete}"),
        format!("UID MOVE {shift} Elsewhere"),
        format!("UID STORE {mark} +FLAGS.SILENT (\\Seen)"),
    ];
    house.cyrus.work(BOX, "INBOX", &commands.each_ref().map(String::as_str)).await.unwrap();
    link.heal();
    idle(&up, BOX).await;
    // What the server does not give is asked for once more, half a minute later.
    eventually("everything is dealt with", || async {
        let messages = messages(&up, BOX, &[]).await;
        messages.len() == COUNT && messages.iter().all(|message| message.settled)
    })
    .await;
    let found = contacts(&client).await;
    assert!(found.values().all(|times| *times == 1), "{found:?}");
    let vanished = messages(&up, BOX, &[Disposition::Vanished]).await.len();
    assert!(vanished > 0, "nobody was quicker than the reader, which had {before} when they began");
    assert_eq!(found.len() + vanished, COUNT, "each is a contact, or was gone before it could be read");
    let left: BTreeSet<String> = house.subjects("INBOX").await.into_iter().collect();
    assert!(left.len() == COUNT / 2 && left.iter().all(|subject| found.contains_key(subject)), "what is left was read");
    assert_clean(&up, BOX).await;

    house.deliver(BOX, "after", 1).await;
    let mut expected: BTreeSet<String> = found.into_keys().collect();
    expected.insert("after-0".to_owned());
    taken(&up, &expected).await;
}

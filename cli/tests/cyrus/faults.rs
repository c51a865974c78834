//! The installation is killed, its connections are cut, and a password is wrong.

use std::time::Duration;

use postroom_testbed::{Link, Mail};
use rand::RngExt as _;

use crate::harness::{Up, contacts, eventually, mailbox};
use crate::house::{BOX, House, PASSWORD, assert_checked, assert_clean, idle, named, taken, text};

#[tokio::test(flavor = "multi_thread")]
async fn killed_and_cut_off_anywhere_it_takes_each_message_once() {
    const COUNT: usize = 900;
    let house = House::with(&[BOX]).await;
    let link = Link::start(house.cyrus.imap_addr()).await.unwrap();
    let model = house.server(link.addr().port()) + &House::queue(BOX, "afterIntake: 'move:Done'", "");
    // Large enough for many reports.
    let sized = |number| Mail::to(BOX).subject(&format!("a-{number}")).size(20_000).build();
    house.put("INBOX", &(0..COUNT).map(sized).collect::<Vec<_>>()).await;
    let mut expected = named(&[("a", COUNT)]);
    link.set_delay(Duration::from_millis(30));
    for round in 0..3 {
        let up = house.up(&model).await;
        let tag = format!("round{round}");
        house.deliver(BOX, &tag, 2).await;
        expected.extend(named(&[(&tag, 2)]));
        let cut = progress(&up, expected.len()).await;
        link.cut();
        let killed = progress(&up, expected.len()).await;
        up.kill();
        println!("round {round}: cut after {cut} contacts, killed after {killed}");
        assert!(round > 0 || killed < COUNT, "nothing was in the middle");
    }
    link.heal();
    let up = house.up(&model).await;
    taken(&up, &expected).await;
    assert_clean(&up, BOX).await;
    eventually("all are moved", || async { house.subjects("INBOX").await.is_empty() }).await;
    let moved = house.subjects("Done").await;
    assert!(moved.iter().eq(&expected), "each lies there once: {} of {}", moved.len(), expected.len());
}

/// Waits for further contacts, unless there are all of them, and for a random moment more. How many there are.
async fn progress(up: &Up, all: usize) -> usize {
    let client = up.client();
    let before = contacts(&client).await.len();
    eventually("further contacts", || async {
        let now = contacts(&client).await.len();
        now > before || now == all
    })
    .await;
    tokio::time::sleep(Duration::from_millis(rand::rng().random_range(0..60))).await;
    contacts(&client).await.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_told_as_such_and_the_right_one_heals_it() {
    let house = House::with(&[BOX]).await;
    house.cyrus.set_password(BOX, "another").await.unwrap();
    house.deliver(BOX, "a", 2).await;
    let up = house.up(&house.model("start: all", "")).await;
    eventually("it is told", || async {
        mailbox(&up.client(), BOX).await.problem.is_some_and(|problem| problem.code == "SIGN_IN_REFUSED")
    })
    .await;
    let shown = text(&up.postroom(&["mailbox", "show", BOX]));
    assert!(shown.contains("SIGN_IN_REFUSED") && shown.contains("refused user name and password"), "{shown}");
    let checked = up.postroom(&["mailbox", "check", BOX]);
    assert!(!checked.status.success() && text(&checked).contains("SIGN_IN_REFUSED"), "{}", text(&checked));
    assert!(contacts(&up.client()).await.is_empty());

    let right = house.model("start: all", "").replace(PASSWORD, "another");
    let file = house.folder.path().join("right.yaml");
    std::fs::write(&file, right).unwrap();
    let applied = up.postroom(&["apply", "-f", file.to_str().unwrap()]);
    assert!(applied.status.success(), "{}", text(&applied));
    taken(&up, &named(&[("a", 2)])).await;
    idle(&up, BOX).await;
    assert_checked(&up, BOX);
    assert_clean(&up, BOX).await;
}

//! Mail that lies there, and mail that comes.

use std::time::Duration;

use postroom_testbed::{Delivery, Link, Mail};

use crate::harness::{contacts, eventually};
use crate::house::{BOX, House, assert_checked, assert_clean, idle, named, taken};

#[tokio::test(flavor = "multi_thread")]
async fn mail_before_and_while_reading_becomes_contacts_once_as_each_start_policy_says() {
    const POLICIES: [&str; 3] = ["unseen", "new", "all"];
    let address = |policy: &str| format!("{policy}@contoso.example");
    let house = House::with(&POLICIES.map(|policy| &*address(policy).leak())).await;
    let mut model = house.server(house.cyrus.imap_addr().port());
    for policy in POLICIES {
        let email = address(policy);
        house.deliver(&email, &format!("{policy}-read"), 2).await;
        house.cyrus.work(&email, "INBOX", &["UID STORE 1:2 +FLAGS.SILENT (\\Seen)"]).await.unwrap();
        house.deliver(&email, &format!("{policy}-unread"), 2).await;
        model += &House::queue(&email, &format!("start: {policy}"), "");
    }
    let up = house.up(&model).await;
    for policy in POLICIES {
        idle(&up, &address(policy)).await;
        assert_checked(&up, &address(policy));
    }
    let mut expected = named(&[("unseen-unread", 2), ("all-read", 2), ("all-unread", 2)]);
    taken(&up, &expected).await;

    // Read in IDLE: the next look by itself is minutes away.
    for policy in POLICIES {
        house.deliver(&address(policy), &format!("{policy}-mail"), 3).await;
        expected.extend(named(&[(&format!("{policy}-mail"), 3)]));
    }
    taken(&up, &expected).await;
    for policy in POLICIES {
        let email = address(policy);
        assert_clean(&up, &email).await;
        for message in house.cyrus.messages(&email, "INBOX").await.unwrap() {
            let left = policy == "new" && message.subject.contains("unread");
            assert_eq!(message.is_seen(), !left, "{message:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_of_30_mb_that_is_cut_off_on_its_way_arrives_whole() {
    const BYTES: usize = 30_000_000;
    let house = House::with(&[BOX]).await;
    let link = Link::start(house.cyrus.imap_addr()).await.unwrap();
    let large = Mail::to(BOX).subject("large-0").size(BYTES).build();
    // Leading dots are stuffed on their way into the server.
    let large = [large, b"\r\n.\r\n..end\r\n".to_vec()].concat();
    let model = house.server(link.addr().port()) + &House::queue(BOX, "maxMessageBytes: 40000000", "");
    let up = house.up(&model).await;
    idle(&up, BOX).await;
    // So that there is a time in the middle of it.
    link.set_delay(Duration::from_millis(200));
    let (before, made) = (link.carried(), link.made());
    house.cyrus.deliver([Delivery { to: BOX.to_owned(), message: large.clone() }]).await.unwrap();
    eventually("a part of it has come", || async { link.carried() > before + 5_000_000 }).await;
    link.cut();
    link.heal();
    let carried = link.carried() - before;
    assert!(carried < BYTES as u64, "it had come already: {carried} bytes");
    house.deliver(BOX, "after", 1).await;
    taken(&up, &named(&[("large", 1), ("after", 1)])).await;
    assert!(link.made() > made, "it connected again");
    assert_eq!(contacts(&up.client()).await["large-0"], 1);

    let listed = up.client().list_contacts(Default::default(), u32::MAX).await.unwrap().contacts;
    let contact = listed.iter().find(|it| it.content.as_ref().is_some_and(|it| it.subject == "large-0")).unwrap();
    let raw = up.postroom(&["contact", "raw", &contact.id]);
    // The server puts headers of its own before it.
    assert!(raw.status.success() && raw.stdout.ends_with(&large), "{} bytes", raw.stdout.len());
    assert_clean(&up, BOX).await;
}

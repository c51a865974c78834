//! Networks that break and crawl: between workers and control plane, and between workers and the mail server.

use std::time::Duration;

use tokio::time::sleep;

use crate::scale::{Scale, Terms};
use crate::scenario::{Fleet, leases, names};

#[tokio::test(flavor = "multi_thread")]
async fn links_that_are_cut_silent_and_slow_lose_and_double_nothing() {
    let mut fleet = Fleet::start(Scale::of(20), Terms::Short, 1, &["one", "two", "three"]).await;
    let before = fleet.all_read().await;

    // A break that is over before anybody is missed moves nothing.
    for name in ["one", "two", "three"] {
        fleet.worker(name).road.cut();
        fleet.more_mail(20).await;
    }
    fleet.worker("three").road.set_refusing(true);
    sleep(fleet.terms().ttl() / 3).await;
    fleet.worker("three").road.heal();
    assert_eq!(leases(&fleet.all_read().await), leases(&before));

    // One that lasts longer costs the worker its mailboxes, and it stops before they are given away.
    fleet.worker("one").road.set_silent(true);
    fleet.read_by(|worker| worker != "one").await;
    assert_eq!(
        fleet.workers["one"].said("the control plane is silent: nothing is reported or changed until it answers"),
        1
    );
    fleet.more_mail(100).await;
    fleet.worker("one").road.heal();
    fleet.registered("one", 2).await;

    // Without the mail server nobody is given up; everything is read when it is back.
    let there = names(&fleet.all_read().await);
    fleet.mail.cut();
    fleet.more_mail(20).await;
    fleet.mail.set_refusing(true);
    sleep(Duration::from_secs(2)).await;
    fleet.mail.heal();
    fleet.mail.set_silent(true);
    sleep(Duration::from_secs(2)).await;
    fleet.mail.heal();
    // Everything crawls.
    fleet.mail.set_delay(Duration::from_millis(150));
    for worker in fleet.workers.values() {
        worker.road.set_delay(Duration::from_millis(100));
    }
    fleet.more_mail(300).await;
    let there_after = names(&fleet.all_read().await);
    assert!(there.iter().all(|(mailbox, worker)| there_after[mailbox] == *worker || there_after[mailbox] == "one"));
    fleet.finish("links cut, silent and slow").await;
}

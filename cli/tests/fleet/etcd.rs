//! Faults of the store: cut off, stalled, compacted under those who watch it, led by another member.

use std::time::Duration;

use tokio::time::sleep;

use crate::harness::eventually;
use crate::scale::{Scale, Terms};
use crate::scenario::{Fleet, leases, names};

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_away_moves_no_mailbox_and_one_that_forgets_or_is_led_by_another_member_is_still_followed() {
    let mut fleet = Fleet::start(Scale::of(20), Terms::Short, 3, &["one", "two", "three"]).await;
    let before = leases(&fleet.all_read().await);
    let sign_ins = fleet.sign_ins();
    // Longer than the leader trusts itself, and than a worker trusts the leader.
    fleet.store.set_refusing(true);
    sleep(fleet.terms().ttl() + Duration::from_secs(1)).await;
    fleet.store.set_refusing(false);
    fleet.mail_flows().await;
    assert_eq!(leases(&fleet.all_read().await), before, "cut off\n{}", fleet.logs());

    fleet.store.stall(Duration::from_secs(8)).await;
    fleet.mail_flows().await;
    assert_eq!(leases(&fleet.all_read().await), before, "stalled\n{}", fleet.logs());
    assert_eq!(fleet.sign_ins(), sign_ins, "connections stay open");

    the_store_changes_under_those_who_watch_it(&fleet).await;
    fleet.worker("one").kill();
    fleet.read_by(|worker| worker != "one").await;
    fleet.finish("etcd cut off, stalled, compacted, led by others and short of a member").await;
}

async fn the_store_changes_under_those_who_watch_it(fleet: &Fleet) {
    let client = fleet.client();
    let before = names(&fleet.all_read().await);
    for round in 0..3 {
        // Whoever watches goes on where it has heard something last, which is history by now.
        client.freeze_workers("so that there is history".into(), None).await.unwrap();
        client.unfreeze_workers().await.unwrap();
        fleet.store.etcd.compact().await.unwrap();
        fleet.store.cut();
        let leader = fleet.store.etcd.move_leader().await.unwrap();
        fleet.store.etcd.kill((leader + 1) % 3).await.unwrap();
        fleet.mail_flows().await;
        fleet.store.etcd.restart((leader + 1) % 3).await.unwrap();
        assert_eq!(names(&fleet.all_read().await), before, "round {round}");
    }
    // Every view still follows: decisions, the model, assignments.
    client.drain_worker("one".into()).await.unwrap();
    fleet.read_by(|worker| worker != "one").await;
    fleet.undrain(&["one"]).await;
    fleet.store.etcd.compact().await.unwrap();
    fleet.store.cut();
    let fewer = fleet.scale.mailboxes - 1;
    let model = fleet.model();
    let shorter = model.lines().take(model.lines().count() - 1).collect::<Vec<_>>().join("\n");
    fleet.plane().apply(&shorter).await;
    eventually("the mailbox is gone", || async { client.list_mailboxes().await.unwrap().mailboxes.len() == fewer })
        .await;
    fleet.plane().apply(&model).await;
    fleet.all_read().await;
}

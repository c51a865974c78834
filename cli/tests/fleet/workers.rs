//! Workers that die, stop, and sleep too long.

use std::time::Duration;

use postroom_testbed::relay::Relay;
use tokio::time::sleep;

use crate::harness::eventually;
use crate::scale::{Scale, Terms};
use crate::scenario::{Fleet, leases};

/// gRPC status ABORTED: a lease or cursor that holds no more.
const ABORTED: u32 = 10;

#[tokio::test(flavor = "multi_thread")]
async fn workers_die_stop_and_sleep_and_what_one_reported_before_it_slept_past_its_lease_is_refused() {
    let mut fleet = Fleet::start(Scale::of(20), Terms::Short, 1, &["dies", "stops", "stays"]).await;
    // Its calls go through a relay, which holds reports back on their way.
    let relay = Relay::start(fleet.address()).await.unwrap();
    let endpoint = format!("http://{}", relay.addr());
    fleet.add_worker_calling("sleeps", &endpoint).await;
    eventually("it has mailboxes", || async {
        let mailboxes = fleet.client().list_mailboxes().await.unwrap().mailboxes;
        leases(&mailboxes).values().filter(|(worker, ..)| worker == "sleeps").count() >= 3
    })
    .await;
    let held = relay.hold("/Report");
    held.arrived(1).await.unwrap();
    fleet.worker("sleeps").freeze();
    let before = leases(&fleet.client().list_mailboxes().await.unwrap().mailboxes);

    fleet.worker("dies").kill();
    fleet.worker("stops").stop().await;
    let after = leases(&fleet.read_by(|worker| worker == "stays").await);
    for (mailbox, (_, session, epoch)) in &before {
        let (_, now, higher) = &after[mailbox];
        assert!(session == now && epoch == higher || higher > epoch, "{mailbox}: {epoch}, then {higher}");
    }
    // Everything is open under a higher epoch: what arrives now comes too late.
    held.release();
    let answers = held.answers(1).await.unwrap();
    assert!(answers.iter().all(|answer| answer.status == ABORTED), "{answers:?}");

    fleet.worker("sleeps").wake();
    fleet.more_mail(100).await;
    fleet.registered("sleeps", 2).await;
    fleet.start_worker("dies");
    fleet.start_worker("stops");
    assert!(relay.calls("/Report").seen > 0);

    // The same in turns, faster than anybody is given up.
    for name in ["dies", "stops", "stays"] {
        fleet.more_mail(50).await;
        fleet.worker(name).kill();
        sleep(Duration::from_millis(500)).await;
        fleet.start_worker(name);
        fleet.more_mail(50).await;
        fleet.worker(name).stop().await;
        fleet.start_worker(name);
    }
    fleet.finish("workers that die, stop and sleep").await;
}

//! Who holds no lease changes nothing.

use postroom_proto::reason::Reason;
use postroom_proto::v1::open_outcome::Outcome;

use crate::bench::Bench;

#[tokio::test]
async fn a_report_held_back_until_the_lease_has_moved_is_refused() {
    let data = tempfile::tempdir().unwrap();
    let bench = Bench::start(data.path()).await;
    let mut first = bench.register("first").await;
    let offer = first.offered().await;
    assert!(matches!(first.open(&offer.mailbox, offer.epoch).await, Outcome::Opened(_)));
    let in_time = first.batch(&offer, 0, 1);
    first.report(&in_time).await.unwrap();
    let held_back = first.batch(&offer, 1, 2);

    let mut second = bench.register("second").await;
    second.heartbeat().await;
    first.leave().await;
    let moved = second.offered().await;
    assert!(moved.epoch > offer.epoch);
    // Assigned but not yet opened: what the first had under way may still arrive, and the second will find it.
    let Outcome::Opened(opened) = second.open(&moved.mailbox, moved.epoch).await else { panic!("not opened") };
    assert_eq!(opened.cursor.unwrap().value, [1], "it goes on where the first was");

    assert_eq!(first.report(&held_back).await, Err(Reason::LeaseLost));
    assert_eq!(first.report(&in_time).await, Err(Reason::LeaseLost), "not even what it had committed is repeated");
    assert_eq!(bench.contacts().await, 1);
    let next = second.batch(&moved, 1, 2);
    let answer = second.report(&next).await.unwrap();
    assert_eq!(second.report(&next).await.unwrap(), answer, "a lost answer is repeated");
    assert_eq!(bench.contacts().await, 2);
    bench.app.stop().await;
}

#[tokio::test]
async fn a_worker_cannot_open_what_it_does_not_hold() {
    let data = tempfile::tempdir().unwrap();
    let bench = Bench::start(data.path()).await;
    let mut owner = bench.register("owner").await;
    let offer = owner.offered().await;
    assert!(matches!(owner.open(&offer.mailbox, offer.epoch).await, Outcome::Opened(_)));
    owner.report(&owner.batch(&offer, 0, 1)).await.unwrap();

    let intruder = bench.register("intruder").await;
    for (session, epoch) in [(&intruder, offer.epoch), (&intruder, 1 << 60), (&owner, 1 << 60), (&owner, 0)] {
        let Outcome::Refused(refusal) = session.open(&offer.mailbox, epoch).await else {
            panic!("epoch {epoch} was opened")
        };
        assert_eq!(refusal.reason, "LEASE_LOST");
    }
    let mut stolen = owner.batch(&offer, 1, 2);
    stolen.session = intruder.id.clone();
    assert_eq!(intruder.report(&stolen).await, Err(Reason::LeaseLost));

    owner.report(&owner.batch(&offer, 1, 2)).await.expect("the owner is undisturbed");
    assert_eq!(bench.contacts().await, 2);
    bench.app.stop().await;
}

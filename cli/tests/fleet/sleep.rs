//! A control plane that sleeps: frozen by its host, and back after everybody's time has run out.

use std::time::Duration;

use tokio::time::sleep;

use crate::scale::{Scale, Terms};
use crate::scenario::{Fleet, leases};

#[tokio::test(flavor = "multi_thread")]
async fn a_control_plane_that_slept_takes_nobodys_mailboxes_away() {
    let mut fleet = Fleet::start(Scale::of(20), Terms::Short, 1, &["one", "two", "three"]).await;
    let before = leases(&fleet.all_read().await);
    let sign_ins = fleet.sign_ins();
    for nap in 1..=2 {
        fleet.more_mail(20).await;
        fleet.plane().process.signal("STOP");
        // Longer than the life of its key, and than workers are waited for.
        sleep(fleet.terms().ttl() + Duration::from_secs(3)).await;
        fleet.plane().process.signal("CONT");
        fleet.mail_flows().await;
        assert_eq!(leases(&fleet.all_read().await), before, "after nap {nap}\n{}", fleet.logs());
    }
    for worker in fleet.workers.values() {
        assert_eq!(worker.said("registered"), 1, "the session of {} goes on", worker.name);
    }
    assert_eq!(fleet.sign_ins(), sign_ins, "connections stay open");
    // It still notices who is really gone.
    fleet.worker("two").kill();
    fleet.read_by(|worker| worker != "two").await;
    fleet.finish("a control plane that slept").await;
}

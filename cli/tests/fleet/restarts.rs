//! Restarts, of everything in turn and of the control plane alone.

use crate::scale::{Scale, Terms};
use crate::scenario::{Fleet, leases, names};

const WORKERS: [&str; 4] = ["one", "two", "three", "four"];

#[tokio::test(flavor = "multi_thread")]
async fn a_control_plane_that_is_killed_five_times_and_a_rolling_restart_of_everything_move_no_mailbox() {
    let mut fleet = Fleet::set(Scale::of(200), Terms::Short, 1).await;
    for name in WORKERS {
        fleet.add_worker(name, &[]).await;
    }
    let before = fleet.all_read().await;
    let sign_ins = fleet.sign_ins();
    assert!(sign_ins >= before.len(), "{sign_ins} sign-ins of {} mailboxes", before.len());
    fleet.send();
    for kill in 1..=5 {
        fleet.more_mail(50).await;
        fleet.kill_plane();
        fleet.start_plane().await;
        fleet.mail_flows().await;
        assert_eq!(leases(&fleet.all_read().await), leases(&before), "after kill {kill}\n{}", fleet.logs());
    }
    assert_eq!(fleet.sign_ins(), sign_ins, "nobody signed in again");

    let before = names(&before);
    for name in WORKERS {
        fleet.worker(name).stop().await;
        fleet.start_worker(name);
        // A fleet is restarted no faster than it recovers.
        assert_eq!(names(&fleet.all_read().await), before, "{name} was restarted");
        fleet.mail_flows().await;
    }
    fleet.stop_plane().await;
    fleet.start_plane().await;
    fleet.mail_flows().await;
    assert_eq!(names(&fleet.all_read().await), before, "the control plane was restarted");
    for name in WORKERS {
        // Each was given its mailboxes twice: at its first start and after its restart.
        let given = fleet.workers[name].said("a mailbox is leased to this worker");
        assert_eq!(given, 2 * before.values().filter(|worker| *worker == name).count(), "{name}");
    }
    fleet.finish("a control plane killed five times, then a rolling restart").await;
}

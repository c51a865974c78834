//! How soon the last of fifty mailboxes is read by somebody else, under the terms that hold when nobody sets any.

use std::time::Duration;

use tokio::time::Instant;

use crate::scale::{Scale, Terms};
use crate::scenario::{Fleet, names};

/// Promised for the last of fifty mailboxes of a worker that was killed.
const KILLED: Duration = Duration::from_secs(15);
/// The part of that in which nobody can know yet that it is dead.
const SILENCE: Duration = Duration::from_secs(12);
/// Promised for the last of fifty mailboxes of a worker that is drained.
const DRAINED: Duration = Duration::from_secs(2);
const WORKERS: [&str; 2] = ["one", "two"];

/// How many mailboxes each of two workers has.
async fn shares(fleet: &Fleet) -> [usize; 2] {
    let names = names(&fleet.all_read().await);
    WORKERS.map(|worker| names.values().filter(|name| *name == worker).count())
}

/// The promises are made for machines that keep up. What this one can do just now shows in how long the same mailboxes
/// took to be opened for the first time, and longer than that is never too long.
#[tokio::test(flavor = "multi_thread")]
async fn the_last_of_fifty_mailboxes_is_read_elsewhere_in_time_and_a_spare_gives_back() {
    let mut fleet = Fleet::set_alone(Scale { mailboxes: 100, ..Scale::of(100) }, Terms::Usual, 1).await;
    let began = Instant::now();
    for name in WORKERS {
        fleet.add_worker(name, &[]).await;
    }
    fleet.add_worker("spare", &["--role=spare"]).await;
    let before = shares(&fleet).await;
    let cold = began.elapsed();
    assert_eq!(before, [50, 50], "the spare has none");
    fleet.send();
    fleet.mail_flows().await;
    fleet.slow_mail(true);

    fleet.worker("one").kill();
    let began = Instant::now();
    fleet.read_by(|worker| worker != "one").await;
    let killed = began.elapsed();
    eprintln!("50 mailboxes of a worker that was killed: the last is read by the spare after {killed:.1?}");
    assert_eq!(shares(&fleet).await, [0, 50], "the other worker is not bothered");

    let began = Instant::now();
    fleet.client().drain_worker("two".into()).await.unwrap();
    fleet.read_by(|worker| worker != "two").await;
    let drained = began.elapsed();
    eprintln!("50 mailboxes of a worker that is drained: the last is read elsewhere after {drained:.2?}");
    eprintln!("100 mailboxes of two workers that start: the last is read after {cold:.1?}");
    assert!(killed < KILLED.max(SILENCE + cold), "killed: {killed:?}, cold: {cold:?}");
    assert!(drained < DRAINED.max(cold), "drained: {drained:?}, cold: {cold:?}");

    fleet.slow_mail(false);
    fleet.no_longer_alone();
    fleet.client().undrain_worker("two".into()).await.unwrap();
    fleet.start_worker("one");
    fleet.read_by(|worker| worker != "spare").await;
    fleet.finish("take-over under the usual terms").await;
}

//! Faults in an order that nobody thought of: drawn from a seed, two at a time.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use tokio::time::sleep;

use crate::scale::{Scale, Terms, number};
use crate::scenario::Fleet;

const WORKERS: [&str; 4] = ["one", "two", "three", "four"];
/// Members of etcd.
const MEMBERS: usize = 3;

/// What breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    WorkerKilled,
    WorkerStopped,
    WorkerFrozen,
    WorkerDrained,
    RoadCut,
    RoadSilent,
    RoadSlow,
    MailCut,
    MailSilent,
    MailSlow,
    StoreUnreachable,
    StoreStalled,
    StoreCompacted,
    StoreLedByAnother,
    MemberKilled,
    PlaneKilled,
    PlaneStopped,
    PlaneFrozen,
}

const ALL: [Fault; 18] = [
    Fault::WorkerKilled,
    Fault::WorkerStopped,
    Fault::WorkerFrozen,
    Fault::WorkerDrained,
    Fault::RoadCut,
    Fault::RoadSilent,
    Fault::RoadSlow,
    Fault::MailCut,
    Fault::MailSilent,
    Fault::MailSlow,
    Fault::StoreUnreachable,
    Fault::StoreStalled,
    Fault::StoreCompacted,
    Fault::StoreLedByAnother,
    Fault::MemberKilled,
    Fault::PlaneKilled,
    Fault::PlaneStopped,
    Fault::PlaneFrozen,
];

impl Fault {
    /// What it happens to. Two faults of one step happen to different things.
    fn victim(self) -> &'static str {
        match self {
            Self::WorkerKilled | Self::WorkerStopped | Self::WorkerFrozen | Self::WorkerDrained => "worker",
            Self::RoadCut | Self::RoadSilent | Self::RoadSlow => "road",
            Self::MailCut | Self::MailSilent | Self::MailSlow => "mail",
            Self::StoreUnreachable
            | Self::StoreStalled
            | Self::StoreCompacted
            | Self::StoreLedByAnother
            | Self::MemberKilled => "store",
            Self::PlaneKilled | Self::PlaneStopped | Self::PlaneFrozen => "plane",
        }
    }

    async fn begin(self, fleet: &mut Fleet, name: &str) {
        match self {
            Self::WorkerKilled => fleet.worker(name).kill(),
            Self::WorkerStopped => fleet.worker(name).stop().await,
            Self::WorkerFrozen => fleet.worker(name).freeze(),
            // It is refused while nobody leads; then nothing is drained.
            Self::WorkerDrained => drop(fleet.client().drain_worker(name.into()).await),
            Self::RoadCut => fleet.worker(name).road.set_refusing(true),
            Self::RoadSilent => fleet.worker(name).road.set_silent(true),
            Self::RoadSlow => fleet.worker(name).road.set_delay(Duration::from_millis(200)),
            Self::MailCut => fleet.mail.set_refusing(true),
            Self::MailSilent => fleet.mail.set_silent(true),
            Self::MailSlow => fleet.mail.set_delay(Duration::from_millis(200)),
            Self::StoreUnreachable => fleet.store.set_refusing(true),
            Self::StoreStalled => fleet.store.freeze().await,
            Self::StoreCompacted => {
                fleet.store.etcd.compact().await.unwrap();
                fleet.store.cut();
            }
            Self::StoreLedByAnother => drop(fleet.store.etcd.move_leader().await.unwrap()),
            Self::MemberKilled => fleet.store.etcd.kill(member_of(name)).await.unwrap(),
            Self::PlaneKilled => fleet.kill_plane(),
            Self::PlaneStopped => fleet.stop_plane().await,
            Self::PlaneFrozen => fleet.plane().process.signal("STOP"),
        }
    }

    async fn end(self, fleet: &mut Fleet, name: &str) {
        match self {
            Self::WorkerKilled | Self::WorkerStopped => fleet.start_worker(name),
            Self::WorkerFrozen => fleet.worker(name).wake(),
            Self::WorkerDrained => {}
            Self::RoadCut | Self::RoadSilent | Self::RoadSlow => fleet.worker(name).road.heal(),
            Self::MailCut | Self::MailSilent | Self::MailSlow => fleet.mail.heal(),
            Self::StoreUnreachable => fleet.store.set_refusing(false),
            Self::StoreStalled => fleet.store.unfreeze().await,
            Self::StoreCompacted | Self::StoreLedByAnother => {}
            Self::MemberKilled => fleet.store.etcd.restart(member_of(name)).await.unwrap(),
            Self::PlaneKilled | Self::PlaneStopped => fleet.start_plane().await,
            Self::PlaneFrozen => fleet.plane().process.signal("CONT"),
        }
    }
}

/// The member that breaks together with nobody of this name.
fn member_of(name: &str) -> usize {
    name.len() % MEMBERS
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_drawn_from_a_seed_lose_and_double_nothing() {
    let seed = number("POSTROOM_FLEET_SEED").unwrap_or(1);
    let steps = number("POSTROOM_FLEET_FAULTS").unwrap_or(4);
    eprintln!("seed {seed}, {steps} times two faults");
    let mut dice = StdRng::seed_from_u64(seed as u64);
    let mut fleet = Fleet::start(Scale::of(20), Terms::Short, MEMBERS, &WORKERS).await;
    for step in 1..=steps {
        let first = *ALL.choose(&mut dice).unwrap();
        let others: Vec<_> = ALL.into_iter().filter(|fault| fault.victim() != first.victim()).collect();
        let second = *others.choose(&mut dice).unwrap();
        let names = [*WORKERS.choose(&mut dice).unwrap(), *WORKERS.choose(&mut dice).unwrap()];
        let (gap, lasting) = (dice.random_range(0..1000), dice.random_range(500..9000));
        eprintln!(
            "seed {seed}, step {step}: {first:?} ({}), {gap} ms later {second:?} ({}), {lasting} ms",
            names[0], names[1]
        );
        // Ordering: what needs the control plane comes before what ends it.
        let mut faults = [(first, names[0]), (second, names[1])];
        faults.sort_by_key(|(fault, _)| fault.victim() == "plane");
        faults[0].0.begin(&mut fleet, faults[0].1).await;
        sleep(Duration::from_millis(gap)).await;
        faults[1].0.begin(&mut fleet, faults[1].1).await;
        sleep(Duration::from_millis(lasting)).await;
        // Ordering: a control plane starts only over a store that answers.
        faults.sort_by_key(|(fault, _)| fault.victim() != "store");
        faults[0].0.end(&mut fleet, faults[0].1).await;
        faults[1].0.end(&mut fleet, faults[1].1).await;
        fleet.undrain(&WORKERS).await;
        fleet.mail_flows().await;
    }
    fleet.finish(&format!("seed {seed}")).await;
}

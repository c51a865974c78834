//! Who there is: two pools, a spare, workers that can carry only so much; and what an operator decides about them.

use postroom_control_plane::lease::decision::{Decision, Freeze};
use postroom_control_plane::lease::plan::Mailbox;
use postroom_control_plane::lease::profile::{Profile, Role};

use crate::world::{MAILBOXES, World, mailbox};

/// What a worker of the other pool can carry: more than its share, less than everything.
const CAPACITY: u32 = 8;

/// How large an installation is. Its workers have numbers: the active ones of the default pool first, then their spare,
/// then those of the other pool.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fleet {
    pub(crate) replicas: usize,
    actives: usize,
    north: usize,
    /// Mailboxes of the default pool; the others are of the other pool.
    default: usize,
}

impl Fleet {
    /// Every fourth installation is small: one control plane, whose store nobody else can open, and so few workers that
    /// the brake never helps.
    pub(crate) fn of(seed: u64) -> Self {
        if seed % 4 == 3 {
            Self { replicas: 1, actives: 2, north: 0, default: MAILBOXES }
        } else {
            Self { replicas: 3, actives: 6, north: 2, default: MAILBOXES - 12 }
        }
    }

    /// No other replica can lead.
    pub(crate) fn alone(self) -> bool {
        self.replicas == 1
    }

    pub(crate) fn workers(self) -> usize {
        self.actives + 1 + self.north
    }

    /// Number of the spare.
    fn spare(self) -> usize {
        self.actives
    }

    /// What a worker says about itself.
    pub(crate) fn profile(self, number: usize) -> Profile {
        let profile = Profile::new(name(number));
        match number {
            _ if number < self.actives => profile,
            _ if number == self.spare() => Profile { role: Role::Spare, ..profile },
            _ => Profile { pool: "north".into(), capacity: CAPACITY, ..profile },
        }
    }

    fn pool(self, number: usize) -> &'static str {
        if number < self.default { "default" } else { "north" }
    }

    /// What should be read.
    pub(crate) fn mailboxes(self) -> Vec<Mailbox> {
        (0..MAILBOXES).map(|i| Mailbox { uid: mailbox(i), weight: 1, pool: self.pool(i).into() }).collect()
    }

    /// What is wrong with who reads what in the end: `reader` has mailbox `number`.
    pub(crate) fn misplaced(self, reader: usize, number: usize) -> Option<String> {
        (self.profile(reader).pool != self.pool(number))
            .then(|| format!("worker {reader} reads mailbox {number} of another pool"))
    }

    /// False when the active workers share evenly, the spare has nothing, and nobody has more than it can carry. `loads`
    /// are by worker.
    pub(crate) fn uneven(self, loads: &[usize]) -> bool {
        let actives = &loads[..self.actives];
        let even = actives.iter().all(|load| load * self.actives * 10 >= self.default * 9);
        let within = loads[self.spare() + 1..].iter().all(|load| *load <= CAPACITY as usize);
        !even || loads[self.spare()] > 0 || !within
    }
}

fn name(number: usize) -> String {
    format!("worker-{number}")
}

/// An operator drains a worker or takes that back, or freezes the fleet for a while.
pub(crate) fn decide(world: &mut World) {
    let kind = world.chance(0.0, 1.0);
    if kind < 0.25 {
        let lasts = world.pick(&[3.0, 15.0, 40.0]);
        world.store.decided.freeze = Some(Freeze::new(0, None, "operator", ""));
        world.counts.decisions += 1;
        world.at(lasts, |world| world.store.decided.freeze = None);
    } else {
        let fleet = world.fleet;
        let number = world.pick(&[0, 1, fleet.actives - 1, fleet.spare(), fleet.workers() - 1]);
        let mut decision = Decision::new(0, "operator");
        decision.drained = true;
        world.store.decided.workers.insert(name(number), decision);
        world.counts.decisions += 1;
        let lasts = world.pick(&[5.0, 30.0, 70.0]);
        world.at(lasts, move |world| drop(world.store.decided.workers.remove(&name(number))));
    }
}

/// Nothing is decided any more.
pub(crate) fn calm(world: &mut World) {
    world.store.decided = Default::default();
}

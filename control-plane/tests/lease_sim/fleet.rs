//! Who there is: two pools, a spare, workers that can carry only so much; and what an operator decides about them.

use postroom_control_plane::lease::decision::{Decision, Freeze};
use postroom_control_plane::lease::plan::Mailbox;
use postroom_control_plane::lease::profile::{Profile, Role};

use crate::world::{MAILBOXES, World, mailbox};

/// Active workers of the default pool, which have the first names.
pub(crate) const ACTIVES: usize = 6;
/// The spare of the default pool, by its name.
const SPARE: usize = ACTIVES;
/// Workers of the other pool.
const NORTH: usize = 2;
pub(crate) const WORKERS: usize = ACTIVES + 1 + NORTH;
/// Mailboxes of the default pool; the others are of the other pool.
const DEFAULT: usize = 48;
/// What a worker of the other pool can carry: more than its share, less than everything.
const CAPACITY: u32 = 8;

fn name(number: usize) -> String {
    format!("worker-{number}")
}

/// What a worker says about itself.
pub(crate) fn profile(number: usize) -> Profile {
    let profile = Profile::new(name(number));
    match number {
        SPARE => Profile { role: Role::Spare, ..profile },
        _ if number < ACTIVES => profile,
        _ => Profile { pool: "north".into(), capacity: CAPACITY, ..profile },
    }
}

fn pool(number: usize) -> &'static str {
    if number < DEFAULT { "default" } else { "north" }
}

/// What should be read.
pub(crate) fn mailboxes() -> Vec<Mailbox> {
    (0..MAILBOXES).map(|i| Mailbox { uid: mailbox(i), weight: 1, pool: pool(i).into() }).collect()
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
        let number = world.pick(&[0, 1, 2, SPARE, SPARE + 1]);
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

/// What is wrong with who reads what in the end: `loads` are by worker, `reader` has the mailbox.
pub(crate) fn misplaced(reader: usize, number: usize) -> Option<String> {
    (profile(reader).pool != pool(number)).then(|| format!("worker {reader} reads mailbox {number} of another pool"))
}

/// The active workers share evenly, the spare has nothing, and nobody has more than it can carry.
pub(crate) fn uneven(loads: &[usize]) -> bool {
    let actives = &loads[..ACTIVES];
    let even = actives.iter().all(|load| load * ACTIVES * 10 >= DEFAULT * 9);
    let within = loads[SPARE + 1..].iter().all(|load| *load <= CAPACITY as usize);
    !even || loads[SPARE] > 0 || !within
}

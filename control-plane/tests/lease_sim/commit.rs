//! How a leader writes: the commit may reach the store long after it was sent, and its answer never.

use std::cell::Cell;
use std::rc::Rc;

use postroom_control_plane::lease::desk::{Session, Settled};
use postroom_control_plane::store::Revision;

use crate::mutation::Mutation;
use crate::replica::office;
use crate::store::Op;
use crate::world::{Actor, World};

/// A write that was not answered for this long is looked up.
const WRITE_TIMEOUT: f64 = 2.0;

/// Carries out a commit as a leader would, and tells its desk.
pub(crate) fn commit(
    world: &mut World,
    replica: usize,
    term: u64,
    ops: Vec<Op>,
    then: impl FnOnce(&mut World, bool) + 'static,
) {
    if let Some(office) = office(world, replica, term) {
        let moves = ops.iter().filter_map(|op| if let Op::Assign(assign) = op { Some(assign.clone()) } else { None });
        office.in_flight.extend(moves);
    }
    let delay = if world.likely(0.9) { world.chance(0.0, 0.02) } else { world.chance(0.0, 5.0) };
    let lost = world.chaotic() && world.likely(0.03);
    let open = Rc::new(Cell::new(true));
    let then = Rc::new(Cell::new(Some(then)));
    let guard = (!world.is(Mutation::NoLeaderCompare)).then_some(term);
    let life = world.replicas[replica].life;
    let (late_ops, late_open, late_then) = (ops.clone(), open.clone(), then.clone());
    let same_life = move |world: &World| world.replicas[replica].life == life;
    world.at(delay, move |world| {
        world.at_store(move |world| {
            let outcome = world.store.commit(world.now, guard, &ops);
            if lost || !same_life(world) {
                return;
            }
            world.at(0.01, move |world| {
                let answer = move |world: &mut World| {
                    if same_life(world) && open.replace(false) {
                        settle(world, replica, term, &ops, Some(outcome));
                        if let Some(then) = then.take() {
                            then(world, outcome.is_some());
                        }
                    }
                };
                world.when(Actor::Replica(replica), answer);
            });
        });
    });
    world.at(WRITE_TIMEOUT, move |world| {
        let look_up = move |world: &mut World| {
            if same_life(world) && late_open.replace(false) {
                world.counts.unknown += 1;
                settle(world, replica, term, &late_ops, None);
                if let Some(then) = late_then.take() {
                    then(world, false);
                }
            }
        };
        world.at_store(move |world| world.when(Actor::Replica(replica), look_up));
    });
}

/// `None`: the outcome is unknown.
fn settle(world: &mut World, replica: usize, term: u64, ops: &[Op], outcome: Option<Option<Revision>>) {
    fn settled<T>(outcome: Option<Option<Revision>>, found: Option<T>) -> Settled<T> {
        match outcome {
            Some(Some(revision)) => Settled::Committed(revision),
            Some(None) => Settled::Conflict(found),
            None => Settled::Unknown(found),
        }
    }
    let now = world.now;
    for op in ops {
        match op {
            Op::Register { session, .. } => {
                let found = world.store.sessions.get(session).cloned();
                if let (Some(office), Some(found)) = (office(world, replica, term), found) {
                    office.meets(now, found);
                }
            }
            Op::End(end) => {
                let found = world.store.sessions.get(&end.session).cloned();
                if let Some(office) = office(world, replica, term) {
                    office.desk.session_settled(now, end, settled::<Session>(outcome, found));
                }
            }
            Op::Assign(assign) => {
                world.counts.moves += u64::from(outcome.flatten().is_some());
                let found = world.store.assignments.get(&assign.mailbox).cloned();
                if let Some(office) = office(world, replica, term) {
                    office.in_flight.retain(|other| other != assign);
                    office.desk.mailbox_settled(now, assign, settled(outcome, found));
                }
            }
            Op::Unassign(unassign) => {
                let found = world.store.assignments.get(&unassign.mailbox).cloned();
                if let Some(office) = office(world, replica, term) {
                    office.desk.mailbox_retired(unassign, settled(outcome, found));
                }
            }
            Op::Forget(forget) => {
                if let Some(office) = office(world, replica, term) {
                    office.desk.session_forgotten(now, forget, outcome.flatten().is_some());
                }
            }
        }
    }
}

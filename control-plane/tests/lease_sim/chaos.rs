//! What goes wrong.

use crate::world::{Actor, MAILBOXES, World};
use crate::{fleet, process, replica};

pub(crate) fn strike(world: &mut World) {
    if !world.chaotic() {
        return;
    }
    let running: Vec<usize> = (0..world.processes.len()).filter(|&i| world.processes[i].up).collect();
    let replica = world.any_replica();
    let kind = world.chance(0.0, 1.0);
    if let (true, false) = (kind < 0.45, running.is_empty()) {
        let victim = world.pick(&running);
        strike_process(world, victim, kind);
    } else if kind < 0.68 {
        let time = world.pick(&[1.0, 3.0, 4.5, 7.0, 18.0]);
        world.freeze(Actor::Replica(replica), time);
    } else if kind < 0.76 {
        // etcd takes the leader's key away early.
        world.store.depose();
    } else if kind < 0.82 {
        // A rolling deploy.
        for i in 0..world.replicas.len() {
            replica::resign(world, i);
        }
    } else if kind < 0.86 {
        let back_in = world.pick(&[1.0, 10.0]);
        replica::crash(world, replica, back_in);
    } else if kind < 0.92 {
        let changed = world.pick(&[0, 7, MAILBOXES - 1]);
        world.definitions[changed] += 1;
    }
    if world.likely(0.06) {
        fleet::decide(world);
    }
    if world.likely(0.03) {
        replica::intrude(world, replica);
    }
    let pause = -world.chance(0.001, 1.0).ln() * 3.6;
    world.at(pause, strike);
}

fn strike_process(world: &mut World, victim: usize, kind: f64) {
    if kind < 0.26 {
        let time = world.pick(&[2.0, 9.0, 11.0, 15.0, 25.0, 40.0]);
        world.freeze(Actor::Process(victim), time);
    } else if kind < 0.36 {
        process::crash(world, victim);
    } else if kind < 0.42 {
        // A second process under the same name, while the old one lives on.
        let name = world.processes[victim].name;
        if world.likely(0.5) {
            let time = world.pick(&[2.0, 6.0, 10.0, 18.0]);
            world.freeze(Actor::Process(victim), time);
        }
        process::start(world, name);
    } else {
        process::redeploy(world, victim);
    }
}

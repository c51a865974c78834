//! What goes wrong.

use crate::world::{Actor, MAILBOXES, World};
use crate::{fleet, process, replica, serving};

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
        if !world.fleet.alone() {
            world.store.depose();
        }
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
        serving::intrude(world, replica);
    }
    if world.likely(0.02) {
        cut_off(world, running);
    }
    if world.likely(0.03) {
        sleep(world);
    }
    if world.likely(0.02) {
        stall(world);
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

/// The network between more than half of the processes and the control plane fails: mass silence.
fn cut_off(world: &mut World, mut running: Vec<usize>) {
    let spared = world.pick(&[0.0, 0.2, 0.45]);
    let time = world.pick(&[8.0, 14.0, 20.0, 40.0]);
    for _ in 0..(running.len() as f64 * spared) as usize {
        let spared = world.pick(&running);
        running.retain(|&i| i != spared);
    }
    for i in running {
        world.cut_off(i, time);
    }
}

/// Whoever leads is stopped (SIGSTOP) and goes on later. What it was sent meanwhile it finds then, or its caller has
/// given up.
fn sleep(world: &mut World) {
    let now = world.now;
    if let Some(leader) = world.store.leader(now) {
        let time = world.pick(&[2.5, 4.2, 10.0, 18.0, 30.0]);
        world.freeze(Actor::Replica(leader.replica), time);
        world.counts.slept += 1;
    }
}

/// The store answers nobody for a while. Often nothing runs out meanwhile: etcd gives leases their full time again when
/// it has elected a leader of its own.
fn stall(world: &mut World) {
    let (time, kept) = (world.pick(&[2.0, 6.0, 18.0]), world.likely(0.7));
    let (now, terms) = (world.now, world.terms);
    world.store.stall(now, now + crate::world::seconds(time), kept.then_some(terms.leader_ttl));
    world.counts.stalled += 1;
}

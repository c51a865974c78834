//! How far the newest revision of the model has come: who reads what, and by which definition. Pure.

use std::collections::HashSet;

use postroom_proto::v1;

use super::model::Model;
use crate::lease::desk::Running;

/// Most lagging mailboxes of a worker that are named.
const NAMED: usize = 20;

/// Compares what the workers say they run with the model that the replica follows.
pub fn rollout(model: &Model, replica: &str, running: &[Running]) -> v1::Rollout {
    let read: HashSet<_> = running.iter().flat_map(|it| it.held.keys()).collect();
    let unread = model.mailboxes().filter(|(uid, _)| !read.contains(uid)).count();
    let workers: Vec<v1::WorkerRollout> = running.iter().map(|it| worker(model, it)).collect();
    v1::Rollout {
        revision: model.revision(),
        done: unread == 0 && workers.iter().all(|worker| worker.lagging_count == 0),
        replicas: vec![v1::ReplicaRollout { name: replica.into(), revision: model.revision() }],
        workers,
        unread_count: count(unread),
    }
}

fn worker(model: &Model, running: &Running) -> v1::WorkerRollout {
    // A mailbox that the model has no more is still read by some definition before this one.
    let wanted = |uid| model.mailbox(uid).map_or(model.revision(), |found| found.revision);
    let gone = |uid| model.mailbox(uid).is_none();
    let lagging: Vec<_> = running.held.iter().filter(|(uid, runs)| gone(uid) || **runs < wanted(uid)).collect();
    // It runs every revision before the first one that it lacks.
    let lacks = lagging.iter().map(|(uid, _)| wanted(uid)).min();
    v1::WorkerRollout {
        worker: running.worker.clone(),
        session: running.session.to_string(),
        revision: lacks.map_or(model.revision(), |lacks| lacks.saturating_sub(1)),
        mailbox_count: count(running.held.len()),
        lagging: lagging.iter().take(NAMED).map(|(uid, _)| uid.to_string()).collect(),
        lagging_count: count(lagging.len()),
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

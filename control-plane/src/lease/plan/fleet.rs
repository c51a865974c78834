//! The workers of a plan, found by session, by name and by pool.

use std::collections::HashMap;

use postroom_proto::id::SessionId;

use super::{State, Worker};
use crate::lease::profile::Role;
use crate::store::Revision;

/// A worker's place in the list that the plan was given.
pub(super) type Index = u32;

/// The workers of a plan.
pub(super) struct Fleet<'a> {
    pub(super) workers: &'a [Worker],
    by_session: HashMap<&'a SessionId, Index>,
    /// Of each name the newest session that may be given mailboxes.
    newest: HashMap<&'a str, Index>,
    pools: HashMap<&'a str, Pool>,
    nobody: Pool,
}

/// Those of a pool that may be given mailboxes and are not drained, by name.
#[derive(Debug, Default)]
pub(super) struct Pool {
    pub(super) actives: Vec<Index>,
    pub(super) spares: Vec<Index>,
    /// An active one has lived for long enough.
    pub(super) settled: bool,
}

impl<'a> Fleet<'a> {
    pub(super) fn new(workers: &'a [Worker]) -> Self {
        let mut fleet = Self {
            workers,
            by_session: HashMap::with_capacity(workers.len()),
            newest: HashMap::new(),
            pools: HashMap::new(),
            nobody: Pool::default(),
        };
        for (i, worker) in (0..).zip(workers) {
            fleet.by_session.insert(&worker.session, i);
            if worker.state == State::Taking {
                let known = fleet.newest.entry(&worker.name).or_insert(i);
                if age(worker) > age(&workers[*known as usize]) {
                    *known = i;
                }
            }
        }
        let mut targets: Vec<Index> = fleet.newest.values().copied().collect();
        targets.sort_unstable_by_key(|&i| &workers[i as usize].name);
        for i in targets {
            let worker = &workers[i as usize];
            if worker.drained {
                continue;
            }
            let pool = fleet.pools.entry(&worker.pool).or_default();
            match worker.role {
                Role::Active => {
                    pool.actives.push(i);
                    pool.settled |= worker.settled;
                }
                Role::Spare => pool.spares.push(i),
            }
        }
        fleet
    }

    pub(super) fn worker(&self, i: Index) -> &'a Worker {
        &self.workers[i as usize]
    }

    pub(super) fn by_session(&self, session: &SessionId) -> Option<Index> {
        self.by_session.get(session).copied()
    }

    pub(super) fn pool(&self, name: &str) -> &Pool {
        self.pools.get(name).unwrap_or(&self.nobody)
    }

    pub(super) fn pools(&self) -> impl Iterator<Item = &Pool> {
        self.pools.values()
    }

    /// The newest session of a name that may be given mailboxes.
    pub(super) fn newest(&self, name: &str) -> Option<Index> {
        self.newest.get(name).copied()
    }

    /// True when somebody of this name may be given mailboxes. If it is no active worker of the pool, its name has become
    /// something else, for which nobody stands in.
    pub(super) fn is_there(&self, name: &str) -> bool {
        self.newest(name).is_some_and(|found| !self.worker(found).drained)
    }

    /// The session of a name that lives and is a newer one than `worker`.
    pub(super) fn successor(&self, worker: &Worker) -> Option<Index> {
        self.newest(&worker.name).filter(|&other| age(self.worker(other)) > age(worker))
    }

    /// The active worker of a pool that has this name and may be given mailboxes.
    pub(super) fn active(&self, pool: &str, name: &str) -> Option<Index> {
        let found = self.newest(name)?;
        let worker = self.worker(found);
        (worker.role == Role::Active && !worker.drained && worker.pool == pool).then_some(found)
    }
}

pub(super) fn age(worker: &Worker) -> (Revision, &SessionId) {
    (worker.born, &worker.session)
}

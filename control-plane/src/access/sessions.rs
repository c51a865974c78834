//! Whose a session is: a worker that is bound to its name acts for sessions of that name alone.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use postroom_proto::id::SessionId;
use postroom_proto::reason::{Failure, Reason};

use super::caller::Caller;
use crate::lease::record::SessionRecord;
use crate::store::{SharedStore, key};

/// Most sessions that are remembered; then all are forgotten, and looked up again.
const MOST: usize = 20_000;

/// Knows the worker of a session. Cheap to share.
#[derive(Clone)]
pub struct Sessions {
    store: SharedStore,
    /// The worker of a session never changes.
    known: Arc<Mutex<HashMap<SessionId, String>>>,
}

impl Sessions {
    /// Looks sessions up in `store`.
    pub fn new(store: SharedStore) -> Self {
        Self { store, known: Arc::default() }
    }

    /// Refuses a caller who is bound to another worker than the session's.
    pub async fn require(&self, caller: &Caller, session: &SessionId) -> Result<(), Failure> {
        let Some(own) = caller.role.worker() else { return Ok(()) };
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(session).cloned();
        let worker = match known {
            Some(worker) => worker,
            None => self.look_up(session).await?,
        };
        same(own, &worker)
    }

    async fn look_up(&self, session: &SessionId) -> Result<String, Failure> {
        let entry = self.store.get(&key::session(session)).await?;
        let record = entry.and_then(|entry| SessionRecord::decode(&entry.value));
        let ended = || Failure::new(Reason::SessionEnded, format!("there is no session {session}; register again"));
        let worker = record.ok_or_else(ended)?.profile.worker;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST {
            known.clear();
        }
        known.insert(session.clone(), worker.clone());
        Ok(worker)
    }
}

/// Refuses a caller who is bound to another worker than this one.
pub fn require_name(caller: &Caller, worker: &str) -> Result<(), Failure> {
    caller.role.worker().map_or(Ok(()), |own| same(own, worker))
}

fn same(own: &str, worker: &str) -> Result<(), Failure> {
    if own == worker {
        return Ok(());
    }
    let text = format!("the credential of worker {own} may not act for worker {worker}; give each worker its own");
    Err(Failure::new(Reason::PermissionDenied, text))
}

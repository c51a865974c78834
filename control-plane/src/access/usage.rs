//! When credentials were used: recorded to the hour, so that however much is called, little is written. And what has long
//! expired is taken off the list.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use super::credential::LISTED;
use super::directory::Directory;
use crate::clock;
use crate::failure::chain;
use crate::ledger::{Micros, micros};
use crate::store::{self, Error, MAX_WRITES, Outcome, SharedStore, Write, key};

/// A use is recorded again after this time, in microseconds.
const COARSE: Micros = 3600 * 1_000_000;

/// Longest time that one round takes; what it did not come to is done in the next.
const LONGEST: Duration = Duration::from_secs(3);

/// When each credential was last used, by id, as far as it is recorded.
pub async fn recorded(store: &SharedStore) -> Result<HashMap<String, Micros>, Error> {
    let entries = store::list_all(store, key::USES).await?;
    let uses = entries.iter().filter_map(|entry| {
        let used = std::str::from_utf8(&entry.value).ok()?.parse().ok()?;
        Some((key::parse_usage(&entry.key)?.to_owned(), used))
    });
    Ok(uses.collect())
}

/// Records uses `every` so often, and at the end.
pub async fn keep(directory: Directory, store: SharedStore, every: Duration, told: CancellationToken) {
    let mut begun = false;
    loop {
        let ending = tokio::select! {
            () = told.cancelled() => true,
            () = tokio::time::sleep(every) => false,
        };
        let written = async {
            if !begun {
                begin(&directory, &store).await?;
                begun = true;
            }
            record(&directory, &store).await?;
            sweep(&directory, &store).await
        };
        // A store that is away must not hold up the end.
        if let Ok(Err(error)) = tokio::time::timeout(LONGEST, written).await {
            // It is tried again, and nobody waits for it.
            tracing::debug!(error = chain(&error), "uses of credentials cannot be recorded");
        }
        if ending {
            return;
        }
    }
}

/// Takes note of what is recorded, and removes what is of credentials that are gone.
async fn begin(directory: &Directory, store: &SharedStore) -> Result<(), Error> {
    let standings = directory.standings();
    let standings: HashMap<_, _> = standings.iter().filter_map(|it| Some((it.id.as_deref()?, it))).collect();
    let mut orphans = Vec::new();
    for (id, used) in recorded(store).await? {
        match standings.get(id.as_str()) {
            Some(standing) => standing.recorded(used),
            None => orphans.push(Write::Delete(key::usage(&id))),
        }
    }
    commit(store, orphans).await
}

async fn record(directory: &Directory, store: &SharedStore) -> Result<(), Error> {
    let due: Vec<_> = directory.standings().into_iter().filter_map(|it| Some((it.unrecorded(COARSE)?, it))).collect();
    for due in due.chunks(MAX_WRITES) {
        let writes = due.iter().filter_map(|(used, standing)| {
            Some(Write::Put(key::usage(standing.id.as_ref()?), Bytes::from(used.to_string())))
        });
        if let Outcome::Committed(_) = store.commit(Vec::new(), writes.collect()).await? {
            due.iter().for_each(|(used, standing)| standing.recorded(*used));
        }
    }
    Ok(())
}

/// An id is never given again, so nobody can be deleted who was not meant.
async fn sweep(directory: &Directory, store: &SharedStore) -> Result<(), Error> {
    let listed = micros(LISTED);
    let now = clock::now();
    let known = directory.known();
    let gone: HashSet<&String> =
        known.credentials.iter().filter(|(_, it)| it.is_over(now - listed)).map(|(id, _)| id).collect();
    let writes = gone.into_iter().flat_map(|id| [Write::Delete(key::credential(id)), Write::Delete(key::usage(id))]);
    commit(store, writes.collect()).await
}

async fn commit(store: &SharedStore, writes: Vec<Write>) -> Result<(), Error> {
    for writes in writes.chunks(MAX_WRITES) {
        store.commit(Vec::new(), writes.to_vec()).await?;
    }
    Ok(())
}

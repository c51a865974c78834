//! Who is known here: the tokens that came by file, and the credentials of the store as they stand.
//!
//! The store is followed by watch, whichever replica changed it. While it cannot be reached, what was known last holds on.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::authority;
use super::credential::{Credential, Fingerprint, Kind};
use super::standing::Standing;
use super::token::Tokens;
use crate::failure::chain;
use crate::store::{self, Entry, Error, Revision, SharedStore, key};

/// Pause before a store that failed is asked again.
const AGAIN: Duration = Duration::from_secs(1);

/// Knows credentials. Cheap to share.
#[derive(Debug, Clone)]
pub struct Directory(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    given: HashMap<Fingerprint, Arc<Standing>>,
    known: RwLock<Arc<Known>>,
    told: watch::Sender<Revision>,
}

/// What stands in the store.
#[derive(Debug, Default)]
pub struct Known {
    standings: HashMap<Fingerprint, Arc<Standing>>,
    /// By id.
    pub credentials: BTreeMap<String, Credential>,
    /// The installation's own CA, once there is one.
    pub authority: Option<authority::Record>,
}

impl Directory {
    /// Knows the tokens that came by file, and nothing of the store yet.
    pub fn new(given: Tokens) -> Self {
        let given = given.into_iter().map(|(fingerprint, caller)| {
            (fingerprint, Arc::new(Standing::new(Kind::Token, &caller.name, caller.role, None)))
        });
        let (told, _) = watch::channel(Revision::default());
        Self(Arc::new(Inner { given: given.collect(), known: RwLock::default(), told }))
    }

    /// The same, with what stands in the store.
    pub async fn load(given: Tokens, store: &SharedStore) -> Result<Self, Error> {
        let directory = Self::new(given);
        directory.read(store).await?;
        Ok(directory)
    }

    /// Whoever is known by this fingerprint, also when it has expired.
    pub fn find(&self, fingerprint: &Fingerprint) -> Option<Arc<Standing>> {
        // Invariant: fingerprints are SHA-256 of what has 256 random bits, or of a certificate; looking one up by hash
        // tells nobody anything about it by the time that it takes.
        self.0.given.get(fingerprint).cloned().or_else(|| self.known().standings.get(fingerprint).cloned())
    }

    /// What stands in the store, as it was heard last.
    pub fn known(&self) -> Arc<Known> {
        self.0.known.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Tells of every change.
    pub fn subscribe(&self) -> watch::Receiver<Revision> {
        self.0.told.subscribe()
    }

    /// Waits until a commit is known here, but not longer than `patience`. False: it is not.
    #[must_use]
    pub async fn reached(&self, revision: Revision, patience: Duration) -> bool {
        let mut told = self.subscribe();
        let reached = tokio::time::timeout(patience, told.wait_for(|reached| *reached >= revision)).await;
        matches!(reached, Ok(Ok(_)))
    }

    /// Waits until none of these credentials is known here any more, but not longer than `patience`. False: one still is.
    #[must_use]
    pub async fn forgotten(&self, ids: &[&str], patience: Duration) -> bool {
        let mut told = self.subscribe();
        let forgotten = told.wait_for(|_| {
            let known = self.known();
            ids.iter().all(|id| !known.credentials.contains_key(*id))
        });
        matches!(tokio::time::timeout(patience, forgotten).await, Ok(Ok(_)))
    }

    /// Names of the tokens that came by file.
    pub(super) fn given(&self) -> impl Iterator<Item = &str> {
        self.0.given.values().map(|standing| standing.name.as_str())
    }

    /// All that is in force by the store.
    pub(super) fn standings(&self) -> Vec<Arc<Standing>> {
        self.known().standings.values().cloned().collect()
    }

    /// Follows the store until it is told to stop.
    pub async fn follow(self, store: SharedStore, told: CancellationToken) {
        let following = async {
            loop {
                let Err(error) = self.follow_once(&store).await;
                if !matches!(error, Error::Compacted { .. }) {
                    tracing::warn!(
                        error = chain(&error),
                        "credentials cannot be followed; what was known last holds until the store answers"
                    );
                    tokio::time::sleep(AGAIN).await;
                }
            }
        };
        tokio::select! {
            () = told.cancelled() => {}
            () = following => {}
        }
    }

    async fn follow_once(&self, store: &SharedStore) -> Result<Infallible, Error> {
        // Ordering: first where history stands, then what there is, so that no change falls between.
        let from = Revision(store.revision().await?.0 + 1);
        let mut watch = store.watch(key::ACCESS, from).await?;
        loop {
            self.read(store).await?;
            watch.next().await?;
        }
    }

    /// Reads all of it: credentials are few, and a rule about what a change means could be wrong.
    async fn read(&self, store: &SharedStore) -> Result<(), Error> {
        let revision = store.revision().await?;
        let entries = store::list_all(store, key::ACCESS).await?;
        self.replace(&entries);
        self.0.told.send_replace(revision);
        Ok(())
    }

    fn replace(&self, entries: &[Entry]) {
        let former = self.known();
        let mut known = Known::default();
        for entry in entries {
            if entry.key == key::AUTHORITY {
                known.authority = authority::Record::decode(&entry.value);
            }
            let Some(id) = key::parse_credential(&entry.key) else { continue };
            let Some(credential) = Credential::decode(&entry.value) else {
                tracing::warn!(credential = id, "a credential is not understood by this version and lets nobody in");
                continue;
            };
            let standing = former.standings.get(&credential.fingerprint).filter(|it| it.is_of(id, &credential));
            let standing = standing.cloned().unwrap_or_else(|| Arc::new(Standing::of(id, &credential)));
            known.standings.insert(credential.fingerprint, standing);
            known.credentials.insert(id.to_owned(), credential);
        }
        let known = Arc::new(known);
        *self.0.known.write().unwrap_or_else(PoisonError::into_inner) = known.clone();
        // Ordering: after the exchange, so that whoever is told that it ended does not find it again.
        for (fingerprint, standing) in &former.standings {
            if !known.standings.get(fingerprint).is_some_and(|kept| Arc::ptr_eq(kept, standing)) {
                standing.revoke();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::role::Role;

    fn entry(id: &str, fingerprint: u8, expires: i64) -> Entry {
        let role = Role::Operator;
        let credential = Credential::new(Kind::Token, id, role, [fingerprint; 32], (1, "ada", expires));
        Entry { key: key::credential(id), value: credential.encode(), mod_revision: Revision(1) }
    }

    #[test]
    fn what_is_taken_out_of_the_store_ends_and_what_stays_goes_on() {
        let directory = Directory::new(Tokens::default());
        directory.replace(&[entry("aaaaaaaaaaaa", 1, i64::MAX), entry("bbbbbbbbbbbb", 2, i64::MAX)]);
        let (first, second) = (directory.find(&[1; 32]).unwrap(), directory.find(&[2; 32]).unwrap());
        directory.replace(&[entry("bbbbbbbbbbbb", 2, i64::MAX)]);
        assert!(first.check(1).is_err() && second.check(1).is_ok());
        assert!(directory.find(&[1; 32]).is_none());
        assert!(Arc::ptr_eq(&directory.find(&[2; 32]).unwrap(), &second), "its pace and its streams go on");
        // The same token with another end is another credential to whoever holds it.
        directory.replace(&[entry("bbbbbbbbbbbb", 2, 7)]);
        assert!(second.check(1).is_err() && directory.find(&[2; 32]).unwrap().check(1).is_ok());
    }
}

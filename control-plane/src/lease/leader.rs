//! Leadership: one key in the store, whose revision guards every write that the leader makes.
//!
//! On SQLite the data folder is locked by its process, so whoever can open the store may lead at once; the key still
//! tells two processes apart that got hold of one file in spite of the lock.

use std::time::Duration;

use bytes::Bytes;
use postroom_proto::lease::{LeaseTerms, Moment};

use crate::store::{Error, Guard, Outcome, Revision, Store, Write, key};

/// A term of office.
#[derive(Debug, Clone)]
pub struct Office {
    term: Revision,
    trusted_until: Moment,
    terms: LeaseTerms,
}

impl Office {
    /// Tries to become the leader. `None`: somebody else was quicker; try again.
    ///
    /// `sent` is the moment before the call, on the caller's clock.
    pub async fn win(store: &dyn Store, replica: &str, terms: LeaseTerms, sent: Moment) -> Result<Option<Self>, Error> {
        let guard = match store.get(key::LEADER).await? {
            Some(former) => Guard::Unchanged(key::LEADER.into(), former.mod_revision),
            None => Guard::Absent(key::LEADER.into()),
        };
        let write = Write::Put(key::LEADER.into(), Bytes::copy_from_slice(replica.as_bytes()));
        match store.commit(vec![guard], vec![write]).await? {
            Outcome::Committed(term) => Ok(Some(Self { term, trusted_until: sent + terms.leader_trust(), terms })),
            // Unknown: if it did happen, the next attempt finds our own key and replaces it.
            Outcome::Conflict | Outcome::Unknown => Ok(None),
        }
    }

    /// Names this term of office; a later one is higher.
    pub fn term(&self) -> Revision {
        self.term
    }

    /// What every write of this leader must be guarded by.
    pub fn guard(&self) -> Guard {
        Guard::Unchanged(key::LEADER.into(), self.term)
    }

    /// True while no other replica can lead.
    pub fn is_trusted(&self, now: Moment) -> bool {
        now < self.trusted_until
    }

    /// How often the office is to be confirmed.
    pub fn confirm_every(&self) -> Duration {
        self.terms.leader_ttl / 3
    }

    /// Confirms the office. False: it is lost for good.
    ///
    /// Ordering: `sent` is the moment before the call, so that a slow answer never lengthens the trust.
    pub async fn confirm(&mut self, store: &dyn Store, sent: Moment) -> Result<bool, Error> {
        let ours = store.get(key::LEADER).await?.is_some_and(|entry| entry.mod_revision == self.term);
        if ours {
            self.trusted_until = self.trusted_until.max(sent + self.terms.leader_trust());
        }
        Ok(ours)
    }
}

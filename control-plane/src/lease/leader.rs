//! Leadership: one key in the store, whose revision guards every write that the leader makes.
//!
//! The key stands as long as the leader renews it ([`crate::store::Tenure`]). The leader trusts itself for less than
//! that, counted from before it asked: when the answers stop coming it stops first.

use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use postroom_proto::lease::{LeaseTerms, Moment};

use crate::store::{Error, Guard, Revision, Store, Tenure, key};

/// A term of office, held by whoever renews it.
pub struct Office {
    /// Absent while it is being renewed.
    tenure: Option<Box<dyn Tenure>>,
    term: Revision,
    trusted_until: Moment,
    terms: LeaseTerms,
}

impl std::fmt::Debug for Office {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Office").field("term", &self.term()).finish_non_exhaustive()
    }
}

/// What became of confirming an office.
pub struct Confirmed {
    tenure: Box<dyn Tenure>,
    sent: Moment,
    outcome: Result<bool, Error>,
}

/// What every write of this leader must be guarded by.
pub fn guard(term: Revision) -> Guard {
    Guard::Unchanged(key::LEADER.into(), term)
}

impl Office {
    /// Tries to become the leader. `None`: somebody else leads; try again. `alone`: no other process can lead, so a key
    /// that stands is that of a dead one.
    ///
    /// `sent` is the moment before the call, on the caller's clock.
    pub async fn win(
        store: &dyn Store,
        replica: &str,
        terms: LeaseTerms,
        alone: bool,
        sent: Moment,
    ) -> Result<Option<Self>, Error> {
        let value = Bytes::copy_from_slice(replica.as_bytes());
        let tenure = store.tenure(key::LEADER, value, terms.leader_ttl, alone).await?;
        let trusted_until = sent + terms.leader_trust();
        Ok(tenure.map(|tenure| Self { term: tenure.revision(), tenure: Some(tenure), trusted_until, terms }))
    }

    /// Names this term of office; a later one is higher.
    pub fn term(&self) -> Revision {
        self.term
    }

    /// What every write of this leader must be guarded by.
    pub fn guard(&self) -> Guard {
        guard(self.term())
    }

    /// True while no other replica can lead.
    pub fn is_trusted(&self, now: Moment) -> bool {
        now < self.trusted_until
    }

    /// When other replicas can lead, unless the office is confirmed before.
    pub fn trusted_until(&self) -> Moment {
        self.trusted_until
    }

    /// How often the office is to be confirmed.
    pub fn confirm_every(&self) -> Duration {
        self.terms.leader_ttl / 3
    }

    /// Confirms the office, beside everything else that a leader does: a store that is slow must not keep a worker
    /// waiting. To be handed to [`Office::confirmed`]. `None`: one is under way.
    ///
    /// Ordering: `sent` is the moment before the call, so that a slow answer never lengthens the trust.
    pub fn confirm(&mut self, sent: Moment) -> Option<BoxFuture<'static, Confirmed>> {
        let mut tenure = self.tenure.take()?;
        Some(Box::pin(async move {
            let outcome = tenure.renew().await;
            Confirmed { tenure, sent, outcome }
        }))
    }

    /// Takes in what became of confirming. False: the office is lost for good.
    pub fn confirmed(&mut self, confirmed: Confirmed) -> Result<bool, Error> {
        let Confirmed { tenure, sent, outcome } = confirmed;
        self.tenure = Some(tenure);
        let ours = outcome?;
        if ours {
            self.trusted_until = self.trusted_until.max(sent + self.terms.leader_trust());
        }
        Ok(ours)
    }

    /// Gives the office up, so that another replica need not wait.
    pub async fn resign(self) {
        if let Some(tenure) = self.tenure {
            tenure.resign().await;
        }
    }
}

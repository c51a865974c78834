//! When each mailbox was last seen to be read, as its reader tells. In memory: readers tell it again.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use postroom_proto::convert::{from_duration, from_timestamp};
use postroom_proto::id::MailboxUid;
use postroom_proto::v1;

use crate::definition::model::Model;
use crate::ledger::Micros;

/// What is known of the reading of one mailbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Life {
    /// When it was last looked through to its end, or messages of it were committed.
    pub proof: Option<Micros>,
    /// When the oldest message was received that its reader saw and has not yet handed over.
    pub unfetched: Option<Micros>,
    /// How long the newest message of the last report took.
    pub lag: Option<Duration>,
    /// Since when it is waited for a proof.
    waited: Option<Micros>,
}

impl Life {
    /// The last proof of life; of a mailbox that gave none, since when it is waited for one.
    pub fn proof_or_wait(&self) -> Option<Micros> {
        self.proof.or(self.waited)
    }
}

/// What is known.
///
/// Bound: no more entries than the model has mailboxes. [`Lives::note`] takes in nobody else, and forgets those that
/// have left the model as soon as there are too many; [`Lives::keep`], which runs only where metrics are served, does so
/// at each look.
#[derive(Debug, Default)]
pub struct Lives {
    // Held only to look up or change, never across an await.
    known: Mutex<HashMap<MailboxUid, Life>>,
}

impl Lives {
    /// Takes in what readers tell; of two the one with the younger proof holds, since a former reader may speak late.
    /// None is younger than `now`: a clock that runs ahead must not make later readers unheard.
    pub fn note(&self, lives: &[v1::MailboxLife], model: &Model, now: Micros) {
        let mut known = self.lock();
        for told in lives {
            let Ok(uid) = MailboxUid::parse(&told.mailbox) else { continue };
            if model.mailbox(&uid).is_none() {
                continue;
            }
            let life = known.entry(uid).or_default();
            let proof = told.proof_time.as_ref().map(|time| from_timestamp(time).min(now));
            if proof < life.proof {
                continue;
            }
            life.proof = proof;
            life.unfetched = told.unfetched_time.as_ref().map(from_timestamp);
            life.lag = told.delivery_lag.as_ref().and_then(from_duration);
        }
        // A walk only after the model has lost mailboxes.
        if known.len() > model.mailboxes().len() {
            known.retain(|uid, _| model.mailbox(uid).is_some());
        }
    }

    /// Of one mailbox.
    pub fn of(&self, mailbox: &MailboxUid) -> Life {
        self.lock().get(mailbox).copied().unwrap_or_default()
    }

    /// Begins to wait for those of the model that gave no proof yet, and forgets the others.
    pub fn keep(&self, model: &Model, now: Micros) {
        let mut known = self.lock();
        known.retain(|uid, _| model.mailbox(uid).is_some());
        for (uid, _) in model.mailboxes() {
            known.entry(uid.clone()).or_default().waited.get_or_insert(now);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<MailboxUid, Life>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use postroom_proto::convert::to_timestamp;

    use super::*;
    use crate::definition::model::Parts;
    use crate::definition::sample::{address, incoming, instance, queue};

    /// A model with these mailboxes.
    fn model(emails: &[&str]) -> Model {
        let addresses = emails.iter().map(|email| address(email)).collect();
        let (instances, queues) = (vec![Arc::new(instance("core1"))], vec![Arc::new(queue("q", "core1", addresses))]);
        Model::new(1, Parts { instances, servers: vec![Arc::new(incoming())], queues, ..Parts::default() })
    }

    fn uids(model: &Model) -> Vec<MailboxUid> {
        model.mailboxes().map(|(uid, _)| uid.clone()).collect()
    }

    fn seen(uids: &[MailboxUid], at: Micros) -> Vec<v1::MailboxLife> {
        let life = |uid: &MailboxUid| v1::MailboxLife {
            mailbox: uid.to_string(),
            proof_time: Some(to_timestamp(at)),
            ..Default::default()
        };
        uids.iter().map(life).collect()
    }

    #[test]
    fn it_holds_no_more_mailboxes_than_the_model_though_nobody_looks() {
        let (former, next) = (model(&["a@x.example", "b@x.example"]), model(&["c@x.example", "d@x.example"]));
        let lives = Lives::default();
        lives.note(&seen(&uids(&former), 5_000_000), &former, 9_000_000);
        assert_eq!(lives.of(&uids(&former)[0]).proof, Some(5_000_000));
        // Readers of mailboxes that have left the model speak on for a while.
        lives.note(&seen(&uids(&former), 6_000_000), &next, 9_000_000);
        assert_eq!(lives.lock().len(), 2);
        assert_eq!(lives.of(&uids(&former)[0]).proof, Some(5_000_000), "nobody asks for it any more");
        lives.note(&seen(&uids(&next)[..1], 7_000_000), &next, 9_000_000);
        let known: Vec<MailboxUid> = lives.lock().keys().cloned().collect();
        assert_eq!(known, uids(&next)[..1]);
    }
}

//! A key that stands as long as its writer: here for ever, since only one process can open the file.
//!
//! Whoever comes takes the key over at once. That tells two processes apart that got hold of one file in spite of the
//! lock on its folder: the one whose key was replaced has lost its tenure.

use async_trait::async_trait;
use bytes::Bytes;

use super::Sqlite;
use crate::store::{Error, Guard, Outcome, Revision, Store as _, Tenure, Write};

struct Held {
    store: Sqlite,
    key: String,
    revision: Revision,
}

/// Writes the key, whoever wrote it before.
pub(super) async fn take(store: Sqlite, key: &str, value: Bytes) -> Result<Option<Box<dyn Tenure>>, Error> {
    let guard = match store.get(key).await? {
        Some(former) => Guard::Unchanged(key.into(), former.mod_revision),
        None => Guard::Absent(key.into()),
    };
    match store.commit(vec![guard], vec![Write::Put(key.into(), value)]).await? {
        Outcome::Committed(revision) => Ok(Some(Box::new(Held { store, key: key.into(), revision }))),
        // Unknown: if it did happen, the next attempt finds our own key and replaces it.
        Outcome::Conflict | Outcome::Unknown => Ok(None),
    }
}

#[async_trait]
impl Tenure for Held {
    fn revision(&self) -> Revision {
        self.revision
    }

    async fn renew(&mut self) -> Result<bool, Error> {
        Ok(self.store.get(&self.key).await?.is_some_and(|entry| entry.mod_revision == self.revision))
    }

    async fn resign(self: Box<Self>) {
        let guard = Guard::Unchanged(self.key.clone(), self.revision);
        if let Err(error) = self.store.commit(vec![guard], vec![Write::Delete(self.key)]).await {
            tracing::debug!(%error, "a key was not given up; whoever comes next replaces it");
        }
    }
}

//! A key that stands as long as its writer: it hangs on a lease of etcd, which is kept alive by one call at a time.
//!
//! Only a key that nobody is harmed by losing may hang on a lease: a leader of etcd that stalls, or an old one that comes
//! back, ends all leases at once.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use etcd_client::{Client, Error as ClientError};
use tokio::time::timeout;

use super::fault::Kind;
use super::{Etcd, Fault};
use crate::store::{Error, Guard, Outcome, Revision, Store as _, Tenure, Write};

struct Held {
    store: Etcd,
    key: String,
    lease: i64,
    revision: Revision,
    /// Longest wait for a renewal.
    patience: Duration,
}

/// Writes the key if it is free, or over whoever wrote it when `replace`.
pub(super) async fn take(
    store: &Etcd,
    key: &str,
    value: Bytes,
    ttl: Duration,
    replace: bool,
) -> Result<Option<Box<dyn Tenure>>, Fault> {
    let former = store.read_one(key).await?;
    let guard = match former {
        None => Guard::Absent(key.to_owned()),
        Some(former) if replace => Guard::Unchanged(key.to_owned(), former.mod_revision),
        Some(_) => return Ok(None),
    };
    let ttl = ttl.max(store.times.shortest_tenure);
    let seconds = i64::try_from(ttl.as_secs_f64().ceil() as u64).unwrap_or(i64::MAX);
    // One that is granted and not heard of ends by itself.
    let granted =
        store.members.read(|client: Client| async move { client.lease_client().grant(seconds, None).await }).await?;
    let lease = granted.id();
    let outcome = store.transact(&[guard], vec![Write::Put(key.to_owned(), value)], Some(lease)).await;
    let revision = match outcome {
        Ok(Outcome::Committed(revision)) => Some(revision),
        Ok(Outcome::Conflict) => None,
        Ok(Outcome::Unknown) => written_with(store, key, lease).await,
        Err(fault) => {
            revoke(store, lease).await;
            return Err(fault);
        }
    };
    let Some(revision) = revision else {
        // Ordering: with its lease gone, a write that is still under way cannot happen any more.
        revoke(store, lease).await;
        return Ok(None);
    };
    let patience = store.times.call.min(ttl / 3);
    Ok(Some(Box::new(Held { store: store.clone(), key: key.to_owned(), lease, revision, patience })))
}

/// The revision of a key that hangs on this lease.
async fn written_with(store: &Etcd, key: &str, lease: i64) -> Option<Revision> {
    let answer = store.ask(store.full(key), None).await.ok()?;
    let found = answer.kvs().first().filter(|found| found.lease() == lease)?;
    Some(super::read::unsigned(found.mod_revision()))
}

/// Ends a lease and what hangs on it. It would end by itself, so nothing is said when that fails.
async fn revoke(store: &Etcd, lease: i64) {
    let revoked = store.members.write(|client: Client| async move { client.lease_client().revoke(lease).await });
    let _ = timeout(store.times.call, revoked).await;
}

#[async_trait]
impl Tenure for Held {
    fn revision(&self) -> Revision {
        self.revision
    }

    async fn renew(&mut self) -> Result<bool, Error> {
        match self.keep_alive().await {
            Ok(held) => Ok(held),
            Err(fault) if matches!(fault.kind, Kind::Unsent | Kind::Doubtful) => {
                Err(fault.during("renew the lease of a key"))
            }
            Err(fault) => {
                tracing::warn!(error = %fault, key = self.key, "the lease of a key is refused");
                Err(fault.during("renew the lease of a key"))
            }
        }
    }

    async fn resign(self: Box<Self>) {
        let guard = Guard::Unchanged(self.key.clone(), self.revision);
        let removed = self.store.commit(vec![guard], vec![Write::Delete(self.key.clone())]);
        let _ = timeout(self.store.times.call, removed).await;
        revoke(&self.store, self.lease).await;
    }
}

impl Held {
    /// One request and one answer on a stream of their own: a stream that is kept can stall unnoticed.
    async fn keep_alive(&self) -> Result<bool, Fault> {
        let members = &self.store.members;
        let (member, lease, key) = (members.preferred(), self.lease, self.store.full(&self.key));
        // Ordering: the key is read after the lease was renewed, from the same member. One that is cut off from the
        // others renews what they have ended, but cannot read.
        let asked = members.call(member, self.patience, |client: Client| {
            let key = key.clone();
            async move {
                match client.lease_client().keep_alive(lease).await {
                    Ok(_) => client.kv_client().get(key, None).await.map(Some),
                    // The client's word for an answer whose time to live is 0, which is no error to etcd.
                    Err(ClientError::LeaseKeepAliveError(said)) if said == "lease not found" => Ok(None),
                    Err(error) => Err(error),
                }
            }
        });
        match asked.await {
            Ok(None) => Ok(false),
            Ok(Some(found)) => {
                let revision = found.kvs().first().map(|found| super::read::unsigned(found.mod_revision()));
                Ok(revision == Some(self.revision))
            }
            Err(fault) => {
                members.pass_over(member);
                Err(fault)
            }
        }
    }
}

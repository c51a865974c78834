//! The store on etcd: what several processes share.
//!
//! `members` reaches etcd: one client for each member, a deadline for each call, and the next member when one does not
//! answer. Reading (`read`) is repeated; a commit (`commit`) is not, unless it certainly never left. A watch (`watch`) goes
//! on by itself over everything but lost history, and a tenure (`tenure`) hangs on a lease of etcd.
//!
//! Every key stands below the prefix of the settings, so that several installations can share one etcd.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use self::fault::Fault;
use self::members::Members;
use super::choice::EtcdSettings;
use super::{Entry, Error, Guard, Outcome, Page, Revision, Store, Tenure, Watch, Write, key};

mod commit;
mod fault;
mod members;
mod read;
mod tenure;
#[cfg(test)]
mod tests;
mod watch;

/// Shortest life of a key that is not renewed, whatever is asked for.
pub const SHORTEST_TENURE: Duration = Duration::from_secs(5);

/// How long things may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    /// Longest wait for the answer of one member.
    pub(crate) call: Duration,
    /// Longest time that a reading is repeated.
    pub(crate) read: Duration,
    /// Shortest life of a tenure. etcd gives no lease below 1.5 times its election timeout.
    pub(crate) shortest_tenure: Duration,
    /// A watch that has heard nothing for this long asks how far it is.
    pub(crate) ask: Duration,
    /// A watch that has heard nothing for this long begins anew. More than `ask`.
    pub(crate) silence: Duration,
}

impl Default for Times {
    fn default() -> Self {
        Self {
            call: Duration::from_secs(3),
            read: Duration::from_secs(8),
            shortest_tenure: SHORTEST_TENURE,
            ask: Duration::from_secs(10),
            silence: Duration::from_secs(30),
        }
    }
}

/// The store on etcd. Cheap to clone; all clones share their connections.
#[derive(Debug, Clone)]
pub struct Etcd {
    members: Members,
    prefix: String,
    times: Times,
}

impl Etcd {
    /// Reaches etcd, and fails when it does not answer or refuses.
    pub async fn open(settings: &EtcdSettings) -> Result<Self, Error> {
        Self::open_with(settings, Times::default()).await
    }

    pub(crate) async fn open_with(settings: &EtcdSettings, times: Times) -> Result<Self, Error> {
        let members = Members::new(settings, times).map_err(|fault| fault.during("open"))?;
        let store = Self { members, prefix: settings.prefix.clone(), times };
        // Connections are made when they are first needed, so only a reading tells whether there is anybody.
        store.position().await.map_err(|fault| fault.during("open"))?;
        Ok(store)
    }

    /// What a key is called in etcd.
    fn full(&self, key: &str) -> Vec<u8> {
        [self.prefix.as_bytes(), key.as_bytes()].concat()
    }

    /// What a key of etcd is called here.
    fn own(&self, key: &[u8]) -> Result<String, Fault> {
        let key = key.strip_prefix(self.prefix.as_bytes()).and_then(|key| std::str::from_utf8(key).ok());
        key.map(str::to_owned).ok_or_else(|| self.members.strange("a key that was not asked for"))
    }
}

#[async_trait]
impl Store for Etcd {
    async fn id(&self) -> Result<Option<String>, Error> {
        let entry = self.get(key::STORE_ID).await?;
        Ok(entry.map(|entry| String::from_utf8_lossy(&entry.value).into_owned()))
    }

    async fn name(&self) -> Result<String, Error> {
        loop {
            if let Some(id) = self.id().await? {
                return Ok(id);
            }
            let id = uuid::Uuid::new_v4().simple().to_string();
            let guard = Guard::Absent(key::STORE_ID.into());
            // Whatever becomes of it, the next reading tells whose id it is.
            self.commit(vec![guard], vec![Write::Put(key::STORE_ID.into(), id.into())]).await?;
        }
    }

    async fn revision(&self) -> Result<Revision, Error> {
        self.position().await.map_err(|fault| fault.during("read the revision"))
    }

    async fn get(&self, key: &str) -> Result<Option<Entry>, Error> {
        self.read_one(key).await.map_err(|fault| fault.during("read a key"))
    }

    async fn get_many(&self, keys: &[String]) -> Result<Vec<Option<Entry>>, Error> {
        self.read_many(keys).await.map_err(|fault| fault.during("read keys"))
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Page, Error> {
        self.read_page(prefix, after, limit).await.map_err(|fault| fault.during("list keys"))
    }

    async fn commit(&self, guards: Vec<Guard>, writes: Vec<Write>) -> Result<Outcome, Error> {
        super::check(&guards, &writes)?;
        self.transact(&guards, writes, None).await.map_err(|fault| fault.during("commit"))
    }

    async fn tenure(
        &self,
        key: &str,
        value: Bytes,
        ttl: Duration,
        replace: bool,
    ) -> Result<Option<Box<dyn Tenure>>, Error> {
        tenure::take(self, key, value, ttl, replace).await.map_err(|fault| fault.during("write a key with a lease"))
    }

    async fn watch(&self, prefix: &str, from: Revision) -> Result<Box<dyn Watch>, Error> {
        Ok(Box::new(watch::Follower::start(self, prefix, from).await?))
    }
}

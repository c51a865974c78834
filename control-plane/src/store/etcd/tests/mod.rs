//! The suite on etcd with one and with three members, and what only etcd can do to us.

use std::sync::Arc;

use postroom_testbed::Etcd as Server;
use postroom_testbed::etcd::{self, Options};
use tokio::sync::OnceCell;

use super::*;
use crate::store::choice::StoreChoice;
use crate::store::suite::{self, committed, conformance, put};

mod holding;
mod prefix;
mod signing_in;
mod unreachable;
mod watching;

/// Reached only when something hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// Short ones, so that tests need not wait.
const QUICK: Times = Times {
    call: Duration::from_secs(1),
    read: Duration::from_secs(20),
    shortest_tenure: Duration::from_secs(1),
    ask: Duration::from_millis(300),
    silence: Duration::from_millis(1500),
};

conformance!(one_member, async { (open(etcd::shared().await).await, ()) });
conformance!(three_members, async { (open(three().await).await, ()) });

/// Three members that all tests share which only read and write.
async fn three() -> &'static Server {
    static SHARED: OnceCell<Server> = OnceCell::const_new();
    SHARED.get_or_init(async || Server::start(Options { members: 3, ..Options::default() }).await.unwrap()).await
}

/// How to reach a server, below a prefix that nobody else uses.
fn settings(server: &Server) -> EtcdSettings {
    let line = server.url(&format!("/postroom/{}", uuid::Uuid::new_v4().simple()));
    match line.parse().unwrap() {
        StoreChoice::Etcd(settings) => *settings,
        StoreChoice::Sqlite => panic!("{line}"),
    }
}

/// A new, empty store.
async fn open(server: &Server) -> Etcd {
    Etcd::open(&settings(server)).await.unwrap()
}

/// The same with short times.
async fn quick(server: &Server) -> Etcd {
    Etcd::open_with(&settings(server), QUICK).await.unwrap()
}

/// Waits for the next changes of a watch; `None`: there are none within `time`.
async fn within(time: Duration, watch: &mut Box<dyn Watch>) -> Option<Result<Vec<super::super::Change>, Error>> {
    tokio::time::timeout(time, watch.next()).await.ok()
}

/// The values that the next commit wrote.
async fn next(watch: &mut Box<dyn Watch>) -> Vec<String> {
    let changes = within(PATIENCE, watch).await.expect("a change").unwrap();
    changes.iter().map(|change| String::from_utf8(change.value.clone().unwrap_or_default().to_vec()).unwrap()).collect()
}

/// Writes a key until it is certain that it was written.
async fn write(store: &Etcd, key: &str, value: &str) {
    let written = tokio::time::timeout(PATIENCE, async {
        loop {
            match store.commit(vec![], vec![put(key, value)]).await {
                Ok(Outcome::Committed(_)) => return,
                Ok(Outcome::Conflict) => panic!("there was no guard"),
                Ok(Outcome::Unknown) | Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    });
    written.await.expect("a commit");
}

async fn from_now(store: &Etcd) -> Revision {
    Revision(store.revision().await.unwrap().0 + 1)
}

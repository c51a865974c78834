//! The store of a fleet: an etcd of one or more members, each behind a link of its own.

use std::time::Duration;

use postroom_testbed::etcd::{Etcd, Options};
use postroom_testbed::link::Link;
use tokio::time::sleep;

/// An etcd, and the ways to it.
pub(crate) struct Store {
    pub(crate) etcd: Etcd,
    /// From the control plane to each member.
    links: Vec<Link>,
}

impl Store {
    pub(crate) async fn start(members: usize) -> Self {
        let etcd = Etcd::start(Options { members, ..Options::default() }).await.unwrap();
        let mut links = Vec::new();
        for endpoint in etcd.endpoints() {
            links.push(Link::start(endpoint.parse().unwrap()).await.unwrap());
        }
        Self { etcd, links }
    }

    /// What the control plane is told.
    pub(crate) fn url(&self) -> String {
        let members: Vec<_> = self.links.iter().map(|link| link.addr().to_string()).collect();
        format!("etcd://{}/postroom", members.join(","))
    }

    /// Ends the connections of the control plane; it may connect again at once.
    pub(crate) fn cut(&self) {
        self.links.iter().for_each(Link::cut);
    }

    /// Lets the control plane reach no member, or goes back to letting it.
    pub(crate) fn set_refusing(&self, refusing: bool) {
        self.links.iter().for_each(|link| link.set_refusing(refusing));
    }

    /// Freezes all members for a while: connections stay, and nothing answers.
    pub(crate) async fn stall(&self, time: Duration) {
        self.freeze().await;
        sleep(time).await;
        self.unfreeze().await;
    }

    pub(crate) async fn freeze(&self) {
        for member in 0..self.links.len() {
            self.etcd.pause(member).await.unwrap();
        }
    }

    pub(crate) async fn unfreeze(&self) {
        for member in 0..self.links.len() {
            self.etcd.resume(member).await.unwrap();
        }
    }
}

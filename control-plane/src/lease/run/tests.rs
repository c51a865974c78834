//! The lease plane over a store that can stall.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use postroom_proto::reason::{Failure, Reason};

use super::*;
use crate::lease::desk::Heartbeat;
use crate::lease::profile::Profile;
use crate::store::sqlite::Sqlite;
use crate::store::{Entry, Error, Guard, Outcome, Page, Revision, Store, Tenure, Watch, Write, key};

/// Reached only when something hangs.
const PATIENCE: Duration = Duration::from_secs(30);
/// A session's ttl that a test can wait for.
const SHORT: Duration = Duration::from_secs(2);

/// SQLite, whose writes and renewals wait while it stalls.
struct Stalling {
    inner: Arc<Sqlite>,
    stalls: watch::Receiver<bool>,
}

/// A tenure that cannot be renewed while the store stalls.
struct Held {
    inner: Box<dyn Tenure>,
    stalls: watch::Receiver<bool>,
}

async fn flows(stalls: &watch::Receiver<bool>) {
    let _ = stalls.clone().wait_for(|stalls| !stalls).await;
}

#[async_trait]
impl Tenure for Held {
    fn revision(&self) -> Revision {
        self.inner.revision()
    }

    async fn renew(&mut self) -> Result<bool, Error> {
        flows(&self.stalls).await;
        self.inner.renew().await
    }

    async fn resign(self: Box<Self>) {
        self.inner.resign().await;
    }
}

#[async_trait]
impl Store for Stalling {
    async fn id(&self) -> Result<Option<String>, Error> {
        self.inner.id().await
    }

    async fn name(&self) -> Result<String, Error> {
        self.inner.name().await
    }

    async fn revision(&self) -> Result<Revision, Error> {
        self.inner.revision().await
    }

    async fn get(&self, key: &str) -> Result<Option<Entry>, Error> {
        self.inner.get(key).await
    }

    async fn get_many(&self, keys: &[String]) -> Result<Vec<Option<Entry>>, Error> {
        self.inner.get_many(keys).await
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Page, Error> {
        self.inner.list(prefix, after, limit).await
    }

    async fn commit(&self, guards: Vec<Guard>, writes: Vec<Write>) -> Result<Outcome, Error> {
        flows(&self.stalls).await;
        self.inner.commit(guards, writes).await
    }

    async fn tenure(
        &self,
        key: &str,
        value: Bytes,
        ttl: Duration,
        replace: bool,
    ) -> Result<Option<Box<dyn Tenure>>, Error> {
        let stalls = self.stalls.clone();
        flows(&stalls).await;
        let held = self.inner.tenure(key, value, ttl, replace).await?;
        Ok(held.map(|inner| Box::new(Held { inner, stalls }) as Box<dyn Tenure>))
    }

    async fn watch(&self, prefix: &str, from: Revision) -> Result<Box<dyn Watch>, Error> {
        self.inner.watch(prefix, from).await
    }
}

struct Stage {
    leader: Handle,
    store: SharedStore,
    stall: watch::Sender<bool>,
    may_lead: watch::Sender<bool>,
    stop: CancellationToken,
    running: tokio::task::JoinHandle<()>,
    _model: watch::Sender<Arc<Model>>,
    _folder: tempfile::TempDir,
}

impl Stage {
    async fn set(leader_ttl: Duration) -> Self {
        Self::with(LeaseTerms { leader_ttl, ..LeaseTerms::default() }).await
    }

    async fn with(terms: LeaseTerms) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let inner = Arc::new(Sqlite::open(&folder.path().join("store.db")).await.unwrap());
        let (stall, stalls) = watch::channel(false);
        let store: SharedStore = Arc::new(Stalling { inner, stalls });
        let (model, models) = watch::channel(Arc::default());
        let (may_lead, permission) = watch::channel(true);
        let stop = CancellationToken::new();
        let settings = Settings { replica: "r1".into(), terms, alone: true };
        let nudges = Nudges::new(stop.clone());
        let (leader, plane) = LeasePlane::new(store.clone(), settings, models, permission, nudges);
        let running = tokio::spawn(plane.run(stop.clone()));
        Self { leader, store, stall, may_lead, stop, running, _model: model, _folder: folder }
    }

    async fn register(&self) -> Result<postroom_proto::id::SessionId, Failure> {
        loop {
            match self.leader.register(Profile::new("w")).await {
                Err(failure) if failure.reason == Reason::NoLeader => tokio::time::sleep(ROUND_GAP).await,
                other => return other,
            }
        }
    }

    async fn stop(self) -> SharedStore {
        self.stop.cancel();
        timeout(PATIENCE, self.running).await.unwrap().unwrap();
        self.store
    }
}

fn heartbeat(session: &postroom_proto::id::SessionId, sequence: u64) -> Heartbeat {
    Heartbeat { session: session.clone(), sequence, term: 0, held: Vec::new(), draining: false }
}

#[tokio::test]
async fn while_the_store_stalls_heartbeats_are_answered_as_long_as_the_office_is_trusted() {
    // Confirmed every second, so that a renewal is under way before the stall is over.
    let stage = Stage::set(Duration::from_secs(3)).await;
    let session = timeout(PATIENCE, stage.register()).await.unwrap().unwrap();
    stage.stall.send_replace(true);
    // A registration waits for the store, and nobody waits for the registration.
    let waiting = tokio::spawn({
        let leader = stage.leader.clone();
        async move { leader.register(Profile::new("other")).await }
    });
    let (begun, mut answered) = (Instant::now(), 0);
    for sequence in 1.. {
        let answer = timeout(PATIENCE, stage.leader.heartbeat(heartbeat(&session, sequence))).await;
        match answer.expect("a heartbeat waited for the store") {
            Ok(_) => answered += 1,
            // The office was not confirmed for too long.
            Err(failure) => {
                assert_eq!(failure.reason, Reason::NoLeader);
                break;
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(answered > 0 && begun.elapsed() < PATIENCE, "{answered}");
    assert!(!waiting.is_finished());
    stage.stall.send_replace(false);
    // It went down with the office, and is to be asked again.
    let waited = timeout(PATIENCE, waiting).await.unwrap().unwrap();
    assert_eq!(waited.unwrap_err().reason, Reason::NoLeader);
    timeout(PATIENCE, stage.register()).await.unwrap().unwrap();
    stage.stop().await;
}

#[tokio::test]
async fn a_leader_whose_trust_lapsed_holds_no_silence_against_its_workers() {
    let terms = LeaseTerms { leader_ttl: Duration::from_secs(1), ttl: SHORT, ..LeaseTerms::default() };
    let stage = Stage::with(terms).await;
    let session = timeout(PATIENCE, stage.register()).await.unwrap().unwrap();
    let first = stage.leader.heartbeat(heartbeat(&session, 1)).await.unwrap().term;
    stage.stall.send_replace(true);
    // For longer than the session's ttl the worker tries, and is refused once the office is not trusted.
    let (begun, mut sequence, mut refused) = (Instant::now(), 1, 0);
    while begun.elapsed() < SHORT * 2 {
        sequence += 1;
        match timeout(PATIENCE, stage.leader.heartbeat(heartbeat(&session, sequence))).await.unwrap() {
            Ok(_) => assert_eq!(refused, 0, "trust that lapsed has come back"),
            Err(failure) => {
                assert_eq!(failure.reason, Reason::NoLeader);
                refused += 1;
            }
        }
        tokio::time::sleep(ROUND_GAP).await;
    }
    assert!(refused > 0);
    stage.stall.send_replace(false);
    let heard = async {
        loop {
            sequence += 1;
            match stage.leader.heartbeat(heartbeat(&session, sequence)).await {
                Err(failure) if failure.reason == Reason::NoLeader => tokio::time::sleep(ROUND_GAP).await,
                other => return other,
            }
        }
    };
    let again = timeout(PATIENCE, heard).await.unwrap().expect("the session was ended for a silence that was none");
    assert!(again.term > first, "another term of office, with a desk of its own");
    stage.stop().await;
}

#[tokio::test]
async fn a_stop_gives_the_office_up_and_a_permission_taken_back_ends_it() {
    let stage = Stage::set(Duration::from_secs(5)).await;
    let session = timeout(PATIENCE, stage.register()).await.unwrap().unwrap();
    assert!(stage.store.get(key::LEADER).await.unwrap().is_some());
    stage.may_lead.send_replace(false);
    let refused = async {
        loop {
            match stage.leader.heartbeat(heartbeat(&session, 1)).await {
                Err(failure) if failure.reason == Reason::StoreNotOurs => return,
                _ => tokio::time::sleep(ROUND_GAP).await,
            }
        }
    };
    timeout(PATIENCE, refused).await.unwrap();
    let given_up = async {
        while stage.store.get(key::LEADER).await.unwrap().is_some() {
            tokio::time::sleep(ROUND_GAP).await;
        }
    };
    timeout(PATIENCE, given_up).await.expect("nobody has to wait for it");
    stage.may_lead.send_replace(true);
    timeout(PATIENCE, stage.register()).await.unwrap().unwrap();
    let store = stage.stop().await;
    assert_eq!(store.get(key::LEADER).await.unwrap(), None);
}

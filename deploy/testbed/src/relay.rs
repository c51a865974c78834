//! A relay for gRPC over HTTP/2 without TLS, between a client and a control plane on loopback. It forwards everything,
//! streams and trailers included, and loses or delays what a test names.
//!
//! A method is named by the end of its path, for example `/postroom.v1.ReportService/Report` or `/Report`. What is
//! named must be unary: its request and its answer are read whole, so that "executed, but the answer was lost" means
//! exactly that, even when the client has long gone.

mod forward;
mod rules;

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::rules::{Gate, Rules};
use crate::{
    error::{Error, Result},
    wait,
};

/// What a client sees instead of the answer that was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// gRPC status 14 `UNAVAILABLE`, without a message.
    Unavailable,
    /// The stream is reset before any answer.
    Cut,
}

/// How often a method was called.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Calls {
    /// Calls that arrived here.
    pub seen: u64,
    /// Calls whose answer was lost on purpose.
    pub lost: u64,
}

/// The answer of the upstream to a call that was held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The gRPC status, for example 0 for OK and 10 for `ABORTED`.
    pub status: u32,
    /// The gRPC message, percent-encoded as on the wire.
    pub message: String,
}

/// A running relay. Dropping it ends its tasks and cuts its connections.
#[derive(Debug)]
pub struct Relay {
    shared: Arc<Shared>,
    addr: SocketAddr,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// Calls of one method that are held back. Dropping it releases them and holds no further ones.
#[derive(Debug)]
pub struct Hold {
    shared: Arc<Shared>,
    id: u64,
    gate: Arc<Gate>,
}

impl Relay {
    /// Starts a relay to `upstream` on a free loopback port.
    pub async fn start(upstream: SocketAddr) -> Result<Self> {
        let listener =
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(Error::system("listen on loopback"))?;
        let addr = listener.local_addr().map_err(Error::system("learn a port"))?;
        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();
        let state = State { upstream, rules: Rules::default(), calls: BTreeMap::new() };
        let shared = Arc::new(Shared { state: Mutex::new(state) });
        forward::run(listener, Arc::clone(&shared), &stop, &tasks);
        Ok(Self { shared, addr, stop, tasks })
    }

    /// Where clients connect, without TLS.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Sends calls from now on to another address; those under way stay where they are.
    pub fn set_upstream(&self, upstream: SocketAddr) {
        self.shared.state().upstream = upstream;
    }

    /// Loses the answer to every `every`-th call of `method` (1: to all), counted from now on. 0 ends that.
    pub fn lose(&self, method: &str, every: u64, loss: Loss) {
        self.shared.state().rules.lose(method, every, loss);
    }

    /// Holds back every call of `method` from now on, before the upstream sees it.
    pub fn hold(&self, method: &str) -> Hold {
        let (id, gate) = self.shared.state().rules.hold(method);
        Hold { shared: Arc::clone(&self.shared), id, gate }
    }

    /// Calls of all methods whose path ends in `method`.
    pub fn calls(&self, method: &str) -> Calls {
        let state = self.shared.state();
        let matching = state.calls.iter().filter(|(path, _)| path.ends_with(method));
        matching.fold(Calls::default(), |sum, (_, calls)| Calls {
            seen: sum.seen + calls.seen,
            lost: sum.lost + calls.lost,
        })
    }

    /// Stops listening, cuts all connections and waits for the end of all tasks.
    pub async fn stop(self) {
        self.stop.cancel();
        self.tasks.wait().await;
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Hold {
    /// Waits until `count` calls have arrived here.
    pub async fn arrived(&self, count: usize) -> Result<()> {
        let what = format!("{count} calls to hold back");
        wait::until(self.gate.arrived.subscribe(), |arrived| (*arrived >= count).then_some(()), what).await
    }

    /// Lets the held calls go on to the upstream, and later ones too.
    pub fn release(&self) {
        self.shared.state().rules.unhold(self.id);
        self.gate.open.cancel();
    }

    /// Waits until `count` held calls have been answered by the upstream and returns these answers in their order,
    /// whether or not a client was still there to receive them.
    pub async fn answers(&self, count: usize) -> Result<Vec<Answer>> {
        let what = format!("{count} answers to calls that were held back");
        let enough = |answers: &Vec<Answer>| (answers.len() >= count).then(|| answers.clone());
        wait::until(self.gate.answers.subscribe(), enough, what).await
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.release();
    }
}

/// What the relay's tasks and its handles share.
#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    upstream: SocketAddr,
    rules: Rules,
    /// By path.
    calls: BTreeMap<String, Calls>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is locked; a poisoned state would still be whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

//! A stretch of network between two processes on loopback, to be cut, blocked and slowed down: TCP, whatever is spoken
//! over it, TLS included.
//!
//! What can happen to a link, and what its two ends see:
//!
//! | | connections there are | new connections |
//! |---|---|---|
//! | [`Link::cut`] | end at once | go through |
//! | [`Link::set_refusing`] | end at once | end as soon as they are made |
//! | [`Link::set_silent`] | stay open, and nothing arrives any more | are made, and nothing arrives |
//! | [`Link::set_delay`] | everything arrives later | the same |
//!
//! [`Link::heal`] takes back all but cuts. What was sent into a silent link and has not been given up by then arrives
//! after all, as it does when a real network comes back.

mod pump;

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::error::{Error, Result};

/// A running link. Dropping it ends its connections.
#[derive(Debug)]
pub struct Link {
    shared: Arc<Shared>,
    addr: SocketAddr,
    stop: CancellationToken,
}

/// What the link's tasks and its handle share.
#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    weather: watch::Sender<Weather>,
}

#[derive(Debug)]
struct State {
    upstream: SocketAddr,
    refusing: bool,
    made: u64,
    /// Bytes that arrived at clients.
    carried: Arc<AtomicU64>,
    /// Ends the connections that there are.
    cut: CancellationToken,
    /// Counts the connections that there are.
    open: TaskTracker,
}

/// What bytes on their way meet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Weather {
    silent: bool,
    delay: Duration,
}

impl Link {
    /// Starts a link to `upstream` on a free loopback port.
    pub async fn start(upstream: SocketAddr) -> Result<Self> {
        let listener =
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(Error::system("listen on loopback"))?;
        let addr = listener.local_addr().map_err(Error::system("learn a port"))?;
        let stop = CancellationToken::new();
        let state = State {
            upstream,
            refusing: false,
            made: 0,
            carried: Arc::default(),
            cut: stop.child_token(),
            open: TaskTracker::new(),
        };
        let shared = Arc::new(Shared { state: Mutex::new(state), weather: watch::Sender::default() });
        let (accepting, told) = (Arc::clone(&shared), stop.clone());
        tokio::spawn(async move {
            while let Some(accepted) = told.run_until_cancelled(listener.accept()).await {
                if let Ok((client, _)) = accepted {
                    accepting.take(client);
                }
            }
        });
        Ok(Self { shared, addr, stop })
    }

    /// Where clients connect.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Leads new connections to another address; those that there are stay where they are.
    pub fn set_upstream(&self, upstream: SocketAddr) {
        self.shared.state().upstream = upstream;
    }

    /// Ends all connections. New ones go through.
    pub fn cut(&self) {
        let mut state = self.shared.state();
        state.cut.cancel();
        state.cut = self.stop.child_token();
    }

    /// Refuses every connection from now on and ends those that there are, or goes back to letting them through.
    pub fn set_refusing(&self, refusing: bool) {
        self.shared.state().refusing = refusing;
        if refusing {
            self.cut();
        }
    }

    /// Lets nothing arrive any more on either side while all connections stay open, or goes back to letting it through.
    pub fn set_silent(&self, silent: bool) {
        self.shared.weather.send_modify(|weather| weather.silent = silent);
    }

    /// Lets everything that is sent from now on arrive so much later, in each direction.
    pub fn set_delay(&self, delay: Duration) {
        self.shared.weather.send_modify(|weather| weather.delay = delay);
    }

    /// Ends every disturbance.
    pub fn heal(&self) {
        self.shared.state().refusing = false;
        self.shared.weather.send_replace(Weather::default());
    }

    /// How many connections were let through since the start.
    pub fn made(&self) -> u64 {
        self.shared.state().made
    }

    /// How many bytes have arrived at clients since the start.
    pub fn carried(&self) -> u64 {
        self.shared.state().carried.load(Ordering::Relaxed)
    }

    /// How many connections there are.
    pub fn open(&self) -> usize {
        self.shared.state().open.len()
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Shared {
    fn take(self: &Arc<Self>, client: TcpStream) {
        let mut state = self.state();
        if state.refusing {
            return;
        }
        state.made += 1;
        let (cut, upstream, weather) = (state.cut.clone(), state.upstream, self.weather.subscribe());
        let running = pump::run(client, upstream, weather, Arc::clone(&state.carried));
        state.open.spawn(async move { cut.run_until_cancelled(running).await });
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is locked; a poisoned state would still be whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

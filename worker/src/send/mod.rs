//! Sends mail of the outbox: what the control plane lets this worker claim, over SMTP or Microsoft Graph.
//!
//! Reading order: [`verdict`] (what an answer makes of a mail, pure), [`claim`] (one mail under way), [`outbox`] (calls to
//! the control plane), [`smtp`] and [`graph`] (handing over), [`sent`] (looking for a mail whose outcome is unknown), and
//! [`desk`] (what claims mails and runs each as a task of its own).

use std::sync::Arc;
use std::time::Duration;

use crate::mailbox::catch_up::Budget;
use crate::mailbox::session::Shared;

pub mod claim;
pub mod desk;
pub mod graph;
pub mod outbox;
pub mod sent;
pub mod smtp;
pub mod verdict;

#[cfg(test)]
pub(crate) mod peer;

/// Of the memory for messages a fourth may be taken by mails on their way out, so that neither direction waits for the
/// other.
const SHARE: u64 = 4;
/// See [`Sending::renewed_from`].
const RENEWED_FROM: Duration = Duration::from_secs(10);

/// What all mails that a worker sends share.
#[derive(Debug, Clone)]
pub struct Sending {
    /// Whom to trust, where tokens come from, how long to wait.
    pub shared: Shared,
    /// Connections to SMTP servers.
    pub pool: Arc<smtp::Pool>,
    /// Bytes of mails that did not come with their claims.
    pub budget: Budget,
    /// What Microsoft Graph takes at once.
    pub graph: graph::Limits,
    /// A token that is refused is renewed once unless it is younger: then the fault lies elsewhere, and mails without a
    /// permission must not become as many requests for tokens.
    renewed_from: Duration,
    /// Talks HTTP without TLS, to scripted servers.
    plain: bool,
}

impl Sending {
    /// What a worker's mails share. `idle`: how long a connection is kept that no claimed mail waits for.
    pub fn new(shared: Shared, idle: Duration) -> Self {
        let budget = Budget::new(shared.reading.byte_budget / SHARE);
        let pool = Arc::new(smtp::Pool::new(idle));
        let graph = graph::Limits::default();
        Self { shared, pool, budget, graph, renewed_from: RENEWED_FROM, plain: false }
    }
}

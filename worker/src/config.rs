//! Settings of a worker. Lease terms come from the control plane.

use std::path::PathBuf;
use std::time::Duration;

use postroom_proto::observe::Listen;
use postroom_proto::v1::WorkerRole;
use secrecy::SecretString;

pub mod settings;

/// Everything that a worker is started with.
#[derive(Debug, Clone)]
pub struct Config {
    /// URLs of the control plane, for example `http://127.0.0.1:7430`. The next is tried when one cannot be reached.
    pub endpoints: Vec<String>,
    /// Stable name of this worker: `[a-z][a-z0-9-]{0,61}`.
    pub name: String,
    /// Reads the queues of the instances that name this pool. Form as the name.
    pub pool: String,
    /// What it is for, unless an operator has set its role.
    pub role: WorkerRole,
    /// Most mailboxes that it can read. 0: no limit.
    pub capacity: u32,
    /// After a stop its mailboxes wait a while for a process of the same name.
    pub returning: bool,
    /// By what the control plane knows it.
    pub identity: Identity,
    /// PEM file with the CA certificates by which it knows the control plane; `None`: those of the system.
    pub ca_file: Option<PathBuf>,
    /// How mailboxes are read.
    pub reading: Reading,
    /// How mail is sent.
    pub sending: Sending,
    /// Where metrics and health are served.
    pub observe: Listen,
}

impl Config {
    /// A worker that reads with the usual settings.
    pub fn new(endpoint: &str, token: SecretString, name: &str) -> Self {
        Self {
            endpoints: vec![endpoint.into()],
            name: name.into(),
            pool: "default".into(),
            role: WorkerRole::Active,
            capacity: 0,
            returning: true,
            identity: Identity::Token(token),
            ca_file: None,
            reading: Reading::default(),
            sending: Sending::default(),
            observe: Listen::Off,
        }
    }
}

/// By what the control plane knows a worker.
#[derive(Debug, Clone)]
pub enum Identity {
    /// A token of the role worker.
    Token(SecretString),
    /// A client certificate with its key, PEM.
    Certificate {
        /// The worker's certificate first.
        certificate: PathBuf,
        /// Its key.
        key: PathBuf,
    },
    /// A client certificate that the control plane makes, and that the worker renews.
    Enrolled {
        /// Where it is kept, with its key.
        folder: PathBuf,
        /// Holds the token for the first one.
        token_file: Option<PathBuf>,
    },
}

/// How mail is sent. Times of steps are those of reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sending {
    /// How long a connection to an SMTP server is kept for the next mail of the same mailbox. Zero: only for one that is
    /// claimed already, so that idle connections of several workers never come on top of the three that Exchange allows.
    pub keep: Duration,
}

/// How mailboxes are read.
#[derive(Debug, Clone)]
pub struct Reading {
    /// The mailbox is looked at after this time even when the server tells nothing.
    pub poll: Duration,
    /// IDLE is begun anew after this time, for servers and firewalls that drop quiet connections.
    pub idle_renew: Duration,
    /// A message that could not be read is tried again after this time.
    pub pending_retry: Duration,
    /// Bytes of fetched and not yet committed messages, for the whole worker.
    pub byte_budget: u64,
    /// Longest wait for TCP, and for TLS.
    pub connect_timeout: Duration,
    /// Longest silence of a mail server in the middle of a command.
    pub step_timeout: Duration,
    /// Longest wait for a token.
    pub token_timeout: Duration,
    /// Longest time in which nothing moves while a mailbox waits for the control plane, for its turn or for memory; then its
    /// reading begins anew.
    pub longest_stall: Duration,
    /// Longest time for a mailbox to finish its report when it is handed over.
    pub drain_timeout: Duration,
    /// How fast mailboxes begin to connect.
    pub start: Start,
    /// Most messages fetched, and reported, at once.
    pub batch_messages: usize,
    /// Most bytes of messages fetched at once, by the server's own estimate; a larger message goes alone.
    pub batch_bytes: u64,
}

/// How fast mailboxes begin to connect, at the start of a worker and after their connections broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Start {
    /// So many at once.
    pub burst: u32,
    /// Then so many a second.
    pub rate: u32,
    /// Most that connect at once to one host.
    pub per_host: u32,
    /// Most that connect at once for one tenant.
    pub per_tenant: u32,
    /// The mailboxes that a worker is given at its own start, when they are more than `burst`, begin within this time,
    /// each at a moment of its own, so that a fleet does not begin as one. Those that come later, as from a worker that
    /// died, begin at once.
    pub spread: Duration,
}

impl Default for Start {
    fn default() -> Self {
        Self { burst: 50, rate: 10, per_host: 10, per_tenant: 10, spread: Duration::from_secs(2) }
    }
}

impl Default for Reading {
    fn default() -> Self {
        Self {
            poll: Duration::from_secs(300),
            idle_renew: Duration::from_secs(540),
            pending_retry: Duration::from_secs(30),
            byte_budget: 256 * 1024 * 1024,
            connect_timeout: Duration::from_secs(15),
            step_timeout: Duration::from_secs(60),
            token_timeout: Duration::from_secs(15),
            longest_stall: Duration::from_secs(1800),
            drain_timeout: Duration::from_secs(10),
            start: Start::default(),
            batch_messages: 200,
            batch_bytes: 2 * 1024 * 1024,
        }
    }
}

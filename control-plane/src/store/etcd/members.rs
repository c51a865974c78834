//! The members of etcd: one client each, a deadline for every call, and the next member when one fails.
//!
//! A client over all members would balance between them, and send a third of all calls to a dead one of three without
//! noticing. Here all calls go to one member as long as it answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use etcd_client::{Certificate, Client, ConnectOptions, Error as ClientError, Identity, TlsOptions};
use secrecy::ExposeSecret as _;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout};

use super::Times;
use super::fault::{Fault, Kind};
use crate::store::choice::EtcdSettings;

/// A connection that answers nothing for this long is asked whether it lives. etcd closes connections that ask more often
/// than every 5 s.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// A connection that does not say so within this time is given up.
const KEEP_ALIVE_ANSWER: Duration = Duration::from_secs(5);
/// Longest message that is read. A page of a listing can hold 1000 objects of 512 KiB.
pub(super) const LARGEST_ANSWER: usize = 1024 * 1024 * 1024;
/// Pauses after all members have failed.
const PAUSE: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// The members of etcd.
#[derive(Clone)]
pub(super) struct Members {
    shared: Arc<Shared>,
}

struct Shared {
    members: Vec<Member>,
    options: ConnectOptions,
    /// The member that all calls go to.
    preferred: AtomicUsize,
    endpoints: String,
    times: Times,
    signs_in: bool,
}

struct Member {
    endpoint: String,
    /// Made when it is first needed: with a password that is a call to etcd.
    client: Mutex<Option<Client>>,
}

impl std::fmt::Debug for Members {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Members").field("endpoints", &self.shared.endpoints).finish_non_exhaustive()
    }
}

impl Members {
    /// Reads the files that the settings name. Nothing is sent yet.
    pub(super) fn new(settings: &EtcdSettings, times: Times) -> Result<Self, Fault> {
        let scheme = if settings.tls { "https" } else { "http" };
        let member =
            |endpoint: &String| Member { endpoint: format!("{scheme}://{endpoint}"), client: Mutex::new(None) };
        let shared = Shared {
            members: settings.endpoints.iter().map(member).collect(),
            options: options(settings, times)?,
            preferred: AtomicUsize::new(0),
            endpoints: settings.endpoints.join(","),
            times,
            signs_in: settings.user.is_some(),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// An answer that no etcd gives.
    pub(super) fn strange(&self, what: &str) -> Fault {
        Fault::new(&self.shared.endpoints, Kind::Refused, format!("it answers with {what}"))
    }

    /// What went wrong at a member.
    pub(super) fn fault_of(&self, member: usize, kind: Kind, what: &str) -> Fault {
        Fault::new(&self.shared.members[member].endpoint, kind, what)
    }

    /// What the client said about a call to a member.
    pub(super) fn failed(&self, member: usize, error: &ClientError) -> Fault {
        Fault::of(&self.shared.members[member].endpoint, error)
    }

    /// Calls a member, and the others when it fails, again and again until one answers, refuses, or the time is over. For
    /// calls that change nothing.
    pub(super) async fn read<T, F>(&self, call: impl Fn(Client) -> F) -> Result<T, Fault>
    where
        F: Future<Output = Result<T, ClientError>>,
    {
        let until = Instant::now() + self.shared.times.read;
        let mut pause = PAUSE;
        loop {
            let mut last = None;
            for _ in &self.shared.members {
                let member = self.preferred();
                match self.call(member, self.shared.times.call, &call).await {
                    Err(fault) if matches!(fault.kind, Kind::Unsent | Kind::Doubtful) => {
                        self.pass_over(member);
                        last = Some(fault);
                    }
                    answer => return answer,
                }
                if Instant::now() >= until {
                    break;
                }
            }
            if Instant::now() + pause >= until {
                return Err(self.nobody(last));
            }
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Calls a member, and the others only where the call certainly never left. For calls that change something.
    pub(super) async fn write<T, F>(&self, call: impl Fn(Client) -> F) -> Result<T, Fault>
    where
        F: Future<Output = Result<T, ClientError>>,
    {
        let mut last = None;
        for _ in &self.shared.members {
            let member = self.preferred();
            match self.call(member, self.shared.times.call, &call).await {
                Err(fault) if fault.kind == Kind::Unsent => {
                    self.pass_over(member);
                    last = Some(fault);
                }
                Err(fault) if fault.kind == Kind::Doubtful => {
                    self.pass_over(member);
                    return Err(fault);
                }
                answer => return answer,
            }
        }
        Err(self.nobody(last))
    }

    /// The member that calls go to at present.
    pub(super) fn preferred(&self) -> usize {
        self.shared.preferred.load(Ordering::Relaxed)
    }

    /// Sends calls to the next member, unless somebody else did meanwhile.
    pub(super) fn pass_over(&self, member: usize) {
        let next = (member + 1) % self.shared.members.len();
        let _ = self.shared.preferred.compare_exchange(member, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// One call to one member.
    pub(super) async fn call<T, F>(
        &self,
        member: usize,
        within: Duration,
        call: impl Fn(Client) -> F,
    ) -> Result<T, Fault>
    where
        F: Future<Output = Result<T, ClientError>>,
    {
        let endpoint = &self.shared.members[member].endpoint;
        let called = async {
            let client = self.client(member).await?;
            call(client).await.map_err(|error| Fault::of(endpoint, &error))
        };
        match timeout(within, called).await {
            Ok(answer) => answer,
            Err(_) => Err(Fault::late(endpoint, within)),
        }
    }

    /// Signs in again. For a watch, whose stale token no call notices.
    pub(super) async fn sign_in(&self, member: usize) -> Result<(), Fault> {
        if !self.shared.signs_in {
            return Ok(());
        }
        self.call(member, self.shared.times.call, |client| async move { client.refresh_token().await }).await
    }

    async fn client(&self, member: usize) -> Result<Client, Fault> {
        let Member { endpoint, client } = &self.shared.members[member];
        let mut client = client.lock().await;
        if let Some(client) = &*client {
            return Ok(client.clone());
        }
        let made = Client::connect([endpoint], Some(self.shared.options.clone())).await;
        let made = made.map_err(|error| {
            let mut fault = Fault::of(endpoint, &error);
            // It was the call to sign in that failed; what the client was wanted for was not sent.
            if fault.kind == Kind::Doubtful {
                fault.kind = Kind::Unsent;
            }
            fault
        })?;
        Ok(client.insert(made).clone())
    }

    fn nobody(&self, last: Option<Fault>) -> Fault {
        match last {
            Some(fault) => Fault { endpoints: self.shared.endpoints.clone(), ..fault },
            None => Fault::new(&self.shared.endpoints, Kind::Unsent, "no member is named"),
        }
    }
}

fn options(settings: &EtcdSettings, times: Times) -> Result<ConnectOptions, Fault> {
    let read = |path: &std::path::Path| {
        std::fs::read(path).map_err(|error| {
            let what = format!("cannot read {}: {error}", path.display());
            Fault::new(settings.endpoints.join(","), Kind::Refused, what)
        })
    };
    let mut options = ConnectOptions::new()
        .with_keep_alive(KEEP_ALIVE, KEEP_ALIVE_ANSWER)
        .with_keep_alive_while_idle(true)
        .with_connect_timeout(times.call)
        // A member that is cut off from the others says so instead of waiting for them.
        .with_require_leader(true)
        .with_auto_token_refresh(true);
    if let (Some(user), Some(password)) = (&settings.user, &settings.password) {
        options = options.with_user(user, password.expose_secret());
    }
    if settings.tls {
        let mut tls = TlsOptions::new();
        tls = match &settings.ca_file {
            Some(file) => tls.ca_certificate(Certificate::from_pem(read(file)?)),
            None => tls.with_native_roots(),
        };
        if let Some((certificate, key)) = &settings.client_certificate {
            tls = tls.identity(Identity::from_pem(read(certificate)?, read(key)?));
        }
        options = options.with_tls(tls);
    }
    Ok(options)
}

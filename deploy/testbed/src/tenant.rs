//! A local tenant: a token endpoint over TLS that behaves as Entra's (Microsoft identity platform v2.0), with
//! everything that can go wrong there at the turn of a switch.

mod error;
mod permission;
mod server;
mod token;
mod users;

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub(crate) use self::token::{Bearer, Unfit};
use self::users::{Client, Directory, User};
pub use self::{
    error::Refusal,
    permission::{GRAPH, Permission},
    users::LOCK_AFTER,
};
use crate::{authority::Authority, error::Result, web};

/// Lifetime of tokens when nothing else was set: in the range that Entra chooses from (60 to 90 min).
pub const TOKEN_LIFETIME: Duration = Duration::from_secs(75 * 60);

/// What a token request gets instead of its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A refusal with this `AADSTS` number, whatever the request says.
    Refuse(u32),
    /// This HTTP status without a JSON body, and perhaps `Retry-After` in seconds.
    Status(u16, Option<u64>),
    /// No answer until the client gives up or the tenant stops.
    Hang,
    /// An answer that is cut off in its middle.
    Cut,
}

/// How often somebody asked for a token, and how that went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SignIns {
    /// Tokens issued.
    pub issued: u64,
    /// Requests refused, and those that met a [`Fault`].
    pub refused: u64,
    /// `AADSTS` number of the last refusal; 0 when there was none.
    pub last_code: u32,
}

/// A running tenant. Everything is switched at run time and holds for the next request.
///
/// Dropping it ends its tasks; connections are cut.
#[derive(Debug)]
pub struct Tenant {
    shared: Arc<Shared>,
    addr: SocketAddr,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Tenant {
    /// Starts a tenant of this GUID and domain that signs tokens with `key`. It knows nobody yet.
    pub async fn start(authority: &Authority, key: &[u8], id: &str, domain: &str) -> Result<Self> {
        let directory = Directory { id: id.to_owned(), domain: domain.to_owned(), ..Directory::default() };
        let state = State { directory, lifetime: TOKEN_LIFETIME, faults: VecDeque::new(), sign_ins: HashMap::new() };
        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();
        let (listener, addr) = web::bind().await?;
        let shared = Arc::new(Shared {
            key: key.to_vec(),
            base: format!("https://{addr}"),
            state: Mutex::new(state),
            stop: stop.clone(),
        });
        server::run(listener, authority, Arc::clone(&shared), &stop, &tasks)?;
        Ok(Self { shared, addr, stop, tasks })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The authority with the tenant's GUID: what an incoming server has as its address.
    pub fn authority(&self) -> String {
        self.authority_of(&self.state().directory.id)
    }

    /// The authority with the tenant's domain, which is as good.
    pub fn domain_authority(&self) -> String {
        self.authority_of(&self.state().directory.domain)
    }

    /// The authority of another tenant of this cloud; only the own one exists.
    pub fn authority_of(&self, tenant: &str) -> String {
        format!("{}/{tenant}", self.shared.base)
    }

    /// Registers an application with every permission, or registers it anew. Without a secret it is a public client.
    pub fn add_client(&self, client_id: &str, secret: Option<&str>) {
        let client = Client { secret: secret.map(str::to_owned), permissions: Permission::ALL.into() };
        self.state().directory.clients.insert(client_id.to_owned(), client);
    }

    /// Removes an application: 700016 from now on.
    pub fn remove_client(&self, client_id: &str) {
        self.state().directory.clients.remove(client_id);
    }

    /// Changes the secret of an application: 7000215 for the old one.
    pub fn set_secret(&self, client_id: &str, secret: &str) {
        self.change_client(client_id, |client| client.secret = Some(secret.to_owned()));
    }

    /// Grants or withdraws the consent to everything. Without it users get 65001, and the application itself gets
    /// tokens without a role, which no mailbox accepts.
    pub fn set_consent(&self, client_id: &str, consented: bool) {
        let permissions = if consented { Permission::ALL.into() } else { BTreeSet::new() };
        self.change_client(client_id, |client| client.permissions = permissions);
    }

    /// Grants or withdraws the consent to one thing. Holds for tokens issued from now on.
    pub fn set_permission(&self, client_id: &str, permission: Permission, granted: bool) {
        self.change_client(client_id, |client| {
            if granted {
                client.permissions.insert(permission);
            } else {
                client.permissions.remove(&permission);
            }
        });
    }

    /// The object id (GUID) of a mailbox: what stands for its address wherever Graph is asked.
    pub fn object_id(&self, address: &str) -> String {
        self.state().directory.object_id(address)
    }

    /// Adds an account, or changes its password. A lock is lifted.
    pub fn set_password(&self, user: &str, password: &str) {
        let mut state = self.state();
        let user = state.directory.users.entry(user.to_lowercase()).or_default();
        *user = User { password: password.to_owned(), wrong_passwords: 0, locked: false, ..user.clone() };
    }

    /// Removes an account: 50034 from now on.
    pub fn remove_user(&self, user: &str) {
        self.state().directory.users.remove(&user.to_lowercase());
    }

    /// Demands multi-factor authentication of an account, or no longer: 50076.
    pub fn set_mfa(&self, user: &str, demanded: bool) {
        self.change_user(user, |user| user.demands_mfa = demanded);
    }

    /// Locks an account, or unlocks it: 50053.
    pub fn set_locked(&self, user: &str, locked: bool) {
        self.change_user(user, |user| (user.locked, user.wrong_passwords) = (locked, 0));
    }

    /// Lets an account open every mailbox, as a delegate with full access, or only its own.
    pub fn set_full_access(&self, user: &str, full_access: bool) {
        self.change_user(user, |user| user.full_access = full_access);
    }

    /// Sets how long tokens live that are issued from now on; whole seconds. Dovecot looks at the end of a token only
    /// at sign-in: see [`Dovecot::kick`](crate::dovecot::Dovecot::kick) for the rest of what Exchange does.
    pub fn set_token_lifetime(&self, lifetime: Duration) {
        self.state().lifetime = lifetime;
    }

    /// The next `count` token requests meet `fault`, after those that were ordered before.
    pub fn fail_next(&self, count: usize, fault: Fault) {
        self.state().faults.extend(std::iter::repeat_n(fault, count));
    }

    /// Takes back every fault that no request has met yet.
    pub fn clear_faults(&self) {
        self.state().faults.clear();
    }

    /// Sign-ins of an account, or by an application (client id), since the start.
    pub fn sign_ins(&self, who: &str) -> SignIns {
        self.state().sign_ins.get(&who.to_lowercase()).copied().unwrap_or_default()
    }

    /// Stops listening, cuts all connections and waits for the end of all tasks.
    pub async fn stop(self) {
        self.stop.cancel();
        self.tasks.wait().await;
    }

    /// What judges tokens of this tenant, for a server that is handed them.
    pub(crate) fn judge(&self) -> Judge {
        Judge { shared: Arc::clone(&self.shared) }
    }

    fn change_client(&self, client_id: &str, change: impl FnOnce(&mut Client)) {
        if let Some(client) = self.state().directory.clients.get_mut(client_id) {
            change(client);
        }
    }

    fn change_user(&self, user: &str, change: impl FnOnce(&mut User)) {
        if let Some(user) = self.state().directory.users.get_mut(&user.to_lowercase()) {
            change(user);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state()
    }
}

impl Drop for Tenant {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Judges tokens of a tenant and knows its mailboxes.
#[derive(Clone, Debug)]
pub(crate) struct Judge {
    shared: Arc<Shared>,
}

impl Judge {
    /// What a token for `audience` says, when it is one of this tenant's that holds now.
    pub(crate) fn bearer(&self, token: &str, audience: &str) -> std::result::Result<Bearer, Unfit> {
        token::read(&self.shared.key, token, audience)
    }

    /// The mailbox that an object id or an address names.
    pub(crate) fn mailbox(&self, name: &str) -> Option<String> {
        self.shared.state().directory.mailbox(name)
    }
}

/// What the server's tasks and the handle share.
struct Shared {
    key: Vec<u8>,
    base: String,
    state: Mutex<State>,
    stop: CancellationToken,
}

struct State {
    directory: Directory,
    lifetime: Duration,
    faults: VecDeque<Fault>,
    /// By account and by client id, in lower case.
    sign_ins: HashMap<String, SignIns>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is locked; a poisoned state would still be whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("base", &self.base).finish_non_exhaustive()
    }
}

//! What is stored and what is asked for, put together by name. Pure but for the nonces of sealed secrets.
//!
//! A definition that the request names is replaced whole, except that a secret it leaves out stays. What the request
//! does not name stays as it is; nothing is ever removed.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use postroom_proto::reason::FieldFault;
use secrecy::{ExposeSecret as _, SecretString};

use super::model::{Address, Authentication, IncomingServer, Instance, Model, Queue};
use super::wire::Request;
use crate::access::vault::{self, Sealed, Vault};

/// The model as it would be, not yet validated. Definitions of the request come first, in its order.
#[derive(Debug, Default)]
pub(super) struct Draft {
    pub(super) instances: Vec<Drafted<Instance>>,
    pub(super) servers: Vec<Drafted<IncomingServer>>,
    pub(super) queues: Vec<Drafted<Queue>>,
    /// Names of servers whose way to sign in could not be read.
    pub(super) unread: HashSet<String>,
    /// What could not be read or put together.
    pub(super) faults: Vec<FieldFault>,
}

/// One definition of a draft.
#[derive(Debug)]
pub(super) struct Drafted<T> {
    /// Where it stands in the model file, for example `queues[3]`; one that is only stored is called by its name.
    pub(super) path: String,
    /// True when the request names it.
    pub(super) requested: bool,
    pub(super) stored: Option<Arc<T>>,
    pub(super) definition: Arc<T>,
}

/// Puts a request on top of what is stored. `mint` makes uids.
pub(super) fn merge(
    stored: &Model,
    request: Request,
    vault: &Vault,
    mint: &mut dyn FnMut() -> String,
) -> Result<Draft, vault::Error> {
    let mut draft = Draft { faults: request.faults, unread: request.unread, ..Draft::default() };

    for (n, mut instance) in request.instances.into_iter().enumerate() {
        let old = stored.instance_named(&instance.name).cloned();
        (instance.uid, instance.revision) = identity(old.as_ref().map(|old| (&old.uid, old.revision)), mint);
        draft.instances.push(Drafted::requested(format!("instances[{n}]"), old, instance));
    }
    let old = stored.instances().map(|old| (old.name.clone(), Arc::clone(old)));
    keep(&mut draft.instances, old, "instances", |it| &it.name);

    for (n, (mut server, secret)) in request.servers.into_iter().enumerate() {
        let path = format!("incomingServers[{n}]");
        let old = stored.server_named(&server.name).cloned();
        (server.uid, server.revision) = identity(old.as_ref().map(|old| (&old.uid, old.revision)), mint);
        let old_secret = old.as_ref().and_then(|old| old.secret.as_ref());
        server.secret = if server.authentication == Authentication::OauthService {
            choose(vault, &server.secret_owner(), old_secret, secret.as_ref())?
        } else {
            if secret.is_some() && !draft.unread.contains(&server.name) {
                let description = "only goes with oauth-service; leave it out";
                draft.faults.push(FieldFault { field: format!("{path}.secret"), description: description.into() });
            }
            None
        };
        draft.servers.push(Drafted::requested(path, old, server));
    }
    let old = stored.servers().map(|old| (old.name.clone(), Arc::clone(old)));
    keep(&mut draft.servers, old, "incomingServers", |it| &it.name);

    let authentication: HashMap<&str, Authentication> =
        draft.servers.iter().rev().map(|it| (it.definition.name.as_str(), it.definition.authentication)).collect();
    for (n, (mut queue, passwords)) in request.queues.into_iter().enumerate() {
        let path = format!("queues[{n}]");
        let old = stored.queue_named(&queue.name).cloned();
        (queue.uid, queue.revision) = identity(old.as_ref().map(|old| (&old.uid, old.revision)), mint);
        let old_addresses = old.as_ref().map_or(&[][..], |old| &old.addresses);
        let counterparts = counterparts(old_addresses, &queue.addresses);
        for (k, password) in passwords.into_iter().enumerate() {
            let by_service =
                authentication.get(queue.addresses[k].server.as_str()) == Some(&Authentication::OauthService);
            queue.addresses[k].password = if by_service {
                if password.is_some() {
                    let description = "only goes with oauth-user and password; leave it out";
                    let field = format!("{path}.addresses[{k}].password");
                    draft.faults.push(FieldFault { field, description: description.into() });
                }
                None
            } else {
                let owner = queue.password_owner(&queue.addresses[k]);
                let old = counterparts[k].and_then(|old| old_addresses[old].password.as_ref());
                choose(vault, &owner, old, password.as_ref())?
            };
        }
        draft.queues.push(Drafted::requested(path, old, queue));
    }
    let old = stored.queues().map(|old| (old.name.clone(), Arc::clone(old)));
    keep(&mut draft.queues, old, "queues", |it| &it.name);
    Ok(draft)
}

/// For each new address the index of the stored one that it continues: the same mailbox if there is one, else one of
/// the same e-mail, so that a password outlives a change of folder or server.
pub(super) fn counterparts(old: &[Address], new: &[Address]) -> Vec<Option<usize>> {
    let same_email = |a: &Address, b: &Address| a.email.to_lowercase() == b.email.to_lowercase();
    let same = |a: &Address, b: &Address| same_email(a, b) && a.folder() == b.folder() && a.server == b.server;
    let mut by_email: HashMap<String, Vec<usize>> = HashMap::new();
    for (index, address) in old.iter().enumerate() {
        by_email.entry(address.email.to_lowercase()).or_default().push(index);
    }
    let mut free = vec![true; old.len()];
    let mut found = vec![None; new.len()];
    for exact in [true, false] {
        for (address, found) in new.iter().zip(&mut found).filter(|(_, found)| found.is_none()) {
            let candidates = by_email.get(&address.email.to_lowercase()).map_or(&[][..], Vec::as_slice);
            let candidate = candidates.iter().copied().find(|&n| free[n] && (!exact || same(&old[n], address)));
            if let Some(index) = candidate {
                free[index] = false;
                *found = Some(index);
            }
        }
    }
    found
}

impl<T> Drafted<T> {
    fn requested(path: String, stored: Option<Arc<T>>, definition: T) -> Self {
        Self { path, requested: true, stored, definition: Arc::new(definition) }
    }
}

/// Adds what is stored and not requested.
fn keep<T>(
    drafted: &mut Vec<Drafted<T>>,
    stored: impl Iterator<Item = (String, Arc<T>)>,
    list: &str,
    name: impl Fn(&T) -> &str,
) {
    let requested: HashSet<String> = drafted.iter().map(|it| name(&it.definition).to_owned()).collect();
    for (name, definition) in stored.filter(|(name, _)| !requested.contains(name)) {
        let path = format!("{list}[{name:?}]");
        drafted.push(Drafted { path, requested: false, stored: Some(Arc::clone(&definition)), definition });
    }
}

fn identity(stored: Option<(&String, u64)>, mint: &mut dyn FnMut() -> String) -> (String, u64) {
    stored.map_or_else(|| (mint(), 0), |(uid, revision)| (uid.clone(), revision))
}

/// The stored secret if none is asked for or it is the same; else the new one, sealed.
fn choose(
    vault: &Vault,
    owner: &str,
    stored: Option<&Sealed>,
    asked: Option<&SecretString>,
) -> Result<Option<Sealed>, vault::Error> {
    let Some(asked) = asked else { return Ok(stored.cloned()) };
    if let Some(stored) = stored
        // One that cannot be opened any more is replaced, which is how an operator mends a lost key.
        && let Ok(opened) = vault.open(owner, stored)
        && opened.expose_secret() == asked.expose_secret()
    {
        return Ok(Some(stored.clone()));
    }
    vault.seal(owner, asked).map(Some)
}

//! What is stored and what is asked for, put together by name. Pure but for the nonces of sealed secrets.
//!
//! A definition that the request names is replaced whole, except that a secret it leaves out stays. What the request
//! does not name stays as it is, unless it is to be removed.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use postroom_proto::reason::{Failure, FieldFault, Reason};
use postroom_proto::v1;
use secrecy::ExposeSecret as _;

use super::model::{Address, Authentication, IncomingServer, Instance, Model, OutgoingServer, Queue, System};
use super::object::{Definition, Kind};
use super::rename::unknown_noun;
use super::wire::{Asked, Request};
use crate::access::vault::{self, Sealed, Vault};

/// The model as it would be, not yet validated. Definitions of the request come first, in its order.
#[derive(Debug, Default)]
pub(super) struct Draft {
    pub(super) system: Arc<System>,
    pub(super) instances: Vec<Drafted<Instance>>,
    pub(super) servers: Vec<Drafted<IncomingServer>>,
    pub(super) outgoing: Vec<Drafted<OutgoingServer>>,
    pub(super) queues: Vec<Drafted<Queue>>,
    /// What is stored and will not be any more, by kind and name, with the path of what asks for it.
    pub(super) removed: HashMap<(Kind, String), String>,
    /// Names of incoming servers whose way to sign in could not be read.
    pub(super) unread: HashSet<String>,
    /// The same of outgoing servers.
    pub(super) unread_outgoing: HashSet<String>,
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
    pub(super) definition: Arc<T>,
}

/// What is to be removed.
#[derive(Debug, Default)]
pub(super) struct Removals<'a> {
    /// Everything that the request does not name.
    pub(super) prune: bool,
    pub(super) named: &'a [v1::DefinitionName],
}

/// What a removal that nobody asked for by name is called.
pub(super) const PRUNE: &str = "prune";

impl Draft {
    /// A model as it stands, to be held to the rules of today.
    pub(super) fn of(model: &Model) -> Self {
        let mut draft = Self { system: Arc::clone(model.system()), ..Self::default() };
        draft.keep(model, &HashSet::new());
        draft
    }

    /// Everything, in order.
    pub(super) fn into_definitions(self) -> impl Iterator<Item = Definition> {
        let system = std::iter::once(Definition::System(self.system));
        let instances = self.instances.into_iter().map(|it| Definition::Instance(it.definition));
        let servers = self.servers.into_iter().map(|it| Definition::IncomingServer(it.definition));
        let outgoing = self.outgoing.into_iter().map(|it| Definition::OutgoingServer(it.definition));
        let queues = self.queues.into_iter().map(|it| Definition::Queue(it.definition));
        system.chain(instances).chain(servers).chain(outgoing).chain(queues)
    }

    /// Adds what is stored and neither requested nor removed.
    fn keep(&mut self, stored: &Model, removed: &HashSet<(Kind, String)>) {
        let kept = |kind: Kind, name: &str| !removed.contains(&(kind, name.to_owned()));
        let instances = stored.instances().filter(|it| kept(Kind::Instance, &it.name));
        keep(&mut self.instances, instances, "instances", |it| &it.name);
        let servers = stored.servers().filter(|it| kept(Kind::IncomingServer, &it.name));
        keep(&mut self.servers, servers, "incomingServers", |it| &it.name);
        let outgoing = stored.outgoing().filter(|it| kept(Kind::OutgoingServer, &it.name));
        keep(&mut self.outgoing, outgoing, "outgoingServers", |it| &it.name);
        let queues = stored.queues().filter(|it| kept(Kind::Queue, &it.name));
        keep(&mut self.queues, queues, "queues", |it| &it.name);
    }
}

/// Puts a request on top of what is stored. `mint` makes uids.
pub(super) fn merge(
    stored: &Model,
    request: Request,
    removals: &Removals<'_>,
    vault: &Vault,
    mint: &mut dyn FnMut() -> String,
) -> Result<Draft, Failure> {
    let mut draft = Draft {
        faults: request.faults,
        unread: request.unread,
        unread_outgoing: request.unread_outgoing,
        ..Draft::default()
    };
    draft.system = match request.system {
        // What says the same is the same, whichever revision it is of.
        Some(asked) => Arc::new(System { revision: stored.system().revision, ..asked }),
        None if removals.prune => Arc::new(System { revision: stored.system().revision, ..System::default() }),
        None => Arc::clone(stored.system()),
    };

    for (n, mut instance) in request.instances.into_iter().enumerate() {
        let old = stored.instance_named(&instance.name);
        (instance.uid, instance.revision) = identity(old.map(|old| (&old.uid, old.revision)), mint);
        draft.instances.push(Drafted::requested(format!("instances[{n}]"), instance));
    }

    for (n, (mut server, secret)) in request.servers.into_iter().enumerate() {
        let path = format!("incomingServers[{n}]");
        let old = stored.server_named(&server.name);
        (server.uid, server.revision) = identity(old.map(|old| (&old.uid, old.revision)), mint);
        let old_secret = old.and_then(|old| old.secret.as_ref());
        server.secret = if server.authentication == Authentication::OauthService {
            choose(vault, &server.secret_owner(), old_secret, &secret)?
        } else {
            let known = !draft.unread.contains(&server.name);
            draft.faults.extend(superfluous(known, &secret, format!("{path}.secret"), "oauth-service"));
            None
        };
        draft.servers.push(Drafted::requested(path, server));
    }

    for (n, (mut server, password, secret)) in request.outgoing.into_iter().enumerate() {
        let path = format!("outgoingServers[{n}]");
        let old = stored.outgoing_named(&server.name);
        (server.uid, server.revision) = identity(old.map(|old| (&old.uid, old.revision)), mint);
        let known = !draft.unread_outgoing.contains(&server.name);
        if server.keeps_secret() {
            let old = old.and_then(|old| old.secret.as_ref());
            server.secret = choose(vault, &server.secret_owner(), old, &secret)?;
        } else {
            let with = "oauth-service that shares no registration";
            draft.faults.extend(superfluous(known, &secret, format!("{path}.secret"), with));
        }
        if server.keeps_password() {
            let old = old.and_then(|old| old.password.as_ref());
            server.password = choose(vault, &server.password_owner(), old, &password)?;
        } else {
            let field = format!("{path}.password");
            draft.faults.extend(superfluous(known, &password, field, "oauth-user and password"));
        }
        draft.outgoing.push(Drafted::requested(path, server));
    }

    let authentication: HashMap<String, Authentication> = {
        let drafted = draft.servers.iter().rev().map(|it| &it.definition);
        let all = stored.servers().chain(drafted);
        all.map(|it| (it.name.clone(), it.authentication)).collect()
    };
    for (n, (mut queue, passwords)) in request.queues.into_iter().enumerate() {
        let path = format!("queues[{n}]");
        let old = stored.queue_named(&queue.name);
        (queue.uid, queue.revision) = identity(old.map(|old| (&old.uid, old.revision)), mint);
        let old_addresses = old.map_or(&[][..], |old| &old.addresses);
        let counterparts = counterparts(old_addresses, &queue.addresses);
        for (k, password) in passwords.into_iter().enumerate() {
            let by_service = authentication.get(&queue.addresses[k].server) == Some(&Authentication::OauthService);
            queue.addresses[k].password = if by_service {
                let field = format!("{path}.addresses[{k}].password");
                draft.faults.extend(superfluous(true, &password, field, "oauth-user and password"));
                None
            } else {
                let owner = queue.password_owner(&queue.addresses[k]);
                match (counterparts[k].map(|old| &old_addresses[old]), &password) {
                    (None, Asked::Keep) => brought(vault, stored, &queue.addresses[k], &owner)?,
                    (old, _) => choose(vault, &owner, old.and_then(|old| old.password.as_ref()), &password)?,
                }
            };
        }
        draft.queues.push(Drafted::requested(path, queue));
    }

    draft.removed = removed(stored, &mut draft, removals)?;
    let removed = draft.removed.keys().cloned().collect();
    draft.keep(stored, &removed);
    Ok(draft)
}

/// What is stored and not to be kept, with the path of what asks for it.
fn removed(
    stored: &Model,
    draft: &mut Draft,
    removals: &Removals<'_>,
) -> Result<HashMap<(Kind, String), String>, Failure> {
    let mut removed = HashMap::new();
    if !removals.prune && removals.named.is_empty() {
        return Ok(removed);
    }
    let requested: HashSet<(Kind, String)> = {
        let instances = draft.instances.iter().map(|it| (Kind::Instance, it.definition.name.clone()));
        let servers = draft.servers.iter().map(|it| (Kind::IncomingServer, it.definition.name.clone()));
        let outgoing = draft.outgoing.iter().map(|it| (Kind::OutgoingServer, it.definition.name.clone()));
        let queues = draft.queues.iter().map(|it| (Kind::Queue, it.definition.name.clone()));
        instances.chain(servers).chain(outgoing).chain(queues).collect()
    };
    let all: HashSet<(Kind, String)> = {
        let instances = stored.instances().map(|it| (Kind::Instance, it.name.clone()));
        let servers = stored.servers().map(|it| (Kind::IncomingServer, it.name.clone()));
        let outgoing = stored.outgoing().map(|it| (Kind::OutgoingServer, it.name.clone()));
        let queues = stored.queues().map(|it| (Kind::Queue, it.name.clone()));
        instances.chain(servers).chain(outgoing).chain(queues).collect()
    };
    if removals.prune {
        removed.extend(all.difference(&requested).map(|it| (it.clone(), PRUNE.to_owned())));
    }
    for (n, named) in removals.named.iter().enumerate() {
        let path = format!("removals[{n}]");
        let Some(kind) = Kind::of_noun(&named.noun) else {
            draft.faults.push(unknown_noun(format!("{path}.noun"), &named.noun));
            continue;
        };
        let key = (kind, named.name.trim().to_owned());
        if !all.contains(&key) {
            return Err(Failure::new(Reason::NotFound, format!("there is no {} {:?} to remove", kind.noun(), key.1)));
        }
        if requested.contains(&key) {
            let description =
                format!("names {} {:?}, which the model names too; do one of the two", kind.noun(), key.1);
            draft.faults.push(FieldFault { field: path, description });
            continue;
        }
        removed.insert(key, path);
    }
    Ok(removed)
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
    fn requested(path: String, definition: T) -> Self {
        Self { path, requested: true, definition: Arc::new(definition) }
    }
}

/// Adds what is not requested.
fn keep<'a, T: 'a>(
    drafted: &mut Vec<Drafted<T>>,
    stored: impl Iterator<Item = &'a Arc<T>>,
    list: &str,
    name: impl Fn(&T) -> &str,
) {
    let requested: HashSet<String> = drafted.iter().map(|it| name(&it.definition).to_owned()).collect();
    for definition in stored.filter(|it| !requested.contains(name(it))) {
        let path = format!("{list}[{:?}]", name(definition));
        drafted.push(Drafted { path, requested: false, definition: Arc::clone(definition) });
    }
}

fn identity(stored: Option<(&String, u64)>, mint: &mut dyn FnMut() -> String) -> (String, u64) {
    stored.map_or_else(|| (mint(), 0), |(uid, revision)| (uid.clone(), revision))
}

/// A secret that is set where none is kept. Clearing one that cannot be there does no harm.
fn superfluous(known: bool, asked: &Asked, field: String, with: &str) -> Option<FieldFault> {
    let is_set = matches!(asked, Asked::Set(_));
    (known && is_set).then(|| FieldFault { field, description: format!("only goes with {with}; leave it out") })
}

/// The password that an address had in another queue, so that it outlives a move. One that cannot be opened is left.
fn brought(vault: &Vault, stored: &Model, address: &Address, owner: &str) -> Result<Option<Sealed>, Failure> {
    let same = |it: &&Address| it.password.is_some() && it.email.to_lowercase() == address.email.to_lowercase();
    let mut former = stored.queues().filter_map(|queue| Some((queue, queue.addresses.iter().find(same)?)));
    let Some((queue, former)) = former.next() else { return Ok(None) };
    let opened = former.password.as_ref().and_then(|sealed| vault.open(&queue.password_owner(former), sealed).ok());
    opened.map_or(Ok(None), |password| choose(vault, owner, None, &Asked::Set(password)))
}

/// What is stored if nothing is asked for or it is the same; else the new secret, sealed, or none.
fn choose(vault: &Vault, owner: &str, stored: Option<&Sealed>, asked: &Asked) -> Result<Option<Sealed>, Failure> {
    let asked = match asked {
        Asked::Keep => return Ok(stored.cloned()),
        Asked::Clear => return Ok(None),
        Asked::Set(asked) => asked,
    };
    if let Some(stored) = stored
        // One that cannot be opened any more is replaced, which is how an operator mends a lost key.
        && let Ok(opened) = vault.open(owner, stored)
        && opened.expose_secret() == asked.expose_secret()
    {
        return Ok(Some(stored.clone()));
    }
    vault.seal(owner, asked).map(Some).map_err(|error: vault::Error| Failure::new(Reason::Internal, error.to_string()))
}

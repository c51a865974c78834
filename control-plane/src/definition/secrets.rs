//! The sealed secrets among definitions: which there are, under which keys, and the same under another. Pure.
//!
//! Invariant: every field that holds a sealed secret stands in `each`, once. A test compares that with what is stored.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::model::Model;
use super::object::Definition;
use super::plan;
use crate::access::vault::Sealed;

/// What people call a secret; made only for those of which something is told.
type Named<'n> = &'n dyn Fn() -> String;

/// Calls `visit` for each secret of a definition, with its owner in the vault and what people call it.
fn each(definition: &mut Definition, visit: &mut dyn FnMut(&str, Named<'_>, &mut Sealed)) {
    match definition {
        Definition::Instance(_) | Definition::System(_) => {}
        Definition::IncomingServer(server) => {
            let server = Arc::make_mut(server);
            let (owner, name) = (server.secret_owner(), server.name.clone());
            let what = || format!("secret of incoming server {name:?}");
            server.secret.iter_mut().for_each(|sealed| visit(&owner, &what, sealed));
        }
        Definition::OutgoingServer(server) => {
            let server = Arc::make_mut(server);
            let (owner, name) = (server.secret_owner(), server.name.clone());
            let what = || format!("secret of outgoing server {name:?}");
            server.secret.iter_mut().for_each(|sealed| visit(&owner, &what, sealed));
            let owner = server.password_owner();
            let what = || format!("password of outgoing server {name:?}");
            server.password.iter_mut().for_each(|sealed| visit(&owner, &what, sealed));
        }
        Definition::Queue(queue) => {
            let queue = Arc::make_mut(queue);
            let owners: Vec<String> = queue.addresses.iter().map(|address| queue.password_owner(address)).collect();
            for (address, owner) in queue.addresses.iter_mut().zip(owners) {
                let (email, name) = (&address.email, &queue.name);
                let what = || format!("password of {email} in queue {name:?}");
                address.password.iter_mut().for_each(|sealed| visit(&owner, &what, sealed));
            }
        }
    }
}

/// True when a definition has a secret at all: few have, and looking costs nothing.
fn has_any(definition: &Definition) -> bool {
    match definition {
        Definition::Instance(_) | Definition::System(_) => false,
        Definition::IncomingServer(server) => server.secret.is_some(),
        Definition::OutgoingServer(server) => server.secret.is_some() || server.password.is_some(),
        Definition::Queue(queue) => queue.addresses.iter().any(|address| address.password.is_some()),
    }
}

/// A secret of a definition.
pub(super) struct Found<'a> {
    /// Its owner in the vault.
    pub(super) owner: &'a str,
    /// What people call it.
    pub(super) what: &'a dyn Fn() -> String,
    pub(super) sealed: &'a Sealed,
}

/// The definition with the secrets that `change` gives another form. `None`: all stay as they are.
pub(super) fn changed(
    definition: &Definition,
    mut change: impl FnMut(Found<'_>) -> Option<Sealed>,
) -> Option<Definition> {
    if !has_any(definition) {
        return None;
    }
    let mut copy = definition.clone();
    let mut differs = false;
    each(&mut copy, &mut |owner, what, sealed| {
        if let Some(other) = change(Found { owner, what, sealed }) {
            *sealed = other;
            differs = true;
        }
    });
    differs.then_some(copy)
}

/// The keys that the secrets of a model name.
pub fn keys(model: &Model) -> BTreeSet<String> {
    let mut keys = BTreeSet::new();
    for definition in plan::definitions(model) {
        changed(&definition, |found| {
            if !keys.contains(&found.sealed.key_id) {
                keys.insert(found.sealed.key_id.clone());
            }
            None
        });
    }
    keys
}

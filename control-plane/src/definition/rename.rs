//! Definitions that get another name, with whatever refers to them. Pure.

use std::sync::Arc;

use postroom_proto::reason::{Failure, FieldFault, Reason};
use postroom_proto::v1;

use super::model::{Model, Parts};
use super::object::Kind;

/// The stored model under its new names. Revisions stay; whoever compares sees what changed.
pub(super) fn rename(stored: &Model, renames: &[v1::Rename]) -> Result<Model, Failure> {
    let mut parts = stored.parts();
    let mut faults = Vec::new();
    for (n, rename) in renames.iter().enumerate() {
        let path = format!("renames[{n}]");
        let definition = rename.definition.clone().unwrap_or_default();
        let (old, new) = (definition.name.trim(), rename.new_name.trim());
        let Some(kind) = Kind::of_noun(&definition.noun) else {
            faults.push(unknown_noun(format!("{path}.definition.noun"), &definition.noun));
            continue;
        };
        if old == new {
            continue;
        }
        if !apply(&mut parts, kind, old, new) {
            return Err(Failure::new(Reason::NotFound, format!("there is no {} {old:?} to rename", kind.noun())));
        }
    }
    if faults.is_empty() {
        Ok(Model::new(stored.revision(), checked(parts, renames)?))
    } else {
        Err(Failure::invalid(faults))
    }
}

pub(super) fn unknown_noun(field: String, noun: &str) -> FieldFault {
    let description =
        format!("{noun:?} is no noun of a definition; write instance, incoming-server, outgoing-server or queue");
    FieldFault { field, description }
}

/// Two definitions of one name cannot both be kept, so that is found here and not with the other faults.
fn checked(parts: Parts, renames: &[v1::Rename]) -> Result<Parts, Failure> {
    fn twice<'a>(names: impl Iterator<Item = &'a String>) -> Option<&'a String> {
        let mut seen = std::collections::HashSet::new();
        let mut names = names;
        names.find(|name| !seen.insert(*name))
    }
    let taken = [
        (Kind::Instance, twice(parts.instances.iter().map(|it| &it.name))),
        (Kind::IncomingServer, twice(parts.servers.iter().map(|it| &it.name))),
        (Kind::OutgoingServer, twice(parts.outgoing.iter().map(|it| &it.name))),
        (Kind::Queue, twice(parts.queues.iter().map(|it| &it.name))),
    ];
    let faults: Vec<FieldFault> = taken
        .into_iter()
        .filter_map(|(kind, name)| Some((kind, name?)))
        .map(|(kind, name)| {
            let noun = kind.noun();
            let of = |it: &v1::Rename| {
                it.new_name.trim() == name && it.definition.as_ref().is_some_and(|definition| definition.noun == noun)
            };
            let n = renames.iter().position(of).unwrap_or_default();
            let description = format!("{name:?} is the name of another {noun}; write another");
            FieldFault { field: format!("renames[{n}].newName"), description }
        })
        .collect();
    if faults.is_empty() { Ok(parts) } else { Err(Failure::invalid(faults)) }
}

/// False: there is no such definition.
fn apply(parts: &mut Parts, kind: Kind, old: &str, new: &str) -> bool {
    fn set<T: Clone + Named>(all: &mut [Arc<T>], name: impl Fn(&mut T) -> &mut String, old: &str, new: &str) -> bool {
        match all.iter_mut().find(|it| it.name() == old) {
            Some(found) => {
                *name(Arc::make_mut(found)) = new.to_owned();
                true
            }
            None => false,
        }
    }
    let found = match kind {
        Kind::Instance => set(&mut parts.instances, |it| &mut it.name, old, new),
        Kind::IncomingServer => set(&mut parts.servers, |it| &mut it.name, old, new),
        Kind::OutgoingServer => set(&mut parts.outgoing, |it| &mut it.name, old, new),
        Kind::Queue => set(&mut parts.queues, |it| &mut it.name, old, new),
        Kind::System => false,
    };
    if found {
        refer(parts, kind, old, new);
    }
    found
}

fn refer(parts: &mut Parts, kind: Kind, old: &str, new: &str) {
    match kind {
        Kind::Instance => {
            for queue in parts.queues.iter_mut().filter(|queue| queue.instance == old) {
                Arc::make_mut(queue).instance = new.to_owned();
            }
        }
        Kind::IncomingServer => {
            for queue in parts.queues.iter_mut().filter(|queue| queue.addresses.iter().any(|it| it.server == old)) {
                let addresses = &mut Arc::make_mut(queue).addresses;
                addresses.iter_mut().filter(|it| it.server == old).for_each(|it| it.server = new.to_owned());
            }
            for server in parts.outgoing.iter_mut().filter(|server| server.registration == old) {
                Arc::make_mut(server).registration = new.to_owned();
            }
        }
        Kind::OutgoingServer | Kind::Queue | Kind::System => {}
    }
}

trait Named {
    fn name(&self) -> &str;
}

macro_rules! named {
    ($($type:ident),*) => {$(
        impl Named for super::model::$type {
            fn name(&self) -> &str {
                &self.name
            }
        }
    )*};
}

named!(Instance, IncomingServer, OutgoingServer, Queue);

//! What an apply changes, definition by definition. Pure.

use std::collections::HashMap;

use postroom_proto::v1;

use super::fields;
use super::merge::Draft;
use super::model::{Model, Parts};
use super::object::Definition;

/// What an apply would do.
#[derive(Debug)]
pub(super) struct Plan {
    /// The model afterwards. With the stored revision when nothing changes.
    pub(super) model: Model,
    /// In the order of the request; removals last.
    pub(super) changes: Vec<v1::Change>,
}

/// Compares a valid draft with what is stored. What is unchanged stays as it is stored; the rest is stamped with the
/// new revision.
pub(super) fn plan(stored: &Model, draft: Draft) -> Plan {
    let next = stored.revision() + 1;
    let before = definitions(stored);
    let before: HashMap<&str, &Definition> = before.iter().map(|it| (it.uid(), it)).collect();
    let mut gone = before.clone();
    let mut changes = Vec::new();
    let mut after = Vec::with_capacity(before.len());
    for definition in draft.into_definitions() {
        let old = gone.remove(definition.uid());
        if let Some(old) = old.filter(|old| old.same(&definition)) {
            after.push(old.clone());
            continue;
        }
        match (fields::diff(old, Some(&definition)), old) {
            (None, Some(old)) => after.push(old.clone()),
            (change, _) => {
                changes.extend(change);
                after.push(definition.stamped(next));
            }
        }
    }
    let mut gone: Vec<&Definition> = gone.into_values().collect();
    gone.sort_by(|a, b| (a.kind(), a.name()).cmp(&(b.kind(), b.name())));
    changes.extend(gone.into_iter().filter_map(|old| fields::diff(Some(old), None)));
    let revision = if changes.is_empty() { stored.revision() } else { next };
    Plan { model: Model::new(revision, assemble(after)), changes }
}

/// Every definition of a model; system settings too, changed or not.
pub(super) fn definitions(model: &Model) -> Vec<Definition> {
    let parts = model.parts();
    let mut all = vec![Definition::System(parts.system)];
    all.extend(parts.instances.into_iter().map(Definition::Instance));
    all.extend(parts.servers.into_iter().map(Definition::IncomingServer));
    all.extend(parts.outgoing.into_iter().map(Definition::OutgoingServer));
    all.extend(parts.queues.into_iter().map(Definition::Queue));
    all
}

/// The other way round.
pub(super) fn assemble(definitions: impl IntoIterator<Item = Definition>) -> Parts {
    let mut parts = Parts::default();
    for definition in definitions {
        match definition {
            Definition::System(it) => parts.system = it,
            Definition::Instance(it) => parts.instances.push(it),
            Definition::IncomingServer(it) => parts.servers.push(it),
            Definition::OutgoingServer(it) => parts.outgoing.push(it),
            Definition::Queue(it) => parts.queues.push(it),
        }
    }
    parts
}

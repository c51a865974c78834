//! What an apply changes, field by field.

use std::sync::Arc;

use postroom_proto::v1;

use super::merge::{Draft, Drafted, counterparts};
use super::model::{Address, IncomingServer, Instance, Model, Queue};

/// What an apply would do.
#[derive(Debug)]
pub(super) struct Plan {
    /// The model afterwards. With the stored revision when nothing changes.
    pub(super) model: Model,
    /// In the order of the request.
    pub(super) changes: Vec<v1::Change>,
}

/// Compares a valid draft with what is stored.
pub(super) fn plan(stored: &Model, draft: Draft) -> Plan {
    let next = stored.revision() + 1;
    let mut changes = Vec::new();
    let instances = settle(
        draft.instances,
        "instance",
        &instance_fields,
        &mut changes,
        |it| &it.name,
        |it| {
            it.revision = next;
        },
    );
    let servers = settle(
        draft.servers,
        "incoming-server",
        &server_fields,
        &mut changes,
        |it| &it.name,
        |it| {
            it.revision = next;
        },
    );
    let queues = settle(draft.queues, "queue", &queue_fields, &mut changes, |it| &it.name, |it| it.revision = next);
    let revision = if changes.is_empty() { stored.revision() } else { next };
    Plan { model: Model::new(revision, instances, servers, queues), changes }
}

/// Keeps what is unchanged as it is stored; stamps the rest with the new revision.
fn settle<T: Clone>(
    drafted: Vec<Drafted<T>>,
    noun: &str,
    fields: &dyn Fn(&T, &T) -> Vec<String>,
    changes: &mut Vec<v1::Change>,
    name: impl Fn(&T) -> &str,
    stamp: impl Fn(&mut T),
) -> Vec<Arc<T>> {
    let mut settled = Vec::with_capacity(drafted.len());
    for Drafted { requested, stored, mut definition, .. } in drafted {
        let (kind, fields) = match &stored {
            None => (v1::change::Kind::Create, Vec::new()),
            Some(stored) => {
                (v1::change::Kind::Update, if requested { fields(stored, &definition) } else { Vec::new() })
            }
        };
        match stored {
            Some(stored) if fields.is_empty() => settled.push(stored),
            _ => {
                let (kind, name) = (kind.into(), name(&definition).to_owned());
                changes.push(v1::Change { kind, noun: noun.into(), name, fields });
                stamp(Arc::make_mut(&mut definition));
                settled.push(definition);
            }
        }
    }
    settled
}

fn instance_fields(old: &Instance, new: &Instance) -> Vec<String> {
    named(&[("pool", old.pool != new.pool), ("allocation", old.allocation != new.allocation)])
}

fn server_fields(old: &IncomingServer, new: &IncomingServer) -> Vec<String> {
    named(&[
        ("address", old.address != new.address),
        ("authentication", old.authentication != new.authentication),
        ("clientId", old.client_id != new.client_id),
        ("secret", old.secret != new.secret),
        ("imap.host", old.imap_host != new.imap_host),
        ("imap.port", old.imap_port != new.imap_port),
        ("imap.security", old.imap_security != new.imap_security),
        ("scope", old.scope != new.scope),
        ("caFile", old.ca_file != new.ca_file),
    ])
}

/// The order of addresses means nothing and is no change. An address that is gone is named by its e-mail.
fn queue_fields(old: &Queue, new: &Queue) -> Vec<String> {
    let mut fields = named(&[
        ("instance", old.instance != new.instance),
        ("language", old.language != new.language),
        ("priority", old.priority != new.priority),
        ("maxMessageBytes", old.max_message_bytes != new.max_message_bytes),
        ("start", old.start != new.start),
        ("afterIntake", old.after_intake != new.after_intake),
    ]);
    let counterparts = counterparts(&old.addresses, &new.addresses);
    let mut gone = vec![true; old.addresses.len()];
    for (n, (address, counterpart)) in new.addresses.iter().zip(counterparts).enumerate() {
        match counterpart {
            None => fields.push(format!("addresses[{n}]")),
            Some(index) => {
                gone[index] = false;
                let differing = address_fields(&old.addresses[index], address);
                fields.extend(differing.into_iter().map(|field| format!("addresses[{n}].{field}")));
            }
        }
    }
    let gone = old.addresses.iter().zip(gone).filter(|(_, gone)| *gone);
    fields.extend(gone.map(|(address, _)| format!("addresses[{}]", address.email)));
    fields
}

fn address_fields(old: &Address, new: &Address) -> Vec<String> {
    named(&[
        ("email", old.email != new.email),
        ("priority", old.priority != new.priority),
        ("language", old.language != new.language),
        ("account", old.account != new.account),
        ("password", old.password != new.password),
        ("sender", old.sender != new.sender),
        ("server", old.server != new.server),
        ("folder", old.folder != new.folder),
    ])
}

fn named(fields: &[(&str, bool)]) -> Vec<String> {
    fields.iter().filter(|(_, differs)| *differs).map(|(name, _)| (*name).to_owned()).collect()
}

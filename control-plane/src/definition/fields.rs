//! What two states of a definition differ in, field by field, in the words of the model file. Pure.
//!
//! The list of a definition's fields stands here once; creating, changing, removing, history and diffs all come of it.

use postroom_proto::{duration, v1};
use serde::Serialize;

use super::merge::counterparts;
use super::model::{
    Address, AfterIntake, BacklogGuard, IncomingServer, Instance, OutgoingServer, Queue, Start, System,
};
use super::object::Definition;
use crate::access::vault::Sealed;
use postroom_proto::convert::to_timestamp;

/// Most characters of a value that is shown.
const SHOWN: usize = 200;

/// One field. Equal when `value` is.
struct Field {
    path: String,
    /// Empty: not set. For a secret its identity, which is compared and not shown.
    value: String,
    secret: bool,
}

/// How one definition became another. `None`: nothing differs. Both must be of one kind.
pub(super) fn diff(old: Option<&Definition>, new: Option<&Definition>) -> Option<v1::Change> {
    use v1::change::Kind;
    let (kind, named, fields) = match (old, new) {
        (None, None) => return None,
        (None, Some(new)) => (Kind::Create, new, changed(&[], &of(new))),
        (Some(old), None) => (Kind::Delete, old, Vec::new()),
        (Some(old), Some(new)) => {
            let fields = differing(old, new);
            if fields.is_empty() {
                return None;
            }
            (Kind::Update, new, fields)
        }
    };
    // Its name stands beside the fields.
    let fields = fields.into_iter().filter(|field| kind == Kind::Update || field.field != "name").collect();
    Some(v1::Change { kind: kind.into(), noun: named.kind().noun().into(), name: named.name().into(), fields })
}

fn differing(old: &Definition, new: &Definition) -> Vec<v1::FieldChange> {
    let (Definition::Queue(old), Definition::Queue(new)) = (old, new) else { return changed(&of(old), &of(new)) };
    let mut fields = changed(&queue(old), &queue(new));
    // The order of addresses means nothing and is no change.
    let labels = Labels::of(&[&old.addresses, &new.addresses]);
    let counterparts = counterparts(&old.addresses, &new.addresses);
    let mut gone = vec![true; old.addresses.len()];
    for (now, counterpart) in new.addresses.iter().zip(counterparts) {
        let label = labels.label(now);
        match counterpart {
            None => fields.push(whole(label, None, Some(now))),
            Some(index) => {
                gone[index] = false;
                let differing = changed(&address(&old.addresses[index]), &address(now));
                fields.extend(
                    differing.into_iter().map(|it| v1::FieldChange { field: format!("{label}.{}", it.field), ..it }),
                );
            }
        }
    }
    let gone = old.addresses.iter().zip(gone).filter(|(_, gone)| *gone);
    fields.extend(gone.map(|(address, _)| whole(labels.label(address), Some(address), None)));
    fields
}

/// How addresses are called: by their e-mail, and by the folder too where an e-mail stands twice.
struct Labels(std::collections::HashSet<String>);

impl Labels {
    fn of(lists: &[&[Address]]) -> Self {
        let mut twice = std::collections::HashSet::new();
        for list in lists {
            let mut seen = std::collections::HashSet::new();
            twice.extend(list.iter().map(|it| it.email.to_lowercase()).filter(|email| !seen.insert(email.clone())));
        }
        Self(twice)
    }

    fn label(&self, address: &Address) -> String {
        match self.0.contains(&address.email.to_lowercase()) {
            true => format!("addresses[{} in {}]", address.email, address.folder()),
            false => format!("addresses[{}]", address.email),
        }
    }
}

/// An address that came or went, as one field.
fn whole(field: String, old: Option<&Address>, new: Option<&Address>) -> v1::FieldChange {
    let text = |it: &Address| {
        let fields = address(it).into_iter().filter(|field| field.path != "email" && !field.value.is_empty());
        let fields = fields.map(|field| format!("{}: {}", field.path, if field.secret { "set" } else { &field.value }));
        shown(&format!("{{{}}}", fields.collect::<Vec<_>>().join(", ")))
    };
    let (old_value, new_value) = (old.map(text).unwrap_or_default(), new.map(text).unwrap_or_default());
    v1::FieldChange { field, old_value, new_value, secret: false }
}

/// Fields that differ. Both lists name the same fields in the same order, or the first is empty.
fn changed(old: &[Field], new: &[Field]) -> Vec<v1::FieldChange> {
    let shown = |field: &Field| match field.secret {
        true if !field.value.is_empty() => "set".to_owned(),
        _ => shown(&field.value),
    };
    let before = |n: usize| old.get(n).filter(|old| !old.value.is_empty());
    let fields = new.iter().enumerate().filter(|(n, it)| before(*n).map_or("", |old| &old.value) != it.value);
    let fields = fields.map(|(n, it)| v1::FieldChange {
        field: it.path.clone(),
        old_value: before(n).map(shown).unwrap_or_default(),
        new_value: shown(it),
        secret: it.secret,
    });
    fields.collect()
}

fn shown(value: &str) -> String {
    match value.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &value[..end]),
        None => value.to_owned(),
    }
}

fn of(definition: &Definition) -> Vec<Field> {
    match definition {
        Definition::System(it) => system(it),
        Definition::Instance(it) => instance(it),
        Definition::IncomingServer(it) => incoming(it),
        Definition::OutgoingServer(it) => outgoing(it),
        Definition::Queue(it) => {
            let labels = Labels::of(&[&it.addresses]);
            let addresses = it.addresses.iter().map(|address| whole(labels.label(address), None, Some(address)));
            let mut fields = queue(it);
            fields.extend(addresses.map(|it| Field { path: it.field, value: it.new_value, secret: false }));
            fields
        }
    }
}

fn system(system: &System) -> Vec<Field> {
    vec![text("language", &system.language), number("priority", system.priority)]
}

fn instance(instance: &Instance) -> Vec<Field> {
    vec![text("name", &instance.name), text("pool", &instance.pool), word("allocation", &instance.allocation)]
}

fn incoming(server: &IncomingServer) -> Vec<Field> {
    vec![
        text("name", &server.name),
        text("address", &server.address),
        word("authentication", &server.authentication),
        text("clientId", &server.client_id),
        secret("secret", server.secret.as_ref()),
        text("secretExpires", &server.secret_expires),
        text("imap.host", &server.imap_host),
        number("imap.port", server.imap_port),
        word("imap.security", &server.imap_security),
        text("scope", &server.scope),
        text("caFile", &server.ca_file),
        text("proxy", &server.proxy),
    ]
}

fn outgoing(server: &OutgoingServer) -> Vec<Field> {
    vec![
        text("name", &server.name),
        text("enabled", if server.enabled { "true" } else { "false" }),
        text("server", &server.server),
        word("authentication", &server.authentication),
        text("user", &server.user),
        secret("password", server.password.as_ref()),
        text("clientId", &server.client_id),
        secret("secret", server.secret.as_ref()),
        text("registration", &server.registration),
        server.transport.map_or_else(|| text("transport", ""), |transport| word("transport", &transport)),
        text("smtp.host", &server.smtp_host),
        number("smtp.port", server.smtp_port),
        server.smtp_security.map_or_else(|| text("smtp.security", ""), |security| word("smtp.security", &security)),
        text("graphHost", &server.graph_host),
        text("scope", &server.scope),
        text("caFile", &server.ca_file),
        text("proxy", &server.proxy),
        server.sent_copy.map_or_else(|| text("sentCopy", ""), |copy| word("sentCopy", &copy)),
        text("sentFolder", &server.sent_folder),
    ]
}

/// Without its addresses.
fn queue(queue: &Queue) -> Vec<Field> {
    let start = match queue.start {
        Start::Unseen => "unseen".to_owned(),
        Start::New => "new".to_owned(),
        Start::All => "all".to_owned(),
        Start::Since(micros) => format!("{{since: {}}}", to_timestamp(micros)),
    };
    let after_intake = match &queue.after_intake {
        AfterIntake::Seen => "seen".to_owned(),
        AfterIntake::Move(folder) => format!("move:{folder}"),
        AfterIntake::Leave => "leave".to_owned(),
        AfterIntake::Delete(0) => "delete".to_owned(),
        AfterIntake::Delete(seconds) => format!("delete:{}", duration::write(*seconds)),
    };
    let backlog_guard = match queue.backlog_guard {
        None => String::new(),
        Some(BacklogGuard::Off) => "off".to_owned(),
        // Not by `number`: 0 is a guard, too.
        Some(BacklogGuard::MoreThan(count)) => count.to_string(),
    };
    vec![
        text("name", &queue.name),
        text("instance", &queue.instance),
        text("language", &queue.language),
        number("priority", queue.priority),
        number("maxMessageBytes", queue.max_message_bytes),
        text("start", &start),
        text("afterIntake", &after_intake),
        text("backlogGuard", &backlog_guard),
    ]
}

fn address(address: &Address) -> Vec<Field> {
    vec![
        text("email", &address.email),
        text("server", &address.server),
        number("priority", address.priority),
        text("language", &address.language),
        text("account", &address.account),
        secret("password", address.password.as_ref()),
        text("sender", if address.sender { "true" } else { "" }),
        text("folder", &address.folder),
    ]
}

fn text(path: &str, value: &str) -> Field {
    Field { path: path.into(), value: value.into(), secret: false }
}

/// 0 stands for a default, as on the wire.
fn number(path: &str, value: impl Into<u64>) -> Field {
    let value = value.into();
    text(path, &if value == 0 { String::new() } else { value.to_string() })
}

/// The stored words are those of the model file.
fn word(path: &str, value: &impl Serialize) -> Field {
    let value = serde_json::to_value(value).unwrap_or_default();
    text(path, value.as_str().unwrap_or_default())
}

fn secret(path: &str, sealed: Option<&Sealed>) -> Field {
    // One that was only sealed under another key is the same secret.
    let value = sealed.map(Sealed::identity).unwrap_or_default();
    Field { path: path.into(), value, secret: true }
}

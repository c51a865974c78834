//! From model to text.

use jiff::Timestamp;
use postroom_proto::{convert, duration, v1};

use super::{Address, File, Guard, IncomingServer, Instance, OutgoingServer, Queue, Start, System, Way};
use crate::error::{Error, Kind};
use crate::render::words;

/// The text of a model file that means `model`. Secrets and what only the control plane knows are left out.
pub fn write(model: &v1::Model) -> Result<String, Error> {
    let file = file(model);
    if file.is_empty() {
        // An empty mapping looks like a mistake, and is refused as one.
        return Ok("instances: []\nincomingServers: []\nqueues: []\n".into());
    }
    let options = serde_saphyr::ser_options! { compact_list_indent: false, prefer_block_scalars: false };
    serde_saphyr::to_string_with_options(&file, options)
        .map_err(|error| Error::new(Kind::Internal, format!("cannot write the model file: {error}")))
}

/// The file's form of a model.
pub(super) fn file(model: &v1::Model) -> File {
    fn list<T, U>(items: &[T], convert: impl Fn(&T) -> U) -> Option<Vec<U>> {
        (!items.is_empty()).then(|| items.iter().map(convert).collect())
    }
    File {
        system: model.system.as_ref().map(system),
        instances: list(&model.instances, instance),
        incoming_servers: list(&model.incoming_servers, server),
        outgoing_servers: list(&model.outgoing_servers, outgoing),
        queues: list(&model.queues, queue),
    }
}

fn system(system: &v1::System) -> System {
    System { language: text(&system.language), priority: number(system.priority) }
}

fn outgoing(server: &v1::OutgoingServer) -> OutgoingServer {
    let smtp = Way {
        host: text(&server.smtp_host),
        port: number(server.smtp_port),
        security: text(&words::smtp_security(server.smtp_security)),
    };
    OutgoingServer {
        name: server.name.clone(),
        enabled: server.enabled,
        server: text(&server.server),
        authentication: words::outgoing_authentication(server.authentication),
        user: text(&server.user),
        password: None,
        client_id: text(&server.client_id),
        secret: None,
        registration: text(&server.registration),
        transport: text(&words::transport(server.transport)),
        smtp: Some(smtp).filter(|smtp| *smtp != Way::default()),
        graph_host: text(&server.graph_host),
        scope: text(&server.scope),
        ca_file: text(&server.ca_file),
        proxy: text(&server.proxy),
        sent_copy: text(&words::sent_copy(server.sent_copy)),
        sent_folder: text(&server.sent_folder),
    }
}

fn instance(instance: &v1::Instance) -> Instance {
    Instance {
        name: instance.name.clone(),
        pool: text(&instance.pool),
        allocation: text(&words::allocation(instance.allocation)),
    }
}

fn server(server: &v1::IncomingServer) -> IncomingServer {
    let imap = Way {
        host: text(&server.imap_host),
        port: number(server.imap_port),
        security: text(&words::security(server.imap_security)),
    };
    IncomingServer {
        name: server.name.clone(),
        address: text(&server.address),
        authentication: words::authentication(server.authentication),
        client_id: text(&server.client_id),
        secret: None,
        protocol: Some("imap".into()),
        imap: Some(imap).filter(|imap| *imap != Way::default()),
        scope: text(&server.scope),
        ca_file: text(&server.ca_file),
        secret_expires: text(&server.secret_expires),
        proxy: text(&server.proxy),
    }
}

fn queue(queue: &v1::Queue) -> Queue {
    Queue {
        name: queue.name.clone(),
        instance: queue.instance.clone(),
        language: text(&queue.language),
        priority: number(queue.priority),
        max_message_bytes: number(queue.max_message_bytes),
        start: queue.start.as_ref().and_then(start),
        after_intake: queue.after_intake.as_ref().and_then(after_intake),
        backlog_guard: queue.backlog_guard.as_ref().map(backlog_guard),
        addresses: queue.addresses.iter().map(address).collect(),
    }
}

fn address(address: &v1::Address) -> Address {
    Address {
        email: address.email.clone(),
        priority: number(address.priority),
        language: text(&address.language),
        account: text(&address.account),
        password: None,
        sender: address.sender.then_some(true),
        server: address.server.clone(),
        folder: text(&address.folder),
    }
}

fn start(start: &v1::Start) -> Option<Start> {
    match &start.since_time {
        Some(time) if start.policy() == v1::StartPolicy::Since => {
            let time = Timestamp::from_microsecond(convert::from_timestamp(time)).ok()?;
            Some(Start::Since(time.to_string()))
        }
        _ => text(&words::start(start.policy)).map(Start::Word),
    }
}

/// `seen`, `leave`, `move:<folder>`, `delete` or `delete:<time>`.
pub(crate) fn after_intake(after: &v1::AfterIntake) -> Option<String> {
    match after.policy() {
        v1::AfterIntakePolicy::Move => Some(format!("move:{}", after.folder)),
        v1::AfterIntakePolicy::Delete => Some(match after.keep.as_ref().and_then(convert::from_duration) {
            None => "delete".to_owned(),
            Some(keep) => format!("delete:{}", duration::write(keep.as_secs())),
        }),
        _ => text(&words::after_intake(after.policy)),
    }
}

pub(crate) fn backlog_guard(guard: &v1::BacklogGuard) -> Guard {
    if guard.off { Guard::Off } else { Guard::MoreThan(guard.message_count) }
}

fn text(value: &str) -> Option<String> {
    (!value.is_empty()).then(|| value.to_owned())
}

fn number<T: Default + PartialEq + Copy>(value: T) -> Option<T> {
    (value != T::default()).then_some(value)
}

//! Definitions on the wire.
//!
//! Reading trims and normalises what can be; what cannot be read becomes a fault and a harmless stand-in, so that all
//! other faults are found in the same call.

use std::collections::HashSet;
use std::time::Duration;

use postroom_proto::convert::{from_timestamp, to_duration, to_timestamp};
use postroom_proto::reason::FieldFault;
use postroom_proto::v1;
use secrecy::SecretString;

use super::model::{
    Address, AfterIntake, Allocation, Authentication, BacklogGuard, IncomingServer, Instance, Model, OutgoingServer,
    Queue, Security, Start, System,
};
use super::normalise;

mod outgoing;

pub use self::outgoing::{outgoing_authentication, outgoing_server, smtp_security};

/// Longest time for which a message may be kept before it is deleted after intake: 10 years.
const LONGEST_KEEP_SECONDS: u64 = 10 * 366 * 24 * 3600;

/// What was asked for, before it meets what is stored. Uids, revisions and sealed secrets are still empty.
#[derive(Debug, Default)]
pub(super) struct Request {
    /// `None`: stay as they are.
    pub(super) system: Option<System>,
    pub(super) instances: Vec<Instance>,
    pub(super) servers: Vec<(IncomingServer, Asked)>,
    /// With password and secret.
    pub(super) outgoing: Vec<(OutgoingServer, Asked, Asked)>,
    /// With the password of each address.
    pub(super) queues: Vec<(Queue, Vec<Asked>)>,
    /// Names of incoming servers whose way to sign in could not be read; nothing can be said about their secrets.
    pub(super) unread: HashSet<String>,
    /// The same of outgoing servers.
    pub(super) unread_outgoing: HashSet<String>,
    pub(super) faults: Vec<FieldFault>,
}

/// What is to become of a stored secret.
#[derive(Debug, Default)]
pub(super) enum Asked {
    #[default]
    Keep,
    Clear,
    Set(SecretString),
}

/// Reads a request.
pub(super) fn read(model: v1::Model) -> Request {
    let mut faults = Vec::new();
    let mut fault = |field: String, description: String| faults.push(FieldFault { field, description });
    let unreadable = |it: &&v1::IncomingServer| read_authentication(it.authentication).is_none();
    let unread = model.incoming_servers.iter().filter(unreadable).map(|it| trim(&it.name)).collect();
    let unreadable = |it: &&v1::OutgoingServer| outgoing::read_authentication(it.authentication).is_none();
    let unread_outgoing = model.outgoing_servers.iter().filter(unreadable).map(|it| trim(&it.name)).collect();
    let system = model.system.map(|it| System { language: trim(&it.language), priority: it.priority, revision: 0 });
    let instances = model.instances.into_iter().enumerate();
    let instances = instances.map(|(n, it)| read_instance(it, &format!("instances[{n}]"), &mut fault)).collect();
    let servers = model.incoming_servers.into_iter().enumerate();
    let servers = servers.map(|(n, it)| read_server(it, &format!("incomingServers[{n}]"), &mut fault)).collect();
    let outgoing = model.outgoing_servers.into_iter().enumerate();
    let outgoing = outgoing.map(|(n, it)| outgoing::read(it, &format!("outgoingServers[{n}]"), &mut fault)).collect();
    let queues = model.queues.into_iter().enumerate();
    let queues = queues.map(|(n, it)| read_queue(it, &format!("queues[{n}]"), &mut fault)).collect();
    Request { system, instances, servers, outgoing, queues, unread, unread_outgoing, faults }
}

type Fault<'a> = dyn FnMut(String, String) + 'a;

fn read_instance(wire: v1::Instance, path: &str, fault: &mut Fault<'_>) -> Instance {
    use v1::AllocationPolicy as Wire;
    let allocation = match Wire::try_from(wire.allocation) {
        Ok(Wire::Unspecified | Wire::Strict) => Allocation::Strict,
        Ok(Wire::TargetTime) => Allocation::TargetTime,
        Err(_) => {
            fault(format!("{path}.allocation"), "is not known here; write strict or target-time".into());
            Allocation::Strict
        }
    };
    Instance { uid: String::new(), name: trim(&wire.name), pool: trim(&wire.pool), allocation, revision: 0 }
}

fn read_server(wire: v1::IncomingServer, path: &str, fault: &mut Fault<'_>) -> (IncomingServer, Asked) {
    let authentication = read_authentication(wire.authentication);
    if authentication.is_none() {
        let description = "is missing or not known here; write oauth-user, oauth-service or password";
        fault(format!("{path}.authentication"), description.into());
    }
    if !matches!(v1::Security::try_from(wire.imap_security), Ok(v1::Security::Unspecified | v1::Security::Tls)) {
        fault(format!("{path}.imap.security"), "is not known here; write tls".into());
    }
    let imap_port = read_port(wire.imap_port, path, "imap.port", fault);
    let mut address = trim(&wire.address);
    if matches!(authentication, Some(Authentication::OauthUser | Authentication::OauthService)) {
        match normalise::address(&address) {
            Ok(normal) => address = normal,
            Err(description) => fault(format!("{path}.address"), description),
        }
    }
    let proxy = read_proxy(&wire.proxy, path, fault);
    let secret_expires = trim(&wire.secret_expires);
    if !secret_expires.is_empty() && normalise::day(&secret_expires).is_none() {
        fault(format!("{path}.secretExpires"), "is no day; write one such as 2027-01-31, as Entra shows it".into());
    }
    let server = IncomingServer {
        uid: String::new(),
        name: trim(&wire.name),
        address,
        authentication: authentication.unwrap_or(Authentication::Password),
        client_id: trim(&wire.client_id),
        secret: None,
        imap_host: trim(&wire.imap_host).to_ascii_lowercase(),
        imap_port,
        imap_security: Security::Tls,
        scope: trim(&wire.scope),
        ca_file: trim(&wire.ca_file),
        proxy,
        secret_expires,
        revision: 0,
    };
    (server, secret(wire.secret, &format!("{path}.secret"), fault))
}

fn read_proxy(wire: &str, path: &str, fault: &mut Fault<'_>) -> String {
    match trim(wire).as_str() {
        "" => String::new(),
        written => normalise::proxy(written).unwrap_or_else(|description| {
            fault(format!("{path}.proxy"), description);
            // Not what was written: it may hold a password.
            String::new()
        }),
    }
}

fn read_port(wire: u32, path: &str, field: &str, fault: &mut Fault<'_>) -> u16 {
    u16::try_from(wire).unwrap_or_else(|_| {
        fault(format!("{path}.{field}"), format!("is {wire}; write a port from 1 to 65535"));
        0
    })
}

fn read_authentication(wire: i32) -> Option<Authentication> {
    use v1::Authentication as Wire;
    match Wire::try_from(wire) {
        Ok(Wire::OauthUser) => Some(Authentication::OauthUser),
        Ok(Wire::OauthService) => Some(Authentication::OauthService),
        Ok(Wire::Password) => Some(Authentication::Password),
        Ok(Wire::Unspecified) | Err(_) => None,
    }
}

fn read_queue(wire: v1::Queue, path: &str, fault: &mut Fault<'_>) -> (Queue, Vec<Asked>) {
    let start = read_start(wire.start.unwrap_or_default(), &format!("{path}.start"), fault);
    let after_intake = read_after_intake(wire.after_intake.unwrap_or_default(), &format!("{path}.afterIntake"), fault);
    let backlog_guard = wire.backlog_guard.and_then(|it| read_backlog_guard(it, path, fault));
    let mut passwords = Vec::with_capacity(wire.addresses.len());
    let mut addresses = Vec::with_capacity(wire.addresses.len());
    for (n, wire) in wire.addresses.into_iter().enumerate() {
        passwords.push(secret(wire.password, &format!("{path}.addresses[{n}].password"), fault));
        addresses.push(Address {
            email: trim(&wire.email),
            priority: wire.priority,
            language: trim(&wire.language),
            account: trim(&wire.account),
            password: None,
            sender: wire.sender,
            server: trim(&wire.server),
            folder: trim(&wire.folder),
        });
    }
    let queue = Queue {
        uid: String::new(),
        name: trim(&wire.name),
        instance: trim(&wire.instance),
        language: trim(&wire.language),
        priority: wire.priority,
        max_message_bytes: wire.max_message_bytes,
        start,
        after_intake,
        backlog_guard,
        addresses,
        revision: 0,
    };
    (queue, passwords)
}

fn read_start(wire: v1::Start, path: &str, fault: &mut Fault<'_>) -> Start {
    use v1::StartPolicy as Wire;
    let start = match (Wire::try_from(wire.policy), &wire.since_time) {
        (Ok(Wire::Unspecified | Wire::Unseen), _) => Start::Unseen,
        (Ok(Wire::New), _) => Start::New,
        (Ok(Wire::All), _) => Start::All,
        (Ok(Wire::Since), Some(time)) => Start::Since(from_timestamp(time)),
        (Ok(Wire::Since), None) => {
            let description = "is since, but names no time; write one, for example 2026-01-31T00:00:00Z";
            fault(path.into(), description.into());
            Start::Unseen
        }
        (Err(_), _) => {
            fault(path.into(), "is not known here; write unseen, new, all or since with a time".into());
            Start::Unseen
        }
    };
    if wire.since_time.is_some() && !matches!(start, Start::Since(_)) {
        fault(path.into(), "names a time, which only goes with since; write since, or leave the time out".into());
    }
    start
}

fn read_backlog_guard(wire: v1::BacklogGuard, path: &str, fault: &mut Fault<'_>) -> Option<BacklogGuard> {
    match (wire.off, wire.message_count) {
        (false, count) => Some(BacklogGuard::MoreThan(count)),
        (true, 0) => Some(BacklogGuard::Off),
        (true, count) => {
            fault(format!("{path}.backlogGuard"), format!("is off and {count} at one time; write one of them"));
            None
        }
    }
}

fn read_after_intake(wire: v1::AfterIntake, path: &str, fault: &mut Fault<'_>) -> AfterIntake {
    use v1::AfterIntakePolicy as Wire;
    let (folder, keep) = (trim(&wire.folder), wire.keep);
    if keep.is_some() && wire.policy != Wire::Delete as i32 {
        fault(path.into(), "names a time, which only goes with delete; write delete:30d, or leave the time out".into());
    }
    match Wire::try_from(wire.policy) {
        Ok(Wire::Move) => {
            if folder.is_empty() {
                fault(path.into(), "is move, but names no folder; write move:<folder>".into());
            }
            return AfterIntake::Move(folder);
        }
        Ok(_) if !folder.is_empty() => {
            fault(
                path.into(),
                "names a folder, which only goes with move; write move:<folder>, or leave it out".into(),
            );
        }
        Ok(Wire::Leave) => return AfterIntake::Leave,
        Ok(Wire::Delete) => return AfterIntake::Delete(keep.map_or(0, |keep| read_keep(&keep, path, fault))),
        Ok(Wire::Unspecified | Wire::Seen) => {}
        Err(_) => fault(path.into(), "is not known here; write seen, leave, delete or move:<folder>".into()),
    }
    AfterIntake::Seen
}

/// In seconds.
fn read_keep(wire: &prost_types::Duration, path: &str, fault: &mut Fault<'_>) -> u64 {
    let seconds = u64::try_from(wire.seconds).ok().filter(|seconds| (1..=LONGEST_KEEP_SECONDS).contains(seconds));
    match seconds {
        Some(seconds) if wire.nanos == 0 => seconds,
        _ => {
            let description = "is delete after a time that is no whole number of seconds from 1 s to 10 years; write for \
                               example delete:30d, or delete alone for 7 days";
            fault(path.into(), description.into());
            0
        }
    }
}

fn secret(wire: Option<v1::SecretInput>, path: &str, fault: &mut Fault<'_>) -> Asked {
    let Some(v1::SecretInput { value, clear }) = wire else { return Asked::Keep };
    match (value.is_empty(), clear) {
        (true, true) => return Asked::Clear,
        (true, false) => {
            fault(path.into(), "is empty; write the secret, or leave the field out to keep what is stored".into());
        }
        (false, true) => fault(path.into(), "is both set and cleared; do one of the two".into()),
        (false, false) => {}
    }
    Asked::Set(SecretString::from(value))
}

fn trim(text: &str) -> String {
    text.trim().to_owned()
}

/// An instance for the wire.
pub fn instance(instance: &Instance) -> v1::Instance {
    v1::Instance {
        uid: instance.uid.clone(),
        name: instance.name.clone(),
        pool: instance.pool.clone(),
        allocation: match instance.allocation {
            Allocation::Strict => v1::AllocationPolicy::Strict.into(),
            Allocation::TargetTime => v1::AllocationPolicy::TargetTime.into(),
        },
        revision: instance.revision,
    }
}

/// An incoming server for the wire, without its secret.
pub fn server(server: &IncomingServer) -> v1::IncomingServer {
    v1::IncomingServer {
        uid: server.uid.clone(),
        name: server.name.clone(),
        address: server.address.clone(),
        authentication: authentication(server.authentication).into(),
        client_id: server.client_id.clone(),
        secret: None,
        secret_set: server.secret.is_some(),
        imap_host: server.imap_host.clone(),
        imap_port: server.imap_port.into(),
        imap_security: security(server.imap_security).into(),
        scope: server.scope.clone(),
        ca_file: server.ca_file.clone(),
        revision: server.revision,
        proxy: server.proxy.clone(),
        secret_expires: server.secret_expires.clone(),
    }
}

/// A queue for the wire, without passwords.
pub fn queue(queue: &Queue, model: &Model) -> v1::Queue {
    let address = |address: &Address| v1::Address {
        email: address.email.clone(),
        priority: address.priority,
        language: address.language.clone(),
        account: address.account.clone(),
        password: None,
        password_set: address.password.is_some(),
        sender: address.sender,
        server: address.server.clone(),
        folder: address.folder.clone(),
        mailbox: model
            .server_named(&address.server)
            .map_or_else(String::new, |server| address.mailbox(server).to_string()),
    };
    v1::Queue {
        uid: queue.uid.clone(),
        name: queue.name.clone(),
        instance: queue.instance.clone(),
        language: queue.language.clone(),
        priority: queue.priority,
        max_message_bytes: queue.max_message_bytes,
        start: Some(start(queue.start)),
        after_intake: Some(after_intake(&queue.after_intake)),
        backlog_guard: queue.backlog_guard.map(backlog_guard),
        addresses: queue.addresses.iter().map(address).collect(),
        revision: queue.revision,
    }
}

/// The system settings for the wire.
pub fn system(system: &System) -> v1::System {
    v1::System { language: system.language.clone(), priority: system.priority, revision: system.revision }
}

/// A whole model for the wire, without secrets. Applied again it changes nothing.
pub fn model(model: &Model) -> v1::Model {
    let settings = model.system();
    v1::Model {
        system: (settings.priority != 0 || !settings.language.is_empty()).then(|| system(settings)),
        outgoing_servers: model.outgoing().map(|it| outgoing_server(it)).collect(),
        instances: model.instances().map(|it| instance(it)).collect(),
        incoming_servers: model.servers().map(|it| server(it)).collect(),
        queues: model.queues().map(|it| queue(it, model)).collect(),
    }
}

pub(super) fn authentication(authentication: Authentication) -> v1::Authentication {
    match authentication {
        Authentication::OauthUser => v1::Authentication::OauthUser,
        Authentication::OauthService => v1::Authentication::OauthService,
        Authentication::Password => v1::Authentication::Password,
    }
}

pub(super) fn security(security: Security) -> v1::Security {
    match security {
        Security::Tls => v1::Security::Tls,
    }
}

pub(super) fn start(start: Start) -> v1::Start {
    let (policy, since_time) = match start {
        Start::Unseen => (v1::StartPolicy::Unseen, None),
        Start::New => (v1::StartPolicy::New, None),
        Start::All => (v1::StartPolicy::All, None),
        Start::Since(micros) => (v1::StartPolicy::Since, Some(to_timestamp(micros))),
    };
    v1::Start { policy: policy.into(), since_time }
}

fn backlog_guard(guard: BacklogGuard) -> v1::BacklogGuard {
    match guard {
        BacklogGuard::Off => v1::BacklogGuard { message_count: 0, off: true },
        BacklogGuard::MoreThan(message_count) => v1::BacklogGuard { message_count, off: false },
    }
}

pub(super) fn after_intake(after_intake: &AfterIntake) -> v1::AfterIntake {
    let (policy, folder, seconds) = match after_intake {
        AfterIntake::Seen => (v1::AfterIntakePolicy::Seen, String::new(), 0),
        AfterIntake::Move(folder) => (v1::AfterIntakePolicy::Move, folder.clone(), 0),
        AfterIntake::Leave => (v1::AfterIntakePolicy::Leave, String::new(), 0),
        AfterIntake::Delete(seconds) => (v1::AfterIntakePolicy::Delete, String::new(), *seconds),
    };
    let keep = (seconds > 0).then(|| to_duration(Duration::from_secs(seconds)));
    v1::AfterIntake { policy: policy.into(), folder, keep }
}

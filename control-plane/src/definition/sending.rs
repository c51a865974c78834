//! By what mail from an address is sent: which outgoing server, whose limits count, and all that a worker needs for it.

use postroom_proto::reason::Failure;
use postroom_proto::v1;
use sha2::{Digest as _, Sha256};

use super::model::{
    Address, IncomingServer, Instance, Model, OutgoingAuthentication, OutgoingServer, Queue, Transport,
};
use super::resolve::{self, open};
use super::wire;
use crate::access::vault::{Sealed, Vault};

/// Why nothing sends mail from an address at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoRoad {
    /// It may not be used as From.
    SenderGone,
    /// No enabled outgoing server can send for it.
    NoServer,
}

/// How mail from an address is sent.
#[derive(Debug, Clone, Copy)]
pub struct Road<'m> {
    /// The instance whose mail it is; workers of its pool send it.
    pub instance: &'m Instance,
    /// The queue that has the address.
    pub queue: &'m Queue,
    /// The address that it is sent from.
    pub address: &'m Address,
    /// By what it is sent.
    pub server: &'m OutgoingServer,
    /// The incoming server whose app registration the outgoing server shares.
    registration: Option<&'m IncomingServer>,
}

/// How mail of an instance from this address is sent. The address is looked for in this queue first, then in the others
/// of the instance.
///
/// Of several outgoing servers that can send for it, the one that signs in as the address itself comes first, then those
/// of its tenant, then relays. Within these one whose user is a GUID, which may be that of the address, comes before one
/// that signs in as another address; then they go by name.
pub fn road<'m>(model: &'m Model, instance_uid: &str, queue_uid: &str, from: &str) -> Result<Road<'m>, NoRoad> {
    let (queue, address) = sender(model, instance_uid, queue_uid, from).ok_or(NoRoad::SenderGone)?;
    let instance = model.instance(&queue.instance).ok_or(NoRoad::SenderGone)?;
    let incoming = model.server(&address.server).ok_or(NoRoad::SenderGone)?;
    let registration = |server: &OutgoingServer| model.server(&server.registration).map(|found| &**found);
    let able = |server: &&std::sync::Arc<OutgoingServer>| {
        server.enabled && server.can_send_for(registration(server), address, incoming)
    };
    let own = |server: &OutgoingServer| server.user.to_lowercase() == address.email.to_lowercase();
    let rank = |server: &OutgoingServer| (!own(server), !server.oauth(), server.user.contains('@'));
    let server = model.outgoing().filter(able).min_by_key(|server| rank(server)).ok_or(NoRoad::NoServer)?;
    Ok(Road { instance, queue, address, server, registration: registration(server) })
}

/// The address of this instance that may be used as From.
pub fn sender<'m>(
    model: &'m Model,
    instance_uid: &str,
    queue_uid: &str,
    from: &str,
) -> Option<(&'m Queue, &'m Address)> {
    let instance = model.instance(instance_uid).filter(|it| it.uid == instance_uid)?;
    // As lanes are: letters of any script have a small form.
    let from = from.to_lowercase();
    let of = |queue: &'m Queue| {
        let may = |address: &&Address| address.sender && address.email.to_lowercase() == from;
        Some((queue, queue.addresses.iter().find(may)?))
    };
    let own = model.queue(queue_uid).filter(|queue| queue.instance == instance.name);
    let mut others = model.queues().filter(|queue| queue.instance == instance.name);
    own.and_then(|queue| of(queue)).or_else(|| others.find_map(|queue| of(queue)))
}

/// An outgoing server by itself, as it sends for `from`, for a check.
pub fn resolve_outgoing(
    model: &Model,
    vault: &Vault,
    server: &OutgoingServer,
    from: &str,
) -> Result<v1::OutgoingDefinition, Failure> {
    let registration = model.server(&server.registration).map(|found| &**found);
    definition(model, vault, server, registration, from)
}

impl Road<'_> {
    /// The sending mailbox, whose limits count over the whole fleet: who signs in where. Without a sign-in it is the
    /// address itself at that host.
    pub fn mailbox(&self) -> String {
        let server = self.server;
        let authority = server.authority(self.registration);
        let place = if authority.is_empty() { server.target(self.registration).host } else { authority };
        let who = match server.authentication {
            OutgoingAuthentication::None => &self.address.email,
            _ => &server.user,
        };
        format!("{place}|{who}").to_lowercase()
    }

    /// Where what was sent can be looked for afterwards, as `<uid of the outgoing server>/<user>/<folder>`. Empty: nowhere.
    pub fn look_in(&self, model: &Model) -> String {
        let Some(folder) = self.server.sent_folder() else { return String::new() };
        let user = match self.server.transport() {
            Transport::Graph => &self.server.user,
            Transport::Smtp => match sent_mailbox(model, self.server, &self.address.email) {
                Some((_, address)) => &address.email,
                None => return String::new(),
            },
        };
        format!("{}/{}/{folder}", self.server.uid, user.to_lowercase())
    }

    /// Names the credentials by which it signs in. None of them is opened for that.
    pub fn credentials(&self) -> Vec<u8> {
        credentials_digest(self.server, self.registration)
    }

    /// All that a worker needs to send by it, secrets opened.
    pub fn resolve(&self, model: &Model, vault: &Vault) -> Result<v1::OutgoingDefinition, Failure> {
        definition(model, vault, self.server, self.registration, &self.address.email)
    }
}

fn definition(
    model: &Model,
    vault: &Vault,
    server: &OutgoingServer,
    registration: Option<&IncomingServer>,
    from: &str,
) -> Result<v1::OutgoingDefinition, Failure> {
    let mut password = String::new();
    if server.keeps_password() {
        let what = format!("password of outgoing server {:?}", server.name);
        password = open(vault, what, &server.password_owner(), server.password.as_ref())?;
    }
    let mut client_secret = String::new();
    if server.authentication == OutgoingAuthentication::OauthService {
        client_secret = match registration {
            Some(shared) => {
                let what = format!("secret of incoming server {:?}", shared.name);
                open(vault, what, &shared.secret_owner(), shared.secret.as_ref())?
            }
            None => {
                let what = format!("secret of outgoing server {:?}", server.name);
                open(vault, what, &server.secret_owner(), server.secret.as_ref())?
            }
        };
    }
    let target = server.target(registration);
    let shared = |own: &str, of: fn(&IncomingServer) -> &str| match registration {
        Some(registration) if own.is_empty() => of(registration).to_owned(),
        _ => own.to_owned(),
    };
    let sent_mailbox = match (server.transport(), server.sent_folder()) {
        (Transport::Smtp, Some(folder)) => match sent_mailbox(model, server, from) {
            Some((queue, address)) => Some(folder_of(model, vault, queue, address, folder)?),
            None => None,
        },
        _ => None,
    };
    let sent_folder = match server.transport() {
        Transport::Smtp if sent_mailbox.is_none() => "",
        _ => server.sent_folder().unwrap_or_default(),
    };
    let client_id =
        if server.client_id.is_empty() { registration.map_or("", |it| &it.client_id) } else { &server.client_id };
    Ok(v1::OutgoingDefinition {
        uid: server.uid.clone(),
        name: server.name.clone(),
        transport: match server.transport() {
            Transport::Graph => v1::Transport::Graph.into(),
            Transport::Smtp => v1::Transport::Smtp.into(),
        },
        host: target.host,
        port: target.port.into(),
        security: wire::smtp_security(target.security).into(),
        authentication: wire::outgoing_authentication(server.authentication).into(),
        user: server.user.clone(),
        password,
        authority: server.authority(registration),
        client_id: if server.oauth() { client_id.to_owned() } else { String::new() },
        client_secret,
        scope: target.scope,
        ca_file: shared(&server.ca_file, |it| &it.ca_file),
        proxy: shared(&server.proxy, |it| &it.proxy),
        sent_folder: sent_folder.to_owned(),
        sent_mailbox,
        credentials_digest: credentials_digest(server, registration),
    })
}

/// The address whose mailbox is that of who sends, where the server files what it sent. With a mere user name it is the
/// address that the mail is from.
///
/// Invariant: never another mailbox. What is not found where it cannot be would be sent a second time.
fn sent_mailbox<'m>(model: &'m Model, server: &OutgoingServer, from: &str) -> Option<(&'m Queue, &'m Address)> {
    let named = server.user.contains('@') || server.oauth();
    let email = if named { server.user.as_str() } else { from };
    model.queues().find_map(|queue| {
        let found = queue.addresses.iter().find(|address| address.email.to_lowercase() == email.to_lowercase())?;
        Some((&**queue, found))
    })
}

fn folder_of(
    model: &Model,
    vault: &Vault,
    queue: &Queue,
    address: &Address,
    folder: &str,
) -> Result<v1::MailboxDefinition, Failure> {
    let server = model.server(&address.server).ok_or_else(|| {
        let text = format!("there is no incoming server {:?} for {}", address.server, address.email);
        Failure::new(postroom_proto::reason::Reason::NotFound, text)
    })?;
    let mailbox = address.mailbox(server);
    let read = resolve::resolve(model, vault, &mailbox).map_err(|mut failure| {
        failure.message = format!("sent mail of {} in queue {:?}: {}", address.email, queue.name, failure.message);
        failure
    })?;
    Ok(v1::MailboxDefinition { folder: folder.to_owned(), ..read })
}

/// Made of the sealed secrets and not of the secrets: whoever reads it where it is kept can guess nothing by it.
fn credentials_digest(server: &OutgoingServer, registration: Option<&IncomingServer>) -> Vec<u8> {
    let secret = registration.map_or(&server.secret, |shared| &shared.secret);
    let sealed = [secret, &server.password].map(|it| it.as_ref().map(Sealed::identity));
    let target = server.target(registration);
    let client = registration.map_or(&server.client_id, |shared| &shared.client_id);
    let authority = server.authority(registration);
    let named = [&server.user, client, &authority, &target.scope, &target.host, &server.proxy];
    // Strings always have a JSON form, and one that keeps its parts apart.
    Sha256::digest(serde_json::to_vec(&(sealed, named)).unwrap_or_default()).to_vec()
}

//! The model: all definitions together, with the look-ups that the rest of the control plane needs.
//!
//! Fields hold what the operator wrote, normalised; methods answer what it means, defaults included.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use postroom_proto::id::MailboxUid;
use serde::{Deserialize, Serialize};

use super::normalise;
pub use super::outgoing::{OutgoingAuthentication, OutgoingServer, SentCopy, SmtpSecurity, Target, Transport};
use crate::access::vault::Sealed;

/// Folder that is read unless another is named.
pub const DEFAULT_FOLDER: &str = "INBOX";
/// Language of contacts unless another is named (BCP 47).
pub const DEFAULT_LANGUAGE: &str = "en";
/// Priority of contacts unless another is named; 1 is first.
pub const DEFAULT_PRIORITY: u32 = 1;
/// Largest message that becomes a contact unless another limit is named: 25 MiB.
pub const DEFAULT_MAX_MESSAGE_BYTES: u64 = 26_214_400;
/// Messages that a mailbox may have to take at its first reading without waiting for an operator, unless another number is
/// named.
pub const DEFAULT_BACKLOG_GUARD: u32 = 1000;
/// How long a message stays in the mailbox after its intake, when it is deleted then.
pub const DEFAULT_KEEP: Duration = Duration::from_secs(7 * 24 * 3600);
/// TCP port of IMAP inside TLS (RFC 8314 section 3.2).
pub const DEFAULT_IMAP_PORT: u16 = 993;
/// Pool of workers unless another is named.
pub const DEFAULT_POOL: &str = "default";

/// What holds for all queues.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct System {
    /// As written; may be empty.
    pub language: String,
    /// As written; may be 0.
    pub priority: u32,
    /// Revision of the model that last changed them; 0: none.
    #[serde(skip)]
    pub revision: u64,
}

/// The receiver of contacts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Instance {
    /// Never changes and is never used again.
    pub uid: String,
    /// Unique among instances.
    pub name: String,
    /// As written; may be empty.
    pub pool: String,
    /// How its contacts are put in order.
    pub allocation: Allocation,
    /// Revision of the model that last changed it.
    #[serde(skip)]
    pub revision: u64,
}

/// How the contacts of an instance are put in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Allocation {
    /// Lowest priority value first, then longest waiting.
    Strict,
    /// Largest quotient of the time waited and the priority first.
    TargetTime,
}

/// Where to sign in and read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IncomingServer {
    /// Never changes and is never used again.
    pub uid: String,
    /// Unique among incoming servers.
    pub name: String,
    /// OAuth: `https://<login host>/<tenant>`.
    pub address: String,
    /// How to sign in.
    pub authentication: Authentication,
    /// OAuth: application (client) id.
    pub client_id: String,
    /// OAuth Service: client secret.
    pub secret: Option<Sealed>,
    /// As written; may be empty.
    pub imap_host: String,
    /// As written; may be 0.
    pub imap_port: u16,
    /// Protection of the connection.
    pub imap_security: Security,
    /// As written; may be empty.
    pub scope: String,
    /// PEM file of further trusted CAs on the worker's machine; may be empty.
    pub ca_file: String,
    /// URL of the proxy to go through; may be empty.
    #[serde(default)]
    pub proxy: String,
    /// Day on which the client secret ends, `YYYY-MM-DD`; may be empty. Left out then, so that what was stored before stays the
    /// same object.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub secret_expires: String,
    /// Revision of the model that last changed it.
    #[serde(skip)]
    pub revision: u64,
}

/// How a worker proves who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Authentication {
    /// Password grant (RFC 6749 section 4.3).
    OauthUser,
    /// Client credentials grant (RFC 6749 section 4.4).
    OauthService,
    /// SASL PLAIN (RFC 4616).
    Password,
}

/// How the connection to the mail server is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Security {
    /// TLS from the first byte.
    Tls,
}

/// An e-mail queue of one instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Queue {
    /// Never changes and is never used again.
    pub uid: String,
    /// Unique among queues.
    pub name: String,
    /// Name of the instance that receives its contacts.
    pub instance: String,
    /// As written; may be empty.
    pub language: String,
    /// As written; may be 0.
    pub priority: u32,
    /// As written; may be 0.
    pub max_message_bytes: u64,
    /// Which messages are taken at the first reading.
    pub start: Start,
    /// What is done in the mailbox after intake.
    pub after_intake: AfterIntake,
    /// As written. Objects of formats before 4 have none.
    #[serde(default)]
    pub backlog_guard: Option<BacklogGuard>,
    /// The mailboxes that feed it.
    pub addresses: Vec<Address>,
    /// Revision of the model that last changed it.
    #[serde(skip)]
    pub revision: u64,
}

/// Which messages are taken when a mailbox is read for the first time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Start {
    /// Those without \Seen.
    Unseen,
    /// Only what arrives later.
    New,
    /// Everything.
    All,
    /// What the server received at or after this time, in microseconds since 1970.
    Since(i64),
}

/// What is done in the mailbox to a message that is in the ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AfterIntake {
    /// \Seen is set.
    Seen,
    /// It is moved to this folder.
    Move(String),
    /// Nothing.
    Leave,
    /// \Seen is set, and so many seconds later it is deleted. As written; may be 0. Objects of formats before 5 have none.
    Delete(u64),
}

impl AfterIntake {
    /// How long after its intake a message is deleted. `None`: never.
    pub fn keep(&self) -> Option<Duration> {
        match self {
            Self::Seen | Self::Move(_) | Self::Leave => None,
            Self::Delete(0) => Some(DEFAULT_KEEP),
            Self::Delete(seconds) => Some(Duration::from_secs(*seconds)),
        }
    }

    /// True when messages do not stay in the folder.
    pub fn takes_away(&self) -> bool {
        matches!(self, Self::Move(_) | Self::Delete(_))
    }
}

/// When a mailbox waits for an operator before its old messages are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BacklogGuard {
    /// Never.
    Off,
    /// With more messages to take than this.
    MoreThan(u32),
}

/// One mailbox to read for a queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Address {
    /// The mailbox that is opened.
    pub email: String,
    /// As written; may be 0.
    pub priority: u32,
    /// As written; may be empty.
    pub language: String,
    /// As written; may be empty.
    pub account: String,
    /// OAuth User and password: password of the account.
    pub password: Option<Sealed>,
    /// True when it may be used as From.
    pub sender: bool,
    /// Name of the incoming server.
    pub server: String,
    /// As written; may be empty.
    pub folder: String,
}

impl Instance {
    /// Workers of this pool read its queues.
    pub fn pool(&self) -> &str {
        or(&self.pool, DEFAULT_POOL)
    }
}

impl IncomingServer {
    /// Host of the IMAP server. Empty only in a server that validation refuses.
    pub fn imap_host(&self) -> &str {
        or(&self.imap_host, normalise::cloud_of(&self.address).and_then(|cloud| cloud.imap_host).unwrap_or(""))
    }

    /// Port of the IMAP server.
    pub fn imap_port(&self) -> u16 {
        if self.imap_port == 0 { DEFAULT_IMAP_PORT } else { self.imap_port }
    }

    /// OAuth scope to ask for. Empty with a password, and in a server that validation refuses.
    pub fn scope(&self) -> &str {
        let default = |cloud: &'static normalise::Cloud| match self.authentication {
            Authentication::OauthUser => cloud.user_scope,
            Authentication::OauthService => cloud.service_scope,
            Authentication::Password => "",
        };
        or(&self.scope, normalise::cloud_of(&self.address).map_or("", default))
    }

    /// True when it signs in with OAuth, and so has an app registration.
    pub fn oauth(&self) -> bool {
        self.authentication != Authentication::Password
    }

    /// What the mailboxes of this server are told apart by: the tenant, or the host where there is no tenant.
    pub fn realm(&self) -> &str {
        match self.authentication {
            Authentication::Password => self.imap_host(),
            Authentication::OauthUser | Authentication::OauthService => {
                normalise::split(&self.address).map_or("", |(_, tenant)| tenant)
            }
        }
    }

    /// Owner of its secret in the vault.
    pub fn secret_owner(&self) -> String {
        format!("incoming-server/{}/secret", self.uid)
    }
}

impl Queue {
    /// Priority of its contacts, unless their address has another.
    pub fn priority(&self, system: &System) -> u32 {
        let written = [self.priority, system.priority];
        written.into_iter().find(|priority| *priority != 0).unwrap_or(DEFAULT_PRIORITY)
    }

    /// Language of its contacts, unless their address has another.
    pub fn language<'a>(&'a self, system: &'a System) -> &'a str {
        or(&self.language, or(&system.language, DEFAULT_LANGUAGE))
    }

    /// Largest message that becomes a contact, in bytes.
    pub fn max_message_bytes(&self) -> u64 {
        if self.max_message_bytes == 0 { DEFAULT_MAX_MESSAGE_BYTES } else { self.max_message_bytes }
    }

    /// How many messages its mailboxes may have to take at their first reading. `None`: any number.
    pub fn backlog_guard(&self) -> Option<u32> {
        match self.backlog_guard.unwrap_or(BacklogGuard::MoreThan(DEFAULT_BACKLOG_GUARD)) {
            BacklogGuard::Off => None,
            BacklogGuard::MoreThan(count) => Some(count),
        }
    }

    /// Owner of the password of one of its addresses in the vault. It names neither server nor folder, so that a
    /// password outlives a change of those.
    pub fn password_owner(&self, address: &Address) -> String {
        format!("queue/{}/address/{}/password", self.uid, address.email.to_lowercase())
    }
}

impl Address {
    /// Who signs in.
    pub fn account(&self) -> &str {
        or(&self.account, &self.email)
    }

    /// Folder to read.
    pub fn folder(&self) -> &str {
        or(&self.folder, DEFAULT_FOLDER)
    }

    /// The mailbox that this address reads, on that server.
    pub fn mailbox(&self, server: &IncomingServer) -> MailboxUid {
        MailboxUid::derive(&self.email, self.folder(), server.realm())
    }
}

/// All definitions together. Never changed; the next revision is another model.
#[derive(Debug, Default)]
pub struct Model {
    revision: u64,
    system: Arc<System>,
    instances: BTreeMap<String, Arc<Instance>>,
    servers: BTreeMap<String, Arc<IncomingServer>>,
    outgoing: BTreeMap<String, Arc<OutgoingServer>>,
    queues: BTreeMap<String, Arc<Queue>>,
    mailboxes: HashMap<MailboxUid, Place>,
}

/// What a model is put together from, in no order.
#[derive(Debug, Clone, Default)]
pub struct Parts {
    /// What holds for all queues.
    pub system: Arc<System>,
    /// Receivers of contacts.
    pub instances: Vec<Arc<Instance>>,
    /// Where to read.
    pub servers: Vec<Arc<IncomingServer>>,
    /// How to send.
    pub outgoing: Vec<Arc<OutgoingServer>>,
    /// Queues with their addresses.
    pub queues: Vec<Arc<Queue>>,
}

#[derive(Debug)]
struct Place {
    queue: Arc<Queue>,
    index: usize,
    server: Arc<IncomingServer>,
    instance: Arc<Instance>,
    system: Arc<System>,
    /// Put together once: with every heartbeat it is asked for of every mailbox.
    revision: u64,
}

/// A mailbox with everything that it was defined by.
#[derive(Debug, Clone, Copy)]
pub struct MailboxRef<'a> {
    /// The queue that it feeds.
    pub queue: &'a Queue,
    /// The address that names it.
    pub address: &'a Address,
    /// The server that holds it.
    pub server: &'a IncomingServer,
    /// The instance that receives its contacts.
    pub instance: &'a Instance,
    /// What holds where neither address nor queue says anything.
    pub system: &'a System,
    /// Grows when anything changed that reading it depends on: the newest revision of queue, server and, where they
    /// matter to it, system settings.
    pub revision: u64,
}

impl MailboxRef<'_> {
    /// Priority of its contacts.
    pub fn priority(&self) -> u32 {
        if self.address.priority == 0 { self.queue.priority(self.system) } else { self.address.priority }
    }

    /// Language of its contacts.
    pub fn language(&self) -> &str {
        or(&self.address.language, self.queue.language(self.system))
    }
}

impl Model {
    /// Puts definitions together. A queue whose instance or server is not among them has no mailboxes.
    pub fn new(revision: u64, parts: Parts) -> Self {
        let mut model = Self {
            revision,
            system: parts.system,
            instances: parts.instances.into_iter().map(|it| (it.name.clone(), it)).collect(),
            servers: parts.servers.into_iter().map(|it| (it.name.clone(), it)).collect(),
            outgoing: parts.outgoing.into_iter().map(|it| (it.name.clone(), it)).collect(),
            queues: parts.queues.into_iter().map(|it| (it.name.clone(), it)).collect(),
            mailboxes: HashMap::new(),
        };
        for queue in model.queues.values() {
            let Some(instance) = model.instances.get(&queue.instance) else { continue };
            for (index, address) in queue.addresses.iter().enumerate() {
                let Some(server) = model.servers.get(&address.server) else { continue };
                let place = Place {
                    queue: Arc::clone(queue),
                    index,
                    server: Arc::clone(server),
                    instance: Arc::clone(instance),
                    system: Arc::clone(&model.system),
                    revision: newest(queue, address, server, &model.system),
                };
                model.mailboxes.insert(address.mailbox(server), place);
            }
        }
        model
    }

    /// What it was put together from.
    pub fn parts(&self) -> Parts {
        Parts {
            system: Arc::clone(&self.system),
            instances: self.instances.values().cloned().collect(),
            servers: self.servers.values().cloned().collect(),
            outgoing: self.outgoing.values().cloned().collect(),
            queues: self.queues.values().cloned().collect(),
        }
    }

    /// What holds for all queues.
    pub fn system(&self) -> &Arc<System> {
        &self.system
    }

    /// Ordered by name.
    pub fn outgoing(&self) -> impl ExactSizeIterator<Item = &Arc<OutgoingServer>> {
        self.outgoing.values()
    }

    /// By name, else by uid.
    pub fn outgoing_server(&self, name_or_uid: &str) -> Option<&Arc<OutgoingServer>> {
        self.outgoing.get(name_or_uid).or_else(|| self.outgoing.values().find(|it| it.uid == name_or_uid))
    }

    pub(super) fn outgoing_named(&self, name: &str) -> Option<&Arc<OutgoingServer>> {
        self.outgoing.get(name)
    }

    /// 0: nothing was ever applied.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Ordered by name.
    pub fn instances(&self) -> impl ExactSizeIterator<Item = &Arc<Instance>> {
        self.instances.values()
    }

    /// Ordered by name.
    pub fn servers(&self) -> impl ExactSizeIterator<Item = &Arc<IncomingServer>> {
        self.servers.values()
    }

    /// Ordered by name.
    pub fn queues(&self) -> impl ExactSizeIterator<Item = &Arc<Queue>> {
        self.queues.values()
    }

    /// By name, else by uid.
    pub fn instance(&self, name_or_uid: &str) -> Option<&Arc<Instance>> {
        self.instances.get(name_or_uid).or_else(|| self.instances.values().find(|it| it.uid == name_or_uid))
    }

    /// By name, else by uid.
    pub fn server(&self, name_or_uid: &str) -> Option<&Arc<IncomingServer>> {
        self.servers.get(name_or_uid).or_else(|| self.servers.values().find(|it| it.uid == name_or_uid))
    }

    /// By name, else by uid.
    pub fn queue(&self, name_or_uid: &str) -> Option<&Arc<Queue>> {
        self.queues.get(name_or_uid).or_else(|| self.queues.values().find(|it| it.uid == name_or_uid))
    }

    pub(super) fn instance_named(&self, name: &str) -> Option<&Arc<Instance>> {
        self.instances.get(name)
    }

    pub(super) fn server_named(&self, name: &str) -> Option<&Arc<IncomingServer>> {
        self.servers.get(name)
    }

    pub(super) fn queue_named(&self, name: &str) -> Option<&Arc<Queue>> {
        self.queues.get(name)
    }

    /// One mailbox.
    pub fn mailbox(&self, uid: &MailboxUid) -> Option<MailboxRef<'_>> {
        self.mailboxes.get(uid).map(Place::reference)
    }

    /// Revision of the definition of a mailbox: the newest of all that it was defined by.
    pub fn mailbox_revision(&self, uid: &MailboxUid) -> Option<u64> {
        self.mailboxes.get(uid).map(|place| place.revision)
    }

    /// All mailboxes, in no order.
    pub fn mailboxes(&self) -> impl ExactSizeIterator<Item = (&MailboxUid, MailboxRef<'_>)> {
        self.mailboxes.iter().map(|(uid, place)| (uid, place.reference()))
    }
}

/// Invariant: it never falls. A queue that begins to say for itself what the system settings said is changed by that, hence
/// newer than they are.
fn newest(queue: &Queue, address: &Address, server: &IncomingServer, system: &System) -> u64 {
    let undecided =
        (queue.priority == 0 && address.priority == 0) || (queue.language.is_empty() && address.language.is_empty());
    let system = if undecided { system.revision } else { 0 };
    queue.revision.max(server.revision).max(system)
}

impl Place {
    fn reference(&self) -> MailboxRef<'_> {
        let (queue, address) = (&*self.queue, &self.queue.addresses[self.index]);
        MailboxRef {
            queue,
            address,
            server: &self.server,
            instance: &self.instance,
            system: &self.system,
            revision: self.revision,
        }
    }
}

fn or<'a>(written: &'a str, default: &'a str) -> &'a str {
    if written.is_empty() { default } else { written }
}

//! Definitions as YAML: what `apply` reads and `export` prints.
//!
//! The file's own form stands here; [`read()`] turns text into a [`Model`](postroom_proto::v1::Model), [`write()`] a model into text. What is
//! written can be read again and means the same, but for secrets, which are never written: applied, an absent secret
//! keeps what is stored.
//!
//! Words (`oauth-service`, `seen`, …) are plain text here and checked when they are converted, so that all faults of a
//! file are told at once; only a fault in its shape ends the reading.

use serde::{Deserialize, Serialize};

pub(crate) mod edit;
mod guard;
mod lines;
mod read;
mod secret;
mod start;
mod write;

pub use lines::Lines;
pub(crate) use read::time;
pub use read::{Document, read, read_document, read_file};
pub(crate) use write::after_intake;
pub(crate) use write::backlog_guard;
pub use write::write;

use guard::Guard;
use secret::Secret;
use start::Start;

/// The whole file. What is absent is not named; what is there and empty is named and empty.
#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    #[serde(skip_serializing_if = "Option::is_none")]
    system: Option<System>,
    #[serde(skip_serializing_if = "Option::is_none")]
    instances: Option<Vec<Instance>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    incoming_servers: Option<Vec<IncomingServer>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    outgoing_servers: Option<Vec<OutgoingServer>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    queues: Option<Vec<Queue>>,
}

impl File {
    /// True when it does not even name an empty list.
    fn is_empty(&self) -> bool {
        self.system.is_none()
            && self.instances.is_none()
            && self.incoming_servers.is_none()
            && self.outgoing_servers.is_none()
            && self.queues.is_none()
    }
}

#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct System {
    #[serde(skip_serializing_if = "Option::is_none")]
    language: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    priority: Option<u32>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Instance {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pool: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    allocation: Option<String>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct IncomingServer {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    authentication: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_id: Option<String>,
    #[serde(default, skip_serializing)]
    secret: Option<Secret>,
    #[serde(skip_serializing_if = "Option::is_none")]
    secret_expires: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    protocol: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    imap: Option<Way>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ca_file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    proxy: Option<String>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct OutgoingServer {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    enabled: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    server: Option<String>,
    authentication: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    #[serde(default, skip_serializing)]
    password: Option<Secret>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_id: Option<String>,
    #[serde(default, skip_serializing)]
    secret: Option<Secret>,
    #[serde(skip_serializing_if = "Option::is_none")]
    registration: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    transport: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    smtp: Option<Way>,
    #[serde(skip_serializing_if = "Option::is_none")]
    graph_host: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ca_file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    proxy: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sent_copy: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sent_folder: Option<String>,
}

/// How a mail server is reached.
#[derive(Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Way {
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    security: Option<String>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Queue {
    name: String,
    instance: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    language: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    priority: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_message_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    start: Option<Start>,
    #[serde(skip_serializing_if = "Option::is_none")]
    after_intake: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    backlog_guard: Option<Guard>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    addresses: Vec<Address>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Address {
    email: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    priority: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    language: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    account: Option<String>,
    #[serde(default, skip_serializing)]
    password: Option<Secret>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sender: Option<bool>,
    server: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    folder: Option<String>,
}

#[cfg(test)]
mod tests;

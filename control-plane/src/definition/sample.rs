//! Definitions for tests of whatever needs some: small, and with nothing that nobody asked for.

use super::model::{
    Address, AfterIntake, Allocation, Authentication, IncomingServer, Instance, Queue, Security, Start,
};

/// An address that is read by [`incoming`].
pub(crate) fn address(email: &str) -> Address {
    Address {
        email: email.into(),
        priority: 0,
        language: String::new(),
        account: String::new(),
        password: None,
        sender: false,
        server: "in".into(),
        folder: String::new(),
    }
}

/// A queue of an instance, with the uid `uid-<name>`.
pub(crate) fn queue(name: &str, instance: &str, addresses: Vec<Address>) -> Queue {
    Queue {
        uid: format!("uid-{name}"),
        name: name.into(),
        instance: instance.into(),
        language: String::new(),
        priority: 0,
        max_message_bytes: 0,
        start: Start::Unseen,
        after_intake: AfterIntake::Seen,
        backlog_guard: None,
        addresses,
        revision: 0,
    }
}

/// An instance with the uid `uid-<name>`.
pub(crate) fn instance(name: &str) -> Instance {
    Instance {
        uid: format!("uid-{name}"),
        name: name.into(),
        pool: String::new(),
        allocation: Allocation::Strict,
        revision: 0,
    }
}

/// The incoming server `in`, which asks for passwords.
pub(crate) fn incoming() -> IncomingServer {
    IncomingServer {
        uid: "s".into(),
        name: "in".into(),
        address: String::new(),
        authentication: Authentication::Password,
        client_id: String::new(),
        secret: None,
        imap_host: "mail.example".into(),
        imap_port: 0,
        imap_security: Security::Tls,
        scope: String::new(),
        ca_file: String::new(),
        proxy: String::new(),
        secret_expires: String::new(),
        revision: 0,
    }
}

//! A mailbox's definition as a worker needs it: effective values, secrets opened.

use postroom_proto::convert::to_duration;
use postroom_proto::id::MailboxUid;
use postroom_proto::reason::{Failure, Reason};
use postroom_proto::v1;
use secrecy::ExposeSecret as _;
use sha2::{Digest as _, Sha256};

use super::model::{Address, Authentication, IncomingServer, MailboxRef, Model};
use super::wire;
use crate::access::vault::{self, Vault};

/// All that a worker needs to read one mailbox, secrets opened.
pub fn resolve(model: &Model, vault: &Vault, mailbox: &MailboxUid) -> Result<v1::MailboxDefinition, Failure> {
    let Some(found) = model.mailbox(mailbox) else {
        return Err(Failure::new(Reason::NotFound, format!("no queue reads mailbox {mailbox}")));
    };
    let (queue, address, server) = (found.queue, found.address, found.server);
    let mut password = String::new();
    if server.authentication != Authentication::OauthService {
        let what = format!("password of {} in queue {:?}", address.email, queue.name);
        password = open(vault, what, &queue.password_owner(address), address.password.as_ref())?;
    }
    Ok(v1::MailboxDefinition {
        mailbox: mailbox.to_string(),
        revision: found.revision,
        email: address.email.clone(),
        account: address.account().to_owned(),
        folder: address.folder().to_owned(),
        password,
        max_message_bytes: queue.max_message_bytes(),
        start: Some(wire::start(queue.start)),
        // With its defaults: a reader knows of none.
        after_intake: Some(v1::AfterIntake {
            keep: queue.after_intake.keep().map(to_duration),
            ..wire::after_intake(&queue.after_intake)
        }),
        backlog_guard: queue.backlog_guard(),
        credentials_digest: credentials_digest(server, address),
        ..of_server(vault, server)?
    })
}

/// The same for a check of an incoming server: with the mailbox of this e-mail, or with none (empty). One that signs in
/// without a password of the mailbox can be checked with any e-mail, also before an address is defined for it.
pub fn resolve_server(
    model: &Model,
    vault: &Vault,
    server: &IncomingServer,
    email: &str,
) -> Result<v1::MailboxDefinition, Failure> {
    let of_this =
        |found: &MailboxRef<'_>| found.server.uid == server.uid && found.address.email.eq_ignore_ascii_case(email);
    if let Some((uid, _)) = model.mailboxes().find(|(_, found)| of_this(found)) {
        return resolve(model, vault, uid);
    }
    if !email.is_empty() && server.authentication != Authentication::OauthService {
        let text = format!(
            "is no address of the incoming server {:?}, which signs in with the password of an address; name one of its \
             addresses, or none",
            server.name
        );
        return Err(Failure::invalid_field("mailbox", text));
    }
    Ok(v1::MailboxDefinition {
        email: email.to_owned(),
        account: email.to_owned(),
        folder: "INBOX".into(),
        max_message_bytes: super::model::DEFAULT_MAX_MESSAGE_BYTES,
        ..of_server(vault, server)?
    })
}

/// What a server says of each of its mailboxes.
fn of_server(vault: &Vault, server: &IncomingServer) -> Result<v1::MailboxDefinition, Failure> {
    let mut client_secret = String::new();
    if server.authentication == Authentication::OauthService {
        let what = format!("secret of incoming server {:?}", server.name);
        client_secret = open(vault, what, &server.secret_owner(), server.secret.as_ref())?;
    }
    let oauth = server.authentication != Authentication::Password;
    let only_oauth = |text: &str| if oauth { text.to_owned() } else { String::new() };
    Ok(v1::MailboxDefinition {
        server: server.name.clone(),
        authentication: wire::authentication(server.authentication).into(),
        authority: only_oauth(&server.address),
        client_id: only_oauth(&server.client_id),
        scope: only_oauth(server.scope()),
        client_secret,
        imap_host: server.imap_host().to_owned(),
        imap_port: server.imap_port().into(),
        imap_security: wire::security(server.imap_security).into(),
        ca_file: server.ca_file.clone(),
        proxy: server.proxy.clone(),
        ..v1::MailboxDefinition::default()
    })
}

/// A stored secret, opened.
pub(super) fn open(
    vault: &Vault,
    what: String,
    owner: &str,
    sealed: Option<&vault::Sealed>,
) -> Result<String, Failure> {
    let unreadable = |message: String| Failure::new(Reason::SecretUnreadable, message);
    let sealed = sealed.ok_or_else(|| unreadable(format!("no {what} is stored; set it")))?;
    let opened = vault.open(owner, sealed).map_err(|error| unreadable(format!("{what}: {error}")));
    opened.map(|secret| secret.expose_secret().to_owned())
}

/// Made of the sealed secrets and not of the secrets: whoever reads it where it is kept can guess nothing by it. A rotation
/// of the key does not change it: a password that was refused is remembered.
fn credentials_digest(server: &IncomingServer, address: &Address) -> Vec<u8> {
    let sealed = [&server.secret, &address.password].map(|it| it.as_ref().map(vault::Sealed::identity));
    let named = [
        &server.address,
        &server.client_id,
        &server.scope,
        &server.imap_host,
        &server.proxy,
        &address.account,
        &address.email,
    ];
    // Strings always have a JSON form, and one that keeps its parts apart.
    Sha256::digest(serde_json::to_vec(&(sealed, named)).unwrap_or_default()).to_vec()
}

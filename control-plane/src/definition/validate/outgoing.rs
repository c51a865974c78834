//! What an outgoing server must be, and that whoever may be a sender has one.

use std::collections::HashMap;

use email_address::{EmailAddress, Options};

use super::{Faults, Uses, check_folder, check_name, check_printable};
use crate::definition::merge::{Draft, Drafted};
use crate::definition::model::{
    Authentication, IncomingServer, OutgoingAuthentication, OutgoingServer, SmtpSecurity, Transport,
};
use crate::definition::normalise;
use crate::definition::object::Kind;
use crate::definition::outgoing::{host_and_port, host_and_port_or};

pub(super) fn check(
    faults: &mut Faults,
    drafted: &Drafted<OutgoingServer>,
    servers: &HashMap<&str, &IncomingServer>,
    draft: &Draft,
    uses: &mut Uses<'_>,
) {
    let (path, server) = (&drafted.path, &*drafted.definition);
    check_name(faults, path, &server.name, "server");
    check_printable(faults, path, "user", &server.user);
    check_printable(faults, path, "caFile", &server.ca_file);
    check_folder(faults, path, "sentFolder", &server.sent_folder);
    // How to sign in decides what else is needed.
    if draft.unread_outgoing.contains(&server.name) {
        return;
    }
    if server.oauth() {
        check_registration(faults, path, server, servers, draft, uses);
        check_oauth_user(faults, path, server);
        check_hosts(faults, path, server, servers);
    } else {
        check_relay(faults, path, server);
    }
    if server.keeps_password() && server.password.is_none() {
        let text = "is missing and none is stored; write the password of the user, for example \
                    password: {env: MAIL_PASSWORD}, or choose another authentication";
        faults.add(path, "password", text);
    }
}

fn check_registration(
    faults: &mut Faults,
    path: &str,
    server: &OutgoingServer,
    servers: &HashMap<&str, &IncomingServer>,
    draft: &Draft,
    uses: &mut Uses<'_>,
) {
    let visible = |text: &str| text.bytes().all(|b| b.is_ascii_graphic());
    let registration = servers.get(server.registration.as_str()).copied();
    if server.registration.is_empty() {
        if server.client_id.is_empty() {
            let text = "is missing; write the application (client) id of the app registration, or in registration \
                        the name of the incoming server that has it";
            faults.add(path, "clientId", text);
        } else if !visible(&server.client_id) {
            faults.add(path, "clientId", "contains spaces or other characters that no client id has; copy it again");
        }
        if server.keeps_secret() && server.secret.is_none() {
            let text = "is missing and none is stored; with oauth-service write the value (not the id) of the client \
                        secret, for example secret: {env: M365_SECRET}, or in registration the name of the incoming \
                        server that has it";
            faults.add(path, "secret", text);
        }
    } else {
        if !server.client_id.is_empty() {
            let text = "is the app registration's, which registration names already; leave one of the two out";
            faults.add(path, "clientId", text);
        }
        match registration {
            None => {
                let user = || format!("outgoing server {:?}", server.name);
                if let Some(text) = uses.missing(Kind::IncomingServer, &server.registration, user) {
                    faults.add(path, "registration", text);
                }
            }
            Some(found) if draft.unread.contains(&found.name) => {}
            Some(found) if !found.oauth() => {
                let text = format!(
                    "incoming server {:?} signs in with a password and has no app registration; write the name of one \
                     with OAuth, or clientId and secret",
                    found.name
                );
                faults.add(path, "registration", text);
            }
            Some(found)
                if server.authentication == OutgoingAuthentication::OauthService
                    && found.authentication != Authentication::OauthService =>
            {
                let text = format!(
                    "incoming server {:?} has no client secret to share; write the name of one with oauth-service, or \
                     clientId and secret",
                    found.name
                );
                faults.add(path, "registration", text);
            }
            Some(_) => {}
        }
    }
    let local = registration.is_some_and(|it| normalise::cloud_of(&it.address).is_none_or(|it| it.imap_host.is_none()));
    match (server.server.as_str(), server.registration.is_empty()) {
        ("", true) => {
            faults.add(path, "server", "is missing; write the tenant id, a GUID or one of the tenant's domains")
        }
        ("", false) => {}
        (tenant, _) => {
            if let Err(description) = normalise::tenant(tenant, local) {
                faults.add(path, "server", description);
            }
        }
    }
}

fn check_oauth_user(faults: &mut Faults, path: &str, server: &OutgoingServer) {
    let guid = uuid::Uuid::try_parse(&server.user).is_ok();
    let options = Options::default().without_display_text().without_domain_literal();
    let address = EmailAddress::parse_with_options(&server.user, options).is_ok();
    if server.user.is_empty() {
        faults.add(path, "user", "is missing; write the GUID or the address of the mailbox user that sends");
    } else if !guid && !address {
        let text = format!("{:?} is neither a GUID nor an address; write one of the two", server.user);
        faults.add(path, "user", text);
    }
    if guid && server.transport() == Transport::Smtp {
        let text = "is smtp, which signs in by address, but the user is a GUID; write the user's address, or graph";
        faults.add(path, "transport", text);
    }
}

/// Where it is reached, where that is not known by the cloud.
fn check_hosts(faults: &mut Faults, path: &str, server: &OutgoingServer, servers: &HashMap<&str, &IncomingServer>) {
    let host_with_port = "is no host name; write host or host:port without scheme, for example graph.microsoft.com";
    if !server.smtp_host.is_empty() && !normalise::is_host(&server.smtp_host) {
        let text = "is no host name; write it without scheme and port, for example smtp.office365.com";
        faults.add(path, "smtp.host", text);
    }
    if !server.graph_host.is_empty() && host_and_port_or(&server.graph_host, 443).is_none() {
        faults.add(path, "graphHost", host_with_port);
    }
    if !server.scope.bytes().all(|b| b.is_ascii_graphic() || b == b' ') {
        faults.add(path, "scope", "contains characters that no scope has; write scopes with one space between them");
    }
    if server.smtp_security == Some(SmtpSecurity::None) {
        faults.add(path, "smtp.security", "is none, which would show the token to everybody; write starttls or tls");
    }
    let registration = servers.get(server.registration.as_str()).copied();
    // A registration that is not there, or is no OAuth's, has its own fault.
    if !server.registration.is_empty() && !registration.is_some_and(IncomingServer::oauth) {
        return;
    }
    let target = server.target(registration);
    if server.authority(registration).is_empty() {
        return;
    }
    if target.host.is_empty() {
        match server.transport() {
            Transport::Graph => {
                let text = "is missing and not known for this login host; write the host of the Graph API";
                faults.add(path, "graphHost", text);
            }
            Transport::Smtp => {
                let text = "is missing and not known for this login host; write the host of the SMTP server";
                faults.add(path, "smtp.host", text);
            }
        }
    }
    if target.scope.is_empty() {
        faults.add(path, "scope", "is missing and not known for this login host; write the scope to ask for");
    }
}

fn check_relay(faults: &mut Faults, path: &str, server: &OutgoingServer) {
    if server.server.is_empty() {
        faults.add(path, "server", "is missing; write host or host:port of the SMTP server");
    } else if host_and_port(&server.server).is_none() {
        let text =
            format!("{:?} is no SMTP server; write host or host:port, for example smtp.example:587", server.server);
        faults.add(path, "server", text);
    }
    if server.transport == Some(Transport::Graph) {
        faults.add(path, "transport", "is graph, which needs OAuth; write smtp, or leave it out");
    }
    if server.smtp_security == Some(SmtpSecurity::None) && server.authentication != OutgoingAuthentication::None {
        faults.add(path, "smtp.security", "is none, which would show the password to everybody; write starttls or tls");
    }
    for (field, text) in
        [("smtp.host", server.smtp_host.as_str()), ("smtp.port", if server.smtp_port == 0 { "" } else { "set" })]
    {
        if !text.is_empty() {
            faults.add(path, field, "is what server says already; leave it out");
        }
    }
    for (field, text) in [
        ("clientId", &server.client_id),
        ("registration", &server.registration),
        ("graphHost", &server.graph_host),
        ("scope", &server.scope),
    ] {
        if !text.is_empty() {
            faults.add(path, field, "only goes with oauth-service and oauth-user; leave it out");
        }
    }
    match server.authentication {
        OutgoingAuthentication::None if !server.user.is_empty() => {
            faults.add(path, "user", "only goes with a password; leave it out, or write authentication: password");
        }
        OutgoingAuthentication::Password if server.user.is_empty() => {
            faults.add(path, "user", "is missing; write the name to sign in with");
        }
        _ => {}
    }
}

/// An address that may be used as From needs an enabled outgoing server that can send for it.
pub(super) fn one_sender_each(faults: &mut Faults, draft: &Draft, servers: &HashMap<&str, &IncomingServer>) {
    // What could not be read might be the one that is looked for.
    if !draft.unread_outgoing.is_empty() {
        return;
    }
    for queue in &draft.queues {
        for (n, address) in queue.definition.addresses.iter().enumerate().filter(|(_, address)| address.sender) {
            // An address without a server, or with one that cannot be understood, has its own fault.
            let Some(incoming) = servers.get(address.server.as_str()) else { continue };
            if draft.unread.contains(&incoming.name) || (incoming.oauth() && incoming.realm().is_empty()) {
                continue;
            }
            let can = |it: &&Drafted<OutgoingServer>| {
                let server = &it.definition;
                server.can_send_for(servers.get(server.registration.as_str()).copied(), address, incoming)
            };
            if draft.outgoing.iter().filter(can).any(|it| it.definition.enabled) {
                continue;
            }
            let text = match draft.outgoing.iter().find(can) {
                Some(disabled) => format!(
                    "{} may be used as From, but outgoing server {:?}, which could send for it, is not enabled; \
                     enable it, or take sender away",
                    address.email, disabled.definition.name
                ),
                None if draft.outgoing.is_empty() => format!(
                    "{} may be used as From, but there is no outgoing server; add one to outgoingServers, \
                     or take sender away",
                    address.email
                ),
                None => format!(
                    "{} may be used as From, but no outgoing server can send for it: none is a relay or of its tenant; \
                     add one, or take sender away",
                    address.email
                ),
            };
            faults.add(&format!("{}.addresses[{n}]", queue.path), "sender", text);
        }
    }
}

//! Outgoing servers on the wire.

use postroom_proto::v1;

use super::{Asked, Fault, read_port, read_proxy, secret, trim};
use crate::definition::model::{OutgoingAuthentication, OutgoingServer, SentCopy, SmtpSecurity, Transport};

pub(super) fn read(wire: v1::OutgoingServer, path: &str, fault: &mut Fault<'_>) -> (OutgoingServer, Asked, Asked) {
    let authentication = read_authentication(wire.authentication);
    if authentication.is_none() {
        let description = "is missing or not known here; write oauth-service, oauth-user, password or none";
        fault(format!("{path}.authentication"), description.into());
    }
    let transport = match v1::Transport::try_from(wire.transport) {
        Ok(v1::Transport::Unspecified) => None,
        Ok(v1::Transport::Graph) => Some(Transport::Graph),
        Ok(v1::Transport::Smtp) => Some(Transport::Smtp),
        Err(_) => {
            fault(format!("{path}.transport"), "is not known here; write graph or smtp, or leave it out".into());
            None
        }
    };
    let smtp_security = match v1::SmtpSecurity::try_from(wire.smtp_security) {
        Ok(v1::SmtpSecurity::Unspecified) => None,
        Ok(v1::SmtpSecurity::Starttls) => Some(SmtpSecurity::Starttls),
        Ok(v1::SmtpSecurity::Tls) => Some(SmtpSecurity::Tls),
        Ok(v1::SmtpSecurity::None) => Some(SmtpSecurity::None),
        Err(_) => {
            let description = "is not known here; write starttls, tls or none, or leave it out";
            fault(format!("{path}.smtp.security"), description.into());
            None
        }
    };
    let sent_copy = match v1::SentCopy::try_from(wire.sent_copy) {
        Ok(v1::SentCopy::Unspecified) => None,
        Ok(v1::SentCopy::Server) => Some(SentCopy::Server),
        Ok(v1::SentCopy::None) => Some(SentCopy::None),
        Err(_) => {
            fault(format!("{path}.sentCopy"), "is not known here; write server or none, or leave it out".into());
            None
        }
    };
    let server = OutgoingServer {
        uid: String::new(),
        name: trim(&wire.name),
        enabled: wire.enabled.unwrap_or(true),
        server: trim(&wire.server).to_ascii_lowercase(),
        authentication: authentication.unwrap_or(OutgoingAuthentication::None),
        user: trim(&wire.user),
        password: None,
        client_id: trim(&wire.client_id),
        secret: None,
        registration: trim(&wire.registration),
        transport,
        smtp_host: trim(&wire.smtp_host).to_ascii_lowercase(),
        smtp_port: read_port(wire.smtp_port, path, "smtp.port", fault),
        smtp_security,
        graph_host: trim(&wire.graph_host).to_ascii_lowercase(),
        scope: trim(&wire.scope),
        ca_file: trim(&wire.ca_file),
        proxy: read_proxy(&wire.proxy, path, fault),
        sent_copy,
        sent_folder: trim(&wire.sent_folder),
        revision: 0,
    };
    let password = secret(wire.password, &format!("{path}.password"), fault);
    (server, password, secret(wire.secret, &format!("{path}.secret"), fault))
}

pub(super) fn read_authentication(wire: i32) -> Option<OutgoingAuthentication> {
    use v1::OutgoingAuthentication as Wire;
    match Wire::try_from(wire) {
        Ok(Wire::OauthService) => Some(OutgoingAuthentication::OauthService),
        Ok(Wire::OauthUser) => Some(OutgoingAuthentication::OauthUser),
        Ok(Wire::Password) => Some(OutgoingAuthentication::Password),
        Ok(Wire::None) => Some(OutgoingAuthentication::None),
        Ok(Wire::Unspecified) | Err(_) => None,
    }
}

/// An outgoing server for the wire, without its secrets.
pub fn outgoing_server(server: &OutgoingServer) -> v1::OutgoingServer {
    let transport = match server.transport {
        None => v1::Transport::Unspecified,
        Some(Transport::Graph) => v1::Transport::Graph,
        Some(Transport::Smtp) => v1::Transport::Smtp,
    };
    let sent_copy = match server.sent_copy {
        None => v1::SentCopy::Unspecified,
        Some(SentCopy::Server) => v1::SentCopy::Server,
        Some(SentCopy::None) => v1::SentCopy::None,
    };
    v1::OutgoingServer {
        uid: server.uid.clone(),
        name: server.name.clone(),
        enabled: Some(server.enabled),
        server: server.server.clone(),
        authentication: outgoing_authentication(server.authentication).into(),
        user: server.user.clone(),
        password: None,
        password_set: server.password.is_some(),
        client_id: server.client_id.clone(),
        secret: None,
        secret_set: server.secret.is_some(),
        registration: server.registration.clone(),
        transport: transport.into(),
        revision: server.revision,
        smtp_host: server.smtp_host.clone(),
        smtp_port: server.smtp_port.into(),
        smtp_security: server.smtp_security.map_or(v1::SmtpSecurity::Unspecified, smtp_security).into(),
        graph_host: server.graph_host.clone(),
        scope: server.scope.clone(),
        ca_file: server.ca_file.clone(),
        proxy: server.proxy.clone(),
        sent_copy: sent_copy.into(),
        sent_folder: server.sent_folder.clone(),
    }
}

/// How the connection to an SMTP server is protected, for the wire.
pub fn smtp_security(security: SmtpSecurity) -> v1::SmtpSecurity {
    match security {
        SmtpSecurity::Starttls => v1::SmtpSecurity::Starttls,
        SmtpSecurity::Tls => v1::SmtpSecurity::Tls,
        SmtpSecurity::None => v1::SmtpSecurity::None,
    }
}

/// How an outgoing server is signed in to, for the wire.
pub fn outgoing_authentication(authentication: OutgoingAuthentication) -> v1::OutgoingAuthentication {
    match authentication {
        OutgoingAuthentication::OauthService => v1::OutgoingAuthentication::OauthService,
        OutgoingAuthentication::OauthUser => v1::OutgoingAuthentication::OauthUser,
        OutgoingAuthentication::Password => v1::OutgoingAuthentication::Password,
        OutgoingAuthentication::None => v1::OutgoingAuthentication::None,
    }
}

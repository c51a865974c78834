//! Outgoing servers on the wire.

use postroom_proto::v1;

use super::{Asked, Fault, secret, trim};
use crate::definition::model::{OutgoingAuthentication, OutgoingServer, Transport};

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
    let authentication = match server.authentication {
        OutgoingAuthentication::OauthService => v1::OutgoingAuthentication::OauthService,
        OutgoingAuthentication::OauthUser => v1::OutgoingAuthentication::OauthUser,
        OutgoingAuthentication::Password => v1::OutgoingAuthentication::Password,
        OutgoingAuthentication::None => v1::OutgoingAuthentication::None,
    };
    let transport = match server.transport {
        None => v1::Transport::Unspecified,
        Some(Transport::Graph) => v1::Transport::Graph,
        Some(Transport::Smtp) => v1::Transport::Smtp,
    };
    v1::OutgoingServer {
        uid: server.uid.clone(),
        name: server.name.clone(),
        enabled: Some(server.enabled),
        server: server.server.clone(),
        authentication: authentication.into(),
        user: server.user.clone(),
        password: None,
        password_set: server.password.is_some(),
        client_id: server.client_id.clone(),
        secret: None,
        secret_set: server.secret.is_some(),
        registration: server.registration.clone(),
        transport: transport.into(),
        revision: server.revision,
    }
}

//! Outgoing servers: how mail is sent, and for whom each can send.

use serde::{Deserialize, Serialize};

use super::model::{Address, IncomingServer};
use super::normalise;
use crate::access::vault::Sealed;

/// TCP port of SMTP submission unless another is named (RFC 6409 section 3.1).
pub(super) const DEFAULT_SMTP_PORT: u16 = 587;

/// How mail is sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OutgoingServer {
    /// Never changes and is never used again.
    pub uid: String,
    /// Unique among outgoing servers.
    pub name: String,
    /// False: nothing is sent by it.
    pub enabled: bool,
    /// OAuth: tenant, may be empty with a registration. Otherwise `host` or `host:port`.
    pub server: String,
    /// How to sign in.
    pub authentication: OutgoingAuthentication,
    /// GUID or address of the mailbox user; the user name with a password.
    pub user: String,
    /// OAuth User and password: password of the user.
    pub password: Option<Sealed>,
    /// OAuth without a registration: application (client) id.
    pub client_id: String,
    /// OAuth Service without a registration: client secret.
    pub secret: Option<Sealed>,
    /// Name of the incoming server whose app registration is shared; may be empty.
    pub registration: String,
    /// As written; `None`: by what the user is.
    pub transport: Option<Transport>,
    /// Revision of the model that last changed it.
    #[serde(skip)]
    pub revision: u64,
}

/// How an outgoing server is signed in to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OutgoingAuthentication {
    /// Client credentials grant (RFC 6749 section 4.4).
    OauthService,
    /// Password grant (RFC 6749 section 4.3).
    OauthUser,
    /// User name and password (RFC 4954).
    Password,
    /// Not at all.
    None,
}

/// By which protocol mail is handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Transport {
    /// Microsoft Graph, sendMail.
    Graph,
    /// SMTP submission.
    Smtp,
}

impl OutgoingServer {
    /// True when it signs in with OAuth.
    pub fn oauth(&self) -> bool {
        matches!(self.authentication, OutgoingAuthentication::OauthService | OutgoingAuthentication::OauthUser)
    }

    /// True when it has a client secret of its own.
    pub fn keeps_secret(&self) -> bool {
        self.authentication == OutgoingAuthentication::OauthService && self.registration.is_empty()
    }

    /// True when it has a password.
    pub fn keeps_password(&self) -> bool {
        matches!(self.authentication, OutgoingAuthentication::OauthUser | OutgoingAuthentication::Password)
    }

    /// By which protocol mail is handed over: Graph when the user is a GUID, which no SMTP server knows.
    pub fn transport(&self) -> Transport {
        let guid = self.oauth() && uuid::Uuid::try_parse(&self.user).is_ok();
        self.transport.unwrap_or(if guid { Transport::Graph } else { Transport::Smtp })
    }

    /// Tenant of one with OAuth, by itself or by the app registration that it shares. Empty: unknown.
    pub fn tenant<'a>(&'a self, registration: Option<&'a IncomingServer>) -> &'a str {
        match registration {
            _ if !self.oauth() => "",
            Some(registration) if self.server.is_empty() => registration.realm(),
            _ => &self.server,
        }
    }

    /// Owner of its secret in the vault.
    pub fn secret_owner(&self) -> String {
        format!("outgoing-server/{}/secret", self.uid)
    }

    /// Owner of its password in the vault.
    pub fn password_owner(&self) -> String {
        format!("outgoing-server/{}/password", self.uid)
    }

    /// True when mail from this address can be sent by it, were it enabled.
    ///
    /// A relay sends for everybody. With OAuth it sends for its tenant: for addresses whose incoming server names the
    /// same one, and for those in a domain that is the tenant's name. A tenant that one writes as a GUID and the other
    /// as a domain is taken for the same: only Microsoft can tell.
    pub fn can_send_for(
        &self,
        registration: Option<&IncomingServer>,
        address: &Address,
        incoming: &IncomingServer,
    ) -> bool {
        if !self.oauth() {
            return true;
        }
        let tenant = self.tenant(registration);
        let domain = address.email.rsplit_once('@').map_or("", |(_, domain)| domain);
        if tenant.eq_ignore_ascii_case(domain) {
            return true;
        }
        let Some((_, other)) = normalise::split(&incoming.address).filter(|_| incoming.oauth()) else { return false };
        let guid = |tenant: &str| uuid::Uuid::try_parse(tenant).is_ok();
        tenant.eq_ignore_ascii_case(other) || guid(tenant) != guid(other)
    }
}

/// `host` or `host:port`, as an SMTP server is written. The port is [`DEFAULT_SMTP_PORT`] where none is.
pub(super) fn host_and_port(server: &str) -> Option<(&str, u16)> {
    // An IPv6 address stands in brackets where a port follows.
    if let Some(rest) = server.strip_prefix('[') {
        let (host, port) = rest.split_once(']')?;
        host.parse::<std::net::Ipv6Addr>().ok()?;
        return match port.strip_prefix(':') {
            Some(port) => Some((host, port.parse().ok().filter(|port| *port != 0)?)),
            None => port.is_empty().then_some((host, DEFAULT_SMTP_PORT)),
        };
    }
    if server.parse::<std::net::Ipv6Addr>().is_ok() {
        return Some((server, DEFAULT_SMTP_PORT));
    }
    match server.split_once(':') {
        Some((host, port)) => normalise::is_host(host).then_some((host, port.parse().ok().filter(|port| *port != 0)?)),
        None => normalise::is_host(server).then_some((server, DEFAULT_SMTP_PORT)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::model::{Authentication, Security};
    use super::*;

    const GUID: &str = "3f2504e0-4f89-11d3-9a0c-0305e82c3301";

    fn outgoing(authentication: OutgoingAuthentication, server: &str) -> OutgoingServer {
        OutgoingServer {
            uid: "o".into(),
            name: "out".into(),
            enabled: true,
            server: server.into(),
            authentication,
            user: "ada@contoso.example".into(),
            password: None,
            client_id: String::new(),
            secret: None,
            registration: String::new(),
            transport: None,
            revision: 0,
        }
    }

    fn incoming(tenant: &str, authentication: Authentication) -> IncomingServer {
        IncomingServer {
            uid: "s".into(),
            name: "in".into(),
            address: format!("https://login.microsoftonline.com/{tenant}"),
            authentication,
            client_id: String::new(),
            secret: None,
            imap_host: "mail.example".into(),
            imap_port: 0,
            imap_security: Security::Tls,
            scope: String::new(),
            ca_file: String::new(),
            proxy: String::new(),
            revision: 0,
        }
    }

    fn address(email: &str) -> Address {
        Address {
            email: email.into(),
            priority: 0,
            language: String::new(),
            account: String::new(),
            password: None,
            sender: true,
            server: "in".into(),
            folder: String::new(),
        }
    }

    #[test]
    fn with_oauth_it_sends_for_its_tenant_and_a_relay_for_everybody() {
        use OutgoingAuthentication::{None as Nobody, OauthService, Password};
        let here = incoming("contoso.example", Authentication::OauthService);
        let elsewhere = incoming("fabrikam.example", Authentication::OauthService);
        let own = incoming("ignored", Authentication::Password);
        for (server, email, incoming, expected) in [
            ("contoso.example", "ada@other.example", &here, true),
            ("CONTOSO.example", "ada@other.example", &here, true),
            ("contoso.example", "ada@contoso.example", &elsewhere, true),
            ("contoso.example", "ada@contoso.example", &own, true),
            ("contoso.example", "ada@other.example", &elsewhere, false),
            ("contoso.example", "ada@other.example", &own, false),
            (GUID, "ada@other.example", &here, true),
            (GUID, "ada@other.example", &own, false),
        ] {
            let found = outgoing(OauthService, server).can_send_for(None, &address(email), incoming);
            assert_eq!(found, expected, "{server} {email} {}", incoming.address);
        }
        let shared = outgoing(OauthService, "");
        assert!(shared.can_send_for(Some(&here), &address("ada@other.example"), &here));
        assert!(!shared.can_send_for(Some(&elsewhere), &address("ada@other.example"), &here));
        for relay in [Nobody, Password] {
            assert!(outgoing(relay, "smtp.example").can_send_for(None, &address("ada@other.example"), &own));
        }
    }

    #[test]
    fn the_transport_follows_from_the_user() {
        let mut server = outgoing(OutgoingAuthentication::OauthService, "contoso.example");
        assert_eq!(server.transport(), Transport::Smtp);
        server.user = GUID.into();
        assert_eq!(server.transport(), Transport::Graph);
        server.transport = Some(Transport::Smtp);
        assert_eq!(server.transport(), Transport::Smtp);
        let relay = OutgoingServer { user: GUID.into(), ..outgoing(OutgoingAuthentication::Password, "smtp.example") };
        assert_eq!(relay.transport(), Transport::Smtp, "to a relay it is a user name like any other");
    }

    #[test]
    fn hosts_are_read_with_and_without_port() {
        for (written, read) in [
            ("smtp.example", Some(("smtp.example", 587))),
            ("smtp.example:25", Some(("smtp.example", 25))),
            ("192.0.2.1:2525", Some(("192.0.2.1", 2525))),
            ("[::1]:25", Some(("::1", 25))),
            ("[::1]", Some(("::1", 587))),
            ("::1", Some(("::1", 587))),
            ("smtp.example:0", None),
            ("smtp.example:70000", None),
            ("smtp://smtp.example", None),
            ("[smtp.example]:25", None),
            ("[::1]25", None),
            (":25", None),
            ("", None),
        ] {
            assert_eq!(host_and_port(written), read, "{written:?}");
        }
    }
}

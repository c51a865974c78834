//! Outgoing servers: how mail is sent, and for whom each can send.

use serde::{Deserialize, Serialize};

use super::model::{Address, IncomingServer};
use super::normalise;
use crate::access::vault::Sealed;

/// TCP port of SMTP submission unless another is named (RFC 6409 section 3.1).
pub(super) const DEFAULT_SMTP_PORT: u16 = 587;
/// TCP port of SMTP submission with TLS from the first byte (RFC 8314 section 3.3).
const TLS_SMTP_PORT: u16 = 465;
const HTTPS_PORT: u16 = 443;
/// Where tokens are asked for when no app registration of an incoming server says otherwise.
const GLOBAL_LOGIN_HOST: &str = "login.microsoftonline.com";
/// Folder in which Exchange keeps what was sent.
const DEFAULT_SENT_FOLDER: &str = "Sent Items";

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
    /// OAuth: host of the SMTP server as written; may be empty.
    #[serde(default)]
    pub smtp_host: String,
    /// OAuth: its port as written; may be 0.
    #[serde(default)]
    pub smtp_port: u16,
    /// As written; `None`: by the port.
    #[serde(default)]
    pub smtp_security: Option<SmtpSecurity>,
    /// Host or host:port of the Graph API as written; may be empty.
    #[serde(default)]
    pub graph_host: String,
    /// As written; may be empty.
    #[serde(default)]
    pub scope: String,
    /// PEM file of further trusted CAs on the worker's machine; may be empty.
    #[serde(default)]
    pub ca_file: String,
    /// URL of the proxy to go through; may be empty.
    #[serde(default)]
    pub proxy: String,
    /// As written; `None`: by whether it is Microsoft's.
    #[serde(default)]
    pub sent_copy: Option<SentCopy>,
    /// As written; may be empty.
    #[serde(default)]
    pub sent_folder: String,
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

/// How the connection to an SMTP server is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SmtpSecurity {
    /// STARTTLS (RFC 3207), or nothing is sent.
    Starttls,
    /// TLS from the first byte (RFC 8314 section 3.3).
    Tls,
    /// None.
    None,
}

/// Whether the server keeps a copy of what it sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SentCopy {
    /// It files one in the sending mailbox.
    Server,
    /// It does not.
    None,
}

/// Where and how mail is handed over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Host of the SMTP server, or of the Graph API. Empty: not known and not written.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Protection of the connection. Graph is always TLS.
    pub security: SmtpSecurity,
    /// OAuth: scope to ask for; empty: not known and not written, or no OAuth.
    pub scope: String,
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

    /// OAuth: `https://<login host>/<tenant>`, at the login host of the app registration that it shares, else at that of
    /// Microsoft's global cloud. Empty: none.
    pub fn authority(&self, registration: Option<&IncomingServer>) -> String {
        let tenant = self.tenant(registration);
        if tenant.is_empty() {
            return String::new();
        }
        let login =
            registration.and_then(|it| normalise::split(&it.address)).map_or(GLOBAL_LOGIN_HOST, |(host, _)| host);
        format!("https://{login}/{tenant}")
    }

    /// Where mail is handed over, and with which scope.
    pub fn target(&self, registration: Option<&IncomingServer>) -> Target {
        let cloud = self.oauth().then(|| normalise::cloud_of(&self.authority(registration))).flatten();
        let known = |of: fn(&'static normalise::Cloud) -> Option<&'static str>| cloud.and_then(of).unwrap_or_default();
        let service = self.authentication == OutgoingAuthentication::OauthService;
        let scope = |known: &str| if self.scope.is_empty() { known.to_owned() } else { self.scope.clone() };
        if self.transport() == Transport::Graph {
            let written = host_and_port_or(&self.graph_host, HTTPS_PORT);
            let (host, port) = written.unwrap_or_else(|| (known(|it| it.graph_host), HTTPS_PORT));
            let scope =
                scope(known(if service { |it| Some(it.graph_service_scope) } else { |it| Some(it.graph_user_scope) }));
            return Target { host: host.into(), port, security: SmtpSecurity::Tls, scope };
        }
        let (host, port) = if self.oauth() {
            let host = if self.smtp_host.is_empty() { known(|it| it.smtp_host) } else { &self.smtp_host };
            (host, if self.smtp_port == 0 { DEFAULT_SMTP_PORT } else { self.smtp_port })
        } else {
            host_and_port(&self.server).unwrap_or_default()
        };
        let by_port = if port == TLS_SMTP_PORT { SmtpSecurity::Tls } else { SmtpSecurity::Starttls };
        let scope = match self.oauth() {
            true => scope(known(if service { |it| Some(it.service_scope) } else { |it| Some(it.smtp_user_scope) })),
            false => String::new(),
        };
        Target { host: host.into(), port, security: self.smtp_security.unwrap_or(by_port), scope }
    }

    /// The folder in which the server keeps a copy of what it sends. `None`: it keeps none.
    pub fn sent_folder(&self) -> Option<&str> {
        let default = if self.oauth() { SentCopy::Server } else { SentCopy::None };
        let keeps = self.sent_copy.unwrap_or(default) == SentCopy::Server;
        keeps.then_some(if self.sent_folder.is_empty() { DEFAULT_SENT_FOLDER } else { &self.sent_folder })
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
    host_and_port_or(server, DEFAULT_SMTP_PORT)
}

/// `host` or `host:port`, with the port to be taken where none is written.
pub(super) fn host_and_port_or(server: &str, default_port: u16) -> Option<(&str, u16)> {
    // An IPv6 address stands in brackets where a port follows.
    if let Some(rest) = server.strip_prefix('[') {
        let (host, port) = rest.split_once(']')?;
        host.parse::<std::net::Ipv6Addr>().ok()?;
        return match port.strip_prefix(':') {
            Some(port) => Some((host, port.parse().ok().filter(|port| *port != 0)?)),
            None => port.is_empty().then_some((host, default_port)),
        };
    }
    if server.parse::<std::net::Ipv6Addr>().is_ok() {
        return Some((server, default_port));
    }
    match server.split_once(':') {
        Some((host, port)) => normalise::is_host(host).then_some((host, port.parse().ok().filter(|port| *port != 0)?)),
        None => normalise::is_host(server).then_some((server, default_port)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::model::Authentication;
    use super::super::sample;
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
            smtp_host: String::new(),
            smtp_port: 0,
            smtp_security: None,
            graph_host: String::new(),
            scope: String::new(),
            ca_file: String::new(),
            proxy: String::new(),
            sent_copy: None,
            sent_folder: String::new(),
            revision: 0,
        }
    }

    fn incoming(tenant: &str, authentication: Authentication) -> IncomingServer {
        let address = format!("https://login.microsoftonline.com/{tenant}");
        IncomingServer { address, authentication, ..sample::incoming() }
    }

    fn address(email: &str) -> Address {
        Address { sender: true, ..sample::address(email) }
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
    fn where_mail_is_handed_over_follows_from_the_cloud_unless_it_is_written() {
        let graph = OutgoingServer { user: GUID.into(), ..outgoing(OutgoingAuthentication::OauthService, GUID) };
        let target = graph.target(None);
        assert_eq!((target.host.as_str(), target.port), ("graph.microsoft.com", 443));
        assert_eq!(target.scope, "https://graph.microsoft.com/.default");
        assert_eq!(graph.authority(None), format!("https://login.microsoftonline.com/{GUID}"));
        assert_eq!(graph.sent_folder(), Some("Sent Items"));

        let mut government = incoming("contoso.example", Authentication::OauthService);
        government.address = "https://login.microsoftonline.us/contoso.example".into();
        let user = outgoing(OutgoingAuthentication::OauthUser, "");
        let target = user.target(Some(&government));
        assert_eq!(
            (target.host.as_str(), target.port, target.security),
            ("smtp.office365.us", 587, SmtpSecurity::Starttls)
        );
        assert_eq!(target.scope, "https://outlook.office365.us/SMTP.Send");
        assert_eq!(user.authority(Some(&government)), "https://login.microsoftonline.us/contoso.example");

        let mut local = incoming("contoso.example", Authentication::OauthService);
        local.address = "https://127.0.0.1:8443/contoso.example".into();
        assert_eq!(user.target(Some(&local)).host, "", "to be written");
        let written = OutgoingServer {
            smtp_host: "127.0.0.1".into(),
            smtp_port: 465,
            scope: "own".into(),
            sent_copy: Some(SentCopy::None),
            ..user
        };
        let target = written.target(Some(&local));
        assert_eq!((target.host.as_str(), target.port, target.security), ("127.0.0.1", 465, SmtpSecurity::Tls));
        assert_eq!((target.scope.as_str(), written.sent_folder()), ("own", None));

        let relay = outgoing(OutgoingAuthentication::None, "relay.example:25");
        let relay = OutgoingServer { smtp_security: Some(SmtpSecurity::None), ..relay };
        let target = relay.target(None);
        assert_eq!((target.host.as_str(), target.port, target.security), ("relay.example", 25, SmtpSecurity::None));
        assert_eq!((target.scope.as_str(), relay.authority(None).as_str(), relay.sent_folder()), ("", "", None));
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

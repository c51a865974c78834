//! What stands in an access token, for diagnosis only: Exchange does not say why it refuses one.
//!
//! Entra's tokens for Exchange are JWTs today (RFC 7519), and Microsoft asks not to rely on it: what cannot be read says
//! nothing, and nothing here decides whether a token is used. Signatures are not looked at.

use data_encoding::BASE64URL_NOPAD;
use postroom_proto::catalogue::{own, send};
use postroom_proto::v1::{Authentication, MailboxDefinition, OutgoingAuthentication, OutgoingDefinition, Transport};
use serde::Deserialize;

use super::{Diagnosis, excerpt};

/// The application permission for IMAP.
const ROLE: &str = "IMAP.AccessAsApp";
/// The delegated permission for IMAP.
const SCOPE: &str = "IMAP.AccessAsUser.All";
/// The application permission for SMTP.
const SMTP_ROLE: &str = "SMTP.SendAsApp";
/// The delegated permission for SMTP.
const SMTP_SCOPE: &str = "SMTP.Send";
/// The permission to send by Graph, of either kind.
const GRAPH_SEND: &str = "Mail.Send";
/// Microsoft Graph, by its names in the clouds and by its application id.
const GRAPH: [&str; 5] = [
    "graph.microsoft.com",
    "graph.microsoft.us",
    "dod-graph.microsoft.us",
    "microsoftgraph.chinacloudapi.cn",
    "00000003-0000-0000-c000-000000000000",
];
/// Exchange Online, likewise.
const EXCHANGE: [&str; 6] = [
    "outlook.office365.com",
    "outlook.office.com",
    "ps.outlook.com",
    "outlook.office365.us",
    "partner.outlook.cn",
    "00000002-0000-0ff1-ce00-000000000000",
];
/// Login hosts of Entra: only their tokens must be for Exchange.
const ENTRA: [&str; 4] = [
    "login.microsoftonline.com",
    "login.microsoftonline.us",
    "login.partner.microsoftonline.cn",
    "login.chinacloudapi.cn",
];

/// The claims that matter for reading and sending mail.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Claims {
    aud: Audience,
    tid: String,
    roles: Vec<String>,
    scp: String,
    exp: Option<i64>,
    upn: String,
    #[serde(alias = "azp")]
    appid: String,
}

/// One or several resources (RFC 7519 section 4.1.3).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

impl Default for Audience {
    fn default() -> Self {
        Self::Several(Vec::new())
    }
}

impl Audience {
    fn all(&self) -> &[String] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Several(several) => several,
        }
    }

    fn is_of(&self, names: &[&str]) -> bool {
        let host = |resource: &str| {
            let bare = resource.strip_prefix("https://").unwrap_or(resource);
            bare.trim_end_matches('/').to_lowercase()
        };
        self.all().iter().any(|resource| names.contains(&host(resource).as_str()))
    }
}

impl Claims {
    /// Reads the claims of a token. `None`: it is not a JWT, which is its issuer's right.
    pub fn read(token: &str) -> Option<Self> {
        let mut parts = token.split('.');
        let (_, payload, _) = (parts.next()?, parts.next()?, parts.next()?);
        let bytes = BASE64URL_NOPAD.decode(payload.trim_end_matches('=').as_bytes()).ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    /// When the token ends, in seconds since 1970.
    pub fn expires(&self) -> Option<i64> {
        self.exp
    }

    /// All of it in one line.
    pub fn describe(&self) -> String {
        let or_none = |text: String| if text.is_empty() { "none".to_owned() } else { excerpt(&text, 200) };
        let mut parts = vec![
            format!("audience {}", or_none(self.aud.all().join(" "))),
            format!("tenant {}", or_none(self.tid.clone())),
        ];
        if !self.upn.is_empty() {
            parts.push(format!("user {}", excerpt(&self.upn, 100)));
        }
        if !self.appid.is_empty() {
            parts.push(format!("application {}", excerpt(&self.appid, 100)));
        }
        if self.scp.is_empty() {
            parts.push(format!("roles {}", or_none(self.roles.join(" "))));
        } else {
            parts.push(format!("scopes {}", or_none(self.scp.clone())));
        }
        parts.join(", ")
    }

    /// Why a mail server will not take this token. `None`: nothing is known against it.
    pub fn fault(&self, definition: &MailboxDefinition) -> Option<Diagnosis> {
        if self.aud.is_of(&GRAPH) {
            let found = Diagnosis::of(&own::TOKEN_FOR_GRAPH, own::TOKEN_FOR_GRAPH.title);
            return Some(match definition.authentication() {
                Authentication::OauthUser => found.mended_by(
                    "clear the incoming server's `scope`, and add the delegated permission IMAP.AccessAsUser.All with \
                     admin consent to the app registration",
                ),
                _ => found,
            });
        }
        if !self.aud.is_of(&EXCHANGE) {
            let entra = ENTRA.iter().any(|host| definition.authority.starts_with(&format!("https://{host}/")));
            let resource = excerpt(&self.aud.all().join(" "), 100);
            let cause = format!("the token is for {resource}, not for Exchange Online");
            return (entra && !resource.is_empty()).then(|| Diagnosis::of(&own::TOKEN_FOR_OTHER_RESOURCE, cause));
        }
        match definition.authentication() {
            Authentication::OauthService if !self.roles.iter().any(|role| role == ROLE) => {
                let held = if self.roles.is_empty() { "no role".to_owned() } else { self.roles.join(" ") };
                let cause = format!("the token does not have the role {ROLE} (it has {})", excerpt(&held, 100));
                Some(Diagnosis::of(&own::TOKEN_WITHOUT_ROLE, cause))
            }
            Authentication::OauthUser if !self.scp.split(' ').any(|scope| scope == SCOPE) => {
                let held = if self.scp.is_empty() { "no scope" } else { self.scp.as_str() };
                let cause = format!("the token does not have the scope {SCOPE} (it has {})", excerpt(held, 100));
                Some(Diagnosis::of(&own::TOKEN_WITHOUT_SCOPE, cause))
            }
            _ => None,
        }
    }

    /// Why what sends will not take this token, or may not: a role that is missing can be replaced by a grant in Exchange
    /// (RBAC for Applications), which no token shows. `None`: nothing is known against it.
    pub fn sending_fault(&self, definition: &OutgoingDefinition) -> Option<Diagnosis> {
        let graph = definition.transport() == Transport::Graph;
        let (wanted, name) = if graph { (&GRAPH[..], "Microsoft Graph") } else { (&EXCHANGE[..], "Exchange Online") };
        let entra = ENTRA.iter().any(|host| definition.authority.starts_with(&format!("https://{host}/")));
        if !self.aud.is_of(wanted) {
            // Another provider may write into its tokens what it likes, unless it is plainly the other of the two.
            let other = if graph { &EXCHANGE[..] } else { &GRAPH[..] };
            let resource = excerpt(&self.aud.all().join(" "), 100);
            let wrong = self.aud.is_of(other) || entra && !resource.is_empty();
            let cause = format!("the token is for {resource}, not for {name}");
            return wrong.then(|| Diagnosis::of(&send::SEND_TOKEN_FOR_OTHER_API, cause));
        }
        let scopes: Vec<String> = self.scp.split_whitespace().map(str::to_owned).collect();
        let (held, permission) = match (definition.authentication(), graph) {
            (OutgoingAuthentication::OauthService, true) => (&self.roles, GRAPH_SEND),
            (OutgoingAuthentication::OauthService, false) => (&self.roles, SMTP_ROLE),
            (_, true) => (&scopes, GRAPH_SEND),
            (_, false) => (&scopes, SMTP_SCOPE),
        };
        // "Mail.Send.Shared" sends for others, too.
        let shared = format!("{permission}.");
        if held.iter().any(|one| one == permission || one.starts_with(&shared)) {
            return None;
        }
        let shown = if held.is_empty() { "none".to_owned() } else { held.join(" ") };
        let cause = format!("the token does not have the permission {permission} (it has {})", excerpt(&shown, 100));
        Some(Diagnosis::of(&send::SEND_TOKEN_WITHOUT_RIGHT, cause))
    }

    /// What is odd about the token without being a reason to refuse it. `authority`: where it comes from.
    pub fn oddity(&self, authority: &str) -> Option<Diagnosis> {
        let tenant = authority.rsplit('/').next().unwrap_or_default();
        let is_id = tenant.len() == 36 && tenant.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
        let other = is_id && !self.tid.is_empty() && !self.tid.eq_ignore_ascii_case(tenant);
        other.then(|| {
            let cause = format!("the token is of tenant {}, the address names {tenant}", excerpt(&self.tid, 64));
            Diagnosis::of(&own::TOKEN_OF_OTHER_TENANT, cause)
        })
    }
}

/// The better explanation of a refused token, if the token itself has one; otherwise what was found.
pub fn explain(found: Diagnosis, token: &str, definition: &MailboxDefinition) -> Diagnosis {
    match Claims::read(token).and_then(|claims| claims.fault(definition)) {
        Some(fault) => Diagnosis { cause: format!("{}; {}", fault.cause, found.cause), ..fault },
        None => found,
    }
}

/// The same for what sends.
pub fn explain_sending(found: Diagnosis, token: &str, definition: &OutgoingDefinition) -> Diagnosis {
    match Claims::read(token).and_then(|claims| claims.sending_fault(definition)) {
        Some(fault) => Diagnosis { cause: format!("{}; {}", fault.cause, found.cause), wait: found.wait, ..fault },
        None => found,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(claims: serde_json::Value) -> String {
        format!("e30.{}.x", BASE64URL_NOPAD.encode(claims.to_string().as_bytes()))
    }

    fn definition(authentication: Authentication) -> MailboxDefinition {
        MailboxDefinition {
            authentication: authentication.into(),
            authority: "https://login.microsoftonline.com/11111111-2222-3333-4444-555555555555".into(),
            ..MailboxDefinition::default()
        }
    }

    fn code(claims: serde_json::Value, authentication: Authentication) -> Option<String> {
        let claims = Claims::read(&token(claims)).expect("a token");
        claims.fault(&definition(authentication)).map(|found| found.code)
    }

    #[test]
    fn a_token_that_is_fit_for_imap_has_no_fault() {
        let service = serde_json::json!({"aud": "https://outlook.office365.com", "roles": ["Mail.Read", ROLE]});
        assert_eq!(code(service, Authentication::OauthService), None);
        let user = serde_json::json!({"aud": ["00000002-0000-0ff1-ce00-000000000000"], "scp": format!("x {SCOPE}")});
        assert_eq!(code(user, Authentication::OauthUser), None);
    }

    #[test]
    fn an_app_registration_for_graph_only_is_recognised() {
        let graph = serde_json::json!({"aud": "https://graph.microsoft.com", "roles": ["Mail.ReadWrite"]});
        assert_eq!(code(graph.clone(), Authentication::OauthService).as_deref(), Some("TOKEN_FOR_GRAPH"));
        let found = explain(
            super::super::imap::sign_in_refused("AUTHENTICATE failed.", true, None),
            &token(graph),
            &definition(Authentication::OauthService),
        );
        assert_eq!(found.code, "TOKEN_FOR_GRAPH");
        for word in ["IMAP.AccessAsApp", "New-ServicePrincipal", "enterprise application", "FullAccess"] {
            assert!(found.remedy.contains(word), "{word}: {}", found.remedy);
        }
        assert!(found.cause.contains("AUTHENTICATE failed."), "{}", found.cause);
    }

    #[test]
    fn a_missing_role_or_scope_is_named() {
        let nothing = serde_json::json!({"aud": "https://outlook.office365.com"});
        assert_eq!(code(nothing.clone(), Authentication::OauthService).as_deref(), Some("TOKEN_WITHOUT_ROLE"));
        assert_eq!(code(nothing, Authentication::OauthUser).as_deref(), Some("TOKEN_WITHOUT_SCOPE"));
        let other = serde_json::json!({"aud": "https://management.azure.com"});
        assert_eq!(code(other, Authentication::OauthService).as_deref(), Some("TOKEN_FOR_OTHER_RESOURCE"));
    }

    #[test]
    fn another_provider_may_write_into_its_tokens_what_it_likes() {
        let elsewhere = MailboxDefinition {
            authority: "https://login.contoso.example/t".into(),
            ..definition(Authentication::OauthService)
        };
        let claims = Claims::read(&token(serde_json::json!({"aud": "imap"}))).expect("a token");
        assert_eq!((claims.fault(&elsewhere), claims.oddity(&elsewhere.authority)), (None, None));
        for opaque in ["", "opaque", "a.b.c", "e30.AAAA.x", "ya29.a0AfH6"] {
            assert_eq!(Claims::read(opaque), None, "{opaque}");
        }
    }

    #[test]
    fn another_tenant_is_odd_and_no_fault() {
        let claims = serde_json::json!({"aud": "https://outlook.office365.com", "tid": "other", "roles": [ROLE]});
        let claims = Claims::read(&token(claims)).expect("a token");
        let definition = definition(Authentication::OauthService);
        assert_eq!(claims.fault(&definition), None);
        assert_eq!(claims.oddity(&definition.authority).expect("odd").code, "TOKEN_OF_OTHER_TENANT");
        assert!(claims.describe().contains("roles IMAP.AccessAsApp"), "{}", claims.describe());
    }

    #[test]
    fn a_token_that_cannot_send_is_recognised() {
        let outgoing = |kind: Transport, sign_in: OutgoingAuthentication| OutgoingDefinition {
            transport: kind.into(),
            authentication: sign_in.into(),
            authority: "https://login.microsoftonline.com/t".into(),
            ..OutgoingDefinition::default()
        };
        let [exchange, graph] = ["https://outlook.office365.com", "https://graph.microsoft.com"];
        let (service, user) = (OutgoingAuthentication::OauthService, OutgoingAuthentication::OauthUser);
        let (smtp, api) = (Transport::Smtp, Transport::Graph);
        let (other, without) = (Some("SEND_TOKEN_FOR_OTHER_API"), Some("SEND_TOKEN_WITHOUT_RIGHT"));
        for (kind, sign_in, claims, want) in [
            (smtp, service, serde_json::json!({"aud": exchange, "roles": [SMTP_ROLE]}), None),
            (smtp, service, serde_json::json!({"aud": exchange, "roles": [ROLE]}), without),
            (smtp, service, serde_json::json!({"aud": graph, "roles": ["Mail.Send"]}), other),
            (smtp, user, serde_json::json!({"aud": exchange, "scp": "IMAP.AccessAsUser.All SMTP.Send"}), None),
            (smtp, user, serde_json::json!({"aud": exchange, "scp": "IMAP.AccessAsUser.All"}), without),
            (api, service, serde_json::json!({"aud": graph, "roles": ["Mail.Send"]}), None),
            (api, service, serde_json::json!({"aud": graph, "roles": ["Mail.ReadWrite"]}), without),
            (api, user, serde_json::json!({"aud": graph, "scp": "Mail.Send.Shared"}), None),
            (api, service, serde_json::json!({"aud": exchange, "roles": [SMTP_ROLE]}), other),
            (api, service, serde_json::json!({"aud": "https://management.azure.com"}), other),
        ] {
            let definition = outgoing(kind, sign_in);
            let fault = Claims::read(&token(claims.clone())).expect("a token").sending_fault(&definition);
            assert_eq!(fault.as_ref().map(|found| found.code.as_str()), want, "{claims}");
        }
        let elsewhere = OutgoingDefinition { authority: "https://login.x.example/t".into(), ..outgoing(smtp, service) };
        let claims = Claims::read(&token(serde_json::json!({"aud": "smtp"}))).expect("a token");
        assert_eq!(claims.sending_fault(&elsewhere), None);
        let found = super::super::Diagnosis::of(&send::SMTP_TOKEN_REFUSED, "535");
        let told = explain_sending(found, &token(serde_json::json!({"aud": exchange})), &outgoing(smtp, service));
        assert!(told.code == "SEND_TOKEN_WITHOUT_RIGHT" && told.cause.contains("535"), "{told:?}");
    }
}

//! Access tokens: JWTs (RFC 7519) signed with HS256 that the testbed's Dovecot validates.

use std::time::Duration;

use jiff::Timestamp;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::Serialize;
use uuid::Uuid;

use super::users::{Grant, Subject};

/// The scope that the Dovecot of the testbed asks for before it opens any mailbox.
const OPENS_ALL: &str = "app";

/// The claims, named and filled as Entra does (access tokens, version 2.0).
#[derive(Debug, Serialize)]
struct Claims<'a> {
    aud: &'a str,
    iss: String,
    iat: i64,
    nbf: i64,
    exp: i64,
    appid: &'a str,
    idtyp: &'static str,
    sub: &'a str,
    tid: &'a str,
    uti: String,
    ver: &'static str,
    /// Entra's tokens have none. `app` lets Dovecot open every mailbox; without it only the one of `sub`.
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    upn: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scp: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    roles: Option<Vec<&'static str>>,
}

/// Signs a token for `grant` that is valid from `now` for `lifetime`.
pub(super) fn sign(
    key: &[u8],
    base: &str,
    tenant: &str,
    grant: &Grant,
    now: Timestamp,
    lifetime: Duration,
) -> Result<String, jsonwebtoken::errors::Error> {
    let iat = now.as_second();
    let seconds = i64::try_from(lifetime.as_secs()).unwrap_or(i64::MAX);
    let mut claims = Claims {
        aud: &grant.resource,
        iss: format!("{base}/{tenant}/v2.0"),
        iat,
        nbf: iat,
        exp: iat.saturating_add(seconds),
        appid: &grant.client,
        idtyp: "app",
        sub: &grant.client,
        tid: tenant,
        uti: Uuid::new_v4().simple().to_string(),
        ver: "2.0",
        scope: None,
        upn: None,
        scp: None,
        roles: None,
    };
    match &grant.subject {
        Subject::App { consented: true } => {
            claims.scope = Some(OPENS_ALL);
            claims.roles = Some(vec!["IMAP.AccessAsApp"]);
        }
        // As Entra does: a token is issued, but it carries no role and opens nothing.
        Subject::App { consented: false } => {}
        Subject::User { name, full_access } => {
            claims.idtyp = "user";
            claims.scope = full_access.then_some(OPENS_ALL);
            claims.sub = name;
            claims.upn = Some(name);
            claims.scp = Some("IMAP.AccessAsUser.All");
        }
    }
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &EncodingKey::from_secret(key))
}

//! Access tokens: JWTs (RFC 7519) signed with HS256 that the testbed's Dovecot validates.

use std::time::Duration;

use jiff::Timestamp;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, errors::ErrorKind};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::users::{Grant, Subject};

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
    /// Entra's tokens have none. For the Dovecot of the testbed: `imap-app` opens every mailbox for IMAP, `imap-user` the
    /// one of `sub`; and so on.
    #[serde(skip_serializing_if = "String::is_empty")]
    scope: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    upn: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scp: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    roles: Option<Vec<&'static str>>,
    /// Entra's tokens have none.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    full_access: bool,
}

/// What a token lets its bearer do, in its own words.
#[derive(Debug, Deserialize)]
pub(crate) struct Bearer {
    /// The application.
    pub(crate) appid: String,
    /// The user in whose name it speaks; none: the application itself.
    #[serde(default)]
    pub(crate) upn: Option<String>,
    #[serde(default)]
    roles: Vec<String>,
    #[serde(default)]
    scp: String,
    /// Whether a user reaches every mailbox.
    #[serde(default)]
    pub(crate) full_access: bool,
}

impl Bearer {
    /// Whether it carries this role or scope.
    pub(crate) fn may(&self, name: &str) -> bool {
        self.roles.iter().any(|role| role == name) || self.scp.split(' ').any(|scope| scope == name)
    }
}

/// Why a token is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unfit {
    /// It has ended.
    Expired,
    /// It is for something else.
    Audience,
    /// It is none of this tenant's.
    Forged,
}

/// Reads a token that is meant for `audience`.
pub(super) fn read(key: &[u8], token: &str, audience: &str) -> Result<Bearer, Unfit> {
    let mut validation = Validation::new(Algorithm::HS256);
    validation.leeway = 0;
    validation.set_audience(&[audience]);
    match jsonwebtoken::decode(token, &DecodingKey::from_secret(key), &validation) {
        Ok(read) => Ok(read.claims),
        Err(error) => Err(match error.kind() {
            ErrorKind::ExpiredSignature => Unfit::Expired,
            ErrorKind::InvalidAudience => Unfit::Audience,
            _ => Unfit::Forged,
        }),
    }
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
        scope: String::new(),
        upn: None,
        scp: None,
        roles: None,
        full_access: false,
    };
    let mut reach = "app";
    match &grant.subject {
        Subject::App if grant.permissions.is_empty() => {}
        Subject::App => claims.roles = Some(grant.permissions.iter().map(|it| it.role()).collect()),
        Subject::User { name, full_access } => {
            if !full_access {
                reach = "user";
            }
            claims.full_access = *full_access;
            claims.idtyp = "user";
            claims.sub = name;
            claims.upn = Some(name);
            claims.scp = Some(joined(grant.permissions.iter().map(|it| it.scope().to_owned())));
        }
    }
    let protocols = grant.permissions.iter().filter_map(|it| it.protocol());
    claims.scope = joined(protocols.map(|protocol| format!("{protocol}-{reach}")));
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &EncodingKey::from_secret(key))
}

fn joined(words: impl Iterator<Item = String>) -> String {
    words.collect::<Vec<_>>().join(" ")
}

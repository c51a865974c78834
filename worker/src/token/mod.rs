//! Access tokens (OAuth 2.0, RFC 6749): who signs in, and the one place that asks for tokens.
//!
//! [`broker`] keeps and renews tokens, [`grant`] asks the token endpoint, [`lockout`] counts refused passwords.
//!
//! Invariant: secrets and tokens stand in `secrecy` types only and are never written to disk or to a log.

pub mod broker;
pub mod grant;
pub mod lockout;

use std::fmt;

use postroom_proto::v1::{Authentication, MailboxDefinition};
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};

/// Names credentials without showing them: equal only for the same account with the same secret in the same place.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct CredentialDigest(pub [u8; 32]);

impl fmt::Debug for CredentialDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CredentialDigest(…)")
    }
}

impl CredentialDigest {
    /// The digest of the credentials that a definition holds, whatever kind they are.
    pub fn of(definition: &MailboxDefinition) -> Self {
        let authentication = definition.authentication.to_be_bytes();
        let port = definition.imap_port.to_be_bytes();
        // A password for the mail server itself is a secret of that server; a token's is one of the authority.
        let place: [&[u8]; 2] = match definition.authentication() {
            Authentication::Password => [definition.imap_host.as_bytes(), &port],
            _ => [definition.authority.as_bytes(), b""],
        };
        let service = definition.authentication() == Authentication::OauthService;
        let account = if service { "" } else { definition.account.as_str() };
        let mut hash = Sha256::new();
        let parts = [
            &authentication,
            place[0],
            place[1],
            definition.client_id.as_bytes(),
            definition.scope.as_bytes(),
            account.as_bytes(),
            definition.client_secret.as_bytes(),
            definition.password.as_bytes(),
        ];
        for part in parts {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        Self(hash.finalize().into())
    }
}

/// How a token is asked for.
#[derive(Clone)]
pub enum Grant {
    /// Resource owner password (RFC 6749 section 4.3).
    User {
        /// The account that signs in.
        account: String,
        /// Its password.
        password: SecretString,
    },
    /// Client credentials (RFC 6749 section 4.4).
    Service,
}

/// Everything that a token is asked for with.
#[derive(Clone)]
pub struct Credential {
    /// `https://<login host>/<tenant>`.
    pub authority: String,
    /// Application (client) id.
    pub client_id: String,
    /// Client secret; empty for public clients.
    pub client_secret: SecretString,
    /// Scope to ask for.
    pub scope: String,
    /// How.
    pub grant: Grant,
    /// PEM file of further CAs for the token endpoint.
    pub ca_file: String,
    /// URL of the proxy on the way to the token endpoint; empty: none.
    pub proxy: String,
    /// Names all of it.
    pub digest: CredentialDigest,
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential")
            .field("authority", &self.authority)
            .field("client_id", &self.client_id)
            .finish_non_exhaustive()
    }
}

impl Credential {
    /// The credential of a definition. `None`: it signs in without a token.
    pub fn of(definition: &MailboxDefinition) -> Option<Self> {
        let grant = match definition.authentication() {
            Authentication::OauthUser => Grant::User {
                account: definition.account.clone(),
                password: SecretString::from(definition.password.clone()),
            },
            Authentication::OauthService => Grant::Service,
            Authentication::Password | Authentication::Unspecified => return None,
        };
        Some(Self {
            authority: definition.authority.clone(),
            client_id: definition.client_id.clone(),
            client_secret: SecretString::from(definition.client_secret.clone()),
            scope: definition.scope.clone(),
            grant,
            ca_file: definition.ca_file.clone(),
            proxy: definition.proxy.clone(),
            digest: CredentialDigest::of(definition),
        })
    }

    /// True when a person's password is sent, which a server may lock after too many wrong ones.
    pub fn has_password(&self) -> bool {
        matches!(self.grant, Grant::User { .. })
    }
}

/// An access token.
#[derive(Clone)]
pub struct Token(SecretString);

impl Token {
    /// Wraps the text of a token.
    pub fn new(text: String) -> Self {
        Self(SecretString::from(text))
    }

    /// The text, for the wire only.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token([redacted])")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition(authentication: Authentication) -> MailboxDefinition {
        MailboxDefinition {
            authentication: authentication.into(),
            authority: "https://login.contoso.example/t".into(),
            account: "anna@contoso.example".into(),
            password: "planted-password".into(),
            client_secret: "planted-secret".into(),
            ..MailboxDefinition::default()
        }
    }

    #[test]
    fn a_changed_password_is_another_credential() {
        let before = definition(Authentication::OauthUser);
        let after = MailboxDefinition { password: "other".into(), ..before.clone() };
        assert_eq!(CredentialDigest::of(&before), CredentialDigest::of(&before.clone()));
        assert_ne!(CredentialDigest::of(&before), CredentialDigest::of(&after));
    }

    #[test]
    fn mailboxes_of_one_service_share_a_token() {
        let first = definition(Authentication::OauthService);
        let second = MailboxDefinition { account: "berta@contoso.example".into(), ..first.clone() };
        assert_eq!(CredentialDigest::of(&first), CredentialDigest::of(&second));
    }

    #[test]
    fn nothing_prints_a_secret() {
        let credential = Credential::of(&definition(Authentication::OauthUser)).expect("a token");
        let printed = format!("{credential:?} {:?} {:?}", credential.digest, Token::new("planted-token".into()));
        assert!(!printed.contains("planted"), "{printed}");
    }
}

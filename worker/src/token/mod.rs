//! Access tokens (OAuth 2.0, RFC 6749): who signs in, and the one place that asks for tokens.
//!
//! [`broker`] keeps and renews tokens, [`grant`] asks the token endpoint, [`lockout`] counts refused passwords.
//!
//! Invariant: secrets and tokens stand in `secrecy` types only and are never written to disk or to a log.

pub mod broker;
pub mod grant;
pub mod lockout;

use std::fmt;

use postroom_proto::v1::{Authentication, MailboxDefinition, OutgoingAuthentication, OutgoingDefinition};
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};

/// Names credentials without showing them: equal only for the same account with the same secret in the same place,
/// whatever it signs in for.
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
        Self::new(
            definition.authentication(),
            (&definition.imap_host, definition.imap_port),
            (&definition.authority, &definition.client_id, &definition.client_secret),
            (&definition.account, &definition.password),
        )
    }

    /// The same of what sends. An account that reads and sends by one application has one digest, and so one count of
    /// refused passwords.
    pub fn of_outgoing(definition: &OutgoingDefinition) -> Self {
        Self::new(
            authentication(definition),
            (&definition.host, definition.port),
            (&definition.authority, &definition.client_id, &definition.client_secret),
            (&definition.user, &definition.password),
        )
    }

    fn new(
        authentication: Authentication,
        server: (&str, u32),
        (authority, client_id, client_secret): (&str, &str, &str),
        (account, password): (&str, &str),
    ) -> Self {
        let port = server.1.to_be_bytes();
        // A password for the mail server itself is a secret of that server; a token's is one of the authority.
        let place: [&[u8]; 2] = match authentication {
            Authentication::Password => [server.0.as_bytes(), &port],
            _ => [authority.as_bytes(), b""],
        };
        let account = if authentication == Authentication::OauthService { "" } else { account };
        let mut hash = Sha256::new();
        let parts: [&[u8]; 7] = [
            &i32::from(authentication).to_be_bytes(),
            place[0],
            place[1],
            client_id.as_bytes(),
            account.as_bytes(),
            client_secret.as_bytes(),
            password.as_bytes(),
        ];
        for part in parts {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        Self(hash.finalize().into())
    }
}

/// How what sends signs in, in the words of what reads.
fn authentication(definition: &OutgoingDefinition) -> Authentication {
    match definition.authentication() {
        OutgoingAuthentication::OauthService => Authentication::OauthService,
        OutgoingAuthentication::OauthUser => Authentication::OauthUser,
        OutgoingAuthentication::Password => Authentication::Password,
        OutgoingAuthentication::None | OutgoingAuthentication::Unspecified => Authentication::Unspecified,
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
    /// Names who signs in with what, and where.
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
        Some(Self {
            authority: definition.authority.clone(),
            client_id: definition.client_id.clone(),
            client_secret: SecretString::from(definition.client_secret.clone()),
            scope: definition.scope.clone(),
            grant: grant(definition.authentication(), &definition.account, &definition.password)?,
            ca_file: definition.ca_file.clone(),
            proxy: definition.proxy.clone(),
            digest: CredentialDigest::of(definition),
        })
    }

    /// The credential of what sends. `None`: it signs in without a token, or not at all.
    pub fn of_outgoing(definition: &OutgoingDefinition) -> Option<Self> {
        Some(Self {
            authority: definition.authority.clone(),
            client_id: definition.client_id.clone(),
            client_secret: SecretString::from(definition.client_secret.clone()),
            scope: definition.scope.clone(),
            grant: grant(authentication(definition), &definition.user, &definition.password)?,
            ca_file: definition.ca_file.clone(),
            proxy: definition.proxy.clone(),
            digest: CredentialDigest::of_outgoing(definition),
        })
    }

    /// True when a person's password is sent, which a server may lock after too many wrong ones.
    pub fn has_password(&self) -> bool {
        matches!(self.grant, Grant::User { .. })
    }
}

fn grant(authentication: Authentication, account: &str, password: &str) -> Option<Grant> {
    match authentication {
        Authentication::OauthUser => {
            Some(Grant::User { account: account.to_owned(), password: SecretString::from(password.to_owned()) })
        }
        Authentication::OauthService => Some(Grant::Service),
        Authentication::Password | Authentication::Unspecified => None,
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
    fn what_reads_and_sends_as_one_account_is_one_credential() {
        let reads = definition(Authentication::OauthUser);
        let sends = OutgoingDefinition {
            authentication: OutgoingAuthentication::OauthUser.into(),
            authority: reads.authority.clone(),
            user: reads.account.clone(),
            password: reads.password.clone(),
            client_secret: reads.client_secret.clone(),
            scope: "https://graph.microsoft.com/.default".into(),
            ..OutgoingDefinition::default()
        };
        assert_eq!(CredentialDigest::of(&reads), CredentialDigest::of_outgoing(&sends));
        let relay = OutgoingDefinition { authentication: OutgoingAuthentication::None.into(), ..sends };
        assert!(Credential::of_outgoing(&relay).is_none());
    }

    #[test]
    fn nothing_prints_a_secret() {
        let credential = Credential::of(&definition(Authentication::OauthUser)).expect("a token");
        let printed = format!("{credential:?} {:?} {:?}", credential.digest, Token::new("planted-token".into()));
        assert!(!printed.contains("planted"), "{printed}");
    }
}

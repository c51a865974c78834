//! Debug for the wire types that carry a secret.

use std::fmt;

use crate::v1::{CreateTokenResponse, EnrollWorkerResponse, MailboxDefinition, OutgoingDefinition, SecretInput};

impl fmt::Debug for SecretInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretInput([redacted])")
    }
}

impl fmt::Debug for CreateTokenResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CreateTokenResponse").field("credential", &self.credential).finish_non_exhaustive()
    }
}

impl fmt::Debug for EnrollWorkerResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EnrollWorkerResponse").field("credential", &self.credential).finish_non_exhaustive()
    }
}

impl fmt::Debug for MailboxDefinition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MailboxDefinition")
            .field("mailbox", &self.mailbox)
            .field("revision", &self.revision)
            .field("email", &self.email)
            .field("account", &self.account)
            .field("folder", &self.folder)
            .field("server", &self.server)
            .field("authority", &self.authority)
            .field("imap_host", &self.imap_host)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for OutgoingDefinition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OutgoingDefinition")
            .field("name", &self.name)
            .field("transport", &self.transport())
            .field("host", &self.host)
            .field("port", &self.port)
            .field("user", &self.user)
            .field("authority", &self.authority)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_printed() {
        let definition = MailboxDefinition {
            client_secret: "planted-secret".into(),
            password: "planted-password".into(),
            ..Default::default()
        };
        let outgoing = OutgoingDefinition {
            client_secret: "planted-secret".into(),
            password: "planted-password".into(),
            sent_mailbox: Some(definition.clone()),
            ..Default::default()
        };
        let input = SecretInput { value: "planted-value".into(), clear: false };
        let token = CreateTokenResponse { token: "planted-token".into(), ..Default::default() };
        let enrolment = EnrollWorkerResponse { token: "planted-token".into(), ..Default::default() };
        let printed = format!("{definition:?} {outgoing:?} {:?} {token:?} {enrolment:?}", Some(input));
        assert!(!printed.contains("planted"), "{printed}");
    }
}

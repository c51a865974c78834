//! Debug for the wire types that carry a secret.

use std::fmt;

use crate::v1::{MailboxDefinition, SecretInput};

impl fmt::Debug for SecretInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretInput([redacted])")
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
        let input = SecretInput { value: "planted-value".into(), clear: false };
        let printed = format!("{definition:?} {:?}", Some(input));
        assert!(!printed.contains("planted"), "{printed}");
    }
}

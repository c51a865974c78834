//! Into Dovecot.

use std::net::SocketAddr;

use super::mime;
use crate::{
    dovecot::{Admin, Dovecot, SENT_ITEMS},
    error::Result,
    lmtp::{self, Delivery},
};

#[derive(Debug)]
pub(super) struct Deliverer {
    lmtp: SocketAddr,
    admin: Admin,
}

impl Deliverer {
    pub(super) fn new(dovecot: &Dovecot) -> Self {
        Self { lmtp: dovecot.lmtp_addr(), admin: dovecot.admin() }
    }

    /// Delivers a mail to its recipients, and a copy of it to the mailbox that sends when it keeps one. `from`: the address
    /// that it is from.
    pub(super) async fn deliver(
        &self,
        mailbox: &str,
        from: &str,
        mail: &[u8],
        recipients: &[String],
        keeps_copy: bool,
    ) -> Result<()> {
        let kept = mime::from_mailbox(mail, from);
        let message = mime::without_bcc(&kept);
        for recipient in recipients {
            let refused = match comes_back(recipient) {
                Some(status) => Some(status.to_owned()),
                // Dovecot refuses what is no address for it; a server out there would do so too, and later.
                None => self.put(recipient, message.clone()).await.err().map(|_| "5.1.3".to_owned()),
            };
            if let Some(status) = refused {
                self.put(mailbox, mime::undeliverable(&kept, mailbox, recipient, &status)).await?;
            }
        }
        if keeps_copy {
            self.put(&folder_address(mailbox, SENT_ITEMS), kept).await?;
        }
        Ok(())
    }

    /// The UIDs of the mails with this Message-ID in a mailbox's Sent Items.
    pub(super) async fn sent(&self, mailbox: &str, message_id: &str) -> Result<Vec<u32>> {
        self.admin.find_by_id(mailbox, SENT_ITEMS, message_id).await
    }

    async fn put(&self, to: &str, message: Vec<u8>) -> Result<()> {
        lmtp::Client::connect(self.lmtp).await?.deliver([Delivery { to: to.to_owned(), message }]).await
    }
}

/// The status with which a mail to this address comes back.
fn comes_back(recipient: &str) -> Option<&str> {
    recipient.split_once('@')?.0.strip_prefix("bounce-")
}

/// The address by which LMTP reaches a folder.
fn folder_address(mailbox: &str, folder: &str) -> String {
    let (name, domain) = mailbox.rsplit_once('@').unwrap_or((mailbox, ""));
    let name = name.trim_matches('"');
    format!("\"{name}:{folder}\"@{domain}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_name_folders_and_fates() {
        assert_eq!(folder_address("a+b@c.example", "Sent Items"), "\"a+b:Sent Items\"@c.example");
        assert_eq!(comes_back("bounce-5.1.1@c.example"), Some("5.1.1"));
        assert_eq!(comes_back("anna@c.example"), None);
    }
}

//! Asks what the ledger has of a folder that was numbered anew.

use std::sync::Arc;

use postroom_proto::convert::to_timestamp;
use postroom_proto::fingerprint::{fingerprint, is_identified};
use postroom_proto::v1;

use super::commit::{Patience, Stop};
use super::imap::fetch::Summary;
use super::lease::Lease;
use super::standing::{Activity, Standing};
use crate::contact::parse;
use crate::report::Reporter;

/// Most messages that are asked about at once. What is in memory of each is a fingerprint.
pub const MOST_SOUGHT: usize = 200;

/// What the headers of a message are known by.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mark {
    /// Made of the headers; empty when they could not be had.
    pub fingerprint: Vec<u8>,
    identified: bool,
    /// The server lists the message and gives no headers of it. Whether the ledger has it can only be told when the ledger
    /// never read its headers either.
    pub withheld: bool,
}

impl Mark {
    /// Of a header section, or of the part of it that counts.
    pub fn of(headers: &[u8]) -> Self {
        let content = parse::headers(headers);
        Self { fingerprint: fingerprint(&content), identified: is_identified(&content), withheld: false }
    }

    /// Of headers that the server does not give.
    pub fn withheld() -> Self {
        Self { withheld: true, ..Self::default() }
    }
}

/// Asks under the lease of one mailbox.
pub struct Finder {
    reporter: Arc<dyn Reporter>,
    lease: Lease,
    mailbox: String,
    epoch: u64,
    generation: u64,
    standing: Standing,
}

impl std::fmt::Debug for Finder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Finder").field("mailbox", &self.mailbox).field("epoch", &self.epoch).finish_non_exhaustive()
    }
}

impl Finder {
    /// For a mailbox that was opened in this generation.
    pub fn new(
        reporter: Arc<dyn Reporter>,
        lease: Lease,
        mailbox: &str,
        epoch: u64,
        generation: u64,
        standing: Standing,
    ) -> Self {
        Self { reporter, lease, mailbox: mailbox.to_owned(), epoch, generation, standing }
    }

    /// What the ledger calls each of these messages, empty where it does not have it. Repeats until there is an answer.
    pub async fn find(&mut self, round: u32, messages: &[(Summary, Mark)]) -> Result<Vec<String>, Stop> {
        let _asking = self.standing.at(Activity::Asking);
        let sought = messages.iter().map(|(summary, mark)| v1::SoughtMessage {
            fingerprint: mark.fingerprint.clone(),
            identified: mark.identified,
            received_time: summary.received.map(to_timestamp),
            size_bytes: summary.size,
        });
        let request = v1::FindKnownRequest {
            session: String::new(),
            mailbox: self.mailbox.clone(),
            epoch: self.epoch,
            generation: self.generation,
            numbering: round,
            messages: sought.collect(),
        };
        let mut patience = Patience::new(&mut self.lease, &self.mailbox);
        loop {
            patience.may_write(|| self.standing.at(Activity::Suspended)).await?;
            match self.reporter.find_known(&request).await {
                Ok(found) => return Ok(found.known),
                Err(error) => patience.again(error).await?,
            }
        }
    }
}

//! Calls about messages of the ledger, and reconciling.

use std::time::Duration;

use postroom_proto::v1;
use postroom_proto::v1::message_service_client::MessageServiceClient;

use super::{Authorized, Client, Error, MAX_ANSWER, Parts, Repeat, page_size};

/// How long a replay may take: the worker reads the message from its mailbox.
const REPLAYING: Duration = Duration::from_secs(130);
/// Longest silence of a reconciliation: a worker may have a large window of the folder to list.
const SILENCE: Duration = Duration::from_secs(180);

impl Client {
    /// The first `limit` messages that `request` narrows, those recorded last first. `next_page_token` stays when there
    /// are more.
    pub async fn list_messages(
        &self,
        request: v1::ListMessagesRequest,
        limit: u32,
    ) -> Result<v1::ListMessagesResponse, Error> {
        let mut all = v1::ListMessagesResponse::default();
        loop {
            let missing = limit - u32::try_from(all.messages.len()).unwrap_or(limit).min(limit);
            let page = v1::ListMessagesRequest {
                page_size: page_size(Some(missing)),
                page_token: all.next_page_token,
                ..request.clone()
            };
            let page = self.read(page, async |r| self.messages().list_messages(r).await).await?;
            all.messages.extend(page.messages);
            all.next_page_token = page.next_page_token;
            self.progress.at(all.messages.len() as u64, 0);
            if all.next_page_token.is_empty() || all.messages.len() >= limit as usize {
                return Ok(all);
            }
        }
    }

    /// One message with everything.
    pub async fn get_message(&self, message: String) -> Result<v1::Message, Error> {
        self.read(v1::GetMessageRequest { message }, async |r| self.messages().get_message(r).await).await
    }

    /// The raw form of a message. Each chunk has the deadline of a call.
    pub async fn get_message_raw(&self, message: String) -> Result<Parts<v1::RawMessageChunk>, Error> {
        let request = v1::GetMessageRawRequest { message };
        self.parts(request, self.deadline, async |r| self.messages().get_message_raw(r).await).await
    }

    /// Makes a contact of a message. Repeated, it names the same contact.
    pub async fn replay_message(&self, message: String) -> Result<v1::ReplayMessageResponse, Error> {
        let request = v1::ReplayMessageRequest { message };
        self.call(Repeat::Call, REPLAYING, request, async |r| self.messages().replay_message(r).await).await
    }

    /// Decides that a message stays without a contact.
    pub async fn discard_message(&self, message: String, reason: String) -> Result<v1::Message, Error> {
        let request = v1::DiscardMessageRequest { message, reason };
        self.read(request, async |r| self.messages().discard_message(r).await).await
    }

    /// Compares a mailbox with the ledger; what is told of it, as it comes.
    pub async fn reconcile_mailbox(
        &self,
        mailbox: String,
        all: bool,
    ) -> Result<Parts<v1::ReconcileMailboxResponse>, Error> {
        let request = v1::ReconcileMailboxRequest { mailbox, all };
        self.parts(request, SILENCE, async |r| self.messages().reconcile_mailbox(r).await).await
    }

    fn messages(&self) -> MessageServiceClient<Authorized> {
        MessageServiceClient::with_interceptor(self.channel.clone(), self.bearer.clone())
            .max_decoding_message_size(MAX_ANSWER)
    }
}

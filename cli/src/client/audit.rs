//! Calls about the audit.

use postroom_proto::v1;
use postroom_proto::v1::audit_service_client::AuditServiceClient;

use super::{Authorized, Client, Error, MAX_ANSWER, page_size};

impl Client {
    /// The first `limit` entries that `request` narrows, the newest first. `next_page_token` stays when there are more.
    pub async fn list_audit(&self, request: v1::ListAuditRequest, limit: u32) -> Result<v1::ListAuditResponse, Error> {
        let mut all = v1::ListAuditResponse::default();
        loop {
            let missing = limit - u32::try_from(all.entries.len()).unwrap_or(limit).min(limit);
            let page = v1::ListAuditRequest {
                page_size: page_size(Some(missing)),
                page_token: all.next_page_token,
                ..request.clone()
            };
            let page = self.read(page, async |r| self.audit().list_audit(r).await).await?;
            all.entries.extend(page.entries);
            all.next_page_token = page.next_page_token;
            self.progress.at(all.entries.len() as u64, 0);
            if all.next_page_token.is_empty() || all.entries.len() >= limit as usize {
                return Ok(all);
            }
        }
    }

    fn audit(&self) -> AuditServiceClient<Authorized> {
        AuditServiceClient::with_interceptor(self.channel.clone(), self.bearer.clone())
            .max_decoding_message_size(MAX_ANSWER)
    }
}

//! `AuditService`.

use postroom_proto::convert::from_timestamp;
use postroom_proto::reason::Failure;
use postroom_proto::v1;
use postroom_proto::v1::audit_service_server::AuditService;
use tonic::{Request, Response, Status};

use super::page::Page;
use crate::ledger::audit::{AuditFilter, SharedAudit};

/// Serves the audit.
pub struct Service(pub SharedAudit);

#[tonic::async_trait]
impl AuditService for Service {
    async fn list_audit(
        &self,
        request: Request<v1::ListAuditRequest>,
    ) -> Result<Response<v1::ListAuditResponse>, Status> {
        let request = request.into_inner();
        let filter = AuditFilter {
            who: request.who,
            rpc: request.rpc.trim_start_matches('/').to_owned(),
            subject: request.subject,
            since: request.since_time.as_ref().map(from_timestamp),
            until: request.until_time.as_ref().map(from_timestamp),
            refused: request.refused,
        };
        let since = filter.since.map_or_else(String::new, |it| it.to_string());
        let until = filter.until.map_or_else(String::new, |it| it.to_string());
        let refused = if filter.refused { "refused" } else { "" };
        let narrowed = ["audit", &filter.who, &filter.rpc, &filter.subject, &since, &until, refused];
        let page = Page::read(request.page_size, &request.page_token, &narrowed)?;
        let before = page.after.as_deref().map(|after| {
            after
                .parse()
                .map_err(|_| Failure::invalid_field("page_token", "was not made here; start again without a token"))
        });
        let mut entries = self.0.list(&filter, before.transpose()?, page.size + 1).await.map_err(Failure::from)?;
        let more = entries.len() > page.size;
        entries.truncate(page.size);
        let last = entries.last().filter(|_| more).map(|entry| page.next(&entry.id));
        Ok(Response::new(v1::ListAuditResponse { entries, next_page_token: last.unwrap_or_default() }))
    }
}

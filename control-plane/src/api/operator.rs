//! What an operator watches.

use postroom_proto::v1::{self, operator_service_server::OperatorService};
use tonic::{Request, Response, Status};

use super::page::Page;
use crate::observation::Observer;

/// Serves [`OperatorService`].
#[derive(Clone)]
pub struct Operators {
    observer: Observer,
}

impl Operators {
    /// Tells what `observer` sees.
    pub fn new(observer: Observer) -> Self {
        Self { observer }
    }
}

#[tonic::async_trait]
impl OperatorService for Operators {
    async fn list_mailboxes(
        &self,
        request: Request<v1::ListMailboxesRequest>,
    ) -> Result<Response<v1::ListMailboxesResponse>, Status> {
        let request = request.into_inner();
        let page = Page::read(request.page_size, &request.page_token, &["mailboxes"])?;
        let (places, next_page_token) = page.cut(self.observer.places(), String::clone);
        let mailboxes = self.observer.describe_places(&places).await?;
        Ok(Response::new(v1::ListMailboxesResponse { mailboxes, next_page_token }))
    }

    async fn get_mailbox(&self, request: Request<v1::GetMailboxRequest>) -> Result<Response<v1::Mailbox>, Status> {
        Ok(Response::new(self.observer.mailbox(&request.into_inner().mailbox).await?))
    }
}

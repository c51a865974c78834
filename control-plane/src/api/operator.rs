//! What an operator watches.

use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};
use postroom_proto::v1::{self, operator_service_server::OperatorService};
use postroom_proto::version;
use tonic::{Request, Response, Status};

use super::by;
use super::page::Page;
use crate::backlog::Backlogs;
use crate::check::{Checker, Steps};
use crate::observation::Observer;
use crate::status::Overview;

/// Serves [`OperatorService`].
#[derive(Clone)]
pub struct Operators {
    observer: Observer,
    checker: Checker,
    overview: Overview,
    backlogs: Backlogs,
}

impl Operators {
    /// Tells what `observer` and `overview` see and what `checker` has found out, and decides about `backlogs`.
    pub fn new(observer: Observer, checker: Checker, overview: Overview, backlogs: Backlogs) -> Self {
        Self { observer, checker, overview, backlogs }
    }
}

fn answered(steps: Steps) -> Response<BoxStream<'static, Result<v1::CheckStep, Status>>> {
    Response::new(steps.map_err(Status::from).boxed())
}

#[tonic::async_trait]
impl OperatorService for Operators {
    type CheckMailboxStream = BoxStream<'static, Result<v1::CheckStep, Status>>;
    type CheckIncomingServerStream = BoxStream<'static, Result<v1::CheckStep, Status>>;
    type CheckOutgoingServerStream = BoxStream<'static, Result<v1::CheckStep, Status>>;

    async fn check_mailbox(
        &self,
        request: Request<v1::CheckMailboxRequest>,
    ) -> Result<Response<Self::CheckMailboxStream>, Status> {
        Ok(answered(self.checker.mailbox(&request.into_inner().mailbox).await?))
    }

    async fn check_incoming_server(
        &self,
        request: Request<v1::CheckIncomingServerRequest>,
    ) -> Result<Response<Self::CheckIncomingServerStream>, Status> {
        let request = request.into_inner();
        Ok(answered(self.checker.server(&request.server, &request.mailbox).await?))
    }

    async fn check_outgoing_server(
        &self,
        request: Request<v1::CheckOutgoingServerRequest>,
    ) -> Result<Response<Self::CheckOutgoingServerStream>, Status> {
        let request = request.into_inner();
        Ok(answered(self.checker.outgoing(&request.server, &request.from).await?))
    }

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

    async fn get_backlog(&self, request: Request<v1::GetBacklogRequest>) -> Result<Response<v1::Backlog>, Status> {
        Ok(Response::new(self.backlogs.get(&request.into_inner().mailbox).await?))
    }

    async fn approve_backlog(
        &self,
        request: Request<v1::ApproveBacklogRequest>,
    ) -> Result<Response<v1::Backlog>, Status> {
        let by = by(request.extensions())?;
        Ok(Response::new(self.backlogs.approve(request.get_ref(), &by).await?))
    }

    async fn stop_backlog(&self, request: Request<v1::StopBacklogRequest>) -> Result<Response<v1::Backlog>, Status> {
        let by = by(request.extensions())?;
        Ok(Response::new(self.backlogs.stop(&request.get_ref().mailbox, &by).await?))
    }

    async fn get_status(&self, _: Request<v1::GetStatusRequest>) -> Result<Response<v1::Status>, Status> {
        Ok(Response::new(self.overview.status().await?))
    }

    async fn get_version(&self, _: Request<v1::GetVersionRequest>) -> Result<Response<v1::Version>, Status> {
        Ok(Response::new(version::own()))
    }
}

//! Reports of workers.

use postroom_proto::v1::report_service_server::ReportService;
use postroom_proto::v1::{self};
use tonic::{Request, Response, Status, Streaming};

use crate::intake::Intake;

/// Serves [`ReportService`].
#[derive(Clone)]
pub struct Reports {
    intake: Intake,
}

impl Reports {
    /// Hands what comes in to `intake`.
    pub fn new(intake: Intake) -> Self {
        Self { intake }
    }
}

#[tonic::async_trait]
impl ReportService for Reports {
    async fn open_mailboxes(
        &self,
        request: Request<v1::OpenMailboxesRequest>,
    ) -> Result<Response<v1::OpenMailboxesResponse>, Status> {
        Ok(Response::new(self.intake.open(request.into_inner()).await?))
    }

    async fn upload_blob(
        &self,
        request: Request<Streaming<v1::UploadBlobRequest>>,
    ) -> Result<Response<v1::UploadBlobResponse>, Status> {
        Ok(Response::new(self.intake.upload(request.into_inner()).await?))
    }

    async fn report(&self, request: Request<v1::ReportRequest>) -> Result<Response<v1::ReportResponse>, Status> {
        Ok(Response::new(self.intake.report(request.into_inner()).await?))
    }

    async fn report_status(
        &self,
        request: Request<v1::ReportStatusRequest>,
    ) -> Result<Response<v1::ReportStatusResponse>, Status> {
        self.intake.record_statuses(request.into_inner()).await?;
        Ok(Response::new(v1::ReportStatusResponse {}))
    }

    async fn find_known(
        &self,
        request: Request<v1::FindKnownRequest>,
    ) -> Result<Response<v1::FindKnownResponse>, Status> {
        Ok(Response::new(self.intake.find_known(request.into_inner()).await?))
    }
}

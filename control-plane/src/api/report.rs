//! Reports of workers.

use postroom_proto::reason::Failure;
use postroom_proto::v1::report_service_server::ReportService;
use postroom_proto::v1::{self};
use tonic::{Request, Response, Status, Streaming};

use super::{caller, session};
use crate::access::sessions::Sessions;
use crate::intake::Intake;
use crate::telemetry::traces::Work;

/// Serves [`ReportService`].
#[derive(Clone)]
pub struct Reports {
    intake: Intake,
    sessions: Sessions,
}

impl Reports {
    /// Hands what comes in to `intake`; `sessions` knows whose each is.
    pub fn new(intake: Intake, sessions: Sessions) -> Self {
        Self { intake, sessions }
    }

    /// Refuses a session that is not the caller's.
    async fn require<T>(&self, request: &Request<T>, id: &str) -> Result<(), Failure> {
        self.sessions.require(caller(request.extensions())?, &session("session", id)?).await
    }
}

#[tonic::async_trait]
impl ReportService for Reports {
    async fn open_mailboxes(
        &self,
        request: Request<v1::OpenMailboxesRequest>,
    ) -> Result<Response<v1::OpenMailboxesResponse>, Status> {
        self.require(&request, &request.get_ref().session).await?;
        Ok(Response::new(self.intake.open(request.into_inner()).await?))
    }

    async fn upload_blob(
        &self,
        request: Request<Streaming<v1::UploadBlobRequest>>,
    ) -> Result<Response<v1::UploadBlobResponse>, Status> {
        let caller = caller(request.extensions())?.clone();
        Ok(Response::new(self.intake.upload(request.into_inner(), &caller, &self.sessions).await?))
    }

    async fn report(&self, request: Request<v1::ReportRequest>) -> Result<Response<v1::ReportResponse>, Status> {
        let work = Work::of(request.extensions());
        self.require(&request, &request.get_ref().session).await?;
        let mailbox = request.get_ref().mailbox.clone();
        let mut response = self.intake.report(request.into_inner()).await?;
        work.reported(&mailbox, &mut response);
        Ok(Response::new(response))
    }

    async fn report_status(
        &self,
        request: Request<v1::ReportStatusRequest>,
    ) -> Result<Response<v1::ReportStatusResponse>, Status> {
        self.require(&request, &request.get_ref().session).await?;
        self.intake.record_statuses(request.into_inner()).await?;
        Ok(Response::new(v1::ReportStatusResponse {}))
    }

    async fn find_known(
        &self,
        request: Request<v1::FindKnownRequest>,
    ) -> Result<Response<v1::FindKnownResponse>, Status> {
        self.require(&request, &request.get_ref().session).await?;
        Ok(Response::new(self.intake.find_known(request.into_inner()).await?))
    }
}

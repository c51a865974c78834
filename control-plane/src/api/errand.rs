//! Errands, as workers take and report them.

use std::time::Duration;

use postroom_proto::convert::from_duration;
use postroom_proto::reason::Failure;
use postroom_proto::v1::{self, errand_service_server::ErrandService};
use tonic::{Request, Response, Status};

use super::{caller, session};
use crate::access::sessions::Sessions;
use crate::errand::Errands;

/// Longest wait for an errand.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// Serves [`ErrandService`].
#[derive(Clone)]
pub struct Service {
    errands: Errands,
    sessions: Sessions,
}

impl Service {
    /// Hands out and takes in `errands`; `sessions` knows whose each is.
    pub fn new(errands: Errands, sessions: Sessions) -> Self {
        Self { errands, sessions }
    }
}

#[tonic::async_trait]
impl ErrandService for Service {
    async fn take_errands(
        &self,
        request: Request<v1::TakeErrandsRequest>,
    ) -> Result<Response<v1::TakeErrandsResponse>, Status> {
        let caller = caller(request.extensions())?.clone();
        let request = request.into_inner();
        let wait = request.wait.as_ref().map_or(Some(Duration::ZERO), from_duration);
        let wait = wait.filter(|wait| *wait <= LONGEST_WAIT);
        let wait = wait.ok_or_else(|| Failure::invalid_field("wait", "must be between 0 and 30 s"))?;
        let session = session("session", &request.session)?;
        self.sessions.require(&caller, &session).await?;
        let errands = self.errands.take(&session, wait).await?;
        Ok(Response::new(v1::TakeErrandsResponse { errands }))
    }

    async fn report_errand(
        &self,
        request: Request<v1::ReportErrandRequest>,
    ) -> Result<Response<v1::ReportErrandResponse>, Status> {
        let session = session("session", &request.get_ref().session)?;
        self.sessions.require(caller(request.extensions())?, &session).await?;
        self.errands.report(&session, request.into_inner()).await?;
        Ok(Response::new(v1::ReportErrandResponse {}))
    }
}

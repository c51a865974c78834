//! Errands, as workers take and report them.

use std::time::Duration;

use postroom_proto::convert::from_duration;
use postroom_proto::id::SessionId;
use postroom_proto::reason::Failure;
use postroom_proto::v1::{self, errand_service_server::ErrandService};
use tonic::{Request, Response, Status};

use crate::errand::Errands;

/// Longest wait for an errand.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// Serves [`ErrandService`].
#[derive(Clone)]
pub struct Service {
    errands: Errands,
}

impl Service {
    /// Hands out and takes in `errands`.
    pub fn new(errands: Errands) -> Self {
        Self { errands }
    }
}

#[tonic::async_trait]
impl ErrandService for Service {
    async fn take_errands(
        &self,
        request: Request<v1::TakeErrandsRequest>,
    ) -> Result<Response<v1::TakeErrandsResponse>, Status> {
        let request = request.into_inner();
        let wait = request.wait.as_ref().map_or(Some(Duration::ZERO), from_duration);
        let wait = wait.filter(|wait| *wait <= LONGEST_WAIT);
        let wait = wait.ok_or_else(|| Failure::invalid_field("wait", "must be between 0 and 30 s"))?;
        let errands = self.errands.take(&session(&request.session)?, wait).await?;
        Ok(Response::new(v1::TakeErrandsResponse { errands }))
    }

    async fn report_errand(
        &self,
        request: Request<v1::ReportErrandRequest>,
    ) -> Result<Response<v1::ReportErrandResponse>, Status> {
        let request = request.into_inner();
        self.errands.report(&session(&request.session)?, request).await?;
        Ok(Response::new(v1::ReportErrandResponse {}))
    }
}

fn session(text: &str) -> Result<SessionId, Failure> {
    SessionId::parse(text).map_err(|error| Failure::invalid_field("session", error.to_string()))
}

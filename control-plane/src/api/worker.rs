//! What operators see and decide of the workers.

use postroom_proto::v1::{self, worker_service_server::WorkerService};
use tonic::{Request, Response, Status};

use super::by;
use crate::fleet::Fleet;

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl WorkerService for Fleet {
    async fn list_workers(&self, _: Request<v1::ListWorkersRequest>) -> Answer<v1::ListWorkersResponse> {
        Ok(Response::new(self.list().await?))
    }

    async fn drain_worker(&self, request: Request<v1::DrainWorkerRequest>) -> Answer<v1::Worker> {
        Ok(Response::new(self.drain(&request.get_ref().worker, true, &by(request.extensions())?).await?))
    }

    async fn undrain_worker(&self, request: Request<v1::UndrainWorkerRequest>) -> Answer<v1::Worker> {
        Ok(Response::new(self.drain(&request.get_ref().worker, false, &by(request.extensions())?).await?))
    }

    async fn set_worker_role(&self, request: Request<v1::SetWorkerRoleRequest>) -> Answer<v1::Worker> {
        let v1::SetWorkerRoleRequest { worker, role } = request.get_ref();
        Ok(Response::new(self.set_role(worker, *role, &by(request.extensions())?).await?))
    }

    async fn freeze_workers(&self, request: Request<v1::FreezeWorkersRequest>) -> Answer<v1::Freeze> {
        let by = by(request.extensions())?;
        Ok(Response::new(self.freeze(request.into_inner(), &by).await?))
    }

    async fn unfreeze_workers(
        &self,
        request: Request<v1::UnfreezeWorkersRequest>,
    ) -> Answer<v1::UnfreezeWorkersResponse> {
        self.unfreeze(&by(request.extensions())?).await?;
        Ok(Response::new(v1::UnfreezeWorkersResponse {}))
    }
}

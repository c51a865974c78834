//! Calls about the fleet.

use std::time::Duration;

use postroom_proto::convert::to_duration;
use postroom_proto::v1;
use postroom_proto::v1::worker_service_client::WorkerServiceClient;

use super::{Authorized, Client, Error, MAX_ANSWER};

impl Client {
    /// All workers, by name, and whether the fleet is frozen.
    pub async fn list_workers(&self) -> Result<v1::ListWorkersResponse, Error> {
        self.read(v1::ListWorkersRequest {}, async |r| self.workers().list_workers(r).await).await
    }

    /// Moves all mailboxes of a worker to others, and gives it none any more.
    pub async fn drain_worker(&self, worker: String) -> Result<v1::Worker, Error> {
        self.read(v1::DrainWorkerRequest { worker }, async |r| self.workers().drain_worker(r).await).await
    }

    /// Lets a drained worker be given mailboxes again.
    pub async fn undrain_worker(&self, worker: String) -> Result<v1::Worker, Error> {
        self.read(v1::UndrainWorkerRequest { worker }, async |r| self.workers().undrain_worker(r).await).await
    }

    /// Sets what a worker is for. Unspecified: what its own settings say.
    pub async fn set_worker_role(&self, worker: String, role: v1::WorkerRole) -> Result<v1::Worker, Error> {
        let request = v1::SetWorkerRoleRequest { worker, role: role.into() };
        self.read(request, async |r| self.workers().set_worker_role(r).await).await
    }

    /// Freezes the fleet, for a while or until it is ended.
    pub async fn freeze_workers(&self, note: String, duration: Option<Duration>) -> Result<v1::Freeze, Error> {
        let request = v1::FreezeWorkersRequest { note, duration: duration.map(to_duration) };
        self.read(request, async |r| self.workers().freeze_workers(r).await).await
    }

    /// Ends the freeze.
    pub async fn unfreeze_workers(&self) -> Result<v1::UnfreezeWorkersResponse, Error> {
        self.read(v1::UnfreezeWorkersRequest {}, async |r| self.workers().unfreeze_workers(r).await).await
    }

    fn workers(&self) -> WorkerServiceClient<Authorized> {
        WorkerServiceClient::with_interceptor(self.channel.clone(), self.bearer.clone())
            .max_decoding_message_size(MAX_ANSWER)
    }
}

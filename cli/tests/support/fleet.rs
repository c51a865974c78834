//! The scripted control plane's word on workers and on its store.

use postroom_proto::v1;
use postroom_proto::v1::store_service_server::StoreService;
use postroom_proto::v1::worker_service_server::WorkerService;
use tonic::{Request, Response};

use super::{Answer, Fake, not_found};

impl Fake {
    /// Changes one worker and returns it.
    fn worker(&self, name: &str, change: impl FnOnce(&mut v1::Worker)) -> Answer<v1::Worker> {
        let mut state = self.0.lock().unwrap();
        let found = state.fleet.workers.iter_mut().find(|worker| worker.name == name);
        let worker = found.ok_or_else(|| not_found("worker", name))?;
        change(worker);
        worker.decided_by = "admin".into();
        worker.decision_time = super::fixture::at(0);
        Ok(Response::new(worker.clone()))
    }
}

#[tonic::async_trait]
impl WorkerService for Fake {
    async fn list_workers(&self, request: Request<v1::ListWorkersRequest>) -> Answer<v1::ListWorkersResponse> {
        self.enter("ListWorkers", request).await?;
        let mut state = self.0.lock().unwrap();
        // A drained worker has let go of what it has by the next look; what mail-2 has nobody else can carry.
        for worker in state.fleet.workers.iter_mut().filter(|worker| worker.drained && worker.name != "mail-2") {
            worker.mailbox_count /= 128;
            worker.held_count /= 128;
        }
        Ok(Response::new(state.fleet.clone()))
    }

    async fn drain_worker(&self, request: Request<v1::DrainWorkerRequest>) -> Answer<v1::Worker> {
        let name = self.enter("DrainWorker", request).await?.worker;
        self.worker(&name, |worker| worker.drained = true)
    }

    async fn undrain_worker(&self, request: Request<v1::UndrainWorkerRequest>) -> Answer<v1::Worker> {
        let name = self.enter("UndrainWorker", request).await?.worker;
        self.worker(&name, |worker| worker.drained = false)
    }

    async fn set_worker_role(&self, request: Request<v1::SetWorkerRoleRequest>) -> Answer<v1::Worker> {
        let request = self.enter("SetWorkerRole", request).await?;
        let role = request.role();
        self.worker(&request.worker, |worker| {
            worker.role_set = role != v1::WorkerRole::Unspecified;
            worker.role = if worker.role_set { role } else { v1::WorkerRole::Active }.into();
        })
    }

    async fn freeze_workers(&self, request: Request<v1::FreezeWorkersRequest>) -> Answer<v1::Freeze> {
        let request = self.enter("FreezeWorkers", request).await?;
        let until_time = request.duration.and_then(|it| super::fixture::at(it.seconds));
        let since_time = super::fixture::at(0);
        let freeze = v1::Freeze { since_time, until_time, frozen_by: "admin".into(), note: request.note };
        self.0.lock().unwrap().fleet.freeze = Some(freeze.clone());
        Ok(Response::new(freeze))
    }

    async fn unfreeze_workers(
        &self,
        request: Request<v1::UnfreezeWorkersRequest>,
    ) -> Answer<v1::UnfreezeWorkersResponse> {
        self.enter("UnfreezeWorkers", request).await?;
        self.0.lock().unwrap().fleet.freeze = None;
        Ok(Response::new(v1::UnfreezeWorkersResponse {}))
    }
}

#[tonic::async_trait]
impl StoreService for Fake {
    async fn get_store(&self, request: Request<v1::GetStoreRequest>) -> Answer<v1::StoreInfo> {
        self.enter("GetStore", request).await?;
        Ok(Response::new(self.0.lock().unwrap().store.clone()))
    }

    async fn adopt_store(&self, request: Request<v1::AdoptStoreRequest>) -> Answer<v1::AdoptStoreResponse> {
        let request = self.enter("AdoptStore", request).await?;
        let mut state = self.0.lock().unwrap();
        let store = &mut state.store;
        assert_eq!(request.store_id, store.store_id, "the one that was looked at");
        store.generation += 1;
        store.adoptions.insert(
            0,
            v1::Adoption {
                time: super::fixture::at(0),
                adopted_by: "admin".into(),
                generation: store.generation,
                former_store_id: store.bound_store_id.clone(),
                store_id: store.store_id.clone(),
            },
        );
        store.bound_store_id = store.store_id.clone();
        store.fit = v1::StoreFit::Ours.into();
        store.cause.clear();
        store.remedy.clear();
        Ok(Response::new(v1::AdoptStoreResponse { store: Some(store.clone()), definition_count: 12 }))
    }
}

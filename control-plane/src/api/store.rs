//! Which store and ledger the installation runs on.

use postroom_proto::v1::{self, store_service_server::StoreService};
use tonic::{Request, Response, Status};

use crate::access::gate::Caller;
use crate::binding::Binding;

#[tonic::async_trait]
impl StoreService for Binding {
    async fn get_store(&self, _: Request<v1::GetStoreRequest>) -> Result<Response<v1::StoreInfo>, Status> {
        // Whoever asks has perhaps just mended something.
        self.look().await.map_err(postroom_proto::reason::Failure::from)?;
        Ok(Response::new(self.describe().await?))
    }

    async fn adopt_store(
        &self,
        request: Request<v1::AdoptStoreRequest>,
    ) -> Result<Response<v1::AdoptStoreResponse>, Status> {
        let by = request.extensions().get::<Caller>().map_or_else(String::new, |caller| caller.0.clone());
        Ok(Response::new(self.adopt(&request.get_ref().store_id, &by).await?))
    }
}

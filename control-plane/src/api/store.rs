//! Which store and ledger the installation runs on.

use std::sync::Arc;

use postroom_proto::reason::Failure;
use postroom_proto::v1::{self, store_service_server::StoreService};
use tonic::{Request, Response, Status};

use super::by;
use crate::binding::Binding;
use crate::definition::Definitions;

/// Serves [`StoreService`].
pub struct Service {
    binding: Binding,
    definitions: Arc<Definitions>,
}

impl Service {
    /// Shows and adopts by `binding`; `definitions` start over after that.
    pub fn new(binding: Binding, definitions: Arc<Definitions>) -> Self {
        Self { binding, definitions }
    }
}

#[tonic::async_trait]
impl StoreService for Service {
    async fn get_store(&self, _: Request<v1::GetStoreRequest>) -> Result<Response<v1::StoreInfo>, Status> {
        // Whoever asks has perhaps just mended something.
        self.binding.look().await.map_err(Failure::from)?;
        Ok(Response::new(self.binding.describe().await?))
    }

    async fn adopt_store(
        &self,
        request: Request<v1::AdoptStoreRequest>,
    ) -> Result<Response<v1::AdoptStoreResponse>, Status> {
        let by = by(request.extensions())?;
        let adopted = self.binding.adopt(&request.get_ref().store_id, &by).await?;
        // Whoever looks right after it finds the definitions of the store that was adopted.
        self.definitions.start_over().await.map_err(Failure::from)?;
        Ok(Response::new(adopted))
    }
}

//! Calls about the store.

use std::time::Duration;

use postroom_proto::v1;
use postroom_proto::v1::store_service_client::StoreServiceClient;

use super::{Authorized, Client, Error};

/// How long an adoption may take: it may bring all definitions into the store.
const ADOPTING: Duration = Duration::from_secs(120);

impl Client {
    /// Which store and ledger the installation runs on.
    pub async fn get_store(&self) -> Result<v1::StoreInfo, Error> {
        self.read(v1::GetStoreRequest {}, async |r| self.stores().get_store(r).await).await
    }

    /// Takes the store of this id, which was looked at, for the ledger's. Changes nothing when they fit already, so that
    /// a lost answer can be repeated.
    pub async fn adopt_store(&self, store_id: String) -> Result<v1::AdoptStoreResponse, Error> {
        let client = self.clone().with_deadline(ADOPTING);
        client.read(v1::AdoptStoreRequest { store_id }, async |r| client.stores().adopt_store(r).await).await
    }

    fn stores(&self) -> StoreServiceClient<Authorized> {
        StoreServiceClient::with_interceptor(self.channel.clone(), self.bearer.clone())
    }
}

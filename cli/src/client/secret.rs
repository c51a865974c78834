//! Calls about the key of the stored secrets.

use std::time::Duration;

use postroom_proto::v1;
use postroom_proto::v1::secret_service_client::SecretServiceClient;

use super::{Authorized, Client, Error, Parts};

/// Longest silence: meanwhile SQLite may be writing its file anew.
const PATIENCE: Duration = Duration::from_secs(60);

impl Client {
    /// Rotates the key; `validate_only`: only counts. What it does is told as a stream, which ends with the rotation.
    pub async fn rotate_key(&self, validate_only: bool) -> Result<Parts<v1::RotateKeyResponse>, Error> {
        let request = v1::RotateKeyRequest { validate_only };
        self.parts(request, PATIENCE, async |r| self.secrets().rotate_key(r).await).await
    }

    fn secrets(&self) -> SecretServiceClient<Authorized> {
        SecretServiceClient::with_interceptor(self.channel.clone(), self.bearer.clone())
    }
}

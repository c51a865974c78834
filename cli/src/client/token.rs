//! Calls about who may call.

use std::time::Duration;

use postroom_proto::v1;
use postroom_proto::v1::access_service_client::AccessServiceClient;

use super::{Authorized, Client, Error, MAX_ANSWER, Repeat};

impl Client {
    /// Makes a token. It is not tried again after a lost answer: the token would be unknown, and its name taken.
    pub async fn create_token(&self, request: v1::CreateTokenRequest) -> Result<v1::CreateTokenResponse, Error> {
        self.call(Repeat::Never, Duration::ZERO, request, async |r| self.access().create_token(r).await).await
    }

    /// All tokens, enrolments and certificates.
    pub async fn list_credentials(&self) -> Result<v1::ListCredentialsResponse, Error> {
        self.read(v1::ListCredentialsRequest {}, async |r| self.access().list_credentials(r).await).await
    }

    /// Ends some of them.
    pub async fn revoke_credentials(
        &self,
        request: v1::RevokeCredentialsRequest,
    ) -> Result<v1::RevokeCredentialsResponse, Error> {
        self.call(Repeat::Never, Duration::ZERO, request, async |r| self.access().revoke_credentials(r).await).await
    }

    /// Makes a token for a worker's first certificate. One that was lost is of no use to anybody and ends soon.
    pub async fn enroll_worker(&self, request: v1::EnrollWorkerRequest) -> Result<v1::EnrollWorkerResponse, Error> {
        self.read(request, async |r| self.access().enroll_worker(r).await).await
    }

    fn access(&self) -> AccessServiceClient<Authorized> {
        AccessServiceClient::with_interceptor(self.channel.clone(), self.bearer.clone())
            .max_decoding_message_size(MAX_ANSWER)
    }
}

//! Tokens and certificates.

use std::sync::Arc;

use postroom_proto::reason::{Failure, Reason};
use postroom_proto::v1::{self, access_service_server::AccessService};
use tonic::{Request, Response, Status};

use super::by;
use crate::access::issuing::Issuer;
use crate::access::standing::Standing;

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl AccessService for Issuer {
    async fn create_token(&self, request: Request<v1::CreateTokenRequest>) -> Answer<v1::CreateTokenResponse> {
        let by = by(request.extensions())?;
        Ok(Response::new(self.create(request.into_inner(), &by).await?))
    }

    async fn list_credentials(&self, _: Request<v1::ListCredentialsRequest>) -> Answer<v1::ListCredentialsResponse> {
        Ok(Response::new(self.list().await?))
    }

    async fn revoke_credentials(
        &self,
        request: Request<v1::RevokeCredentialsRequest>,
    ) -> Answer<v1::RevokeCredentialsResponse> {
        let by = by(request.extensions())?;
        Ok(Response::new(self.revoke(request.into_inner(), &by).await?))
    }

    async fn enroll_worker(&self, request: Request<v1::EnrollWorkerRequest>) -> Answer<v1::EnrollWorkerResponse> {
        let by = by(request.extensions())?;
        Ok(Response::new(self.enroll(request.into_inner(), &by).await?))
    }

    async fn request_certificate(
        &self,
        request: Request<v1::RequestCertificateRequest>,
    ) -> Answer<v1::RequestCertificateResponse> {
        let standing = request.extensions().get::<Arc<Standing>>().cloned();
        let standing = standing.ok_or_else(|| Failure::new(Reason::Unauthenticated, "the call came past the gate"))?;
        Ok(Response::new(self.certify(&standing, &request.get_ref().signing_request).await?))
    }
}

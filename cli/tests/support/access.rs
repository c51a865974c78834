//! The scripted control plane's word on who may call.

use postroom_proto::v1;
use postroom_proto::v1::access_service_server::AccessService;
use tonic::{Request, Response, Status};

use super::{Answer, Fake, fixture, not_found};

fn made(id: &str, kind: v1::CredentialKind, name: &str, role: &str, ttl: i64) -> v1::Credential {
    v1::Credential {
        id: id.into(),
        kind: kind.into(),
        name: name.into(),
        role: role.into(),
        create_time: fixture::at(0),
        created_by: "admin".into(),
        expire_time: fixture::at(ttl),
        ..Default::default()
    }
}

#[tonic::async_trait]
impl AccessService for Fake {
    async fn create_token(&self, request: Request<v1::CreateTokenRequest>) -> Answer<v1::CreateTokenResponse> {
        let request = self.enter("CreateToken", request).await?;
        let role = match request.instance.as_str() {
            "" => request.role,
            instance => format!("{}:{instance}", request.role),
        };
        let ttl = request.ttl.unwrap_or_default().seconds;
        let credential = Some(made("5f0c3a9d21be", v1::CredentialKind::Token, &request.name, &role, ttl));
        Ok(Response::new(v1::CreateTokenResponse { credential, token: "the-new-token".into() }))
    }

    async fn list_credentials(
        &self,
        request: Request<v1::ListCredentialsRequest>,
    ) -> Answer<v1::ListCredentialsResponse> {
        self.enter("ListCredentials", request).await?;
        Ok(Response::new(v1::ListCredentialsResponse { credentials: self.0.lock().unwrap().credentials.clone() }))
    }

    async fn revoke_credentials(
        &self,
        request: Request<v1::RevokeCredentialsRequest>,
    ) -> Answer<v1::RevokeCredentialsResponse> {
        let request = self.enter("RevokeCredentials", request).await?;
        let all = self.0.lock().unwrap().credentials.clone();
        let meant = |it: &v1::Credential| match request.worker.as_str() {
            "" => it.name == request.credential || it.id == request.credential,
            worker => it.role.ends_with(&format!(":{worker}")),
        };
        let credentials: Vec<_> = all.into_iter().filter(meant).collect();
        if credentials.is_empty() {
            return Err(not_found("token", &request.credential));
        }
        Ok(Response::new(v1::RevokeCredentialsResponse { credentials }))
    }

    async fn enroll_worker(&self, request: Request<v1::EnrollWorkerRequest>) -> Answer<v1::EnrollWorkerResponse> {
        let request = self.enter("EnrollWorker", request).await?;
        let (name, ttl) = (request.worker, request.ttl.unwrap_or_default().seconds);
        let role = format!("enrolment:{name}");
        let credential = Some(made("77aa00bb11cc", v1::CredentialKind::Enrolment, &name, &role, ttl));
        Ok(Response::new(v1::EnrollWorkerResponse { credential, token: "the-enrolment-token".into() }))
    }

    async fn request_certificate(
        &self,
        _: Request<v1::RequestCertificateRequest>,
    ) -> Answer<v1::RequestCertificateResponse> {
        Err(Status::unimplemented("workers ask for that"))
    }
}

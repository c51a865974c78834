//! A control plane that serves over TLS with a certificate of its own CA, and callers of every kind.

use std::path::Path;
use std::time::Duration;

use postroom_control_plane::access::role::Role;
use postroom_control_plane::access::tls::Choice;
use postroom_control_plane::access::token::{Tokens, mint};
use postroom_control_plane::app::App;
use postroom_control_plane::config::Config;
use postroom_proto::v1;
use postroom_proto::v1::access_service_client::AccessServiceClient;
use rcgen::{CertificateParams, KeyPair};
use secrecy::SecretString;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Request, Status};

use crate::bench::{bearing, settings};

/// A control plane over TLS.
pub(crate) struct Secured {
    pub(crate) app: App,
    pub(crate) admin: SecretString,
    pub(crate) worker: SecretString,
    pub(crate) ca: String,
}

/// A worker's certificate with its key, PEM.
#[derive(Clone)]
pub(crate) struct Pair {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Secured {
    pub(crate) async fn start(data: &Path) -> Self {
        let config = settings(data).await;
        Self::start_with(Config { tls: Choice::Own { names: vec!["localhost".into(), "127.0.0.1".into()] }, ..config })
            .await
    }

    pub(crate) async fn start_with(config: Config) -> Self {
        let (admin, worker) = (mint().unwrap(), mint().unwrap());
        let mut tokens = Tokens::default();
        tokens.grant(&admin, Role::Admin);
        tokens.grant(&worker, Role::Worker(None));
        let upkeep_interval = Duration::from_millis(50);
        let data = config.data.clone();
        let app = App::start(Config { tokens, upkeep_interval, ..config }).await.unwrap();
        let ca = app.ca_file().map_or(data.join("ca.pem"), Path::to_path_buf);
        Self { ca: std::fs::read_to_string(ca).unwrap_or_default(), app, admin, worker }
    }

    fn endpoint(&self, tls: ClientTlsConfig) -> Endpoint {
        let url = format!("https://localhost:{}", self.app.address().port());
        let tls = tls.ca_certificate(Certificate::from_pem(&self.ca)).domain_name("localhost");
        Channel::from_shared(url).unwrap().tls_config(tls).unwrap()
    }

    /// A connection that shows no certificate.
    pub(crate) fn channel(&self) -> Channel {
        let _ = rustls::crypto::ring::default_provider().install_default();
        self.endpoint(ClientTlsConfig::new()).connect_lazy()
    }

    /// A connection that shows one.
    pub(crate) fn showing(&self, pair: &Pair) -> Channel {
        let _ = rustls::crypto::ring::default_provider().install_default();
        self.endpoint(ClientTlsConfig::new().identity(Identity::from_pem(&pair.certificate, &pair.key))).connect_lazy()
    }

    pub(crate) fn as_admin<T>(&self, message: T) -> Request<T> {
        bearing(&self.admin, message)
    }

    pub(crate) fn access(&self) -> AccessServiceClient<Channel> {
        AccessServiceClient::new(self.channel())
    }

    /// A token of a role, as `token create` makes it.
    pub(crate) async fn token(&self, request: v1::CreateTokenRequest) -> SecretString {
        self.access().create_token(self.as_admin(request)).await.unwrap().into_inner().token.into()
    }

    /// An enrolment token.
    pub(crate) async fn enrolment(&self, worker: &str) -> SecretString {
        let request = v1::EnrollWorkerRequest { worker: worker.into(), ttl: None };
        self.access().enroll_worker(self.as_admin(request)).await.unwrap().into_inner().token.into()
    }

    /// Has a key signed for an enrolment token.
    pub(crate) async fn certify(&self, token: &SecretString, key: &KeyPair) -> Result<Pair, Status> {
        let answer = self.access().request_certificate(bearing(token, signing_request(key))).await?.into_inner();
        Ok(Pair { certificate: answer.certificate, key: key.serialize_pem() })
    }

    /// A worker that was enrolled.
    pub(crate) async fn enrolled(&self, worker: &str) -> Pair {
        let token = self.enrolment(worker).await;
        self.certify(&token, &KeyPair::generate().unwrap()).await.unwrap()
    }
}

pub(crate) fn signing_request(key: &KeyPair) -> v1::RequestCertificateRequest {
    let request = CertificateParams::default().serialize_request(key).unwrap();
    v1::RequestCertificateRequest { signing_request: request.der().to_vec() }
}

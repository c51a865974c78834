//! Certificates: of workers, which act under their own name alone, and of the server, which are exchanged as it runs.

use std::path::Path;
use std::time::Duration;

use postroom_control_plane::access::tls::Choice;
use postroom_control_plane::config::Config;
use postroom_proto::reason::Reason;
use postroom_proto::v1;
use postroom_proto::v1::access_service_client::AccessServiceClient;
use postroom_proto::v1::definition_service_client::DefinitionServiceClient;
use postroom_proto::v1::errand_service_client::ErrandServiceClient;
use postroom_proto::v1::lease_service_client::LeaseServiceClient;
use postroom_proto::v1::report_service_client::ReportServiceClient;
use postroom_proto::v1::send_service_client::SendServiceClient;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tokio::time::timeout;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::bench::{bearing, reason, settings};
use crate::secured::{Pair, Secured, signing_request};

/// Reached only when something hangs.
const PATIENCE: Duration = Duration::from_secs(20);

async fn register(channel: &Channel, name: &str) -> Result<String, Status> {
    let request = v1::RegisterRequest { worker_name: name.into(), build: "test".into(), ..Default::default() };
    let mut leases = LeaseServiceClient::new(channel.clone());
    loop {
        match leases.register(request.clone()).await {
            Ok(answer) => return Ok(answer.into_inner().session),
            Err(status) if status.code() == Code::Unavailable => tokio::time::sleep(Duration::from_millis(20)).await,
            Err(status) => return Err(status),
        }
    }
}

/// A CA of an operator.
struct Office {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Office {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "Office CA");
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    fn certify(&self, names: &[&str]) -> Pair {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
        Pair { certificate: params.signed_by(&key, &self.issuer).unwrap().pem(), key: key.serialize_pem() }
    }

    /// Puts a certificate for these names into the files of the server.
    fn serve(&self, data: &Path, names: &[&str]) {
        let pair = self.certify(names);
        std::fs::write(data.join("server.key"), pair.key).unwrap();
        std::fs::write(data.join("server.pem"), pair.certificate).unwrap();
    }
}

async fn start_with_files(data: &Path, office: &Office) -> Secured {
    office.serve(data, &["localhost"]);
    let ca = data.join("office.pem");
    std::fs::write(&ca, &office.pem).unwrap();
    let tls = Choice::Files {
        certificate: data.join("server.pem"),
        key: data.join("server.key"),
        client_ca: Some(ca.clone()),
        ca: Some(ca),
    };
    Secured::start_with(Config { tls, ..settings(data).await }).await
}

#[tokio::test]
async fn a_worker_acts_under_its_own_name_alone() {
    let data = tempfile::tempdir().unwrap();
    let plane = Secured::start(data.path()).await;
    let first = plane.showing(&plane.enrolled("mail-1").await);
    let second = plane.showing(&plane.enrolled("mail-2").await);
    let own = register(&first, "mail-1").await.unwrap();
    assert_eq!(reason(&register(&first, "mail-2").await.unwrap_err()), Reason::PermissionDenied);
    let heartbeat = |session: &str| v1::HeartbeatRequest { session: session.into(), sequence: 1, ..Default::default() };
    assert!(LeaseServiceClient::new(first.clone()).heartbeat(heartbeat(&own)).await.is_ok());

    // Every call that names a session, by the worker whose it is not.
    let session = own.clone();
    let claim = Some(v1::Claim { session: session.clone(), mail: "m".into(), token: "t".into() });
    let mut leases = LeaseServiceClient::new(second.clone());
    let mut reports = ReportServiceClient::new(second.clone());
    let mut errands = ErrandServiceClient::new(second.clone());
    let mut sends = SendServiceClient::new(second.clone());
    let header = v1::BlobHeader { session: session.clone(), mailbox: "m".into(), ..Default::default() };
    let upload = v1::UploadBlobRequest { part: Some(v1::upload_blob_request::Part::Header(header)) };
    let refused = [
        leases.heartbeat(heartbeat(&session)).await.map(drop),
        leases.watch_nudge(v1::WatchNudgeRequest { session: session.clone() }).await.map(drop),
        leases.leave(v1::LeaveRequest { session: session.clone(), returning: false }).await.map(drop),
        reports
            .open_mailboxes(v1::OpenMailboxesRequest { session: session.clone(), ..Default::default() })
            .await
            .map(drop),
        reports.report(v1::ReportRequest { session: session.clone(), ..Default::default() }).await.map(drop),
        reports
            .report_status(v1::ReportStatusRequest { session: session.clone(), ..Default::default() })
            .await
            .map(drop),
        reports.find_known(v1::FindKnownRequest { session: session.clone(), ..Default::default() }).await.map(drop),
        reports.upload_blob(futures::stream::iter([upload])).await.map(drop),
        errands.take_errands(v1::TakeErrandsRequest { session: session.clone(), wait: None }).await.map(drop),
        errands
            .report_errand(v1::ReportErrandRequest { session: session.clone(), ..Default::default() })
            .await
            .map(drop),
        sends.claim_mails(v1::ClaimMailsRequest { session, max_count: 1, wait: None }).await.map(drop),
        sends.get_claimed_raw(v1::GetClaimedRawRequest { claim: claim.clone() }).await.map(drop),
        sends.mark_submitting(v1::MarkSubmittingRequest { claim: claim.clone() }).await.map(drop),
        sends
            .settle_mail(v1::SettleMailRequest { claim, verdict: v1::SendVerdict::Sent.into(), ..Default::default() })
            .await
            .map(drop),
    ];
    for (place, refused) in refused.into_iter().enumerate() {
        let status = refused.expect_err("a foreign session was let through");
        assert_eq!(reason(&status), Reason::PermissionDenied, "{place}: {status:?}");
        assert!(status.message().contains("mail-2 may not act for worker mail-1"), "{place}: {status:?}");
    }
    assert!(LeaseServiceClient::new(first).heartbeat(heartbeat(&own)).await.is_ok(), "it was not ended");
    plane.app.stop().await;
}

#[tokio::test]
async fn an_enrolment_is_for_one_key_and_a_certificate_gets_the_next_one() {
    let data = tempfile::tempdir().unwrap();
    let plane = Secured::start(data.path()).await;
    let token = plane.enrolment("mail-1").await;
    let key = KeyPair::generate().unwrap();
    let first = plane.certify(&token, &key).await.unwrap();
    let again = plane.certify(&token, &key).await.expect("the answer may have been lost");
    assert_ne!(first.certificate, again.certificate);
    let thief = plane.certify(&token, &KeyPair::generate().unwrap()).await;
    let Err(status) = thief else { panic!("an enrolment was used twice") };
    assert_eq!(reason(&status), Reason::PermissionDenied);
    assert!(status.message().contains("token revoke --worker mail-1"), "{status:?}");
    let garbage = v1::RequestCertificateRequest { signing_request: vec![1, 2, 3] };
    let garbage = plane.access().request_certificate(bearing(&token, garbage)).await.unwrap_err();
    assert_eq!(reason(&garbage), Reason::InvalidField);

    let next = KeyPair::generate().unwrap();
    let renewed = AccessServiceClient::new(plane.showing(&first)).request_certificate(signing_request(&next)).await;
    let renewed = Pair { certificate: renewed.unwrap().into_inner().certificate, key: next.serialize_pem() };
    register(&plane.showing(&renewed), "mail-1").await.unwrap();
    // Nobody gets a certificate by a token that is not for that, or for another worker than his own.
    let by_token = plane.access().request_certificate(bearing(&plane.worker, signing_request(&next))).await;
    assert_eq!(reason(&by_token.unwrap_err()), Reason::PermissionDenied);
    plane.app.stop().await;
}

#[tokio::test]
async fn what_is_revoked_of_a_worker_ends_its_calls_and_streams() {
    let data = tempfile::tempdir().unwrap();
    let plane = Secured::start(data.path()).await;
    let lost = plane.showing(&plane.enrolled("mail-1").await);
    let other = plane.showing(&plane.enrolled("mail-2").await);
    let session = register(&lost, "mail-1").await.unwrap();
    register(&other, "mail-2").await.unwrap();
    let nudges = LeaseServiceClient::new(lost.clone()).watch_nudge(v1::WatchNudgeRequest { session }).await;
    let mut nudges = nudges.unwrap().into_inner();
    let request = v1::RevokeCredentialsRequest { worker: "mail-1".into(), ..Default::default() };
    let ended = plane.access().revoke_credentials(plane.as_admin(request)).await.unwrap().into_inner();
    assert_eq!(ended.credentials.len(), 2, "its enrolment and its certificate");
    let ending = async {
        loop {
            match nudges.message().await {
                Err(status) => return status,
                Ok(told) => assert!(told.is_some(), "it ended without a word"),
            }
        }
    };
    let status = timeout(PATIENCE, ending).await.expect("the stream goes on");
    assert_eq!(reason(&status), Reason::Unauthenticated);
    let status = register(&lost, "mail-1").await.unwrap_err();
    assert_eq!(reason(&status), Reason::Unauthenticated);
    assert!(status.message().contains("worker enroll"), "{status:?}");
    register(&other, "mail-2").await.expect("the other is not meant");
    plane.app.stop().await;
}

#[tokio::test]
async fn a_certificate_of_the_operators_ca_makes_the_worker_that_it_names() {
    let data = tempfile::tempdir().unwrap();
    let office = Office::new();
    let plane = start_with_files(data.path(), &office).await;
    let named = plane.showing(&office.certify(&["mail-1", "mail-1.example.org"]));
    register(&named, "mail-1").await.unwrap();
    assert_eq!(reason(&register(&named, "mail-2").await.unwrap_err()), Reason::PermissionDenied);
    // Which of two it should be nobody can say, and a name with dots is no worker's.
    for names in [&["mail-1", "mail-2"][..], &["mail-1.example.org"], &[]] {
        let status = register(&plane.showing(&office.certify(names)), "mail-1").await.unwrap_err();
        assert_eq!(reason(&status), Reason::Unauthenticated, "{names:?}");
        assert!(status.message().contains("names no worker"), "{status:?}");
    }
    // Of a CA that nobody knows.
    let stranger = plane.showing(&Office::new().certify(&["mail-1"]));
    let request = v1::RegisterRequest { worker_name: "mail-1".into(), ..Default::default() };
    LeaseServiceClient::new(stranger).register(request).await.expect_err("a stranger was let in");
    // Beside it workers are enrolled.
    register(&plane.showing(&plane.enrolled("mail-3").await), "mail-3").await.unwrap();
    plane.app.stop().await;
}

/// The certificate that a new connection is shown: its DER.
async fn shown(plane: &Secured) -> Vec<u8> {
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    let ca = rustls::pki_types::pem::PemObject::from_pem_slice(plane.ca.as_bytes()).unwrap();
    roots.add(ca).unwrap();
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = tokio::net::TcpStream::connect(plane.app.address()).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
    let stream = connector.connect("localhost".try_into().unwrap(), stream).await.unwrap();
    stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

#[tokio::test]
async fn a_new_certificate_is_served_without_breaking_connections_and_a_bad_one_is_not() {
    let data = tempfile::tempdir().unwrap();
    let office = Office::new();
    let plane = start_with_files(data.path(), &office).await;
    let (before, standing) = (shown(&plane).await, plane.channel());
    // A stream that would end with its connection.
    let session = register(&plane.showing(&office.certify(&["mail-1"])), "mail-1").await.unwrap();
    let watch = bearing(&plane.worker, v1::WatchNudgeRequest { session });
    let mut nudges = LeaseServiceClient::new(standing.clone()).watch_nudge(watch).await.unwrap().into_inner();
    nudges.message().await.unwrap().unwrap();

    office.serve(data.path(), &["localhost"]);
    plane.app.reload();
    let renewed = async {
        loop {
            let now = shown(&plane).await;
            if now != before {
                return now;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let renewed = timeout(PATIENCE, renewed).await.expect("the former certificate is still served");

    // A key of another certificate, and no certificate at all: what was served goes on.
    for (file, text) in [("server.key", KeyPair::generate().unwrap().serialize_pem()), ("server.pem", "nothing".into())]
    {
        std::fs::write(data.path().join(file), text).unwrap();
        plane.app.reload();
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(shown(&plane).await, renewed, "{file}");
    }
    let export = plane.as_admin(v1::ExportModelRequest::default());
    DefinitionServiceClient::new(standing).export_model(export).await.unwrap();
    let quiet = timeout(Duration::from_millis(50), async { while let Ok(Some(_)) = nudges.message().await {} });
    assert!(quiet.await.is_err(), "the stream has ended");
    plane.app.stop().await;
}

#[tokio::test]
async fn plaintext_is_not_understood_where_tls_is_spoken_and_half_a_pair_does_not_start() {
    let data = tempfile::tempdir().unwrap();
    let plane = Secured::start(data.path()).await;
    let plain = Channel::from_shared(format!("http://{}", plane.app.address())).unwrap().connect_lazy();
    let mut definitions = DefinitionServiceClient::new(plain);
    let call = definitions.export_model(plane.as_admin(v1::ExportModelRequest::default()));
    timeout(PATIENCE, call).await.expect("it hangs").expect_err("plaintext was answered");
    assert!(plane.app.endpoint().starts_with("https://127.0.0.1:"), "{}", plane.app.endpoint());
    // The CA outlives the process, and so does the trust in it.
    let ca = plane.ca.clone();
    plane.app.stop().await;
    let plane = Secured::start(data.path()).await;
    assert_eq!(plane.ca, ca);
    plane.app.stop().await;

    let tls = Choice::Files {
        certificate: data.path().join("ca.pem"),
        key: data.path().join("missing.key"),
        client_ca: None,
        ca: None,
    };
    let config = Config { tls, ..settings(data.path()).await };
    let error = postroom_control_plane::app::App::start(config).await.unwrap_err().to_string();
    assert!(error.contains("missing.key"), "{error}");
}

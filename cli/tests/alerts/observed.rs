//! Metrics and health of a control plane and a worker, as they are read from outside.

use std::collections::BTreeSet;
use std::time::Duration;

use postroom_proto::metric::{self, Process};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::control_plane::ControlPlane;
use crate::harness::{SERVICE, Stage, accept, eventually, take};
use crate::process::{free_address, run};

/// What a path answers: the status and the body.
pub(crate) async fn page(address: &str, path: &str) -> Option<(u16, String)> {
    let asked = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        std::io::Result::Ok(answer)
    };
    let answer = asked.await.ok()?;
    let status = answer.split(' ').nth(1)?.parse().ok()?;
    Some((status, answer.split_once("\r\n\r\n")?.1.to_owned()))
}

fn names(text: &str) -> BTreeSet<&str> {
    let kinds = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    kinds.filter_map(|line| line.split_once(' ')).map(|(name, _)| name).collect()
}

fn listed(name: &str) -> Option<&'static metric::Metric> {
    metric::ALL.iter().map(|listed| listed.metric()).find(|it| it.name.trim_end_matches("_total") == name)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_control_plane_and_a_worker_show_what_they_do_and_whether_they_can() {
    let stage = Stage::set().await;
    let (at, at_worker) = (free_address(), free_address());
    let plane = {
        let args = ["--listen", "127.0.0.1:0", "--observe-listen", &at, "--observe-interval", "300ms"];
        ControlPlane::launch(stage.folder.path(), &stage.data(), "control-plane.log", &args).await
    };
    plane.apply(&stage.model(&stage.secret())).await;
    let worker = plane.worker("one", &["--observe-listen", &at_worker]);
    plane.read_by("one").await;
    stage.deliver(SERVICE, "mail", 3).await;
    let client = plane.client();
    let taken = take(&client, 3, Duration::from_secs(20)).await;
    assert!(!taken.is_empty());
    accept(&client, &taken).await;

    eventually("both are ready", || async {
        page(&at, "/ready").await == Some((200, "ready\n".into()))
            && page(&at_worker, "/ready").await == Some((200, "ready\n".into()))
    })
    .await;
    let shown = |address: String, what: &'static [&'static str]| async move {
        let (_, text) = page(&address, "/metrics").await.unwrap_or_default();
        // With a value it is the whole line, or 2 would be seen in 20.
        let is = |line: &str, wanted: &str| line == wanted || (!wanted.contains(' ') && line.starts_with(wanted));
        what.iter().all(|wanted| text.lines().any(|line| is(line, wanted)))
    };
    eventually("the control plane shows it", || {
        shown(
            at.clone(),
            &[
                "postroom_leader 1.0",
                "postroom_mailboxes{instance=\"core1\",state=\"idle\"} 2.0",
                "postroom_mailbox_state{mailbox=\"billing@contoso.example\",folder=\"INBOX\",instance=\"core1\",queue=\"Billing\",state=\"idle\"} 1.0",
                "postroom_mailbox_proof_of_life_timestamp_seconds{mailbox=\"billing@contoso.example\"",
                "postroom_mailbox_delivery_lag_seconds{mailbox=\"billing@contoso.example\"",
                "postroom_workers{pool=\"default\",role=\"active\",state=\"live\"} 1.0",
                "postroom_worker_mailboxes{worker=\"one\",pool=\"default\"} 2.0",
                "postroom_messages_total{instance=\"core1\",disposition=\"contact\"} 3",
                "postroom_queue_contacts_waiting{instance=\"core1\",queue=\"Support\"} 0.0",
                "postroom_calls_total{method=\"ContactService/AllocateContacts\",code=\"Ok\"}",
                "postroom_commit_seconds_count{database=\"ledger\"}",
                "postroom_data_free_bytes",
            ],
        )
    })
    .await;
    eventually("the worker shows it", || {
        shown(
            at_worker.clone(),
            &[
                "postroom_worker_trusted 1.0",
                "postroom_worker_mailboxes_held 2.0",
                "postroom_heartbeats_total{outcome=\"answered\"}",
                "postroom_token_requests_total{outcome=\"granted\",code=\"\"} 2",
                "postroom_sign_ins_total{outcome=\"accepted\",code=\"\"} 2",
                "postroom_fetched_messages_total 3",
                "postroom_delivery_lag_seconds_count 3",
                "postroom_server_certificate_expiry_timestamp_seconds{host=",
            ],
        )
    })
    .await;
    for (address, own) in [(&at, Process::ControlPlane), (&at_worker, Process::Worker)] {
        let (_, text) = page(address, "/metrics").await.unwrap();
        for name in names(&text) {
            let metric = listed(name).unwrap_or_else(|| panic!("{name} is in no inventory"));
            assert!([own, Process::Both].contains(&metric.process), "{name} is none of {own:?}");
        }
    }
    // A worker that hears nothing says so, and the control plane has nothing against itself for that.
    plane.process.signal("STOP");
    eventually("the worker is not ready", || async {
        page(&at_worker, "/ready").await.is_some_and(|(status, why)| status == 503 && why.contains("is silent"))
    })
    .await;
    assert_eq!(page(&at_worker, "/live").await, Some((200, "live\n".into())));
    plane.process.signal("CONT");
    eventually("it is ready again", || async {
        page(&at_worker, "/ready").await.is_some_and(|(status, _)| status == 200)
    })
    .await;
    drop(worker);
}

#[tokio::test(flavor = "multi_thread")]
async fn health_needs_no_token_and_the_protos_do() {
    use tonic_health::pb::HealthCheckRequest;
    use tonic_health::pb::health_client::HealthClient;
    use tonic_reflection::pb::v1::ServerReflectionRequest;
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;

    let stage = Stage::set().await;
    let args = ["--listen", "127.0.0.1:0", "--observe-listen", "off"];
    let plane = ControlPlane::launch(stage.folder.path(), &stage.data(), "control-plane.log", &args).await;
    let channel = tonic::transport::Endpoint::from_shared(plane.context.endpoint.clone()).unwrap();
    let channel = channel.connect().await.unwrap();
    let mut health = HealthClient::new(channel.clone());
    for service in ["", "postroom.v1.LeaseService"] {
        let asked = async |health: &mut HealthClient<_>| {
            let request = HealthCheckRequest { service: service.into() };
            health.check(request).await.map(|answer| answer.into_inner().status)
        };
        let mut status = asked(&mut health).await;
        for _ in 0..200 {
            if status.as_ref().is_ok_and(|it| *it == 1) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
            status = asked(&mut health).await;
        }
        assert_eq!(status.unwrap(), 1, "{service:?} serves");
    }
    let ask = || {
        let message_request = Some(MessageRequest::ListServices(String::new()));
        tokio_stream::once(ServerReflectionRequest { host: String::new(), message_request })
    };
    let mut reflection = ServerReflectionClient::new(channel.clone());
    let refused = reflection.server_reflection_info(ask()).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::Unauthenticated);
    let bearer = format!("Bearer {}", secrecy::ExposeSecret::expose_secret(&plane.context.token));
    let mut request = tonic::Request::new(ask());
    request.metadata_mut().insert("authorization", bearer.parse().unwrap());
    let mut answers = reflection.server_reflection_info(request).await.unwrap().into_inner();
    let answer = answers.message().await.unwrap().unwrap();
    let text = format!("{answer:?}");
    assert!(text.contains("postroom.v1.ContactService") && text.contains("grpc.health.v1.Health"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_was_named_and_is_in_use_stops_the_start() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().to_str().unwrap();
    let output =
        run("postroom-control-plane", &["--data", data, "--listen", "127.0.0.1:0", "--observe-listen", &address], &[]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("observe.listen"), "{said}");
}

//! TLS, tokens and enrolment between real processes.

use std::path::Path;
use std::time::Duration;

use postroom_cli::client::Client;
use postroom_cli::context::Context;
use postroom_control_plane as control_plane;
use postroom_control_plane::access::role::Role;
use postroom_control_plane::access::tls::Choice;
use postroom_control_plane::access::token::{Tokens, mint};
use postroom_proto::convert::to_duration;
use postroom_proto::lease::LeaseTerms;
use postroom_proto::metric;
use postroom_proto::v1;
use postroom_worker as worker;
use postroom_worker::config::Identity;

use crate::control_plane::ControlPlane;
use crate::harness::{SERVICE, Stage, contacts, eventually};
use crate::process::{Process, run};

/// Output of a command that must succeed.
fn postroom(data: &Path, args: &[&str]) -> String {
    let output = run("postroom", &[&["--data", data.to_str().unwrap()], args].concat(), &[]);
    assert_eq!(output.status.code(), Some(0), "{args:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_is_enrolled_reads_mail_over_tls_and_is_locked_out_again() {
    let stage = Stage::set().await;
    let (data, folder) = (stage.data(), stage.folder.path());
    let args = ["--listen", "127.0.0.1:0", "--tls-own-names", "localhost,127.0.0.1", "--lease-ttl=5s"];
    let terms = ["--lease-heartbeat=300ms", "--lease-leader-ttl=1s", "--lease-margin=500ms"];
    let plane = ControlPlane::launch(folder, &data, "control-plane.log", &[&args[..], &terms].concat()).await;
    assert!(plane.context.endpoint.starts_with("https://127.0.0.1:"), "{}", plane.context.endpoint);
    plane.apply(&stage.model(&stage.secret())).await;
    std::fs::write(folder.join("enrolment.token"), postroom(&data, &["worker", "enroll", "mail-1", "--quiet"]))
        .unwrap();
    let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let ca = data.join("ca.pem");
    let (identity, token) = (path("identity"), path("enrolment.token"));
    let args = [
        "--control-plane",
        &plane.context.endpoint,
        "--name",
        "mail-1",
        "--tls-ca-file",
        ca.to_str().unwrap(),
        "--tls-identity-dir",
        &identity,
        "--tls-enrolment-token-file",
        &token,
    ];
    let mut first = Process::start("postroom-worker", folder, "first.log", &args);
    first.says("enrolled").await;
    plane.read_by("mail-1").await;
    stage.deliver(SERVICE, "a", 5).await;
    let client = plane.client();
    eventually("all mail is there", || async { contacts(&client).await.len() == 5 }).await;
    first.terminate();
    assert_eq!(first.ended().await.code(), Some(0), "{}", first.log());

    // The token is used up and may go; what it brought stays.
    std::fs::remove_file(&token).unwrap();
    let mut again = Process::start("postroom-worker", folder, "again.log", &args[..8]);
    plane.read_by("mail-1").await;
    // Under another name the same certificate is of no use.
    let other = [&args[..2], &["--name", "mail-2"], &args[4..8]].concat();
    let refused = run("postroom-worker", &other, &[]);
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(5), "{told}");
    assert!(told.contains("mail-1 may not act for worker mail-2"), "{told}");

    let listed = postroom(&data, &["token", "list"]);
    assert!(listed.contains("certificate  worker:mail-1") && listed.contains("used up"), "{listed}");
    postroom(&data, &["token", "revoke", "--worker", "mail-1"]);
    eventually("nobody reads any more", || async {
        let mailboxes = client.list_mailboxes().await.unwrap().mailboxes;
        mailboxes.iter().all(|it| it.holder.is_none())
    })
    .await;
    again.terminate();
    again.ended().await;
    let refused = run("postroom-worker", &args[..8], &[]);
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(5), "{told}");
    assert!(told.contains("postroom worker enroll"), "{told}");

    // With the certificate that was revoked, and a new token, it is enrolled anew. A token worth nothing is told.
    std::fs::write(&token, "nothing").unwrap();
    let refused = run("postroom-worker", &args, &[]);
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(5), "{told}");
    assert!(told.contains("enrolment.token does not help: the token is not known here"), "{told}");
    std::fs::write(&token, postroom(&data, &["worker", "enroll", "mail-1", "--quiet"])).unwrap();
    let mut anew = Process::start("postroom-worker", folder, "anew.log", &args);
    anew.says("enrolled").await;
    plane.read_by("mail-1").await;
    anew.terminate();
    assert_eq!(anew.ended().await.code(), Some(0), "{}", anew.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_renews_its_certificate_and_works_on() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let folder = tempfile::tempdir().unwrap();
    let (data, admin) = (folder.path().join("data"), mint().unwrap());
    let mut tokens = Tokens::default();
    tokens.grant(&admin, Role::Admin);
    let listen = "127.0.0.1:0".parse().unwrap();
    let plane = control_plane::app::App::start(control_plane::config::Config {
        tls: Choice::Own { names: vec!["127.0.0.1".into()] },
        // It is renewed when two thirds are over: long before its end, also on a machine that is busy.
        certificate_lifetime: Duration::from_secs(60),
        ..control_plane::config::Config::new(data.clone(), listen, tokens)
    });
    let plane = plane.await.unwrap();
    let ca_file = plane.ca_file().map(Path::to_path_buf);
    let context = Context { endpoint: plane.endpoint().into(), ca_file: ca_file.clone(), token: admin };
    let client = Client::new(&context, false).unwrap();
    let ttl = Some(to_duration(Duration::from_secs(60)));
    let enrolment = client.enroll_worker(v1::EnrollWorkerRequest { worker: "mail-1".into(), ttl }).await.unwrap();
    let token_file = folder.path().join("enrolment.token");
    std::fs::write(&token_file, enrolment.token).unwrap();
    let mut config = worker::config::Config::new(plane.endpoint(), "".into(), "mail-1");
    config.identity = Identity::Enrolled { folder: folder.path().join("identity"), token_file: Some(token_file) };
    config.ca_file = ca_file;
    let reader = worker::app::App::start(config).unwrap();
    let certificates = async || {
        let all = client.list_credentials().await.unwrap().credentials;
        all.into_iter().filter(|it| it.kind() == v1::CredentialKind::Certificate).collect::<Vec<_>>()
    };
    eventually("it is enrolled", || async { certificates().await.len() == 1 }).await;
    let first = certificates().await.remove(0);
    let live = async || {
        let workers = client.list_workers().await.unwrap().workers;
        assert_eq!((workers.len(), workers[0].state()), (1, v1::WorkerState::Live), "{workers:?}");
        workers[0].session.clone()
    };
    eventually("it is registered", || async { client.list_workers().await.unwrap().workers.len() == 1 }).await;
    let session = live().await;
    let kept = folder.path().join("identity/identity.pem");
    let before = std::fs::read(&kept).unwrap();
    eventually("it is renewed", || async { std::fs::read(&kept).unwrap() != before }).await;
    // Metrics follow: they show until when the newest one holds, and the server's and the CA's.
    let ends = |name: &str| {
        let line = format!("postroom_own_certificate_expiry_timestamp_seconds{{certificate=\"{name}\"}} ");
        let text = metric::render();
        text.lines().find_map(|it| it.strip_prefix(&line)?.parse::<f64>().ok()).unwrap_or_default()
    };
    let former = first.expire_time.unwrap().seconds as f64;
    eventually("metrics show it", || async { ends("client") > former + 5.0 }).await;
    let days = (ends("server") - ends("client")) / 86_400.0;
    assert!((89.0..91.0).contains(&days) && ends("ca") > ends("server"), "{days}");
    // Nobody notices when the first one goes: the session that began with it lives on by the second.
    let request = v1::RevokeCredentialsRequest { credential: first.id, ..Default::default() };
    assert_eq!(client.revoke_credentials(request).await.unwrap().credentials.len(), 1);
    tokio::time::sleep(LeaseTerms::default().ttl + Duration::from_secs(2)).await;
    assert_eq!(live().await, session);
    let left = certificates().await;
    assert_eq!(left.len(), 1, "it asks for more than it needs: {left:?}");
    reader.stop().await;
    plane.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn up_beyond_this_machine_serves_over_tls_and_its_commands_find_it() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let args = ["--data", data.to_str().unwrap(), "up", "--listen", "0.0.0.0:0", "--tls-name", "cp.example.org"];
    let mut up = Process::start("postroom", folder.path(), "up.log", &args);
    up.says("postroom is up at https://127.0.0.1:").await;
    let context = Context::read(&data).unwrap();
    assert_eq!(context.ca_file.as_deref(), Some(data.join("ca.pem").as_path()));
    postroom(&data, &["status"]);
    let client = Client::new(&context, false).unwrap();
    eventually("its own worker is there", || async { client.list_workers().await.unwrap().workers.len() == 1 }).await;

    // Elsewhere: with a token of its own, and the CA. Without the CA nothing is sent.
    let token = folder.path().join("ada.token");
    let made = postroom(&data, &["token", "create", "--name", "ada", "--role", "viewer"]);
    std::fs::write(&token, made).unwrap();
    let port = context.endpoint.rsplit(':').next().unwrap();
    let (endpoint, token) = (format!("https://localhost:{port}"), token.to_str().unwrap());
    let ca = data.join("ca.pem");
    let calling = ["--endpoint", &endpoint, "--token-file", token, "instance", "list"];
    let trusted = run("postroom", &[&calling[..], &["--ca-file", ca.to_str().unwrap()]].concat(), &[]);
    assert_eq!(trusted.status.code(), Some(0), "{trusted:?}");
    let stranger = run("postroom", &calling, &[]);
    assert!(String::from_utf8_lossy(&stranger.stderr).contains("is not trusted"), "{stranger:?}");
    let plain = run("postroom", &["--endpoint", "http://192.0.2.1:1", "--token-file", token, "instance", "list"], &[]);
    assert_eq!(plain.status.code(), Some(2), "{plain:?}");
    assert!(String::from_utf8_lossy(&plain.stderr).contains("--insecure"), "{plain:?}");

    up.signal("HUP");
    tokio::time::sleep(Duration::from_millis(300)).await;
    postroom(&data, &["status"]);
    up.terminate();
    assert_eq!(up.ended().await.code(), Some(0), "{}", up.log());
}

#[test]
fn a_name_is_refused_that_no_certificate_could_have_and_where_none_is_served() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let up = |args: &[&str]| {
        let refused = run("postroom", &[&["--data", data.to_str().unwrap(), "up", "--tls-name"], args].concat(), &[]);
        assert_eq!(refused.status.code(), Some(2), "{refused:?}");
        String::from_utf8(refused.stderr).unwrap()
    };
    let told = up(&["a b", "--listen", "0.0.0.0:0"]);
    assert!(told.contains("neither a host name nor an address"), "{told}");
    let told = up(&["cp.example.org", "--listen", "127.0.0.1:0"]);
    assert!(told.contains("on this machine alone it is plaintext"), "{told}");
    let told = up(&["cp.example.org", "--listen", "0.0.0.0:0", "--insecure"]);
    assert!(told.contains("--insecure asks for plaintext"), "{told}");
    assert!(!data.exists(), "something was begun");
}

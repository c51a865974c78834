//! Stopping by SIGTERM, and starting before the control plane.

use crate::control_plane::ControlPlane;
use crate::harness::{SERVICE, Stage, USER, assert_each_once, contacts, eventually};
use crate::process::{Process, free_address};

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_told_to_stop_lets_its_mailboxes_go_and_says_goodbye() {
    let stage = Stage::set().await;
    // Longer than anybody waits here: only a goodbye can let another worker take over.
    let plane = ControlPlane::start(&stage, "127.0.0.1:0", "1h").await;
    plane.apply(&stage.model(&stage.secret())).await;
    let mut first = plane.worker("first", &["--returning=false"]);
    plane.read_by("first").await;
    stage.deliver(SERVICE, "a", 5).await;
    let client = plane.client();
    eventually("the first worker reads", || async { contacts(&client).await.len() == 5 }).await;

    let mut second = plane.worker("second", &["--log-format=json"]);
    second.says("registered").await;
    first.terminate();
    assert_eq!(first.ended().await.code(), Some(0), "{}", first.log());
    plane.read_by("second").await;
    stage.deliver(USER, "b", 5).await;
    eventually("the second worker reads", || async { contacts(&client).await.len() == 10 }).await;
    assert_each_once(&contacts(&client).await, &["a", "b"], 5);
    let workers = client.get_status().await.unwrap().workers;
    assert_eq!(workers.iter().map(|it| it.worker.as_str()).collect::<Vec<_>>(), ["second"]);

    second.terminate();
    assert_eq!(second.ended().await.code(), Some(0), "{}", second.log());
    for line in second.log().lines() {
        assert!(serde_json::from_str::<serde_json::Value>(line).is_ok_and(|it| it["level"].is_string()), "{line}");
    }
    let ControlPlane { mut process, .. } = plane;
    process.terminate();
    assert_eq!(process.ended().await.code(), Some(0), "{}", process.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_waits_for_its_control_plane_and_says_so() {
    let stage = Stage::set().await;
    let address = free_address();
    let plane = ControlPlane::start(&stage, &address, "10s").await;
    plane.apply(&stage.model(&stage.secret())).await;
    let ControlPlane { mut process, .. } = plane;
    process.terminate();
    assert!(process.ended().await.success());

    let endpoint = format!("http://{address}");
    // The first address leads nowhere; the second will.
    let endpoints = format!("http://{},{endpoint}", free_address());
    let token = stage.data().join("worker.token");
    let args = ["--control-plane", &endpoints, "--token-file", token.to_str().unwrap(), "--name", "early"];
    let mut worker = Process::start("postroom-worker", stage.folder.path(), "early.log", &args);
    worker.says("this worker is not registered yet").await;
    let plane = ControlPlane::start(&stage, &address, "10s").await;
    plane.read_by("early").await;
    worker.terminate();
    assert_eq!(worker.ended().await.code(), Some(0), "{}", worker.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_the_control_plane_moves_no_mailbox() {
    let stage = Stage::set().await;
    let address = free_address();
    let plane = ControlPlane::start(&stage, &address, "20s").await;
    plane.apply(&stage.model(&stage.secret())).await;
    let worker = plane.worker("steady", &[]);
    let before = plane.read_by("steady").await;
    let sign_ins = stage.testbed.tenant.sign_ins(&stage.testbed.service().client_id);
    let ControlPlane { process, .. } = plane;
    process.kill();

    let plane = ControlPlane::start(&stage, &address, "20s").await;
    stage.deliver(SERVICE, "a", 3).await;
    let client = plane.client();
    eventually("mail flows again", || async { contacts(&client).await.len() == 3 }).await;
    let holders = |mailboxes: Vec<postroom_proto::v1::Mailbox>| {
        let held = mailboxes.into_iter().map(|it| (it.email, it.holder.map(|holder| (holder.session, holder.epoch))));
        held.collect::<Vec<_>>()
    };
    assert_eq!(holders(plane.read_by("steady").await), holders(before), "{}", worker.log());
    assert_eq!(stage.testbed.tenant.sign_ins(&stage.testbed.service().client_id).issued, sign_ins.issued);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_a_worker_that_still_waits_for_its_goodbye() {
    let stage = Stage::set().await;
    let plane = ControlPlane::start(&stage, "127.0.0.1:0", "5s").await;
    let mut worker = plane.worker("patient", &[]);
    worker.says("registered").await;
    // It takes the goodbye and never answers.
    plane.process.signal("STOP");
    worker.terminate();
    worker.says("stopping").await;
    worker.signal("INT");
    assert_eq!(worker.ended().await.code(), Some(130), "{}", worker.log());
}

//! A mail server that answers nobody holds up its own mailboxes only.

use tokio::net::TcpListener;

use crate::control_plane::ControlPlane;
use crate::harness::{SERVICE, Stage, contacts, eventually, mailbox};
use postroom_proto::v1::MailboxState;

/// More than may connect to one host at once, and more than the worker's burst.
const DEAD: usize = 80;

#[tokio::test(flavor = "multi_thread")]
async fn mailboxes_of_a_host_that_answers_nobody_do_not_hold_up_those_of_another() {
    let stage = Stage::set().await;
    stage.deliver(SERVICE, "a", 3).await;
    // It takes connections and says nothing, not even TLS.
    let silent = TcpListener::bind("127.0.0.2:0").await.unwrap();
    let port = silent.local_addr().unwrap().port();
    let model = stage.model(&stage.secret());
    let (head, queues) = model.split_once("queues:").unwrap();
    let ca = serde_json::json!(stage.testbed.ca_file());
    let (service, secret) = (&stage.testbed.service().client_id, serde_json::json!(stage.secret()));
    let authority = stage.testbed.tenant.authority();
    let dead = format!(
        "  - {{name: Dead, address: {authority:?}, authentication: oauth-service, clientId: {service},
     secret: {{value: {secret}}}, imap: {{host: 127.0.0.2, port: {port}}}, caFile: {ca}}}\n"
    );
    let rows: String =
        (0..DEAD).map(|it| format!("      - {{email: dead-{it}@contoso.example, server: Dead}}\n")).collect();
    let dead_queue = format!("\n  - name: Dead\n    instance: core1\n    addresses:\n{rows}");
    let plane = ControlPlane::start(&stage, "127.0.0.1:0", "5s").await;
    plane.apply(&format!("{head}{dead}queues:{dead_queue}")).await;
    let worker =
        plane.worker("one", &["--reading-connect-timeout=10m", "--start-per-tenant=1000", "--start-spread=0s"]);
    let client = plane.client();
    let connecting = async || {
        let mailboxes = client.list_mailboxes().await.unwrap().mailboxes;
        mailboxes.iter().filter(|it| it.state() == MailboxState::Connecting).count()
    };
    eventually("the dead ones are on their way", || async { connecting().await == DEAD }).await;
    plane.apply(&format!("{head}{dead}queues:{}{dead_queue}", queues.trim_end())).await;
    eventually("the others are read", || async {
        mailbox(&client, SERVICE).await.state() == MailboxState::Idle && contacts(&client).await.len() == 3
    })
    .await;
    assert_eq!(connecting().await, DEAD, "{}", worker.log());
    eventually("it is told what they wait for, and for how long at most", || async {
        let mailboxes = client.list_mailboxes().await.unwrap().mailboxes;
        let told = mailboxes.into_iter().filter_map(|it| it.activity);
        let waits = told.filter(|it| it.doing.starts_with("waits for its turn") && it.until_time.is_some());
        waits.count() >= DEAD - 10
    })
    .await;
}

//! One token serves all mailboxes of an app.

use crate::control_plane::ControlPlane;
use crate::harness::{Stage, contacts, eventually};

const MAILBOXES: usize = 50;

#[tokio::test(flavor = "multi_thread")]
async fn fifty_mailboxes_of_one_app_are_one_request_for_a_token() {
    let stage = Stage::set().await;
    let address = |number: usize| format!("box-{number}@contoso.example");
    for number in 0..MAILBOXES {
        stage.deliver(&address(number), &format!("mail-{number}"), 1).await;
    }
    let model = stage.model(&stage.secret());
    let (head, _) = model.split_once("queues:").unwrap();
    let server = serde_json::json!(crate::harness::SERVER);
    let rows: String =
        (0..MAILBOXES).map(|number| format!("      - {{email: {}, server: {server}}}\n", address(number))).collect();
    let plane = ControlPlane::start(&stage, "127.0.0.1:0", "5s").await;
    plane.apply(&format!("{head}queues:\n  - name: Many\n    instance: core1\n    addresses:\n{rows}")).await;
    let _worker = plane.worker("one", &[]);
    assert_eq!(plane.read_by("one").await.len(), MAILBOXES);
    let client = plane.client();
    eventually("one contact a mailbox", || async { contacts(&client).await.len() == MAILBOXES }).await;
    let asked = stage.testbed.tenant.sign_ins(&stage.testbed.service().client_id);
    assert_eq!((asked.issued, asked.refused), (1, 0));
}

//! What is deleted after intake: contacts, once their time has come, and nothing else.

use postroom_proto::v1::reconcile_mailbox_response::Told;
use postroom_proto::v1::{self, FindingKind};
use postroom_testbed::mail::Mail;

use crate::control_plane::ControlPlane;
use crate::harness::{SERVICE, Stage, contacts, eventually, mailbox};

/// The stage's model whose first queue deletes so long after intake.
fn model(stage: &Stage, keep: &str) -> String {
    let queue = format!("    instance: core1\n    maxMessageBytes: 20000\n    afterIntake: delete:{keep}\n");
    stage.model(&stage.secret()).replacen("    instance: core1\n", &queue, 1)
}

async fn subjects(stage: &Stage) -> Vec<String> {
    let mut found: Vec<String> =
        stage.testbed.dovecot.messages(SERVICE, "INBOX").await.unwrap().into_iter().map(|it| it.subject).collect();
    found.sort();
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn contacts_are_deleted_once_their_time_has_come_and_nothing_else_is() {
    let stage = Stage::set().await;
    let dovecot = &stage.testbed.dovecot;
    // Left by the start policy, and marked as deleted by somebody else, who alone may expunge it.
    stage.deliver(SERVICE, "old", 2).await;
    dovecot.doveadm(&["flags", "add", "-u", SERVICE, "\\Seen", "mailbox", "INBOX", "all"]).await.unwrap();
    dovecot
        .doveadm(&["flags", "add", "-u", SERVICE, "\\Deleted", "mailbox", "INBOX", "subject", "old-1"])
        .await
        .unwrap();
    let plane = ControlPlane::start(&stage, "127.0.0.1:0", "5s").await;
    plane.apply(&model(&stage, "1h")).await;
    let worker = plane.worker("one", &["--reading-poll=1s"]);
    let client = plane.client();
    eventually("the mailbox is read", || async { mailbox(&client, SERVICE).await.state() == v1::MailboxState::Idle })
        .await;
    stage.deliver(SERVICE, "a", 3).await;
    stage.testbed.fill(SERVICE, &[Mail::to(SERVICE).subject("large").size(200_000).build()]).await.unwrap();
    eventually("all are in the ledger", || async { mailbox(&client, SERVICE).await.message_count == 4 }).await;
    eventually("they are marked as read", || async {
        let stored = dovecot.messages(SERVICE, "INBOX").await.unwrap();
        stored.iter().filter(|message| message.subject.starts_with("a-")).all(|message| message.is_seen())
    })
    .await;
    assert_eq!(subjects(&stage).await, ["a-0", "a-1", "a-2", "large", "old-0", "old-1"], "their time has not come");

    // Nobody remembers but the ledger.
    worker.kill();
    plane.apply(&model(&stage, "1s")).await;
    let _worker = plane.worker("two", &["--reading-poll=1s"]);
    eventually("they are deleted", || async { subjects(&stage).await == ["large", "old-0", "old-1"] }).await;
    stage.deliver(SERVICE, "b", 2).await;
    eventually("new mail is taken", || async { contacts(&client).await.contains_key("b-1") }).await;
    eventually("and deleted", || async { subjects(&stage).await == ["large", "old-0", "old-1"] }).await;
    assert!(contacts(&client).await.values().eq([&1; 5]), "each is a contact once");

    let settled = async || {
        let request = v1::ListMessagesRequest { mailbox: SERVICE.into(), ..Default::default() };
        client.list_messages(request, u32::MAX).await.unwrap().messages.iter().all(|message| message.settled)
    };
    eventually("the ledger has heard of it", settled).await;
    let mut told = client.reconcile_mailbox(SERVICE.into(), true).await.unwrap();
    let mut gone = Vec::new();
    while let Some(item) = told.next().await.unwrap() {
        match item.told.unwrap() {
            Told::Progress(_) => {}
            Told::Finding(finding) => gone.push(finding.kind()),
            Told::Summary(summary) => assert!(summary.clean && summary.gone_count == 0, "{summary:?}"),
        }
    }
    assert_eq!(gone.iter().filter(|kind| **kind == FindingKind::Moved).count(), 5, "{gone:?}");
}

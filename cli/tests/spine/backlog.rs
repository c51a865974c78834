//! A mailbox that is read for the first time with much in it: the old messages wait for an operator, new mail does not, and
//! every one of them becomes one contact, or is left as the operator said.

use std::time::Duration;

use postroom_proto::v1::{self, BacklogState, MailboxState};
use postroom_testbed::imap;
use postroom_testbed::mail::Mail;
use tokio::time::sleep;

use crate::harness::{SERVICE, Stage, Up, contacts, eventually, mailbox};

const GUARDED: &str = "    instance: core1\n    backlogGuard: 20\n";

async fn guarded() -> Stage {
    let stage = Stage::set().await;
    let model = std::fs::read_to_string(stage.model_file()).unwrap();
    std::fs::write(stage.model_file(), model.replacen("    instance: core1\n", GUARDED, 1)).unwrap();
    stage
}

async fn fill(stage: &Stage, tag: &str, count: usize) {
    let mails: Vec<Vec<u8>> =
        (0..count).map(|number| Mail::to(SERVICE).subject(&format!("{tag}-{number}")).build()).collect();
    stage.testbed.fill(SERVICE, &mails).await.unwrap();
}

/// How many contacts there are of this tag; none of them twice.
async fn taken(up: &Up, tag: &str) -> usize {
    let found = contacts(&up.client()).await;
    assert!(found.values().all(|times| *times == 1), "{found:?}");
    found.keys().filter(|subject| subject.starts_with(tag)).count()
}

/// `mailbox backlog` as a person would, and what it prints.
fn backlog(up: &Up, words: &[&str]) -> String {
    let done = up.postroom(&[&["mailbox", "backlog"], words].concat());
    assert!(done.status.success(), "{done:?}");
    String::from_utf8(done.stdout).unwrap()
}

async fn state(up: &Up) -> (MailboxState, v1::Backlog) {
    let shown = mailbox(&up.client(), SERVICE).await;
    (shown.state(), shown.backlog.unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_there_waits_for_an_operator_and_is_taken_once_or_left_as_was_said() {
    let stage = guarded().await;
    fill(&stage, "old", 20).await;
    // A server tells times in whole seconds.
    sleep(Duration::from_millis(1100)).await;
    let since = jiff::Timestamp::now().round(jiff::Unit::Second).unwrap();
    sleep(Duration::from_millis(1100)).await;
    fill(&stage, "late", 40).await;

    let up = stage.up().await;
    eventually("it holds", || async { state(&up).await.0 == MailboxState::Backlog }).await;
    let held = state(&up).await.1;
    assert_eq!((held.state(), held.message_count, held.taken_count), (BacklogState::Waiting, 60, 0));
    let listed = up.postroom(&["mailbox", "list"]);
    let listed = String::from_utf8(listed.stdout).unwrap();
    assert!(listed.contains("60 of 60 messages") && listed.contains("mailbox backlog approve"), "{listed}");
    let status = up.postroom(&["status", "--check"]);
    assert_eq!(status.status.code(), Some(9), "it needs a person: {status:?}");
    stage.deliver(SERVICE, "new", 2).await;
    eventually("new mail is read", || async { taken(&up, "new").await == 2 }).await;

    // Another process holds them just so.
    up.kill();
    let up = stage.up().await;
    stage.deliver(SERVICE, "newer", 1).await;
    eventually("new mail is read", || async { taken(&up, "newer").await == 1 }).await;
    eventually("it holds", || async { state(&up).await.0 == MailboxState::Backlog }).await;
    assert_eq!((taken(&up, "old").await, taken(&up, "late").await), (0, 0));
    let reconciled = up.postroom(&["mailbox", "reconcile", SERVICE]);
    assert_eq!(reconciled.status.code(), Some(0), "what waits is not missing: {reconciled:?}");

    // One every two seconds.
    let shown = backlog(&up, &["approve", SERVICE, "--since", &since.to_string(), "--rate", "30"]);
    assert!(shown.contains("releasing") && shown.contains("30 a minute"), "{shown}");
    eventually("the first ones come", || async { taken(&up, "late").await > 0 }).await;
    let shown = backlog(&up, &["stop", SERVICE]);
    let count = taken(&up, "late").await;
    assert!(shown.contains("stopped") && count < 40, "{count}: {shown}");
    eventually("it holds again", || async { state(&up).await.0 == MailboxState::Backlog }).await;
    let held = state(&up).await.1;
    assert_eq!((held.taken_count, held.left_count, taken(&up, "late").await), (count as u64, 20, count), "{held:?}");

    backlog(&up, &["approve", SERVICE]);
    eventually("the rest comes", || async { taken(&up, "late").await == 40 }).await;
    eventually("it is read", || async { state(&up).await == (MailboxState::Idle, v1::Backlog::default()) }).await;
    assert_eq!(taken(&up, "old").await, 0, "they were left");
    let shown = backlog(&up, &["show", SERVICE]);
    assert!(shown.contains("finished") && shown.contains("approved by admin"), "{shown}");
    let again = up.postroom(&["mailbox", "backlog", "approve", SERVICE]);
    assert!(!again.status.success() && String::from_utf8_lossy(&again.stderr).contains("waits any more"), "{again:?}");
    let unseen = stage.testbed.dovecot.count_unseen(SERVICE, "INBOX").await.unwrap();
    assert_eq!(unseen, 20, "what was left is as it was");
    let reconciled = up.postroom(&["mailbox", "reconcile", SERVICE]);
    assert_eq!(reconciled.status.code(), Some(0), "what was left is not missing: {reconciled:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_is_numbered_anew_while_old_messages_wait_is_read_on_at_an_operators_word() {
    let stage = guarded().await;
    let dovecot = &stage.testbed.dovecot;
    let mut client = imap::Client::connect(dovecot.imap_addr(), dovecot.authority()).await.unwrap();
    client.sign_in_with_password(SERVICE, dovecot.password()).await.unwrap();
    for number in 0..3 {
        let mail = Mail::to(SERVICE).subject(&format!("ancient-{number}")).build();
        client.append("INBOX \"01-Jan-2024 10:00:00 +0000\"", [mail.as_slice()]).await.unwrap();
    }
    fill(&stage, "old", 25).await;
    let up = stage.up().await;
    eventually("it holds", || async { state(&up).await.0 == MailboxState::Backlog }).await;
    stage.deliver(SERVICE, "new", 2).await;
    eventually("new mail is read", || async { taken(&up, "new").await == 2 }).await;

    dovecot.number_folder(SERVICE, "INBOX", 4711).await.unwrap();
    stage.deliver(SERVICE, "newer", 1).await;
    eventually("it asks for a word", || async {
        let problem = mailbox(&up.client(), SERVICE).await.problem;
        problem.is_some_and(|problem| problem.code == "RENUMBERED_WHILE_WAITING")
    })
    .await;
    assert_eq!(taken(&up, "old").await, 0, "nobody is flooded");

    // At a rate it would not be what was said.
    backlog(&up, &["approve", SERVICE, "--rate", "10"]);
    backlog(&up, &["approve", SERVICE, "--since", "2026-01-31"]);
    eventually("all is read", || async { taken(&up, "old").await == 25 && taken(&up, "newer").await == 1 }).await;
    eventually("nothing waits", || async { state(&up).await == (MailboxState::Idle, v1::Backlog::default()) }).await;
    assert_eq!((taken(&up, "new").await, taken(&up, "ancient").await), (3, 0), "what is older is left");
    let reconciled = up.postroom(&["mailbox", "reconcile", SERVICE]);
    assert_eq!(reconciled.status.code(), Some(0), "{reconciled:?}");
}

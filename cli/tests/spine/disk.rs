//! A full disk: what cannot be stored is not settled, the operator is told, and with space it goes on by itself.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use postroom_testbed::mail::Mail;

use crate::harness::{SERVICE, Stage, USER, Up, contacts, eventually, mailbox};

/// Fills a file system to its last byte; removing the file gives the space back.
fn fill(folder: &Path) -> PathBuf {
    let path = folder.join("filler");
    let mut file = std::fs::File::create(&path).unwrap();
    let piece = vec![0; 4096];
    while file.write_all(&piece).is_ok() {}
    path
}

async fn shows(up: &Up, email: &str, code: &str) {
    let client = up.client();
    eventually(&format!("{email} shows {code}"), || async {
        mailbox(&client, email).await.problem.is_some_and(|problem| problem.code == code)
    })
    .await;
    let shown = up.postroom(&["mailbox", "show", email]);
    assert!(String::from_utf8(shown.stdout).unwrap().contains("free space"), "the remedy is shown");
    let checked = up.postroom(&["mailbox", "check", email]);
    let told = String::from_utf8(checked.stdout).unwrap();
    assert!(checked.status.code() == Some(9) && told.contains(code), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_ledger_settles_nothing_and_goes_on_with_space() {
    let stage = Stage::set().await;
    let up = stage.up_on(&stage.data(), "128m").await;
    let disk = up.data().to_owned();
    stage.deliver(SERVICE, "before", 1).await;
    let client = up.client();
    eventually("it works", || async { contacts(&client).await.contains_key("before-0") }).await;
    let filler = fill(&disk);
    // More than the log of the database has room for in what it already takes up.
    for number in 0..40 {
        let mail = Mail::to(SERVICE).subject(&format!("large-{number}")).size(300_000);
        stage.testbed.deliver(&mail).await.unwrap();
    }
    shows(&up, SERVICE, "STORAGE_FAILED").await;
    let stored = contacts(&client).await.len();
    let settled = 41 - stage.testbed.dovecot.count_unseen(SERVICE, "INBOX").await.unwrap();
    assert!(stored < 41 && settled <= stored, "{settled} are settled and {stored} stored");
    std::fs::remove_file(filler).unwrap();
    eventually("everything is read", || async { contacts(&client).await.len() == 41 }).await;
    eventually("and settled", || async { stage.unseen().await == 0 }).await;
    assert!(contacts(&client).await.values().all(|times| *times == 1));
    eventually("the problem is gone", || async { mailbox(&client, SERVICE).await.problem.is_none() }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_blob_folder_holds_up_large_messages_of_its_mailbox_only() {
    let stage = Stage::set().await;
    let up = stage.up_on(&stage.data().join("blobs"), "8m").await;
    let filler = fill(&up.data().join("blobs"));
    stage.testbed.deliver(&Mail::to(SERVICE).subject("large-0").size(3_000_000)).await.unwrap();
    shows(&up, SERVICE, "STORAGE_FAILED").await;
    let client = up.client();
    stage.deliver(USER, "other", 1).await;
    eventually("the other goes on", || async { contacts(&client).await.contains_key("other-0") }).await;
    assert_eq!(stage.testbed.dovecot.count_unseen(SERVICE, "INBOX").await.unwrap(), 1, "nothing was settled");
    std::fs::remove_file(filler).unwrap();
    eventually("the large one is read", || async { contacts(&client).await.get("large-0") == Some(&1) }).await;
    eventually("and settled", || async { stage.unseen().await == 0 }).await;
    eventually("the problem is gone", || async { mailbox(&client, SERVICE).await.problem.is_none() }).await;
}

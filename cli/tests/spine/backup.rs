//! A backup is made while mail comes in, the installation is lost with its disk, and another one goes on from the backup.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use postroom_cli::client::Client;
use postroom_proto::v1::{self, ContactState, MailboxState};
use postroom_testbed::mail::Mail;

use crate::harness::{
    SERVICE, Stage, USER, Up, accept, assert_each_once, contacts, eventually, is_elsewhere, mailbox, take,
};

/// A message with an attachment, too large to be kept in the ledger.
fn large() -> Mail {
    let attached = data_encoding::BASE64.encode(&vec![7; 3_000_000]);
    let lines: Vec<&str> = attached.as_bytes().chunks(76).map(|line| std::str::from_utf8(line).unwrap()).collect();
    let body = format!(
        "--b\nContent-Type: text/plain\n\nsee there\n--b\nContent-Type: application/octet-stream\n\
         Content-Disposition: attachment; filename=\"sevens.bin\"\nContent-Transfer-Encoding: base64\n\n{}\n--b--",
        lines.join("\n")
    );
    let mixed = "multipart/mixed; boundary=b";
    Mail::to(SERVICE).subject("large-0").header("MIME-Version", "1.0").header("Content-Type", mixed).body(&body)
}

fn postroom(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_postroom")).args(args).output().unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn succeeds(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    said
}

async fn is_read(up: &Up) {
    let client = up.client();
    eventually("both mailboxes are read", || async {
        let states = [mailbox(&client, SERVICE).await.state(), mailbox(&client, USER).await.state()];
        states == [MailboxState::Idle; 2]
    })
    .await;
}

/// Subjects of the accepted contacts.
async fn accepted(client: &Client) -> BTreeSet<String> {
    let listed = client
        .list_contacts(v1::ListContactsRequest { state: ContactState::Accepted.into(), ..Default::default() }, u32::MAX)
        .await
        .unwrap();
    listed.contacts.iter().map(subject).collect()
}

fn subject(contact: &v1::Contact) -> String {
    contact.content.clone().unwrap_or_default().subject
}

/// The raw message of the contact with this subject.
async fn raw(client: &Client, wanted: &str) -> Vec<u8> {
    let listed = client.list_contacts(v1::ListContactsRequest::default(), u32::MAX).await.unwrap();
    let contact = listed.contacts.into_iter().find(|contact| subject(contact) == wanted).unwrap();
    let mut stream = client.get_raw_message(contact.id).await.unwrap();
    let mut raw = Vec::new();
    while let Some(piece) = stream.next().await.unwrap() {
        raw.extend_from_slice(&piece.data);
    }
    raw
}

async fn backup(up: &Up, file: &Path) -> v1::Backup {
    let output = up.postroom(&["backup", "create", text(file), "-o", "json"]);
    assert!(succeeds(&output).contains("secret.key"), "it says what the key means: {output:?}");
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let count = |name: &str| told[name].as_str().map_or(0, |number| number.parse().unwrap());
    v1::Backup {
        message_count: count("messageCount"),
        contact_count: count("contactCount"),
        body_count: count("bodyCount"),
        ..Default::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_from_before_and_after_a_backup_is_there_after_a_restore_and_accepted_contacts_stay_accepted() {
    const STEADY: usize = 60;
    let stage = Stage::set().await;
    let up = stage.up().await;
    is_read(&up).await;
    let client = up.client();
    let large = large();
    stage.testbed.deliver_in_order(vec![large.delivery()]).await.unwrap();
    stage.deliver(SERVICE, "a", 20).await;
    stage.deliver(USER, "b", 20).await;
    eventually("the first of them", || async { contacts(&client).await.len() == 41 }).await;
    let before = take(&client, 12, Duration::ZERO).await;
    accept(&client, &before[..10]).await;
    let kept: BTreeSet<String> = before[..10].iter().map(subject).collect();

    // Mail comes in steadily, from before the backup until after it.
    let file = stage.folder.path().join("backup.tar.gz");
    let steady = async {
        for number in 0..STEADY {
            let to = [SERVICE, USER][number % 2];
            stage.testbed.deliver(&Mail::to(to).subject(&format!("steady-{number}"))).await.unwrap();
        }
    };
    let made = async {
        eventually("some of it", || async { contacts(&client).await.contains_key("steady-3") }).await;
        backup(&up, &file).await
    };
    let ((), made) = tokio::join!(steady, made);
    assert!(made.message_count >= 45 && made.body_count == 1, "{made:?}");
    stage.deliver(SERVICE, "late", 10).await;
    eventually("all of it", || async { contacts(&client).await.len() == 51 + STEADY }).await;
    let after = take(&client, 5, Duration::ZERO).await;
    accept(&client, &after).await;
    // Another backup has no business there, and this one stays.
    let refused = up.postroom(&["backup", "create", text(&file)]);
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    let key = std::fs::read(stage.data().join("secret.key")).unwrap();
    up.kill();
    std::fs::remove_dir_all(stage.data()).unwrap();

    let (key_file, other) = (stage.folder.path().join("kept.key"), stage.folder.path().join("other"));
    std::fs::write(&key_file, key).unwrap();
    succeeds(&postroom(&["backup", "verify", text(&file)]));
    let restored = postroom(&["backup", "restore", text(&file), "--data", text(&other), "--key-file", text(&key_file)]);
    let said = succeeds(&restored);
    assert!(said.contains("becomes contacts") && said.contains("postroom up --data"), "{said}");
    let again = postroom(&["backup", "restore", text(&file), "--data", text(&other)]);
    assert_eq!(again.status.code(), Some(2), "it is not empty any more: {again:?}");

    // Without the model file: definitions and secrets come out of the backup.
    let up = stage.up_in(&other, None).await;
    up.adopt_store();
    let client = up.client();
    assert_eq!(accepted(&client).await, kept, "as of the backup");
    eventually("all of it again", || async { contacts(&client).await.len() >= 51 + STEADY }).await;
    is_read(&up).await;
    let mut found = contacts(&client).await;
    assert_eq!(found.remove("large-0"), Some(1));
    let late = found.split_off("c");
    assert_each_once(&found, &["a", "b"], 20);
    let (late, steady): (_, std::collections::BTreeMap<_, _>) =
        late.into_iter().partition(|(subject, _)| subject.starts_with("late"));
    assert_each_once(&late, &["late"], 10);
    assert_each_once(&steady, &["steady"], STEADY);
    assert_eq!(accepted(&client).await, kept);

    // The ledger agrees with what lies in the mailboxes.
    for email in [SERVICE, USER] {
        let stored = stage.testbed.dovecot.count(email, "INBOX").await.unwrap() as u64;
        let known = mailbox(&client, email).await;
        assert_eq!((known.message_count, known.contact_count), (stored, stored), "{email}");
        // Clean, or the exit code says otherwise.
        succeeds(&up.postroom(&["mailbox", "reconcile", email]));
    }
    let sent = large.build();
    let came = raw(&client, "large-0").await;
    assert!(came.windows(1000).any(|part| part == &sent[sent.len() - 2000..sent.len() - 1000]), "{} bytes", came.len());
    assert!(came.len() >= sent.len());

    // And it goes on.
    stage.deliver(USER, "new", 1).await;
    eventually("new mail", || async { contacts(&client).await.contains_key("new-0") }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_key_everything_but_the_secrets_comes_back_and_applying_them_heals_it() {
    let stage = Stage::set().await;
    let up = stage.up().await;
    stage.deliver(SERVICE, "a", 3).await;
    let client = up.client();
    eventually("three contacts", || async { contacts(&client).await.len() == 3 }).await;
    let file = stage.folder.path().join("backup.tar.gz");
    backup(&up, &file).await;
    let with_key = stage.folder.path().join("with-key.tar.gz");
    let said = succeeds(&up.postroom(&["backup", "create", "--include-key", text(&with_key)]));
    assert!(said.contains("the key is in this backup"), "{said}");
    // The same through a pipe.
    let piped = up.postroom(&["backup", "create", "-"]);
    let through = stage.folder.path().join("piped.tar.gz");
    std::fs::write(&through, &piped.stdout).unwrap();
    succeeds(&postroom(&["backup", "verify", text(&through)]));
    up.kill();

    let whole = std::fs::read(&file).unwrap();
    let cut = stage.folder.path().join("cut.tar.gz");
    std::fs::write(&cut, &whole[..whole.len() / 2]).unwrap();
    let other = stage.folder.path().join("other");
    for verb in [&["backup", "verify", text(&cut)][..], &["backup", "restore", text(&cut), "--data", text(&other)]] {
        let refused = postroom(verb);
        assert_eq!(refused.status.code(), Some(4), "{refused:?}");
        assert!(String::from_utf8_lossy(&refused.stderr).contains("incomplete"), "{refused:?}");
    }
    let said = succeeds(&postroom(&["backup", "restore", text(&file), "--data", text(&other)]));
    assert!(said.contains("there is no key"), "{said}");
    let up = stage.up_in(&other, None).await;
    up.adopt_store();
    let client = up.client();
    assert_eq!(contacts(&client).await.len(), 3);
    eventually("the missing key is told", || async {
        mailbox(&client, SERVICE).await.problem.unwrap_or_default().remedy.contains("secret")
    })
    .await;
    up.apply(&stage, &stage.model(&stage.secret()));
    stage.deliver(SERVICE, "b", 1).await;
    eventually("it reads again", || async { contacts(&client).await.contains_key("b-0") }).await;
    up.kill();

    // With the key inside nothing else is needed. A store elsewhere keeps what was applied since, under another key, so
    // there the backup goes where nothing is yet.
    let other = if is_elsewhere() { stage.folder.path().join("third") } else { other };
    succeeds(&postroom(&["backup", "restore", text(&with_key), "--data", text(&other), "--force"]));
    let up = stage.up_in(&other, None).await;
    up.adopt_store();
    let client = up.client();
    eventually("what came since is read", || async { contacts(&client).await.contains_key("b-0") }).await;
    let mut found = contacts(&client).await;
    assert_eq!(found.remove("b-0"), Some(1));
    assert_each_once(&found, &["a"], 3);
}

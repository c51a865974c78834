//! Large messages in a bucket: they come back as they came, the folder has none of them, a bucket that is away holds up
//! large messages of its mailbox only, and a backup has them all.

use std::path::Path;
use std::process::Command;

use postroom_testbed::bucket::{BUCKET, Bucket, Fault};
use postroom_testbed::link::Link;
use postroom_testbed::mail::Mail;

use crate::harness::{SERVICE, Stage, USER, Up, contacts, eventually, mailbox};

/// Flags that name the bucket at this server.
fn flags(stage: &Stage, bucket: &Bucket, endpoint: &str) -> Vec<String> {
    let secret = stage.folder.path().join("s3.secret");
    std::fs::write(&secret, format!("{}\n", bucket.secret_key())).unwrap();
    let flag = |name: &str, value: &str| format!("--blobs-{name}={value}");
    vec![
        flag("url", &format!("s3://{BUCKET}/post")),
        flag("endpoint", endpoint),
        flag("access-key", bucket.access_key()),
        flag("secret-key-file", secret.to_str().unwrap()),
    ]
}

async fn up(stage: &Stage, flags: &[String]) -> Up {
    stage.up_with(&flags.iter().map(String::as_str).collect::<Vec<_>>()).await
}

fn large(to: &str, subject: &str, bytes: usize) -> Mail {
    Mail::to(to).subject(subject).message_id(&format!("{subject}@customer.example")).size(bytes)
}

/// The raw message of the contact with this subject, as the command gives it.
async fn raw(up: &Up, subject: &str) -> Vec<u8> {
    let listed = up.client().list_contacts(postroom_proto::v1::ListContactsRequest::default(), u32::MAX).await.unwrap();
    let of = |it: &&postroom_proto::v1::Contact| it.content.as_ref().is_some_and(|content| content.subject == subject);
    let id = listed.contacts.iter().find(of).expect("a contact").id.clone();
    let output = up.postroom(&["contact", "raw", &id]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// Files below a folder.
fn files(folder: &Path) -> usize {
    let Ok(entries) = folder.read_dir() else { return 0 };
    entries.flatten().map(|entry| if entry.path().is_dir() { files(&entry.path()) } else { 1 }).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_message_lies_in_the_bucket_and_comes_back_as_it_came() {
    let (stage, bucket) = (Stage::set().await, Bucket::start().await.unwrap());
    let flags = flags(&stage, &bucket, &bucket.endpoint());
    let up = up(&stage, &flags).await;
    let mail = large(SERVICE, "film", 20_000_000);
    // What a server that speaks S3 asks for now and then.
    bucket.fail(2, "PUT", Fault::SlowDown);
    stage.testbed.deliver(&mail).await.unwrap();
    let client = up.client();
    eventually("it is a contact", || async { contacts(&client).await.get("film") == Some(&1) }).await;
    let came = raw(&up, "film").await;
    // The server put its own lines before it.
    assert!(came.len() >= 20_000_000 && came.ends_with(&mail.build()), "{} bytes came back", came.len());
    assert_eq!(files(&up.data().join("blobs")), 0, "nothing of it is in the folder");
    let parts = bucket.requests().iter().filter(|it| it.starts_with("PUT") && it.contains("partNumber=")).count();
    assert!(parts >= 4, "it went in parts: {:?}", bucket.requests());

    // A backup has it, whatever becomes of the bucket, and a restored installation reads it from its folder.
    let archive = stage.folder.path().join("backup.tar.gz");
    let made = up.postroom(&["backup", "create", archive.to_str().unwrap()]);
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let key = up.data().join("secret.key");
    let restored = stage.folder.path().join("restored");
    let done = up.postroom(&[
        "backup",
        "restore",
        archive.to_str().unwrap(),
        "--data",
        restored.to_str().unwrap(),
        "--key-file",
        key.to_str().unwrap(),
    ]);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    up.kill();
    drop(bucket);
    assert_eq!(files(&restored.join("blobs")), 1);
    let again = stage.up_in(&restored, None).await;
    assert!(raw(&again, "film").await == came, "it is in the backup as it came");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_goes_away_holds_up_large_messages_of_its_mailbox_only() {
    let (stage, bucket) = (Stage::set().await, Bucket::start().await.unwrap());
    let link = Link::start(bucket.addr()).await.unwrap();
    let up = up(&stage, &flags(&stage, &bucket, &format!("http://{}", link.addr()))).await;
    let client = up.client();
    link.set_refusing(true);
    stage.testbed.deliver(&large(SERVICE, "large", 3_000_000)).await.unwrap();
    eventually("the operator is told", || async {
        mailbox(&client, SERVICE).await.problem.is_some_and(|problem| {
            problem.code == "STORAGE_FAILED" && problem.cause.contains(BUCKET) && problem.remedy.contains("bucket")
        })
    })
    .await;
    stage.deliver(USER, "other", 1).await;
    eventually("the other goes on", || async { contacts(&client).await.contains_key("other-0") }).await;
    assert_eq!(stage.testbed.dovecot.count_unseen(SERVICE, "INBOX").await.unwrap(), 1, "nothing was settled");
    link.heal();
    eventually("the large one is read", || async { contacts(&client).await.get("large") == Some(&1) }).await;
    eventually("and settled", || async { stage.unseen().await == 0 }).await;
    eventually("the problem is gone", || async { mailbox(&client, SERVICE).await.problem.is_none() }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_installation_does_not_start_with_a_bucket_that_somebody_has_to_mend() {
    let (stage, bucket) = (Stage::set().await, Bucket::start().await.unwrap());
    let tried = |flag: &str, value: &str| {
        let begin = format!("--blobs-{flag}=");
        let mut flags = flags(&stage, &bucket, &bucket.endpoint());
        flags.retain(|it| !it.starts_with(&begin));
        flags.push(format!("{begin}{value}"));
        let output = Command::new(env!("CARGO_BIN_EXE_postroom"))
            .args(["up", "--listen", "127.0.0.1:0", "--data"])
            .arg(stage.data())
            .args(flags)
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && !told.contains(bucket.secret_key()), "{told}");
        told.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let wrong = stage.folder.path().join("wrong.secret");
    std::fs::write(&wrong, "another-secret").unwrap();
    for (flag, value, words) in [
        ("url", "s3://nobodys-bucket", "there is no bucket nobodys-bucket"),
        ("url", "s3://Bucket", "is no name of a bucket"),
        ("access-key", "AKIANOBODY", "refuses access key AKIANOBODY"),
        ("secret-key-file", wrong.to_str().unwrap(), "see that its secret is right"),
        ("secret-key-file", "/nowhere", "the secret key of the bucket in /nowhere"),
        ("endpoint", "http://192.0.2.1:9000", "--blobs-insecure"),
    ] {
        let told = tried(flag, value);
        assert!(told.contains(words), "{words:?} is missing: {told}");
    }
}

//! Backups of a running control plane, and what a restored one does.

use std::path::Path;

use postroom_control_plane::app::{App, StartError};
use postroom_control_plane::backup::restoring::{self, Error, Keys, restore, verify};
use postroom_control_plane::backup::unpacking::Refused;
use postroom_control_plane::outbox::Terms;
use postroom_control_plane::{folder, ledger};
use postroom_proto::reason::Reason;
use postroom_proto::v1::backup_service_client::BackupServiceClient;
use postroom_proto::v1::create_backup_response::Event;
use postroom_proto::v1::{self, OutboxState, SendVerdict, open_outcome::Outcome, reported_message::Raw};
use secrecy::SecretString;
use sha2::{Digest as _, Sha256};

use crate::bench::{Bench, reason, settings};
use crate::outbox;

/// A backup, as its caller receives it.
async fn backup(bench: &Bench, include_key: bool) -> (Vec<u8>, v1::Backup) {
    let request = bench.as_admin(v1::CreateBackupRequest { include_key });
    let stream = BackupServiceClient::new(bench.channel.clone()).create_backup(request).await;
    let mut stream = stream.unwrap().into_inner();
    let (mut archive, mut whole) = (Vec::new(), None);
    while let Some(answer) = stream.message().await.unwrap() {
        assert!(whole.is_none(), "nothing comes behind the end");
        match answer.event.unwrap() {
            Event::Progress(progress) => assert!(progress.done_bytes <= progress.total_bytes, "{progress:?}"),
            Event::Chunk(chunk) => archive.extend(chunk),
            Event::Backup(backup) => whole = Some(backup),
        }
    }
    (archive, whole.unwrap())
}

async fn bring_back(archive: &[u8], data: &Path) -> Result<restoring::Restored, Error> {
    restore(std::io::Cursor::new(archive.to_vec()), data, None, false).await
}

fn digest(body: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(&Sha256::digest(body))
}

async fn upload(bench: &Bench, session: &str, offer: &v1::OfferedMailbox, body: &'static [u8]) -> Raw {
    let header = v1::BlobHeader {
        session: session.into(),
        mailbox: offer.mailbox.clone(),
        epoch: offer.epoch,
        generation: 1,
        digest: digest(body),
        size_bytes: body.len() as u64,
    };
    let parts = [v1::upload_blob_request::Part::Header(header), v1::upload_blob_request::Part::Chunk(body.into())];
    let requests = parts.map(|part| v1::UploadBlobRequest { part: Some(part) });
    bench.reports().upload_blob(bench.as_worker(futures::stream::iter(requests))).await.unwrap();
    Raw::RawDigest(digest(body))
}

fn body_file(data: &Path, body: &[u8]) -> std::path::PathBuf {
    let digest = digest(body);
    data.join("blobs").join(&digest[..2]).join(&digest[2..])
}

fn key_of(data: &Path) -> SecretString {
    std::fs::read_to_string(data.join(folder::KEY)).unwrap().into()
}

/// Names of what is in a folder.
fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_restored_installation_goes_on_where_the_backup_was_with_leases_above_every_fence() {
    let (data, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let bench = Bench::start(data.path()).await;
    let mut first = bench.register("first").await;
    let offer = first.offered().await;
    assert!(matches!(first.open(&offer.mailbox, offer.epoch).await, Outcome::Opened(_)));
    first.report(&first.batch(&offer, 0, 1)).await.unwrap();
    let mut large = first.batch(&offer, 1, 2);
    large.messages[0].raw = Some(upload(&bench, &first.id, &offer, b"a body of its own").await);
    first.report(&large).await.unwrap();
    // Under way, and named by no report: no part of a backup.
    upload(&bench, &first.id, &offer, b"a body that nobody names").await;

    let (archive, made) = backup(&bench, true).await;
    assert_eq!((made.message_count, made.contact_count, made.body_count, made.lost_body_count), (2, 2, 1, 0));
    assert!(made.key_included && made.body_bytes == 17, "{made:?}");
    assert!(!data.path().join("backup").exists(), "the copies are gone");
    assert_eq!(verify(std::io::Cursor::new(archive.clone()), other.path()).await.unwrap(), made);
    assert!(names(other.path()).is_empty(), "nothing stays of a verification");

    // The lost installation went on: another holder, a higher fence, another message. None of it comes back.
    first.report(&first.batch(&offer, 2, 3)).await.unwrap();
    let mut second = bench.register("second").await;
    second.heartbeat().await;
    first.leave().await;
    let moved = second.offered().await;
    assert!(matches!(second.open(&moved.mailbox, moved.epoch).await, Outcome::Opened(_)));
    bench.app.stop().await;

    let restored = bring_back(&archive, other.path()).await.unwrap();
    assert_eq!((restored.backup, restored.keys, restored.aside), (made, Keys::Included, None));
    let files = ["blobs", "ledger.db", "lock", "secret.key", "store.db"];
    assert_eq!(names(other.path()), files);
    assert_eq!(std::fs::read(body_file(other.path(), b"a body of its own")).unwrap(), b"a body of its own");
    assert!(!body_file(other.path(), b"a body that nobody names").exists());
    let highest = ledger::sqlite::copy::describe(&other.path().join(folder::LEDGER)).await.unwrap().highest_epoch;
    assert_eq!(highest, offer.epoch);

    let bench = Bench::start_restored(other.path()).await;
    assert_eq!(bench.contacts().await, 2);
    let mut again = bench.register("first").await;
    let offer = again.offered().await;
    let Outcome::Opened(opened) = again.open(&offer.mailbox, offer.epoch).await else { panic!("not opened") };
    let leased = (opened.generation, offer.epoch);
    assert!(leased > (1, highest), "{leased:?} after {highest}");
    assert_eq!(opened.cursor.unwrap().value, [2], "it reads on where the backup was");
    assert_eq!(opened.definition.unwrap().password, "planted", "with the key its secrets open");
    let batch = v1::ReportRequest { generation: leased.0, ..again.batch(&offer, 2, 3) };
    again.report(&batch).await.unwrap();
    assert_eq!(bench.contacts().await, 3);
    bench.app.stop().await;
}

#[tokio::test]
async fn without_its_key_file_nothing_opens_the_secrets() {
    let (data, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let bench = Bench::start(data.path()).await;
    let (archive, made) = backup(&bench, false).await;
    assert!(!made.key_included);
    bench.app.stop().await;
    assert!(archive.windows(20).all(|part| part != &key_of(data.path()).expose()[..20]), "no key is in it");

    assert_eq!(bring_back(&archive, &other.path().join("none")).await.unwrap().keys, Keys::None);
    let bench = Bench::start_restored(&other.path().join("none")).await;
    let mut worker = bench.register("worker").await;
    let offer = worker.offered().await;
    match worker.open(&offer.mailbox, offer.epoch).await {
        Outcome::Refused(refusal) => assert_eq!(refusal.reason, "SECRET_UNREADABLE"),
        Outcome::Opened(opened) => panic!("{:?}", opened.definition.is_some()),
    }
    bench.app.stop().await;

    let input = std::io::Cursor::new(archive.clone());
    let wrong = restore(input, &other.path().join("x"), Some(key_of(&other.path().join("none"))), false).await;
    assert!(matches!(&wrong, Err(Error::OtherKey { key_id }) if *key_id == made.key_id), "{wrong:?}");
    let input = std::io::Cursor::new(archive);
    let given = restore(input, &other.path().join("x"), Some(key_of(data.path())), false).await.unwrap();
    assert_eq!(given.keys, Keys::Given);
    let bench = Bench::start_restored(&other.path().join("x")).await;
    let mut worker = bench.register("worker").await;
    let offer = worker.offered().await;
    let Outcome::Opened(opened) = worker.open(&offer.mailbox, offer.epoch).await else { panic!("not opened") };
    assert_eq!(opened.definition.unwrap().password, "planted");
    bench.app.stop().await;
}

trait Expose {
    fn expose(&self) -> &[u8];
}

impl Expose for SecretString {
    fn expose(&self) -> &[u8] {
        secrecy::ExposeSecret::expose_secret(self).as_bytes()
    }
}

#[tokio::test]
async fn one_backup_is_made_at_a_time_and_one_that_nobody_waits_for_ends() {
    let data = tempfile::tempdir().unwrap();
    let bench = Bench::start(data.path()).await;
    let mut backups = BackupServiceClient::new(bench.channel.clone());
    let worker = backups.create_backup(bench.as_worker(v1::CreateBackupRequest::default())).await.unwrap_err();
    assert_eq!(reason(&worker), Reason::PermissionDenied);
    let first = backups.create_backup(bench.as_admin(v1::CreateBackupRequest::default())).await.unwrap();
    let second = backups.create_backup(bench.as_admin(v1::CreateBackupRequest::default())).await.unwrap_err();
    assert_eq!(reason(&second), Reason::TooMany);
    drop(first);
    let next = loop {
        match backups.create_backup(bench.as_admin(v1::CreateBackupRequest::default())).await {
            Ok(next) => break next,
            Err(status) => assert_eq!(reason(&status), Reason::TooMany),
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    };
    drop(next);
    bench.app.stop().await;
    // What a crash leaves behind is gone at the next start.
    std::fs::create_dir_all(data.path().join("backup")).unwrap();
    std::fs::write(data.path().join("backup/ledger.db"), "half").unwrap();
    let bench = Bench::start_undefined(data.path()).await;
    assert!(!data.path().join("backup").exists());
    bench.app.stop().await;
}

#[tokio::test]
async fn a_body_that_is_lost_or_damaged_is_told_and_all_else_comes_back() {
    let (data, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let bench = Bench::start(data.path()).await;
    let mut worker = bench.register("worker").await;
    let offer = worker.offered().await;
    assert!(matches!(worker.open(&offer.mailbox, offer.epoch).await, Outcome::Opened(_)));
    let bodies: [&[u8]; 3] = [b"good", b"lost", b"damaged"];
    for (number, body) in (0..).zip(bodies) {
        let mut batch = worker.batch(&offer, number, number + 1);
        batch.messages[0].raw = Some(upload(&bench, &worker.id, &offer, body).await);
        worker.report(&batch).await.unwrap();
    }
    std::fs::remove_file(body_file(data.path(), b"lost")).unwrap();
    std::fs::write(body_file(data.path(), b"damaged"), "damage").unwrap();
    let (archive, made) = backup(&bench, true).await;
    assert_eq!((made.contact_count, made.body_count, made.lost_body_count), (3, 2, 2));
    bench.app.stop().await;

    bring_back(&archive, other.path()).await.unwrap();
    assert_eq!(std::fs::read(body_file(other.path(), b"good")).unwrap(), b"good");
    assert!(!body_file(other.path(), b"damaged").exists());
    let bench = Bench::start_restored(other.path()).await;
    assert_eq!(bench.contacts().await, 3);
    bench.app.stop().await;
}

#[tokio::test]
async fn a_folder_is_restored_into_as_a_whole_or_not_at_all() {
    let (data, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let bench = Bench::start(data.path()).await;
    let (archive, _) = backup(&bench, true).await;
    let input = || std::io::Cursor::new(archive.clone());
    let in_use = bring_back(&archive, data.path()).await.unwrap_err();
    assert!(matches!(in_use, Error::Folder(folder::Error::InUse(_))), "{in_use}");
    bench.app.stop().await;

    let before = names(data.path());
    assert!(matches!(bring_back(&archive, data.path()).await, Err(Error::NotEmpty(_))));
    let half = std::io::Cursor::new(archive[..archive.len() / 2].to_vec());
    let half = restore(half, data.path(), None, true).await.unwrap_err();
    assert!(matches!(half, Error::Refused(Refused::Incomplete)), "{half}");
    assert_eq!(names(data.path()), before, "it is as it was");

    let forced = restore(input(), data.path(), None, true).await.unwrap();
    let aside = forced.aside.unwrap();
    let moved: Vec<_> = before.iter().filter(|name| *name != "lock").collect();
    assert_eq!(names(&aside).iter().collect::<Vec<_>>(), moved);

    // A disk has a folder of its own; a restore that was cut off leaves what `up` refuses and `force` mends.
    std::fs::create_dir(other.path().join("lost+found")).unwrap();
    bring_back(&archive, other.path()).await.unwrap();
    std::fs::create_dir(other.path().join(folder::RESTORED)).unwrap();
    std::fs::rename(other.path().join(folder::STORE), other.path().join("restored/store.db")).unwrap();
    let refused = App::start(settings(other.path()).await).await.unwrap_err();
    assert!(matches!(refused, StartError::Folder(folder::Error::HalfRestored(_))), "{refused}");
    assert!(refused.to_string().contains("backup restore"));
    let mended = restore(input(), other.path(), None, true).await.unwrap();
    assert_eq!(names(&mended.aside.unwrap().join("restored")), ["store.db"]);
    Bench::start_restored(other.path()).await.app.stop().await;
}

#[tokio::test]
async fn mail_that_waited_when_the_backup_was_made_is_not_sent_again_by_itself() {
    let (data, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let bench = outbox::start(data.path(), Terms { connections: 2, ..Terms::default() }).await;
    outbox::define(&bench, vec![outbox::server(true)]).await;
    let worker = bench.register("worker").await;
    let mut mails = Vec::new();
    for to in ["marked@x.example", "claimed@x.example", "queued@x.example"] {
        mails.push(outbox::send(&bench, &outbox::draft(to), &[]).await.unwrap().id);
    }
    let claimed = outbox::claim(&bench, &worker.id, 10).await.unwrap();
    assert_eq!(claimed.len(), 2);
    outbox::mark(&bench, &worker.id, &claimed[0]).await.unwrap();
    let (archive, made) = backup(&bench, true).await;
    for claimed in &claimed {
        outbox::settle(&bench, &worker.id, claimed, SendVerdict::Sent).await.unwrap();
    }
    let id = worker.id.clone();
    bench.app.stop().await;

    assert_eq!(bring_back(&archive, other.path()).await.unwrap().mails, 3);
    assert!(!other.path().join("ledger.db-journal").exists());
    let bench = Bench::start_restored(other.path()).await;
    let again = bench.register("again").await;
    assert_eq!(outbox::claim(&bench, &again.id, 0).await, Ok(Vec::new()), "nothing is sent blindly");
    for (n, mail) in mails.iter().enumerate() {
        let shown = outbox::show(&bench, mail).await;
        let problem = shown.problem.as_ref().unwrap();
        assert_eq!((shown.state(), problem.code.as_str()), (OutboxState::Unknown, "RESTORED"));
        assert_eq!(shown.next_attempt_time.is_some(), n < 2, "looked for where its server keeps a copy: {shown:?}");
    }
    // Whoever had it knows.
    let late = outbox::settle(&bench, &id, &claimed[1], SendVerdict::Sent).await;
    assert_eq!(late, Ok(OutboxState::Sent));
    let confirm = bench.as_admin(v1::ConfirmOutboxMailRequest { mail: mails[2].clone() });
    let confirmed = outbox::outbox(&bench).confirm_outbox_mail(confirm).await.unwrap().into_inner();
    assert_eq!((confirmed.state(), confirmed.sent_time), (OutboxState::Sent, made.created_time));
    bench.app.stop().await;
}

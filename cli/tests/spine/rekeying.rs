//! A folder is numbered anew: made again, restored, put back to an older state, with mail coming meanwhile. Whatever its
//! messages are called then, each is a contact once, and none is that was never to be one.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use postroom_proto::v1::reconcile_mailbox_response::Told;
use postroom_proto::v1::{self, Disposition, Finding, FindingKind, MailboxState, Renumbering};
use postroom_testbed::imap;
use postroom_testbed::mail::Mail;
use rand::RngExt as _;

use crate::harness::{SERVICE, Stage, Up, contacts, eventually, mailbox};

const FOLDER: &str = "Work";
/// Long before any installation of these tests begins to read.
const LONG_AGO: &str = "\"01-Jan-2024 10:00:00 +0000\"";

/// A stage whose first mailbox is read in [`FOLDER`], with `start` as the start policy of its queue.
async fn stage(start: &str) -> Stage {
    let stage = Stage::set().await;
    stage.testbed.dovecot.create_folder(SERVICE, FOLDER).await.unwrap();
    let model = std::fs::read_to_string(stage.model_file()).unwrap();
    let model = model.replace("priority: 5, ", &format!("priority: 5, folder: {FOLDER}, "));
    let model = model.replacen(
        "    instance: core1\n",
        &format!("    instance: core1\n    start: {start}\n    maxMessageBytes: 20000\n"),
        1,
    );
    std::fs::write(stage.model_file(), model).unwrap();
    stage
}

/// Puts messages into the folder; `received` is what its server is to say of them, or nothing: now.
async fn put(stage: &Stage, mails: &[Vec<u8>], received: &str) {
    let dovecot = &stage.testbed.dovecot;
    let mut client = imap::Client::connect(dovecot.imap_addr(), dovecot.authority()).await.unwrap();
    client.sign_in_with_password(SERVICE, dovecot.password()).await.unwrap();
    for mail in mails {
        client.append(&format!("{FOLDER} {received}"), [mail.as_slice()]).await.unwrap();
    }
}

fn mails(tag: &str, count: usize) -> Vec<Vec<u8>> {
    (0..count).map(|number| Mail::to(SERVICE).subject(&format!("{tag}-{number}")).build()).collect()
}

/// A mail with these header lines and no other.
fn bare(lines: &str) -> Vec<u8> {
    format!("From: anna@customer.example\r\nTo: {SERVICE}\r\n{lines}\r\n\r\ntext\r\n").into_bytes()
}

async fn idle(up: &Up) {
    let client = up.client();
    eventually("it is read", || async { mailbox(&client, SERVICE).await.state() == MailboxState::Idle }).await;
}

/// How the folder was numbered anew, once that is over, for the `round`th time.
async fn rekeyed(up: &Up, round: u32) -> Renumbering {
    let client = up.client();
    eventually("it is re-keyed", || async {
        let seen = mailbox(&client, SERVICE).await;
        let done = seen.renumbering.is_some_and(|it| it.finished_time.is_some());
        done && seen.state() == MailboxState::Idle && numbering(up).await >= round
    })
    .await;
    mailbox(&client, SERVICE).await.renumbering.unwrap()
}

async fn messages(up: &Up, dispositions: &[Disposition]) -> Vec<v1::Message> {
    let request = v1::ListMessagesRequest {
        mailbox: SERVICE.into(),
        dispositions: dispositions.iter().map(|it| (*it).into()).collect(),
        ..Default::default()
    };
    up.client().list_messages(request, u32::MAX).await.unwrap().messages
}

/// How often the folder was numbered anew, by the key of what was recorded last.
async fn numbering(up: &Up) -> u32 {
    let last = messages(up, &[]).await.into_iter().next().unwrap();
    let numbering = last.source_key.split(':').next().unwrap().to_owned();
    numbering.split_once('.').map_or(0, |(_, round)| round.parse().unwrap())
}

/// Reconciling finds nothing missing, and this many messages in folder and ledger alike. What it tells of others.
async fn assert_clean(up: &Up, both: u64) -> Vec<Finding> {
    let mut told = up.client().reconcile_mailbox(SERVICE.into(), false).await.unwrap();
    let (mut findings, mut summary) = (Vec::new(), v1::ReconcileSummary::default());
    while let Some(item) = told.next().await.unwrap() {
        match item.told.unwrap() {
            Told::Progress(_) => {}
            Told::Finding(finding) => findings.push(finding),
            Told::Summary(last) => summary = last,
        }
    }
    assert!(summary.clean && summary.both_count == both, "{summary:?} {findings:?}");
    findings
}

async fn number(stage: &Stage, validity: u32) {
    stage.testbed.dovecot.number_folder(SERVICE, FOLDER, validity).await.unwrap();
}

/// Puts the folder aside under another name, and an empty one in its place.
async fn make_anew(stage: &Stage, aside: &str) {
    let dovecot = &stage.testbed.dovecot;
    dovecot.doveadm(&["mailbox", "rename", "-u", SERVICE, FOLDER, aside]).await.unwrap();
    dovecot.create_folder(SERVICE, FOLDER).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_is_made_anew_is_known_again_whatever_its_message_ids() {
    let stage = stage("new").await;
    put(&stage, &mails("archive", 5), LONG_AGO).await;
    let up = stage.up().await;
    idle(&up).await;
    let plain = mails("a", 30);
    let reused = Mail::to(SERVICE).message_id("reused@customer.example");
    let twin = Mail::to(SERVICE).subject("twin").build();
    let long = format!("Message-ID: <{}@customer.example>\r\nSubject: long", "m".repeat(10_000));
    let absurd = vec![
        bare("Subject: no id"),
        bare("Message-ID: <>\r\nSubject: empty id"),
        bare("Message-ID: \u{1}\u{7f}\u{2}\r\nSubject: control id"),
        bare("Subject: no id, no date"),
        bare(&long),
        reused.clone().subject("reused-0").build(),
        reused.clone().subject("reused-1").build(),
        twin.clone(),
        twin.clone(),
    ];
    put(&stage, &plain, "").await;
    put(&stage, &absurd, "").await;
    put(&stage, &[Mail::to(SERVICE).subject("large-0").size(200_000).build()], "").await;
    let client = up.client();
    eventually("all are contacts", || async { contacts(&client).await.values().sum::<usize>() == 39 }).await;
    let before = contacts(&client).await;
    assert_eq!(before["twin"], 2);
    eventually("one is too large", || async { messages(&up, &[Disposition::TooLarge]).await.len() == 1 }).await;
    assert_clean(&up, 40).await;

    // Copied back, with new mail in between: a third twin, and one more with a Message-ID that was used before.
    let dovecot = &stage.testbed.dovecot;
    // Nobody reads meanwhile: a reader would find the folder half filled.
    up.kill();
    make_anew(&stage, "Aside").await;
    put(&stage, &mails("new", 1), "").await;
    dovecot.doveadm(&["copy", "-u", SERVICE, FOLDER, "mailbox", "Aside", "all"]).await.unwrap();
    put(&stage, &[twin.clone(), reused.subject("reused-2").build()], "").await;
    let up = stage.up().await;
    let client = up.client();
    let renumbering = rekeyed(&up, 1).await;
    assert_eq!((renumbering.known_count, renumbering.new_count, renumbering.left_count), (40, 3, 5));
    let mut expected = before;
    expected.extend([("new-0".to_owned(), 1), ("reused-2".to_owned(), 1), ("twin".to_owned(), 3)]);
    assert_eq!(contacts(&client).await, expected);
    assert_clean(&up, 43).await;
    let duplicates = messages(&up, &[Disposition::Duplicate]).await;
    assert_eq!(duplicates.len(), 40);
    let copy = duplicates.last().unwrap();
    let original = client.get_message(copy.duplicate_of.clone()).await.unwrap();
    assert!(original.disposition() == Disposition::Contact && original.copies == [copy.id.clone()]);
    assert_eq!(mailbox(&client, SERVICE).await.message_count, 43, "a message under another key is no other message");
    let shown = up.postroom(&["mailbox", "show", SERVICE]);
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.contains("re-keyed ") && shown.contains("40 known, 3 new, 5 left"), "{shown}");
    let replayed = client.replay_message(copy.id.clone()).await.unwrap();
    assert!(replayed.already_contact && replayed.message.unwrap().id == original.id, "the contact that it was");
    // What is no contact becomes one, is fetched under its new key, and is settled under it.
    let [large] = messages(&up, &[Disposition::TooLarge]).await.try_into().unwrap();
    let replayed = client.replay_message(large.id.clone()).await.unwrap().message.unwrap();
    assert!(replayed.id == large.id && !replayed.contact.is_empty() && replayed.source_key == large.source_key);
    expected.insert("large-0".to_owned(), 1);
    eventually("it is settled", || async {
        let stored = dovecot.messages(SERVICE, FOLDER).await.unwrap();
        stored.iter().any(|message| message.subject == "large-0" && message.is_seen())
    })
    .await;

    // Restored by somebody who puts the mails in as if they came now.
    up.kill();
    make_anew(&stage, "Aside again").await;
    put(&stage, &plain, "").await;
    let up = stage.up().await;
    let client = up.client();
    let renumbering = rekeyed(&up, 2).await;
    assert_eq!((renumbering.known_count, renumbering.new_count), (30, 0));
    assert_eq!(contacts(&client).await, expected);
    put(&stage, &mails("last", 1), "").await;
    eventually("reading goes on", || async { contacts(&client).await.contains_key("last-0") }).await;
    assert_clean(&up, 31).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_while_a_folder_is_known_again_it_loses_and_doubles_nothing() {
    const COUNT: usize = 600;
    let stage = stage("unseen").await;
    // What was read by somebody before is left for good, also where nobody has read it afterwards.
    put(&stage, &mails("archive", 3), LONG_AGO).await;
    let dovecot = &stage.testbed.dovecot;
    dovecot.doveadm(&["flags", "add", "-u", SERVICE, "\\Seen", "mailbox", FOLDER, "all"]).await.unwrap();
    let up = stage.up().await;
    idle(&up).await;
    put(&stage, &mails("a", COUNT), "").await;
    let mut expected = COUNT;
    eventually("all are contacts", || async { contacts(&up.client()).await.len() == expected }).await;
    dovecot.doveadm(&["flags", "remove", "-u", SERVICE, "\\Seen", "mailbox", FOLDER, "all"]).await.unwrap();
    up.kill();
    let mut moments = rand::rng();
    for (round, validity) in [4001u32, 4002, 4001, 4003, 4001].into_iter().enumerate() {
        number(&stage, validity).await;
        put(&stage, &mails(&format!("round{round}"), 2), "").await;
        expected += 2;
        let up = stage.up().await;
        let moment = Duration::from_millis(moments.random_range(200..2500));
        println!("round {round}: killed {moment:?} after its start");
        tokio::time::sleep(moment).await;
        up.kill();
    }
    let up = stage.up().await;
    idle(&up).await;
    let found = contacts(&up.client()).await;
    assert!(found.len() == expected && found.values().all(|times| *times == 1), "{} of {expected}", found.len());
    assert!(!found.keys().any(|subject| subject.starts_with("archive")), "it was there before");
    let renumbering = rekeyed(&up, 1).await;
    assert!(renumbering.known_count >= COUNT as u64 && renumbering.left_count == 3, "{renumbering:?}");
    assert_clean(&up, expected as u64).await;
    assert!(messages(&up, &[]).await.iter().filter(|it| it.disposition() == Disposition::Contact).count() == expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_state_of_a_folder_below_its_uidvalidity_hides_no_new_mail() {
    let stage = stage("unseen").await;
    let up = stage.up().await;
    idle(&up).await;
    put(&stage, &mails("a", 5), "").await;
    let client = up.client();
    eventually("five", || async { contacts(&client).await.len() == 5 }).await;
    let dovecot = &stage.testbed.dovecot;
    let (mail, kept) = (dovecot.dir().join("mail"), stage.folder.path().join("kept"));
    let copy = |from: &Path, to: &Path| {
        let copied = Command::new("cp").arg("-a").args([from, to]).status().unwrap();
        assert!(copied.success());
    };
    dovecot.stop().await.unwrap();
    copy(&mail, &kept);
    dovecot.restart().await.unwrap();
    put(&stage, &mails("b", 10), "").await;
    eventually("fifteen", || async { contacts(&client).await.len() == 15 }).await;
    dovecot.stop().await.unwrap();
    std::fs::remove_dir_all(&mail).unwrap();
    copy(&kept, &mail);
    dovecot.restart().await.unwrap();
    // These get UIDs that others had.
    put(&stage, &mails("c", 2), "").await;
    eventually("the new ones", || async { contacts(&client).await.len() == 17 }).await;
    let renumbering = rekeyed(&up, 1).await;
    assert_eq!((renumbering.known_count, renumbering.left_count), (5, 0));
    let found = contacts(&client).await;
    assert!(found.len() == 17 && found.values().all(|times| *times == 1), "{found:?}");
    let gone = assert_clean(&up, 7).await;
    assert!(gone.len() == 10 && gone.iter().all(|it| it.kind() == FindingKind::Gone), "what came after it: {gone:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_is_filled_again_after_it_was_seen_empty_doubles_nothing_and_replays_no_archive() {
    let stage = stage("new").await;
    put(&stage, &mails("archive", 30), LONG_AGO).await;
    let up = stage.up().await;
    let client = up.client();
    idle(&up).await;
    put(&stage, &mails("old", 250), "").await;
    eventually("all are contacts", || async { contacts(&client).await.values().sum::<usize>() == 250 }).await;
    idle(&up).await;
    let dovecot = &stage.testbed.dovecot;
    make_anew(&stage, "Aside").await;
    dovecot.kick(SERVICE).await.unwrap();
    eventually("the empty folder is re-keyed", || async {
        let seen = mailbox(&client, SERVICE).await;
        seen.renumbering.is_some_and(|it| it.finished_time.is_some()) && seen.state() == MailboxState::Idle
    })
    .await;

    // The restore comes in parts, with new mail in between. The archive comes back with it, and is as old as it was.
    dovecot.doveadm(&["copy", "-u", SERVICE, FOLDER, "mailbox", "Aside", "1:100"]).await.unwrap();
    put(&stage, &mails("new", 2), "").await;
    dovecot.doveadm(&["copy", "-u", SERVICE, FOLDER, "mailbox", "Aside", "101:*"]).await.unwrap();
    eventually("all are known", || async { messages(&up, &[Disposition::Duplicate]).await.len() == 250 }).await;
    eventually("new mail is read", || async { contacts(&client).await.len() == 252 }).await;
    let found = contacts(&client).await;
    assert!(found.values().all(|times| *times == 1));
    assert!(!found.keys().any(|subject| subject.starts_with("archive")), "it was never to be taken");
    assert_clean(&up, 252).await;
}

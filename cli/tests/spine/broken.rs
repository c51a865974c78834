//! Broken messages in a real mailbox: each becomes a contact or is put aside with its reason, and none delays a good one.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use postroom_cli::client::Client;
use postroom_proto::v1;

use crate::harness::{SERVICE, Stage, contacts, eventually, mailbox};

/// Broken messages.
const BROKEN: usize = 200;
/// A good message comes before each of so many broken ones.
const EVERY: usize = 10;
/// What the queue takes, in bytes.
const MAX_BYTES: usize = 100_000;
/// Of the broken ones, so many are larger than that by more than half.
const TOO_LARGE: usize = 3;

/// The messages of the worker's corpus that an IMAP server takes: it refuses those without a byte, and rewrites null bytes.
fn corpus() -> Vec<Vec<u8>> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../worker/tests/corpus");
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let eml = files.iter().filter(|path| path.extension().is_some_and(|end| end == "eml"));
    eml.map(|path| std::fs::read(path).unwrap()).filter(|raw| !raw.is_empty() && !raw.contains(&0)).collect()
}

/// The corpus, what breaks parsers, and damage: the same at each run.
fn broken() -> Vec<Vec<u8>> {
    let corpus = corpus();
    let placeholder = b"From: \"Microsoft Exchange Server\"";
    let mut all: Vec<Vec<u8>> = corpus.iter().filter(|raw| !raw.starts_with(placeholder)).cloned().collect();
    let level = |n: usize| format!("Content-Type: multipart/mixed; boundary=b{n}\r\n\r\n--b{n}\r\n");
    all.extend([
        (0..1200).map(level).collect::<String>().into_bytes(),
        "Content-Type: message/rfc822\r\n\r\n".repeat(3000).into_bytes(),
        format!("Subject: {}\r\n\r\nx", "=?aa?q? ".repeat(10_000)).into_bytes(),
        format!("Content-Type: multipart/mixed; boundary=b\r\n\r\n{}", "--b\r\n\r\n".repeat(10_000)).into_bytes(),
        "X-Header: of many\r\n".repeat(5000).into_bytes(),
        format!("To: {}\r\n\r\nx", "a@x.example,".repeat(8000)).into_bytes(),
    ]);
    for size in 0..TOO_LARGE {
        all.push(format!("Subject: too large\r\n\r\n{}", "x".repeat(2 * MAX_BYTES + size)).into_bytes());
    }
    let mut state = 1u64;
    let mut random = move |below: usize| {
        // Knuth's MMIX generator: what is damaged must not differ from run to run.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap() % below
    };
    while all.len() < BROKEN {
        let mut raw = corpus[random(corpus.len())].clone();
        for _ in 0..1 + random(6) {
            let at = random(raw.len());
            match random(4) {
                0 => raw[at] = b"\n\r-=:;\"<>?(), \xff"[random(15)],
                1 => raw.truncate(at.max(20)),
                2 => {
                    let other = &corpus[random(corpus.len())];
                    raw.splice(at..at, other[..random(other.len())].iter().copied());
                }
                _ => drop(raw.drain(at..raw.len().min(at + 40))),
            }
            if raw.len() < 20 {
                raw.extend_from_slice(b"what is left of a message");
            }
        }
        all.push(raw);
    }
    // A message that says from whom it is would pass for a placeholder once it lost the rest.
    all.iter_mut().filter(|raw| raw.starts_with(placeholder)).for_each(|raw| raw[0] = b'X');
    all
}

/// Without line ends, which servers rewrite.
fn plain(raw: &[u8]) -> Vec<u8> {
    raw.iter().copied().filter(|byte| !matches!(byte, b'\r' | b'\n')).collect()
}

async fn raw(client: &Client, contact: &str) -> Vec<u8> {
    let mut message = client.get_raw_message(contact.to_owned()).await.unwrap();
    let mut bytes = Vec::new();
    while let Some(chunk) = message.next().await.unwrap() {
        bytes.extend_from_slice(&chunk.data);
    }
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_broken_messages_are_all_accounted_for_and_delay_no_good_one() {
    let stage = Stage::set().await;
    let instance = "    instance: core1\n";
    let model = stage.model(&stage.secret());
    let model = model.replace(instance, &format!("{instance}    maxMessageBytes: {MAX_BYTES}\n"));
    std::fs::write(stage.model_file(), model).unwrap();

    let placeholder = "From: \"Microsoft Exchange Server\" <x@x.example>\r\nSubject: Retrieval\r\n\r\n\
        Retrieval using the IMAP4 protocol failed for the following message: 7\r\n";
    let mut messages = vec![placeholder.as_bytes().to_vec()];
    let mut good = BTreeSet::new();
    for (number, raw) in broken().into_iter().enumerate() {
        if number % EVERY == 0 {
            let subject = format!("good-{number:03}");
            messages.push(format!("From: a@x.example\r\nSubject: {subject}\r\n\r\nGood.\r\n").into_bytes());
            good.insert(subject);
        }
        messages.push(raw);
    }
    stage.testbed.fill(SERVICE, &messages).await.unwrap();
    assert_eq!(stage.testbed.dovecot.count(SERVICE, "INBOX").await.unwrap(), messages.len());

    let up = stage.up().await;
    let client = up.client();
    let have = async |subjects: &BTreeSet<String>| {
        let found = contacts(&client).await;
        subjects.iter().all(|subject| found.get(subject) == Some(&1))
    };
    eventually("all good ones are contacts", || have(&good)).await;
    // The first message of the mailbox is still being tried, and nobody waits for it.
    assert_eq!(mailbox(&client, SERVICE).await.quarantined_count, 0);
    stage.deliver(SERVICE, "after", 1).await;
    let late = BTreeSet::from(["after-0".to_owned()]);
    eventually("a good one that came after them", || have(&late)).await;

    let whole = messages.len() + 1;
    let accounted = async || {
        let mailbox = mailbox(&client, SERVICE).await;
        let listed = client.list_contacts(v1::ListContactsRequest::default(), u32::MAX).await.unwrap();
        (mailbox.message_count, listed.contacts, mailbox.quarantined_count, mailbox.too_large_count)
    };
    eventually("the placeholder is put aside", || async { accounted().await.2 == 1 }).await;
    let (seen, found, quarantined, too_large) = accounted().await;
    assert_eq!((seen, quarantined, too_large), (whole as u64, 1, TOO_LARGE as u64));
    assert_eq!(found.len(), whole - 1 - TOO_LARGE);

    // Each message of the mailbox is the raw message of one contact, but for those that were put aside.
    let mut missing: BTreeMap<Vec<u8>, usize> = BTreeMap::new();
    for raw in &messages {
        *missing.entry(plain(raw)).or_default() += 1;
    }
    for contact in found.iter().filter(|contact| contact.content.as_ref().unwrap().subject != "after-0") {
        let bytes = plain(&raw(&client, &contact.id).await);
        let count = missing.get_mut(&bytes).filter(|count| **count > 0);
        *count.unwrap_or_else(|| panic!("a contact of no message: {:?}", String::from_utf8_lossy(&bytes))) -= 1;
    }
    missing.retain(|_, count| *count > 0);
    let aside = |raw: &Vec<u8>| raw.len() > MAX_BYTES || *raw == plain(placeholder.as_bytes());
    assert!(
        missing.keys().all(aside),
        "{:?}",
        missing.keys().map(|raw| String::from_utf8_lossy(raw)).collect::<Vec<_>>()
    );
    assert_eq!(missing.len(), TOO_LARGE + 1);

    // They were taken in in their order, good or broken: nothing waited for anything.
    let mut good_times: Vec<_> = found
        .iter()
        .filter(|contact| contact.content.as_ref().unwrap().subject.starts_with("good-"))
        .map(|contact| (contact.content.as_ref().unwrap().subject.clone(), contact.created_time))
        .map(|(subject, time)| (subject, time.map(|time| (time.seconds, time.nanos))))
        .collect();
    good_times.sort();
    assert!(good_times.is_sorted_by_key(|(_, time)| *time), "{good_times:?}");
    eventually("the mailbox is at rest, with everything marked as read but what was put aside", || async {
        let unseen = stage.testbed.dovecot.count_unseen(SERVICE, "INBOX").await.unwrap();
        unseen <= TOO_LARGE + 1 && mailbox(&client, SERVICE).await.problem.is_none()
    })
    .await;
}

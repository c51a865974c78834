//! Folders that are numbered anew: their messages are known again under new keys.

use postroom_proto::fingerprint::fingerprint;
use postroom_proto::v1::{self, ContactContent, Disposition};

use super::{batch, cursor, fence, fill, mailbox, message, total};
use crate::ledger::known::Sought;
use crate::ledger::message::Replay;
use crate::ledger::{Batch, Ledger, Message, Micros, NotCommitted, Raw};

const EMAIL: &str = "a@x.example";

fn content(subject: &str) -> ContactContent {
    ContactContent { subject: subject.into(), ..Default::default() }
}

fn contact(key: &str, subject: &str, received_at: Micros) -> Message {
    Message {
        fingerprint: fingerprint(&content(subject)),
        content: Some(content(subject)),
        ..message(key, received_at)
    }
}

fn large(key: &str, received_at: Micros, size_bytes: u64) -> Message {
    Message {
        disposition: Disposition::TooLarge,
        raw: Raw::None,
        content: None,
        fingerprint: Vec::new(),
        size_bytes,
        ..message(key, received_at)
    }
}

fn sought(subject: &str, received_at: Micros) -> Sought {
    Sought {
        fingerprint: fingerprint(&content(subject)),
        identified: false,
        received_at: Some(received_at),
        size_bytes: 3,
    }
}

fn copy(key: &str, original: i64) -> Message {
    Message {
        disposition: Disposition::Duplicate,
        raw: Raw::None,
        content: None,
        duplicate_of: Some(original),
        ..message(key, 5)
    }
}

fn numbered(numbering: u32, batch: Batch) -> Batch {
    Batch { numbering, ..batch }
}

async fn known(ledger: &impl Ledger, numbering: u32, sought: Vec<Sought>) -> Vec<Option<i64>> {
    ledger.known(&mailbox(EMAIL), &fence(1, "s1"), numbering, sought).await.unwrap().unwrap()
}

async fn unsettled(ledger: &impl Ledger) -> Vec<String> {
    ledger.open(&mailbox(EMAIL), &fence(1, "s1")).await.unwrap().unwrap().unsettled
}

async fn row(ledger: &impl Ledger, key: &str) -> v1::Message {
    let standing = ledger.standing_of(&mailbox(EMAIL), &[key.to_owned()]).await.unwrap();
    ledger.message(standing[0].id).await.unwrap().unwrap()
}

/// Contacts a, b, b, of which the first is settled; and one that was too large.
async fn first_numbering(ledger: &impl Ledger) -> [i64; 4] {
    ledger.open(&mailbox(EMAIL), &fence(1, "s1")).await.unwrap().unwrap();
    let messages = vec![contact("7:1", "a", 5), contact("7:2", "b", 6), contact("7:3", "b", 6), large("7:4", 8, 90)];
    ledger.report(batch(EMAIL, fence(1, "s1"), 0, 1, messages), 100).await.unwrap().unwrap();
    let settled = Batch { settled: vec!["7:1".into()], ..batch(EMAIL, fence(1, "s1"), 1, 2, vec![]) };
    ledger.report(settled, 200).await.unwrap().unwrap();
    let mut ids = [0; 4];
    for (id, key) in ids.iter_mut().zip(["7:1", "7:2", "7:3", "7:4"]) {
        *id = row(ledger, key).await.id.parse().unwrap();
    }
    ids
}

pub(crate) async fn a_message_under_a_new_key_is_no_new_contact(ledger: impl Ledger) {
    let [a, b, b_too, too_large] = first_numbering(&ledger).await;
    fill(&ledger, "b@x.example", &[(5, 1)], 100).await;
    let opened = ledger.open(&mailbox(EMAIL), &fence(1, "s1")).await.unwrap().unwrap();
    assert_eq!(opened.reading_since, Some(100));
    let begin = numbered(1, batch(EMAIL, fence(1, "s1"), 2, 3, vec![]));
    ledger.report(begin, 300).await.unwrap().unwrap();
    assert!(unsettled(&ledger).await.is_empty(), "under their former keys they are not there");

    let bare = Sought { received_at: Some(8), size_bytes: 90, ..Sought::default() };
    let folder = vec![sought("b", 6), sought("c", 6), sought("a", 5), bare, sought("b", 6), sought("b", 6)];
    let found = known(&ledger, 1, folder.clone()).await;
    assert_eq!(found, [Some(b), None, Some(a), Some(too_large), Some(b_too), None]);
    let messages = vec![copy("9.1:1", b), contact("9.1:2", "c", 6), copy("9.1:3", a), copy("9.1:4", too_large)];
    let report = numbered(1, batch(EMAIL, fence(1, "s1"), 3, 4, messages));
    let answer = ledger.report(report.clone(), 400).await.unwrap().unwrap();
    let said: Vec<_> = answer.outcomes.iter().map(|it| (it.disposition(), it.unsettled)).collect();
    let duplicate = Disposition::Duplicate;
    assert_eq!(said, [(duplicate, true), (Disposition::Contact, false), (duplicate, false), (duplicate, false)]);
    assert_eq!(ledger.report(report, 500).await.unwrap().unwrap(), answer, "the lost answer of a batch");
    assert_eq!(total(&ledger).await, 3 + 1 + 1);
    assert_eq!(unsettled(&ledger).await, ["9.1:1", "9.1:2"]);
    assert_eq!(known(&ledger, 1, folder).await, [Some(b_too), None, None, None, None, None], "each is taken once");
    let record = ledger.mailboxes(&[mailbox(EMAIL)]).await.unwrap().remove(0);
    assert_eq!((record.message_count, record.contact_count, record.too_large_count), (5, 4, 1));
    let (original, copied) = (row(&ledger, "7:2").await, row(&ledger, "9.1:1").await);
    assert_eq!((&copied.duplicate_of, original.copies.as_slice()), (&original.id, &[copied.id.clone()][..]));
    assert!(original.settled && !copied.settled, "it is settled under its new key");

    let settled = Batch { settled: vec!["9.1:1".into()], ..batch(EMAIL, fence(1, "s1"), 4, 5, vec![]) };
    ledger.report(numbered(1, settled), 600).await.unwrap().unwrap();
    assert_eq!(unsettled(&ledger).await, ["9.1:2"]);
}

pub(crate) async fn a_folder_can_be_numbered_anew_again_and_again(ledger: impl Ledger) {
    let [a, b, b_too, _] = first_numbering(&ledger).await;
    let report = numbered(1, batch(EMAIL, fence(1, "s1"), 2, 3, vec![copy("9.1:1", b), contact("9.1:2", "c", 6)]));
    ledger.report(report, 300).await.unwrap().unwrap();
    // In the middle of it, and back to the UIDVALIDITY that it had.
    let folder = vec![sought("a", 5), sought("b", 6), sought("b", 6), sought("c", 6)];
    let found = known(&ledger, 2, folder).await;
    let c: i64 = row(&ledger, "9.1:2").await.id.parse().unwrap();
    assert_eq!(found, [Some(a), Some(b), Some(b_too), Some(c)], "what was new in the last one is known, too");
    let copies = vec![copy("7.2:1", a), copy("7.2:2", b), copy("7.2:3", b_too), copy("7.2:4", c)];
    let report = numbered(2, batch(EMAIL, fence(1, "s1"), 3, 4, copies));
    let answer = ledger.report(report, 400).await.unwrap().unwrap();
    let still: Vec<bool> = answer.outcomes.iter().map(|it| it.unsettled).collect();
    assert_eq!(still, [false, true, true, true], "what was not done under any key before");
    assert_eq!(unsettled(&ledger).await, ["7.2:2", "7.2:3", "7.2:4"]);
    assert_eq!(total(&ledger).await, 4);
    assert_eq!(row(&ledger, "7:2").await.copies.len(), 2);
}

pub(crate) async fn a_message_is_taken_for_one_only(ledger: impl Ledger) {
    let [a, ..] = first_numbering(&ledger).await;
    let take = |from: u8, key: &str, original: i64| {
        numbered(1, batch(EMAIL, fence(1, "s1"), from, from + 1, vec![copy(key, original)]))
    };
    ledger.report(take(2, "9.1:1", a), 300).await.unwrap().unwrap();
    let copied: i64 = row(&ledger, "9.1:1").await.id.parse().unwrap();
    ledger.open(&mailbox("b@x.example"), &fence(1, "s1")).await.unwrap().unwrap();
    let foreign = Batch { numbering: 1, ..batch("b@x.example", fence(1, "s1"), 0, 1, vec![copy("9.1:1", a)]) };
    for refused in [take(3, "9.1:2", a), take(3, "9.1:2", copied), take(3, "9.1:2", 4711), foreign] {
        let uid = refused.mailbox.clone();
        let before = ledger.cursor(&uid).await.unwrap();
        assert!(ledger.report(refused, 400).await.is_err());
        assert_eq!(ledger.cursor(&uid).await.unwrap(), before, "nothing of it is written");
    }
    assert!(ledger.standing_of(&mailbox(EMAIL), &["9.1:2".into()]).await.unwrap().is_empty());
    assert_eq!(ledger.cursor(&mailbox(EMAIL)).await.unwrap(), cursor(3));

    ledger.open(&mailbox(EMAIL), &fence(2, "s2")).await.unwrap().unwrap();
    let lost = ledger.known(&mailbox(EMAIL), &fence(1, "s1"), 1, vec![sought("b", 6)]).await.unwrap();
    assert_eq!(lost, Err(NotCommitted::LeaseLost));
}

pub(crate) async fn what_is_replayed_is_settled_and_known_under_its_new_key(ledger: impl Ledger) {
    let [.., too_large] = first_numbering(&ledger).await;
    let report = numbered(1, batch(EMAIL, fence(1, "s1"), 2, 3, vec![copy("9.1:4", too_large)]));
    ledger.report(report, 300).await.unwrap().unwrap();
    let replay = Replay {
        mailbox: mailbox(EMAIL),
        fence: fence(1, "s1"),
        intake: batch(EMAIL, fence(1, "s1"), 0, 0, vec![]).intake,
        message: Message { size_bytes: 95, ..contact("7:4", "large", 8) },
        by: "operator".into(),
    };
    ledger.replay(replay, 400).await.unwrap().unwrap();
    assert_eq!(unsettled(&ledger).await, ["9.1:4"]);
    assert_eq!(known(&ledger, 2, vec![sought("large", 8)]).await, [Some(too_large)], "by its headers now");
}

pub(crate) async fn a_fingerprint_of_an_earlier_version_is_made_anew(ledger: impl Ledger) {
    ledger.open(&mailbox(EMAIL), &fence(1, "s1")).await.unwrap().unwrap();
    // More than one piece, so that the walk through them is one.
    let old = |number: i64| Message {
        fingerprint: vec![7; 32],
        ..contact(&format!("7:{number}"), &format!("m{number}"), number)
    };
    for (at, from) in [(0u8, 0i64), (1, 400), (2, 800)] {
        let messages = (from..from + 400).map(old).collect();
        ledger.report(batch(EMAIL, fence(1, "s1"), at, at + 1, messages), 100).await.unwrap().unwrap();
    }
    let folder = vec![sought("m3", 3), sought("m1100", 1100), sought("m1200", 1200), sought("m4", 3)];
    let found = known(&ledger, 1, folder).await;
    let mut keys = Vec::new();
    for id in found {
        keys.push(match id {
            Some(id) => ledger.message(id).await.unwrap().unwrap().source_key,
            None => String::new(),
        });
    }
    assert_eq!(keys, ["7:3", "7:1100", "", ""], "one that never was, and one that was received at another time");
}

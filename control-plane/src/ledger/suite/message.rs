//! Messages as people look at them and decide about them.

use postroom_proto::v1::{self, Disposition, MessageDecisionKind};

use super::{batch, cursor, fence, fill, mailbox, message, total};
use crate::ledger::message::{Discarded, MessageFilter, NotReplayed, Replay, Replayed};
use crate::ledger::{Ledger, Message, Micros, Raw};

const EMAIL: &str = "a@x.example";

fn aside(key: &str, disposition: Disposition, reason: &str) -> Message {
    Message { disposition, reason: reason.into(), raw: Raw::None, content: None, ..message(key, 5) }
}

/// A mailbox with one message of each disposition that workers report, recorded one after the other at times 10, 20, …
async fn mixed(ledger: &impl Ledger) {
    ledger.open(&mailbox(EMAIL), &fence(1, "s1")).await.unwrap().unwrap();
    let messages = [
        message("1:1", 5),
        Message { attempt_count: 3, ..aside("1:2", Disposition::Quarantined, "no body 100%") },
        Message { size_bytes: 80, limit_bytes: 25, ..aside("1:3", Disposition::TooLarge, "80 bytes") },
        aside("1:4", Disposition::Vanished, "gone"),
        Message {
            raw: Raw::Inline(bytes::Bytes::from_static(b"kept")),
            ..aside("1:5", Disposition::Quarantined, "No sense")
        },
    ];
    for (number, message) in messages.into_iter().enumerate() {
        let number = u8::try_from(number).unwrap();
        let batch = batch(EMAIL, fence(1, "s1"), number, number + 1, vec![message]);
        ledger.report(batch, 10 * (Micros::from(number) + 1)).await.unwrap().unwrap();
    }
}

fn keys(messages: &[v1::Message]) -> Vec<&str> {
    messages.iter().map(|message| message.source_key.as_str()).collect()
}

async fn id(ledger: &impl Ledger, key: &str) -> i64 {
    ledger.standing_of(&mailbox(EMAIL), &[key.to_owned()]).await.unwrap()[0].id
}

fn replay(key: &str) -> Replay {
    let intake = batch(EMAIL, fence(1, "s1"), 0, 0, vec![]).intake;
    let message = Message { size_bytes: 77, received_at: None, ..message(key, 0) };
    Replay { mailbox: mailbox(EMAIL), fence: fence(1, "s1"), intake, message, by: "operator".into() }
}

pub(crate) async fn messages_are_listed_by_what_narrows_them(ledger: impl Ledger) {
    mixed(&ledger).await;
    let all = MessageFilter::default;
    for (filter, expected) in [
        (all(), vec!["1:5", "1:4", "1:3", "1:2", "1:1"]),
        (MessageFilter { mailbox: Some(mailbox(EMAIL)), ..all() }, vec!["1:5", "1:4", "1:3", "1:2", "1:1"]),
        (MessageFilter { mailbox: Some(mailbox("b@x.example")), ..all() }, vec![]),
        (MessageFilter { dispositions: vec![Disposition::Quarantined], ..all() }, vec!["1:5", "1:2"]),
        (
            MessageFilter { dispositions: vec![Disposition::Contact, Disposition::Vanished], ..all() },
            vec!["1:4", "1:1"],
        ),
        (MessageFilter { settled: Some(false), ..all() }, vec!["1:1"]),
        (MessageFilter { settled: Some(true), ..all() }, vec!["1:5", "1:4", "1:3", "1:2"]),
        (MessageFilter { since: Some(20), until: Some(40), ..all() }, vec!["1:3", "1:2"]),
        (MessageFilter { reason: "NO ".into(), ..all() }, vec!["1:5", "1:2"]),
        (MessageFilter { reason: "0%".into(), ..all() }, vec!["1:2"]),
    ] {
        let (mut before, mut seen) = (None, Vec::new());
        loop {
            let page = ledger.messages(&filter, before, 2).await.unwrap();
            let Some(last) = page.last() else { break };
            before = Some(last.id.parse().unwrap());
            seen.extend(page);
        }
        assert_eq!(keys(&seen), expected, "{filter:?}");
    }
}

pub(crate) async fn a_message_says_all_that_is_known(ledger: impl Ledger) {
    mixed(&ledger).await;
    let contact = ledger.message(id(&ledger, "1:1").await).await.unwrap().unwrap();
    assert!(contact.contact.len() == 32 && contact.raw_kept && !contact.settled);
    let quarantined = ledger.message(id(&ledger, "1:2").await).await.unwrap().unwrap();
    assert_eq!((quarantined.disposition(), quarantined.attempt_count), (Disposition::Quarantined, 3));
    assert!(quarantined.settled && !quarantined.raw_kept && quarantined.contact.is_empty());
    let large = ledger.message(id(&ledger, "1:3").await).await.unwrap().unwrap();
    assert_eq!((large.size_bytes, large.limit_bytes, large.reason.as_str()), (80, 25, "80 bytes"));
    assert_eq!(large.mailbox, mailbox(EMAIL).as_str());
    let kept = ledger.message_raw(id(&ledger, "1:5").await).await.unwrap().unwrap();
    assert_eq!(kept, Raw::Inline(bytes::Bytes::from_static(b"kept")));
    assert_eq!(ledger.message_raw(id(&ledger, "1:2").await).await.unwrap(), Some(Raw::None));
    assert_eq!((ledger.message(4711).await.unwrap(), ledger.message_raw(4711).await.unwrap()), (None, None));
    let record = ledger.mailboxes(&[mailbox(EMAIL)]).await.unwrap().remove(0);
    assert_eq!((record.message_count, record.quarantined_count, record.too_large_count), (5, 2, 1));
}

pub(crate) async fn a_discarded_message_is_decided_and_a_contact_is_not_discarded(ledger: impl Ledger) {
    mixed(&ledger).await;
    for key in ["1:2", "1:3", "1:4"] {
        let id = id(&ledger, key).await;
        let before = ledger.message(id).await.unwrap().unwrap();
        assert_eq!(ledger.discard(id, "operator", "spam", 500).await.unwrap(), Discarded::Filtered);
        assert_eq!(ledger.discard(id, "admin", "again", 600).await.unwrap(), Discarded::Filtered);
        let after = ledger.message(id).await.unwrap().unwrap();
        assert_eq!(after.disposition(), Disposition::Filtered);
        assert_eq!(after.reason, "discarded by operator: spam");
        let [decision] = after.decisions.as_slice() else { panic!("{after:?}") };
        assert_eq!((decision.kind(), decision.by.as_str()), (MessageDecisionKind::Discarded, "operator"));
        assert_eq!(decision.former_disposition(), before.disposition());
        assert_eq!(decision.former_reason, before.reason);
    }
    assert_eq!(ledger.discard(id(&ledger, "1:1").await, "admin", "", 500).await.unwrap(), Discarded::Contact);
    assert_eq!(ledger.discard(4711, "admin", "", 500).await.unwrap(), Discarded::Unknown);
    let record = ledger.mailboxes(&[mailbox(EMAIL)]).await.unwrap().remove(0);
    assert_eq!((record.quarantined_count, record.too_large_count), (1, 0), "what is decided is open no more");
}

pub(crate) async fn a_replayed_message_is_one_contact(ledger: impl Ledger) {
    mixed(&ledger).await;
    ledger.discard(id(&ledger, "1:3").await, "operator", "", 400).await.unwrap();
    for (made, key) in ["1:2", "1:3", "1:5"].into_iter().enumerate() {
        let Replayed::Made(contact) = ledger.replay(replay(key), 1000).await.unwrap().unwrap() else {
            panic!("{key} was a contact")
        };
        let again = ledger.replay(replay(key), 2000).await.unwrap().unwrap();
        assert_eq!(again, Replayed::Already(contact.clone()));
        assert_eq!(total(&ledger).await, made + 2, "{key}");
        let message = ledger.message(id(&ledger, key).await).await.unwrap().unwrap();
        assert_eq!((message.disposition(), message.reason.as_str()), (Disposition::Contact, ""));
        assert_eq!((message.contact.as_str(), message.size_bytes), (contact.as_str(), 77));
        assert!(message.received_time.is_some(), "what was known of it stays");
        let decision = message.decisions.last().unwrap();
        assert_eq!((decision.kind(), decision.by.as_str()), (MessageDecisionKind::Replayed, "operator"));
        let (_, whole) = ledger.contact(&contact).await.unwrap().unwrap();
        assert_eq!(whole.content.unwrap().text, "text");
        let (_, raw) = ledger.raw(&contact).await.unwrap().unwrap();
        assert_eq!(raw, Raw::Inline(bytes::Bytes::from_static(b"raw")), "the one it was made of");
    }
    let opened = ledger.open(&mailbox(EMAIL), &fence(1, "s1")).await.unwrap().unwrap();
    assert_eq!(opened.unsettled, ["1:1", "1:2", "1:3", "1:5"], "its after-intake step is to be done");
    assert_eq!(opened.cursor, cursor(5), "reading goes on where it was");
    let due = ledger.due(&mailbox(EMAIL), 1000).await.unwrap();
    assert_eq!(due, ["1:1"], "what was replayed is kept in the mailbox from then on");
    let record = ledger.mailboxes(&[mailbox(EMAIL)]).await.unwrap().remove(0);
    assert_eq!((record.message_count, record.contact_count, record.quarantined_count), (5, 4, 0));
}

pub(crate) async fn a_replay_under_a_lost_lease_changes_nothing(ledger: impl Ledger) {
    mixed(&ledger).await;
    ledger.open(&mailbox(EMAIL), &fence(2, "s2")).await.unwrap().unwrap();
    let before = ledger.message(id(&ledger, "1:2").await).await.unwrap();
    assert_eq!(ledger.replay(replay("1:2"), 1000).await.unwrap(), Err(NotReplayed::LeaseLost));
    assert_eq!(ledger.message(id(&ledger, "1:2").await).await.unwrap(), before);
    assert_eq!(total(&ledger).await, 1);
    let unknown = Replay { fence: fence(2, "s2"), ..replay("1:99") };
    assert_eq!(ledger.replay(unknown, 1000).await.unwrap(), Err(NotReplayed::Unknown));
}

pub(crate) async fn a_mailbox_is_walked_through_in_pieces(ledger: impl Ledger) {
    mixed(&ledger).await;
    fill(&ledger, "b@x.example", &[(5, 1), (5, 2)], 1000).await;
    let uid = mailbox(EMAIL);
    let (last, count) = ledger.extent(&uid).await.unwrap();
    assert_eq!((last, count), (id(&ledger, "1:5").await, 5));
    let (mut after, mut seen) = (0, Vec::new());
    loop {
        let page = ledger.standing_after(&uid, after, last - 1, 2).await.unwrap();
        let Some(standing) = page.last() else { break };
        after = standing.id;
        seen.extend(page.into_iter().map(|standing| standing.source_key));
    }
    assert_eq!(seen, ["1:1", "1:2", "1:3", "1:4"], "up to the row that was named, and only of this mailbox");
    let known = ledger.standing_of(&uid, &["1:3".into(), "1:99".into()]).await.unwrap();
    assert_eq!(known.len(), 1);
    assert_eq!((known[0].disposition, known[0].settled), (Disposition::TooLarge, true));
    assert_eq!(ledger.cursor(&uid).await.unwrap(), cursor(5));
    assert_eq!(ledger.extent(&mailbox("c@x.example")).await.unwrap(), (0, 0));
    assert_eq!(ledger.cursor(&mailbox("c@x.example")).await.unwrap(), cursor(0), "never read");
}

//! Messages into reports, each small enough and with the cursor that follows it. Pure.

use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use postroom_proto::convert::to_timestamp;
use postroom_proto::fingerprint::fingerprint;
use postroom_proto::v1::reported_message::Raw;
use postroom_proto::v1::{ContactKind, Disposition, ReportedMessage};
use prost::Message as _;
use sha2::{Digest as _, Sha256};

use super::cursor::{Cursor, Numbering, Start, Verdict, source_key};
use super::imap::fetch::Summary;
use super::traced::Fetched;
use crate::contact::{classify::classify, parse};

/// Largest encoded report. The control plane takes 3 MiB.
const MAX_REPORT: usize = 5 * 1024 * 1024 / 2;
/// A larger raw message is uploaded by itself.
const MAX_INLINE: usize = 1024 * 1024;
/// Raw message and content together; more, and the raw message is uploaded by itself.
const MAX_TOGETHER: usize = 2 * 1024 * 1024;

/// What became of one message of the folder, in the order of UIDs.
#[derive(Debug, Clone)]
pub enum Item {
    /// It is not to be taken.
    Pass(u32),
    /// The folder was numbered anew, and the ledger does not have it: it is left.
    Left(u32),
    /// It came into a folder that was numbered anew while that was being restored, the ledger does not have it, and it is
    /// left.
    LeftRestored(u32),
    /// The folder was numbered anew, and the ledger has it.
    Known(Summary, Known),
    /// It waited for an operator, who does not want it: it was received before this time.
    Leave(u32, i64),
    /// It was fetched.
    Got(Summary, Bytes),
    /// It is larger than the queue allows; its size in bytes, as far as known.
    TooLarge(Summary, u64),
    /// It could not be read this time, and why.
    Failed(Summary, String),
    /// It was there and is gone.
    Vanished(u32),
}

/// A message that the ledger has under a former key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// What the ledger calls it.
    pub original: String,
    /// Made of its headers.
    pub fingerprint: Vec<u8>,
}

/// A report not yet sent.
#[derive(Debug, Clone)]
pub struct Draft {
    /// The messages.
    pub messages: Vec<ReportedMessage>,
    /// Bodies to upload before, each with its digest.
    pub blobs: Vec<(String, Bytes)>,
    /// The cursor after it.
    pub next: Cursor,
    /// When they were fetched. `None`: nothing was.
    pub fetched: Option<Fetched>,
}

/// Turns `items` into reports of at most `max_messages` and moves `cursor` behind them.
pub fn draft(cursor: &mut Cursor, items: Vec<Item>, max_messages: usize) -> Vec<Draft> {
    draft_with(parse::parse, cursor, items, max_messages)
}

/// How a message is read.
type Reads = fn(&[u8]) -> parse::Parsed;

fn draft_with(reads: Reads, cursor: &mut Cursor, items: Vec<Item>, max_messages: usize) -> Vec<Draft> {
    let mut drafts = Vec::new();
    let mut open = Open::default();
    for item in items {
        let Some((message, blob)) = apply(reads, cursor, item) else {
            open.next = Some(cursor.clone());
            continue;
        };
        if message.disposition() != Disposition::Duplicate {
            cursor.count(|it| it.new += 1);
        }
        let size = message.encoded_len() + 16;
        if !open.messages.is_empty() && (open.size + size > MAX_REPORT || open.messages.len() >= max_messages) {
            drafts.extend(std::mem::take(&mut open).close());
        }
        open.size += size;
        open.messages.push(message);
        open.blobs.extend(blob);
        open.next = Some(cursor.clone());
    }
    drafts.extend(open.close());
    drafts
}

/// One fetched message by itself, as it would be reported, and the bodies to upload before. `None`: what the server gave is
/// not the message.
pub fn single(numbering: Numbering, summary: Summary, raw: Bytes) -> Option<(ReportedMessage, Vec<(String, Bytes)>)> {
    let mut cursor = Cursor::first(numbering.validity, 1, Start::All);
    cursor.numbering = numbering;
    let mut draft = draft(&mut cursor, vec![Item::Got(summary, raw)], 1).pop()?;
    Some((draft.messages.pop()?, draft.blobs))
}

#[derive(Default)]
struct Open {
    messages: Vec<ReportedMessage>,
    blobs: Vec<(String, Bytes)>,
    next: Option<Cursor>,
    size: usize,
}

impl Open {
    /// Nothing is reported for messages that are passed over: the cursor goes along with the next report.
    fn close(self) -> Option<Draft> {
        let next = self.next.filter(|_| !self.messages.is_empty())?;
        Some(Draft { messages: self.messages, blobs: self.blobs, next, fetched: None })
    }
}

/// Moves the cursor behind one item. `None`: there is nothing to report of it, yet or ever.
fn apply(reads: Reads, cursor: &mut Cursor, item: Item) -> Option<(ReportedMessage, Option<(String, Bytes)>)> {
    let numbering = cursor.numbering;
    match item {
        Item::Pass(uid) => {
            cursor.pass(uid);
            None
        }
        Item::Left(uid) => {
            cursor.count(|it| it.left += 1);
            cursor.pass(uid);
            None
        }
        Item::LeftRestored(uid) => {
            cursor.leave_restored(uid);
            None
        }
        Item::Known(summary, known) => {
            cursor.count(|it| it.known += 1);
            cursor.settle(summary.uid);
            let reason = format!("it is message {}; its folder was numbered anew", known.original);
            let mut message = described(numbering, &summary, Disposition::Duplicate, &reason);
            (message.size_bytes, message.fingerprint) = (summary.size, known.fingerprint);
            message.duplicate_of = known.original;
            Some((message, None))
        }
        Item::Leave(uid, since) => {
            cursor.leave(uid, since);
            None
        }
        Item::Vanished(uid) => {
            cursor.settle(uid);
            let reason = "it was gone from the mailbox before it could be read";
            Some((bare(numbering, uid, Disposition::Vanished, reason), None))
        }
        Item::TooLarge(summary, size) => {
            cursor.settle(summary.uid);
            let reason = format!("it has {size} bytes, more than the queue's maxMessageBytes");
            let described = described(numbering, &summary, Disposition::TooLarge, &reason);
            Some((ReportedMessage { size_bytes: size, ..described }, None))
        }
        Item::Failed(summary, reason) => fail(cursor, &summary, &reason).map(|message| (message, None)),
        Item::Got(summary, raw) => match catch_unwind(AssertUnwindSafe(|| reads(&raw))) {
            Ok(parsed) if parse::is_placeholder(&parsed.content) => {
                let reason = "the server cannot convert it and sends a placeholder in its place; open it in the mailbox \
                    (Outlook can), or replay it after the server was mended";
                fail(cursor, &summary, reason).map(|mut message| {
                    let blob = attach(&mut message, raw, 0);
                    (message, blob)
                })
            }
            Ok(parsed) => {
                cursor.settle(summary.uid);
                Some(contact(numbering, &summary, raw, parsed))
            }
            // Tried again it would panic again, and again: put aside with its bytes.
            Err(_) => {
                cursor.settle(summary.uid);
                let reason = "a defect of Postroom: reading it failed; its bytes are kept as they came. Report the defect, and \
                    replay the message with a later version";
                let described = described(numbering, &summary, Disposition::Quarantined, reason);
                let mut message = ReportedMessage { attempt_count: 1, ..described };
                let blob = attach(&mut message, raw, 0);
                Some((message, blob))
            }
        },
    }
}

fn fail(cursor: &mut Cursor, summary: &Summary, reason: &str) -> Option<ReportedMessage> {
    let attempt_count = cursor.attempts(summary.uid).unwrap_or(0) + 1;
    match cursor.fail(summary.uid) {
        Verdict::Again => None,
        Verdict::GiveUp => {
            let described = described(cursor.numbering, summary, Disposition::Quarantined, reason);
            Some(ReportedMessage { attempt_count, size_bytes: summary.size, ..described })
        }
    }
}

fn contact(
    numbering: Numbering,
    summary: &Summary,
    raw: Bytes,
    parsed: parse::Parsed,
) -> (ReportedMessage, Option<(String, Bytes)>) {
    let mut message = described(numbering, summary, Disposition::Contact, "");
    // Of the headers alone, as they are fetched when the folder is numbered anew.
    message.fingerprint = fingerprint(&parse::headers(&raw));
    message.kind = classify(&parsed.signs).into();
    if message.kind() == ContactKind::Bounce {
        message.delivery_report = parse::delivery_report(&raw, &parsed.content);
    }
    let blob = attach(&mut message, raw, parsed.content.encoded_len());
    message.content = Some(parsed.content);
    (message, blob)
}

/// Puts the raw message into the report, or only its digest.
fn attach(message: &mut ReportedMessage, raw: Bytes, beside: usize) -> Option<(String, Bytes)> {
    message.size_bytes = raw.len() as u64;
    if raw.len() <= MAX_INLINE && raw.len() + beside <= MAX_TOGETHER {
        message.raw = Some(Raw::RawMessage(raw));
        return None;
    }
    let digest = data_encoding::HEXLOWER.encode(&Sha256::digest(&raw));
    message.raw = Some(Raw::RawDigest(digest.clone()));
    Some((digest, raw))
}

fn bare(numbering: Numbering, uid: u32, disposition: Disposition, reason: &str) -> ReportedMessage {
    ReportedMessage {
        source_key: source_key(numbering, uid),
        disposition: disposition.into(),
        reason: reason.to_owned(),
        ..ReportedMessage::default()
    }
}

fn described(numbering: Numbering, summary: &Summary, disposition: Disposition, reason: &str) -> ReportedMessage {
    let received_time = summary.received.map(to_timestamp);
    ReportedMessage { received_time, ..bare(numbering, summary.uid, disposition, reason) }
}

#[cfg(test)]
mod tests {
    use postroom_proto::v1::{self, ContactKind};

    use super::*;

    fn summary(uid: u32) -> Summary {
        Summary { uid, seen: false, received: Some(1_000_000), size: 10 }
    }

    fn got(uid: u32, raw: impl Into<Bytes>) -> Item {
        Item::Got(summary(uid), raw.into())
    }

    fn cursor() -> Cursor {
        Cursor::first(9, 1, Start::All)
    }

    #[test]
    fn each_report_carries_the_cursor_that_follows_it() {
        let mut cursor = cursor();
        let items = vec![got(1, "Subject: a\r\n\r\nx"), Item::Pass(2), got(3, "Subject: b\r\n\r\ny"), Item::Pass(4)];
        let drafts = draft(&mut cursor, items, 1);
        assert_eq!(drafts.iter().map(|d| d.next.done).collect::<Vec<_>>(), [2, 4]);
        assert_eq!(drafts[0].messages[0].source_key, "9:1");
        assert_eq!(drafts[0].messages[0].content.as_ref().map(|c| c.subject.as_str()), Some("a"));
        assert_eq!(drafts[0].messages[0].fingerprint.len(), 33);
        assert_eq!(cursor.done, 4);
    }

    #[test]
    fn only_passing_moves_the_cursor_without_a_report() {
        let mut cursor = cursor();
        assert!(draft(&mut cursor, vec![Item::Pass(7)], 10).is_empty());
        assert_eq!(cursor.done, 7);
    }

    #[test]
    fn a_message_that_fails_is_reported_at_the_third_time_only() {
        let mut cursor = cursor();
        for _ in 0..2 {
            assert!(draft(&mut cursor, vec![Item::Failed(summary(5), "no body".into())], 10).is_empty());
            assert_eq!(cursor.pending(), [5]);
        }
        let drafts = draft(&mut cursor, vec![Item::Failed(summary(5), "no body".into())], 10);
        let message = &drafts[0].messages[0];
        assert_eq!((message.disposition(), message.reason.as_str()), (Disposition::Quarantined, "no body"));
        assert_eq!((message.attempt_count, message.size_bytes), (3, 10), "its size is what the server says");
        assert!(drafts[0].next.pending().is_empty());
    }

    #[test]
    fn a_placeholder_ends_in_quarantine_with_its_bytes_and_delays_nobody() {
        let raw: &[u8] = b"From: \"Microsoft Exchange Server\" <x@x.example>\r\nSubject: s\r\n\r\n\
            Retrieval using the IMAP4 protocol failed for the following message: 7\r\n";
        let mut cursor = cursor();
        for attempt in 0..3 {
            let mut items = vec![got(5, raw)];
            items.extend((attempt == 0).then(|| got(6, "Subject: good\r\n\r\nx")));
            let drafts = draft(&mut cursor, items, 10);
            let found: Vec<_> =
                drafts.iter().flat_map(|draft| &draft.messages).map(ReportedMessage::disposition).collect();
            let expected = [&[Disposition::Contact][..], &[], &[Disposition::Quarantined]][attempt];
            assert_eq!(found, expected, "attempt {attempt}");
            if attempt == 2 {
                let message = &drafts[0].messages[0];
                assert_eq!(message.raw, Some(Raw::RawMessage(raw.into())));
                assert!(message.reason.contains("placeholder"), "{}", message.reason);
            }
        }
        assert!(cursor.pending().is_empty());
    }

    #[test]
    fn a_message_that_panics_its_reader_ends_in_quarantine_with_its_bytes_and_delays_nobody() {
        let reads: Reads = |raw| {
            assert!(!raw.starts_with(b"X"), "a defect");
            parse::parse(raw)
        };
        let large = Bytes::from([b"X".repeat(MAX_INLINE), b"y".to_vec()].concat());
        let items = vec![got(1, "X small"), got(2, "Subject: good\r\n\r\nx"), got(3, large.clone())];
        let mut cursor = cursor();
        let drafts = draft_with(reads, &mut cursor, items, 10);
        let messages: Vec<_> = drafts.iter().flat_map(|draft| &draft.messages).collect();
        let found: Vec<_> = messages.iter().map(|message| message.disposition()).collect();
        assert_eq!(found, [Disposition::Quarantined, Disposition::Contact, Disposition::Quarantined]);
        assert_eq!(messages[0].raw, Some(Raw::RawMessage("X small".into())));
        let Some(Raw::RawDigest(digest)) = &messages[2].raw else { panic!("not uploaded by itself") };
        assert_eq!(drafts[0].blobs, [(digest.clone(), large)]);
        assert!(messages[0].reason.contains("defect") && messages[0].content.is_none());
        assert_eq!((cursor.done, cursor.pending()), (3, vec![]));
    }

    #[test]
    fn the_kind_of_a_message_is_reported_with_it() {
        let drafts = draft(&mut cursor(), vec![got(1, "Auto-Submitted: auto-replied\r\n\r\nx"), got(2, "x")], 10);
        let kinds: Vec<_> = drafts[0].messages.iter().map(ReportedMessage::kind).collect();
        assert_eq!(kinds, [ContactKind::AutoReply, ContactKind::Normal]);
    }

    #[test]
    fn reports_stay_below_their_limit_and_large_bodies_go_by_themselves() {
        let mut cursor = cursor();
        let body = |size: usize| format!("Subject: s\r\n\r\n{}", "x".repeat(size));
        let mut items: Vec<Item> = (1..=20).map(|uid| got(uid, body(300_000))).collect();
        items.push(got(21, body(3_000_000)));
        let drafts = draft(&mut cursor, items, 200);
        assert!(drafts.len() > 3);
        for one in &drafts {
            let request = v1::ReportRequest { messages: one.messages.clone(), ..Default::default() };
            assert!(request.encoded_len() <= 3 * 1024 * 1024, "{}", request.encoded_len());
        }
        let last = drafts.last().expect("a report");
        assert_eq!(last.blobs.len(), 1);
        assert_eq!(last.blobs[0].1.len(), body(3_000_000).len());
        let message = last.messages.last().expect("a message");
        assert_eq!(message.raw, Some(Raw::RawDigest(last.blobs[0].0.clone())));
        assert_eq!(message.content.as_ref().map(|c| c.truncated.clone()), Some(vec!["text".to_owned()]));
    }

    #[test]
    fn a_message_by_itself_is_what_a_report_would_carry() {
        let raw = Bytes::from_static(b"Subject: a\r\n\r\nx");
        let (alone, blobs) = single(9.into(), summary(7), raw.clone()).expect("a message");
        assert_eq!(alone, draft(&mut cursor(), vec![got(7, raw)], 10)[0].messages[0]);
        assert_eq!((alone.source_key.as_str(), blobs.len()), ("9:7", 0));
        let (large, blobs) = single(9.into(), summary(8), Bytes::from(vec![b'x'; 3_000_000])).expect("a message");
        assert_eq!(large.raw, Some(Raw::RawDigest(blobs[0].0.clone())));
    }

    #[test]
    fn what_the_ledger_has_is_named_and_what_is_left_is_counted() {
        let mut cursor = cursor().renumber(8, 9, 0, None, 5);
        let known = Known { original: "17".into(), fingerprint: vec![2, 3] };
        let items = vec![Item::Known(summary(4), known), Item::Left(5), got(6, "Subject: a\r\n\r\nx"), Item::Pass(8)];
        let drafts = draft(&mut cursor, items, 10);
        let [duplicate, new] = drafts[0].messages.as_slice() else { panic!("{drafts:?}") };
        assert_eq!((duplicate.source_key.as_str(), duplicate.disposition()), ("8.1:4", Disposition::Duplicate));
        assert_eq!((duplicate.duplicate_of.as_str(), duplicate.size_bytes), ("17", 10));
        assert!(duplicate.fingerprint == [2, 3] && duplicate.raw.is_none() && duplicate.received_time.is_some());
        assert_eq!((new.source_key.as_str(), new.disposition()), ("8.1:6", Disposition::Contact));
        let counted = cursor.renumbered().expect("it was numbered anew");
        assert_eq!((counted.known, counted.new, counted.left, cursor.done), (1, 1, 1, 8));
    }

    #[test]
    fn what_is_gone_or_too_large_is_said() {
        let mut cursor = cursor();
        let drafts = draft(&mut cursor, vec![Item::Vanished(1), Item::TooLarge(summary(2), 99)], 10);
        let dispositions: Vec<_> = drafts[0].messages.iter().map(ReportedMessage::disposition).collect();
        assert_eq!(dispositions, [Disposition::Vanished, Disposition::TooLarge]);
        assert!(drafts[0].messages[1].reason.contains("99"));
        assert_eq!(drafts[0].messages[1].size_bytes, 99);
    }
}

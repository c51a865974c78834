//! Whatever the bytes: a small contact, in time and memory bounded by the message.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod charsets;
mod corpus;
mod hostile;
mod offsets;
mod properties;

use postroom_proto::v1::{Attachment, ContactContent};
use postroom_worker::contact::parse::{MAX_ATTACHMENTS, MAX_BODY, MAX_HEADERS, parse};
use prost::Message as _;

/// Reads a message, and fails where what must hold of every message does not.
pub(crate) fn checked(raw: &[u8]) -> ContactContent {
    let content = parse(raw).content;
    assert!(content.text.len() <= MAX_BODY && content.html.len() <= MAX_BODY);
    let rest = ContactContent { text: String::new(), html: String::new(), ..content.clone() };
    assert!(rest.encoded_len() < 2 * MAX_HEADERS, "{} bytes of headers", rest.encoded_len());
    assert!(content.attachments.len() <= MAX_ATTACHMENTS);
    for cut in &content.truncated {
        assert!(["text", "html", "headers", "attachments"].contains(&cut.as_str()), "{cut}");
    }
    let texts = [&content.text, &content.html, &content.subject, &content.message_id];
    assert!(texts.iter().all(|text| !text.contains('\0')), "a null character");
    assert!(!words(&content).iter().any(|word| word.chars().any(char::is_control)), "a control character in a header");
    if let Some(date) = &content.date_time {
        assert!((-62_135_596_800..=253_402_300_799).contains(&date.seconds), "no timestamp: {date:?}");
    }
    let mut end = 0;
    for (index, attachment) in content.attachments.iter().enumerate() {
        assert_eq!(attachment.index as usize, index);
        assert!(attachment.raw_offset >= end, "attachments follow each other: {attachment:?}");
        end = attachment.raw_offset + attachment.raw_bytes;
        assert!(end <= raw.len() as u64, "beyond the message: {attachment:?}");
        let decoded = offsets::decoded(written(raw, attachment), attachment.encoding());
        assert_eq!(decoded.len() as u64, attachment.size_bytes, "{attachment:?}");
    }
    content
}

/// All that stands in one line.
fn words(content: &ContactContent) -> Vec<&String> {
    let people = [&content.from, &content.to, &content.cc, &content.reply_to].into_iter().flatten();
    let ids = content.in_reply_to.iter().chain(&content.references).chain([&content.subject, &content.message_id]);
    let names = content.attachments.iter().flat_map(|one| [&one.name, &one.media_type, &one.content_id]);
    people.flat_map(|one| [&one.name, &one.address]).chain(ids).chain(names).collect()
}

/// The bytes of an attachment as they stand in the message.
pub(crate) fn written<'m>(raw: &'m [u8], attachment: &Attachment) -> &'m [u8] {
    let begin = usize::try_from(attachment.raw_offset).unwrap();
    &raw[begin..begin + usize::try_from(attachment.raw_bytes).unwrap()]
}

//! A message as it came from a mail server.

use postroom_proto::v1::{Attachment, TransferEncoding};
use postroom_worker::contact::classify::classify;
use postroom_worker::contact::parse::{
    MAX_ADDRESSES, MAX_ATTACHMENTS, MAX_BODY, MAX_SUBJECT, delivery_report, headers, is_placeholder, parse,
};
use prost::Message as _;

/// A contact of a message must fit into a report of 3 MiB beside its own raw bytes, of which a report carries 1 MiB.
const MOST_CONTENT: usize = 2 * MAX_BODY + 512 * 1024;

/// Reads a message: to contact content, kind, and the mail that a bounce returns.
///
/// # Panics
/// When something is read that must not be: what a contact shows is bounded and has no null characters, attachments lie
/// within the message, and the header alone says what the whole says.
pub fn message(raw: &[u8]) {
    let parsed = parse(raw);
    let content = &parsed.content;
    assert!(content.text.len() <= MAX_BODY && content.html.len() <= MAX_BODY, "a body is bounded");
    assert!(!content.text.contains('\0') && !content.html.contains('\0'), "no store takes null characters");
    assert!(content.subject.len() <= MAX_SUBJECT, "the subject is bounded");
    let addresses = content.from.len() + content.to.len() + content.cc.len() + content.reply_to.len();
    assert!(addresses <= MAX_ADDRESSES, "addresses are bounded");
    assert!(content.attachments.len() <= MAX_ATTACHMENTS, "attachments are bounded");
    content.attachments.iter().for_each(|attachment| lies_within(raw, attachment));
    assert!(content.encoded_len() <= MOST_CONTENT, "it fits into a report: {}", content.encoded_len());
    // Whatever it says of these, it says without an end.
    let _ = (classify(&parsed.signs), is_placeholder(content), delivery_report(raw, content));

    let known = headers(raw);
    assert_eq!(known.message_id, content.message_id, "a message is known again by its header");
    assert_eq!(known.date_time, content.date_time);
}

fn lies_within(raw: &[u8], attachment: &Attachment) {
    if attachment.encoding() == TransferEncoding::Unspecified {
        return;
    }
    let end = attachment.raw_offset.checked_add(attachment.raw_bytes);
    assert!(end.is_some_and(|end| end <= raw.len() as u64), "{attachment:?} of {} bytes", raw.len());
}

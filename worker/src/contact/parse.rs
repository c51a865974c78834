//! Raw message to contact content (RFC 5322, MIME). Never fails and never panics, whatever the bytes.
//!
//! The only place that knows mail-parser.

use mail_parser::decoders::html::html_to_text;
use mail_parser::{Address, HeaderValue, Message, MessageParser, MessagePart, MimeHeaders as _, PartType};
use postroom_proto::v1::{Attachment, ContactContent, EmailAddress};

/// Most text, and most HTML, that a contact carries.
pub const MAX_BODY: usize = 1024 * 1024;
/// Longest subject.
pub const MAX_SUBJECT: usize = 2 * 1024;
/// Most addresses in all headers together.
pub const MAX_ADDRESSES: usize = 500;
/// Most ids in In-Reply-To and in References.
const MAX_IDS: usize = 200;
/// Most attachments listed.
const MAX_ATTACHMENTS: usize = 500;
/// Longest single name, address or id.
const MAX_WORD: usize = 1000;
/// Most of what is not capped by itself, in bytes together, so that headers alone never fill a report.
const MAX_HEADERS: usize = 256 * 1024;

/// What is read out of `raw`. What was cut off is named in `truncated`; the raw message has it all.
pub fn parse(raw: &[u8]) -> ContactContent {
    match MessageParser::default().parse(raw) {
        Some(message) => read(&message),
        // No header at all: everything is text.
        None => {
            let mut caps = Caps::default();
            let text = caps.body(String::from_utf8_lossy(raw).into_owned(), "text");
            caps.finish(ContactContent { text, ..ContactContent::default() })
        }
    }
}

/// True for what Exchange sends in place of a message that it cannot convert: no contact, but a message to try again.
pub fn is_placeholder(content: &ContactContent) -> bool {
    let from_exchange = content.from.iter().any(|from| from.name.starts_with("Microsoft Exchange"));
    from_exchange && content.text.trim_start().starts_with("Retrieval using the IMAP4 protocol failed")
}

fn read(message: &Message<'_>) -> ContactContent {
    let mut caps = Caps::default();
    let html = join(message.html_body.iter().filter_map(|id| match &message.parts.get(*id as usize)?.body {
        PartType::Html(html) => Some(html.as_ref()),
        _ => None,
    }));
    let texts = join(message.text_body.iter().filter_map(|id| match &message.parts.get(*id as usize)?.body {
        PartType::Text(text) => Some(text.as_ref()),
        _ => None,
    }));
    let html = caps.body(html, "html");
    // Made from the capped html: the parser of html is quadratic on some inputs, and more would be cut off anyway.
    let text = if texts.trim().is_empty() && !html.is_empty() { html_to_text(&html) } else { texts };
    let text = caps.body(text, "text");
    let content = ContactContent {
        from: caps.addresses(message.from()),
        to: caps.addresses(message.to()),
        cc: caps.addresses(message.cc()),
        reply_to: caps.addresses(message.reply_to()),
        subject: caps.word(message.subject().unwrap_or_default(), MAX_SUBJECT),
        text,
        html,
        attachments: caps.attachments(message),
        message_id: caps.word(bare_id(message.message_id().unwrap_or_default()), MAX_WORD),
        in_reply_to: caps.ids(message.in_reply_to()),
        references: caps.ids(message.references()),
        date_time: date(message),
        truncated: Vec::new(),
    };
    caps.finish(content)
}

fn join<'t>(parts: impl Iterator<Item = &'t str>) -> String {
    let mut joined = String::new();
    for part in parts {
        if !joined.is_empty() {
            joined.push('\n');
        }
        joined.push_str(part);
        // What follows would be cut off: do not copy it.
        if joined.len() > MAX_BODY {
            break;
        }
    }
    joined
}

fn date(message: &Message<'_>) -> Option<prost_types::Timestamp> {
    let date = message.date()?;
    // The parser takes any number for a month or an hour; only real dates count.
    (date.is_valid() && date.year >= 1).then(|| prost_types::Timestamp { seconds: date.to_timestamp(), nanos: 0 })
}

fn bare_id(id: &str) -> &str {
    id.trim().trim_start_matches('<').trim_end_matches('>')
}

/// Cuts, and remembers what was cut.
#[derive(Default)]
struct Caps {
    addresses: usize,
    header_bytes: usize,
    cut: [bool; 3],
}

const NAMES: [&str; 3] = ["text", "html", "headers"];

impl Caps {
    fn mark(&mut self, name: &str) {
        for (cut, known) in self.cut.iter_mut().zip(NAMES) {
            *cut |= known == name;
        }
    }

    fn finish(self, content: ContactContent) -> ContactContent {
        let cut = self.cut.iter().zip(NAMES).filter(|(cut, _)| **cut);
        ContactContent { truncated: cut.map(|(_, name)| name.to_owned()).collect(), ..content }
    }

    fn body(&mut self, mut body: String, name: &str) -> String {
        if body.len() > MAX_BODY {
            body.truncate(boundary(&body, MAX_BODY));
            self.mark(name);
        }
        body
    }

    fn word(&mut self, text: &str, max: usize) -> String {
        let room = max.min(MAX_HEADERS.saturating_sub(self.header_bytes));
        let end = boundary(text, room);
        if end < text.len() {
            self.mark("headers");
        }
        self.header_bytes += end;
        text[..end].to_owned()
    }

    fn addresses(&mut self, list: Option<&Address<'_>>) -> Vec<EmailAddress> {
        let mut taken = Vec::new();
        for one in list.into_iter().flat_map(Address::iter) {
            if self.addresses >= MAX_ADDRESSES || self.header_bytes >= MAX_HEADERS {
                self.mark("headers");
                break;
            }
            let name = self.word(one.name().unwrap_or_default(), MAX_WORD);
            let address = self.word(one.address().unwrap_or_default().trim(), MAX_WORD);
            if name.is_empty() && address.is_empty() {
                continue;
            }
            self.addresses += 1;
            taken.push(EmailAddress { name, address });
        }
        taken
    }

    fn ids(&mut self, value: &HeaderValue<'_>) -> Vec<String> {
        let all: Vec<&str> = match value {
            HeaderValue::Text(id) => vec![id.as_ref()],
            HeaderValue::TextList(ids) => ids.iter().map(AsRef::as_ref).collect(),
            _ => Vec::new(),
        };
        if all.len() > MAX_IDS {
            self.mark("headers");
        }
        // The newest are last, and they are what threads hang on.
        let newest = &all[all.len().saturating_sub(MAX_IDS)..];
        let ids = newest.iter().map(|id| self.word(bare_id(id), MAX_WORD));
        ids.collect::<Vec<_>>().into_iter().filter(|id| !id.is_empty()).collect()
    }

    fn attachments(&mut self, message: &Message<'_>) -> Vec<Attachment> {
        if message.attachments.len() > MAX_ATTACHMENTS {
            self.mark("headers");
        }
        let parts = message.attachments.iter().take(MAX_ATTACHMENTS).enumerate();
        let parts = parts.filter_map(|(index, id)| Some((index, message.parts.get(*id as usize)?)));
        parts.map(|(index, part)| self.attachment(index, part)).collect()
    }

    fn attachment(&mut self, index: usize, part: &MessagePart<'_>) -> Attachment {
        let size = match &part.body {
            PartType::Text(text) | PartType::Html(text) => text.len(),
            PartType::Binary(bytes) | PartType::InlineBinary(bytes) => bytes.len(),
            PartType::Message(message) => message.raw_message.len(),
            PartType::Multipart(_) => 0,
        };
        Attachment {
            index: u32::try_from(index).unwrap_or(u32::MAX),
            name: self.word(part.attachment_name().unwrap_or_default(), 255),
            media_type: self.word(&media_type(part), 127),
            size_bytes: size as u64,
            content_id: self.word(bare_id(part.content_id().unwrap_or_default()), MAX_WORD),
            ..Attachment::default()
        }
    }
}

fn media_type(part: &MessagePart<'_>) -> String {
    match (part.content_type(), &part.body) {
        (Some(kind), _) => {
            let subtype = kind.c_subtype.as_deref().unwrap_or("octet-stream");
            format!("{}/{subtype}", kind.c_type).to_lowercase()
        }
        (None, PartType::Text(_)) => "text/plain".into(),
        (None, PartType::Html(_)) => "text/html".into(),
        (None, PartType::Message(_)) => "message/rfc822".into(),
        (None, _) => "application/octet-stream".into(),
    }
}

/// The last place at or before `max` where `text` may be cut.
fn boundary(text: &str, max: usize) -> usize {
    if text.len() <= max { text.len() } else { (0..=max).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message as _;

    use super::*;

    const MIXED: &str = "From: =?utf-8?q?J=C3=BCrgen?= <j@contoso.example>\r\nTo: a@x.example, \"B, C\" <b@x.example>\r\n\
        Cc: G: c@x.example;\r\nReply-To: r@x.example\r\nSubject: =?utf-8?b?w4RydGVy?=\r\nMessage-ID: <1@contoso.example>\r\n\
        In-Reply-To: <0@x.example>\r\nReferences: <a@x.example>\r\n <0@x.example>\r\n\
        Date: Mon, 1 Jan 2024 10:00:00 +0100\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n\
        --b\r\nContent-Type: text/html; charset=utf-8\r\n\r\n<p>Hello <b>you</b></p>\r\n\
        --b\r\nContent-Type: Application/PDF; name=\"bill.pdf\"\r\nContent-Disposition: attachment; filename=\"bill.pdf\"\r\n\
        Content-Transfer-Encoding: base64\r\nContent-ID: <cid1@x>\r\n\r\nAAECAw==\r\n--b--\r\n";

    #[test]
    fn a_message_with_html_and_an_attachment() {
        let content = parse(MIXED.as_bytes());
        assert_eq!(content.from[0], EmailAddress { name: "Jürgen".into(), address: "j@contoso.example".into() });
        let to: Vec<_> = content.to.iter().map(|to| to.address.as_str()).collect();
        assert_eq!(to, ["a@x.example", "b@x.example"]);
        assert_eq!(content.cc[0].address, "c@x.example");
        assert_eq!(content.reply_to[0].address, "r@x.example");
        assert_eq!(content.subject, "Ärter");
        assert_eq!(content.message_id, "1@contoso.example");
        assert_eq!(content.in_reply_to, ["0@x.example"]);
        assert_eq!(content.references, ["a@x.example", "0@x.example"]);
        assert_eq!(content.date_time.map(|date| date.seconds), Some(1_704_099_600));
        assert!(content.html.contains("<b>you</b>"));
        assert!(content.text.contains("Hello you"), "{:?}", content.text);
        let attachment = &content.attachments[0];
        assert_eq!((attachment.name.as_str(), attachment.media_type.as_str()), ("bill.pdf", "application/pdf"));
        assert_eq!((attachment.size_bytes, attachment.content_id.as_str()), (4, "cid1@x"));
        assert!(content.truncated.is_empty());
    }

    #[test]
    fn a_plain_message_keeps_its_text_and_has_no_html() {
        let content = parse(b"Subject: s\r\n\r\nline one\r\nline two\r\n");
        assert!(content.text.starts_with("line one"), "{:?}", content.text);
        assert_eq!(content.html, "");
    }

    #[test]
    fn too_much_is_cut_and_named() {
        let many: Vec<String> = (0..800).map(|n| format!("u{n}@x.example")).collect();
        let body = "ä".repeat(MAX_BODY);
        let raw = format!(
            "To: {}\r\nSubject: {}\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n{body}",
            many.join(",\r\n "),
            "s".repeat(3000)
        );
        let content = parse(raw.as_bytes());
        assert_eq!(content.to.len(), MAX_ADDRESSES);
        assert_eq!(content.subject.len(), MAX_SUBJECT);
        assert!(content.text.len() <= MAX_BODY);
        assert_eq!(content.truncated, ["text", "headers"]);
    }

    #[test]
    fn what_exchange_sends_in_place_of_a_message_is_known() {
        let body = "Retrieval using the IMAP4 protocol failed for the following message: 7\r\n";
        let raw = format!("From: \"Microsoft Exchange Server 2010\" <x@x.example>\r\nSubject: s\r\n\r\n{body}");
        assert!(is_placeholder(&parse(raw.as_bytes())));
        let quoted = format!("From: \"A customer\" <x@x.example>\r\nSubject: s\r\n\r\n{body}");
        assert!(!is_placeholder(&parse(quoted.as_bytes())));
    }

    #[test]
    fn deep_nesting_does_no_harm() {
        let mut raw = String::new();
        for level in 0..5000 {
            raw.push_str(&format!("Content-Type: multipart/mixed; boundary=b{level}\r\n\r\n--b{level}\r\n"));
        }
        assert!(parse(raw.as_bytes()).encoded_len() < 3 * MAX_BODY);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_become_a_small_contact(raw in proptest::collection::vec(any::<u8>(), 0..4000)) {
            let content = parse(&raw);
            prop_assert!(content.encoded_len() < 2 * MAX_BODY + 2 * MAX_HEADERS);
        }

        #[test]
        fn damaged_messages_become_a_contact(
            cuts in proptest::collection::vec((0usize..900, any::<u8>()), 0..40),
            end in 0usize..1200,
        ) {
            let mut raw = MIXED.as_bytes().to_vec();
            for (at, byte) in cuts {
                if at < raw.len() {
                    raw[at] = byte;
                }
            }
            raw.truncate(end);
            parse(&raw);
        }
    }
}

//! Raw message to contact content (RFC 5322, MIME). Never fails and never panics, whatever the bytes.
//!
//! The work is bounded by the length of the message, whatever is in it: `fields` and `parts` look at each line once, and
//! give mail-parser single values and bodies of bounded length. Only this folder knows mail-parser.

use std::borrow::Cow;

use postroom_proto::v1::{Attachment, ContactContent, TransferEncoding};

use self::body::{decode, html_to_text, size, to_text, unflow};
use self::caps::{Caps, Cut, MAX_WORD};
pub use self::caps::{MAX_ADDRESSES, MAX_ATTACHMENTS, MAX_BODY, MAX_HEADERS, MAX_SUBJECT};
use self::fields::Fields;
use self::parts::{Encoding, Leaf, Parts, divide};
pub use self::report::delivery_report;
use super::classify::Signs;

mod body;
mod caps;
mod fields;
mod parts;
mod report;
mod values;

/// Most encoded bytes of one text that are decoded. Enough for [`MAX_BODY`] in every charset and encoding.
const MAX_ENCODED: usize = 8 * MAX_BODY;
/// Longest value that is looked at for the kind of a message.
const MAX_SIGN: usize = 1000;

/// What is read out of a message.
#[derive(Debug, Clone, Default)]
pub struct Parsed {
    /// What the contact shows. What was cut off is named in `truncated`; the raw message has it all.
    pub content: ContactContent,
    /// What tells the kind of the message.
    pub signs: Signs,
}

/// Reads `raw`.
pub fn parse(raw: &[u8]) -> Parsed {
    read(raw, &divide(&with_line_ends(raw)))
}

/// The same where lines end by CR alone, as in another age. A copy has the same length, so that offsets are the same.
fn with_line_ends(raw: &[u8]) -> Cow<'_, [u8]> {
    if raw.contains(&b'\n') || !raw.contains(&b'\r') {
        return raw.into();
    }
    raw.iter().map(|byte| if *byte == b'\r' { b'\n' } else { *byte }).collect()
}

/// Reads Message-ID, Date, From, To and Subject of a message, or of its header section alone: the same of both, since
/// nothing else of the message says how they are to be read.
pub fn headers(raw: &[u8]) -> ContactContent {
    let raw = with_line_ends(raw);
    let (fields, _) = fields::section(&raw, 0, |_| false);
    let mut caps = Caps::default();
    ContactContent {
        message_id: ids(fields.get("message-id"), &mut caps).into_iter().next().unwrap_or_default(),
        date_time: date(&fields),
        from: addresses(fields.get("from"), "", &mut caps),
        subject: subject(&fields, "", &mut caps),
        to: addresses(fields.all("to"), "", &mut caps),
        ..ContactContent::default()
    }
}

/// True for what Exchange sends in place of a message that it cannot convert: no contact, but a message to try again.
pub fn is_placeholder(content: &ContactContent) -> bool {
    let from_exchange = content.from.iter().any(|from| from.name.starts_with("Microsoft Exchange"));
    from_exchange && content.text.trim_start().starts_with("Retrieval using the IMAP4 protocol failed")
}

fn read(raw: &[u8], message: &Parts<'_>) -> Parsed {
    let mut caps = Caps::default();
    caps.mark(Cut::Attachments, message.cut);
    caps.mark(Cut::Headers, message.fields.cut);
    let (bodies, attached): (Vec<&Leaf>, Vec<&Leaf>) = message.leaves.iter().partition(|leaf| is_body(leaf));
    let charset = bodies.first().map(|leaf| leaf.kind.charset.as_str()).unwrap_or_default();
    let text = text(raw, &bodies, &mut caps);
    let html = html(raw, &bodies, &mut caps);
    let fields = &message.fields;
    let content = ContactContent {
        from: addresses(fields.get("from"), charset, &mut caps),
        subject: subject(fields, charset, &mut caps),
        message_id: ids(fields.get("message-id"), &mut caps).into_iter().next().unwrap_or_default(),
        in_reply_to: ids(fields.get("in-reply-to"), &mut caps),
        references: ids(fields.get("references"), &mut caps),
        reply_to: addresses(fields.get("reply-to"), charset, &mut caps),
        to: addresses(fields.all("to"), charset, &mut caps),
        cc: addresses(fields.all("cc"), charset, &mut caps),
        date_time: date(fields),
        attachments: attachments(raw, &attached, &mut caps),
        text,
        html,
        truncated: Vec::new(),
    };
    let signs = signs(message, &content);
    Parsed { content: caps.finish(content), signs }
}

/// True for a part that is read as part of the message and not beside it (RFC 8621 section 4.1.4): text that is neither
/// said nor named to be a file.
fn is_body(leaf: &Leaf) -> bool {
    let is_text = matches!(leaf.kind.name.as_str(), "text/plain" | "text/html");
    let is_file = !file_name(leaf).is_empty() || leaf.in_related;
    is_text && !leaf.disposition.is_attachment && (leaf.is_first || !is_file)
}

fn file_name(leaf: &Leaf) -> &str {
    if leaf.disposition.file.is_empty() { &leaf.kind.file } else { &leaf.disposition.file }
}

fn written(raw: &[u8], leaf: &Leaf, caps: &mut Caps, what: Cut) -> String {
    let (bytes, cut) = decode(leaf.encoding, &raw[leaf.body.clone()], MAX_ENCODED);
    caps.mark(what, cut);
    let text = to_text(&bytes, &leaf.kind.charset);
    if leaf.kind.flowed && leaf.kind.name == "text/plain" { unflow(&text, leaf.kind.delsp) } else { text }
}

fn is_html(leaf: &Leaf) -> bool {
    leaf.kind.name == "text/html"
}

/// The text of all parts, in their order. Of alternatives the plain one is taken, unless nothing is in it.
fn text(raw: &[u8], bodies: &[&Leaf], caps: &mut Caps) -> String {
    let mut joined = String::new();
    let mut chosen = Vec::new();
    for leaf in bodies {
        // Alternatives are taken all at once, where the first of them stands.
        let group: Vec<&&Leaf> = match leaf.choice {
            Some(choice) if chosen.contains(&choice) => continue,
            Some(choice) => {
                chosen.push(choice);
                bodies.iter().filter(|other| other.choice == Some(choice)).collect()
            }
            None => vec![leaf],
        };
        let mut read = |wanted: bool| -> Vec<String> {
            let of_kind = group.iter().filter(|leaf| is_html(leaf) == wanted);
            of_kind
                .map(|leaf| {
                    let text = written(raw, leaf, caps, Cut::Text);
                    // What is made of the rest would be cut off.
                    if wanted { html_to_text(&caps.body(text, Cut::Text)) } else { text }
                })
                .collect()
        };
        let mut texts = read(false);
        if texts.iter().all(|text| text.trim().is_empty()) {
            texts = read(true);
        }
        for text in texts.iter().filter(|text| !text.is_empty()) {
            append(&mut joined, text);
        }
        if joined.len() > MAX_BODY {
            break;
        }
    }
    caps.body(joined, Cut::Text)
}

/// The HTML of all parts that are HTML, in their order.
fn html(raw: &[u8], bodies: &[&Leaf], caps: &mut Caps) -> String {
    let mut joined = String::new();
    for leaf in bodies.iter().filter(|leaf| is_html(leaf)) {
        append(&mut joined, &written(raw, leaf, caps, Cut::Html));
        if joined.len() > MAX_BODY {
            break;
        }
    }
    caps.body(joined, Cut::Html)
}

fn append(joined: &mut String, text: &str) {
    if !joined.is_empty() && !joined.ends_with('\n') {
        joined.push('\n');
    }
    joined.push_str(text);
}

fn date(fields: &Fields<'_>) -> Option<prost_types::Timestamp> {
    let seconds = fields.get("date").and_then(values::date)?;
    Some(prost_types::Timestamp { seconds, nanos: 0 })
}

fn subject(fields: &Fields<'_>, charset: &str, caps: &mut Caps) -> String {
    let (subject, cut) = fields.get("subject").map(|value| values::text(value, charset)).unwrap_or_default();
    caps.mark(Cut::Headers, cut);
    caps.word(&subject, MAX_SUBJECT)
}

fn addresses<'m>(
    values: impl IntoIterator<Item = &'m [u8]>,
    charset: &str,
    caps: &mut Caps,
) -> Vec<postroom_proto::v1::EmailAddress> {
    let mut all = Vec::new();
    for value in values {
        let (list, cut) = values::addresses(value, charset);
        caps.mark(Cut::Headers, cut);
        all.extend(caps.addresses(list));
    }
    all
}

fn ids(value: Option<&[u8]>, caps: &mut Caps) -> Vec<String> {
    let (ids, cut) = value.map(values::ids).unwrap_or_default();
    caps.mark(Cut::Headers, cut);
    caps.ids(&ids)
}

fn attachments(raw: &[u8], leaves: &[&Leaf], caps: &mut Caps) -> Vec<Attachment> {
    caps.mark(Cut::Attachments, leaves.len() > MAX_ATTACHMENTS);
    let listed = leaves.iter().take(MAX_ATTACHMENTS).zip(0u32..);
    listed.map(|(leaf, index)| attachment(raw, leaf, index, caps)).collect()
}

fn attachment(raw: &[u8], leaf: &Leaf, index: u32, caps: &mut Caps) -> Attachment {
    let written = &raw[leaf.body.clone()];
    let encoding = match leaf.encoding {
        Encoding::Identity => TransferEncoding::Identity,
        Encoding::Base64 => TransferEncoding::Base64,
        Encoding::QuotedPrintable => TransferEncoding::QuotedPrintable,
    };
    Attachment {
        index,
        name: caps.word(file_name(leaf), 255),
        media_type: caps.word(&leaf.kind.name, 127),
        size_bytes: size(leaf.encoding, written) as u64,
        content_id: caps.word(&leaf.id, MAX_WORD),
        raw_offset: leaf.body.start as u64,
        raw_bytes: written.len() as u64,
        encoding: encoding.into(),
        // The control plane makes it.
        file_name: String::new(),
    }
}

fn signs(message: &Parts<'_>, content: &ContactContent) -> Signs {
    let value = |value: &[u8]| String::from_utf8_lossy(&value[..value.len().min(MAX_SIGN)]).trim().to_lowercase();
    let calendar = message.leaves.iter().map(|leaf| &leaf.kind).find(|kind| kind.name == "text/calendar");
    Signs {
        fields: message.fields.iter().map(|(name, field)| (name, value(field))).collect(),
        media_type: message.kind.name.clone(),
        report_type: message.kind.report.clone(),
        parts: message.leaves.iter().map(|leaf| leaf.kind.name.clone()).collect(),
        calendar_method: calendar.map(|kind| kind.method.clone()),
        from: content.from.first().map(|from| from.address.to_lowercase()).unwrap_or_default(),
        subject: content.subject.to_lowercase(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message as _;

    use postroom_proto::v1::EmailAddress;

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
        let content = parse(MIXED.as_bytes()).content;
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
    fn the_headers_alone_say_the_same_as_the_whole_message() {
        let alone = |names: &[&str]| {
            let of = |line: &&str| names.iter().any(|name| line.starts_with(name));
            let end = MIXED.find("\r\n\r\n").expect("an end");
            let mut kept: String = MIXED[..end].split("\r\n").filter(of).flat_map(|line| [line, "\r\n"]).collect();
            kept.push_str("\r\n");
            kept
        };
        let some = alone(&["From", "To", "Subject", "Message-ID", "Date"]);
        let read = headers(some.as_bytes());
        assert_eq!(read, headers(MIXED.as_bytes()));
        let whole = parse(MIXED.as_bytes()).content;
        assert_eq!(postroom_proto::fingerprint::fingerprint(&read), postroom_proto::fingerprint::fingerprint(&whole));
        assert_eq!((read.message_id, read.subject), (whole.message_id, whole.subject));
        assert_eq!((read.from, read.to, read.date_time), (whole.from, whole.to, whole.date_time));
        assert_ne!(headers(alone(&["From", "To"]).as_bytes()), headers(some.as_bytes()));
        let old = MIXED.replace("\r\n", "\r");
        assert_eq!(headers(old.as_bytes()), headers(MIXED.as_bytes()), "line ends do not matter");
    }

    #[test]
    fn absurd_headers_are_read_alike_alone_and_in_a_message() {
        use postroom_proto::fingerprint::fingerprint;
        let long = format!("<{}@x.example>", "m".repeat(10_000));
        for id in ["", " ", "<>", "<a>\r\n <b>", "\u{1}\u{2}\0", "no brackets", long.as_str()] {
            let header =
                format!("Message-ID: {id}\r\nDate: never\r\nTo: a@x.example\r\nTo: b@x.example\r\nSubject: s\r\n\r\n");
            let whole = format!("X-Other: 1\r\n{header}Message-ID: <in-the-body@x>\r\n\r\ntext");
            assert_eq!(fingerprint(&headers(header.as_bytes())), fingerprint(&headers(whole.as_bytes())), "{id:?}");
        }
        // Latin-1 in a field that names no charset, and a body that names another.
        let latin = b"Subject: caf\xe9 no 1\r\nContent-Type: text/plain; charset=koi8-r\r\n\r\nx";
        assert_eq!(fingerprint(&headers(latin)), fingerprint(&parse(latin).content));
    }

    #[test]
    fn a_plain_message_keeps_its_text_and_has_no_html() {
        let content = parse(b"Subject: s\r\n\r\nline one\r\nline two\r\n").content;
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
        let content = parse(raw.as_bytes()).content;
        assert_eq!(content.to.len(), MAX_ADDRESSES);
        assert_eq!(content.subject.len(), MAX_SUBJECT);
        assert!(content.text.len() <= MAX_BODY);
        assert_eq!(content.truncated, ["text", "headers"]);
    }

    #[test]
    fn what_exchange_sends_in_place_of_a_message_is_known() {
        let body = "Retrieval using the IMAP4 protocol failed for the following message: 7\r\n";
        let raw = format!("From: \"Microsoft Exchange Server 2010\" <x@x.example>\r\nSubject: s\r\n\r\n{body}");
        assert!(is_placeholder(&parse(raw.as_bytes()).content));
        let quoted = format!("From: \"A customer\" <x@x.example>\r\nSubject: s\r\n\r\n{body}");
        assert!(!is_placeholder(&parse(quoted.as_bytes()).content));
    }

    #[test]
    fn deep_nesting_does_no_harm() {
        let mut raw = String::new();
        for level in 0..5000 {
            raw.push_str(&format!("Content-Type: multipart/mixed; boundary=b{level}\r\n\r\n--b{level}\r\n"));
        }
        assert!(parse(raw.as_bytes()).content.encoded_len() < 3 * MAX_BODY);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_become_a_small_contact(raw in proptest::collection::vec(any::<u8>(), 0..4000)) {
            let content = parse(&raw).content;
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

//! What is put into a mail is what mail-parser reads out of it.

use mail_parser::{Address as Parsed, Encoding, HeaderValue, MessageParser, MessagePart, MimeHeaders as _, PartType};
use proptest::prelude::*;

use super::*;
use crate::ledger::outbox::Lane;

const NOW: Micros = 1_772_366_400_000_000;

fn address(name: &str, address: &str) -> EmailAddress {
    EmailAddress { name: name.into(), address: address.into() }
}

fn mail() -> Composition {
    Composition {
        lane: Lane::new("i", "q", "billing@contoso.example"),
        instance: "core1".into(),
        queue: "Billing".into(),
        contact: "c1".into(),
        from: address("Rechnung, Köln", "billing@contoso.example"),
        recipients: vec![
            (RecipientKind::To, address("Ada \"the\" Countess", "ada@fabrikam.example")),
            (RecipientKind::Cc, address("", "bob@xn--r8jz45g.example")),
            (RecipientKind::Bcc, address("Secret", "secret@fabrikam.example")),
        ],
        subject: "Re: Rechnung für März".into(),
        text: "Grüße\n.\nFrom me\n".into(),
        html: String::new(),
        automatic: false,
        in_reply_to: Some("one@x".into()),
        references: vec!["zero@x".into(), "one@x".into()],
    }
}

fn file(name: &str, content_id: &str, bytes: &[u8]) -> Attachment {
    Attachment {
        name: name.into(),
        media_type: "text/plain".into(),
        content_id: content_id.into(),
        bytes: bytes.to_vec(),
    }
}

fn composed(mail: &Composition, files: Vec<Attachment>) -> String {
    let bytes = compose(mail, "id-1@contoso.example", files, NOW);
    let text = String::from_utf8(bytes).unwrap();
    assert!(text.is_ascii(), "{text}");
    assert!(!text.replace("\r\n", "").contains(['\r', '\n']), "lines end with CRLF: {text:?}");
    assert!(text.bytes().all(|b| b >= b' ' || matches!(b, b'\r' | b'\n' | b'\t')), "{text:?}");
    for line in text.split("\r\n") {
        assert!(line.len() <= 998, "{line}");
    }
    text
}

/// What a file holds, as it stands in the mail: the parser's own contents of a text are those in UTF-8.
fn bytes_of(text: &str, part: &MessagePart<'_>) -> Vec<u8> {
    assert_eq!(part.encoding, Encoding::Base64);
    let body = &text[part.offset_body as usize..part.offset_end as usize];
    BASE64.decode(body.replace("\r\n", "")).unwrap()
}

/// Names of all headers of the mail, in their order.
fn header_names(text: &str) -> Vec<&str> {
    let head = text.split_once("\r\n\r\n").map_or(text, |(head, _)| head);
    head.split("\r\n").filter(|line| !line.starts_with([' ', '\t'])).filter_map(|line| line.split(':').next()).collect()
}

fn list(parsed: Option<&Parsed<'_>>) -> Vec<EmailAddress> {
    let addresses = parsed.map(|it| it.clone().into_list()).unwrap_or_default();
    let one = |it: &mail_parser::Addr<'_>| {
        address(it.name.as_deref().unwrap_or_default(), it.address.as_deref().unwrap_or_default())
    };
    addresses.iter().map(one).collect()
}

#[test]
fn a_reply_has_its_headers_and_no_bcc() {
    let text = composed(&mail(), Vec::new());
    assert!(!text.to_lowercase().contains("secret"), "{text}");
    let expected = [
        "Date",
        "From",
        "Message-ID",
        "To",
        "Cc",
        "Subject",
        "In-Reply-To",
        "References",
        "MIME-Version",
        "Content-Type",
        "Content-Transfer-Encoding",
    ];
    assert_eq!(header_names(&text), expected);
    let parsed = MessageParser::new().parse(text.as_bytes()).unwrap();
    assert_eq!(parsed.message_id(), Some("id-1@contoso.example"));
    assert_eq!(parsed.subject(), Some("Re: Rechnung für März"));
    assert_eq!(list(parsed.from()), [address("Rechnung, Köln", "billing@contoso.example")]);
    assert_eq!(list(parsed.to()), [address("Ada \"the\" Countess", "ada@fabrikam.example")]);
    assert_eq!(list(parsed.cc()), [address("", "bob@xn--r8jz45g.example")]);
    assert_eq!(parsed.in_reply_to().as_text(), Some("one@x"));
    let HeaderValue::TextList(references) = parsed.references() else { panic!("{:?}", parsed.references()) };
    assert_eq!(references, &["zero@x", "one@x"]);
    assert_eq!(parsed.date().unwrap().to_timestamp(), NOW / 1_000_000);
    assert_eq!(parsed.body_text(0).unwrap(), "Grüße\r\n.\r\nFrom me\r\n");
    assert!(parsed.header("Auto-Submitted").is_none());
}

#[test]
fn automatic_mail_says_so() {
    let how = |mail: &Composition| {
        let text = composed(mail, Vec::new());
        let parsed = MessageParser::new().parse(text.as_bytes()).unwrap();
        let header = |name: &str| parsed.header_raw(name).map(|text| text.trim().to_owned());
        (header("Auto-Submitted").unwrap(), header("X-Auto-Response-Suppress").unwrap())
    };
    let automatic = Composition { automatic: true, ..mail() };
    assert_eq!(how(&automatic), ("auto-replied".into(), "DR, RN, NRN, OOF, AutoReply".into()));
    assert_eq!(how(&Composition { contact: String::new(), ..automatic }).0, "auto-generated");
}

#[test]
fn with_bcc_only_there_is_a_to_all_the_same() {
    let recipients = vec![(RecipientKind::Bcc, address("", "secret@fabrikam.example"))];
    let text = composed(&Composition { recipients, ..mail() }, Vec::new());
    assert!(text.contains("\r\nTo: undisclosed-recipients:;\r\n") && !text.contains("secret"), "{text}");
}

#[test]
fn html_has_its_pictures_and_files_arrive_byte_for_byte() {
    let every: Vec<u8> = (0..=255u8).cycle().take(70_000).collect();
    let files = vec![
        file("logo.png", "logo@x", b"picture"),
        file("Jahresabschluß, \"2026\".pdf", "", &every),
        file("empty", "", b""),
        file("bare\u{20ac}.txt", "", b"one\rtwo\nthree\0\r\n."),
    ];
    let with_html = Composition { html: "<p>Grüße <img src=\"cid:logo@x\"></p>".into(), ..mail() };
    let text = composed(&with_html, files.clone());
    let parsed = MessageParser::new().parse(text.as_bytes()).unwrap();
    assert_eq!(parsed.body_text(0).unwrap(), "Grüße\r\n.\r\nFrom me\r\n");
    assert_eq!(parsed.body_html(0).unwrap(), with_html.html);
    let kind = |part: &mail_parser::MessagePart<'_>| {
        part.content_type().map(|it| format!("{}/{}", it.ctype(), it.subtype().unwrap_or_default())).unwrap_or_default()
    };
    let expected = [
        "multipart/mixed",
        "multipart/alternative",
        "text/plain",
        "multipart/related",
        "text/html",
        "text/plain",
        "text/plain",
        "text/plain",
        "text/plain",
    ];
    assert_eq!(parsed.parts.iter().map(kind).collect::<Vec<_>>(), expected);
    let logo = &parsed.parts[5];
    assert_eq!((logo.content_id(), logo.contents()), (Some("logo@x"), b"picture".as_slice()));
    for (part, file) in parsed.parts[6..].iter().zip(&files[1..]) {
        assert_eq!((part.attachment_name(), bytes_of(&text, part)), (Some(file.name.as_str()), file.bytes.clone()));
    }
    // Without html, what is referred to is a file like any other.
    let text = composed(&mail(), files[..1].to_vec());
    assert!(text.contains("multipart/mixed") && !text.contains("related"), "{text}");
}

#[test]
fn the_size_of_a_file_is_estimated_from_above() {
    for size in [0usize, 1, 56, 57, 58, 1000, 57 * 100, 100_001] {
        let without = composed(&mail(), vec![]).len();
        let with = composed(&mail(), vec![file("a.bin", "", &vec![7; size])]).len();
        let estimated = usize::try_from(encoded_bytes(size as u64)).unwrap();
        assert!(with - without <= estimated && estimated <= with - without + 1200, "{size}: {estimated}");
    }
}

/// Text of any letters, without what a header may not have, and not in the form of RFC 2047: that is read as what it
/// stands for, in a subject and in a file name.
fn words() -> impl Strategy<Value = String> {
    "[ -~]{0,30}|\\PC{0,40}|([a-z]{1,12} ){0,40}|[\"(),:;<>@\\\\=?_ ]{0,20}"
        .prop_map(|text: String| text.split_whitespace().collect::<Vec<_>>().join(" ").replace("=?", "=_"))
}

fn some_address() -> impl Strategy<Value = EmailAddress> {
    (words(), "[a-z0-9]{1,20}([.+_-][a-z0-9]{1,12}){0,3}", "[a-z]{1,30}(\\.[a-z]{2,20}){1,3}")
        .prop_map(|(name, local, domain)| address(&name, &format!("{local}@{domain}")))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever the texts, names and files: they come out as they went in, and no header comes to the others.
    #[test]
    fn what_goes_in_comes_out(
        from in some_address(),
        to in prop::collection::vec(some_address(), 1..5),
        bcc in some_address(),
        subject in words(),
        text in "\\PC{1,200}|([ -~]{0,100}\r?\n){1,9}|[\\x00-\\x7f]{1,80}|(\\.\r\n){1,4}|From [a-z ]{1,20}",
        html in "|<p>\\PC{0,100}</p>",
        ids in prop::collection::vec("[a-zA-Z0-9!#$%&'*+/=?^_`{|}~.@:-]{1,100}", 0..6),
        files in prop::collection::vec((words(), prop::collection::vec(any::<u8>(), 0..300)), 0..4),
    ) {
        let mut recipients: Vec<_> = to.iter().map(|it| (RecipientKind::To, it.clone())).collect();
        recipients.push((RecipientKind::Bcc, address(&bcc.name, "secret-one@hidden.example")));
        let mail = Composition {
            from, recipients, subject, text, html, in_reply_to: ids.last().cloned(), references: ids, ..mail()
        };
        let files: Vec<_> =
            files.into_iter().map(|(name, bytes)| file(if name.is_empty() { "x" } else { &name }, "", &bytes)).collect();
        let bytes = composed(&mail, files.clone());
        prop_assert!(!bytes.contains("secret-one"));
        let known = ["Date", "From", "Message-ID", "To", "Subject", "In-Reply-To", "References", "MIME-Version",
            "Content-Type", "Content-Transfer-Encoding"];
        for name in header_names(&bytes) {
            prop_assert!(known.contains(&name), "{name}\n{bytes}");
        }
        let parsed = MessageParser::new().parse(bytes.as_bytes()).unwrap();
        prop_assert_eq!(parsed.subject().unwrap_or_default(), &mail.subject);
        prop_assert_eq!(list(parsed.from()), [mail.from.clone()]);
        prop_assert_eq!(list(parsed.to()), to);
        let lines = |text: &str| text.replace("\r\n", "\n").replace(['\r', '\n'], "\r\n");
        prop_assert_eq!(parsed.body_text(0).unwrap(), lines(&mail.text));
        if !mail.html.is_empty() {
            prop_assert_eq!(parsed.body_html(0).unwrap(), lines(&mail.html));
        }
        let found: Vec<_> = parsed.attachments().collect();
        prop_assert_eq!(found.len(), files.len());
        for (part, file) in found.iter().zip(&files) {
            prop_assert_eq!(part.attachment_name(), Some(file.name.as_str()));
            prop_assert_eq!(&bytes_of(&bytes, part), &file.bytes);
            prop_assert!(!matches!(part.body, PartType::Multipart(_)));
        }
    }
}

//! Where attachments stand in the raw message, checked with decoders that are not ours.

use mail_parser::decoders::base64::base64_decode;
use mail_parser::decoders::quoted_printable::quoted_printable_decode;
use mail_parser::{MessageParser, MimeHeaders as _, PartType};
use postroom_proto::v1::TransferEncoding;

use crate::corpus::corpus;
use crate::{checked, written};

/// Decodes as the documentation of [`TransferEncoding`] says.
pub(crate) fn decoded(bytes: &[u8], encoding: TransferEncoding) -> Vec<u8> {
    match encoding {
        TransferEncoding::Base64 => {
            let letters = bytes.iter().filter(|byte| byte.is_ascii_alphanumeric() || b"+/=".contains(byte));
            let letters: Vec<u8> = letters.copied().collect();
            // Padding ends a group, and a letter that is left over holds no byte.
            letters.split(|byte| *byte == b'=').flat_map(|group| base64_decode(group).unwrap()).collect()
        }
        TransferEncoding::QuotedPrintable => robust_quoted_printable(bytes),
        _ => bytes.to_vec(),
    }
}

fn robust_quoted_printable(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        let ends = line.ends_with(b"\n");
        let end: &[u8] = if line.ends_with(b"\r\n") { b"\r\n" } else { b"\n" };
        let text = line.trim_ascii_end();
        let (text, soft) = text.strip_suffix(b"=").map_or((text, false), |text| (text, true));
        let mut at = 0;
        while at < text.len() {
            let escape = text.get(at + 1..at + 3).and_then(|hex| std::str::from_utf8(hex).ok());
            let byte = escape
                .filter(|hex| text[at] == b'=' && hex.bytes().all(|one| one.is_ascii_hexdigit()))
                .and_then(|hex| u8::from_str_radix(hex, 16).ok());
            out.push(byte.unwrap_or(text[at]));
            at += if byte.is_some() { 3 } else { 1 };
        }
        if ends && !soft {
            out.extend_from_slice(end);
        }
    }
    out
}

/// Messages that mail-parser reads otherwise, and why what we do is meant.
const DIFFERENT: &[(&str, &str)] = &[
    ("bare-carriage-returns", "it sees one line"),
    ("base64-broken", "it gives up at the first letter that does not belong there, and makes the text an attachment"),
    ("boundary-end-missing", "it does not decode a last part that nothing ends"),
    ("boundary-inside-a-part", "it takes any place where the boundary stands for one, also within a line"),
    ("boundary-never-comes", "what was to be divided is there to be read, as text"),
    ("boundary-of-inner-missing", "it does not see the outer boundary within the inner multipart"),
    ("boundary-parameter-missing", "what was to be divided is there to be read, as text"),
    ("eight-bit-boundary", "what was to be divided is there to be read, as text"),
];

/// Attachments of one message: how many agreed, or what did not.
fn compare(raw: &[u8]) -> Result<usize, String> {
    let content = checked(raw);
    let Some(message) = MessageParser::default().parse(raw) else { return Ok(0) };
    let others: Vec<_> = message.attachments().collect();
    if content.attachments.len() != others.len() {
        return Err(format!("{} attachments, mail-parser has {}", content.attachments.len(), others.len()));
    }
    let mut agreed = 0;
    for (ours, other) in content.attachments.iter().zip(others) {
        let bytes = decoded(written(raw, ours), ours.encoding());
        let theirs = match &other.body {
            PartType::Binary(theirs) | PartType::InlineBinary(theirs) => theirs.to_vec(),
            PartType::Text(theirs) | PartType::Html(theirs) => theirs.as_bytes().to_vec(),
            PartType::Message(_) if ours.encoding() == TransferEncoding::Identity => {
                raw[other.offset_body as usize..other.offset_end as usize].to_vec()
            }
            PartType::Message(theirs) => theirs.raw_message.to_vec(),
            PartType::Multipart(_) => return Err("a multipart".into()),
        };
        if bytes != theirs {
            let (ours, theirs) = (String::from_utf8_lossy(&bytes), String::from_utf8_lossy(&theirs));
            return Err(format!("{ours:?}, mail-parser has {theirs:?}"));
        }
        let name = other.attachment_name().unwrap_or_default();
        if ours.name != name {
            return Err(format!("the name is {:?}, mail-parser has {name:?}", ours.name));
        }
        agreed += 1;
    }
    Ok(agreed)
}

#[test]
fn the_slice_of_each_attachment_is_what_mail_parser_takes_for_it() {
    let all: Vec<_> = corpus().into_iter().map(|(name, raw)| (name, compare(&raw))).collect();
    let different: Vec<_> = all.iter().filter(|(_, compared)| compared.is_err()).collect();
    let names: Vec<&str> = different.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, DIFFERENT.iter().map(|(name, _)| *name).collect::<Vec<_>>(), "{different:#?}");
    let agreed: usize = all.iter().filter_map(|(_, compared)| compared.as_ref().ok()).sum();
    assert!(agreed > 20, "only {agreed} attachments were compared");
}

#[test]
fn quoted_printable_and_base64_agree_with_mail_parser_on_what_is_clean() {
    let text = b"a=3Db =C3=BC=\r\n soft\r\n\r\nend=20\r\n";
    assert_eq!(decoded(text, TransferEncoding::QuotedPrintable), quoted_printable_decode(text).unwrap());
    assert_eq!(decoded(b"AAEC\r\nAw==", TransferEncoding::Base64), base64_decode(b"AAEC\r\nAw==").unwrap());
}

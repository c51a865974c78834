//! A mail made of what was drafted: RFC 5322 and MIME, by mail-builder. No other file uses it.
//!
//! Every mail is ASCII throughout, its lines end with CRLF and are short, and no header names those of Bcc. Files are
//! base64, so that they arrive as they are; texts are normalised to CRLF and are whatever encoding suits them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use mail_builder::MessageBuilder;
use mail_builder::headers::address::Address;
use mail_builder::headers::content_type::ContentType;
use mail_builder::headers::date::Date;
use mail_builder::headers::message_id::MessageId;
use mail_builder::headers::raw::Raw;
use mail_builder::mime::{BodyPart, MimePart};
use postroom_proto::v1::{EmailAddress, RecipientKind};

use super::draft::Composition;
use crate::ledger::Micros;

/// Bytes of a file in one line of base64: 76 characters (RFC 2045 section 6.8).
const LINE: usize = 57;

/// A file that goes along.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// File name.
    pub name: String,
    /// Media type without parameters.
    pub media_type: String,
    /// Content-ID without brackets, by which the html refers to it; may be empty.
    pub content_id: String,
    /// The file.
    pub bytes: Vec<u8>,
}

/// How many bytes a file of this size takes in a mail, with its headers.
pub fn encoded_bytes(size: u64) -> u64 {
    // Four characters for three bytes, and a line end after each 76.
    size.div_ceil(3).saturating_mul(4).saturating_mul(78).div_ceil(76).saturating_add(1024)
}

/// The bytes of the mail.
pub fn compose(mail: &Composition, message_id: &str, attachments: Vec<Attachment>, now: Micros) -> Vec<u8> {
    let of = |kind: RecipientKind| -> Vec<Address<'_>> {
        mail.recipients.iter().filter(|(it, _)| *it == kind).map(|(_, address)| mailbox(address)).collect()
    };
    let (to, cc) = (of(RecipientKind::To), of(RecipientKind::Cc));
    let mut message = MessageBuilder::new()
        .date(Date::new(now.div_euclid(1_000_000)))
        .from(mailbox(&mail.from))
        .message_id(MessageId::new(message_id));
    if !to.is_empty() {
        message = message.to(Address::new_list(to));
    } else if cc.is_empty() {
        // RFC 5322 section 3.6 needs no To, and some servers think otherwise.
        message = message.header("To", Raw::new("undisclosed-recipients:;"));
    }
    if !cc.is_empty() {
        message = message.cc(Address::new_list(cc));
    }
    if !mail.subject.is_empty() {
        message = message.subject(mail.subject.as_str());
    }
    if let Some(id) = &mail.in_reply_to {
        message = message.in_reply_to(MessageId::new(id.as_str()));
    }
    if !mail.references.is_empty() {
        message = message.references(MessageId::new_list(mail.references.iter().map(String::as_str)));
    }
    if mail.automatic {
        let how = if mail.contact.is_empty() { "auto-generated" } else { "auto-replied" };
        // Everything but NDR: "All" would keep back what says that it did not arrive.
        let suppress = Raw::new("DR, RN, NRN, OOF, AutoReply");
        message = message.header("Auto-Submitted", Raw::new(how)).header("X-Auto-Response-Suppress", suppress);
    }
    let size: u64 = attachments.iter().map(|it| encoded_bytes(it.bytes.len() as u64)).sum();
    let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
    message.body(body(mail, attachments)).serialize(&mut bytes);
    bytes
}

fn mailbox(address: &EmailAddress) -> Address<'_> {
    let name = Some(address.name.as_str()).filter(|name| !name.is_empty());
    Address::new_address(name, address.address.as_str())
}

/// Text and html as alternatives (RFC 2046 section 5.1.4), with what the html refers to beside it (RFC 2387), and then
/// the files.
fn body(mail: &Composition, attachments: Vec<Attachment>) -> MimePart<'static> {
    let inline = |it: &Attachment| !mail.html.is_empty() && !it.content_id.is_empty();
    let (inline, files): (Vec<_>, Vec<_>) = attachments.into_iter().partition(inline);
    let html = (!mail.html.is_empty()).then(|| {
        let html = text("text/html", &mail.html);
        together("multipart/related", html, inline.into_iter().map(|it| file(it, "inline")))
    });
    let alternatives = match (mail.text.is_empty(), html) {
        (false, Some(html)) => MimePart::new("multipart/alternative", vec![text("text/plain", &mail.text), html]),
        (true, Some(html)) => html,
        (_, None) => text("text/plain", &mail.text),
    };
    together("multipart/mixed", alternatives, files.into_iter().map(|it| file(it, "attachment")))
}

/// A part and others behind it, or just the part when there are none.
fn together(
    kind: &'static str,
    first: MimePart<'static>,
    others: impl Iterator<Item = MimePart<'static>>,
) -> MimePart<'static> {
    let parts: Vec<_> = std::iter::once(first).chain(others).collect();
    match <[MimePart<'static>; 1]>::try_from(parts) {
        Ok([only]) => only,
        Err(parts) => MimePart::new(kind, parts),
    }
}

/// A text with CRLF line ends. One with control characters is base64, since they must not cross a server as they are.
fn text(media_type: &'static str, written: &str) -> MimePart<'static> {
    let lines = written.replace("\r\n", "\n").replace(['\r', '\n'], "\r\n");
    let strange = lines.chars().any(|c| c.is_ascii_control() && !matches!(c, '\r' | '\n' | '\t'));
    if !strange {
        return MimePart::new(ContentType::new(media_type).attribute("charset", "utf-8"), lines);
    }
    encoded(ContentType::new(media_type).attribute("charset", "utf-8"), lines.as_bytes())
}

fn file(attachment: Attachment, disposition: &'static str) -> MimePart<'static> {
    let kind = ContentType::new(attachment.media_type).attribute("name", attachment.name.clone());
    let mut part = encoded(kind, &attachment.bytes)
        .header("Content-Disposition", ContentType::new(disposition).attribute("filename", attachment.name));
    if !attachment.content_id.is_empty() {
        part = part.cid(attachment.content_id);
    }
    part
}

/// A part in base64, whatever its type. By its own choice the library writes texts in other ways, which servers may
/// change on the way.
fn encoded(kind: ContentType<'static>, bytes: &[u8]) -> MimePart<'static> {
    let mut lines = String::with_capacity(bytes.len().div_ceil(LINE) * 78);
    for line in bytes.chunks(LINE) {
        BASE64.encode_string(line, &mut lines);
        lines.push_str("\r\n");
    }
    MimePart::new(kind, BodyPart::Binary(lines.into_bytes().into())).transfer_encoding("base64")
}

#[cfg(test)]
mod tests;

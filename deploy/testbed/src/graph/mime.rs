//! What happens to a mail (RFC 5322) on its way through: who gets it, from whom, and with which attachments.

use base64::{Engine, engine::general_purpose::STANDARD};
use mail_parser::MessageParser;
use uuid::Uuid;

/// A file that was added to a draft.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Attachment {
    pub(super) name: String,
    pub(super) media_type: String,
    pub(super) content_id: String,
    pub(super) is_inline: bool,
    pub(super) content: Vec<u8>,
}

/// What the headers of a mail say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Head {
    /// Without brackets; empty when there is none.
    pub(super) message_id: String,
    pub(super) subject: String,
    /// The addresses in To, Cc and Bcc, each once.
    pub(super) recipients: Vec<String>,
}

pub(super) fn head(mail: &[u8]) -> Head {
    let Some(message) = MessageParser::default().parse_headers(mail) else { return Head::default() };
    let mut recipients = Vec::new();
    for list in [message.to(), message.cc(), message.bcc()].into_iter().flatten() {
        for address in list.iter().filter_map(|one| one.address.as_deref()) {
            if !recipients.iter().any(|known| known == address) {
                recipients.push(address.to_owned());
            }
        }
    }
    let text = |value: Option<&str>| value.unwrap_or_default().to_owned();
    Head { message_id: text(message.message_id()), subject: text(message.subject()), recipients }
}

/// The mail as its mailbox keeps it: From is the mailbox, and nobody has sent it for another.
pub(super) fn from_mailbox(mail: &[u8], mailbox: &str) -> Vec<u8> {
    without(mail, &["from", "sender", "return-path"], &format!("From: <{mailbox}>\r\n"))
}

/// The mail with these recipients in a field (`To`, `Cc`, `Bcc`), and no others; without any, without the field.
pub(super) fn addressed(mail: &[u8], field: &str, recipients: &[String]) -> Vec<u8> {
    let first = match recipients {
        [] => String::new(),
        all => format!("{field}: {}\r\n", all.join(",\r\n ")),
    };
    without(mail, &[field.to_ascii_lowercase().as_str()], &first)
}

/// The mail as its recipients get it.
pub(super) fn without_bcc(mail: &[u8]) -> Vec<u8> {
    without(mail, &["bcc"], "")
}

/// The mail with further parts behind what it has.
pub(super) fn with_attachments(mail: &[u8], attachments: &[Attachment]) -> Vec<u8> {
    if attachments.is_empty() {
        return mail.to_owned();
    }
    let (fields, body) = split(mail);
    let boundary = Uuid::new_v4().simple().to_string();
    let (content, other): (Vec<_>, Vec<_>) = fields.into_iter().partition(|field| name(field).starts_with("content-"));
    let mut made = other.concat();
    made.extend_from_slice(
        format!("Content-Type: multipart/mixed; boundary=\"{boundary}\"\r\n\r\n--{boundary}\r\n").as_bytes(),
    );
    made.extend_from_slice(&content.concat());
    made.extend_from_slice(b"\r\n");
    made.extend_from_slice(body);
    for attachment in attachments {
        made.extend_from_slice(format!("\r\n--{boundary}\r\n{}\r\n", part_head(attachment)).as_bytes());
        let encoded = STANDARD.encode(&attachment.content);
        for line in encoded.as_bytes().chunks(76) {
            made.extend_from_slice(line);
            made.extend_from_slice(b"\r\n");
        }
    }
    made.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
    made
}

/// The report to `mailbox` that a mail did not reach `recipient` (RFC 3464), as Exchange makes it.
pub(super) fn undeliverable(mail: &[u8], mailbox: &str, recipient: &str, status: &str) -> Vec<u8> {
    let Head { message_id, subject, .. } = head(mail);
    let (fields, _) = split(mail);
    let (boundary, id) = (Uuid::new_v4().simple(), Uuid::new_v4());
    let original = String::from_utf8_lossy(&fields.concat()).into_owned();
    let date =
        jiff::fmt::rfc2822::to_string(&jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC)).unwrap_or_default();
    format!(
        "Date: {date}\r\n\
         From: Microsoft Outlook <postmaster@testbed.example>\r\n\
         To: <{mailbox}>\r\n\
         Subject: Undeliverable: {subject}\r\n\
         Message-ID: <{id}@testbed.example>\r\n\
         In-Reply-To: <{message_id}>\r\n\
         References: <{message_id}>\r\n\
         MIME-Version: 1.0\r\n\
         Auto-Submitted: auto-replied\r\n\
         Content-Type: multipart/report; report-type=delivery-status; boundary=\"{boundary}\"\r\n\
         \r\n\
         --{boundary}\r\n\
         Content-Type: text/plain; charset=us-ascii\r\n\
         \r\n\
         Your message to {recipient} couldn't be delivered.\r\n\
         --{boundary}\r\n\
         Content-Type: message/delivery-status\r\n\
         \r\n\
         Reporting-MTA: dns;testbed.example\r\n\
         \r\n\
         Final-Recipient: rfc822;{recipient}\r\n\
         Action: failed\r\n\
         Status: {status}\r\n\
         Diagnostic-Code: smtp;550 {status} The testbed sends this back\r\n\
         --{boundary}\r\n\
         Content-Type: message/rfc822\r\n\
         \r\n\
         {original}\r\n\
         --{boundary}--\r\n"
    )
    .into_bytes()
}

fn part_head(attachment: &Attachment) -> String {
    let name: String = attachment
        .name
        .bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'_' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect();
    let kind = if attachment.is_inline { "inline" } else { "attachment" };
    let media_type = match attachment.media_type.as_str() {
        "" => "application/octet-stream",
        given => given,
    };
    let id = match attachment.content_id.as_str() {
        "" => String::new(),
        id => format!("Content-ID: <{id}>\r\n"),
    };
    format!(
        "Content-Type: {media_type}\r\nContent-Disposition: {kind}; filename*=UTF-8''{name}\r\n{id}\
         Content-Transfer-Encoding: base64\r\n"
    )
}

fn without(mail: &[u8], names: &[&str], first: &str) -> Vec<u8> {
    let (fields, body) = split(mail);
    let mut made = first.as_bytes().to_vec();
    for field in fields.into_iter().filter(|field| !names.contains(&name(field).as_str())) {
        made.extend_from_slice(field);
    }
    made.extend_from_slice(b"\r\n");
    made.extend_from_slice(body);
    made
}

/// The fields of the head, each with its folded lines and line ends, and the body behind the empty line.
fn split(mail: &[u8]) -> (Vec<&[u8]>, &[u8]) {
    let (mut fields, mut start) = (Vec::new(), 0);
    for line in mail.split_inclusive(|byte| *byte == b'\n') {
        let end = start + line.len();
        if matches!(line, b"\r\n" | b"\n") {
            return (fields, &mail[end..]);
        }
        match fields.last_mut() {
            Some(field) if line.starts_with(b" ") || line.starts_with(b"\t") => {
                let length: usize = <[u8]>::len(field) + line.len();
                *field = &mail[end - length..end];
            }
            _ => fields.push(&mail[start..end]),
        }
        start = end;
    }
    (fields, &[])
}

/// The name of a field in lower case.
fn name(field: &[u8]) -> String {
    let end = field.iter().position(|byte| *byte == b':').unwrap_or(field.len());
    String::from_utf8_lossy(&field[..end]).trim().to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use mail_parser::MimeHeaders as _;

    use super::*;

    const MAIL: &str = "From: \"Sales, EU\" <sales@contoso.example>\r\nSender: x@y.example\r\nTo: \"Ä, B\" <a@b.example>,\r\n c@d.example\r\n\
        Bcc: hidden@d.example, a@b.example\r\nMessage-ID: <one@x>\r\nSubject: Hi\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nText\r\n";

    fn text(mail: Vec<u8>) -> String {
        String::from_utf8(mail).unwrap()
    }

    #[test]
    fn everybody_who_is_addressed_gets_it_once() {
        let head = head(MAIL.as_bytes());
        assert_eq!(head.recipients, ["a@b.example", "c@d.example", "hidden@d.example"]);
        assert_eq!((head.message_id.as_str(), head.subject.as_str()), ("one@x", "Hi"));
    }

    #[test]
    fn it_is_from_the_mailbox_and_hides_who_is_hidden() {
        let kept = from_mailbox(MAIL.as_bytes(), "box@contoso.example");
        let got = text(without_bcc(&kept));
        assert!(
            got.starts_with("From: <box@contoso.example>\r\nTo: \"Ä, B\" <a@b.example>,\r\n c@d.example\r\nMessage-ID"),
            "{got}"
        );
        assert!(!got.contains("Sender") && !got.contains("hidden") && got.ends_with("\r\n\r\nText\r\n"), "{got}");
        assert!(text(kept).contains("Bcc: hidden"));
    }

    #[test]
    fn recipients_are_put_in_place_of_those_that_were_there() {
        let to = ["<new@x.example>".to_owned(), "<other@x.example>".to_owned()];
        let mail = addressed(&addressed(MAIL.as_bytes(), "To", &to), "Bcc", &[]);
        assert_eq!(head(&mail).recipients, ["new@x.example", "other@x.example"]);
        assert!(text(mail).ends_with("\r\n\r\nText\r\n"));
    }

    #[test]
    fn attachments_come_behind_what_is_there_byte_for_byte() {
        let attachment =
            |name: &str, content: Vec<u8>| Attachment { name: name.to_owned(), content, ..Default::default() };
        let contents = [(0..=255).collect::<Vec<u8>>(), b"second".to_vec()];
        let [first, second] = &contents;
        let made = with_attachments(
            MAIL.as_bytes(),
            &[attachment("ü \"1\".bin", first.clone()), attachment("b", second.clone())],
        );
        let message = MessageParser::default().parse(&made).unwrap();
        assert_eq!(message.body_text(0).unwrap().trim_end(), "Text");
        let found: Vec<_> = message.attachments().map(|it| (it.attachment_name().unwrap(), it.contents())).collect();
        assert_eq!(found, [("ü \"1\".bin", &first[..]), ("b", &second[..])]);
        assert_eq!(with_attachments(MAIL.as_bytes(), &[]), MAIL.as_bytes());
    }

    #[test]
    fn what_comes_back_says_of_which_mail() {
        let report = undeliverable(MAIL.as_bytes(), "box@contoso.example", "a@b.example", "5.1.1");
        let message = MessageParser::default().parse(&report).unwrap();
        let kinds: Vec<_> =
            message.parts.iter().filter_map(|part| part.content_type()?.subtype().map(str::to_owned)).collect();
        assert_eq!(kinds, ["report", "plain", "delivery-status", "rfc822"]);
        assert!(text(report).contains("Message-ID: <one@x>\r\n"));
    }
}

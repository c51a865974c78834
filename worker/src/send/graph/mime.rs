//! What Microsoft Graph wants of a mail that SMTP does not: every recipient in its header, and large attachments apart
//! from the rest. Pure.
//!
//! Nothing is made anew here: a field is put in front, or whole parts are left out, and all other bytes stay as they are.

use std::collections::HashSet;
use std::ops::Range;

use bytes::{Bytes, BytesMut};
use data_encoding::BASE64;
use postroom_proto::v1::{Attachment, EmailAddress, TransferEncoding};

use crate::contact::parse::parse;

/// Longest line of a field that is put in front (RFC 5322 section 2.1.1).
const LINE: usize = 78;

/// How the header of a mail and its envelope fit together.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Addressed {
    /// Recipients that stand in To, with their names there.
    pub(super) to: Vec<EmailAddress>,
    /// Recipients that stand in Cc, and not in To.
    pub(super) cc: Vec<EmailAddress>,
    /// Recipients that stand in no field: those that nobody is to see.
    pub(super) hidden: Vec<String>,
    /// Addresses stand in the header that are not to get the mail, for they have it already; or more of them than can be
    /// read.
    pub(super) names_others: bool,
}

/// Compares the fields To and Cc with the recipients.
pub(super) fn addressed(raw: &[u8], recipients: &[String]) -> Addressed {
    // Alone: what is too long elsewhere in the header says nothing of recipients.
    let content = parse(&recipient_fields(raw)).content;
    let wanted: HashSet<String> = recipients.iter().map(|address| address.to_lowercase()).collect();
    let mut addressed = Addressed { names_others: !content.truncated.is_empty(), ..Addressed::default() };
    let mut named = HashSet::new();
    for (list, all) in [(&mut addressed.to, content.to), (&mut addressed.cc, content.cc)] {
        for one in all {
            let address = one.address.to_lowercase();
            addressed.names_others |= !wanted.contains(&address);
            if wanted.contains(&address) && named.insert(address) {
                list.push(one);
            }
        }
    }
    let hidden = recipients.iter().filter(|address| !named.contains(&address.to_lowercase())).cloned();
    addressed.hidden = hidden.collect();
    addressed
}

/// The fields To and Cc, with what they are continued on (RFC 5322 section 2.2.3), and the end of a header.
fn recipient_fields(raw: &[u8]) -> Vec<u8> {
    let end = raw.windows(4).position(|part| part == b"\r\n\r\n").map_or(raw.len(), |at| at + 2);
    let (mut fields, mut is_one) = (Vec::new(), false);
    for line in raw[..end].split_inclusive(|byte| *byte == b'\n') {
        if !line.starts_with(b" ") && !line.starts_with(b"\t") {
            let name = line.split(|byte| *byte == b':').next().unwrap_or_default().trim_ascii_end();
            is_one = name.eq_ignore_ascii_case(b"to") || name.eq_ignore_ascii_case(b"cc");
        }
        if is_one {
            fields.extend_from_slice(line);
        }
    }
    fields.extend_from_slice(b"\r\n");
    fields
}

/// The mail with a field Bcc in front, which Exchange takes out before it sends. As it is where nobody is hidden.
pub(super) fn with_hidden(raw: &Bytes, hidden: &[String]) -> Bytes {
    if hidden.is_empty() {
        return raw.clone();
    }
    let mut field = String::from("Bcc:");
    let mut column = field.len();
    for (at, address) in hidden.iter().enumerate() {
        let comma = if at == 0 { "" } else { "," };
        if at > 0 && column + address.len() + 2 > LINE {
            field += ",\r\n";
            column = 0;
        } else {
            field += comma;
        }
        // Invariant: what would end the line does not get into it.
        let address: String = address.chars().filter(|c| !c.is_control()).collect();
        field += &format!(" {address}");
        column += address.len() + 2;
    }
    field += "\r\n";
    let mut whole = BytesMut::with_capacity(field.len() + raw.len());
    whole.extend_from_slice(field.as_bytes());
    whole.extend_from_slice(raw);
    whole.freeze()
}

/// A mail, and the attachments that were taken out of it.
#[derive(Debug)]
pub(super) struct Apart {
    /// The mail without them.
    pub(super) rest: Bytes,
    /// Largest first.
    pub(super) attachments: Vec<Attachment>,
}

/// Takes as many attachments out, the largest first, that no more than `most` bytes are left. `None`: that cannot be had.
pub(super) fn apart(raw: &Bytes, most: usize) -> Option<Apart> {
    let mut attachments = parse(raw).content.attachments;
    attachments.retain(|one| one.encoding() == TransferEncoding::Base64);
    attachments.sort_by_key(|one| std::cmp::Reverse(one.raw_bytes));
    let (mut left, mut out) = (raw.len(), Vec::new());
    let mut taken = Vec::new();
    for attachment in attachments {
        if left <= most {
            break;
        }
        let Some(part) = part(raw, &attachment) else { continue };
        left -= part.len();
        out.push(part);
        taken.push(attachment);
    }
    if left > most {
        return None;
    }
    out.sort_by_key(|part| part.start);
    let mut rest = BytesMut::with_capacity(left);
    let mut at = 0;
    for part in out {
        rest.extend_from_slice(&raw[at..part.start]);
        at = part.end;
    }
    rest.extend_from_slice(&raw[at..]);
    Some(Apart { rest: rest.freeze(), attachments: taken })
}

/// The part of an attachment with the line that divides it from what is before it; the line after it stays.
fn part(raw: &[u8], attachment: &Attachment) -> Option<Range<usize>> {
    let begin = usize::try_from(attachment.raw_offset).ok()?;
    let end = begin.checked_add(usize::try_from(attachment.raw_bytes).ok()?)?;
    let before = raw.get(..begin)?;
    // No field of its header begins so (RFC 5322 section 2.2: a name, or white space).
    let divider = before.windows(4).rposition(|window| window == b"\r\n--")?;
    (end <= raw.len() && raw[end..].starts_with(b"\r\n--")).then_some(divider..end)
}

fn is_letter(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=')
}

/// The bytes of an attachment, decoded in pieces of `most` bytes.
pub(super) struct Decoded {
    raw: Bytes,
    at: usize,
    most: usize,
}

impl Decoded {
    /// Of an attachment of `raw` in base64.
    pub(super) fn of(raw: &Bytes, attachment: &Attachment, most: usize) -> Option<Self> {
        let begin = usize::try_from(attachment.raw_offset).ok()?;
        let end = begin.checked_add(usize::try_from(attachment.raw_bytes).ok()?)?;
        (end <= raw.len()).then(|| Self { raw: raw.slice(begin..end), at: 0, most: most / 3 * 3 })
    }
}

impl Iterator for Decoded {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        let letters = self.most / 3 * 4;
        let mut group = Vec::with_capacity(letters.min(self.raw.len() - self.at));
        // Line by line: what stands between them is no letter.
        while group.len() < letters && self.at < self.raw.len() {
            let rest = &self.raw[self.at..];
            let end = rest.iter().position(|byte| !is_letter(*byte)).unwrap_or(rest.len());
            let taken = end.min(letters - group.len());
            group.extend_from_slice(&rest[..taken]);
            self.at += taken + usize::from(taken == end && end < rest.len());
        }
        // What is not base64 after all has no bytes: the sum then shows it.
        (!group.is_empty()).then(|| BASE64.decode(&group).unwrap_or_default().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(all: &[&str]) -> Vec<String> {
        all.iter().map(|one| (*one).to_owned()).collect()
    }

    const RAW: &str =
        "From: s@x.example\r\nTo: Anna <A@x.example>,\r\n b@x.example\r\nCc: c@x.example\r\n\r\nTo: d@x\r\n";

    fn address(name: &str, address: &str) -> EmailAddress {
        EmailAddress { name: name.into(), address: address.into() }
    }

    #[test]
    fn who_stands_in_no_field_is_hidden_and_who_has_it_already_is_noticed() {
        let all = addressed(RAW.as_bytes(), &strings(&["a@X.example", "b@x.example", "c@x.example", "h@x.example"]));
        let (to, cc) = (vec![address("Anna", "A@x.example"), address("", "b@x.example")], address("", "c@x.example"));
        let hidden = strings(&["h@x.example"]);
        assert_eq!(all, Addressed { to, cc: vec![cc], hidden: hidden.clone(), names_others: false });
        let some = addressed(RAW.as_bytes(), &strings(&["b@x.example", "h@x.example"]));
        let to = vec![address("", "b@x.example")];
        assert_eq!(some, Addressed { to, cc: Vec::new(), hidden, names_others: true });
    }

    #[test]
    fn more_recipients_than_can_be_read_are_named_one_by_one() {
        let named: Vec<String> = (0..600).map(|number| format!("person-{number}@x.example")).collect();
        let raw = format!("Subject: s\r\nTo: {}\r\n\r\nHello\r\n", named.join(",\r\n "));
        assert!(addressed(raw.as_bytes(), &named).names_others);
        // Who has it already may stand where nobody reads any more.
        assert!(addressed(raw.as_bytes(), &named[..500]).names_others);
        // What is long elsewhere is no matter.
        let raw = format!("Subject: {}\r\nTo: a@x.example\r\n\r\nHello\r\n", "long ".repeat(2_000));
        assert!(!addressed(raw.as_bytes(), &strings(&["a@x.example"])).names_others);
    }

    #[test]
    fn the_hidden_stand_in_front_and_the_rest_is_as_it_was() {
        let raw = Bytes::from_static(RAW.as_bytes());
        assert_eq!(with_hidden(&raw, &[]), raw);
        let many: Vec<String> = (0..40).map(|number| format!("person-{number}@contoso.example")).collect();
        let with = with_hidden(&raw, &many);
        assert!(with.ends_with(RAW.as_bytes()));
        let field = String::from_utf8(with[..with.len() - RAW.len()].to_vec()).expect("text");
        assert!(field.lines().all(|line| line.len() <= LINE), "{field}");
        let unfolded = field.replace("\r\n", "");
        assert_eq!(unfolded, format!("Bcc: {}", many.join(", ")));
        let evil = with_hidden(&raw, &strings(&["a@x\r\nSubject: evil"]));
        assert!(evil.starts_with(b"Bcc: a@xSubject: evil\r\n"), "{evil:?}");
    }

    fn part_of(name: &str, bytes: &[u8]) -> String {
        let encoded = BASE64.encode(bytes);
        let lines: Vec<&str> = encoded.as_bytes().chunks(76).map(|line| std::str::from_utf8(line).unwrap()).collect();
        format!(
            "--b\r\nContent-Type: application/pdf; name=\"{name}\"\r\nContent-Disposition: attachment; filename=\"{name}\"\r\n\
             Content-Transfer-Encoding: base64\r\n\r\n{}\r\n",
            lines.join("\r\n")
        )
    }

    #[test]
    fn large_attachments_are_taken_out_and_come_back_byte_for_byte() {
        let (small, large): (Vec<u8>, Vec<u8>) = (vec![7; 500], (0..50_000u32).map(|n| (n % 251) as u8).collect());
        let head = "Subject: s\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\nHello\r\n";
        let [small, large_part] = [part_of("small.pdf", &small), part_of("large.pdf", &large)];
        let raw: Bytes = format!("{head}{small}{large_part}--b--\r\n").into();
        let apart = apart(&raw, 10_000).expect("it fits");
        assert_eq!(apart.rest, format!("{head}{small}--b--\r\n"));
        let [attachment] = apart.attachments.as_slice() else { panic!("{:?}", apart.attachments) };
        assert_eq!((attachment.name.as_str(), attachment.size_bytes), ("large.pdf", 50_000));
        let pieces: Vec<Bytes> = Decoded::of(&raw, attachment, 3_001).expect("within").collect();
        assert!(pieces[..pieces.len() - 1].iter().all(|piece| piece.len() == 3_000));
        assert_eq!(pieces.concat(), large);
        // Both, and nothing else.
        let all = super::apart(&raw, 300).expect("it fits");
        assert_eq!((all.rest, all.attachments.len()), (Bytes::from(format!("{head}--b--\r\n")), 2));
        assert!(super::apart(&raw, 20).is_none(), "the text alone is larger");
    }
}

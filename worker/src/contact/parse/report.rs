//! What a bounce says of the mail that came back (RFC 3464; RFC 6533 for internationalised ones). Pure and bounded.

use postroom_proto::v1::{ContactContent, DeliveryAction, DeliveryReport, RecipientReport};

use super::body::decode;
use super::fields::{line, section};
use super::parts::{Leaf, Parts, divide};
use super::values;

/// Most bytes of a part that are looked at: what is looked for stands at its beginning.
const MAX_PART: usize = 64 * 1024;
/// Most recipients that are told.
const MAX_RECIPIENTS: usize = 500;
/// Longest diagnostic that is told, in bytes.
const MAX_DIAGNOSTIC: usize = 500;

/// Parts that tell what became of the mail for each recipient.
const STATUS: [&str; 2] = ["message/delivery-status", "message/global-delivery-status"];
/// Parts that begin with the header of the mail that came back.
const RETURNED: [&str; 5] =
    ["message/rfc822", "text/rfc822-headers", "message/rfc822-headers", "message/global", "message/global-headers"];

/// Reads a bounce, of which `content` was read before. `None`: it names neither a mail nor a recipient.
pub fn delivery_report(raw: &[u8], content: &ContactContent) -> Option<DeliveryReport> {
    let message = divide(raw);
    let recipients = of(&message, &STATUS).flat_map(|leaf| recipients(&body(raw, leaf))).take(MAX_RECIPIENTS).collect();
    let report = DeliveryReport { original_message_id: original(raw, &message, content), recipients };
    (report != DeliveryReport::default()).then_some(report)
}

/// Message-ID of the mail that came back: of its own header where that was returned; else as the bounce answers it, which
/// Exchange's do; else where old servers quote the header in their text. Empty: not told.
fn original(raw: &[u8], message: &Parts<'_>, content: &ContactContent) -> String {
    let returned = of(message, &RETURNED).find_map(|leaf| {
        let head = body(raw, leaf);
        let (fields, _) = section(&head, 0, |_| false);
        fields.get("message-id").map(values::id).filter(|id| !id.is_empty())
    });
    let answered = || content.in_reply_to.first().or(content.references.last()).cloned();
    let quoted = || {
        let lines = content.text.lines().filter_map(|line| line.trim_start_matches(['>', ' ', '\t']).split_once(':'));
        let mut ids = lines.filter(|(name, _)| name.trim().eq_ignore_ascii_case("message-id"));
        ids.find_map(|(_, value)| Some(values::id(value.as_bytes())).filter(|id| !id.is_empty()))
    };
    returned.or_else(answered).or_else(quoted).unwrap_or_default()
}

fn of<'m>(message: &'m Parts<'_>, kinds: &'static [&'static str]) -> impl Iterator<Item = &'m Leaf> {
    message.leaves.iter().filter(|leaf| kinds.contains(&leaf.kind.name.as_str()))
}

fn body(raw: &[u8], leaf: &Leaf) -> Vec<u8> {
    decode(leaf.encoding, raw.get(leaf.body.clone()).unwrap_or_default(), MAX_PART).0
}

/// RFC 3464 section 2: groups of fields with an empty line between them. The first is about the message; each that names a
/// recipient is about that one.
fn recipients(status: &[u8]) -> Vec<RecipientReport> {
    let mut found = Vec::new();
    let mut group = Group::default();
    let mut at = 0;
    while at < status.len() && found.len() < MAX_RECIPIENTS {
        let (range, next) = line(status, at);
        at = next;
        let text = String::from_utf8_lossy(&status[range]).into_owned();
        if text.trim().is_empty() {
            found.extend(std::mem::take(&mut group).finish());
        } else {
            group.line(&text);
        }
    }
    found.extend(group.finish());
    found
}

/// The fields of one recipient, unfolded.
#[derive(Default)]
struct Group(Vec<(String, String)>);

impl Group {
    fn line(&mut self, text: &str) {
        match (self.0.last_mut(), text.split_once(':')) {
            (Some((_, value)), _) if text.starts_with([' ', '\t']) => {
                value.push(' ');
                value.push_str(text.trim());
            }
            (_, Some((name, value))) => self.0.push((name.trim().to_ascii_lowercase(), value.trim().to_owned())),
            _ => {}
        }
    }

    fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str()).unwrap_or_default()
    }

    fn finish(self) -> Option<RecipientReport> {
        // Whom the sender wrote to; a final recipient may be what a forwarder made of it.
        let named = [typed(self.get("original-recipient")), typed(self.get("final-recipient"))];
        let address = named.into_iter().find(|address| !address.is_empty())?;
        let action =
            match self.get("action").split_whitespace().next().unwrap_or_default().to_ascii_lowercase().as_str() {
                "failed" => DeliveryAction::Failed,
                "delayed" => DeliveryAction::Delayed,
                "delivered" => DeliveryAction::Delivered,
                "relayed" => DeliveryAction::Relayed,
                "expanded" => DeliveryAction::Expanded,
                _ => DeliveryAction::Unspecified,
            };
        let status = self.get("status").split_whitespace().next().unwrap_or_default();
        let mut diagnostic = typed(self.get("diagnostic-code")).to_owned();
        diagnostic.truncate(diagnostic.floor_char_boundary(MAX_DIAGNOSTIC));
        Some(RecipientReport {
            address: address.trim_matches(['<', '>']).to_owned(),
            action: action.into(),
            status: status.to_owned(),
            diagnostic,
        })
    }
}

/// The value of `type; value`.
fn typed(field: &str) -> &str {
    field.split_once(';').map_or(field, |(_, value)| value).trim()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::parse;
    use super::*;

    fn read(raw: &str) -> Option<DeliveryReport> {
        delivery_report(raw.as_bytes(), &parse(raw.as_bytes()).content)
    }

    /// As Postfix writes it.
    fn bounce(returned: &str) -> String {
        format!(
            "From: MAILER-DAEMON@mx.example (Mail Delivery System)\r\nTo: billing@contoso.example\r\n\
             Subject: Undelivered Mail Returned to Sender\r\nAuto-Submitted: auto-replied\r\nMIME-Version: 1.0\r\n\
             Content-Type: multipart/report; report-type=delivery-status; boundary=\"b\"\r\n\r\n\
             --b\r\nContent-Type: text/plain\r\n\r\nI'm sorry.\r\n\
             --b\r\nContent-Type: message/delivery-status\r\n\r\n\
             Reporting-MTA: dns; mx.example\r\nX-Postfix-Queue-ID: 4F\r\n\r\n\
             Final-Recipient: rfc822; gone@x.example\r\nOriginal-Recipient: rfc822;asked@x.example\r\nAction: failed\r\n\
             Status: 5.1.1\r\nDiagnostic-Code: smtp; 550 5.1.1 <gone@x.example>: no such\r\n user here\r\n\r\n\
             Final-Recipient: rfc822; slow@x.example\r\nAction: delayed\r\nStatus: 4.4.1 (no answer)\r\n\r\n\
             --b\r\nContent-Type: {returned}\r\n\r\n\
             From: billing@contoso.example\r\nMessage-ID: <17@contoso.example>\r\nSubject: Re: bill\r\n\r\nText\r\n--b--\r\n"
        )
    }

    #[test]
    fn a_report_names_the_mail_and_what_became_of_it_for_each_recipient() {
        for returned in RETURNED {
            let report = read(&bounce(returned)).unwrap();
            assert_eq!(report.original_message_id, "17@contoso.example", "{returned}");
            let told = |at: usize| {
                let it = &report.recipients[at];
                (it.address.as_str(), it.action(), it.status.as_str(), it.diagnostic.as_str())
            };
            assert_eq!(report.recipients.len(), 2);
            let text = "550 5.1.1 <gone@x.example>: no such user here";
            assert_eq!(told(0), ("asked@x.example", DeliveryAction::Failed, "5.1.1", text));
            assert_eq!(told(1), ("slow@x.example", DeliveryAction::Delayed, "4.4.1", ""));
        }
    }

    #[test]
    fn without_the_returned_header_the_mail_is_found_otherwise() {
        let exchange =
            "In-Reply-To: <17@contoso.example>\r\nSubject: Undeliverable: Re: bill\r\n\r\nIt did not work.\r\n";
        assert_eq!(read(exchange).unwrap().original_message_id, "17@contoso.example");
        let plain = "From: MAILER-DAEMON@x.example\r\nSubject: failure notice\r\n\r\nNo such user.\r\n\r\n\
                     --- Below this line is a copy of the message.\r\n\r\n> Message-Id: <17@contoso.example>\r\n";
        assert_eq!(read(plain).unwrap().original_message_id, "17@contoso.example");
        assert_eq!(read("Subject: failure notice\r\n\r\nNo such user.\r\n"), None);
    }

    #[test]
    fn much_is_told_in_part() {
        let one =
            |n: usize| format!("Final-Recipient: rfc822; u{n}@x.example\r\nAction: failed\r\nStatus: 5.1.1\r\n\r\n");
        let many: String = (0..2000).map(one).collect();
        let raw = format!("Content-Type: message/delivery-status\r\n\r\n{many}");
        let report = read(&raw).unwrap();
        assert!((100..=MAX_RECIPIENTS).contains(&report.recipients.len()), "{}", report.recipients.len());
        let long = format!(
            "Content-Type: message/delivery-status\r\n\r\nFinal-Recipient: rfc822; a@x.example\r\n\
            Diagnostic-Code: smtp; {}\r\n",
            "ä".repeat(1000)
        );
        assert_eq!(read(&long).unwrap().recipients[0].diagnostic.len(), MAX_DIAGNOSTIC);
    }

    proptest! {
        #[test]
        fn whatever_the_bytes_nothing_fails(raw in proptest::collection::vec(any::<u8>(), 0..2000), cut in 0usize..1200) {
            delivery_report(&raw, &ContactContent::default());
            let mut bounce = bounce("message/rfc822").into_bytes();
            bounce.truncate(cut);
            bounce.extend(raw);
            delivery_report(&bounce, &ContactContent::default());
        }
    }
}

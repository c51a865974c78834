//! What sort of message it is, from its headers and its structure. Pure.
//!
//! The rules stand in one table and the first that holds decides. Their order, and why:
//!
//! 1. *Bounces* first: RFC 3464 has them say `Auto-Submitted: auto-replied` too, so they would look like answers.
//! 2. *Receipts*: the same (RFC 8098 section 2.1).
//! 3. *Calendar*: what a room's mailbox answers to an invitation is automatic, but what to do with it depends on its being
//!    an answer to an invitation.
//! 4. *Auto-replies* that say so: an out-of-office note often says `Precedence: bulk` as well, to ask for no answer.
//! 5. *Bulk* by the fields of lists: newsletters say `Auto-Submitted: auto-generated`, but answer nobody.
//! 6. *Auto-replies* by anything else in Auto-Submitted: Exchange's out-of-office notes say `auto-generated`.
//! 7. *Bulk* by Precedence alone, the weakest sign: programs set it for many reasons.
//!
//! What is no sign, and why: `X-Auto-Response-Suppress` alone asks that nothing automatic answers, which people's mail
//! does as well. Words of the subject ("Out of office") stand in every language, and in answers of people. A null
//! Return-Path alone stands in receipts, notes and bounces alike. `X-MS-Exchange-Inbox-Rules-Loop` alone is also in what a
//! person's rule forwards.

use std::collections::BTreeMap;

use postroom_proto::v1::ContactKind;

/// What the kind of a message is told from. All in lower case, but for the method.
#[derive(Debug, Clone, Default)]
pub struct Signs {
    /// Header fields, without parameters that were cut off.
    pub fields: BTreeMap<&'static str, String>,
    /// What the message says it is, for example `multipart/report`.
    pub media_type: String,
    /// Of what it is a report (RFC 6522).
    pub report_type: String,
    /// What its parts say they are.
    pub parts: Vec<String>,
    /// The method of its calendar part (RFC 6047), upper case; `None` without such a part.
    pub calendar_method: Option<String>,
    /// Address of the sender.
    pub from: String,
    /// Subject, decoded.
    pub subject: String,
}

impl Signs {
    /// The first word of a field, without parameters and comments. Empty when there is none.
    fn word(&self, field: &str) -> &str {
        let value = self.fields.get(field).map(String::as_str).unwrap_or_default();
        let end = value.find(|c: char| c == ';' || c == '(' || c == ',' || c.is_whitespace()).unwrap_or(value.len());
        &value[..end]
    }

    fn has(&self, field: &str) -> bool {
        self.fields.contains_key(field)
    }

    fn has_part(&self, name: &str) -> bool {
        self.media_type == name || self.parts.iter().any(|part| part == name)
    }
}

/// A rule: what it is about, what kind it means, and when it holds.
type Rule = (&'static str, ContactKind, fn(&Signs) -> bool);

const RULES: &[Rule] = &[
    ("RFC 3464: a report of delivery status", ContactKind::Bounce, |signs| {
        is_report(signs, "delivery-status") || is_report(signs, "delayed-delivery-status")
    }),
    ("a part with delivery status, in reports that lost their type", ContactKind::Bounce, |signs| {
        signs.has_part("message/delivery-status") || signs.has_part("message/global-delivery-status")
    }),
    ("Exchange's mark, and Exim's and Google's", ContactKind::Bounce, |signs| {
        signs.has("x-ms-exchange-message-is-ndr") || signs.has("x-failed-recipients")
    }),
    ("what mail servers send without a report", ContactKind::Bounce, is_plain_bounce),
    ("RFC 8098: a report of disposition", ContactKind::Receipt, |signs| {
        is_report(signs, "disposition-notification")
            || signs.has_part("message/disposition-notification")
            || signs.has_part("message/global-disposition-notification")
    }),
    ("Exchange's receipts: IPM.Note with REPORT and the sort of receipt", ContactKind::Receipt, |signs| {
        let class = signs.word("x-msexchange-messageclass");
        class.starts_with("report.") && [".ipnrn", ".ipnnrn"].iter().any(|end| class.ends_with(end))
    }),
    ("RFC 6047: a calendar part with a method, and Exchange's classes", ContactKind::Calendar, |signs| {
        signs.calendar_method.as_deref().is_some_and(|method| !method.is_empty())
            || signs.media_type == "text/calendar"
            || signs.word("x-msexchange-messageclass").starts_with("ipm.schedule.meeting.")
    }),
    ("RFC 3834: an automatic answer", ContactKind::AutoReply, |signs| signs.word("auto-submitted") == "auto-replied"),
    ("fields of programs that answer", ContactKind::AutoReply, |signs| {
        ["x-autoreply", "x-autorespond", "x-autoresponder"]
            .iter()
            .any(|field| signs.has(field) && !matches!(signs.word(field), "no" | "false" | "0"))
            || matches!(signs.word("precedence"), "auto_reply" | "auto-reply" | "autoreply")
    }),
    ("Exchange's out-of-office notes, marked by two fields together", ContactKind::AutoReply, |signs| {
        let suppress = signs.fields.get("x-auto-response-suppress").map(String::as_str).unwrap_or_default();
        suppress.split(',').any(|word| word.trim() == "all")
            && (signs.has("x-ms-exchange-inbox-rules-loop") || signs.has("x-ms-exchange-generated-message-source"))
    }),
    ("RFC 2919 and RFC 2369: a list or a newsletter", ContactKind::Bulk, |signs| {
        ["list-id", "list-unsubscribe", "list-post"].iter().any(|field| signs.has(field))
    }),
    ("RFC 3834: anything else automatic", ContactKind::AutoReply, |signs| {
        !matches!(signs.word("auto-submitted"), "" | "no")
    }),
    ("precedence alone", ContactKind::Bulk, |signs| matches!(signs.word("precedence"), "bulk" | "list" | "junk")),
];

fn is_report(signs: &Signs, kind: &str) -> bool {
    signs.media_type == "multipart/report" && signs.report_type == kind
}

/// Bounces of old servers are plain text from the mail system. Both must fit: people write about bounces, and mail systems
/// send other things.
fn is_plain_bounce(signs: &Signs) -> bool {
    const SENDERS: [&str; 3] = ["mailer-daemon", "postmaster", "microsoftexchange329e71ec88ae4615bbc36ab6ce41109e"];
    const SUBJECTS: [&str; 10] = [
        "undeliverable",
        "undelivered mail returned to sender",
        "delivery status notification",
        "mail delivery failed",
        "mail delivery failure",
        "mail delivery system",
        "delivery failure",
        "failure notice",
        "returned mail",
        "warning: could not send message",
    ];
    let sender = signs.from.split('@').next().unwrap_or_default();
    let from_system = SENDERS.contains(&sender) || signs.fields.get("return-path").is_some_and(|path| path == "<>");
    from_system && SUBJECTS.iter().any(|words| signs.subject.starts_with(words))
}

/// The kind of a message.
pub fn classify(signs: &Signs) -> ContactKind {
    RULES.iter().find(|(_, _, holds)| holds(signs)).map_or(ContactKind::Normal, |(_, kind, _)| *kind)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contact::parse::parse;

    fn kind(head: &str) -> ContactKind {
        classify(&parse(format!("{head}\r\n\r\ntext\r\n").as_bytes()).signs)
    }

    /// A message in two parts, the second of this type.
    fn with_part(head: &str, part: &str) -> ContactKind {
        let raw = format!(
            "{head}\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\ntext\r\n--b\r\nContent-Type: {part}\r\n\r\nx\r\n--b--\r\n"
        );
        classify(&parse(raw.as_bytes()).signs)
    }

    #[test]
    fn one_header_is_enough_where_it_says_all() {
        use ContactKind::{AutoReply, Bounce, Bulk, Calendar, Normal, Receipt};
        for (head, expected) in [
            ("Subject: Hello", Normal),
            ("Auto-Submitted: no", Normal),
            ("Auto-Submitted: NO (a person)", Normal),
            ("Auto-Submitted: auto-replied", AutoReply),
            ("AUTO-SUBMITTED: Auto-Replied; owner-email=\"a@x.example\"", AutoReply),
            ("Auto-Submitted:\r\n auto-replied", AutoReply),
            ("Auto-Submitted: auto-generated", AutoReply),
            ("Auto-Submitted: auto-notified; owner-email=\"a@x.example\"", AutoReply),
            ("X-Auto-Response-Suppress: All", Normal),
            ("X-Auto-Response-Suppress: DR, OOF, AutoReply", Normal),
            ("X-MS-Exchange-Inbox-Rules-Loop: a@x.example", Normal),
            ("X-Auto-Response-Suppress: DR, RN\r\nX-MS-Exchange-Inbox-Rules-Loop: a@x.example", Normal),
            ("X-Auto-Response-Suppress: All\r\nX-MS-Exchange-Inbox-Rules-Loop: a@x.example", AutoReply),
            ("X-Auto-Response-Suppress: All\r\nX-MS-Exchange-Generated-Message-Source: Mailbox Rules Agent", AutoReply),
            ("X-Autoreply: yes", AutoReply),
            ("X-Autoreply: no", Normal),
            ("X-Autorespond:", AutoReply),
            ("X-AutoResponder: Plesk", AutoReply),
            ("Precedence: auto_reply", AutoReply),
            ("Subject: Out of Office", Normal),
            ("Subject: Automatic reply: Your invoice", Normal),
            ("Precedence: bulk", Bulk),
            ("Precedence: List", Bulk),
            ("Precedence: first-class", Normal),
            ("List-Id: News <news.x.example>", Bulk),
            ("List-Unsubscribe: <mailto:leave@x.example>", Bulk),
            ("List-Help: <mailto:help@x.example>", Normal),
            (
                "From: MAILER-DAEMON@x.example (Mail Delivery System)\r\nSubject: Undelivered Mail Returned to Sender",
                Bounce,
            ),
            ("From: Postmaster@x.example\r\nSubject: Undeliverable: your invoice", Bounce),
            ("Return-Path: <>\r\nFrom: Mail System <x@x.example>\r\nSubject: Returned mail: see transcript", Bounce),
            ("From: MAILER-DAEMON@x.example\r\nSubject: Your quota", Normal),
            ("From: a@x.example\r\nSubject: Undeliverable: what does that mean?", Normal),
            ("Return-Path: <>\r\nSubject: hello", Normal),
            ("X-MS-Exchange-Message-Is-Ndr:", Bounce),
            ("X-Failed-Recipients: a@x.example", Bounce),
            ("X-MSExchange-MessageClass: REPORT.IPM.Note.IPNRN", Receipt),
            ("X-MSExchange-MessageClass: IPM.Schedule.Meeting.Request", Calendar),
            ("Content-Type: text/calendar; charset=utf-8; method=REQUEST", Calendar),
        ] {
            assert_eq!(kind(head), expected, "{head}");
        }
    }

    #[test]
    fn structure_tells_reports_and_invitations() {
        use ContactKind::{Bounce, Calendar, Normal, Receipt};
        let report = |of: &str| format!("Content-Type: multipart/report; report-type={of}; boundary=b");
        let mixed = "Content-Type: multipart/mixed; boundary=b";
        for (head, part, expected) in [
            (report("delivery-status"), "message/delivery-status", Bounce),
            (report("\"Delivery-Status\""), "text/plain", Bounce),
            (report("disposition-notification"), "message/disposition-notification", Receipt),
            (report("feedback-report"), "message/feedback-report", Normal),
            (mixed.to_owned(), "message/delivery-status", Bounce),
            (mixed.to_owned(), "message/disposition-notification", Receipt),
            (mixed.to_owned(), "message/rfc822", Normal),
            (mixed.to_owned(), "text/calendar; method=REQUEST", Calendar),
            // Somebody sends a calendar along.
            (mixed.to_owned(), "text/calendar; name=holidays.ics", Normal),
        ] {
            assert_eq!(with_part(&head, part), expected, "{head} with {part}");
        }
    }

    #[test]
    fn the_first_rule_that_holds_decides() {
        use ContactKind::{AutoReply, Bounce, Bulk, Calendar, Receipt};
        let report = |of: &str, more: &str| {
            with_part(&format!("{more}\r\nContent-Type: multipart/report; report-type={of}; boundary=b"), "text/plain")
        };
        // RFC 3464 and RFC 8098: both say that nobody should answer.
        assert_eq!(report("delivery-status", "Auto-Submitted: auto-replied"), Bounce);
        assert_eq!(report("disposition-notification", "Auto-Submitted: auto-replied"), Receipt);
        let room = "Auto-Submitted: auto-generated\r\nContent-Type: multipart/alternative; boundary=b";
        assert_eq!(with_part(room, "text/calendar; method=REPLY"), Calendar);
        assert_eq!(kind("Auto-Submitted: auto-replied\r\nPrecedence: bulk"), AutoReply);
        assert_eq!(kind("Auto-Submitted: auto-replied\r\nList-Id: <l.x.example>"), AutoReply);
        assert_eq!(kind("Auto-Submitted: auto-generated\r\nList-Unsubscribe: <https://x.example/>"), Bulk);
        assert_eq!(kind("Auto-Submitted: auto-generated\r\nPrecedence: bulk"), AutoReply);
    }

    #[test]
    fn every_rule_says_what_it_is_and_decides_on_a_kind() {
        for (what, kind, _) in RULES {
            assert!(!what.is_empty());
            assert!(!matches!(kind, ContactKind::Unspecified | ContactKind::Normal), "{what}");
        }
        assert_eq!(classify(&Signs::default()), ContactKind::Normal);
    }
}

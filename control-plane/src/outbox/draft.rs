//! What somebody wants to be sent, checked against the model and completed from the contact that it answers. Pure. All
//! faults are told at once.
//!
//! Invariant: nothing that goes into a header has a control character, and every address is an ASCII one.

use std::collections::HashSet;

use email_address::{EmailAddress as Syntax, Options};
use postroom_proto::reason::{Failure, FieldFault};
use postroom_proto::v1::{self, Contact, EmailAddress, RecipientKind};

use crate::definition::model::{Instance, Model};
use crate::definition::sending::sender;
use crate::ledger::outbox::Lane;

/// Most recipients. Exchange takes 500 unless it is told otherwise.
pub const MOST_RECIPIENTS: usize = 500;
/// Most attachments.
pub const MOST_ATTACHMENTS: usize = 100;
/// Longest subject, name and file name, in characters.
const LONGEST_SUBJECT: usize = 500;
const LONGEST_NAME: usize = 255;
/// Longest Message-ID of others that is repeated, in bytes; lines end at 998 (RFC 5322 section 2.1.1).
const LONGEST_ID: usize = 900;
/// Most bytes of References. The oldest and the newest ids matter.
const LONGEST_REFERENCES: usize = 4000;

/// A mail that can be composed.
#[derive(Debug, Clone, PartialEq)]
pub struct Composition {
    /// Whose mail it is, and which way it goes.
    pub lane: Lane,
    /// Name of the instance.
    pub instance: String,
    /// Name of the queue that has the address of From.
    pub queue: String,
    /// Id of the contact that it answers; empty: none.
    pub contact: String,
    /// From.
    pub from: EmailAddress,
    /// To whom, each address once.
    pub recipients: Vec<(RecipientKind, EmailAddress)>,
    /// Subject; may be empty.
    pub subject: String,
    /// Text; may be empty when there is html.
    pub text: String,
    /// HTML; may be empty when there is text.
    pub html: String,
    /// Nobody wrote it.
    pub automatic: bool,
    /// Message-ID of the mail that it answers.
    pub in_reply_to: Option<String>,
    /// Message-IDs of the conversation, oldest first.
    pub references: Vec<String>,
}

/// Checks a draft of `instance`; `reply` is the contact that it answers.
pub fn check(
    draft: v1::Draft,
    instance: &Instance,
    reply: Option<&Contact>,
    model: &Model,
) -> Result<Composition, Failure> {
    let mut faults = Faults::default();
    let content = reply.and_then(|contact| contact.content.as_ref());
    if draft.text.is_empty() && draft.html.is_empty() {
        faults.add("text", "is missing, and so is html; write one of the two at least");
    }
    let subject = match (draft.subject.as_str(), content) {
        ("", Some(content)) => answered(&content.subject),
        (written, _) => faults.line("subject", written, LONGEST_SUBJECT),
    };
    let (from, place) = from(&mut faults, &draft, instance, reply, model);
    let recipients = recipients(&mut faults, &draft, content);
    let (in_reply_to, references) = content.map(thread).unwrap_or_default();
    faults.end()?;
    // Without a place there was a fault.
    let (queue_uid, queue, email) = place.unwrap_or_default();
    Ok(Composition {
        lane: Lane::new(&instance.uid, &queue_uid, &email),
        instance: instance.name.clone(),
        queue,
        contact: reply.map(|contact| contact.id.clone()).unwrap_or_default(),
        from,
        recipients,
        subject,
        text: draft.text,
        html: draft.html,
        automatic: draft.automatic,
        in_reply_to,
        references,
    })
}

/// Checks what is said of an attachment before its bytes. Its media type comes back as it is written into the mail.
pub fn check_attachment(index: usize, header: &v1::DraftAttachment) -> Result<String, Failure> {
    let mut faults = Faults::default();
    let field = |name: &str| format!("attachments[{index}].{name}");
    if header.name.is_empty() {
        faults.add(&field("name"), "is empty; give the file a name");
    }
    faults.line(&field("name"), &header.name, LONGEST_NAME);
    let id = &header.content_id;
    if !id.is_empty() && !is_message_id(id) {
        faults
            .add(&field("contentId"), "is no Content-ID; write visible ASCII without brackets, for example logo@local");
    }
    let media_type = if header.media_type.is_empty() { OCTETS.to_owned() } else { header.media_type.to_lowercase() };
    let token =
        |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&b));
    match media_type.split_once('/') {
        Some((kind, subtype)) if token(kind) && token(subtype) && media_type.len() <= 127 => {}
        _ => faults
            .add(&field("mediaType"), "is no media type; write one without parameters, for example application/pdf"),
    }
    faults.end()?;
    // Messages and multiparts must not be encoded as a whole (RFC 2046 section 5.2.1), and files have to be.
    let composite = media_type.starts_with("message/") || media_type.starts_with("multipart/");
    Ok(if composite { OCTETS.to_owned() } else { media_type })
}

const OCTETS: &str = "application/octet-stream";

/// An address as mail servers take it: the domain in its ASCII form (RFC 5891), the rest in ASCII. The error says what is
/// wrong and what to write.
pub fn ascii_address(written: &str) -> Result<String, String> {
    const FORM: &str = "write it as name@domain";
    let options = Options::default().without_display_text().without_domain_literal();
    let no = |what: &str| Err(format!("{written:?} {what}"));
    let Some((local, domain)) = written.trim().rsplit_once('@') else { return no(&format!("is no address; {FORM}")) };
    if !local.is_ascii() {
        return no("has letters outside ASCII before the @, which few servers take and none is asked to; \
                   write to another address of the same person");
    }
    let Ok(domain) = idna::domain_to_ascii(domain) else { return no("has a domain that cannot be; correct it") };
    let ascii = format!("{local}@{domain}");
    let atom = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~.".contains(&b);
    if !local.bytes().all(atom) || Syntax::parse_with_options(&ascii, options).is_err() {
        return no(&format!("is no address; {FORM}"));
    }
    Ok(ascii)
}

/// From, and the queue (uid, name) and address that it is of.
fn from(
    faults: &mut Faults,
    draft: &v1::Draft,
    instance: &Instance,
    reply: Option<&Contact>,
    model: &Model,
) -> (EmailAddress, Option<(String, String, String)>) {
    let written = draft.from.clone().unwrap_or_default();
    let name = faults.line("from.name", &written.name, LONGEST_NAME);
    let (email, queue) = match reply {
        Some(contact) if written.address.is_empty() => (contact.address.as_str(), contact.queue_uid.as_str()),
        Some(contact) => (written.address.as_str(), contact.queue_uid.as_str()),
        None => (written.address.as_str(), ""),
    };
    let email = email.trim();
    if email.is_empty() {
        faults.add("from", "is missing; write an address with `sender` of a queue of the instance");
        return (written, None);
    }
    let Some((queue, address)) = sender(model, &instance.uid, queue, email) else {
        let text = format!(
            "{email} may not be used as From by instance {}; write an address with `sender` of one of its queues, or give \
             it one",
            instance.name
        );
        faults.add("from", text);
        return (written, None);
    };
    match ascii_address(&address.email) {
        Ok(ascii) => (
            EmailAddress { name, address: ascii },
            Some((queue.uid.clone(), queue.name.clone(), address.email.clone())),
        ),
        Err(fault) => {
            faults.add("from", fault);
            (written, None)
        }
    }
}

fn recipients(
    faults: &mut Faults,
    draft: &v1::Draft,
    content: Option<&v1::ContactContent>,
) -> Vec<(RecipientKind, EmailAddress)> {
    let mut recipients = Vec::new();
    let lists = [
        ("to", RecipientKind::To, &draft.to),
        ("cc", RecipientKind::Cc, &draft.cc),
        ("bcc", RecipientKind::Bcc, &draft.bcc),
    ];
    for (field, kind, list) in lists {
        for (index, written) in list.iter().enumerate() {
            let name = faults.line(&format!("{field}[{index}].name"), &written.name, LONGEST_NAME);
            match ascii_address(&written.address) {
                Ok(address) => recipients.push((kind, EmailAddress { name, address })),
                Err(fault) => faults.add(&format!("{field}[{index}].address"), fault),
            }
        }
    }
    if draft.to.is_empty() {
        match content {
            Some(content) => {
                let whom = whom(content);
                if whom.is_empty() {
                    faults.add("to", "is empty, and the contact names nobody who can be answered; write to whom");
                }
                recipients.splice(0..0, whom.into_iter().map(|it| (RecipientKind::To, it)));
            }
            None if recipients.is_empty() => faults.add("to", "is empty, and so are cc and bcc; write to whom"),
            None => {}
        }
    }
    let mut seen = HashSet::new();
    recipients.retain(|(_, it)| seen.insert(it.address.to_lowercase()));
    if recipients.len() > MOST_RECIPIENTS {
        let text = format!("are {} with cc and bcc; at most {MOST_RECIPIENTS} are taken", recipients.len());
        faults.add("to", text);
    }
    recipients
}

/// Who is to be answered: Reply-To, else From; only what can be written to.
fn whom(content: &v1::ContactContent) -> Vec<EmailAddress> {
    let usable = |list: &[EmailAddress]| -> Vec<EmailAddress> {
        let address = |it: &EmailAddress| {
            Some(EmailAddress { name: tidy(&it.name, LONGEST_NAME), address: ascii_address(&it.address).ok()? })
        };
        list.iter().filter_map(address).collect()
    };
    match usable(&content.reply_to) {
        none if none.is_empty() => usable(&content.from),
        some => some,
    }
}

/// The subject of an answer.
fn answered(subject: &str) -> String {
    let mut rest = subject.trim();
    while let Some(stripped) = rest.get(..3).filter(|start| start.eq_ignore_ascii_case("re:")).map(|_| rest[3..].trim())
    {
        rest = stripped;
    }
    tidy(&format!("Re: {rest}"), LONGEST_SUBJECT)
}

/// In-Reply-To and References of an answer (RFC 5322 section 3.6.4).
fn thread(content: &v1::ContactContent) -> (Option<String>, Vec<String>) {
    let usable = |id: &&String| is_message_id(id) && id.len() <= LONGEST_ID;
    let in_reply_to = Some(&content.message_id).filter(usable).cloned();
    let older = if content.references.is_empty() { &content.in_reply_to } else { &content.references };
    let mut seen = HashSet::new();
    let mut references: Vec<String> = older.iter().chain(in_reply_to.iter()).rev().filter(usable).cloned().collect();
    // Newest first here, so that of a repeated one the newest place stays.
    references.retain(|id| seen.insert(id.clone()));
    references.reverse();
    let mut bytes: usize = references.iter().map(|id| id.len() + 3).sum();
    // The first began the conversation and the last ones are answered; what lies between goes first.
    while bytes > LONGEST_REFERENCES && references.len() > 1 {
        let gone = references.remove(1.min(references.len() - 2));
        bytes -= gone.len() + 3;
    }
    (in_reply_to, references)
}

/// True for what can stand in brackets as an id without changing what is around it.
fn is_message_id(id: &str) -> bool {
    !id.is_empty() && id.bytes().all(|b| b.is_ascii_graphic() && !b"<>\"(),;\\".contains(&b))
}

/// One line of a text that somebody else wrote.
fn tidy(text: &str, longest: usize) -> String {
    let clean: String = text.chars().map(|c| if is_control(c) { ' ' } else { c }).take(longest).collect();
    clean.trim().to_owned()
}

/// Line separators of Unicode too: some programs take them for line ends.
fn is_control(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')
}

#[derive(Default)]
struct Faults(Vec<FieldFault>);

impl Faults {
    fn add(&mut self, field: &str, description: impl Into<String>) {
        self.0.push(FieldFault { field: field.into(), description: description.into() });
    }

    /// A text that has to fit on one line of a header.
    fn line(&mut self, field: &str, text: &str, longest: usize) -> String {
        if text.chars().any(is_control) {
            self.add(field, "contains a line break or another control character; leave it out");
        }
        if text.chars().count() > longest {
            self.add(field, format!("is longer than {longest} characters"));
        }
        text.trim().to_owned()
    }

    fn end(self) -> Result<(), Failure> {
        if self.0.is_empty() { Ok(()) } else { Err(Failure::invalid(self.0)) }
    }
}

#[cfg(test)]
mod tests;

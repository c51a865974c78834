//! Replies of SMTP servers (RFC 5321 section 4.2, with enhanced status codes of RFC 3463) as faults. Pure.
//!
//! One table, first match wins: what Exchange Online says in its own numbers and texts comes before what any server means
//! by a class of codes at a step of the dialogue.
//!
//! Invariant: a code below 500 never ends a mail (RFC 5321 section 4.2.1), whatever the text with it says.

use std::time::Duration;

use postroom_proto::catalogue::{Entry, send};
use postroom_proto::v1::OutgoingAuthentication;

use super::{Fate, Fault};
use crate::diagnosis::{Diagnosis, excerpt};

/// Longest text of a server that is kept.
const LONGEST: usize = 500;

/// A reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// Reply code.
    pub code: u16,
    /// Its text, all lines in one.
    pub text: String,
}

impl Reply {
    /// The enhanced status code that the text begins with (RFC 2034 section 4); empty when there is none.
    pub fn status(&self) -> &str {
        let word = self.text.split(' ').next().unwrap_or_default();
        let parts: Vec<&str> = word.split('.').collect();
        let number = |part: &str| (1..=3).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit());
        let class = (self.code / 100).to_string();
        if parts.len() == 3 && parts[0] == class && number(parts[1]) && number(parts[2]) { word } else { "" }
    }
}

impl std::fmt::Display for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&excerpt(&format!("{} {}", self.code, self.text), LONGEST))
    }
}

/// At which step of the dialogue a reply came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Greeting and EHLO.
    Greeting,
    /// STARTTLS.
    StartTls,
    /// AUTH.
    SignIn,
    /// MAIL FROM.
    Sender,
    /// RCPT TO.
    Recipient,
    /// DATA, before anything of the mail.
    Data,
    /// After the mail's last byte.
    End,
}

/// A negative reply, as the rules look at it.
struct Said<'r> {
    step: Step,
    sign_in: OutgoingAuthentication,
    code: u16,
    status: &'r str,
    text: &'r str,
}

impl Said<'_> {
    fn says(&self, entry: &Entry) -> bool {
        entry.is_said_by(self.text)
    }

    fn is(&self, statuses: &[&str]) -> bool {
        statuses.contains(&self.status)
    }

    fn at(&self, step: Step) -> bool {
        self.step == step
    }

    fn passing(&self) -> bool {
        self.code < 500
    }

    fn oauth(&self) -> bool {
        matches!(self.sign_in, OutgoingAuthentication::OauthService | OutgoingAuthentication::OauthUser)
    }

    /// The server does not know the command, or not here (RFC 5321 section 4.2.4).
    fn command(&self, codes: &[u16]) -> bool {
        codes.contains(&self.code) && !self.status.starts_with("5.1.")
    }
}

/// When it applies, what it is, what becomes of the mail, and how many seconds to wait where it is known.
type Rule = (fn(&Said<'_>) -> bool, &'static Entry, Fate, Option<u64>);

use Fate::{Again, Never, WholeMailbox};

const MINUTE: Option<u64> = Some(60);
const HOUR: Option<u64> = Some(3600);

const RULES: &[Rule] = &[
    // Exchange's limits on a mailbox, and their ends.
    (|s| s.code == 432 || s.says(&send::TOO_MANY_SENDING), &send::TOO_MANY_SENDING, WholeMailbox, Some(20)),
    (|s| s.says(&send::SENDING_QUOTA), &send::SENDING_QUOTA, WholeMailbox, Some(2 * 3600)),
    (
        // Exchange says it of the copy that it keeps of what is sent.
        |s| s.says(&send::SENDER_MAILBOX_FULL) || s.is(&["5.2.2"]) && s.at(Step::Sender),
        &send::SENDER_MAILBOX_FULL,
        WholeMailbox,
        HOUR,
    ),
    // The bare status is about a recipient, whenever it is said.
    (|s| s.is(&["5.2.2"]), &send::RECIPIENT_REFUSED, Never, None),
    // Switches and policies of a tenant.
    (|s| s.says(&send::SMTP_AUTH_DISABLED), &send::SMTP_AUTH_DISABLED, WholeMailbox, None),
    (|s| s.says(&send::BASIC_AUTH_DISABLED) || s.is(&["5.7.30"]), &send::BASIC_AUTH_DISABLED, WholeMailbox, None),
    (|s| s.is(&["5.7.139"]), &send::SMTP_AUTH_BLOCKED, WholeMailbox, None),
    (|s| s.is(&["5.1.8"]) || s.says(&send::SENDER_BLOCKED), &send::SENDER_BLOCKED, WholeMailbox, HOUR),
    // It concerns one sender, and the mailbox may send as others.
    (|s| s.is(&["5.7.60", "5.2.252"]) || s.says(&send::SEND_AS_DENIED), &send::SEND_AS_DENIED, Again, None),
    // How this worker comes to the server.
    (|s| s.says(&send::STARTTLS_REQUIRED), &send::STARTTLS_REQUIRED, WholeMailbox, None),
    (
        |s| s.code == 530 || s.is(&["5.7.57"]) || !s.at(Step::SignIn) && s.says(&send::NOT_SIGNED_IN),
        &send::NOT_SIGNED_IN,
        WholeMailbox,
        None,
    ),
    (|s| s.says(&send::RELAY_DENIED), &send::RELAY_DENIED, Again, None),
    (|s| s.at(Step::Greeting) && !s.passing(), &send::RELAY_DENIED, WholeMailbox, None),
    (|s| s.at(Step::Greeting), &send::SUBMISSION_UNAVAILABLE, WholeMailbox, None),
    (|s| s.at(Step::StartTls) && !s.passing(), &send::STARTTLS_NOT_OFFERED, WholeMailbox, None),
    (|s| s.at(Step::StartTls), &send::SUBMISSION_UNAVAILABLE, WholeMailbox, None),
    // Sign-in (RFC 4954 section 6).
    (|s| s.at(Step::SignIn) && s.passing(), &send::SUBMISSION_UNAVAILABLE, WholeMailbox, None),
    (
        |s| s.at(Step::SignIn) && matches!(s.code, 502..=504 | 534 | 538),
        &send::SMTP_SIGN_IN_UNSUPPORTED,
        WholeMailbox,
        None,
    ),
    (|s| s.at(Step::SignIn) && s.oauth(), &send::SMTP_TOKEN_REFUSED, WholeMailbox, None),
    (|s| s.at(Step::SignIn), &send::SMTP_PASSWORD_REFUSED, WholeMailbox, None),
    // The mail itself. RFC 5321 says 552 of a recipient's mailbox too, at RCPT.
    (
        |s| {
            let size = s.is(&["5.3.4", "5.2.3"]) || s.says(&send::MESSAGE_TOO_LARGE);
            !s.passing() && (size || s.code == 552 && !s.at(Step::Recipient))
        },
        &send::MESSAGE_TOO_LARGE,
        Never,
        None,
    ),
    // A server that asks to slow down, or greets strangers with a wait.
    (
        |s| s.passing() && !s.at(Step::Recipient) && (s.status.starts_with("4.7.") || s.text.contains("throttl")),
        &send::SENDING_THROTTLED,
        WholeMailbox,
        MINUTE,
    ),
    (|s| s.at(Step::Sender) && s.passing(), &send::SUBMISSION_UNAVAILABLE, WholeMailbox, None),
    (|s| s.at(Step::Sender) && s.command(&[500, 501, 502, 503, 504, 555]), &send::COMMAND_NOT_UNDERSTOOD, Again, None),
    (|s| s.at(Step::Sender), &send::SENDER_REFUSED, Again, None),
    (|s| s.at(Step::Recipient) && s.code == 421, &send::SUBMISSION_UNAVAILABLE, Again, None),
    (|s| s.at(Step::Recipient) && s.passing(), &send::RECIPIENT_DEFERRED, Again, None),
    (|s| s.at(Step::Recipient) && s.command(&[500, 502, 503]), &send::COMMAND_NOT_UNDERSTOOD, Again, None),
    (|s| s.at(Step::Recipient), &send::RECIPIENT_REFUSED, Never, None),
    (|s| s.passing(), &send::SUBMISSION_UNAVAILABLE, Again, None),
    (|s| s.at(Step::Data) && s.command(&[500, 501, 502, 503]), &send::COMMAND_NOT_UNDERSTOOD, Again, None),
    (|s| s.status.starts_with("5.1.") || s.text.contains("recipients"), &send::RECIPIENT_REFUSED, Never, None),
    (|_| true, &send::MESSAGE_REFUSED, Never, None),
];

/// What a negative reply means. `sign_in`: how the outgoing server is signed in to.
pub fn refused(step: Step, sign_in: OutgoingAuthentication, reply: &Reply) -> Fault {
    let text = reply.text.to_lowercase();
    let said = Said { step, sign_in, code: reply.code, status: reply.status(), text: &text };
    let rule = RULES.iter().find(|(applies, ..)| applies(&said));
    let (entry, fate, wait) = match rule {
        Some((_, entry, fate, wait)) => (*entry, *fate, *wait),
        None => (&send::MESSAGE_REFUSED, Never, None),
    };
    let fate = if fate == Never && said.passing() { Again } else { fate };
    let found = Diagnosis::of(entry, format!("{} ({reply})", entry.title)).after(wait.map(Duration::from_secs));
    Fault { status: reply.status().to_owned(), response: reply.to_string(), ..Fault::of(found, fate) }
}

/// Where a server answers as no server should: with a wait for more where there is none, or in a form that cannot be
/// read.
pub fn strange(step: Step, detail: &str) -> Fault {
    let entry = &send::SUBMISSION_ANSWER_STRANGE;
    let early = matches!(step, Step::Greeting | Step::StartTls | Step::SignIn);
    let found = Diagnosis::of(entry, format!("{} ({})", entry.title, excerpt(detail, 200)));
    Fault::of(found, if early { WholeMailbox } else { Again })
}

/// The connection ended or fell silent before the mail was handed over.
pub fn lost(step: Step, detail: &str) -> Fault {
    let entry = &send::SUBMISSION_LOST;
    let early = matches!(step, Step::Greeting | Step::StartTls | Step::SignIn);
    let found = Diagnosis::of(entry, format!("{} ({})", entry.title, excerpt(detail, 200)));
    Fault::of(found, if early { WholeMailbox } else { Again })
}

/// The mail needs what the server does not offer.
pub fn not_offered(extension: &str, why: &str) -> Fault {
    let cause = format!("the server does not offer {extension}, and {why}");
    let fault = Fault::of(Diagnosis::of(&send::EXTENSION_NOT_OFFERED, cause), Never);
    // RFC 3463: 5.6.7 (RFC 6531 section 3.7.4.2) for addresses.
    let status = if extension == "SMTPUTF8" { "5.6.7" } else { "5.6.3" };
    Fault { status: status.into(), ..fault }
}

/// The mail is larger than what the server announced that it takes (RFC 1870 section 6).
pub fn over_announced(size: u64, limit: u64) -> Fault {
    let cause = format!("the mail has {size} bytes, and the server takes {limit} at most");
    let fault = Fault::of(Diagnosis::of(&send::MESSAGE_TOO_LARGE, cause), Never);
    Fault { status: "5.3.4".into(), ..fault }
}

/// The server offers no TLS.
pub fn no_starttls() -> Fault {
    Fault::of_server(Diagnosis::of(&send::STARTTLS_NOT_OFFERED, send::STARTTLS_NOT_OFFERED.title))
}

/// The server offers nothing that the definition could sign in with.
pub fn no_way_to_sign_in(wanted: &str, offered: &[String]) -> Fault {
    let offered = match offered.join(", ") {
        none if none.is_empty() => "it names none".to_owned(),
        some => format!("it offers {}", excerpt(&some, 200)),
    };
    let cause = format!("the SMTP server offers no way to sign in with {wanted} ({offered})");
    Fault::of_server(Diagnosis::of(&send::SMTP_SIGN_IN_UNSUPPORTED, cause))
}

#[cfg(test)]
mod tests;

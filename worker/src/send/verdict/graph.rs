//! Answers of Microsoft Graph as faults. Pure.
//!
//! Graph names what is wrong in `error.code`; the HTTP status is what is left where it does not.

use std::time::Duration;

use postroom_proto::catalogue::{Entry, send};
use serde::Deserialize;

use super::{Fate, Fault};
use crate::diagnosis::{Diagnosis, excerpt};

/// Longest text of a server that is kept.
const LONGEST: usize = 500;
/// Longest pause that a server may impose.
const LONGEST_WAIT: Duration = Duration::from_secs(6 * 3600);

/// An answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// `Retry-After`.
    pub retry_after: Option<Duration>,
    /// `error.code` of the body; empty when there is none.
    pub code: String,
    /// `error.message` of the body.
    pub message: String,
}

impl Answer {
    /// Reads status, `Retry-After` and the error that the body tells of, if it does.
    pub fn read(status: u16, retry_after: Option<&str>, body: &[u8]) -> Self {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Body {
            error: Error,
        }
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Error {
            code: String,
            message: String,
        }
        let Error { code, message } = serde_json::from_slice::<Body>(body).unwrap_or_default().error;
        // A date is allowed too (RFC 9110 section 10.2.3), and not what Graph sends.
        let seconds = retry_after.and_then(|text| text.trim().parse::<u64>().ok());
        let retry_after = seconds.map(|seconds| Duration::from_secs(seconds).min(LONGEST_WAIT));
        Self { status, retry_after, code: excerpt(&code, 100), message: excerpt(&message, LONGEST) }
    }

    /// True for 2xx.
    pub fn is_ok(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "HTTP {}", self.status)?;
        for part in [&self.code, &self.message].into_iter().filter(|part| !part.is_empty()) {
            write!(f, " {part}")?;
        }
        Ok(())
    }
}

/// What a request was for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A draft is made, which nobody is sent.
    Prepare,
    /// A draft that there is is changed or completed.
    Draft,
    /// A mail that was sent, or a draft, is looked for.
    Look,
    /// The mail is handed over.
    Send,
    /// A draft that there is is handed over.
    SendDraft,
}

impl Step {
    /// True where the mail leaves.
    pub fn is_sending(self) -> bool {
        matches!(self, Self::Send | Self::SendDraft)
    }
}

/// What a negative answer means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// The mail was not taken.
    Fault(Fault),
    /// Something between Graph's front and its back failed: it may have been taken.
    Unknown(Diagnosis),
}

type Rule = (fn(&Answer) -> bool, &'static Entry, Fate, Option<u64>);

use Fate::{Again, Never, WholeMailbox};

const RULES: &[Rule] = &[
    (|a| a.status == 401, &send::GRAPH_TOKEN_REFUSED, WholeMailbox, None),
    (|a| a.any(&["ErrorExceededMessageLimit"]), &send::SENDING_QUOTA, WholeMailbox, Some(2 * 3600)),
    (
        |a| a.any(&["ErrorMessageSubmissionBlocked", "ErrorAccountSuspend", "ErrorAccountSuspendShowTierUpgrade"]),
        &send::SENDER_BLOCKED,
        WholeMailbox,
        Some(3600),
    ),
    (
        |a| a.status == 429 || a.any(&["ApplicationThrottled", "MailboxConcurrency", "ErrorServerBusy"]),
        &send::SENDING_THROTTLED,
        WholeMailbox,
        Some(60),
    ),
    (|a| a.any(&["ErrorQuotaExceeded"]), &send::SENDER_MAILBOX_FULL, WholeMailbox, Some(3600)),
    (|a| a.any(&["ErrorSendAsDenied"]), &send::SEND_AS_DENIED, Again, None),
    (|a| a.any(&["ErrorInvalidRecipients"]), &send::RECIPIENT_REFUSED, Never, None),
    (
        |a| {
            a.status == 413
                || a.any(&["ErrorMessageSizeExceeded", "RequestEntityTooLarge", "ErrorAttachmentSizeLimitExceeded"])
        },
        &send::MESSAGE_TOO_LARGE,
        Never,
        None,
    ),
    (
        |a| a.any(&["MailboxNotEnabledForRESTAPI", "MailboxNotSupportedForRESTAPI", "ErrorMailboxMoveInProgress"]),
        &send::GRAPH_NO_MAILBOX,
        WholeMailbox,
        None,
    ),
    (
        |a| a.status == 404 || a.any(&["ErrorItemNotFound", "ErrorInvalidUser", "Request_ResourceNotFound"]),
        &send::GRAPH_USER_UNKNOWN,
        WholeMailbox,
        None,
    ),
    (
        |a| a.status == 403 || a.any(&["ErrorAccessDenied", "Authorization_RequestDenied"]),
        &send::GRAPH_ACCESS_DENIED,
        WholeMailbox,
        None,
    ),
    (|a| a.status == 400 && a.code.contains("Mime"), &send::MESSAGE_REFUSED, Never, None),
    (|a| a.status == 503, &send::SUBMISSION_UNAVAILABLE, WholeMailbox, None),
    (|a| a.status >= 500 || a.status == 408, &send::SUBMISSION_UNAVAILABLE, Again, None),
    (|_| true, &send::GRAPH_REQUEST_REFUSED, Again, None),
];

impl Answer {
    fn any(&self, codes: &[&str]) -> bool {
        codes.iter().any(|code| self.code.eq_ignore_ascii_case(code))
    }
}

/// What an answer other than 2xx means.
pub fn refused(step: Step, answer: &Answer) -> Refused {
    let fault = fault(answer);
    // Where something behind Graph's front failed, or did not answer it in time, nobody knows what became of the request:
    // Graph is known to answer 500 and 504 to mails that it sends all the same. Clear is a code that names a reason, and
    // 503 with one.
    let is_vague = answer.code.is_empty() || answer.any(&["UnknownError", "GatewayTimeout"]);
    let is_clear = fault.found.code != send::SUBMISSION_UNAVAILABLE.code() || answer.status == 503 && !is_vague;
    if step.is_sending() && (answer.status == 408 || answer.status >= 500) && !is_clear {
        return Refused::Unknown(*fault.found);
    }
    Refused::Fault(match (step, answer.status) {
        // To look into a mailbox needs a right that sending does not.
        (Step::Look, 401 | 403 | 404) if is_about_rights(&fault) => {
            let cause = format!("{} ({answer})", send::SENT_NOT_READABLE.title);
            let found = Diagnosis::of(&send::SENT_NOT_READABLE, cause).mended_by(LOOK_REMEDY);
            Fault { found: Box::new(found), fate: Again, ..fault }
        }
        // Small mails of the mailbox need less.
        (Step::Prepare | Step::Draft, _) if fault.found.code == send::GRAPH_ACCESS_DENIED.code() => {
            Fault { fate: Again, ..fault }.told(|found| found.mended_by(DRAFT_REMEDY))
        }
        // Not the user: the draft, which somebody has deleted or moved.
        (Step::Draft | Step::SendDraft, 404) if fault.found.code == send::GRAPH_USER_UNKNOWN.code() => {
            let cause = format!("the draft of the mail has gone ({answer})");
            Fault { found: Box::new(Diagnosis::of(&send::SUBMISSION_UNAVAILABLE, cause)), fate: Again, ..fault }
        }
        _ => fault,
    })
}

/// For what is made a draft first.
const DRAFT_REMEDY: &str = "in the app registration add Microsoft Graph > Application permissions > Mail.ReadWrite \
    (OAuth User: Delegated permissions) beside Mail.Send and grant admin consent: mails that are too large for one request \
    (3 MB), or go to some of their recipients only, or from another address than the mailbox's, are made drafts first";
/// For what is looked for.
const LOOK_REMEDY: &str = "in the app registration add Microsoft Graph > Application permissions > Mail.Read or \
    Mail.ReadWrite (OAuth User: Delegated permissions) and grant admin consent, and see that `user` of the outgoing server \
    is the mailbox; or settle the mail by `postroom outbox confirm` or `postroom outbox retry --may-arrive-twice`";

fn is_about_rights(fault: &Fault) -> bool {
    [&send::GRAPH_TOKEN_REFUSED, &send::GRAPH_ACCESS_DENIED, &send::GRAPH_USER_UNKNOWN, &send::GRAPH_NO_MAILBOX]
        .iter()
        .any(|entry| entry.code() == fault.found.code)
}

/// What an answer other than 2xx means for a mail of which nothing was handed over.
pub fn fault(answer: &Answer) -> Fault {
    let rule = RULES.iter().find(|(applies, ..)| applies(answer));
    let (entry, fate, wait) = match rule {
        Some((_, entry, fate, wait)) => (*entry, *fate, *wait),
        None => (&send::GRAPH_REQUEST_REFUSED, Again, None),
    };
    let wait = answer.retry_after.or(wait.map(Duration::from_secs));
    let found = Diagnosis::of(entry, format!("{} ({answer})", entry.title)).after(wait);
    Fault { response: answer.to_string(), ..Fault::of(found, fate) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, code: &str) -> Answer {
        let body = serde_json::json!({"error": {"code": code, "message": "m", "innerError": {"request-id": "r"}}});
        Answer::read(status, None, body.to_string().as_bytes())
    }

    #[test]
    fn every_answer_has_its_end() {
        for (status, code, found, fate) in [
            (400, "ErrorInvalidRecipients", "RECIPIENT_REFUSED", Never),
            (400, "ErrorMimeContentInvalidBase64String", "MESSAGE_REFUSED", Never),
            (400, "BadRequest", "GRAPH_REQUEST_REFUSED", Again),
            (401, "InvalidAuthenticationToken", "GRAPH_TOKEN_REFUSED", WholeMailbox),
            (403, "ErrorAccessDenied", "GRAPH_ACCESS_DENIED", WholeMailbox),
            (403, "Authorization_RequestDenied", "GRAPH_ACCESS_DENIED", WholeMailbox),
            (403, "ErrorSendAsDenied", "SEND_AS_DENIED", Again),
            (403, "MailboxNotEnabledForRESTAPI", "GRAPH_NO_MAILBOX", WholeMailbox),
            (404, "MailboxNotEnabledForRESTAPI", "GRAPH_NO_MAILBOX", WholeMailbox),
            (404, "ErrorItemNotFound", "GRAPH_USER_UNKNOWN", WholeMailbox),
            (404, "ErrorInvalidUser", "GRAPH_USER_UNKNOWN", WholeMailbox),
            (413, "", "MESSAGE_TOO_LARGE", Never),
            (400, "ErrorMessageSizeExceeded", "MESSAGE_TOO_LARGE", Never),
            (429, "ApplicationThrottled", "SENDING_THROTTLED", WholeMailbox),
            (429, "ErrorExceededMessageLimit", "SENDING_QUOTA", WholeMailbox),
            (403, "ErrorQuotaExceeded", "SENDER_MAILBOX_FULL", WholeMailbox),
            (403, "ErrorAccountSuspend", "SENDER_BLOCKED", WholeMailbox),
            (500, "ErrorSendAsDenied", "SEND_AS_DENIED", Again),
            (503, "ServiceUnavailable", "SUBMISSION_UNAVAILABLE", WholeMailbox),
        ] {
            let Refused::Fault(fault) = refused(Step::Send, &answer(status, code)) else { panic!("{status} {code}") };
            assert_eq!((fault.found.code.as_str(), fault.fate), (found, fate), "{status} {code}");
            assert!(fault.response.starts_with(&format!("HTTP {status}")), "{}", fault.response);
        }
    }

    fn told(step: Step, status: u16, code: &str) -> (String, Fate, String) {
        let Refused::Fault(fault) = refused(step, &answer(status, code)) else { panic!("{status} {code}") };
        (fault.found.code, fault.fate, fault.found.remedy)
    }

    #[test]
    fn a_right_that_only_drafts_need_does_not_hold_the_mailbox_up() {
        for step in [Step::Prepare, Step::Draft] {
            let (code, fate, remedy) = told(step, 403, "ErrorAccessDenied");
            assert_eq!((code.as_str(), fate), ("GRAPH_ACCESS_DENIED", Again));
            assert!(remedy.contains("Mail.ReadWrite"), "{remedy}");
        }
        for step in [Step::Draft, Step::SendDraft] {
            let (code, fate, _) = told(step, 404, "ErrorItemNotFound");
            assert_eq!((code.as_str(), fate), ("SUBMISSION_UNAVAILABLE", Again));
        }
        assert_eq!(told(Step::Prepare, 404, "ErrorInvalidUser").1, WholeMailbox);
        assert_eq!(told(Step::SendDraft, 403, "ErrorAccessDenied").1, WholeMailbox);
    }

    #[test]
    fn who_may_only_send_is_told_what_looking_needs() {
        for (status, code) in [
            (401, "InvalidAuthenticationToken"),
            (403, "ErrorAccessDenied"),
            (403, "Forbidden"),
            (404, "ErrorItemNotFound"),
            (404, "MailboxNotEnabledForRESTAPI"),
        ] {
            let (found, fate, remedy) = told(Step::Look, status, code);
            assert_eq!((found.as_str(), fate), ("SENT_NOT_READABLE", Again), "{status} {code}");
            assert!(remedy.contains("Mail.Read or Mail.ReadWrite") && remedy.contains("outbox confirm"), "{remedy}");
        }
        assert_eq!(told(Step::Look, 429, "ApplicationThrottled").1, WholeMailbox);
    }

    #[test]
    fn a_failure_behind_graphs_front_knows_nothing_of_a_mail_and_all_of_a_draft() {
        for (status, code) in [
            (408, ""),
            (408, "ErrorTimeoutExpired"),
            (500, ""),
            (500, "ErrorInternalServerError"),
            (500, "ErrorInternalServerTransientError"),
            (502, ""),
            (503, ""),
            (503, "UnknownError"),
            (504, ""),
            (504, "UnknownError"),
            (599, ""),
        ] {
            for step in [Step::Send, Step::SendDraft] {
                assert!(matches!(refused(step, &answer(status, code)), Refused::Unknown(_)), "{status} {code}");
            }
            for step in [Step::Prepare, Step::Draft, Step::Look] {
                assert!(matches!(refused(step, &answer(status, code)), Refused::Fault(_)), "{status} {code}");
            }
        }
    }

    #[test]
    fn the_time_that_graph_asks_for_is_kept() {
        let wait = |text| {
            let answer = Answer::read(429, text, b"slow down");
            fault(&answer).found.wait.expect("a wait").as_secs()
        };
        assert_eq!((wait(Some("7")), wait(None), wait(Some("soon"))), (7, 60, 60));
        assert_eq!(wait(Some("99999999")), LONGEST_WAIT.as_secs());
    }

    #[test]
    fn what_is_no_json_is_told_by_its_status() {
        for body in [&b""[..], b"<html>", b"{\"error\": \"text\"}", b"[]"] {
            assert_eq!(Answer::read(400, None, body).to_string(), "HTTP 400");
        }
    }
}

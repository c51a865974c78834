//! Every class of replies, with what must become of the mail.

use super::*;
use crate::diagnosis::ProblemKind;

fn reply(line: &str) -> Reply {
    let (code, text) = line.split_once(' ').unwrap_or((line, ""));
    Reply { code: code.parse().expect("a code"), text: text.into() }
}

fn told(step: Step, line: &str) -> (String, Fate, Option<u64>) {
    let fault = refused(step, OutgoingAuthentication::OauthService, &reply(line));
    (fault.found.code, fault.fate, fault.found.wait.map(|wait| wait.as_secs()))
}

#[test]
fn every_reply_has_its_end() {
    use Step::{Data, End, Greeting, Recipient, Sender, SignIn, StartTls};
    let hour = Some(3600);
    for (step, line, code, fate, wait) in [
        // Exchange Online, word for word where its words are known.
        (
            End,
            "432 4.3.2 STOREDRV.ClientSubmit; sender thread limit exceeded [Hostname=X]",
            "TOO_MANY_SENDING",
            WholeMailbox,
            Some(20),
        ),
        (
            SignIn,
            "421 4.3.2 Concurrent connections limit exceeded. Visit https://aka.ms/concurrent_sending",
            "TOO_MANY_SENDING",
            WholeMailbox,
            Some(20),
        ),
        (
            SignIn,
            "535 5.7.3 Authentication unsuccessful [X.PROD.OUTLOOK.COM]",
            "SMTP_TOKEN_REFUSED",
            WholeMailbox,
            None,
        ),
        (
            SignIn,
            "535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Tenant. Visit https://aka.ms/smtp_auth_disabled",
            "SMTP_AUTH_DISABLED",
            WholeMailbox,
            None,
        ),
        (
            SignIn,
            "535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Mailbox.",
            "SMTP_AUTH_DISABLED",
            WholeMailbox,
            None,
        ),
        (
            SignIn,
            "535 5.7.139 Authentication unsuccessful, basic authentication is disabled.",
            "BASIC_AUTH_DISABLED",
            WholeMailbox,
            None,
        ),
        (
            SignIn,
            "535 5.7.139 Authentication unsuccessful, the request did not meet the criteria to be authenticated",
            "SMTP_AUTH_BLOCKED",
            WholeMailbox,
            None,
        ),
        (
            SignIn,
            "550 5.7.30 Basic authentication is not supported for Client Submission.",
            "BASIC_AUTH_DISABLED",
            WholeMailbox,
            None,
        ),
        (Sender, "530 5.7.57 Client not authenticated to send mail. [X]", "NOT_SIGNED_IN", WholeMailbox, None),
        (
            End,
            "550 5.7.60 SMTP; Client does not have permissions to send as this sender",
            "SEND_AS_DENIED",
            Again,
            None,
        ),
        (
            End,
            "554 5.2.252 SendAsDenied; anna@contoso.example not allowed to send as berta@contoso.example",
            "SEND_AS_DENIED",
            Again,
            None,
        ),
        (
            End,
            "554 5.2.0 STOREDRV.Submission.Exception:SubmissionQuotaExceededException; Failed to process message",
            "SENDING_QUOTA",
            WholeMailbox,
            Some(7200),
        ),
        (
            End,
            "554 5.2.2 mailbox full; STOREDRV.Submission.Exception:QuotaExceededException; Failed",
            "SENDER_MAILBOX_FULL",
            WholeMailbox,
            hour,
        ),
        (End, "554 5.2.2 mailbox full", "RECIPIENT_REFUSED", Never, None),
        (End, "552 5.2.2 <x@y.example> over quota", "RECIPIENT_REFUSED", Never, None),
        (Sender, "552 5.2.2 Mailbox full", "SENDER_MAILBOX_FULL", WholeMailbox, hour),
        (Sender, "550 5.4.5 Daily user sending limit exceeded", "SENDING_QUOTA", WholeMailbox, Some(7200)),
        (End, "550 5.4.5 Daily user sending limit exceeded", "SENDING_QUOTA", WholeMailbox, Some(7200)),
        (End, "550 5.1.8 Access denied, bad outbound sender AS(42004)", "SENDER_BLOCKED", WholeMailbox, hour),
        (End, "550 5.7.705 Access denied, tenant has exceeded threshold", "SENDING_QUOTA", WholeMailbox, Some(7200)),
        // RFC 5321 and 3463, at each step.
        (Greeting, "421 4.3.2 Service not active", "SUBMISSION_UNAVAILABLE", WholeMailbox, None),
        (Greeting, "554 No SMTP service here", "RELAY_DENIED", WholeMailbox, None),
        (StartTls, "454 4.7.0 TLS not available due to local problem", "SUBMISSION_UNAVAILABLE", WholeMailbox, None),
        (StartTls, "502 5.5.1 Command not implemented", "STARTTLS_NOT_OFFERED", WholeMailbox, None),
        (SignIn, "454 4.7.0 Temporary authentication failure", "SUBMISSION_UNAVAILABLE", WholeMailbox, None),
        (SignIn, "504 5.5.4 Unrecognized authentication type", "SMTP_SIGN_IN_UNSUPPORTED", WholeMailbox, None),
        (SignIn, "538 5.7.11 Encryption required", "SMTP_SIGN_IN_UNSUPPORTED", WholeMailbox, None),
        (Sender, "530 5.7.0 Must issue a STARTTLS command first", "STARTTLS_REQUIRED", WholeMailbox, None),
        (Sender, "421 4.4.2 Connection dropped", "SUBMISSION_UNAVAILABLE", WholeMailbox, None),
        (Sender, "451 4.7.500 Server busy. Please try again later", "SENDING_THROTTLED", WholeMailbox, Some(60)),
        (Sender, "452 4.3.1 Insufficient system storage", "SUBMISSION_UNAVAILABLE", WholeMailbox, None),
        (Sender, "552 5.3.4 Message size exceeds fixed limit", "MESSAGE_TOO_LARGE", Never, None),
        (Sender, "550 5.7.1 <a@x.example>: Sender address rejected", "SENDER_REFUSED", Again, None),
        (Sender, "501 5.1.7 Bad sender address syntax", "SENDER_REFUSED", Again, None),
        (Sender, "553 5.7.1 <a@x>: Sender address rejected: not owned by user b@x", "SEND_AS_DENIED", Again, None),
        (Sender, "555 5.5.4 Unsupported option: SIZE=1", "COMMAND_NOT_UNDERSTOOD", Again, None),
        (
            Recipient,
            "550 5.1.1 <x@y.example>: Recipient address rejected: User unknown",
            "RECIPIENT_REFUSED",
            Never,
            None,
        ),
        (Recipient, "550 No such user", "RECIPIENT_REFUSED", Never, None),
        (Recipient, "501 5.1.3 Bad recipient address syntax", "RECIPIENT_REFUSED", Never, None),
        (Recipient, "552 5.2.2 Mailbox full", "RECIPIENT_REFUSED", Never, None),
        (Recipient, "452 4.2.2 Mailbox full", "RECIPIENT_DEFERRED", Again, None),
        (Recipient, "450 4.7.1 Greylisting in action", "RECIPIENT_DEFERRED", Again, None),
        (Recipient, "450 4.7.1 Client host [35.2.31.9] greylisted", "RECIPIENT_DEFERRED", Again, None),
        (End, "452 4.3.1 Message size exceeds what there is room for now", "SUBMISSION_UNAVAILABLE", Again, None),
        (Recipient, "452 4.5.3 Too many recipients", "RECIPIENT_DEFERRED", Again, None),
        (Recipient, "554 5.7.1 <x@y.example>: Relay access denied", "RELAY_DENIED", Again, None),
        (Recipient, "550 5.7.54 SMTP; Unable to relay recipient in non-accepted domain", "RELAY_DENIED", Again, None),
        (Recipient, "503 5.5.1 Bad sequence of commands", "COMMAND_NOT_UNDERSTOOD", Again, None),
        (Data, "554 5.5.1 Error: no valid recipients", "RECIPIENT_REFUSED", Never, None),
        (Data, "451 4.3.0 Error: queue file write error", "SUBMISSION_UNAVAILABLE", Again, None),
        (End, "450 4.2.0 try later", "SUBMISSION_UNAVAILABLE", Again, None),
        (End, "451 4.7.1 Service unavailable - try again later", "SENDING_THROTTLED", WholeMailbox, Some(60)),
        (End, "552 5.2.3 Message length exceeds administrative limit", "MESSAGE_TOO_LARGE", Never, None),
        (End, "552 Too much mail data", "MESSAGE_TOO_LARGE", Never, None),
        (End, "550 5.1.10 RecipientNotFound", "RECIPIENT_REFUSED", Never, None),
        (End, "554 5.7.1 Message rejected as spam", "MESSAGE_REFUSED", Never, None),
        (End, "554 Transaction failed", "MESSAGE_REFUSED", Never, None),
    ] {
        assert_eq!(told(step, line), (code.into(), fate, wait), "{step:?} {line}");
    }
}

#[test]
fn a_refused_password_is_another_fault_than_a_refused_token() {
    let line = reply("535 5.7.8 Error: authentication failed");
    for (sign_in, code, kind) in [
        (OutgoingAuthentication::OauthUser, "SMTP_TOKEN_REFUSED", ProblemKind::Consent),
        (OutgoingAuthentication::Password, "SMTP_PASSWORD_REFUSED", ProblemKind::Credential),
    ] {
        let fault = refused(Step::SignIn, sign_in, &line);
        assert_eq!((fault.found.code.as_str(), fault.found.kind, fault.fate), (code, kind, WholeMailbox));
        assert!(fault.found.cause.contains("535 5.7.8"), "{}", fault.found.cause);
    }
}

#[test]
fn no_code_below_500_ends_a_mail() {
    use Step::{Data, End, Greeting, Recipient, Sender, SignIn, StartTls};
    let texts = postroom_proto::catalogue::all().flat_map(|entry| entry.texts.iter().copied());
    let texts: Vec<&str> = texts.chain(["", "x", "recipients", "throttled"]).collect();
    for code in [421, 432, 450, 451, 452, 454, 455, 499] {
        for status in ["", "4.2.2 ", "4.3.4 ", "4.7.1 ", "5.1.1 ", "5.2.2 ", "5.2.3 "] {
            for text in &texts {
                let reply = Reply { code, text: format!("{status}{text}") };
                for step in [Greeting, StartTls, SignIn, Sender, Recipient, Data, End] {
                    let fault = refused(step, OutgoingAuthentication::Password, &reply);
                    assert_ne!(fault.fate, Never, "{step:?} {reply}");
                }
            }
        }
    }
}

#[test]
fn nothing_that_somebody_can_mend_ends_a_mail() {
    for (_, entry, fate, _) in RULES {
        let mendable = matches!(
            entry.kind,
            ProblemKind::Configuration | ProblemKind::Credential | ProblemKind::Consent | ProblemKind::Throttled
        );
        assert!(!(mendable && *fate == Never), "{entry:?}");
    }
}

#[test]
fn enhanced_status_codes_are_those_of_the_reply() {
    for (line, status) in [
        ("550 5.7.139 x", "5.7.139"),
        ("550 5.1.1", "5.1.1"),
        ("550 4.1.1 x", ""),
        ("550 5.1 x", ""),
        ("550 5.1.1000 x", ""),
        ("550 User 5.1.1 unknown", ""),
        ("550", ""),
    ] {
        assert_eq!(reply(line).status(), status, "{line}");
    }
}

#[test]
fn what_no_reply_says_is_told_too() {
    assert_eq!((lost(Step::SignIn, "x").fate, lost(Step::Data, "x").fate), (WholeMailbox, Again));
    assert_eq!((strange(Step::Greeting, "x").fate, strange(Step::End, "x").fate), (WholeMailbox, Again));
    let fault = not_offered("SMTPUTF8", "an address needs it");
    assert_eq!((fault.fate, fault.status.as_str()), (Never, "5.6.7"));
    assert_eq!(over_announced(10, 5).fate, Never);
    assert_eq!(no_way_to_sign_in("a token", &[]).fate, WholeMailbox);
    assert_eq!(no_starttls().found.code, "STARTTLS_NOT_OFFERED");
}

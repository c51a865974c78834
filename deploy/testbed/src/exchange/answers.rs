//! What Exchange Online answers at client submission, in its own words.

/// More connections of a mailbox than three.
pub const TOO_MANY_CONNECTIONS: &str =
    "432 4.3.2 Concurrent connections limit exceeded. Visit https://aka.ms/concurrent_sending. [Hostname=testbed]";
/// The same, said when a mail ends.
pub const SENDER_THREADS: &str = "432 4.3.2 STOREDRV.ClientSubmit; sender thread limit exceeded";
/// A token, a user, a permission or a service principal is wrong: Exchange does not say which.
pub const UNSUCCESSFUL: &str = "535 5.7.3 Authentication unsuccessful [testbed]";
/// SMTP AUTH is switched off for all mailboxes.
pub const DISABLED_FOR_TENANT: &str = "535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for \
    the Tenant. Visit https://aka.ms/smtp_auth_disabled for more information. [testbed]";
/// SMTP AUTH is switched off for this mailbox.
pub const DISABLED_FOR_MAILBOX: &str = "535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for \
    the Mailbox. Visit https://aka.ms/smtp_auth_disabled for more information. [testbed]";
/// Passwords are switched off.
pub const PASSWORDS_DISABLED: &str =
    "535 5.7.139 Authentication unsuccessful, basic authentication is disabled. [testbed]";
/// Passwords are gone for good.
pub const PASSWORDS_GONE: &str = "550 5.7.30 Basic authentication is not supported for Client Submission. [testbed]";
/// A mail without a sign-in.
pub const NOT_AUTHENTICATED: &str = "530 5.7.57 Client not authenticated to send mail. [testbed]";
/// The From is not the mailbox's own.
pub const NOT_AS_THIS_SENDER: &str = "550 5.7.60 SMTP; Client does not have permissions to send as this sender";
/// The same, said when a mail ends.
pub const SEND_AS_DENIED: &str = "554 5.2.252 SendAsDenied; sales@contoso.example not allowed to send as \
    other@contoso.example; STOREDRV.Submission.Exception:SendAsDeniedException.MapiExceptionSendAsDenied; Failed to process \
    message due to a permanent exception with message Cannot submit message.";
/// The mailbox has sent to 10,000 recipients within a day.
pub const QUOTA_EXCEEDED: &str = "554 5.2.0 STOREDRV.Submission.Exception:SubmissionQuotaExceededException; Failed to \
    process message due to a permanent exception with message The message can't be submitted because the sender's \
    submission quota was exceeded.";
/// No room for the copy in Sent Items.
pub const MAILBOX_FULL: &str = "554 5.2.2 mailbox full; STOREDRV.Submission.Exception:QuotaExceededException.\
    MapiExceptionShutoffQuotaExceeded; Failed to process message due to a permanent exception.";
/// Nothing came for too long; it hangs up.
pub const TIMED_OUT: &str = "421 4.4.2 Message submission connection timed out";
/// It hangs up, and wants less.
pub const HANGS_UP_BUSY: &str = "421 4.7.0 Too many errors from this host, closing transmission channel";
/// It wants less.
pub const SERVER_BUSY: &str = "451 4.7.500 Server busy. Please try again later. [testbed]";

//! What Exchange Online says over IMAP, in its own words. Statuses that belong to a command stand here without its tag.

use std::time::Duration;

/// The greeting of the front end of 2026, which says nothing of what it can do.
pub const GREETING: &str = "* OK Microsoft Exchange IMAP4 service ready. 6f0c9a52-1e5b-4a34-9d60-6c1d8cf7c2f1 \
    (tcpproxy/15.21.0406.000 BACKENDAUTHENTICATE)";
/// What it can do before a sign-in.
pub const OFFERS: &str =
    "IMAP4 IMAP4rev1 AUTH=XOAUTH2 LOGINDISABLED SASL-IR UIDPLUS MOVE ID UNSELECT CHILDREN IDLE NAMESPACE LITERAL+";
/// What it can do afterwards. IMAP4rev2 is on offer and does not work as it should.
pub const CAPABILITIES: &str = "IMAP4 IMAP4rev1 AUTH=XOAUTH2 LOGINDISABLED SASL-IR UIDPLUS MOVE ID UNSELECT CHILDREN IDLE \
    NAMESPACE LITERAL+ CLIENTACCESSRULES CLIENTNETWORKPRESENCELOCATION ENABLE IMAP4rev2 BACKENDAUTHENTICATE-IR";
/// Token, user, permission or service principal is wrong: it does not say which.
pub const SIGN_IN_REFUSED: &str = "NO AUTHENTICATE failed.";
/// A sign-in that went well.
pub const SIGNED_IN: &str = "OK AUTHENTICATE completed.";
/// To every command after a sign-in that has no right to the mailbox.
pub const NOT_CONNECTED: &str = "BAD User is authenticated but not connected.";
/// The life of the token is over, in the middle of whatever goes on.
pub const TOKEN_EXPIRED: &str = "* BYE Session invalidated - AccessTokenExpired";
/// After too many commands that were refused, or when it is busy.
pub const CONNECTION_CLOSED: &str = "* BYE Connection closed. 14";
/// After a long time.
pub const CONNECTION_IS_CLOSED: &str = "* BYE Connection is closed. 13";
/// The back end is ill.
pub const UNAVAILABLE: &str = "NO Server Unavailable. 15";
/// The same as a line that is no IMAP at all.
pub const UNAVAILABLE_BARE: &str = "Server Unavailable. 15";
/// Something that it dislikes about a command.
pub const ARGUMENT_ERROR: &str = "BAD Command Argument Error. 12";

/// The mailbox's work budget is used up; `word` is NO or BAD.
pub fn throttled(word: &str, backoff: Duration) -> String {
    format!("{word} Request is throttled. Suggested Backoff Time: {} milliseconds", backoff.as_millis())
}

/// What comes in place of a message that cannot be converted, with CRLF line ends.
pub fn placeholder(uid: u32) -> String {
    let said = format!("Retrieval using the IMAP4 protocol failed for the following message: {uid}");
    format!(
        "From: \"Microsoft Exchange Server\" <MicrosoftExchange@contoso.example>\r\nSubject: {said}\r\nMIME-Version: 1.0\r\n\
         Content-Type: text/plain; charset=\"us-ascii\"\r\n\r\n{said}\r\n\r\nThe server couldn't retrieve the message.\r\n"
    )
}

//! What mail servers say: response codes of RFC 5530, and the free texts of Exchange.

super::entries! {
    TOKEN_REFUSED: Consent,
        "the mail server refused the access token",
        "the token has no IMAP role or scope, the service principal is not registered in Exchange or was registered with the object id of the app registration instead of that of the enterprise application, the mailbox does not exist, or IMAP is off for it; Exchange does not say which",
        "check in this order: IMAP.AccessAsApp is granted with admin consent (OAuth Service); New-ServicePrincipal was run with the object id of the *enterprise application*, not of the app registration; Add-MailboxPermission gives it FullAccess; the mailbox exists and IMAP is on for it (Get-CASMailbox); changes may take an hour to act",
        says &["authenticate failed"];
    SIGN_IN_REFUSED: Credential,
        "the mail server refused user name and password",
        "the password was changed, the account is disabled, or the server does not allow password sign-in for it",
        "store the account's present password in the address, and check that the server allows password sign-in",
        says &["authenticationfailed", "authentication failed", "login failed"];
    SIGN_IN_UNSUPPORTED: Configuration,
        "the mail server offers no way to sign in that fits the definition",
        "it takes no tokens (or no passwords) on this port; Microsoft 365 takes tokens only",
        "choose another `authentication` for the incoming server, or allow this one at the mail server";
    NOT_CONNECTED: Mailbox,
        "sign-in worked, but the mailbox cannot be opened",
        "who signed in may not open this mailbox (no FullAccess), IMAP is off for it, it has no licence, or it is being moved; after many reconnects Exchange says the same for a while",
        "give the signed-in user or service principal FullAccess (Add-MailboxPermission), check that IMAP is on for the mailbox (Get-CASMailbox … ImapEnabled), that it is licensed and not being moved; after many reconnects it may pass by itself",
        says &["authenticated but not connected"];
    FOLDER_REFUSED: Mailbox,
        "the folder cannot be opened",
        "it does not exist (names are told apart by case on some servers), or the account may not read it",
        "check the folder's name in the address, and that the account may read it",
        says &["mailbox doesn't exist", "nonexistent"];
    MOVE_REFUSED: Mailbox,
        "messages are read, but cannot be moved",
        "the folder that `afterIntake` names does not exist and may not be created, or takes no messages",
        "create the folder in the mailbox, give the account the right to write into it, or correct its name in the queue's `afterIntake`",
        says &["trycreate"];
    MARK_REFUSED: Mailbox,
        "messages are read, but cannot be marked as seen",
        "the account may read the mailbox but not change it",
        "give the account the right to change the mailbox, or set the queue's `afterIntake` to leave";
    DELETE_REFUSED: Mailbox,
        "messages are read, but cannot be deleted",
        "the account may read the mailbox but not delete from it, or the mailbox is under a hold",
        "give the account the right to delete in the mailbox, or set the queue's `afterIntake` to seen, move:<folder> or leave";
    EXPUNGE_UNSUPPORTED: Configuration,
        "messages are marked as deleted, and stay in the mailbox",
        "the server cannot remove single messages (it has no UIDPLUS, RFC 4315), and a plain EXPUNGE would remove what others have marked, too",
        "expunge the folder with a mail program from time to time, or set the queue's `afterIntake` to seen, move:<folder> or leave";
    THROTTLED: Throttled,
        "the mail server asks to slow down",
        "the mailbox's work budget is used up, often by other programs that read it too",
        "nothing to do: it is tried again after the time that the server asks for; if it returns, look for other programs that read this mailbox",
        says &["throttled", "backoff time"];
    TOO_MANY_CONNECTIONS: Throttled,
        "too many programs are connected to this mailbox",
        "",
        "find and stop the other programs that read this mailbox, or raise the server's limit",
        says &["too many simultaneous connections", "maximum number of connections"];
    SERVER_UNAVAILABLE: Transient,
        "the mail server has a passing fault",
        "",
        "nothing to do: it is tried again; if it lasts, look at the server's health",
        says &["server unavailable", "temporary authentication failure"];
    ACCESS_TOKEN_EXPIRED: Transient,
        "the life of the token is over, and the server ended the session with it",
        "tokens live 60 to 90 minutes; this is normal and no alarm",
        "nothing to do: a new token is asked for, and reading goes on where it was",
        says &["accesstokenexpired"];
    CONNECTION_LOST: Transient,
        "the mail server ended the connection",
        "the server restarted, the connection was idle too long, or Exchange hung up after an error",
        "nothing to do: it is opened again",
        says &["connection closed. 14", "connection is closed. 13"];
    COMMAND_REFUSED: Transient,
        "the mail server refused a command that a working server grants",
        "",
        "it is tried again; if it lasts, send this line to the maintainers",
        says &["command argument error", "command error. 10", "received in invalid state"];
    MALFORMED_ANSWER: Transient,
        "the mail server sent an answer that cannot be read",
        "",
        "it is tried again, message by message; if it lasts, send this line to the maintainers";
    MESSAGE_GONE: Mailbox,
        "the message is not in its folder any more",
        "somebody moved or deleted it, or the folder was numbered anew",
        "move it back into the folder, where it is read as a new message; or discard it";
    MESSAGE_NOT_GIVEN: Mailbox,
        "the mail server cannot give one message",
        "the message is damaged on the server, so that it lists it and gives no data, or a placeholder in its stead; other messages are not affected",
        "open it in another program; if that fails too, it is damaged on the server",
        says &["retrieval using the imap4 protocol failed"];
    MESSAGE_OVER_LIMIT: Mailbox,
        "the message is larger than anything that is taken in",
        "",
        "read it in the mailbox, then discard it here";
}

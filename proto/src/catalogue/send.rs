//! What keeps mail from being sent: enhanced status codes (RFC 3463) and texts of SMTP servers, Exchange Online's above
//! all, and the error codes of Microsoft Graph.
//!
//! A code and a text of several numbers stand with the entry that is mended alike. The same number means different things
//! at different servers, so what decides is the table in the worker; here is what people read.

super::entries! {
    RECIPIENT_REFUSED: Mailbox,
        "the server does not take mail for the recipient",
        "the address has a typing error, does not exist any more, or takes no mail from this sender",
        "correct the address and send the mail again, or tell the recipient by other means",
        says &["5.1.1", "5.1.10", "user unknown", "recipient address rejected", "errorinvalidrecipients"];
    RECIPIENT_DEFERRED: Transient,
        "the server does not take mail for the recipient at the moment",
        "its mailbox is full, its server does not answer, or it greets strangers with a wait (greylisting)",
        "nothing to do: it is tried again",
        says &["greylist", "graylist"];
    MESSAGE_REFUSED: Policy,
        "the server refuses this mail",
        "its content, an attachment or a link looks like spam or a virus to the server, or a rule of the organisation forbids it",
        "read the server's words; change the mail, or have the rule changed, and send it again",
        says &["message rejected", "message content rejected"];
    MESSAGE_TOO_LARGE: Policy,
        "the mail is larger than the server takes",
        "attachments grow by a third on their way",
        "send fewer or smaller attachments, or raise the limit at the server (Exchange: Set-Mailbox … -MaxSendSize)",
        says &["5.3.4", "5.2.3", "message size exceeds", "message too large", "errormessagesizeexceeded"];
    EXTENSION_NOT_OFFERED: Policy,
        "the server cannot carry this mail",
        "an address has letters beyond ASCII and the server does not offer SMTPUTF8, or the mail has such bytes and it does not offer 8BITMIME",
        "use addresses in ASCII, or an outgoing server that offers SMTPUTF8";
    SENDER_REFUSED: Configuration,
        "the server does not take mail from this sender",
        "the address is none of its own, or does not exist there",
        "check that the address of the queue exists at the outgoing server, or choose another outgoing server for it; the mail waits",
        says &["sender address rejected", "5.1.7"];
    SEND_AS_DENIED: Consent,
        "who signs in may not send as this sender",
        "the address that the mail is from is another mailbox than the one that signs in, and there is no right to send as it",
        "give the right to send as the address: Add-RecipientPermission ADDRESS -Trustee <user or service principal> -AccessRights SendAs; it may take an hour to act, and the mail waits",
        says &["5.7.60", "5.2.252", "sendasdenied", "permissions to send as", "not owned by user"];
    SENDER_BLOCKED: Policy,
        "the provider has blocked this sender, or all of the tenant",
        "too much of what it sent was taken for spam, often after somebody else got hold of the account",
        "in Microsoft 365 Defender see Restricted entities and release the sender once its account is safe again; the mail waits",
        says &["5.1.8", "5.7.501", "5.7.502", "5.7.503", "5.7.708", "bad outbound sender", "erroraccountsuspend", "errormessagesubmissionblocked"];
    RELAY_DENIED: Configuration,
        "the server does not pass mail on for this worker",
        "nobody has signed in, and the network address of the worker is none that the server trusts",
        "let the outgoing server sign in, or allow the network address of the worker at the server; the mail waits",
        says &["relay access denied", "unable to relay", "relaying denied", "relay not permitted", "5.7.54"];
    NOT_SIGNED_IN: Configuration,
        "the server wants a sign-in before it takes mail",
        "the outgoing server is defined without one, or the server has ended it",
        "choose an `authentication` for the outgoing server",
        says &["5.7.57", "client not authenticated", "authentication required"];
    SMTP_TOKEN_REFUSED: Consent,
        "the SMTP server refused the access token",
        "the token has no SMTP role or scope, the service principal is not registered in Exchange or has no right to the mailbox, or the mailbox does not exist; Exchange does not say which",
        "check in this order: SMTP.SendAsApp is granted with admin consent (OAuth Service; OAuth User: SMTP.Send); New-ServicePrincipal was run with the object id of the *enterprise application*; Add-MailboxPermission gives it FullAccess; `user` of the outgoing server is the mailbox; changes may take an hour to act",
        says &["5.7.3 authentication unsuccessful"];
    SMTP_PASSWORD_REFUSED: Credential,
        "the SMTP server refused user name and password",
        "the password was changed, the account is disabled, or the server does not allow password sign-in for it",
        "store the account's present password in the outgoing server, and check that the server allows password sign-in; until then it is tried once an hour, so that the account is not locked",
        says &["5.7.8"];
    SMTP_AUTH_DISABLED: Configuration,
        "signing in over SMTP is switched off for the tenant or the mailbox",
        "Exchange switches SMTP AUTH off for new tenants, for tokens too",
        "switch it on for the mailbox: Set-CASMailbox ADDRESS -SmtpClientAuthenticationDisabled $false; it acts within an hour; or choose `transport: graph` for the outgoing server",
        says &["smtpclientauthentication is disabled", "smtp_auth_disabled"];
    BASIC_AUTH_DISABLED: Policy,
        "the server does not take passwords any more",
        "security defaults or an authentication policy forbid them; Exchange Online gives them up altogether",
        "choose OAuth Service as `authentication` of the outgoing server",
        says &["basic authentication is disabled", "basic authentication is not supported", "5.7.30"];
    SMTP_AUTH_BLOCKED: Policy,
        "a policy of the tenant forbids this sign-in",
        "security defaults, Conditional Access or an authentication policy; the sign-in log of the tenant names it",
        "find the policy in the sign-in log and except the account, or choose OAuth Service for the outgoing server",
        says &["5.7.139"];
    SMTP_SIGN_IN_UNSUPPORTED: Configuration,
        "the SMTP server offers no way to sign in that fits the definition",
        "it takes no tokens (or no passwords) on this port, or only once there is TLS",
        "choose another `authentication` or `smtp.security` for the outgoing server, or allow this one at the server";
    STARTTLS_NOT_OFFERED: Configuration,
        "the SMTP server offers no TLS",
        "it has no certificate, the port is another one than for submission (587), or something on the way takes the offer out",
        "correct the port, or set `smtp.security` of the outgoing server to tls where the server speaks TLS from the first byte (465)";
    STARTTLS_REQUIRED: Configuration,
        "the SMTP server takes no mail without TLS",
        "the outgoing server is defined with `smtp.security: none`",
        "set `smtp.security` of the outgoing server to starttls",
        says &["must issue a starttls", "must issue starttls"];
    TOO_MANY_SENDING: Throttled,
        "the mailbox sends over too many connections at once",
        "Exchange allows three for each mailbox, and other programs that send from it count too",
        "nothing to do: it is tried again; if it returns, look for other programs that send from this mailbox",
        says &["thread limit exceeded", "concurrent connections limit", "concurrent_sending"];
    SENDING_THROTTLED: Throttled,
        "the server asks to send more slowly",
        "the mailbox or this worker sends more than the server takes in a short time",
        "nothing to do: it is tried again after the time that the server asks for",
        says &["applicationthrottled", "mailboxconcurrency", "too many messages"];
    SENDING_QUOTA: Throttled,
        "the mailbox has sent as much as it may within a day",
        "Exchange allows 10,000 recipients in 24 hours for each mailbox, and less to outside recipients in small tenants",
        "nothing to do: it goes on within hours; send from several mailboxes if it returns",
        says &["submissionquotaexceeded", "errorexceededmessagelimit", "daily user sending", "5.1.90", "5.7.232", "5.7.233", "5.7.705"];
    SENDER_MAILBOX_FULL: Configuration,
        "the mailbox that sends is full",
        "Exchange keeps a copy of all that is sent, and stops sending when there is no room for it",
        "make room in the mailbox, or raise its quota; the mail waits",
        says &["quotaexceededexception", "errorquotaexceeded"];
    SUBMISSION_UNAVAILABLE: Transient,
        "the server does not take mail at the moment",
        "it is restarted or overloaded",
        "nothing to do: it is tried again; if it lasts, look at the server's health";
    SUBMISSION_LOST: Transient,
        "the connection ended before the mail was handed over",
        "the server restarted, or something on the way cut the connection",
        "nothing to do: it is sent again; nothing of it was taken";
    SUBMISSION_ANSWER_STRANGE: Transient,
        "the server sent an answer that cannot be read",
        "",
        "it is tried again; if it lasts, send this line to the maintainers";
    COMMAND_NOT_UNDERSTOOD: Defect,
        "the server did not understand what it was told",
        "",
        "it is tried again; if it lasts, send this line to the maintainers";
    OUTCOME_NOT_KNOWN: Transient,
        "the mail was handed over, and the answer was lost: it may have been sent or not",
        "the connection broke, or the server took too long, just then",
        "where the server keeps a copy of what it sent, it is looked for there; otherwise ask a recipient, then `postroom outbox confirm` or `postroom outbox retry --may-arrive-twice`";
    NOT_IN_SENT: Transient,
        "the mail is not in the folder of sent mail: it was not sent",
        "",
        "nothing to do: it is sent again";
    SENT_NOT_READABLE: Configuration,
        "the folder of sent mail cannot be looked into",
        "the folder has another name in this mailbox (it is translated), or nothing says how the mailbox is read",
        "correct `sentFolder` of the outgoing server; or settle the mail by `postroom outbox confirm` or `postroom outbox retry --may-arrive-twice`";
    WORKER_STOPPED: Transient,
        "the worker stopped before the mail was handed over",
        "",
        "nothing to do: another worker sends it";
    GRAPH_TOKEN_REFUSED: Consent,
        "Microsoft Graph refused the access token",
        "the token is for another resource, or of another cloud than the host",
        "clear `scope` and `graphHost` of the outgoing server, so that both follow from its tenant; look at the claims: `postroom outgoing-server check NAME`",
        says &["invalidauthenticationtoken"];
    GRAPH_ACCESS_DENIED: Consent,
        "the application may not send from this mailbox",
        "the permission Mail.Send is missing or nobody consented to it, or an application access policy (RBAC for applications) leaves the mailbox out",
        "in the app registration add Microsoft Graph > Application permissions > Mail.Send (OAuth User: Delegated permissions) and grant admin consent; Test-ServicePrincipalAuthorization tells whether a policy leaves the mailbox out; changes take up to two hours",
        says &["erroraccessdenied", "authorization_requestdenied"];
    GRAPH_USER_UNKNOWN: Configuration,
        "Microsoft Graph does not know the user of the outgoing server",
        "`user` is no GUID and no address of a mailbox in this tenant, or the tenant is another one",
        "write the object id (GUID) or the address of the mailbox into `user` of the outgoing server",
        says &["erroritemnotfound", "errorinvaliduser", "request_resourcenotfound"];
    GRAPH_NO_MAILBOX: Configuration,
        "the user has no mailbox that Microsoft Graph can reach",
        "there is no licence for Exchange Online, the mailbox is on premises, or it is being moved",
        "give the user a licence with Exchange Online, or send by the SMTP server that has the mailbox",
        says &["mailboxnotenabledforrestapi"];
    GRAPH_REQUEST_REFUSED: Defect,
        "Microsoft Graph refused the request for a reason that is not known here",
        "",
        "it is tried again; if it lasts, send this line to the maintainers";
    SEND_TOKEN_FOR_OTHER_API: Configuration,
        "the token is for another resource than the one that sends",
        "`scope` of the outgoing server names another resource: SMTP takes tokens for Office 365 Exchange Online, Microsoft Graph its own only",
        "clear `scope` of the outgoing server to use the one that belongs to its transport and cloud";
    SEND_TOKEN_WITHOUT_RIGHT: Consent,
        "the token does not have the permission to send",
        "the permission was not added to the app registration, or admin consent is missing: Entra then issues a token without it",
        "in the app registration add, and grant admin consent to: for SMTP Office 365 Exchange Online > SMTP.SendAsApp (OAuth User: Microsoft Graph > Delegated permissions > SMTP.Send); for Graph Microsoft Graph > Mail.Send. For SMTP also run New-ServicePrincipal and Add-MailboxPermission … FullAccess";
}

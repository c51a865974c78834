//! What Postroom finds out by itself: definitions, names, connections, TLS, proxies, tokens and its own parts.

super::entries! {
    ADDRESS_INVALID: Configuration,
        "the address of the incoming server is not a place to get tokens from",
        "something else than the login host and the tenant stands in it",
        "write it as https://<login host>/<tenant id>";
    HOST_INVALID: Configuration,
        "the IMAP host is no host name",
        "a URL, a port or a blank was written into it",
        "correct the IMAP host of the incoming server";
    HOST_NOT_FOUND: Transient,
        "the name of the host is not known",
        "a typing error in the definition, or a name server that does not answer or does not know the name",
        "if it lasts, correct the host in the incoming server, or look at the worker's DNS (getent hosts NAME)";
    UNREACHABLE: Transient,
        "the host cannot be reached",
        "the host is down, nothing listens on the port, or a firewall or a missing route is in the way",
        "if it lasts, check name, port, DNS, routes and firewalls between the worker and that host";
    STALLED: Transient,
        "the reading of the mailbox stood still, and was begun anew",
        "what it waited for did not come: an answer of the mail server, a turn to connect, room in the worker's memory or a word of the control plane",
        "nothing to do: it begins anew; if it lasts, look at what the cause names";
    TIMED_OUT: Transient,
        "the host stopped answering",
        "it is overloaded, or something on the way drops packets without a word",
        "if it lasts, look at the load of the server and at what lies between it and the worker";
    PROXY_INVALID: Configuration,
        "the proxy cannot be used",
        "its URL has another form than those that are known",
        "write the incoming server's `proxy` as http://host:port, https://host:port or socks5://host:port";
    PROXY_UNREACHABLE: Transient,
        "the proxy cannot be reached",
        "the proxy is down, or its host or port is wrong",
        "if it lasts, check the incoming server's `proxy`, and that the proxy runs and lets the worker in";
    PROXY_REFUSED: Configuration,
        "the proxy does not connect to the server",
        "it demands a sign-in, forbids this host or port (many allow CONNECT to port 443 only), or cannot reach the server itself",
        "allow the worker's network address to connect to this host and port at the proxy, without a sign-in at the proxy";
    TLS_UNTRUSTED: Configuration,
        "the certificate is not signed by a CA that this worker trusts",
        "the server has a certificate of a CA of your own, or a proxy opens TLS on the way and signs with its own",
        "put the signing CA certificate (PEM) on the worker's machine and name the file in the incoming server's `caFile`; if a proxy opens TLS on the way, its CA is the one to trust";
    TLS_BAD_CERTIFICATE: Configuration,
        "the certificate does not fit",
        "it is for another name, has expired or is not valid yet, or the worker's clock is wrong",
        "compare the host in the definition with the names in the certificate, and look at its dates and at the worker's clock";
    TLS_FAILED: Transient,
        "TLS could not be agreed on",
        "the port does not speak TLS from the first byte (143 instead of 993), the server speaks only versions before 1.2, or something on the way interferes",
        "if it lasts, check that the port speaks TLS from the first byte and that nothing on the way interferes";
    CA_FILE_UNREADABLE: Configuration,
        "the CA file cannot be used",
        "it is missing on the worker's machine, not readable for it, or holds no PEM certificate",
        "`caFile` names a PEM file with certificates on the worker's own machine that the worker may read";
    TOKEN_ANSWER_STRANGE: Transient,
        "what answered is no token endpoint",
        "a captive portal, a proxy or another web server answers at that address",
        "check the incoming server's address; a captive portal or proxy may answer in place of it";
    TOKEN_FOR_GRAPH: Consent,
        "the token is for Microsoft Graph, which IMAP does not take",
        "the app registration, or the `scope` of the incoming server, was made for Microsoft Graph (Mail.ReadWrite); IMAP needs a token for Office 365 Exchange Online",
        "in the app registration add Office 365 Exchange Online (under APIs my organization uses) > Application permissions > IMAP.AccessAsApp and grant admin consent; run New-ServicePrincipal with the object id of the enterprise application and Add-MailboxPermission … FullAccess for each mailbox; clear the incoming server's `scope`";
    TOKEN_FOR_OTHER_RESOURCE: Configuration,
        "the token is for another resource than Exchange Online",
        "the `scope` of the incoming server names another resource",
        "clear the incoming server's `scope` to use the one that belongs to its cloud, https://outlook.office365.com/.default in the global one";
    TOKEN_WITHOUT_ROLE: Consent,
        "the token does not have the role IMAP.AccessAsApp",
        "the permission was not added, was added under Microsoft Graph or as a delegated one, or admin consent is missing: Entra then issues a token without roles, and the mail server refuses it",
        "in the app registration add Office 365 Exchange Online (under APIs my organization uses) > Application permissions > IMAP.AccessAsApp, and grant admin consent; then in Exchange run New-ServicePrincipal with the object id of the enterprise application and Add-MailboxPermission … FullAccess for each mailbox";
    TOKEN_WITHOUT_SCOPE: Consent,
        "the token does not have the scope IMAP.AccessAsUser.All",
        "the delegated permission was not added to the app registration, or nobody consented to it",
        "in the app registration add Microsoft Graph > Delegated permissions > IMAP.AccessAsUser.All and grant admin consent";
    TOKEN_OF_OTHER_TENANT: Configuration,
        "the token is of another tenant than the address names",
        "the tenant in the incoming server's address is an alias of another one",
        "write the id of the tenant that has the mailboxes into the incoming server's address";
    PASSWORD_REFUSED: Credential,
        "the account's password is wrong",
        "it was refused three times within the hour; a further try could lock the account, so none is made before the hour is over",
        "store the account's present password in the address";
    SECRET_UNREADABLE: Configuration,
        "a stored secret or password cannot be read, or none is stored",
        "the key file secret.key of the control plane is missing or another one than the secret was sealed with",
        "restore the key file secret.key of the control plane from the backup, or apply the secret or password again";
    NOT_FOUND: Configuration,
        "the mailbox has no definition any more",
        "the address was taken out of the model a moment ago",
        "nothing to do if the address was taken out: the mailbox is let go soon; otherwise apply its definition again";
    CONTROL_PLANE: Transient,
        "the control plane does not take what a worker reports",
        "it is stopped or overloaded, or its disk is full",
        "nothing is lost: it is repeated; if it lasts, look at the control plane and its storage";
    STORAGE_FAILED: Transient,
        "the control plane cannot store what is reported of the mailbox",
        "the disk of its data folder is full or faulty, or the bucket of large messages does not answer or refuses",
        "free space on the disk of the control plane's data folder, or see that the bucket answers and its access key may write; nothing is lost: what was not stored is reported again, and nothing is marked or moved in the mailbox before it is stored";
    NOT_TRIED: Configuration,
        "this cannot be tried without a mailbox",
        "the incoming server signs in as the account of a mailbox, whose password belongs to the address",
        "name a mailbox of this incoming server with --mailbox";
    UIDVALIDITY_CHANGED: Mailbox,
        "the server has renumbered the folder",
        "the folder was deleted and made again, restored from a backup, or the mailbox was moved",
        "reading has stopped, since the control plane is too old to know its messages again: bring it to the version of the worker";
    RENUMBERED_WHILE_WAITING: Mailbox,
        "the server has renumbered the folder while old messages wait for an operator",
        "the folder was deleted and made again, restored from a backup, or the mailbox was moved, before its old messages were released",
        "reading goes on when the old messages are released without a rate: `postroom mailbox backlog approve`, with --since to leave what is older; all of them come at once then";
    CURSOR_UNREADABLE: Defect,
        "what was committed of the mailbox cannot be read by this worker",
        "a newer version of Postroom wrote it",
        "run a worker of the version that wrote it, or a newer one";
    ERRAND_UNKNOWN: Configuration,
        "this worker does not know how to do what it was asked to",
        "the worker is older than the control plane",
        "bring the worker to the version of the control plane";
    DEFECT: Defect,
        "Postroom made a mistake",
        "",
        "send this line, the version and the worker's log around this time to the maintainers; the mailbox is tried again by itself";
}

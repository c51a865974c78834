//! What the control plane finds out by itself about mail on its way out.

super::entries! {
    SENDER_GONE: Configuration,
        "the address that it is sent from may not be used as From any more",
        "the address was taken out of the model, lost its `sender`, or its queue went to another instance",
        "define the address with `sender` again, or give the mail up with `postroom outbox cancel`";
    NO_OUTGOING_SERVER: Configuration,
        "no enabled outgoing server can send for the address that it is sent from",
        "the outgoing server was disabled or removed, or is of another tenant",
        "enable or define an outgoing server that can send for the address; the mail is then sent by itself";
    OUTCOME_LOST: Transient,
        "its data was handed over and the answer was lost: it may have been sent or not",
        "the connection broke, or the worker stopped, between the last byte of the mail and the server's answer",
        "where the server keeps a copy of sent mail it is looked for there by itself; otherwise ask its recipient, then run `postroom outbox confirm`, or `postroom outbox retry --may-arrive-twice`";
    WORKER_LOST: Transient,
        "the worker that had it stopped before anything was handed over",
        "the worker was restarted, killed or cut off",
        "nothing: it is tried again by itself; if it lasts, look at the log of the worker";
    RECIPIENTS_REFUSED: Mailbox,
        "a server refused some of its recipients for good",
        "an address is misspelt or exists no more",
        "see what was said of each recipient with `postroom outbox show`; write to a corrected address, or run `postroom outbox retry` once the recipient's server takes it";
    RECIPIENTS_DEFERRED: Transient,
        "a server did not take it for some of its recipients yet",
        "greylisting, a full mailbox, or trouble behind the server that was to take it",
        "nothing: it is tried again by itself for those who have not got it; see what was said of each with `postroom outbox show`";
    BOUNCED: Mailbox,
        "it came back from behind the server that took it",
        "an address is misspelt, its mailbox is full, or a server on the way refuses it",
        "see what was said of each recipient with `postroom outbox show`; write to a corrected address, or run `postroom outbox retry`";
    EXPIRED: Transient,
        "it was tried for as long as the control plane is set to, without success",
        "see the cause of the last attempt",
        "mend what the last attempt failed of, then run `postroom outbox retry`";
    CANCELLED: Policy,
        "somebody gave it up",
        "",
        "run `postroom outbox retry` if it is to be sent after all";
    RESTORED: Transient,
        "it was not sent yet when the backup was made, and may have been sent since",
        "the data folder was restored from a backup",
        "where the server keeps a copy of sent mail it is looked for there by itself; otherwise ask its recipient, then run `postroom outbox confirm`, or `postroom outbox retry --may-arrive-twice`";
}

-- What is known of messages that did not become a contact, and what people decide about them.

-- The limit that a message was larger than; how often one was tried before it was put aside. 0: not recorded.
ALTER TABLE message ADD COLUMN limit_bytes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE message ADD COLUMN attempt_count INTEGER NOT NULL DEFAULT 0;

-- Few beside the contacts: an operator finds and counts them whatever the size of the ledger. A query has to say
-- "disposition <> 1" in these very words.
CREATE INDEX message_aside ON message (mailbox, disposition, id) WHERE disposition <> 1;

-- Numbers of kinds are those of the wire enum MessageDecisionKind.
CREATE TABLE decision (
    id                  INTEGER PRIMARY KEY,
    message             INTEGER NOT NULL REFERENCES message (id),
    kind                INTEGER NOT NULL,
    made_at             INTEGER NOT NULL,
    made_by             TEXT    NOT NULL,           -- role of the caller
    former_disposition  INTEGER NOT NULL,
    former_reason       TEXT    NOT NULL
);
CREATE INDEX decision_message ON decision (message, id);

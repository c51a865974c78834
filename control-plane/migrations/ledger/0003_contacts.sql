-- Contacts complete: kind, thread, ending, death, transfers, and the sequence of their changes.

ALTER TABLE contact ADD COLUMN kind INTEGER NOT NULL DEFAULT 0;     -- postroom.v1.ContactKind
-- First eight bytes of the SHA-256 of its Message-ID, to be found again by replies. NULL: it has none.
ALTER TABLE contact ADD COLUMN message_key INTEGER;
-- Id of the contact that its conversation began with. NULL: its own.
ALTER TABLE contact ADD COLUMN thread TEXT;
ALTER TABLE contact ADD COLUMN closed_at INTEGER;                   -- when it was ended, or died
ALTER TABLE contact ADD COLUMN outcome TEXT NOT NULL DEFAULT '';    -- how it ended, in the words of the instance

CREATE INDEX contact_message_key ON contact (message_key, instance_uid, message) WHERE message_key IS NOT NULL;
CREATE INDEX contact_thread ON contact (thread, message) WHERE thread IS NOT NULL;
-- Serves listings by queue.
CREATE INDEX contact_queue ON contact (queue_uid, state, priority, waiting_since, message);

-- Whence contacts were moved. A repeated request is known by it.
CREATE TABLE transfer (
    id                INTEGER PRIMARY KEY,
    message           INTEGER NOT NULL REFERENCES contact (message),
    request_id        TEXT    NOT NULL,
    made_at           INTEGER NOT NULL,
    from_instance_uid TEXT    NOT NULL,
    from_instance     TEXT    NOT NULL,
    from_queue_uid    TEXT    NOT NULL,
    from_queue        TEXT    NOT NULL,
    from_priority     INTEGER NOT NULL
);
CREATE INDEX transfer_message ON transfer (message);

-- One row for every change of a contact, newest last. Appended in the transaction that makes the change; the oldest are
-- cut off, the newest never, so that no revision is used twice.
CREATE TABLE contact_change (
    revision      INTEGER PRIMARY KEY,
    message       INTEGER NOT NULL,
    left_instance TEXT                              -- uid of the instance that it left; NULL for all other changes
);

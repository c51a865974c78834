-- Times are microseconds since 1970 by this database's machine. Numbers of states and dispositions are those of the
-- wire enums ContactState and Disposition.

-- Who this ledger is, and which store's epochs its fences compare with.
CREATE TABLE ledger (
    only          INTEGER PRIMARY KEY CHECK (only = 1),
    id            TEXT    NOT NULL,
    store_id      TEXT,                             -- NULL until a store was bound
    generation    INTEGER NOT NULL                  -- raised when another store is adopted
);

-- One row for every mailbox ever opened: its fence, how far it is read, and what its reader last said.
CREATE TABLE mailbox (
    id              INTEGER PRIMARY KEY,
    uid             TEXT    NOT NULL UNIQUE,
    generation      INTEGER NOT NULL,               -- the fence: generation, epoch, session
    epoch           INTEGER NOT NULL,
    session         TEXT    NOT NULL,
    cursor_protocol TEXT    NOT NULL DEFAULT '',
    cursor          BLOB    NOT NULL DEFAULT x'',
    batch_id        TEXT,                           -- the last batch and its answer, for a caller who lost it
    batch_answer    BLOB,
    reported_at     INTEGER,
    status          BLOB,                           -- postroom.v1.MailboxStatus
    message_count   INTEGER NOT NULL DEFAULT 0,
    contact_count   INTEGER NOT NULL DEFAULT 0
);

-- One row for every message ever seen.
CREATE TABLE message (
    id            INTEGER PRIMARY KEY,
    mailbox       INTEGER NOT NULL REFERENCES mailbox (id),
    source_key    TEXT    NOT NULL,
    disposition   INTEGER NOT NULL,
    reason        TEXT    NOT NULL DEFAULT '',
    received_at   INTEGER,
    recorded_at   INTEGER NOT NULL,
    size_bytes    INTEGER NOT NULL,
    fingerprint   BLOB    NOT NULL DEFAULT x'',
    raw_digest    TEXT,                             -- where the raw message is a blob of its own
    unsettled     INTEGER NOT NULL,                 -- 1: not yet marked or moved in the mailbox
    UNIQUE (mailbox, source_key)
);
CREATE INDEX message_unsettled ON message (mailbox, id) WHERE unsettled = 1;

-- The contact that a message became. Small rows: they are rewritten at every change of state.
CREATE TABLE contact (
    message       INTEGER PRIMARY KEY REFERENCES message (id),
    id            TEXT    NOT NULL UNIQUE,
    instance_uid  TEXT    NOT NULL,
    instance      TEXT    NOT NULL,                 -- names as they were at intake
    queue_uid     TEXT    NOT NULL,
    queue         TEXT    NOT NULL,
    address       TEXT    NOT NULL,
    mailbox_uid   TEXT    NOT NULL,
    state         INTEGER NOT NULL,
    priority      INTEGER NOT NULL,                 -- the key of the order, frozen at intake
    waiting_since INTEGER NOT NULL,
    language      TEXT    NOT NULL,
    created_at    INTEGER NOT NULL,
    size_bytes    INTEGER NOT NULL,
    request_id    TEXT,                             -- the allocation, while allocated or accepted
    allocated_at  INTEGER,
    deadline_at   INTEGER,
    accepted_at   INTEGER,
    refusal_count INTEGER NOT NULL DEFAULT 0
);
-- Serves allocation (state = queued) and listings: whatever the backlog, the best contacts are the first rows.
CREATE INDEX contact_order ON contact (instance_uid, state, priority, waiting_since, message);
CREATE INDEX contact_deadline ON contact (deadline_at) WHERE state = 2;
CREATE INDEX contact_request ON contact (request_id) WHERE state = 2;

-- What a contact says, and the raw message where it is small. Written once. The two parts of what it says are both
-- postroom.v1.ContactContent, which is their concatenation: text and html stand apart, since listings leave them out.
CREATE TABLE body (
    message       INTEGER PRIMARY KEY REFERENCES message (id),
    content       BLOB,
    text          BLOB,
    raw           BLOB
);

-- Which allocations were made, so that a repeated one is known.
CREATE TABLE allocation (
    request_id    TEXT    PRIMARY KEY,
    instance_uid  TEXT    NOT NULL,
    made_at       INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX allocation_age ON allocation (made_at);

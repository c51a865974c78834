-- Mail on its way out. Numbers of states and kinds are those of the wire enums OutboxState, RecipientKind and
-- RecipientState; 1 is QUEUED, 2 SENDING, 4 UNKNOWN, 5 FAILED.

CREATE TABLE outbox (
    id              INTEGER PRIMARY KEY,            -- in the order in which they were stored
    mail            TEXT    NOT NULL UNIQUE,        -- the id that people see
    instance_uid    TEXT    NOT NULL,
    instance        TEXT    NOT NULL,               -- names as they were when it was stored
    queue_uid       TEXT    NOT NULL,
    queue           TEXT    NOT NULL,
    lane            TEXT    NOT NULL,               -- instance_uid/queue_uid/address of From in small letters
    contact         TEXT    NOT NULL,               -- the contact that it answers; empty: none
    request_id      TEXT    NOT NULL,
    digest          BLOB    NOT NULL,               -- of the request, so that a repeated one is known
    from_name       TEXT    NOT NULL,
    from_address    TEXT    NOT NULL,
    from_key        TEXT    NOT NULL,               -- the same in small letters
    subject         TEXT    NOT NULL,
    message_id      TEXT    NOT NULL UNIQUE,        -- without brackets; finds the mail that a bounce is of
    message_key     INTEGER,                        -- its key, by which an answer to it finds its thread; see contact
    size_bytes      INTEGER NOT NULL,
    raw_digest      TEXT,                           -- where the mail is a blob of its own
    automatic       INTEGER NOT NULL,
    recipient_count INTEGER NOT NULL,
    created_at      INTEGER NOT NULL,
    changed_at      INTEGER NOT NULL,
    state           INTEGER NOT NULL,
    pending_count   INTEGER NOT NULL,               -- recipients that have not got it
    since           INTEGER NOT NULL,               -- since when it is tried, time left out in which nothing sent it
    due_at          INTEGER,                        -- next attempt (QUEUED), next look (UNKNOWN; NULL: nobody looks)
    deferral_count  INTEGER NOT NULL DEFAULT 0,     -- attempts in a row that came to nothing
    attempt_count   INTEGER NOT NULL DEFAULT 0,
    sent_at         INTEGER,                        -- when a server took it, or may have, for whomever; nothing clears it
    problem         BLOB,                           -- postroom.v1.Problem
    response        TEXT    NOT NULL DEFAULT '',
    -- The last claim. It stands while deadline_at is there.
    token           TEXT    NOT NULL DEFAULT '',
    session         TEXT    NOT NULL DEFAULT '',
    worker          TEXT    NOT NULL DEFAULT '',
    outgoing_server TEXT    NOT NULL DEFAULT '',
    sender          TEXT    NOT NULL DEFAULT '',    -- the sending mailbox, whose limits count
    credentials     BLOB    NOT NULL DEFAULT x'',   -- digest of those by which it signs in
    claimed_at      INTEGER NOT NULL DEFAULT 0,
    deadline_at     INTEGER,                        -- when it lapses
    looking         INTEGER NOT NULL DEFAULT 0,     -- 1: it is, or was, to be looked for
    settled         INTEGER NOT NULL DEFAULT 0,
    -- The last attempt that handed its data over, or was to.
    marked_at       INTEGER,                        -- when that was about to happen; NULL: its outcome is known
    mark_token      TEXT    NOT NULL DEFAULT '',    -- whose late word is still believed; empty: nobody's
    mark_session    TEXT    NOT NULL DEFAULT '',
    look_in         TEXT    NOT NULL DEFAULT '',    -- where its copy would be; empty: nobody keeps one
    UNIQUE (instance_uid, request_id)
);
-- Serve claims: of what waits, and of what is to be looked for, the first of a lane is its first row.
CREATE INDEX outbox_lane ON outbox (lane, due_at, id) WHERE state = 1;
CREATE INDEX outbox_look ON outbox (lane, look_in, due_at, id)
    WHERE state = 4 AND due_at IS NOT NULL AND deadline_at IS NULL;
CREATE INDEX outbox_claim ON outbox (sender) WHERE deadline_at IS NOT NULL;
CREATE INDEX outbox_deadline ON outbox (deadline_at) WHERE deadline_at IS NOT NULL;
-- Serve listings, newest first, and the breaker.
CREATE INDEX outbox_instance ON outbox (instance_uid, state, id);
CREATE INDEX outbox_state ON outbox (state, id);
CREATE INDEX outbox_contact ON outbox (contact, id) WHERE contact <> '';
CREATE INDEX outbox_message_key ON outbox (message_key) WHERE contact <> '';
CREATE INDEX outbox_from ON outbox (from_key, id);
CREATE INDEX outbox_created ON outbox (created_at);
-- Counts what went wrong lately.
CREATE INDEX outbox_trouble ON outbox (state, changed_at) WHERE state IN (4, 5);

CREATE TABLE outbox_recipient (
    outbox          INTEGER NOT NULL REFERENCES outbox (id),
    position        INTEGER NOT NULL,
    kind            INTEGER NOT NULL,
    name            TEXT    NOT NULL,
    address         TEXT    NOT NULL,
    address_key     TEXT    NOT NULL,               -- the address in small letters
    state           INTEGER NOT NULL,
    status          TEXT    NOT NULL DEFAULT '',
    diagnostic      TEXT    NOT NULL DEFAULT '',
    PRIMARY KEY (outbox, position)
) WITHOUT ROWID;
CREATE INDEX outbox_recipient_address ON outbox_recipient (address_key, outbox);

-- The mail as it is sent, where it is small. Written once.
CREATE TABLE outbox_body (
    outbox          INTEGER PRIMARY KEY REFERENCES outbox (id),
    raw             BLOB    NOT NULL
);

-- Attempts that handed over data and have ended, by sending mailbox. Kept for a few minutes.
CREATE TABLE outbox_attempt (
    sender          TEXT    NOT NULL,
    ended_at        INTEGER NOT NULL
);
CREATE INDEX outbox_attempt_sender ON outbox_attempt (sender, ended_at);

-- How many recipients a sending mailbox has written to in each hour. Kept for a day and an hour.
CREATE TABLE outbox_hour (
    sender          TEXT    NOT NULL,
    hour            INTEGER NOT NULL,               -- hours since 1970
    recipients      INTEGER NOT NULL,
    PRIMARY KEY (sender, hour)
) WITHOUT ROWID;

-- Sending mailboxes that are, or were, to be left alone for a while, with the credentials that did not work: others are
-- tried at once. Kept for two days.
CREATE TABLE outbox_sender (
    sender          TEXT    NOT NULL,
    credentials     BLOB    NOT NULL,
    decided_at      INTEGER NOT NULL,
    not_before      INTEGER NOT NULL,
    deferral_count  INTEGER NOT NULL,               -- in a row
    problem         BLOB    NOT NULL,               -- postroom.v1.Problem
    PRIMARY KEY (sender, credentials)
) WITHOUT ROWID;

-- When each queue had its last turn at a sending mailbox: a time, or a little more, so that no two turns are alike.
CREATE TABLE outbox_turn (
    sender          TEXT    NOT NULL,
    queue_uid       TEXT    NOT NULL,
    turn            INTEGER NOT NULL,
    PRIMARY KEY (sender, queue_uid)
) WITHOUT ROWID;

-- One row for every change of a mail that people can see, newest last; see contact_change.
CREATE TABLE outbox_change (
    revision        INTEGER PRIMARY KEY,
    outbox          INTEGER NOT NULL
);
CREATE TRIGGER outbox_change_insert AFTER INSERT ON outbox BEGIN
    INSERT INTO outbox_change (outbox) VALUES (NEW.id);
END;
CREATE TRIGGER outbox_change_update AFTER UPDATE OF changed_at ON outbox BEGIN
    INSERT INTO outbox_change (outbox) VALUES (NEW.id);
END;

-- How many mails of each instance are in each state; see contact_tally.
CREATE TABLE outbox_tally (
    instance_uid    TEXT    NOT NULL,
    state           INTEGER NOT NULL,
    count           INTEGER NOT NULL,
    PRIMARY KEY (instance_uid, state)
) WITHOUT ROWID;
CREATE TRIGGER outbox_tally_insert AFTER INSERT ON outbox BEGIN
    INSERT INTO outbox_tally VALUES (NEW.instance_uid, NEW.state, 1)
        ON CONFLICT (instance_uid, state) DO UPDATE SET count = count + 1;
END;
CREATE TRIGGER outbox_tally_update AFTER UPDATE OF state ON outbox WHEN OLD.state <> NEW.state BEGIN
    UPDATE outbox_tally SET count = count - 1 WHERE instance_uid = OLD.instance_uid AND state = OLD.state;
    INSERT INTO outbox_tally VALUES (NEW.instance_uid, NEW.state, 1)
        ON CONFLICT (instance_uid, state) DO UPDATE SET count = count + 1;
END;

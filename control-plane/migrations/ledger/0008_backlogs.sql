-- Mailboxes that had more messages at their first reading than the guard of their queue allows. Numbers of states and kinds
-- are those of the wire enums BacklogState and BacklogDecisionKind; a report that deals with any of them is refused unless
-- the state is 2, RELEASING.
CREATE TABLE backlog (
    mailbox         INTEGER PRIMARY KEY REFERENCES mailbox (id),
    held_at         INTEGER NOT NULL,
    message_count   INTEGER NOT NULL,               -- as they were counted at the first reading
    taken_count     INTEGER NOT NULL,
    left_count      INTEGER NOT NULL,               -- older than the operator wanted
    progress_at     INTEGER,                        -- when the last were taken or left
    finished_at     INTEGER,                        -- when the last one was dealt with
    state           INTEGER NOT NULL,
    since           INTEGER,                        -- of the last release
    rate_per_minute INTEGER NOT NULL DEFAULT 0      -- 0: as many as can be read
);

CREATE TABLE backlog_decision (
    id              INTEGER PRIMARY KEY,
    mailbox         INTEGER NOT NULL REFERENCES mailbox (id),
    kind            INTEGER NOT NULL,
    made_at         INTEGER NOT NULL,
    made_by         TEXT    NOT NULL,               -- role of the caller
    since           INTEGER,
    rate_per_minute INTEGER NOT NULL
);
CREATE INDEX backlog_decision_mailbox ON backlog_decision (mailbox, id);

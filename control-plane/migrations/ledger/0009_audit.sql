-- Who did what. Rows are added and, when they are old, removed; nothing else.
CREATE TABLE audit (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    at       INTEGER NOT NULL,
    who      TEXT    NOT NULL,                      -- name of the caller; '': nobody that is known here
    role     TEXT    NOT NULL,
    address  TEXT    NOT NULL,                      -- network address of the caller; '': not known
    rpc      TEXT    NOT NULL,                      -- package.Service/Method
    subject  TEXT    NOT NULL,                      -- what it is about: a mailbox, a contact, a worker
    detail   TEXT    NOT NULL,                      -- the request, as JSON, without secrets; may be ''
    refused  TEXT,                                  -- why it was not let in; NULL: it was
    count    INTEGER NOT NULL,                      -- attempts that this row stands for
    last_at  INTEGER NOT NULL                       -- the last of them
) STRICT;
CREATE INDEX audit_at ON audit (at);
CREATE INDEX audit_refused ON audit (id) WHERE refused IS NOT NULL;

-- What became of those that were let in. One that is missing here was cut off: whether it took effect is not known.
CREATE TABLE audit_outcome (
    audit    INTEGER PRIMARY KEY REFERENCES audit (id),
    at       INTEGER NOT NULL,
    reason   TEXT    NOT NULL,                      -- '': done
    message  TEXT    NOT NULL,
    detail   TEXT    NOT NULL                       -- what changed, as JSON, without secrets; may be ''
) STRICT;

-- How far back rows are kept. It only moves forward, and rows that are newer cannot be removed.
CREATE TABLE audit_kept (
    one           INTEGER PRIMARY KEY CHECK (one = 1),
    since         INTEGER NOT NULL,                 -- rows from this time on
    refused_after INTEGER NOT NULL                  -- of refused attempts only those behind this row
) STRICT;
INSERT INTO audit_kept VALUES (1, 0, 0);

CREATE TRIGGER audit_only_added BEFORE INSERT ON audit
WHEN EXISTS (SELECT 1 FROM audit WHERE id = NEW.id) BEGIN SELECT RAISE(ABORT, 'the audit is only added to'); END;
CREATE TRIGGER audit_never_changed BEFORE UPDATE ON audit
BEGIN SELECT RAISE(ABORT, 'the audit is only added to'); END;
CREATE TRIGGER audit_kept_while_new BEFORE DELETE ON audit
WHEN OLD.at >= (SELECT since FROM audit_kept)
    AND NOT (OLD.refused IS NOT NULL AND OLD.id <= (SELECT refused_after FROM audit_kept))
BEGIN SELECT RAISE(ABORT, 'the audit is only added to'); END;

CREATE TRIGGER audit_outcome_only_added BEFORE INSERT ON audit_outcome
WHEN EXISTS (SELECT 1 FROM audit_outcome WHERE audit = NEW.audit)
BEGIN SELECT RAISE(ABORT, 'the audit is only added to'); END;
CREATE TRIGGER audit_outcome_never_changed BEFORE UPDATE ON audit_outcome
BEGIN SELECT RAISE(ABORT, 'the audit is only added to'); END;
CREATE TRIGGER audit_outcome_kept_while_new BEFORE DELETE ON audit_outcome
WHEN (SELECT at FROM audit WHERE id = OLD.audit) >= (SELECT since FROM audit_kept)
BEGIN SELECT RAISE(ABORT, 'the audit is only added to'); END;

CREATE TRIGGER audit_kept_moves_forward BEFORE UPDATE ON audit_kept
WHEN NEW.since < OLD.since OR NEW.refused_after < OLD.refused_after
BEGIN SELECT RAISE(ABORT, 'what the audit keeps only moves forward'); END;
CREATE TRIGGER audit_kept_stays BEFORE DELETE ON audit_kept
BEGIN SELECT RAISE(ABORT, 'what the audit keeps only moves forward'); END;

-- One row: who this store is and where its history stands.
CREATE TABLE store (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    -- Minted when the store was created; a restored copy keeps it.
    id TEXT NOT NULL,
    -- Newest revision.
    revision INTEGER NOT NULL,
    -- Oldest revision whose changes are still in the change log.
    oldest INTEGER NOT NULL
) STRICT;

-- What is.
CREATE TABLE kv (
    key TEXT PRIMARY KEY,
    value BLOB NOT NULL,
    mod_revision INTEGER NOT NULL
) STRICT;

-- What happened, for watches; trimmed to the newest revisions.
CREATE TABLE change (
    revision INTEGER NOT NULL,
    key TEXT NOT NULL,
    -- NULL: removed.
    value BLOB,
    PRIMARY KEY (revision, key)
) STRICT;

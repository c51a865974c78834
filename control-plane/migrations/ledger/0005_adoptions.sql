-- Every time another store, or the same one gone back, was taken for this ledger's. The generation rises with each.
CREATE TABLE adoption (
    id              INTEGER PRIMARY KEY,
    adopted_at      INTEGER NOT NULL,
    adopted_by      TEXT    NOT NULL,
    generation      INTEGER NOT NULL,
    former_store_id TEXT,                             -- NULL: it belonged to none
    store_id        TEXT    NOT NULL
);

-- Folders that are numbered anew: their messages are known again under new keys.

-- When the first report was committed. Of older mailboxes: when their first message was recorded, which is later; there
-- is no message in between that is not in the ledger.
ALTER TABLE mailbox ADD COLUMN reading_since INTEGER;
ALTER TABLE mailbox ADD COLUMN numbering INTEGER NOT NULL DEFAULT 0;     -- how often it was numbered anew
ALTER TABLE mailbox ADD COLUMN keyed INTEGER NOT NULL DEFAULT 0;         -- messages of numberings below have match keys
UPDATE mailbox SET reading_since = coalesce(
    (SELECT recorded_at FROM message WHERE message.id = (SELECT min(id) FROM message WHERE message.mailbox = mailbox.id)),
    reported_at);

-- The last numbering in which it was seen.
ALTER TABLE message ADD COLUMN numbering INTEGER NOT NULL DEFAULT 0;
-- By what it is found when its folder was numbered anew; made only then. An index over all messages would cost each report
-- a page in a random place, for what most mailboxes never need.
ALTER TABLE message ADD COLUMN match_key INTEGER;
ALTER TABLE message ADD COLUMN duplicate_of INTEGER REFERENCES message (id);
CREATE INDEX message_match ON message (mailbox, match_key) WHERE match_key IS NOT NULL;
CREATE INDEX message_duplicate ON message (duplicate_of, id) WHERE duplicate_of IS NOT NULL;

-- Duplicates are as many as contacts. A query has to say "disposition <> 1 AND disposition <> 6" in these very words.
DROP INDEX message_aside;
CREATE INDEX message_aside ON message (mailbox, disposition, id) WHERE disposition <> 1 AND disposition <> 6;

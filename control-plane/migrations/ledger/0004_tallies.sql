-- How many contacts of each instance are in each state, kept by the database itself: counting rows would cost more with
-- every contact ever accepted.
CREATE TABLE contact_tally (
    instance_uid  TEXT    NOT NULL,
    state         INTEGER NOT NULL,
    count         INTEGER NOT NULL,
    PRIMARY KEY (instance_uid, state)
) WITHOUT ROWID;
INSERT INTO contact_tally SELECT instance_uid, state, count(*) FROM contact GROUP BY instance_uid, state;

CREATE TRIGGER contact_tally_insert AFTER INSERT ON contact BEGIN
    INSERT INTO contact_tally VALUES (NEW.instance_uid, NEW.state, 1)
        ON CONFLICT (instance_uid, state) DO UPDATE SET count = count + 1;
END;
CREATE TRIGGER contact_tally_update AFTER UPDATE OF instance_uid, state ON contact
    WHEN OLD.state <> NEW.state OR OLD.instance_uid <> NEW.instance_uid BEGIN
    UPDATE contact_tally SET count = count - 1 WHERE instance_uid = OLD.instance_uid AND state = OLD.state;
    INSERT INTO contact_tally VALUES (NEW.instance_uid, NEW.state, 1)
        ON CONFLICT (instance_uid, state) DO UPDATE SET count = count + 1;
END;
CREATE TRIGGER contact_tally_delete AFTER DELETE ON contact BEGIN
    UPDATE contact_tally SET count = count - 1 WHERE instance_uid = OLD.instance_uid AND state = OLD.state;
END;

//! A ledger made by every older version opens, and has what it had.

use data_encoding::HEXLOWER;
use postroom_proto::fingerprint::fingerprint;
use postroom_proto::v1::{ContactContent, ContactState};
use prost::Message as _;
use sqlx::{AssertSqlSafe, Executor as _};

use super::{SCHEMA, Sqlite};
use crate::ledger::known::Sought;
use crate::ledger::suite::{fence, mailbox};
use crate::ledger::{ContactFilter, Ledger as _};
use crate::sqlite::{Location, open};

/// What stood in a ledger of schema 1: a contact that waits, a contact that was accepted, and a message put aside.
const VERSION_1: &str = "
INSERT INTO ledger VALUES (1, '0198c0ffee0198c0ffee0198c0ffee00', 'store-1', 1);
INSERT INTO mailbox (id, uid, generation, epoch, session, cursor_protocol, cursor, message_count, contact_count)
    VALUES (1, '{mailbox}', 1, 7, 's1', 'imap', x'01', 3, 2);
INSERT INTO message (id, mailbox, source_key, disposition, reason, received_at, recorded_at, size_bytes, unsettled)
    VALUES (1, 1, '1:1', 1, '', 5, 100, 3, 1), (2, 1, '1:2', 1, '', 6, 100, 3, 0), (3, 1, '1:3', 3, 'it has 99', 7, 100, 0, 0);
INSERT INTO contact (message, id, instance_uid, instance, queue_uid, queue, address, mailbox_uid, state, priority,
    waiting_since, language, created_at, size_bytes, request_id, allocated_at, deadline_at, accepted_at)
    VALUES (1, 'c1', 'i1', 'core1', 'q1', 'Billing', 'a@x.example', '{mailbox}', 1, 10, 5, 'fi', 100, 3, NULL, NULL, NULL, NULL),
           (2, 'c2', 'i1', 'core1', 'q1', 'Billing', 'a@x.example', '{mailbox}', 3, 10, 6, 'fi', 100, 3, 'r1', 110, 120, 115);
INSERT INTO body VALUES (1, x'', x'', x'726177'), (2, x'{content}', x'', x'726177');
UPDATE message SET fingerprint = zeroblob(32) WHERE id = 2;
INSERT INTO allocation VALUES ('r1', 'i1', 110);
";

#[tokio::test]
async fn a_ledger_of_every_older_version_opens_with_what_it_had() {
    for versions in 1..SCHEMA.len() {
        let folder = tempfile::tempdir().unwrap();
        let location = Location::File(folder.path().join("ledger.db"));
        let uid = mailbox("a@x.example");
        let mut old = open(&location, &SCHEMA[..versions]).await.unwrap();
        let content = ContactContent { subject: "s".into(), ..Default::default() };
        let version_1 = VERSION_1.replace("{content}", &HEXLOWER.encode(&content.encode_to_vec()));
        old.writer.execute(AssertSqlSafe(version_1.replace("{mailbox}", uid.as_str()))).await.unwrap();
        old.start(1, "test").close().await;

        let ledger = Sqlite::open(&location).await.unwrap();
        assert_eq!(ledger.id(), "0198c0ffee0198c0ffee0198c0ffee00");
        let contacts = ledger.contacts(&ContactFilter::default(), None, 10).await.unwrap();
        assert_eq!(contacts.rows.iter().map(|(_, contact)| contact.id.as_str()).collect::<Vec<_>>(), ["c1", "c2"]);
        let aside = ledger.message(3).await.unwrap().unwrap();
        assert_eq!((aside.reason.as_str(), aside.limit_bytes, aside.attempt_count), ("it has 99", 0, 0));
        let record = ledger.mailboxes(std::slice::from_ref(&uid)).await.unwrap().remove(0);
        assert_eq!((record.message_count, record.contact_count, record.too_large_count), (3, 2, 1));
        let tally = ledger.tally().await.unwrap();
        assert_eq!(tally.instances[0].contacts, [(ContactState::Queued, 1), (ContactState::Accepted, 1)]);
        assert_eq!(ledger.cursor(&uid).await.unwrap().value, [1]);
        // Its folder is numbered anew now: by time and size, and by headers.
        let fence = fence(7, "s1");
        // Version 7 and later write it down themselves, which these rows did not.
        let since = (versions < 7).then_some(100);
        assert_eq!(ledger.open(&uid, &fence).await.unwrap().unwrap().reading_since, since);
        let bare = Sought { received_at: Some(5), size_bytes: 3, ..Sought::default() };
        let read = Sought { fingerprint: fingerprint(&content), received_at: Some(6), ..Sought::default() };
        let known = ledger.known(&uid, &fence, 1, vec![read, bare.clone(), bare]).await.unwrap();
        assert_eq!(known, Ok(vec![Some(2), Some(1), None]));
        ledger.close().await;
    }
}

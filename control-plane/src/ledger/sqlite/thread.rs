//! Which thread new contacts belong to, among the contacts of their own instance and what it replied to them. See
//! [`crate::contact::thread`].

use std::collections::HashMap;

use postroom_proto::v1::ContactContent;
use sqlx::{QueryBuilder, Row as _, Sqlite, SqliteConnection};

use super::ROWS;
use crate::contact::thread::{hints, key};

/// What is known of the conversation of a contact.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    /// Key of its Message-ID.
    pub(super) message_key: Option<i64>,
    /// Id of the contact the thread began with. `None`: itself.
    pub(super) thread: Option<String>,
}

/// The places of new contacts, given with their ids in the order of their intake.
///
/// Cost: two looks into an index for each hint, at most [`MOST_HINTS`](crate::contact::thread::MOST_HINTS) a contact;
/// none for mail that answers nothing.
pub(super) async fn places(
    connection: &mut SqliteConnection,
    instance_uid: &str,
    contacts: &[(&str, Option<&ContactContent>)],
) -> Result<Vec<Place>, sqlx::Error> {
    let hinted: Vec<Vec<i64>> = contacts.iter().map(|(_, content)| content.map(hints).unwrap_or_default()).collect();
    let mut wanted: Vec<i64> = hinted.iter().flatten().copied().collect();
    wanted.sort_unstable();
    wanted.dedup();
    let mut threads = HashMap::new();
    for chunk in wanted.chunks(ROWS) {
        look_up(connection, instance_uid, chunk, &mut threads).await?;
    }
    let mut places = Vec::with_capacity(contacts.len());
    for ((id, content), hints) in contacts.iter().zip(&hinted) {
        let message_key = content.and_then(|content| key(&content.message_id));
        let thread = hints.iter().find_map(|hint| threads.get(hint)).cloned();
        // Of several contacts with the same Message-ID the newest is meant.
        if let Some(key) = message_key {
            threads.insert(key, thread.clone().unwrap_or_else(|| (*id).to_owned()));
        }
        places.push(Place { message_key, thread });
    }
    Ok(places)
}

/// The thread of the newest contact of each key, or of the contact that the mail of this key was a reply to.
async fn look_up(
    connection: &mut SqliteConnection,
    instance_uid: &str,
    keys: &[i64],
    threads: &mut HashMap<i64, String>,
) -> Result<(), sqlx::Error> {
    let mut select = QueryBuilder::<Sqlite>::new("WITH wanted (key) AS (");
    select.push_values(keys, |mut row, key| {
        row.push_bind(*key);
    });
    select.push(
        ") SELECT key, coalesce((SELECT coalesce(thread, id) FROM contact INDEXED BY contact_message_key
         WHERE message_key = key AND instance_uid = ",
    );
    select.push_bind(instance_uid);
    select.push(
        " ORDER BY message DESC LIMIT 1), (SELECT coalesce(contact.thread, contact.id)
         FROM outbox INDEXED BY outbox_message_key JOIN contact ON contact.id = outbox.contact
         WHERE outbox.contact <> '' AND outbox.message_key = key AND contact.instance_uid = ",
    );
    select.push_bind(instance_uid);
    select.push(" LIMIT 1)) AS thread FROM wanted");
    for row in select.build().fetch_all(connection).await? {
        if let Some(thread) = row.try_get("thread")? {
            threads.insert(row.try_get("key")?, thread);
        }
    }
    Ok(())
}

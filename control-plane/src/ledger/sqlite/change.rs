//! The sequence of changes of contacts: appended by whoever changes one, in the same transaction, and read by watchers.

use sqlx::{FromRow as _, QueryBuilder, Row as _, Sqlite, SqliteConnection, SqlitePool};

use super::super::{ContactChange, ContactChanges};
use super::ROWS;
use super::row::{CONTACT, ContactRow, int, uint};
use super::sequence::Sequence;

/// The sequence.
pub(super) const CONTACTS: Sequence = Sequence("contact_change");

/// Records that these contacts have changed.
pub(super) async fn record(connection: &mut SqliteConnection, messages: &[i64]) -> Result<(), sqlx::Error> {
    for chunk in messages.chunks(ROWS) {
        let mut insert = QueryBuilder::<Sqlite>::new("INSERT INTO contact_change (message) ");
        insert.push_values(chunk, |mut row, message| {
            row.push_bind(*message);
        });
        insert.build().execute(&mut *connection).await?;
    }
    Ok(())
}

/// Records that an instance has a contact no more.
pub(super) async fn record_left(
    connection: &mut SqliteConnection,
    message: i64,
    instance_uid: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT INTO contact_change (message, left_instance) VALUES (?, ?)")
        .bind(message)
        .bind(instance_uid)
        .execute(connection)
        .await?;
    Ok(())
}

/// What comes behind `after`, of an instance or of all, looking at `window` changes at most. `None`: what came behind it
/// has been cut off, or it was never reached here.
pub(super) async fn changes(
    readers: &SqlitePool,
    instance_uid: Option<&str>,
    after: u64,
    window: u32,
) -> Result<Option<ContactChanges>, sqlx::Error> {
    let (oldest, newest) = CONTACTS.ends(readers).await?;
    let after = int(after);
    if after > newest || after.saturating_add(1) < oldest {
        return Ok(None);
    }
    let upto = newest.min(after.saturating_add(i64::from(window)));
    let mut changes = ContactChanges { changes: Vec::new(), upto: uint(upto), newest: uint(newest) };
    if upto == after {
        return Ok(Some(changes));
    }
    // Of the columns beside max() SQLite takes those of the row that has the maximum.
    let mut select = QueryBuilder::<Sqlite>::new(format!(
        "SELECT max(revision) AS revision, left_instance IS NOT NULL AS gone, {CONTACT}, content, NULL AS text
         FROM contact_change JOIN contact ON contact.message = contact_change.message
         LEFT JOIN body ON body.message = contact.message WHERE revision > "
    ));
    select.push_bind(after).push(" AND revision <= ").push_bind(upto);
    match instance_uid {
        None => select.push(" AND left_instance IS NULL"),
        Some(instance) => select
            .push(" AND (left_instance = ")
            .push_bind(instance)
            .push(" OR (left_instance IS NULL AND instance_uid = ")
            .push_bind(instance)
            .push("))"),
    };
    select.push(" GROUP BY contact_change.message, left_instance ORDER BY 1");
    let rows = select.build().fetch_all(readers).await?;
    for row in &rows {
        changes.changes.push(ContactChange {
            revision: uint(row.try_get("revision")?),
            left: row.try_get("gone")?,
            contact: ContactRow::from_row(row)?.contact()?,
        });
    }
    // A trimming in between would have cut off what was to be read.
    let (oldest, _) = CONTACTS.ends(readers).await?;
    Ok((after.saturating_add(1) >= oldest).then_some(changes))
}

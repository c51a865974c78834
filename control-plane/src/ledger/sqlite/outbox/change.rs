//! The sequence of changes of mails: appended by the database itself, and read by watchers. As that of contacts (see
//! `ledger/sqlite/change.rs`), but that a mail never leaves its instance.

use sqlx::{FromRow as _, QueryBuilder, Row as _, Sqlite, SqlitePool};

use super::super::super::outbox::MailChanges;
use super::super::row::{int, uint};
use super::super::sequence::Sequence;
use super::row::{MAIL, MailRow};

/// The sequence.
pub(super) const MAILS: Sequence = Sequence("outbox_change");

/// What comes behind `after`, of an instance or of all, looking at `window` changes at most. `None`: what came behind it
/// has been cut off, or it was never reached here.
pub(super) async fn changes(
    readers: &SqlitePool,
    instance_uid: Option<&str>,
    after: u64,
    window: u32,
) -> Result<Option<MailChanges>, sqlx::Error> {
    let (oldest, newest) = MAILS.ends(readers).await?;
    let after = int(after);
    if after > newest || after.saturating_add(1) < oldest {
        return Ok(None);
    }
    let upto = newest.min(after.saturating_add(i64::from(window)));
    let mut changes = MailChanges { changes: Vec::new(), upto: uint(upto), newest: uint(newest) };
    if upto == after {
        return Ok(Some(changes));
    }
    // Of the columns beside max() SQLite takes those of the row that has the maximum.
    let mut select = QueryBuilder::<Sqlite>::new(format!(
        "SELECT max(revision) AS revision, {MAIL} FROM outbox_change JOIN outbox ON outbox.id = outbox_change.outbox
         WHERE revision > "
    ));
    select.push_bind(after).push(" AND revision <= ").push_bind(upto);
    if let Some(instance) = instance_uid {
        select.push(" AND instance_uid = ").push_bind(instance);
    }
    select.push(" GROUP BY outbox_change.outbox ORDER BY 1");
    for row in &select.build().fetch_all(readers).await? {
        changes.changes.push((uint(row.try_get("revision")?), MailRow::from_row(row)?.0));
    }
    // A trimming in between would have cut off what was to be read.
    let (oldest, _) = MAILS.ends(readers).await?;
    Ok((after.saturating_add(1) >= oldest).then_some(changes))
}

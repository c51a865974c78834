//! Lists of contacts. Whatever the backlog, a page costs what it shows: rows are read out of an index in the order of
//! the list, one stretch after the other, where a stretch is what an index holds together.

use postroom_proto::v1::{self, ContactState};
use sqlx::{QueryBuilder, Sqlite, SqlitePool};

use super::super::{ContactFilter, ContactPage, ContactPosition};
use super::row::{CONTACT, ContactRow};

/// States in the order of the list.
const STATES: [ContactState; 5] =
    [ContactState::Queued, ContactState::Allocated, ContactState::Accepted, ContactState::Ended, ContactState::Dead];
/// Rows that are read at a time where they are looked through one by one.
const CHUNK: usize = 500;
/// Most rows that are looked through for one page. A page that is short for that reason says where to go on.
const EXAMINED: usize = 20_000;

/// A page of the contacts that pass, from behind `after`.
pub(super) async fn contacts(
    readers: &SqlitePool,
    filter: &ContactFilter,
    after: Option<&ContactPosition>,
    limit: usize,
) -> Result<ContactPage, sqlx::Error> {
    let mut page = ContactPage::default();
    let mut left = Left { rows: limit, examined: EXAMINED, last: after.cloned() };
    // Within a queue or a thread the order does not begin with the instance.
    if filter.queue_uid.is_some() || filter.thread.is_some() || filter.instance_uid.is_some() {
        stretches(readers, filter, after, &mut left, &mut page).await?;
        return Ok(page);
    }
    let mut instance = match after {
        Some(after) => Some(after.instance_uid.clone()),
        None => next_instance(readers, "").await?,
    };
    while let Some(uid) = instance {
        let after = after.filter(|after| after.instance_uid == uid);
        let narrowed = ContactFilter { instance_uid: Some(uid.clone()), ..filter.clone() };
        if stretches(readers, &narrowed, after, &mut left, &mut page).await? {
            return Ok(page);
        }
        instance = next_instance(readers, &uid).await?;
    }
    Ok(page)
}

/// What a page may still take.
struct Left {
    rows: usize,
    examined: usize,
    /// The last row that was looked at, over all stretches.
    last: Option<ContactPosition>,
}

async fn next_instance(readers: &SqlitePool, behind: &str) -> Result<Option<String>, sqlx::Error> {
    sqlx::query_scalar("SELECT min(instance_uid) FROM contact INDEXED BY contact_order WHERE instance_uid > ?")
        .bind(behind)
        .fetch_one(readers)
        .await
}

/// Fills the page with one state after the other. True: it is full.
async fn stretches(
    readers: &SqlitePool,
    filter: &ContactFilter,
    after: Option<&ContactPosition>,
    left: &mut Left,
    page: &mut ContactPage,
) -> Result<bool, sqlx::Error> {
    let wanted = STATES.into_iter().filter(|state| filter.state.is_none_or(|only| only == *state));
    for state in wanted.filter(|state| after.is_none_or(|after| order(after.state) <= order(*state as i32))) {
        let mut behind = after.filter(|after| after.state == state as i32).cloned();
        loop {
            let chunk = if filter.sender.is_empty() { left.rows + 1 } else { CHUNK };
            let rows = stretch(readers, filter, state, behind.as_ref(), chunk).await?;
            let ended = rows.len() < chunk;
            for row in rows {
                let place = row.position();
                if left.rows == 0 || left.examined == 0 {
                    // Of what passes there is at least one more, or nobody knows yet.
                    page.next = left.last.take();
                    return Ok(true);
                }
                left.examined -= 1;
                let contact = row.contact()?;
                if filter.sender.is_empty() || is_from(&contact, &filter.sender) {
                    left.rows -= 1;
                    page.rows.push((place.clone(), contact));
                }
                left.last = Some(place.clone());
                behind = Some(place);
            }
            if ended {
                break;
            }
        }
    }
    Ok(false)
}

/// The next rows of one state in the order of their keys.
async fn stretch(
    readers: &SqlitePool,
    filter: &ContactFilter,
    state: ContactState,
    behind: Option<&ContactPosition>,
    limit: usize,
) -> Result<Vec<ContactRow>, sqlx::Error> {
    let mut select = QueryBuilder::<Sqlite>::new(format!("SELECT {CONTACT}, content, NULL AS text FROM contact "));
    let join = " LEFT JOIN body ON body.message = contact.message WHERE state = ";
    match (&filter.thread, &filter.queue_uid) {
        (Some(thread), _) => {
            select.push(join).push_bind(state as i32);
            select.push(" AND contact.message IN (SELECT message FROM contact WHERE thread = ").push_bind(thread);
            select.push(" UNION ALL SELECT message FROM contact WHERE id = ").push_bind(thread);
            select.push(" AND thread IS NULL)");
            if let Some(queue) = &filter.queue_uid {
                select.push(" AND queue_uid = ").push_bind(queue);
            }
        }
        (None, Some(queue)) => {
            select.push("INDEXED BY contact_queue").push(join).push_bind(state as i32);
            select.push(" AND queue_uid = ").push_bind(queue);
        }
        (None, None) => {
            select.push("INDEXED BY contact_order").push(join).push_bind(state as i32);
        }
    }
    if let Some(instance) = &filter.instance_uid {
        select.push(" AND instance_uid = ").push_bind(instance);
    }
    if let Some(priority) = filter.priority {
        select.push(" AND priority = ").push_bind(priority);
    }
    if let Some(address) = &filter.address {
        select.push(" AND address = ").push_bind(address);
    }
    if let Some(kind) = filter.kind {
        select.push(" AND kind = ").push_bind(kind as i32);
    }
    if let Some(since) = filter.received_since {
        select.push(" AND waiting_since >= ").push_bind(since);
    }
    if let Some(until) = filter.received_until {
        select.push(" AND waiting_since < ").push_bind(until);
    }
    if let Some(behind) = behind {
        select.push(" AND (priority, waiting_since, contact.message) > (");
        let mut place = select.separated(", ");
        place.push_bind(behind.priority).push_bind(behind.waiting_since).push_bind(behind.message);
        select.push(")");
    }
    select.push(" ORDER BY priority, waiting_since, contact.message LIMIT ");
    select.push_bind(i64::try_from(limit).unwrap_or(i64::MAX));
    select.build_query_as().fetch_all(readers).await
}

fn order(state: i32) -> usize {
    STATES.iter().position(|known| *known as i32 == state).unwrap_or(STATES.len())
}

fn is_from(contact: &v1::Contact, text: &str) -> bool {
    let from = contact.content.iter().flat_map(|content| &content.from);
    from.into_iter().any(|it| it.name.to_lowercase().contains(text) || it.address.to_lowercase().contains(text))
}

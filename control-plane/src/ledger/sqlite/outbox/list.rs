//! Lists of mails, newest first, and what is counted of them.
//!
//! A page is put together of stretches, each a walk along one index: one for each state, or one for each of the two ways
//! in which an address is part of a mail.

use postroom_proto::v1::OutboxState;
use sqlx::{AssertSqlSafe, QueryBuilder, Sqlite, SqlitePool};

use super::super::super::Micros;
use super::super::super::outbox::{COUNTED, Mail, MailFilter, Trouble};
use super::super::row::{int, uint};
use super::row::{MAIL, MailRow, state};

const STATES: [OutboxState; 6] = [
    OutboxState::Queued,
    OutboxState::Sending,
    OutboxState::Sent,
    OutboxState::Unknown,
    OutboxState::Failed,
    OutboxState::Bounced,
];

/// One walk along an index.
enum Stretch<'f> {
    Contact(&'f str),
    To(&'f str),
    From(&'f str),
    State(OutboxState),
}

/// Mails that pass, from before row `before`, without their recipients.
pub(super) async fn mails(
    readers: &SqlitePool,
    filter: &MailFilter,
    before: Option<i64>,
    limit: usize,
) -> Result<Vec<Mail>, sqlx::Error> {
    let stretches: Vec<Stretch<'_>> = match (&filter.contact, &filter.address) {
        (Some(contact), _) => vec![Stretch::Contact(contact)],
        (None, Some(address)) => vec![Stretch::To(address), Stretch::From(address)],
        (None, None) if filter.states.is_empty() => STATES.into_iter().map(Stretch::State).collect(),
        (None, None) => filter.states.iter().copied().map(Stretch::State).collect(),
    };
    let mut found = Vec::new();
    for stretch in &stretches {
        found.extend(walk(readers, filter, stretch, before, limit).await?);
    }
    found.sort_by_key(|mail| std::cmp::Reverse(mail.row));
    found.dedup_by_key(|mail| mail.row);
    found.truncate(limit);
    Ok(found)
}

async fn walk(
    readers: &SqlitePool,
    filter: &MailFilter,
    stretch: &Stretch<'_>,
    before: Option<i64>,
    limit: usize,
) -> Result<Vec<Mail>, sqlx::Error> {
    let from = match stretch {
        Stretch::Contact(_) => "outbox INDEXED BY outbox_contact WHERE contact <> '' AND contact = ",
        Stretch::To(_) => {
            "outbox_recipient INDEXED BY outbox_recipient_address
             CROSS JOIN outbox ON outbox.id = outbox_recipient.outbox WHERE address_key = "
        }
        Stretch::From(_) => "outbox INDEXED BY outbox_from WHERE from_key = ",
        Stretch::State(_) if filter.instance_uid.is_some() => "outbox INDEXED BY outbox_instance WHERE outbox.state = ",
        Stretch::State(_) => "outbox INDEXED BY outbox_state WHERE outbox.state = ",
    };
    let mut select = QueryBuilder::<Sqlite>::new(format!("SELECT {MAIL} FROM {from}"));
    match stretch {
        Stretch::Contact(text) | Stretch::To(text) | Stretch::From(text) => select.push_bind((*text).to_owned()),
        Stretch::State(state) => select.push_bind(*state as i32),
    };
    if let Some(instance) = &filter.instance_uid {
        select.push(" AND instance_uid = ").push_bind(instance);
    }
    if !matches!(stretch, Stretch::State(_)) && !filter.states.is_empty() {
        select.push(" AND outbox.state IN (");
        let mut list = select.separated(", ");
        for state in &filter.states {
            list.push_bind(*state as i32);
        }
        select.push(")");
    }
    if let (Stretch::Contact(_), Some(address)) = (stretch, &filter.address) {
        select.push(" AND (from_key = ").push_bind(address);
        select.push(" OR EXISTS (SELECT 1 FROM outbox_recipient WHERE outbox = outbox.id AND address_key = ");
        select.push_bind(address).push("))");
    }
    // A mail has an address once, so its rows there are in the order of mails.
    let order = if matches!(stretch, Stretch::To(_)) { "outbox_recipient.outbox" } else { "outbox.id" };
    if let Some(before) = before {
        select.push(format!(" AND {order} < ")).push_bind(before);
    }
    select.push(format!(" ORDER BY {order} DESC LIMIT ")).push_bind(int(limit as u64));
    let rows: Vec<MailRow> = select.build_query_as().fetch_all(readers).await?;
    Ok(rows.into_iter().map(|row| row.0).collect())
}

/// How many mails each instance has in each state.
pub(super) async fn tally(readers: &SqlitePool) -> Result<Vec<(String, OutboxState, u64)>, sqlx::Error> {
    let rows: Vec<(String, i32, i64)> =
        sqlx::query_as("SELECT instance_uid, state, count FROM outbox_tally WHERE count > 0 ORDER BY 1, 2")
            .fetch_all(readers)
            .await?;
    Ok(rows.into_iter().map(|(instance, number, count)| (instance, state(number), uint(count))).collect())
}

/// What went wrong since then.
pub(super) async fn trouble(readers: &SqlitePool, since: Micros) -> Result<Trouble, sqlx::Error> {
    let unknown: i64 = sqlx::query_scalar("SELECT coalesce(sum(count), 0) FROM outbox_tally WHERE state = 4")
        .fetch_one(readers)
        .await?;
    let query = format!(
        "SELECT count(*) FROM (SELECT 1 FROM outbox INDEXED BY outbox_trouble
         WHERE state = 5 AND state IN (4, 5) AND changed_at >= ? LIMIT {COUNTED})"
    );
    let failed: i64 = sqlx::query_scalar(AssertSqlSafe(query)).bind(since).fetch_one(readers).await?;
    Ok(Trouble { unknown: uint(unknown), failed: uint(failed) })
}

//! Handing contacts out, and putting back what was not accepted in time. The order stands in
//! [`crate::contact::allocation`].

use postroom_proto::v1;
use sqlx::{AssertSqlSafe, QueryBuilder, Sqlite, SqliteConnection};

use super::super::{Allocated, Micros, Take};
use super::change;
use super::row::{CONTACT, ContactRow};
use crate::contact::allocation::{Key, MOST_REFUSALS, best};
use crate::definition::model::Allocation;

/// Most bytes of what contacts say in one answer: with the rest it fits 4 MiB, which is what gRPC clients take unless
/// they are told otherwise. The largest single contact is smaller.
const LARGEST_ANSWER: i64 = 3 * 1024 * 1024;
/// What a contact needs besides what it says.
const OVERHEAD: i64 = 1024;
/// How long a repeated request is known: a day.
const KNOWN_FOR: Micros = 24 * 3600 * 1_000_000;

/// Hands out the best waiting contacts of an instance, best first.
pub(super) async fn allocate(
    connection: &mut SqliteConnection,
    take: Take,
    now: Micros,
) -> Result<Allocated, sqlx::Error> {
    if known(connection, &take).await? {
        return Ok(Allocated { contacts: held(connection, &take, now).await?, put_back: false });
    }
    // Ordering: put back first, so that a contact whose deadline has just passed takes part at its old place.
    let put_back = !lapse(connection, Some(&take.instance_uid), now).await?.is_empty();
    let waiting = match take.policy {
        Allocation::Strict => strict(connection, &take).await?,
        Allocation::TargetTime => target_time(connection, &take, now).await?,
    };
    let messages = fitting(waiting);
    if messages.is_empty() {
        return Ok(Allocated { contacts: Vec::new(), put_back });
    }
    hand_out(connection, &take, &messages, now).await?;
    change::record(connection, &messages).await?;
    sqlx::query("DELETE FROM allocation WHERE made_at < ?")
        .bind(now.saturating_sub(KNOWN_FOR))
        .execute(&mut *connection)
        .await?;
    sqlx::query("INSERT INTO allocation (request_id, instance_uid, made_at) VALUES (?, ?, ?)")
        .bind(&take.request_id)
        .bind(&take.instance_uid)
        .bind(now)
        .execute(&mut *connection)
        .await?;
    Ok(Allocated { contacts: held(connection, &take, now).await?, put_back })
}

/// The best by the index itself; each with the bytes of what it says.
async fn strict(connection: &mut SqliteConnection, take: &Take) -> Result<Vec<(i64, i64)>, sqlx::Error> {
    sqlx::query_as(
        "SELECT contact.message, coalesce(length(content), 0) + coalesce(length(text), 0)
         FROM contact INDEXED BY contact_order LEFT JOIN body ON body.message = contact.message
         WHERE instance_uid = ? AND state = 1 ORDER BY priority, waiting_since, contact.message LIMIT ?",
    )
    .bind(&take.instance_uid)
    .bind(i64::from(take.max))
    .fetch_all(connection)
    .await
}

/// Within one priority the longest waiting is always first, so the best of all are among the first of each priority:
/// the cost grows with the number of priorities, and not with the backlog.
async fn target_time(
    connection: &mut SqliteConnection,
    take: &Take,
    now: Micros,
) -> Result<Vec<(i64, i64)>, sqlx::Error> {
    let mut waiting = Vec::new();
    let mut last = -1;
    while let Some(priority) = next_priority(connection, &take.instance_uid, last).await? {
        let first: Vec<(Micros, i64)> = sqlx::query_as(
            "SELECT waiting_since, message FROM contact INDEXED BY contact_order
             WHERE instance_uid = ? AND state = 1 AND priority = ? ORDER BY waiting_since, message LIMIT ?",
        )
        .bind(&take.instance_uid)
        .bind(priority)
        .bind(i64::from(take.max))
        .fetch_all(&mut *connection)
        .await?;
        let key = |(waiting_since, message)| Key {
            priority: u32::try_from(priority).unwrap_or(u32::MAX),
            waiting_since,
            message,
        };
        waiting.extend(first.into_iter().map(key));
        last = priority;
    }
    let mut sized = Vec::with_capacity(take.max as usize);
    for key in best(waiting, take.policy, now, take.max as usize) {
        let bytes: Option<i64> = sqlx::query_scalar(
            "SELECT coalesce(length(content), 0) + coalesce(length(text), 0) FROM body WHERE message = ?",
        )
        .bind(key.message)
        .fetch_optional(&mut *connection)
        .await?;
        sized.push((key.message, bytes.unwrap_or(0)));
    }
    Ok(sized)
}

async fn next_priority(
    connection: &mut SqliteConnection,
    instance_uid: &str,
    last: i64,
) -> Result<Option<i64>, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT min(priority) FROM contact INDEXED BY contact_order WHERE instance_uid = ? AND state = 1 AND priority > ?",
    )
    .bind(instance_uid)
    .bind(last)
    .fetch_one(connection)
    .await
}

/// As many as fit into an answer, but one at least.
fn fitting(waiting: Vec<(i64, i64)>) -> Vec<i64> {
    let mut bytes = 0;
    let fitting = waiting.into_iter().enumerate().take_while(|(number, (_, size))| {
        bytes += size + OVERHEAD;
        *number == 0 || bytes <= LARGEST_ANSWER
    });
    fitting.map(|(_, (message, _))| message).collect()
}

async fn hand_out(
    connection: &mut SqliteConnection,
    take: &Take,
    messages: &[i64],
    now: Micros,
) -> Result<(), sqlx::Error> {
    let mut update = QueryBuilder::<Sqlite>::new("UPDATE contact SET state = 2, request_id = ");
    update.push_bind(&take.request_id).push(", allocated_at = ").push_bind(now);
    update.push(", deadline_at = ").push_bind(now.saturating_add(take.accept_within)).push(" WHERE message IN (");
    let mut list = update.separated(", ");
    for message in messages {
        list.push_bind(*message);
    }
    update.push(")");
    update.build().execute(connection).await?;
    Ok(())
}

async fn known(connection: &mut SqliteConnection, take: &Take) -> Result<bool, sqlx::Error> {
    let made: Option<i64> = sqlx::query_scalar("SELECT made_at FROM allocation WHERE request_id = ?")
        .bind(&take.request_id)
        .fetch_optional(connection)
        .await?;
    Ok(made.is_some())
}

/// What a request still holds, in the order in which it was handed out.
async fn held(connection: &mut SqliteConnection, take: &Take, now: Micros) -> Result<Vec<v1::Contact>, sqlx::Error> {
    let query = format!(
        "SELECT {CONTACT}, content, text FROM contact LEFT JOIN body ON body.message = contact.message
         WHERE state = 2 AND request_id = ? AND instance_uid = ? AND deadline_at > ?"
    );
    let mut rows: Vec<ContactRow> = sqlx::query_as(AssertSqlSafe(query))
        .bind(&take.request_id)
        .bind(&take.instance_uid)
        .bind(now)
        .fetch_all(connection)
        .await?;
    // By the time of the allocation and not of this call, so that a repeated request gets them in the same order.
    rows.sort_by(|a, b| a.key().compare(&b.key(), take.policy, a.allocated_at.unwrap_or(now)));
    rows.into_iter().map(ContactRow::contact).collect()
}

/// Puts back what was not accepted in time, of one instance or of all; the instances concerned.
pub(super) async fn lapse(
    connection: &mut SqliteConnection,
    instance_uid: Option<&str>,
    now: Micros,
) -> Result<Vec<String>, sqlx::Error> {
    let lapsed: Vec<(i64, String)> = sqlx::query_as(AssertSqlSafe(format!(
        "UPDATE contact SET {} WHERE state = 2 AND deadline_at <= ?1 AND (?2 IS NULL OR instance_uid = ?2)
         RETURNING message, instance_uid",
        refusal("?1")
    )))
    .bind(now)
    .bind(instance_uid)
    .fetch_all(&mut *connection)
    .await?;
    let (messages, mut instances): (Vec<i64>, Vec<String>) = lapsed.into_iter().unzip();
    change::record(connection, &messages).await?;
    instances.sort();
    instances.dedup();
    Ok(instances)
}

/// What a refusal writes, in the terms of [`crate::contact::allocation::refuse`]. `now` is the place of its value.
pub(super) fn refusal(now: &str) -> String {
    format!(
        "state = CASE WHEN refusal_count + 1 >= {MOST_REFUSALS} THEN 5 ELSE 1 END,
         closed_at = CASE WHEN refusal_count + 1 >= {MOST_REFUSALS} THEN {now} ELSE NULL END,
         request_id = NULL, allocated_at = NULL, deadline_at = NULL, refusal_count = refusal_count + 1"
    )
}

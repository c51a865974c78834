//! Handing contacts out, and taking the answers. What is decided stands in [`crate::contact::allocation`].

use postroom_proto::v1::{self, ContactState};
use sqlx::{AssertSqlSafe, QueryBuilder, Sqlite, SqliteConnection};

use super::super::{Allocated, Answer, AnswerOutcome, Answered, Micros, Take};
use super::row::{CONTACT, ContactRow};
use crate::contact::allocation::{Custody, Effect, Refused, accept, reject};

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
    let messages = best(connection, &take).await?;
    if messages.is_empty() {
        return Ok(Allocated { contacts: Vec::new(), put_back });
    }
    hand_out(connection, &take, &messages, now).await?;
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

/// The best waiting contacts, as many as were asked for and fit into an answer, but one at least.
async fn best(connection: &mut SqliteConnection, take: &Take) -> Result<Vec<i64>, sqlx::Error> {
    let waiting: Vec<(i64, i64)> = sqlx::query_as(
        "SELECT contact.message, coalesce(length(content), 0) + coalesce(length(text), 0) FROM contact
         LEFT JOIN body ON body.message = contact.message
         WHERE instance_uid = ? AND state = 1 ORDER BY priority, waiting_since, contact.message LIMIT ?",
    )
    .bind(&take.instance_uid)
    .bind(i64::from(take.max))
    .fetch_all(connection)
    .await?;
    let mut bytes = 0;
    let fitting = waiting.into_iter().enumerate().take_while(|(number, (_, size))| {
        bytes += size + OVERHEAD;
        *number == 0 || bytes <= LARGEST_ANSWER
    });
    Ok(fitting.map(|(_, (message, _))| message).collect())
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

/// What a request still holds, best first.
async fn held(connection: &mut SqliteConnection, take: &Take, now: Micros) -> Result<Vec<v1::Contact>, sqlx::Error> {
    let query = format!(
        "SELECT {CONTACT}, content, text FROM contact LEFT JOIN body ON body.message = contact.message
         WHERE state = 2 AND request_id = ? AND instance_uid = ? AND deadline_at > ?
         ORDER BY priority, waiting_since, contact.message"
    );
    let rows: Vec<ContactRow> = sqlx::query_as(AssertSqlSafe(query))
        .bind(&take.request_id)
        .bind(&take.instance_uid)
        .bind(now)
        .fetch_all(connection)
        .await?;
    rows.into_iter().map(ContactRow::contact).collect()
}

/// Puts back what was not accepted in time, of one instance or of all; the instances concerned.
pub(super) async fn lapse(
    connection: &mut SqliteConnection,
    instance_uid: Option<&str>,
    now: Micros,
) -> Result<Vec<String>, sqlx::Error> {
    let mut instances: Vec<String> = sqlx::query_scalar(
        "UPDATE contact SET state = 1, request_id = NULL, allocated_at = NULL, deadline_at = NULL,
         refusal_count = refusal_count + 1 WHERE state = 2 AND deadline_at <= ?1
           AND (?2 IS NULL OR instance_uid = ?2)
         RETURNING instance_uid",
    )
    .bind(now)
    .bind(instance_uid)
    .fetch_all(connection)
    .await?;
    instances.sort();
    instances.dedup();
    Ok(instances)
}

/// Accepts or rejects each of `contacts`.
pub(super) async fn answer(
    connection: &mut SqliteConnection,
    instance_uid: String,
    answer: Answer,
    contacts: Vec<Answered>,
    now: Micros,
) -> Result<Vec<AnswerOutcome>, sqlx::Error> {
    let mut outcomes = Vec::with_capacity(contacts.len());
    let mut changed = Vec::new();
    for (id, request_id) in &contacts {
        let Some((message, custody)) = custody(connection, &instance_uid, id).await? else {
            outcomes.push(Err(Refused::Unknown));
            continue;
        };
        let effect = match answer {
            Answer::Accept => accept(&custody, request_id, now),
            Answer::Reject => reject(&custody, request_id),
        };
        outcomes.push(effect.map(|effect| match effect {
            Effect::Change(state) => {
                changed.push(message);
                state
            }
            Effect::Nothing(state) => state,
        }));
    }
    if !changed.is_empty() {
        write(connection, answer, &changed, now).await?;
    }
    Ok(outcomes)
}

async fn custody(
    connection: &mut SqliteConnection,
    instance_uid: &str,
    id: &str,
) -> Result<Option<(i64, Custody)>, sqlx::Error> {
    let row: Option<(i64, i32, Option<String>, Option<Micros>)> =
        sqlx::query_as("SELECT message, state, request_id, deadline_at FROM contact WHERE id = ? AND instance_uid = ?")
            .bind(id)
            .bind(instance_uid)
            .fetch_optional(connection)
            .await?;
    Ok(row.map(|(message, state, request_id, deadline_at)| {
        let state = ContactState::try_from(state).unwrap_or(ContactState::Unspecified);
        (message, Custody { state, request_id: request_id.unwrap_or_default(), deadline_at })
    }))
}

async fn write(
    connection: &mut SqliteConnection,
    answer: Answer,
    messages: &[i64],
    now: Micros,
) -> Result<(), sqlx::Error> {
    let mut update = QueryBuilder::<Sqlite>::new("UPDATE contact SET ");
    match answer {
        Answer::Accept => update.push("state = 3, deadline_at = NULL, accepted_at = ").push_bind(now),
        Answer::Reject => update.push(
            "state = 1, request_id = NULL, allocated_at = NULL, deadline_at = NULL, refusal_count = refusal_count + 1",
        ),
    };
    update.push(" WHERE message IN (");
    let mut list = update.separated(", ");
    for message in messages {
        list.push_bind(*message);
    }
    update.push(")");
    update.build().execute(connection).await?;
    Ok(())
}

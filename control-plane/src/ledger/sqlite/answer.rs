//! Taking the answers of instances. What is decided stands in [`crate::contact::allocation`].

use std::collections::BTreeMap;

use postroom_proto::v1::ContactState;
use sqlx::{QueryBuilder, Sqlite, SqliteConnection};

use super::super::{Answer, AnswerOutcome, Answered, Micros};
use super::allocate::refusal;
use super::change;
use crate::contact::allocation::{Custody, Effect, Refused, accept, end, extend, reject, requeue};

/// Takes an answer for each of `contacts`.
pub(super) async fn answer(
    connection: &mut SqliteConnection,
    instance_uid: String,
    answer: Answer,
    contacts: Vec<Answered>,
    now: Micros,
) -> Result<Vec<AnswerOutcome>, sqlx::Error> {
    let mut outcomes = Vec::with_capacity(contacts.len());
    let mut changed = Vec::new();
    let mut extended: BTreeMap<Micros, Vec<i64>> = BTreeMap::new();
    for (id, request_id) in &contacts {
        let Some((message, custody)) = custody(connection, &instance_uid, id).await? else {
            outcomes.push(AnswerOutcome::refused(Refused::Unknown, ContactState::Unspecified));
            continue;
        };
        let effect = match &answer {
            Answer::Accept => accept(&custody, request_id, now),
            Answer::Reject => reject(&custody, request_id),
            Answer::Extend(accept_within) => extend(&custody, request_id, *accept_within, now),
            Answer::End(_) => end(&custody, request_id),
            Answer::Requeue => requeue(&custody),
        };
        let standing = |state| AnswerOutcome { deadline_at: custody.deadline_at, ..AnswerOutcome::done(state) };
        outcomes.push(match effect {
            Ok(Effect::Change(state)) => {
                changed.push(message);
                AnswerOutcome::done(state)
            }
            Ok(Effect::Extend(deadline)) => {
                extended.entry(deadline).or_default().push(message);
                AnswerOutcome { deadline_at: Some(deadline), ..AnswerOutcome::done(custody.state) }
            }
            Ok(Effect::Nothing(state)) => standing(state),
            Err(why) => AnswerOutcome { refused: Some(why), ..standing(custody.state) },
        });
    }
    write(connection, &answer, &changed, now).await?;
    for (deadline, messages) in &extended {
        let mut update = QueryBuilder::<Sqlite>::new("UPDATE contact SET deadline_at = ");
        update.push_bind(deadline);
        of(&mut update, messages);
        update.build().execute(&mut *connection).await?;
        changed.extend(messages);
    }
    change::record(connection, &changed).await?;
    Ok(outcomes)
}

async fn custody(
    connection: &mut SqliteConnection,
    instance_uid: &str,
    id: &str,
) -> Result<Option<(i64, Custody)>, sqlx::Error> {
    type Row = (i64, i32, Option<String>, Option<Micros>, Option<Micros>, u32);
    let row: Option<Row> = sqlx::query_as(
        "SELECT message, state, request_id, allocated_at, deadline_at, refusal_count FROM contact
         WHERE id = ? AND instance_uid = ?",
    )
    .bind(id)
    .bind(instance_uid)
    .fetch_optional(connection)
    .await?;
    Ok(row.map(|(message, state, request_id, allocated_at, deadline_at, refusals)| {
        let state = ContactState::try_from(state).unwrap_or(ContactState::Unspecified);
        let request_id = request_id.unwrap_or_default();
        (message, Custody { state, request_id, allocated_at, deadline_at, refusals })
    }))
}

/// Writes the new state of each of `messages`.
async fn write(
    connection: &mut SqliteConnection,
    answer: &Answer,
    messages: &[i64],
    now: Micros,
) -> Result<(), sqlx::Error> {
    if messages.is_empty() {
        return Ok(());
    }
    let mut update = QueryBuilder::<Sqlite>::new("UPDATE contact SET ");
    match answer {
        Answer::Accept => update.push("state = 3, deadline_at = NULL, accepted_at = ").push_bind(now),
        Answer::Reject => update.push(refusal(&now.to_string())),
        Answer::End(outcome) => {
            update.push("state = 4, outcome = ").push_bind(outcome).push(", closed_at = ").push_bind(now)
        }
        Answer::Requeue => update.push("state = 1, closed_at = NULL, refusal_count = 0"),
        // It writes no state.
        Answer::Extend(_) => return Ok(()),
    };
    of(&mut update, messages);
    update.build().execute(connection).await?;
    Ok(())
}

fn of(update: &mut QueryBuilder<Sqlite>, messages: &[i64]) {
    update.push(" WHERE message IN (");
    let mut list = update.separated(", ");
    for message in messages {
        list.push_bind(*message);
    }
    update.push(")");
}

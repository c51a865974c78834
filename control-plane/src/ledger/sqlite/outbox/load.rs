//! What sending mailboxes have under way and behind them: counted anew from what stands, so that nothing can drift.

use std::collections::HashMap;

use postroom_proto::convert::to_timestamp;
use postroom_proto::v1::Problem;
use prost::Message as _;
use sqlx::{AssertSqlSafe, SqliteConnection, SqlitePool};

use super::super::super::Micros;
use super::super::ROWS;
use super::super::row::{int, uint};
use super::row::Under;
use crate::ledger::micros;
use crate::outbox::Terms;
use crate::outbox::allowance::{HOUR, HOURS, Load};
use crate::outbox::state::{MailboxWord, Toll};

const UNDER_WAY: &str = "SELECT sender, state, count(*), sum(pending_count) FROM outbox INDEXED BY outbox_claim
    WHERE deadline_at IS NOT NULL AND sender IN (";
const ENDED: &str = "SELECT sender, ended_at FROM outbox_attempt WHERE ended_at > ? AND sender IN (";
const HOURLY: &str = "SELECT sender, hour, recipients FROM outbox_hour WHERE hour > ? AND sender IN (";
const ALONE: &str = "SELECT sender, credentials, not_before FROM outbox_sender WHERE sender IN (";
const TURN: &str = "SELECT sender, max(turn) FROM outbox_turn WHERE sender IN (";

/// How long it is remembered how often in a row a sending mailbox was left alone.
const REMEMBERED: Micros = 48 * HOUR;

type UnderWay = (String, i32, i64, i64);

/// What these sending mailboxes have under way and behind them.
pub(super) async fn of(
    connection: &mut SqliteConnection,
    senders: &[impl AsRef<str>],
    terms: &Terms,
    now: Micros,
) -> Result<HashMap<String, Load>, sqlx::Error> {
    let mut loads: HashMap<String, Load> = HashMap::new();
    let minute = now.saturating_sub(micros(terms.minute));
    for chunk in senders.chunks(ROWS) {
        let marks = vec!["?"; chunk.len()].join(", ");
        let query = |before: &str, after: &str| AssertSqlSafe(format!("{before}{marks}) {after}"));
        macro_rules! rows {
            ($query:expr $(, $bound:expr)?) => {{
                let mut query = sqlx::query_as($query)$(.bind($bound))?;
                for sender in chunk {
                    query = query.bind(sender.as_ref());
                }
                query.fetch_all(&mut *connection).await?
            }};
        }
        let rows: Vec<UnderWay> = rows!(query(UNDER_WAY, "GROUP BY sender, state"));
        rows.into_iter().for_each(|row| take_under_way(loads.entry(row.0.clone()).or_default(), row));
        let rows: Vec<(String, Micros)> = rows!(query(ENDED, "ORDER BY sender, ended_at"), minute);
        rows.into_iter().for_each(|(sender, ended)| loads.entry(sender).or_default().ended.push(ended));
        let rows: Vec<(String, i64, i64)> = rows!(query(HOURLY, "ORDER BY sender, hour"), now.div_euclid(HOUR) - HOURS);
        rows.into_iter().for_each(|(sender, hour, n)| loads.entry(sender).or_default().hours.push((hour, uint(n))));
        let rows: Vec<(String, Vec<u8>, Micros)> = rows!(query(ALONE, ""));
        for (sender, credentials, until) in rows {
            loads.entry(sender).or_default().left_alone.push((credentials, until));
        }
        let rows: Vec<(String, i64)> = rows!(query(TURN, "GROUP BY sender"));
        rows.into_iter().for_each(|(sender, turn)| loads.entry(sender).or_default().turn = turn);
    }
    Ok(loads)
}

fn take_under_way(load: &mut Load, (_, state, count, recipients): UnderWay) {
    let count = u32::try_from(count).unwrap_or(u32::MAX);
    if state == postroom_proto::v1::OutboxState::Unknown as i32 {
        load.looking += count;
    } else {
        load.sending += count;
        load.sending_recipients += uint(recipients);
    }
}

/// An attempt that ended, and what that means.
pub(super) struct Charged<'a> {
    pub(super) under: &'a Under,
    pub(super) toll: Toll,
    /// What its worker complained of.
    pub(super) problem: Option<Problem>,
}

/// Writes what an attempt that ended means for the limits of its sending mailbox.
pub(super) async fn charge(
    connection: &mut SqliteConnection,
    charged: Charged<'_>,
    terms: &Terms,
    now: Micros,
) -> Result<(), sqlx::Error> {
    let Charged { under, toll, problem } = charged;
    let sender = under.sender.as_str();
    if toll.handed_over {
        sqlx::query("INSERT INTO outbox_attempt (sender, ended_at) VALUES (?, ?)")
            .bind(sender)
            .bind(now)
            .execute(&mut *connection)
            .await?;
        sqlx::query("DELETE FROM outbox_attempt WHERE sender = ? AND ended_at < ?")
            .bind(sender)
            .bind(now.saturating_sub(micros(terms.minute).saturating_mul(2)))
            .execute(&mut *connection)
            .await?;
    }
    if toll.recipients > 0 {
        let hour = now.div_euclid(HOUR);
        sqlx::query(
            "INSERT INTO outbox_hour VALUES (?, ?, ?) ON CONFLICT (sender, hour)
             DO UPDATE SET recipients = recipients + excluded.recipients",
        )
        .bind(sender)
        .bind(hour)
        .bind(int(toll.recipients))
        .execute(&mut *connection)
        .await?;
        sqlx::query("DELETE FROM outbox_hour WHERE sender = ? AND hour <= ?")
            .bind(sender)
            .bind(hour - HOURS)
            .execute(&mut *connection)
            .await?;
    }
    match toll.mailbox {
        MailboxWord::Nothing => {}
        MailboxWord::Works => {
            sqlx::query("DELETE FROM outbox_sender WHERE sender = ?").bind(sender).execute(connection).await?;
        }
        MailboxWord::LeaveAlone(until) => {
            let mut problem = problem.unwrap_or_default();
            (problem.since_time, problem.next_attempt_time) = (Some(to_timestamp(now)), Some(to_timestamp(until)));
            // Attempts that were under way together fail of the same, and count once.
            sqlx::query(
                "INSERT INTO outbox_sender VALUES (?1, ?2, ?3, ?4, 1, ?5) ON CONFLICT (sender, credentials)
                 DO UPDATE SET not_before = max(not_before, ?4), problem = ?5,
                 deferral_count = deferral_count + (decided_at <= ?6),
                 decided_at = CASE WHEN decided_at <= ?6 THEN ?3 ELSE decided_at END",
            )
            .bind(sender)
            .bind(&under.credentials)
            .bind(now)
            .bind(until)
            .bind(problem.encode_to_vec())
            .bind(under.claimed_at)
            .execute(connection)
            .await?;
        }
    }
    Ok(())
}

/// How often in a row its sending mailbox was left alone before an attempt.
pub(super) async fn deferrals(connection: &mut SqliteConnection, under: &Under) -> Result<u32, sqlx::Error> {
    let found: Option<u32> = sqlx::query_scalar(
        "SELECT max(deferral_count - (decided_at > ?), 0) FROM outbox_sender WHERE sender = ? AND credentials = ?",
    )
    .bind(under.claimed_at)
    .bind(&under.sender)
    .bind(&under.credentials)
    .fetch_optional(connection)
    .await?;
    Ok(found.unwrap_or(0))
}

/// Those that are left alone, each with why.
pub(super) async fn left_alone(
    readers: &SqlitePool,
    now: Micros,
) -> Result<HashMap<(String, Vec<u8>), Problem>, sqlx::Error> {
    let rows: Vec<(String, Vec<u8>, Vec<u8>)> =
        sqlx::query_as("SELECT sender, credentials, problem FROM outbox_sender WHERE not_before > ?")
            .bind(now)
            .fetch_all(readers)
            .await?;
    rows.into_iter().map(|(sender, credentials, bytes)| Ok(((sender, credentials), decode(&bytes)?))).collect()
}

fn decode(problem: &[u8]) -> Result<Problem, sqlx::Error> {
    Problem::decode(problem).map_err(|error| sqlx::Error::Decode(error.into()))
}

/// Leaves a sending mailbox alone no more: somebody who may says that it is worth a try.
pub(super) async fn try_again(connection: &mut SqliteConnection, sender: &str) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE outbox_sender SET not_before = 0 WHERE sender = ?").bind(sender).execute(connection).await?;
    Ok(())
}

/// Forgets what counts no more.
pub(super) async fn forget(connection: &mut SqliteConnection, terms: Terms, now: Micros) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM outbox_attempt WHERE ended_at < ?")
        .bind(now.saturating_sub(micros(terms.minute).saturating_mul(2)))
        .execute(&mut *connection)
        .await?;
    sqlx::query("DELETE FROM outbox_hour WHERE hour <= ?")
        .bind(now.div_euclid(HOUR) - HOURS)
        .execute(&mut *connection)
        .await?;
    sqlx::query("DELETE FROM outbox_sender WHERE max(not_before, decided_at) < ?")
        .bind(now.saturating_sub(REMEMBERED))
        .execute(connection)
        .await?;
    Ok(())
}

//! What sending mailboxes have under way and behind them: counted anew from what stands, so that nothing can drift.

use std::collections::HashMap;

use postroom_proto::v1::Problem;
use prost::Message as _;
use sqlx::{AssertSqlSafe, SqliteConnection, SqlitePool};

use super::super::super::Micros;
use super::super::row::{int, uint};
use crate::outbox::allowance::{HOUR, HOURS, Load};
use crate::outbox::state::{MailboxWord, Toll};
use crate::outbox::{Terms, micros};

const UNDER_WAY: &str = "SELECT sender, state, count(*), sum(pending_count) FROM outbox INDEXED BY outbox_claim
    WHERE deadline_at IS NOT NULL";
const ENDED: &str = "SELECT sender, ended_at FROM outbox_attempt WHERE ended_at > ";
const HOURLY: &str = "SELECT sender, hour, recipients FROM outbox_hour WHERE hour > ";
const ALONE: &str = "SELECT sender, not_before FROM outbox_sender WHERE not_before > ";

type UnderWay = (String, i32, i64, i64);

/// All of them, for a look.
pub(super) async fn all(
    readers: &SqlitePool,
    terms: &Terms,
    now: Micros,
) -> Result<HashMap<String, Load>, sqlx::Error> {
    let mut loads: HashMap<String, Load> = HashMap::new();
    let query = format!("{UNDER_WAY} GROUP BY sender, state");
    let rows: Vec<UnderWay> = sqlx::query_as(AssertSqlSafe(query)).fetch_all(readers).await?;
    rows.into_iter().for_each(|row| take_under_way(loads.entry(row.0.clone()).or_default(), row));
    let query = format!("{ENDED}? ORDER BY sender, ended_at");
    let rows: Vec<(String, Micros)> =
        sqlx::query_as(AssertSqlSafe(query)).bind(now.saturating_sub(micros(terms.minute))).fetch_all(readers).await?;
    rows.into_iter().for_each(|(sender, ended)| loads.entry(sender).or_default().ended.push(ended));
    let query = format!("{HOURLY}? ORDER BY sender, hour");
    let rows: Vec<(String, i64, i64)> =
        sqlx::query_as(AssertSqlSafe(query)).bind(now.div_euclid(HOUR) - HOURS).fetch_all(readers).await?;
    rows.into_iter().for_each(|(sender, hour, n)| loads.entry(sender).or_default().hours.push((hour, uint(n))));
    let query = format!("{ALONE}?");
    let rows: Vec<(String, Micros)> = sqlx::query_as(AssertSqlSafe(query)).bind(now).fetch_all(readers).await?;
    rows.into_iter().for_each(|(sender, until)| loads.entry(sender).or_default().not_before = Some(until));
    Ok(loads)
}

/// One of them, within the transaction that decides.
pub(super) async fn one(
    connection: &mut SqliteConnection,
    sender: &str,
    terms: &Terms,
    now: Micros,
) -> Result<Load, sqlx::Error> {
    let mut load = Load::default();
    let query = format!("{UNDER_WAY} AND sender = ? GROUP BY sender, state");
    let rows: Vec<UnderWay> = sqlx::query_as(AssertSqlSafe(query)).bind(sender).fetch_all(&mut *connection).await?;
    rows.into_iter().for_each(|row| take_under_way(&mut load, row));
    let query = format!("{ENDED}? AND sender = ? ORDER BY ended_at");
    let rows: Vec<(String, Micros)> = sqlx::query_as(AssertSqlSafe(query))
        .bind(now.saturating_sub(micros(terms.minute)))
        .bind(sender)
        .fetch_all(&mut *connection)
        .await?;
    load.ended = rows.into_iter().map(|(_, ended)| ended).collect();
    let query = format!("{HOURLY}? AND sender = ? ORDER BY hour");
    let rows: Vec<(String, i64, i64)> = sqlx::query_as(AssertSqlSafe(query))
        .bind(now.div_euclid(HOUR) - HOURS)
        .bind(sender)
        .fetch_all(&mut *connection)
        .await?;
    load.hours = rows.into_iter().map(|(_, hour, n)| (hour, uint(n))).collect();
    let query = format!("{ALONE}? AND sender = ?");
    let row: Option<(String, Micros)> =
        sqlx::query_as(AssertSqlSafe(query)).bind(now).bind(sender).fetch_optional(connection).await?;
    load.not_before = row.map(|(_, until)| until);
    Ok(load)
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

/// Writes what an attempt that ended means for the limits of its sending mailbox.
pub(super) async fn charge(
    connection: &mut SqliteConnection,
    sender: &str,
    toll: &Toll,
    problem: Option<&Problem>,
    terms: &Terms,
    now: Micros,
) -> Result<(), sqlx::Error> {
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
            sqlx::query(
                "INSERT INTO outbox_sender VALUES (?, ?, 1, ?) ON CONFLICT (sender) DO UPDATE SET
                 not_before = max(not_before, excluded.not_before), deferral_count = deferral_count + 1,
                 problem = excluded.problem",
            )
            .bind(sender)
            .bind(until)
            .bind(problem.map(prost::Message::encode_to_vec).unwrap_or_default())
            .execute(connection)
            .await?;
        }
    }
    Ok(())
}

/// How often in a row a sending mailbox was left alone.
pub(super) async fn deferrals(connection: &mut SqliteConnection, sender: &str) -> Result<u32, sqlx::Error> {
    let found: Option<u32> = sqlx::query_scalar("SELECT deferral_count FROM outbox_sender WHERE sender = ?")
        .bind(sender)
        .fetch_optional(connection)
        .await?;
    Ok(found.unwrap_or(0))
}

/// Those that are left alone, each with why.
pub(super) async fn left_alone(readers: &SqlitePool, now: Micros) -> Result<HashMap<String, Problem>, sqlx::Error> {
    let rows: Vec<(String, Vec<u8>)> = sqlx::query_as("SELECT sender, problem FROM outbox_sender WHERE not_before > ?")
        .bind(now)
        .fetch_all(readers)
        .await?;
    let decode = |(sender, problem): (String, Vec<u8>)| {
        let problem = Problem::decode(problem.as_slice()).map_err(|error| sqlx::Error::Decode(error.into()))?;
        Ok((sender, problem))
    };
    rows.into_iter().map(decode).collect()
}

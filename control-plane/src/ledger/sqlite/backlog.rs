//! Old messages that wait for an operator.

use postroom_proto::id::MailboxUid;
use postroom_proto::v1::{BacklogDecisionKind, BacklogState};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, SqliteConnection, SqlitePool};

use super::super::Micros;
use super::super::backlog::{Backlog, Decision, Progress, Release};
use super::row::{int, uint};

/// Most decisions that are told of.
const MOST_DECISIONS: i64 = 20;

/// What [`read`] needs of a row, of table `backlog`.
pub(super) const COLUMNS: &str = "backlog.held_at, backlog.message_count AS backlog_count, backlog.taken_count, \
     backlog.left_count, backlog.progress_at, backlog.finished_at, backlog.state, backlog.since, \
     backlog.rate_per_minute";

/// The backlog of a row that has [`COLUMNS`]. `None`: they are of an outer join that found none.
pub(super) fn read(row: &SqliteRow) -> Result<Option<Backlog>, sqlx::Error> {
    let Some(held_at) = row.try_get("held_at")? else { return Ok(None) };
    let finished_at: Option<Micros> = row.try_get("finished_at")?;
    let state = BacklogState::try_from(row.try_get::<i32, _>("state")?).unwrap_or_default();
    let released = matches!(state, BacklogState::Releasing | BacklogState::Finished);
    let release = Release { since: row.try_get("since")?, rate_per_minute: row.try_get("rate_per_minute")? };
    Ok(Some(Backlog {
        held_at,
        progress: Progress {
            message_count: uint(row.try_get("backlog_count")?),
            taken_count: uint(row.try_get("taken_count")?),
            left_count: uint(row.try_get("left_count")?),
            finished: finished_at.is_some(),
        },
        progress_at: row.try_get("progress_at")?,
        finished_at,
        state,
        release: released.then_some(release),
        decisions: Vec::new(),
    }))
}

/// What was decided last about a mailbox, by its row. The first `None`: nothing of it ever waited.
pub(super) async fn release(
    connection: &mut SqliteConnection,
    mailbox: i64,
) -> Result<Option<Option<Release>>, sqlx::Error> {
    type Standing = (i32, Option<Micros>, u32);
    let row: Option<Standing> = sqlx::query_as("SELECT state, since, rate_per_minute FROM backlog WHERE mailbox = ?")
        .bind(mailbox)
        .fetch_optional(connection)
        .await?;
    Ok(row.map(|(state, since, rate_per_minute)| {
        (state == i32::from(BacklogState::Releasing)).then_some(Release { since, rate_per_minute })
    }))
}

/// The backlog of a mailbox with what was decided about it.
pub(super) async fn get(readers: &SqlitePool, mailbox: &MailboxUid) -> Result<Option<Backlog>, sqlx::Error> {
    let query = format!("SELECT {COLUMNS} FROM backlog JOIN mailbox ON mailbox.id = backlog.mailbox WHERE uid = ?");
    let row = sqlx::query(sqlx::AssertSqlSafe(query)).bind(mailbox.as_str()).fetch_optional(readers).await?;
    let Some(mut backlog) = row.as_ref().map(read).transpose()?.flatten() else { return Ok(None) };
    type Made = (i32, Micros, String, Option<Micros>, u32);
    let decisions: Vec<Made> = sqlx::query_as(
        "SELECT kind, made_at, made_by, since, rate_per_minute FROM backlog_decision
         WHERE mailbox = (SELECT id FROM mailbox WHERE uid = ?) ORDER BY id DESC LIMIT ?",
    )
    .bind(mailbox.as_str())
    .bind(MOST_DECISIONS)
    .fetch_all(readers)
    .await?;
    let decisions = decisions.into_iter().map(|(kind, made_at, made_by, since, rate_per_minute)| {
        let approved = kind == i32::from(BacklogDecisionKind::Approved);
        Decision { release: approved.then_some(Release { since, rate_per_minute }), made_at, made_by }
    });
    backlog.decisions = decisions.collect();
    Ok(Some(backlog))
}

/// Records how far the reading is. The fence has seen to it that what waits was released.
pub(super) async fn record(
    connection: &mut SqliteConnection,
    mailbox: i64,
    progress: &Progress,
    now: Micros,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO backlog (mailbox, held_at, message_count, taken_count, left_count, finished_at, state)
         VALUES (?1, ?2, ?3, ?4, ?5, iif(?6, ?2, NULL), iif(?6, ?7, ?8))
         ON CONFLICT (mailbox) DO UPDATE SET taken_count = ?4, left_count = ?5, progress_at = ?2,
           finished_at = excluded.finished_at, state = iif(?6, ?7, state)",
    )
    .bind(mailbox)
    .bind(now)
    .bind(int(progress.message_count))
    .bind(int(progress.taken_count))
    .bind(int(progress.left_count))
    .bind(progress.finished)
    .bind(i32::from(BacklogState::Finished))
    .bind(i32::from(BacklogState::Waiting))
    .execute(connection)
    .await?;
    Ok(())
}

/// Decides about what waits of a mailbox. `false`: nothing does.
pub(super) async fn decide(
    connection: &mut SqliteConnection,
    mailbox: MailboxUid,
    decision: Decision,
) -> Result<bool, sqlx::Error> {
    let (kind, state, release) = match decision.release {
        Some(release) => (BacklogDecisionKind::Approved, BacklogState::Releasing, release),
        None => {
            let none = Release { since: None, rate_per_minute: 0 };
            (BacklogDecisionKind::Stopped, BacklogState::Stopped, none)
        }
    };
    let row: Option<(i64, i32)> = sqlx::query_as(
        "SELECT mailbox, state FROM backlog
         WHERE mailbox = (SELECT id FROM mailbox WHERE uid = ?) AND finished_at IS NULL",
    )
    .bind(mailbox.as_str())
    .fetch_optional(&mut *connection)
    .await?;
    let Some((row, before)) = row else { return Ok(false) };
    if decision.release.is_none() && before != i32::from(BacklogState::Releasing) {
        return Ok(true);
    }
    sqlx::query("UPDATE backlog SET state = ?, since = ?, rate_per_minute = ? WHERE mailbox = ?")
        .bind(i32::from(state))
        .bind(release.since)
        .bind(release.rate_per_minute)
        .bind(row)
        .execute(&mut *connection)
        .await?;
    sqlx::query(
        "INSERT INTO backlog_decision (mailbox, kind, made_at, made_by, since, rate_per_minute)
         VALUES (?, ?, ?, ?, ?, ?)",
    )
    .bind(row)
    .bind(i32::from(kind))
    .bind(decision.made_at)
    .bind(decision.made_by)
    .bind(release.since)
    .bind(release.rate_per_minute)
    .execute(connection)
    .await?;
    Ok(true)
}

//! What waits, and who gets it: claims, and the mark that stands before the data is handed over.

use std::collections::BTreeMap;

use postroom_proto::v1;
use sqlx::sqlite::SqliteRow;
use sqlx::{FromRow, Row as _, SqliteConnection, SqlitePool};

use super::super::super::outbox::{Claim, ClaimLost, Claimed, Claiming, Lane, Waiting, Way};
use super::super::super::{Micros, Raw};
use super::super::row::uint;
use super::{load, row};
use crate::outbox::allowance::Allowance;
use crate::outbox::turns::{Queue, Sender, share};
use crate::outbox::{Terms, micros};

const QUEUED: i32 = v1::OutboxState::Queued as i32;
const UNKNOWN: i32 = v1::OutboxState::Unknown as i32;

/// One look into the index for each lane that has something, whatever it has.
const LANES: &str = "
WITH RECURSIVE some (lane) AS (
    SELECT (SELECT lane FROM outbox INDEXED BY outbox_lane WHERE state = ?1 AND state IN (1, 4) ORDER BY lane LIMIT 1)
    UNION ALL
    SELECT (SELECT lane FROM outbox INDEXED BY outbox_lane WHERE state = ?1 AND state IN (1, 4) AND lane > some.lane
            ORDER BY lane LIMIT 1)
    FROM some WHERE some.lane IS NOT NULL
)
SELECT some.lane, (SELECT min(due_at) FROM outbox INDEXED BY outbox_lane
    WHERE state = ?1 AND state IN (1, 4) AND outbox.lane = some.lane)
FROM some WHERE some.lane IS NOT NULL";

/// What waits, lane by lane, and how sending mailboxes are loaded.
pub(super) async fn waiting(readers: &SqlitePool, terms: &Terms, now: Micros) -> Result<Waiting, sqlx::Error> {
    Ok(Waiting {
        queued: lanes(readers, QUEUED).await?,
        unknown: lanes(readers, UNKNOWN).await?,
        senders: load::all(readers, terms, now).await?,
    })
}

async fn lanes(readers: &SqlitePool, state: i32) -> Result<Vec<(Lane, Micros)>, sqlx::Error> {
    let rows: Vec<(String, Option<Micros>)> = sqlx::query_as(LANES).bind(state).fetch_all(readers).await?;
    Ok(rows.into_iter().filter_map(|(key, due)| Some((Lane::parse(&key)?, due?))).collect())
}

/// What is known of a mail before it is claimed.
#[derive(Debug)]
struct Candidate {
    id: i64,
    mail: String,
    from_address: String,
    message_id: String,
    size_bytes: i64,
    pending_count: i64,
    attempt_count: u32,
}

impl FromRow<'_, SqliteRow> for Candidate {
    fn from_row(row: &SqliteRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            id: row.try_get("id")?,
            mail: row.try_get("mail")?,
            from_address: row.try_get("from_address")?,
            message_id: row.try_get("message_id")?,
            size_bytes: row.try_get("size_bytes")?,
            pending_count: row.try_get("pending_count")?,
            attempt_count: row.try_get("attempt_count")?,
        })
    }
}

const CANDIDATES: &str = "SELECT id, mail, from_address, message_id, size_bytes, pending_count, attempt_count
    FROM outbox INDEXED BY outbox_lane
    WHERE state = ?1 AND state IN (1, 4) AND lane = ?2 AND due_at <= ?3 AND deadline_at IS NULL
    ORDER BY due_at, id LIMIT ?4";

/// Claims for `claiming` what its ways have that is due, within the limits of the sending mailboxes.
pub(super) async fn claim(
    connection: &mut SqliteConnection,
    claiming: Claiming,
    terms: Terms,
    now: Micros,
) -> Result<Vec<Claimed>, sqlx::Error> {
    let mut by_sender: BTreeMap<&str, Vec<&Way>> = BTreeMap::new();
    for way in &claiming.ways {
        by_sender.entry(&way.sender).or_default().push(way);
    }
    let mut claimed = Vec::new();
    let mut senders = Vec::new();
    let mut names = Vec::new();
    for (sender, ways) in by_sender {
        let mut load = load::one(connection, sender, &terms, now).await?;
        if let Allowance::Now { .. } = load.allowance(&terms, now)
            && load.looking == 0
            && claimed.len() < claiming.max
            && let Some((way, found)) = to_look_for(connection, &ways, now).await?
        {
            claimed.push(take(connection, &claiming, way, found, v1::SendTask::LookFor, &terms, now).await?);
            load.looking += 1;
        }
        if let Allowance::Now { mails, recipients } = load.allowance(&terms, now) {
            let queues = queues(connection, sender, &ways, mails, now).await?;
            let turn = queues.1;
            senders.push(Sender { mails, recipients, turn, queues: queues.0 });
            names.push(sender);
        }
    }
    let turns = share(senders, claiming.max.saturating_sub(claimed.len()));
    for turn in turns {
        let (way, candidate) = turn.mail;
        sqlx::query(
            "INSERT INTO outbox_turn VALUES (?, ?, ?) ON CONFLICT (sender, queue_uid) DO UPDATE SET turn = excluded.turn",
        )
        .bind(names[turn.sender])
        .bind(&way.lane.queue_uid)
        .bind(turn.turn)
        .execute(&mut *connection)
        .await?;
        claimed.push(take(connection, &claiming, way, candidate, v1::SendTask::Submit, &terms, now).await?);
    }
    Ok(claimed)
}

/// The mail of these ways that is due longest to be looked for.
async fn to_look_for<'w>(
    connection: &mut SqliteConnection,
    ways: &[&'w Way],
    now: Micros,
) -> Result<Option<(&'w Way, Candidate)>, sqlx::Error> {
    for way in ways.iter().copied().filter(|way| way.looked_for) {
        let found: Option<Candidate> = sqlx::query_as(CANDIDATES)
            .bind(UNKNOWN)
            .bind(way.lane.key())
            .bind(now)
            .bind(1)
            .fetch_optional(&mut *connection)
            .await?;
        if let Some(found) = found {
            return Ok(Some((way, found)));
        }
    }
    Ok(None)
}

type Waits<'w> = Queue<(&'w Way, Candidate)>;

/// What waits at a sending mailbox, queue by queue, and when it had its last turn.
async fn queues<'w>(
    connection: &mut SqliteConnection,
    sender: &str,
    ways: &[&'w Way],
    most: u32,
    now: Micros,
) -> Result<(Vec<Waits<'w>>, i64), sqlx::Error> {
    let turns: Vec<(String, i64)> = sqlx::query_as("SELECT queue_uid, turn FROM outbox_turn WHERE sender = ?")
        .bind(sender)
        .fetch_all(&mut *connection)
        .await?;
    let last = turns.iter().map(|(_, turn)| *turn).max().unwrap_or(0);
    let mut queues: BTreeMap<&str, Waits<'w>> = BTreeMap::new();
    for way in ways {
        let found: Vec<Candidate> = sqlx::query_as(CANDIDATES)
            .bind(QUEUED)
            .bind(way.lane.key())
            .bind(now)
            .bind(i64::from(most))
            .fetch_all(&mut *connection)
            .await?;
        if found.is_empty() {
            continue;
        }
        let uid = way.lane.queue_uid.as_str();
        let turn = turns.iter().find(|(queue, _)| queue == uid).map_or(0, |(_, turn)| *turn);
        let queue = queues.entry(uid).or_insert_with(|| Queue { turn, waiting: Vec::new() });
        queue.waiting.extend(found.into_iter().map(|it| {
            let recipients = uint(it.pending_count);
            ((*way, it), recipients)
        }));
    }
    let mut queues: Vec<Waits<'w>> = queues.into_values().collect();
    // A queue with several addresses sends in the order in which they were stored.
    queues.iter_mut().for_each(|queue| queue.waiting.sort_by_key(|((_, candidate), _)| candidate.id));
    Ok((queues, last))
}

async fn take(
    connection: &mut SqliteConnection,
    claiming: &Claiming,
    way: &Way,
    candidate: Candidate,
    task: v1::SendTask,
    terms: &Terms,
    now: Micros,
) -> Result<Claimed, sqlx::Error> {
    let token = uuid::Uuid::new_v4().simple().to_string();
    let size_bytes = uint(candidate.size_bytes);
    let deadline_at = now.saturating_add(micros(terms.time_for(size_bytes)));
    let submit = task == v1::SendTask::Submit;
    sqlx::query(
        "UPDATE outbox SET token = ?1, session = ?2, worker = ?3, outgoing_server = ?4, sender = ?5, deadline_at = ?6,
         settled = 0, looking = 1 - ?7, attempt_count = attempt_count + ?7, changed_at = ?8,
         state = CASE WHEN ?7 THEN 2 ELSE state END, due_at = CASE WHEN ?7 THEN NULL ELSE due_at END,
         marked_at = CASE WHEN ?7 THEN NULL ELSE marked_at END,
         since = CASE WHEN ?7 AND deferral_count = 0 THEN ?8 ELSE since END
         WHERE id = ?9",
    )
    .bind(&token)
    .bind(claiming.session.as_str())
    .bind(&claiming.worker)
    .bind(&way.outgoing_server)
    .bind(&way.sender)
    .bind(deadline_at)
    .bind(i64::from(submit))
    .bind(now)
    .bind(candidate.id)
    .execute(&mut *connection)
    .await?;
    let recipients: Vec<String> =
        sqlx::query_scalar("SELECT address FROM outbox_recipient WHERE outbox = ? AND state = 1 ORDER BY position")
            .bind(candidate.id)
            .fetch_all(connection)
            .await?;
    Ok(Claimed {
        mail: candidate.mail,
        lane: way.lane.clone(),
        token,
        deadline_at,
        task,
        sender: candidate.from_address,
        recipients,
        message_id: candidate.message_id,
        size_bytes,
        attempt: candidate.attempt_count + u32::from(submit),
    })
}

/// The bytes of a mail, for whom its claim stands.
pub(super) async fn raw(
    readers: &SqlitePool,
    claim: &Claim,
    now: Micros,
) -> Result<Result<Raw, ClaimLost>, sqlx::Error> {
    let found: Option<(Option<String>, Option<Vec<u8>>)> = sqlx::query_as(
        "SELECT raw_digest, raw FROM outbox LEFT JOIN outbox_body ON outbox_body.outbox = outbox.id
         WHERE mail = ? AND token = ? AND session = ? AND deadline_at > ?",
    )
    .bind(&claim.mail)
    .bind(&claim.token)
    .bind(claim.session.as_str())
    .bind(now)
    .fetch_optional(readers)
    .await?;
    Ok(found.map(|(digest, bytes)| row::stored(digest, bytes)).ok_or(ClaimLost))
}

/// Records that the data is handed over now. The first time it gives the whole time once more.
///
/// Invariant: what lapsed cannot be marked, even before anybody has put it back.
pub(super) async fn mark(
    connection: &mut SqliteConnection,
    claim: Claim,
    terms: Terms,
    now: Micros,
) -> Result<Result<Micros, ClaimLost>, sqlx::Error> {
    let found: Option<(i64, i64, Option<Micros>, Micros)> = sqlx::query_as(
        "SELECT id, size_bytes, marked_at, deadline_at FROM outbox
         WHERE mail = ? AND token = ? AND session = ? AND state = 2 AND deadline_at > ?",
    )
    .bind(&claim.mail)
    .bind(&claim.token)
    .bind(claim.session.as_str())
    .bind(now)
    .fetch_optional(&mut *connection)
    .await?;
    let Some((id, size_bytes, marked_at, deadline_at)) = found else { return Ok(Err(ClaimLost)) };
    if marked_at.is_some() {
        return Ok(Ok(deadline_at));
    }
    let deadline_at = now.saturating_add(micros(terms.time_for(uint(size_bytes))));
    sqlx::query("UPDATE outbox SET marked_at = ?, deadline_at = ? WHERE id = ?")
        .bind(now)
        .bind(deadline_at)
        .bind(id)
        .execute(connection)
        .await?;
    Ok(Ok(deadline_at))
}

/// True when the time of a claim is over.
pub(super) async fn any_lapsed(readers: &SqlitePool, now: Micros) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM outbox INDEXED BY outbox_deadline WHERE deadline_at <= ?)")
        .bind(now)
        .fetch_one(readers)
        .await
}

#[cfg(test)]
mod tests {
    use sqlx::AssertSqlSafe;

    use super::super::super::SCHEMA;
    use super::*;
    use crate::sqlite::{Location, open};

    #[tokio::test]
    async fn neither_a_look_nor_a_claim_walks_what_waits() {
        let mut connection = open(&Location::Memory, SCHEMA).await.unwrap().writer;
        for statement in [LANES, CANDIDATES] {
            let plan = format!("EXPLAIN QUERY PLAN {statement}");
            let rows = sqlx::query(AssertSqlSafe(plan)).fetch_all(&mut connection).await.unwrap();
            for row in rows {
                let step: String = row.try_get("detail").unwrap();
                assert!(!step.contains("TEMP B-TREE"), "{statement}\n{step}");
                assert!(
                    !step.contains("SCAN") || step.contains("some") || step.contains("CONSTANT"),
                    "{statement}\n{step}"
                );
            }
        }
    }
}

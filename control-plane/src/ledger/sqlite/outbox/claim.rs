//! What waits, and who gets it: claims, and the mark that stands before the data is handed over.

use std::collections::BTreeMap;

use postroom_proto::v1;
use sqlx::sqlite::SqliteRow;
use sqlx::{FromRow, Row as _, SqliteConnection, SqlitePool};

use super::super::super::outbox::{Claim, ClaimLost, Claimed, Claiming, Lane, Waiting, Way};
use super::super::super::{Micros, Raw};
use super::super::row::uint;
use super::{load, row};
use crate::ledger::micros;
use crate::outbox::Terms;
use crate::outbox::allowance::Allowance;
use crate::outbox::turns::{Queue, Sender, share};

/// One look into the index for each lane that has something, whatever it has.
const QUEUED_LANES: &str = "
WITH RECURSIVE some (lane) AS (
    SELECT (SELECT lane FROM outbox INDEXED BY outbox_lane WHERE state = 1 ORDER BY lane LIMIT 1)
    UNION ALL
    SELECT (SELECT lane FROM outbox INDEXED BY outbox_lane WHERE state = 1 AND lane > some.lane ORDER BY lane LIMIT 1)
    FROM some WHERE some.lane IS NOT NULL
)
SELECT some.lane, (SELECT min(due_at) FROM outbox INDEXED BY outbox_lane WHERE state = 1 AND outbox.lane = some.lane)
FROM some WHERE some.lane IS NOT NULL";

/// The same for what is to be looked for, lane and place by lane and place.
const UNKNOWN_LANES: &str = "
WITH RECURSIVE some (id) AS (
    SELECT (SELECT id FROM outbox INDEXED BY outbox_look
            WHERE state = 4 AND due_at IS NOT NULL AND deadline_at IS NULL ORDER BY lane, look_in, due_at LIMIT 1)
    UNION ALL
    SELECT (SELECT next.id FROM outbox AS next INDEXED BY outbox_look
            WHERE next.state = 4 AND next.due_at IS NOT NULL AND next.deadline_at IS NULL
            AND (next.lane, next.look_in) > (here.lane, here.look_in)
            ORDER BY next.lane, next.look_in, next.due_at LIMIT 1)
    FROM some CROSS JOIN outbox AS here ON here.id = some.id
)
SELECT lane, look_in, due_at FROM some CROSS JOIN outbox ON outbox.id = some.id";

/// What waits, lane by lane.
pub(super) async fn waiting(readers: &SqlitePool) -> Result<Waiting, sqlx::Error> {
    let queued: Vec<(String, Option<Micros>)> = sqlx::query_as(QUEUED_LANES).fetch_all(readers).await?;
    let unknown: Vec<(String, String, Micros)> = sqlx::query_as(UNKNOWN_LANES).fetch_all(readers).await?;
    let unknown = unknown.into_iter().filter_map(|(key, place, due)| Some((Lane::parse(&key)?, place, due)));
    Ok(Waiting {
        queued: queued.into_iter().filter_map(|(key, due)| Some((Lane::parse(&key)?, due?))).collect(),
        unknown: unknown.collect(),
    })
}

/// What is known of a mail before it is claimed.
#[derive(Debug)]
struct Candidate {
    id: i64,
    mail: String,
    contact: String,
    from_address: String,
    message_id: String,
    size_bytes: i64,
    pending_count: i64,
    attempt_count: u32,
    due_at: Micros,
}

impl FromRow<'_, SqliteRow> for Candidate {
    fn from_row(row: &SqliteRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            id: row.try_get("id")?,
            mail: row.try_get("mail")?,
            contact: row.try_get("contact")?,
            from_address: row.try_get("from_address")?,
            message_id: row.try_get("message_id")?,
            size_bytes: row.try_get("size_bytes")?,
            pending_count: row.try_get("pending_count")?,
            attempt_count: row.try_get("attempt_count")?,
            due_at: row.try_get("due_at")?,
        })
    }
}

const TO_SEND: &str =
    "SELECT id, mail, contact, from_address, message_id, size_bytes, pending_count, attempt_count, due_at
    FROM outbox INDEXED BY outbox_lane WHERE state = 1 AND lane = ?1 AND due_at <= ?2
    ORDER BY due_at, id LIMIT ?3";
const TO_LOOK_FOR: &str =
    "SELECT id, mail, contact, from_address, message_id, size_bytes, pending_count, attempt_count, due_at
    FROM outbox INDEXED BY outbox_look WHERE state = 4 AND due_at IS NOT NULL AND deadline_at IS NULL
    AND lane = ?1 AND look_in = ?2 AND due_at <= ?3
    ORDER BY due_at, id LIMIT 1";

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
    let asked: Vec<&str> = by_sender.keys().copied().collect();
    let mut loads = load::of(connection, &asked, &terms, now).await?;
    for (sender, mut ways) in by_sender {
        let mut load = loads.remove(sender).unwrap_or_default();
        ways.retain(|way| load.left_alone_until(&way.credentials, now).is_none());
        if let Allowance::Now { .. } = load.allowance(&terms, now)
            && load.looking == 0
            && claimed.len() < claiming.max
            && let Some((way, found)) = to_look_for(connection, &ways, now).await?
        {
            let taken = Taken { way, candidate: found, task: v1::SendTask::LookFor, paused_until: 0 };
            claimed.push(take(connection, &claiming, taken, &terms, now).await?);
            load.looking += 1;
        }
        if let Allowance::Now { mails, recipients } = load.allowance(&terms, now) {
            let queues = queues(connection, sender, &ways, mails, now).await?;
            let turn = queues.1;
            senders.push(Sender { mails, recipients, turn, queues: queues.0 });
            names.push((sender, load));
        }
    }
    let turns = share(senders, now, claiming.max.saturating_sub(claimed.len()));
    for turn in turns {
        let (way, candidate) = turn.mail;
        sqlx::query(
            "INSERT INTO outbox_turn VALUES (?, ?, ?) ON CONFLICT (sender, queue_uid) DO UPDATE SET turn = excluded.turn",
        )
        .bind(names[turn.sender].0)
        .bind(&way.lane.queue_uid)
        .bind(turn.turn)
        .execute(&mut *connection)
        .await?;
        let paused_until = names[turn.sender].1.last_left_alone(&way.credentials);
        let taken = Taken { way, candidate, task: v1::SendTask::Submit, paused_until };
        claimed.push(take(connection, &claiming, taken, &terms, now).await?);
    }
    Ok(claimed)
}

/// A mail of the first of these ways that has one to be looked for where it can look.
///
/// Invariant: a mail is looked for only where a copy of its last attempt would be. Elsewhere it would be missed, and sent
/// twice.
async fn to_look_for<'w>(
    connection: &mut SqliteConnection,
    ways: &[&'w Way],
    now: Micros,
) -> Result<Option<(&'w Way, Candidate)>, sqlx::Error> {
    for way in ways.iter().copied().filter(|way| !way.look_in.is_empty()) {
        let found: Option<Candidate> = sqlx::query_as(TO_LOOK_FOR)
            .bind(way.lane.key())
            .bind(&way.look_in)
            .bind(now)
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
        let found: Vec<Candidate> = sqlx::query_as(TO_SEND)
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
    // A queue with several addresses sends in the order in which its mails were due: what is tried again comes behind what
    // was stored before that.
    let due = |((_, candidate), _): &((&Way, Candidate), u64)| (candidate.due_at, candidate.id);
    queues.iter_mut().for_each(|queue| queue.waiting.sort_by_key(due));
    Ok((queues, last))
}

/// A mail whose turn has come.
struct Taken<'w> {
    way: &'w Way,
    candidate: Candidate,
    task: v1::SendTask,
    /// Until when its sending mailbox was left alone last.
    paused_until: Micros,
}

async fn take(
    connection: &mut SqliteConnection,
    claiming: &Claiming,
    taken: Taken<'_>,
    terms: &Terms,
    now: Micros,
) -> Result<Claimed, sqlx::Error> {
    let Taken { way, candidate, task, paused_until } = taken;
    let token = uuid::Uuid::new_v4().simple().to_string();
    let size_bytes = uint(candidate.size_bytes);
    let deadline_at = now.saturating_add(micros(terms.time_to_begin(size_bytes)));
    let submit = task == v1::SendTask::Submit;
    // In the time since it could have been sent nothing sent it: it had no road, or others came first.
    let idle = now.saturating_sub(candidate.due_at.max(paused_until)).max(0);
    sqlx::query(
        "UPDATE outbox SET token = ?1, session = ?2, worker = ?3, outgoing_server = ?4, sender = ?5, deadline_at = ?6,
         settled = 0, looking = 1 - ?7, attempt_count = attempt_count + ?7, changed_at = ?8, claimed_at = ?8,
         credentials = ?10,
         state = CASE WHEN ?7 THEN 2 ELSE state END, due_at = CASE WHEN ?7 THEN NULL ELSE due_at END,
         marked_at = CASE WHEN ?7 THEN NULL ELSE marked_at END, look_in = CASE WHEN ?7 THEN ?11 ELSE look_in END,
         since = CASE WHEN NOT ?7 THEN since WHEN deferral_count = 0 THEN ?8 ELSE since + ?12 END
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
    .bind(&way.credentials)
    .bind(&way.look_in)
    .bind(idle)
    .execute(&mut *connection)
    .await?;
    let recipients: Vec<String> =
        sqlx::query_scalar("SELECT address FROM outbox_recipient WHERE outbox = ? AND state = 1 ORDER BY position")
            .bind(candidate.id)
            .fetch_all(connection)
            .await?;
    Ok(Claimed {
        mail: candidate.mail,
        contact: candidate.contact,
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

/// Records that the data is handed over now. The first time it gives the time for the server's answer.
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
    let deadline_at = now.saturating_add(micros(terms.time_to_end(uint(size_bytes))));
    sqlx::query("UPDATE outbox SET marked_at = ?, deadline_at = ?, mark_token = ?, mark_session = ? WHERE id = ?")
        .bind(now)
        .bind(deadline_at)
        .bind(&claim.token)
        .bind(claim.session.as_str())
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
        for statement in [QUEUED_LANES, UNKNOWN_LANES, TO_SEND, TO_LOOK_FOR] {
            let plan = format!("EXPLAIN QUERY PLAN {statement}");
            let rows = sqlx::query(AssertSqlSafe(plan)).fetch_all(&mut connection).await.unwrap();
            for row in rows {
                let step: String = row.try_get("detail").unwrap();
                assert!(!step.contains("TEMP B-TREE"), "{statement}\n{step}");
                // The first row of an index is a scan, too; a subquery takes no second one.
                let first = step.contains(" INDEX outbox_") && statement.contains("LIMIT 1)");
                let lanes = step.contains("some") || step.contains("CONSTANT");
                assert!(!step.contains("SCAN") || lanes || first, "{statement}\n{step}");
            }
        }
    }
}

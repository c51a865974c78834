//! Counts of the whole ledger. No statement here walks all contacts or messages: triggers count contacts, those that wait in
//! a queue are counted up to [`MOST_COUNTED`], and messages put aside along an index of nothing else. A test asks SQLite how
//! it would run them.

use postroom_proto::v1::{ContactState, Disposition};
use sqlx::SqlitePool;

use super::super::Micros;
use super::super::tally::{InstanceTally, MOST_COUNTED, QueueWaiting, Tally};
use super::row::{int, uint};

const CONTACTS: &str = "SELECT instance_uid, state, count FROM contact_tally WHERE count > 0 ORDER BY 1, 2";

const NAME: &str = "SELECT instance FROM contact WHERE instance_uid = ?1 LIMIT 1";

/// The contact that waits longest, whatever its priority: `contact_order` is sorted by priority first, so it is asked for
/// its first row in each priority that is there, one look a priority.
const OLDEST: &str = "
WITH RECURSIVE level (priority) AS (
    SELECT (SELECT priority FROM contact WHERE instance_uid = ?1 AND state = 1 ORDER BY priority LIMIT 1)
    UNION ALL
    SELECT (SELECT priority FROM contact WHERE instance_uid = ?1 AND state = 1 AND priority > level.priority
            ORDER BY priority LIMIT 1)
    FROM level WHERE level.priority IS NOT NULL
)
SELECT contact.id, contact.waiting_since FROM level
JOIN contact ON contact.message = (SELECT message FROM contact WHERE instance_uid = ?1 AND state = 1
    AND priority = level.priority ORDER BY waiting_since, message LIMIT 1)
WHERE level.priority IS NOT NULL
ORDER BY contact.waiting_since, contact.message LIMIT 1";

/// The same within a queue.
const WAITING: &str = "
WITH RECURSIVE level (priority) AS (
    SELECT (SELECT priority FROM contact WHERE queue_uid = ?1 AND state = 1 ORDER BY priority LIMIT 1)
    UNION ALL
    SELECT (SELECT priority FROM contact WHERE queue_uid = ?1 AND state = 1 AND priority > level.priority
            ORDER BY priority LIMIT 1)
    FROM level WHERE level.priority IS NOT NULL
)
SELECT (SELECT count(*) FROM (SELECT 1 FROM contact WHERE queue_uid = ?1 AND state = 1 LIMIT ?2)),
    (SELECT min((SELECT waiting_since FROM contact WHERE queue_uid = ?1 AND state = 1
        AND priority = level.priority ORDER BY waiting_since, message LIMIT 1)) FROM level WHERE level.priority IS NOT NULL)";

/// The partial index has no contacts in it, and no duplicates.
const ASIDE: &str = "SELECT disposition, count(*) FROM message INDEXED BY message_aside
    WHERE disposition <> 1 AND disposition <> 6 GROUP BY disposition ORDER BY disposition";

const SIZE: &str = "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()";

pub(super) async fn tally(readers: &SqlitePool) -> Result<Tally, sqlx::Error> {
    let counts: Vec<(String, i32, i64)> = sqlx::query_as(CONTACTS).fetch_all(readers).await?;
    let mut instances: Vec<InstanceTally> = Vec::new();
    for (instance_uid, state, count) in counts {
        let count = (ContactState::try_from(state).unwrap_or_default(), uint(count));
        match instances.last_mut() {
            Some(last) if last.instance_uid == instance_uid => last.contacts.push(count),
            _ => {
                let name: Option<String> = sqlx::query_scalar(NAME).bind(&instance_uid).fetch_optional(readers).await?;
                let oldest: Option<(String, Micros)> =
                    sqlx::query_as(OLDEST).bind(&instance_uid).fetch_optional(readers).await?;
                let instance = name.unwrap_or_default();
                instances.push(InstanceTally { instance_uid, instance, contacts: vec![count], oldest });
            }
        }
    }
    let aside: Vec<(i32, i64)> = sqlx::query_as(ASIDE).fetch_all(readers).await?;
    let aside = aside
        .into_iter()
        .map(|(disposition, count)| (Disposition::try_from(disposition).unwrap_or_default(), uint(count)));
    let size: i64 = sqlx::query_scalar(SIZE).fetch_one(readers).await?;
    Ok(Tally { instances, aside: aside.collect(), size_bytes: uint(size) })
}

pub(super) async fn waiting(readers: &SqlitePool, queues: &[String]) -> Result<Vec<QueueWaiting>, sqlx::Error> {
    let mut all = Vec::with_capacity(queues.len());
    for queue_uid in queues {
        let (count, oldest): (i64, Option<Micros>) =
            sqlx::query_as(WAITING).bind(queue_uid).bind(int(MOST_COUNTED)).fetch_one(readers).await?;
        all.push(QueueWaiting { queue_uid: queue_uid.clone(), count: uint(count), oldest });
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use sqlx::{AssertSqlSafe, Row as _};

    use super::super::SCHEMA;
    use super::*;
    use crate::sqlite::{Location, open};

    /// A scan is allowed of the tally, of the index that holds no contacts, and of what a subquery made: its own steps are
    /// listed beside it.
    #[tokio::test]
    async fn no_count_walks_contacts_or_messages() {
        let mut connection = open(&Location::Memory, SCHEMA).await.unwrap().writer;
        for statement in [CONTACTS, NAME, OLDEST, WAITING, ASIDE, SIZE] {
            let plan = format!("EXPLAIN QUERY PLAN {statement}");
            let rows = sqlx::query(AssertSqlSafe(plan)).bind("i1").fetch_all(&mut connection).await.unwrap();
            for row in rows {
                let step: String = row.try_get("detail").unwrap();
                let harmless = ["contact_tally", "message_aside", "level", "(subquery", "pragma_page", "CONSTANT ROW"];
                let bounded = !step.contains("SCAN") || harmless.iter().any(|name| step.contains(name));
                assert!(bounded, "{statement}\n{step}");
                assert!(
                    !step.contains("TEMP B-TREE") || statement == ASIDE || statement == OLDEST,
                    "{statement}\n{step}"
                );
            }
        }
    }
}

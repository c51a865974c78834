//! Copies of the ledger, for backups.

use std::path::Path;

use postroom_proto::catalogue::outbox::RESTORED;
use postroom_proto::convert::to_timestamp;
use postroom_proto::v1::Problem;
use prost::Message as _;
use sqlx::{AssertSqlSafe, Connection as _, SqliteConnection};

use super::super::Micros;
use super::row::uint;
use super::{Error, SCHEMA, Sqlite, reading};
use crate::ledger::micros;
use crate::outbox::Terms;
use crate::outbox::state::problem;
use crate::sqlite::copy::{self, Unfit};

/// What a copy holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// The ledger's id.
    pub id: String,
    /// The store that its fences belong to. `None`: none was bound yet.
    pub store_id: Option<String>,
    /// Highest epoch of any fence.
    pub highest_epoch: u64,
    /// Messages, whatever their disposition.
    pub messages: u64,
    /// Those that became contacts.
    pub contacts: u64,
}

/// SHA-256 of a body that is kept outside the ledger.
pub type BodyDigest = [u8; 32];

impl Sqlite {
    /// Copies the ledger as of one moment into a new file; intake goes on.
    pub async fn copy_to(&self, path: &Path) -> Result<(), Error> {
        self.database.copy_to(path).await.map_err(reading("copy itself"))
    }
}

/// Refuses a copy that is broken, or that a newer version made.
pub async fn check(path: &Path) -> Result<(), Unfit> {
    copy::check(&mut copy::look(path).await?, SCHEMA).await
}

/// Says what a copy holds.
pub async fn describe(path: &Path) -> Result<Description, sqlx::Error> {
    let mut copy = copy::look(path).await?;
    let (id, store_id, generation): (String, Option<String>, i64) =
        sqlx::query_as("SELECT id, store_id, generation FROM ledger").fetch_one(&mut copy).await?;
    let highest_epoch: i64 = sqlx::query_scalar("SELECT coalesce(max(epoch), 0) FROM mailbox WHERE generation = ?")
        .bind(generation)
        .fetch_one(&mut copy)
        .await?;
    let (messages, contacts): (i64, i64) =
        sqlx::query_as("SELECT (SELECT count(*) FROM message), (SELECT count(*) FROM contact)")
            .fetch_one(&mut copy)
            .await?;
    Ok(Description {
        id,
        store_id,
        highest_epoch: uint(highest_epoch),
        messages: uint(messages),
        contacts: uint(contacts),
    })
}

/// The bodies outside the ledger that a copy names, each once, ascending. 32 bytes of memory for each large message.
pub async fn bodies(path: &Path) -> Result<Vec<BodyDigest>, sqlx::Error> {
    use futures::TryStreamExt as _;

    let mut copy = copy::look(path).await?;
    let outbox = has_outbox(&mut copy).await?;
    let messages = "SELECT raw_digest FROM message WHERE raw_digest IS NOT NULL";
    let mails = if outbox { " UNION ALL SELECT raw_digest FROM outbox WHERE raw_digest IS NOT NULL" } else { "" };
    let select = format!("{messages}{mails}");
    let mut rows = sqlx::query_scalar::<_, String>(AssertSqlSafe(select)).fetch(&mut copy);
    let mut digests = Vec::new();
    while let Some(text) = rows.try_next().await? {
        let digest = data_encoding::HEXLOWER.decode(text.as_bytes()).ok().and_then(|bytes| bytes.try_into().ok());
        digests.push(digest.ok_or_else(|| sqlx::Error::Decode(format!("{text:?} is no SHA-256 digest").into()))?);
    }
    digests.sort_unstable();
    digests.dedup();
    Ok(digests)
}

/// A backup of an older version has none.
async fn has_outbox(copy: &mut SqliteConnection) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = 'outbox')").fetch_one(copy).await
}

/// Makes every mail UNKNOWN that waited or was under way when a copy was made, at `as_of`: it may have been sent since, and
/// only whoever looks among sent mail can tell. How many those are.
pub async fn distrust_mails(path: &Path, as_of: Micros, now: Micros) -> Result<u64, sqlx::Error> {
    let mut copy = copy::change(path).await?;
    if !has_outbox(&mut copy).await? {
        return Ok(0);
    }
    let problem = Problem { since_time: Some(to_timestamp(now)), ..problem(&RESTORED, None) };
    // Who had it may still say that it was sent. It is not looked for where a copy of a former attempt may be found.
    let changed = sqlx::query(
        "UPDATE outbox SET state = 4, marked_at = ?1, problem = ?2, changed_at = ?3, deadline_at = NULL, looking = 0,
         deferral_count = 0, token = '', mark_token = CASE state WHEN 2 THEN token ELSE mark_token END,
         mark_session = CASE state WHEN 2 THEN session ELSE mark_session END,
         due_at = CASE WHEN look_in <> '' AND sent_at IS NULL AND NOT EXISTS
             (SELECT 1 FROM outbox_recipient WHERE outbox_recipient.outbox = outbox.id AND outbox_recipient.state IN (2, 4))
             THEN ?4 END
         WHERE state IN (1, 2)",
    )
    .bind(as_of)
    .bind(problem.encode_to_vec())
    .bind(now)
    .bind(now.saturating_add(micros(Terms::default().look_after)))
    .execute(&mut copy)
    .await?;
    copy.close().await?;
    Ok(changed.rows_affected())
}

//! Sequences of changes: rows numbered by revision, appended by whoever changes something, in the same transaction; the
//! oldest are cut off, the newest never, so that no revision is used twice.

use sqlx::{AssertSqlSafe, SqliteConnection, SqliteExecutor, SqlitePool};

use super::row::{int, uint};

/// Most rows that one trimming removes, so that others who write do not wait long.
const TRIMMED: i64 = 20_000;

/// The table of a sequence.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sequence(pub(super) &'static str);

impl Sequence {
    /// Cuts off the oldest changes; `keep` of them stay, and the newest always. True: there are more to be cut off.
    pub(super) async fn trim(self, connection: &mut SqliteConnection, keep: u64) -> Result<bool, sqlx::Error> {
        let (oldest, newest) = self.ends(&mut *connection).await?;
        let last = newest.saturating_sub(int(keep.max(1)));
        let upto = last.min(oldest.saturating_add(TRIMMED));
        let delete = format!("DELETE FROM {} WHERE revision <= ?", self.0);
        sqlx::query(AssertSqlSafe(delete)).bind(upto).execute(connection).await?;
        Ok(upto < last)
    }

    /// True when there are more than `keep` changes.
    pub(super) async fn any_to_trim(self, readers: &SqlitePool, keep: u64) -> Result<bool, sqlx::Error> {
        let (oldest, newest) = self.ends(readers).await?;
        Ok(newest.saturating_sub(oldest) >= int(keep.max(1)))
    }

    /// The newest change; 0 when there was none yet.
    pub(super) async fn newest(self, readers: &SqlitePool) -> Result<u64, sqlx::Error> {
        Ok(uint(self.ends(readers).await?.1))
    }

    /// The oldest and the newest change; zeros when there was none yet.
    pub(super) async fn ends<'c>(self, executor: impl SqliteExecutor<'c>) -> Result<(i64, i64), sqlx::Error> {
        let select = format!(
            "SELECT coalesce((SELECT min(revision) FROM {0}), 0), coalesce((SELECT max(revision) FROM {0}), 0)",
            self.0
        );
        sqlx::query_as(AssertSqlSafe(select)).fetch_one(executor).await
    }
}

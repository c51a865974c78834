//! Which store the ledger belongs to.

use postroom_proto::id::{Epoch, Generation, MailboxUid};
use sqlx::{Row as _, SqliteConnection, SqlitePool};

use super::super::{Adoption, Bound, Micros};
use super::row::{int, uint};

/// The store that the ledger belongs to.
pub(super) async fn bound(readers: &SqlitePool) -> Result<Bound, sqlx::Error> {
    let row = sqlx::query(
        "SELECT store_id, generation,
           (SELECT coalesce(max(epoch), 0) FROM mailbox WHERE mailbox.generation = ledger.generation) AS epoch FROM ledger",
    );
    let row = row.fetch_one(readers).await?;
    Ok(Bound {
        store_id: row.try_get("store_id")?,
        generation: Generation(uint(row.try_get("generation")?)),
        highest_epoch: uint(row.try_get("epoch")?),
    })
}

/// Ties a ledger that belongs to no store to this one.
pub(super) async fn bind(connection: &mut SqliteConnection, store_id: String) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE ledger SET store_id = ? WHERE store_id IS NULL").bind(store_id).execute(connection).await?;
    Ok(())
}

/// Ties the ledger to this store whatever it belonged to, if its generation still is `expected`.
pub(super) async fn adopt(
    connection: &mut SqliteConnection,
    expected: Generation,
    store_id: String,
    by: String,
    now: Micros,
) -> Result<Option<Generation>, sqlx::Error> {
    let standing: (Option<String>, i64) =
        sqlx::query_as("SELECT store_id, generation FROM ledger").fetch_one(&mut *connection).await?;
    let (former, generation) = (standing.0, Generation(uint(standing.1)));
    if generation != expected {
        return Ok(None);
    }
    let next = Generation(generation.0 + 1);
    sqlx::query("UPDATE ledger SET store_id = ?, generation = ?")
        .bind(&store_id)
        .bind(int(next.0))
        .execute(&mut *connection)
        .await?;
    sqlx::query(
        "INSERT INTO adoption (adopted_at, adopted_by, generation, former_store_id, store_id) VALUES (?, ?, ?, ?, ?)",
    )
    .bind(now)
    .bind(by)
    .bind(int(next.0))
    .bind(former)
    .bind(store_id)
    .execute(connection)
    .await?;
    Ok(Some(next))
}

/// The last adoptions, newest first.
pub(super) async fn adoptions(readers: &SqlitePool, limit: u32) -> Result<Vec<Adoption>, sqlx::Error> {
    let rows = sqlx::query("SELECT * FROM adoption ORDER BY id DESC LIMIT ?").bind(limit).fetch_all(readers).await?;
    let adoption = |row: &sqlx::sqlite::SqliteRow| {
        Ok(Adoption {
            time: row.try_get("adopted_at")?,
            by: row.try_get("adopted_by")?,
            generation: Generation(uint(row.try_get("generation")?)),
            former_store_id: row.try_get("former_store_id")?,
            store_id: row.try_get("store_id")?,
        })
    };
    rows.iter().map(adoption).collect()
}

/// Epochs of the fences of the present generation, by mailbox, in no order.
pub(super) async fn fences(readers: &SqlitePool) -> Result<Vec<(MailboxUid, Epoch)>, sqlx::Error> {
    let rows: Vec<(String, i64)> = sqlx::query_as(
        "SELECT uid, epoch FROM mailbox WHERE generation = (SELECT generation FROM ledger) AND epoch > 0",
    )
    .fetch_all(readers)
    .await?;
    let fence = |(uid, epoch): (String, i64)| {
        let uid = MailboxUid::parse(&uid).map_err(|error| sqlx::Error::Decode(error.into()))?;
        Ok((uid, Epoch(uint(epoch))))
    };
    rows.into_iter().map(fence).collect()
}

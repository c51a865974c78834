//! Copies of the store, for backups.

use std::path::Path;

use super::{Error, SCHEMA, Sqlite, failed, unsigned};
use crate::sqlite::copy::{self, Unfit};
use crate::store::Revision;

/// What a copy holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// The store's id.
    pub id: String,
    /// Its newest revision.
    pub revision: Revision,
}

impl Sqlite {
    /// Copies the store as of one moment into a new file; commits go on.
    pub async fn copy_to(&self, path: &Path) -> Result<(), Error> {
        self.database.copy_to(path).await.map_err(|e| failed("copy itself", e))
    }
}

/// Refuses a copy that is broken, or that a newer version made.
pub async fn check(path: &Path) -> Result<(), Unfit> {
    copy::check(&mut copy::look(path).await?, SCHEMA).await
}

/// Says what a copy holds.
pub async fn describe(path: &Path) -> Result<Description, sqlx::Error> {
    use sqlx::Row as _;

    let mut copy = copy::look(path).await?;
    let row = sqlx::query("SELECT id, revision FROM store").fetch_one(&mut copy).await?;
    Ok(Description { id: row.try_get(0)?, revision: Revision(unsigned(&row, 1)?) })
}

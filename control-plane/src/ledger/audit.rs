//! The audit as the ledger keeps it: rows are added, and removed when they are old. A further trait of the same back ends.

use std::sync::Arc;

use async_trait::async_trait;
use postroom_proto::v1;

use super::{Error, Micros};

/// A call that was let in and is about to change something.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Begun {
    /// When.
    pub at: Micros,
    /// Name of the caller.
    pub who: String,
    /// Its role.
    pub role: String,
    /// Its network address; empty: not known.
    pub address: String,
    /// `package.Service/Method`.
    pub rpc: String,
    /// What it is about.
    pub subject: String,
    /// The request, as JSON, without secrets.
    pub detail: String,
}

/// What became of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ended {
    /// When.
    pub at: Micros,
    /// Reason of its failure; empty: it was done.
    pub reason: String,
    /// What the caller was told.
    pub message: String,
    /// What changed, as JSON, without secrets.
    pub detail: String,
}

/// Attempts of one kind that were not let in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Refused {
    /// The first.
    pub call: Begun,
    /// Why.
    pub reason: String,
    /// How many.
    pub count: u64,
    /// When the last one came.
    pub last_at: Micros,
}

/// Which rows to list. Empty fields narrow nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditFilter {
    /// Name or role of the caller.
    pub who: String,
    /// The call: its name, or the end of its path.
    pub rpc: String,
    /// Part of the subject, whatever its case.
    pub subject: String,
    /// From then on.
    pub since: Option<Micros>,
    /// Before then.
    pub until: Option<Micros>,
    /// Only what was not let in, or failed.
    pub refused: bool,
}

/// The audit of an installation.
#[async_trait]
pub trait AuditLog: Send + Sync {
    /// Adds a call; it is durable when this returns. Answers its number.
    async fn begin(&self, call: Begun) -> Result<i64, Error>;

    /// Adds what became of it.
    async fn end(&self, id: i64, ended: Ended) -> Result<(), Error>;

    /// Adds attempts that were not let in.
    async fn refuse(&self, refused: Vec<Refused>) -> Result<(), Error>;

    /// The newest first, from before `before`.
    async fn list(&self, filter: &AuditFilter, before: Option<i64>, limit: usize)
    -> Result<Vec<v1::AuditEntry>, Error>;

    /// Removes what is older than `since`, and all but the newest `refused` rows of attempts that were not let in, some
    /// thousands at a time. Answers how many went.
    async fn forget(&self, since: Micros, refused: u64) -> Result<u64, Error>;
}

/// An audit that can be shared.
pub type SharedAudit = Arc<dyn AuditLog>;

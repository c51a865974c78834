//! Which store a ledger belongs to.

use postroom_proto::id::Generation;

use super::Micros;

/// The store that the ledger belongs to, and what the ledger has seen of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bound {
    /// Id of the store. `None`: it belongs to none yet.
    pub store_id: Option<String>,
    /// What fences are made of, with the epoch and the session.
    pub generation: Generation,
    /// Highest epoch of a fence of this generation.
    pub highest_epoch: u64,
}

/// Another store, or the same one gone back, was taken for the ledger's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adoption {
    /// When.
    pub time: Micros,
    /// By whom.
    pub by: String,
    /// Generation from then on.
    pub generation: Generation,
    /// The store that the ledger belonged to before; `None`: to none.
    pub former_store_id: Option<String>,
    /// The store that it belongs to from then on.
    pub store_id: String,
}

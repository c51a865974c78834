//! What a worker says about itself when it registers.

use serde::{Deserialize, Serialize};

use crate::definition::model::DEFAULT_POOL;

/// What a worker is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// It reads mailboxes.
    #[default]
    Active,
    /// It holds nothing while the active workers of its pool live, and takes the mailboxes of one that died.
    Spare,
}

/// What a worker says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Profile {
    /// Stable name.
    pub worker: String,
    /// Version of its process, for people.
    #[serde(default)]
    pub build: String,
    /// Pool whose mailboxes it reads.
    #[serde(default = "default_pool")]
    pub pool: String,
    /// What it is for, unless an operator has set its role.
    #[serde(default)]
    pub role: Role,
    /// Most mailboxes that it can read; 0: no limit.
    #[serde(default)]
    pub capacity: u32,
}

impl Profile {
    /// An active worker of the default pool that can read any number of mailboxes.
    pub fn new(worker: impl Into<String>) -> Self {
        let (build, role, capacity) = (String::new(), Role::Active, 0);
        Self { worker: worker.into(), build, pool: default_pool(), role, capacity }
    }
}

fn default_pool() -> String {
    DEFAULT_POOL.into()
}

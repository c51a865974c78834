//! What the ledger counts as a whole.

use postroom_proto::v1::{ContactState, Disposition};

use super::Micros;

/// What the ledger counts. Reading it costs the same however many messages and contacts there are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tally {
    /// Instances that have or had contacts, by uid.
    pub instances: Vec<InstanceTally>,
    /// Messages that are no contacts, by disposition.
    pub aside: Vec<(Disposition, u64)>,
    /// Size of the database.
    pub size_bytes: u64,
}

/// The contacts of one instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceTally {
    /// Uid of the instance.
    pub instance_uid: String,
    /// Its name, as one of its contacts has it.
    pub instance: String,
    /// Contacts in each state that there are any in.
    pub contacts: Vec<(ContactState, u64)>,
    /// The contact that waits longest, and since when.
    pub oldest: Option<(String, Micros)>,
}

//! What the ledger counts as a whole.

use postroom_proto::v1::{ContactState, Disposition};

use super::Micros;

/// What the ledger counts. Reading it costs the same however many contacts there are, and more only with messages that are
/// none.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tally {
    /// Instances that have or had contacts, by uid.
    pub instances: Vec<InstanceTally>,
    /// Messages that are no contacts, by disposition.
    pub aside: Vec<(Disposition, u64)>,
    /// Size of the database.
    pub size_bytes: u64,
}

/// Most contacts that are counted of a queue: counting costs with each.
pub const MOST_COUNTED: u64 = 10_000;

/// The contacts that wait in one queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueWaiting {
    /// Uid of the queue.
    pub queue_uid: String,
    /// How many wait; [`MOST_COUNTED`]: so many or more.
    pub count: u64,
    /// Since when the one waits that waits longest.
    pub oldest: Option<Micros>,
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

//! How takers learn that contacts wait: one counter an instance, raised after the commit that queued them.
//!
//! A raise that nobody waits for is not lost: a taker subscribes before it looks, so it sees either the contact or the
//! raise.

use std::collections::HashMap;
use std::sync::Mutex;

use tokio::sync::watch;

/// The counters of all instances.
#[derive(Debug, Default)]
pub struct Arrivals {
    // Held only to look up or insert, never across an await.
    counters: Mutex<HashMap<String, watch::Sender<u64>>>,
}

impl Arrivals {
    /// Tells the takers of an instance to look again.
    pub fn raise(&self, instance_uid: &str) {
        let counters = self.counters.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(counter) = counters.get(instance_uid) {
            counter.send_modify(|count| *count += 1);
        }
    }

    /// A receiver that changes when contacts of the instance were queued after this call.
    pub fn subscribe(&self, instance_uid: &str) -> watch::Receiver<u64> {
        let mut counters = self.counters.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        counters.entry(instance_uid.into()).or_insert_with(|| watch::channel(0).0).subscribe()
    }
}

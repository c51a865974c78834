//! Calls the session of a mailbox back to the control plane: the ledger has something to settle that it does not know of.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

/// Which sessions can be recalled. One for all mailboxes of a worker.
#[derive(Debug, Clone, Default)]
pub struct Recalls {
    // Held only to look up or insert, never across an await.
    counters: Arc<Mutex<HashMap<String, watch::Sender<u64>>>>,
}

impl Recalls {
    /// A receiver that changes when the mailbox is recalled after this call.
    pub fn subscribe(&self, mailbox: &str) -> watch::Receiver<u64> {
        let mut counters = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        // Those of mailboxes that were let go are of no use to anybody.
        counters.retain(|known, counter| known == mailbox || counter.receiver_count() > 0);
        counters.entry(mailbox.to_owned()).or_insert_with(|| watch::channel(0).0).subscribe()
    }

    /// Recalls the session of a mailbox. `false`: this worker does not read it.
    pub fn recall(&self, mailbox: &str) -> bool {
        let counters = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(counter) = counters.get(mailbox).filter(|counter| counter.receiver_count() > 0) else { return false };
        counter.send_modify(|count| *count += 1);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_session_of_the_mailbox_is_recalled() {
        let recalls = Recalls::default();
        assert!(!recalls.recall("a"));
        let (a, b) = (recalls.subscribe("a"), recalls.subscribe("b"));
        assert!(recalls.recall("a"));
        assert!(a.has_changed().expect("a sender") && !b.has_changed().expect("a sender"));
        drop(a);
        assert!(!recalls.recall("a"), "it was let go");
        assert!(!recalls.subscribe("a").has_changed().expect("a sender"), "a new session has not been recalled");
    }
}

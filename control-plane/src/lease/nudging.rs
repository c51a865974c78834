//! Raises nudges from the store, so that whichever replica a session listens at tells it.
//!
//! What was assigned names its session. What was decided about a worker, or about the fleet, does not say whom it moves:
//! everybody is nudged, since decisions are rare and a heartbeat costs little. That nudge waits a moment, in which the
//! leader asks those to let go that have to.

use std::time::Duration;

use postroom_proto::id::SessionId;
use tokio_util::sync::CancellationToken;

use super::following::changes;
use super::nudge::Nudges;
use super::record::AssignmentRecord;
use crate::failure::chain;
use crate::store::{Error, SharedStore, key};

/// Time in which a leader acts on a decision.
const DECIDED: Duration = Duration::from_millis(150);
/// Pause before a store that failed is watched again.
const AGAIN: Duration = Duration::from_secs(1);

/// Follows the store until told to stop.
pub async fn run(store: SharedStore, nudges: Nudges, stop: CancellationToken) {
    loop {
        let decided = tokio::sync::Notify::new();
        let follow = changes(&store, [key::ASSIGNMENTS, key::WORKERS, key::FREEZE], |changes| {
            for change in changes {
                if !change.key.starts_with(key::ASSIGNMENTS) {
                    decided.notify_one();
                } else if let Some(session) = change.value.as_deref().and_then(owner) {
                    nudges.raise(&session);
                }
            }
        });
        let later = async {
            loop {
                decided.notified().await;
                tokio::time::sleep(DECIDED).await;
                nudges.raise_all();
            }
        };
        let error = tokio::select! {
            () = stop.cancelled() => return,
            Err(error) = follow => error,
            () = later => continue,
        };
        if !matches!(error, Error::Compacted { .. }) {
            tracing::warn!(error = chain(&error), "assignments cannot be watched; trying again");
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(AGAIN) => {}
            }
        }
        // What happened meanwhile was missed.
        nudges.raise_all();
    }
}

fn owner(value: &[u8]) -> Option<SessionId> {
    SessionId::parse(&AssignmentRecord::decode(value)?.session).ok()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use futures::StreamExt as _;
    use postroom_proto::id::MailboxUid;
    use postroom_proto::v1::MoveReason;
    use tokio::time::timeout;

    use super::*;
    use crate::lease::decision::Decision;
    use crate::store::Write;
    use crate::store::sqlite::Sqlite;

    /// Reached only when something hangs.
    const PATIENCE: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn who_is_given_something_is_nudged_and_everybody_when_something_is_decided() {
        let folder = tempfile::tempdir().unwrap();
        let store: SharedStore = Arc::new(Sqlite::open(&folder.path().join("store.db")).await.unwrap());
        let stop = CancellationToken::new();
        let nudges = Nudges::new(stop.clone());
        let (one, other) = (SessionId::random(), SessionId::random());
        let (mut first, mut second) = (nudges.listen(&one).unwrap(), nudges.listen(&other).unwrap());
        let running = tokio::spawn(run(store.clone(), nudges.clone(), stop.clone()));
        // What happened before they listened.
        assert_eq!((first.next().await, second.next().await), (Some(()), Some(())));

        let mailbox = MailboxUid::derive("a@b.example", "INBOX", "b.example");
        let record = AssignmentRecord::new(&one, None, 0, MoveReason::New, None).encode();
        let commit = async |key: String, value: Bytes| {
            store.commit(vec![], vec![Write::Put(key, value)]).await.unwrap();
        };
        // The watch may begin after the first write, so it is repeated until it is heard.
        loop {
            commit(key::assignment(&mailbox), record.clone()).await;
            if timeout(Duration::from_millis(200), first.next()).await.is_ok() {
                break;
            }
        }
        assert!(timeout(Duration::from_millis(50), second.next()).await.is_err(), "not the other");
        commit(key::worker("w"), Decision::new(0, "operator").encode()).await;
        assert_eq!(timeout(PATIENCE, second.next()).await.unwrap(), Some(()));
        stop.cancel();
        timeout(PATIENCE, running).await.unwrap().unwrap();
    }
}

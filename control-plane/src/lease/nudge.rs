//! Nudges: they tell a session that a heartbeat is worth sending before its time.
//!
//! They carry nothing and may be lost: authority comes from heartbeats alone. Several in a row are one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::stream::{self, BoxStream, StreamExt as _};
use postroom_proto::id::SessionId;
use postroom_proto::reason::{Failure, Reason};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Most sessions that listen here.
const LISTENERS: usize = 4096;

type Listeners = HashMap<SessionId, watch::Sender<()>>;

/// Who listens, by session. Cheap to share.
#[derive(Debug, Clone)]
pub struct Nudges {
    listeners: Arc<Mutex<Listeners>>,
    stopping: CancellationToken,
}

impl Nudges {
    /// Nobody listens yet. `stopping` ends every stream.
    pub fn new(stopping: CancellationToken) -> Self {
        Self { listeners: Arc::default(), stopping }
    }

    /// Nudges a session, if it listens here.
    pub fn raise(&self, session: &SessionId) {
        if let Some(listener) = self.lock().get(session) {
            listener.send_replace(());
        }
    }

    /// Nudges everybody who listens here.
    pub fn raise_all(&self) {
        for listener in self.lock().values() {
            listener.send_replace(());
        }
    }

    /// One item for each nudge from now on, and one at once, for what happened before.
    pub fn listen(&self, session: &SessionId) -> Result<BoxStream<'static, ()>, Failure> {
        let mut listeners = self.lock();
        if listeners.len() >= LISTENERS && !listeners.contains_key(session) {
            return Err(Failure::new(Reason::TooMany, format!("{LISTENERS} sessions listen for nudges already")));
        }
        let mut nudges = listeners.entry(session.clone()).or_insert_with(|| watch::Sender::new(())).subscribe();
        nudges.mark_changed();
        let place = Place { nudges, session: session.clone(), all: self.clone() };
        let told = stream::unfold(place, async |mut place| {
            let changed = tokio::select! {
                () = place.all.stopping.cancelled() => return None,
                changed = place.nudges.changed() => changed,
            };
            changed.ok().map(|()| ((), place))
        });
        Ok(told.boxed())
    }

    fn lock(&self) -> MutexGuard<'_, Listeners> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A listener's place, free again once the last stream of its session is dropped.
struct Place {
    nudges: watch::Receiver<()>,
    session: SessionId,
    all: Nudges,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut listeners = self.all.lock();
        // This one still counts.
        if listeners.get(&self.session).is_some_and(|listener| listener.receiver_count() <= 1) {
            listeners.remove(&self.session);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn a_listener_hears_its_own_nudges_and_what_came_before_it() {
        let nudges = Nudges::new(CancellationToken::new());
        let (one, other) = (SessionId::random(), SessionId::random());
        nudges.raise(&one);
        let mut heard = nudges.listen(&one).unwrap();
        assert_eq!(heard.next().now_or_never(), Some(Some(())), "what happened before");
        nudges.raise(&other);
        assert_eq!(heard.next().now_or_never(), None);
        nudges.raise(&one);
        nudges.raise(&one);
        assert_eq!(heard.next().now_or_never(), Some(Some(())));
        assert_eq!(heard.next().now_or_never(), None, "several are one");
    }

    #[tokio::test]
    async fn places_are_given_back_and_stopping_ends_all() {
        let stopping = CancellationToken::new();
        let nudges = Nudges::new(stopping.clone());
        let session = SessionId::random();
        let (first, mut second) = (nudges.listen(&session).unwrap(), nudges.listen(&session).unwrap());
        drop(first);
        assert_eq!(nudges.lock().len(), 1);
        assert_eq!(second.next().now_or_never(), Some(Some(())));
        stopping.cancel();
        assert_eq!(second.next().await, None);
        drop(second);
        assert!(nudges.lock().is_empty());
    }
}

//! Connections to SMTP servers: how many a sending mailbox may have at once, and which are kept for a further mail.
//!
//! Exchange takes three connections of a mailbox and refuses the fourth, whoever opens it. The control plane sees to it
//! that no more than three mails of a mailbox are claimed in the whole fleet; idle connections of several workers would
//! still add up to more. So by default a connection is kept only for a mail that this worker has claimed already and that
//! waits for one; a worker that is the only one may keep it longer.
//!
//! Invariant: of one mailbox at most [`MOST`] connections are open here, used, kept or about to end.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use postroom_proto::v1::{OutgoingAuthentication, OutgoingDefinition};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

/// Most connections of a sending mailbox.
pub const MOST: usize = 3;
/// A connection whose token ends within this time is not used any more.
const TOKEN_MARGIN: Duration = Duration::from_secs(60);

/// Who sends: host and user, or host and sender where nobody signs in.
type Mailbox = (String, String);
/// Connections of one mailbox that differ in this are not exchanged for one another.
type Fit = (String, Vec<u8>, u32, i32, String, String);

/// The connections of a worker.
#[derive(Debug)]
pub struct Pool<C> {
    /// How long a connection is kept that no claimed mail waits for.
    idle: Duration,
    lanes: Mutex<HashMap<Mailbox, Arc<Lane<C>>>>,
}

#[derive(Debug)]
struct Lane<C> {
    room: Arc<Semaphore>,
    state: Mutex<State<C>>,
}

#[derive(Debug)]
struct State<C> {
    kept: Vec<Idle<C>>,
    /// Claimed mails that have no connection yet.
    waiting: usize,
}

#[derive(Debug)]
struct Idle<C> {
    connection: C,
    fit: Fit,
    since: Instant,
    ends: Option<Instant>,
}

impl<C> Lane<C> {
    fn lock(&self) -> MutexGuard<'_, State<C>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<C> Pool<C> {
    /// No connections. `idle`: how long one is kept that no claimed mail waits for.
    pub fn new(idle: Duration) -> Self {
        Self { idle, lanes: Mutex::default() }
    }

    /// A mail is claimed that will need a connection.
    pub fn expect(&self, definition: &OutgoingDefinition, sender: &str) -> Expectation<C> {
        let user = if definition.authentication() == OutgoingAuthentication::None { sender } else { &definition.user };
        let mailbox = (definition.host.to_lowercase(), user.to_lowercase());
        let fit = (
            definition.uid.clone(),
            definition.credentials_digest.clone(),
            definition.port,
            definition.security,
            definition.ca_file.clone(),
            definition.proxy.clone(),
        );
        let lane = {
            let mut lanes = self.lock();
            let new = || Arc::new(Lane { room: Arc::new(Semaphore::new(MOST)), state: Mutex::new(State::new()) });
            lanes.entry(mailbox).or_insert_with(new).clone()
        };
        lane.lock().waiting += 1;
        Expectation { lane, fit, idle: self.idle, met: false }
    }

    /// Connections that were kept long enough, to be closed. To be called from time to time.
    pub fn sweep(&self, now: Instant) -> Vec<Over<C>> {
        let mut over = Vec::new();
        self.lock().retain(|_, lane| {
            let mut state = lane.lock();
            let kept = std::mem::take(&mut state.kept);
            for idle in kept {
                let is_over = idle.since + self.idle <= now && state.waiting == 0 || idle.is_stale(now);
                // Without room somebody is about to take what is kept, or to close it.
                match is_over.then(|| lane.room.clone().try_acquire_owned()) {
                    Some(Ok(room)) => over.push(Over { connection: idle.connection, room: Some(room) }),
                    Some(Err(_)) | None => state.kept.push(idle),
                }
            }
            // One that is about to end has its room from here.
            !state.kept.is_empty() || Arc::strong_count(lane) > 1 || lane.room.available_permits() < MOST
        });
        over
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Mailbox, Arc<Lane<C>>>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<C> State<C> {
    fn new() -> Self {
        Self { kept: Vec::new(), waiting: 0 }
    }

    /// No more are kept than mails wait for.
    fn trim(&mut self, idle: Duration) {
        if idle.is_zero() && self.kept.len() > self.waiting {
            let waiting = self.waiting;
            self.kept.truncate(waiting);
        }
    }
}

impl<C> Idle<C> {
    fn is_stale(&self, now: Instant) -> bool {
        self.ends.is_some_and(|ends| ends < now + TOKEN_MARGIN)
    }
}

/// A claimed mail that has no connection yet.
#[derive(Debug)]
pub struct Expectation<C> {
    lane: Arc<Lane<C>>,
    fit: Fit,
    idle: Duration,
    met: bool,
}

impl<C> Expectation<C> {
    /// Waits until the mailbox may have one more connection in use.
    pub async fn seat(self) -> Seat<C> {
        // Never closed; without room a seat would only be one too many.
        let room = self.lane.room.clone().acquire_owned().await.ok();
        Seat { expectation: self, _room: room }
    }
}

impl<C> Drop for Expectation<C> {
    fn drop(&mut self) {
        let mut state = self.lane.lock();
        if !self.met {
            state.waiting = state.waiting.saturating_sub(1);
        }
        state.trim(self.idle);
    }
}

/// A connection that is of no use any more. Until it is closed and this is dropped it counts.
#[derive(Debug)]
pub struct Over<C> {
    /// The connection.
    pub connection: C,
    pub(super) room: Option<OwnedSemaphorePermit>,
}

/// Leave to have one connection in use.
#[derive(Debug)]
pub struct Seat<C> {
    expectation: Expectation<C>,
    _room: Option<OwnedSemaphorePermit>,
}

impl<C> Seat<C> {
    /// A kept connection that fits, with the moment when it ends; and those that are of no use any more, to be closed.
    /// With none, one may be opened.
    pub fn take(&mut self, now: Instant) -> (Option<(C, Option<Instant>)>, Vec<C>) {
        let expectation = &mut self.expectation;
        let mut state = expectation.lane.lock();
        if !std::mem::replace(&mut expectation.met, true) {
            state.waiting = state.waiting.saturating_sub(1);
        }
        let (mut found, mut of_no_use) = (None, Vec::new());
        for idle in std::mem::take(&mut state.kept) {
            if idle.is_stale(now) || idle.fit != expectation.fit {
                of_no_use.push(idle.connection);
            } else if found.is_none() {
                found = Some((idle.connection, idle.ends));
            } else {
                state.kept.push(idle);
            }
        }
        (found, of_no_use)
    }

    /// Keeps a connection for a further mail. One for which there is no use is given back, to be closed.
    pub fn keep(self, connection: C, ends: Option<Instant>) -> Option<Over<C>> {
        let now = Instant::now();
        let Self { expectation, _room: room } = self;
        let mut state = expectation.lane.lock();
        let idle = Idle { connection, fit: expectation.fit.clone(), since: now, ends };
        let wanted = !expectation.idle.is_zero() || state.kept.len() < state.waiting;
        if !wanted || idle.is_stale(now) {
            return Some(Over { connection: idle.connection, room });
        }
        state.kept.push(idle);
        None
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    const LONG: Duration = Duration::from_secs(55);

    fn definition(user: &str) -> OutgoingDefinition {
        OutgoingDefinition { host: "smtp.x.example".into(), user: user.into(), ..OutgoingDefinition::default() }
    }

    /// Closes it.
    fn closed(over: Option<Over<u32>>) -> Option<u32> {
        over.map(|over| over.connection)
    }

    fn soon(seat: impl Future<Output = Seat<u32>>) -> Seat<u32> {
        seat.now_or_never().expect("room")
    }

    #[tokio::test]
    async fn a_mailbox_has_three_seats_and_another_has_its_own() {
        let pool: Pool<u32> = Pool::new(Duration::ZERO);
        let seats: Vec<_> = (0..MOST).map(|_| soon(pool.expect(&definition("a@x"), "s@x").seat())).collect();
        let mut fourth = Box::pin(pool.expect(&definition("A@X"), "s@x").seat());
        assert!((&mut fourth).now_or_never().is_none());
        soon(pool.expect(&definition("b@x"), "s@x").seat());
        drop(seats);
        soon(fourth);
    }

    #[tokio::test]
    async fn a_connection_is_kept_for_a_mail_that_waits_and_else_for_no_time() {
        let pool = Pool::new(Duration::ZERO);
        let mut first = soon(pool.expect(&definition("a@x"), "s@x").seat());
        assert!(first.take(Instant::now()).0.is_none());
        assert_eq!(closed(first.keep(7, None)), Some(7), "nobody waits");
        let mut first = soon(pool.expect(&definition("a@x"), "s@x").seat());
        assert!(first.take(Instant::now()).0.is_none());
        let next = pool.expect(&definition("a@x"), "s@x");
        assert_eq!(closed(first.keep(8, None)), None);
        let mut next = soon(next.seat());
        assert_eq!(next.take(Instant::now()).0, Some((8, None)));
        assert_eq!(closed(next.keep(8, None)), Some(8));
        // One that waited and was given up leaves nothing behind.
        let mut first = soon(pool.expect(&definition("a@x"), "s@x").seat());
        first.take(Instant::now());
        let given_up = pool.expect(&definition("a@x"), "s@x");
        assert_eq!(closed(first.keep(9, None)), None);
        drop(given_up);
        let mut last = soon(pool.expect(&definition("a@x"), "s@x").seat());
        assert!(last.take(Instant::now()).0.is_none());
    }

    #[tokio::test]
    async fn the_only_worker_keeps_connections_for_a_while() {
        let pool = Pool::new(LONG);
        let seat = || soon(pool.expect(&definition("a@x"), "s@x").seat());
        let now = Instant::now();
        let mut first = seat();
        first.take(now);
        assert_eq!(closed(first.keep(1, None)), None);
        assert!(pool.sweep(now).is_empty());
        let mut second = seat();
        assert_eq!(second.take(now).0, Some((1, None)));
        assert_eq!(closed(second.keep(1, None)), None);
        let swept = pool.sweep(Instant::now() + LONG);
        assert_eq!(swept.iter().map(|over| over.connection).collect::<Vec<_>>(), [1]);
        let seats: Vec<_> = (1..MOST).map(|_| seat()).collect();
        let mut last = Box::pin(pool.expect(&definition("a@x"), "s@x").seat());
        assert!((&mut last).now_or_never().is_none(), "what is about to end counts");
        drop(swept);
        soon(last);
        drop(seats);
        assert!(pool.sweep(Instant::now() + LONG).is_empty());
        assert!(pool.lock().is_empty(), "nothing is left of the mailbox");
    }

    #[tokio::test]
    async fn what_ends_with_its_token_or_belongs_to_other_credentials_is_not_used() {
        let pool = Pool::new(LONG);
        let now = Instant::now();
        let soon_over = Some(now + TOKEN_MARGIN / 2);
        let mut first = soon(pool.expect(&definition("a@x"), "s@x").seat());
        first.take(now);
        assert_eq!(closed(first.keep(1, soon_over)), Some(1));
        let mut second = soon(pool.expect(&definition("a@x"), "s@x").seat());
        second.take(now);
        assert_eq!(closed(second.keep(2, Some(now + TOKEN_MARGIN * 2))), None);
        let changed = OutgoingDefinition { credentials_digest: vec![1], ..definition("a@x") };
        let mut other = soon(pool.expect(&changed, "s@x").seat());
        assert_eq!(other.take(now), (None, vec![2]));
        assert_eq!(closed(other.keep(3, Some(now + TOKEN_MARGIN * 2))), None);
        let mut late = soon(pool.expect(&changed, "s@x").seat());
        assert_eq!(late.take(now + TOKEN_MARGIN + Duration::from_secs(1)), (None, vec![3]));
    }
}

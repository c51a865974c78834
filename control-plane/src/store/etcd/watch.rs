//! A watch that goes on by itself: over restarts of etcd, changes of its leader, broken, silent and half-open streams.
//!
//! What it cannot go over it tells: history that was compacted, and a store that went back because it was restored or
//! emptied. Whoever watches then lists again.
//!
//! Three things are not as they seem (etcd 3.4). A stream that was refused says `created` first and `canceled` after it. The
//! revision of a progress report can be ahead of changes that are still to come, so only changes move the position. And
//! a compaction at a revision takes the removals of that very revision along, though a watch from there is accepted; so a
//! stream starts one revision early.

use std::collections::VecDeque;
use std::time::Duration;

use async_trait::async_trait;
use etcd_client::{Client, Error as ClientError, Event, EventType, WatchOptions, WatchResponse, WatchStream};
use futures::future::BoxFuture;
use tokio::time::{Instant, sleep_until, timeout};

use super::fault::Kind;
use super::members::LARGEST_ANSWER;
use super::read::{signed, unsigned};
use super::{Etcd, Fault};
use crate::store::{Change, Error, Revision, Watch};

/// Pauses after a stream that told nothing.
const PAUSE: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// Refusals in a row after which they are told. The first may be those of a token that has ended.
const REFUSALS: u32 = 3;

/// A watch, wherever its stream is.
///
/// Invariant: dropping the future of [`next`](Watch::next) loses nothing. What is taken from the stream is kept here
/// before anything else is waited for.
pub(super) struct Follower {
    store: Etcd,
    /// Prefix of the watched keys, in etcd.
    prefix: Vec<u8>,
    /// The first revision that was not told yet.
    next: Revision,
    /// The highest revision that etcd was seen at.
    seen: Revision,
    /// A lower one that a message came with. The member may lag behind, or the store went back.
    suspect: Option<Revision>,
    stream: Option<Stream>,
    /// The next stream while it is being opened. Kept, so that somebody who looks in often does not begin it for ever.
    beginning: Option<BoxFuture<'static, Result<Begun, (usize, Fault)>>>,
    /// Changes that were received together, one commit each.
    received: VecDeque<Vec<Change>>,
    /// Not before then is another stream begun.
    again: Instant,
    pause: Duration,
    refusals: u32,
    /// Streams that were begun.
    #[cfg(test)]
    begun: u32,
}

struct Stream {
    member: usize,
    messages: WatchStream,
    heard: Instant,
    /// When it was asked how far it is; it has said nothing since.
    asked: Option<Instant>,
}

/// A member, its stream, and the first message of it.
type Begun = (usize, WatchStream, WatchResponse);

/// Why a stream ended.
#[derive(Debug)]
enum End {
    /// Broken or silent: another one goes on.
    Broken(Fault),
    /// etcd does not want to.
    Refused(Fault),
    /// History is gone up to this revision.
    Compacted(Revision),
}

impl Follower {
    pub(super) async fn start(store: &Etcd, prefix: &str, from: Revision) -> Result<Self, Error> {
        let seen = store.position().await.map_err(|fault| fault.during("watch"))?;
        let mut follower = Self {
            prefix: store.full(prefix),
            store: store.clone(),
            next: Revision(from.0.max(1)),
            seen,
            suspect: None,
            stream: None,
            beginning: None,
            received: VecDeque::new(),
            again: Instant::now(),
            pause: PAUSE,
            refusals: 0,
            #[cfg(test)]
            begun: 0,
        };
        if store.is_gone(follower.start_revision()).await.map_err(|fault| fault.during("watch"))? {
            return Err(follower.compacted().await);
        }
        Ok(follower)
    }

    /// One before the first revision that is still to be told; see above.
    fn start_revision(&self) -> Revision {
        Revision((self.next.0 - 1).max(1))
    }

    /// Says how far history goes back, which only a stream that begins too early is told.
    async fn compacted(&mut self) -> Error {
        let told = timeout(self.store.times.call, async {
            loop {
                match self.receive().await {
                    Err(End::Compacted(at)) => return oldest(at),
                    Err(End::Broken(_) | End::Refused(_)) => sleep_until(self.again).await,
                    Ok(()) => {}
                }
            }
        });
        told.await.unwrap_or_else(|_| oldest(self.seen))
    }

    /// Waits for one message and keeps what it says. Begins a stream when there is none.
    async fn receive(&mut self) -> Result<(), End> {
        let received = match &mut self.stream {
            Some(stream) => stream.message(&self.store).await,
            None => self.begin().await,
        };
        let kept = match received {
            Ok(message) => self.keep(&message),
            Err((member, fault)) if fault.kind == Kind::Refused => Err((member, End::Refused(fault))),
            Err((member, fault)) => Err((member, End::Broken(fault))),
        };
        kept.map_err(|(member, end)| {
            self.stream = None;
            self.again = Instant::now() + self.pause;
            self.pause = (self.pause * 2).min(PAUSE_MAX);
            self.store.members.pass_over(member);
            end
        })
    }

    /// Begins a stream. Answers with its first message.
    async fn begin(&mut self) -> Result<WatchResponse, (usize, Fault)> {
        if self.beginning.is_none() {
            sleep_until(self.again).await;
        }
        let options = WatchOptions::new().with_prefix().with_start_revision(signed(self.start_revision()));
        let begun = self
            .beginning
            .get_or_insert_with(|| Box::pin(open(self.store.clone(), self.prefix.clone(), options)))
            .await;
        self.beginning = None;
        let (member, messages, first) = begun?;
        #[cfg(test)]
        {
            self.begun += 1;
        }
        self.stream = Some(Stream { member, messages, heard: Instant::now(), asked: None });
        Ok(first)
    }

    #[cfg(test)]
    pub(super) fn streams(&self) -> u32 {
        self.begun
    }

    /// Keeps what a message says.
    fn keep(&mut self, message: &WatchResponse) -> Result<(), (usize, End)> {
        let member = self.stream.as_ref().map_or(0, |stream| stream.member);
        if message.compact_revision() > 0 {
            return Err((member, End::Compacted(unsigned(message.compact_revision()))));
        }
        if message.canceled() {
            let fault = self.store.members.fault_of(member, Kind::Refused, message.cancel_reason());
            return Err((member, End::Refused(fault)));
        }
        self.refusals = 0;
        if !message.created() {
            self.pause = PAUSE;
        }
        let at = message.header().map(|header| unsigned(header.revision())).unwrap_or_default();
        if at < self.seen {
            self.suspect = Some(at);
        }
        self.seen = self.seen.max(at);
        for commit in commits(message.events()) {
            let Some(revision) = commit.first().map(revision) else { continue };
            if revision < self.next {
                continue;
            }
            let changes = commit.iter().map(|event| self.change(event)).collect::<Result<Vec<_>, _>>();
            let mut changes = changes.map_err(|fault| (member, End::Broken(fault)))?;
            changes.sort_by(|a, b| a.key.cmp(&b.key));
            self.received.push_back(changes);
            self.next = Revision(revision.0 + 1);
        }
        Ok(())
    }

    fn change(&self, event: &Event) -> Result<Change, Fault> {
        let found = event.kv().ok_or_else(|| self.store.members.strange("a change of nothing"))?;
        let value = (event.event_type() == EventType::Put).then(|| found.value().to_vec().into());
        Ok(Change { key: self.store.own(found.key())?, value, revision: revision(event) })
    }

    /// Asks the majority whether the store went back, or a member only lags behind.
    async fn look_back(&mut self) -> Result<(), Error> {
        let Ok(found) = self.store.position().await else { return Ok(()) };
        self.suspect = None;
        if found < self.seen { Err(Error::WentBack { seen: self.seen, found }) } else { Ok(()) }
    }
}

/// A new stream at the member that calls go to, with its first message.
async fn open(store: Etcd, prefix: Vec<u8>, options: WatchOptions) -> Result<Begun, (usize, Fault)> {
    let member = store.members.preferred();
    let begun = store.members.call(member, store.times.call, |client: Client| {
        let (prefix, options) = (prefix.clone(), options.clone());
        async move {
            let mut watching = client.watch_client().max_decoding_message_size(LARGEST_ANSWER);
            let mut messages = watching.watch(prefix, Some(options)).await?;
            let first = messages.message().await?;
            Ok((messages, first.ok_or_else(|| ClientError::WatchError("it ended at once".to_owned()))?))
        }
    });
    let (messages, first) = begun.await.map_err(|fault| (member, fault))?;
    Ok((member, messages, first))
}

impl Stream {
    /// The next message. Asks a silent stream how far it is, and gives up one that does not say.
    async fn message(&mut self, store: &Etcd) -> Result<WatchResponse, (usize, Fault)> {
        let times = store.times;
        loop {
            let until = match self.asked {
                Some(asked) => asked + times.silence.saturating_sub(times.ask),
                None => self.heard + times.ask,
            };
            tokio::select! {
                // What has come while nobody looked is no silence.
                biased;
                message = self.messages.message() => {
                    (self.heard, self.asked) = (Instant::now(), None);
                    return match message {
                        Ok(Some(message)) => Ok(message),
                        Ok(None) => Err(store.members.fault_of(self.member, Kind::Doubtful, "the watch has ended")),
                        Err(error) => Err(store.members.failed(self.member, &error)),
                    }
                    .map_err(|fault| (self.member, fault));
                }
                () = sleep_until(until) => {
                    let silent = store.members.fault_of(self.member, Kind::Doubtful, "the watch is silent");
                    if self.asked.is_some() || self.messages.request_progress().await.is_err() {
                        return Err((self.member, silent));
                    }
                    self.asked = Some(Instant::now());
                }
            }
        }
    }
}

#[async_trait]
impl Watch for Follower {
    async fn next(&mut self) -> Result<Vec<Change>, Error> {
        loop {
            if self.suspect.is_some() {
                self.look_back().await?;
            }
            if let Some(changes) = self.received.pop_front() {
                return Ok(changes);
            }
            match self.receive().await {
                Ok(()) => {}
                Err(End::Compacted(at)) => return Err(oldest(at)),
                Err(End::Broken(fault)) => tracing::debug!(error = %fault, "a watch begins anew"),
                Err(End::Refused(fault)) => {
                    self.refusals += 1;
                    if self.refusals > REFUSALS {
                        return Err(fault.during("watch"));
                    }
                    tracing::debug!(error = %fault, "a watch was refused");
                    // A watch with a token that has ended is refused, where a call would get a new one.
                    if let Err(fault) = self.store.members.sign_in(self.store.members.preferred()).await {
                        tracing::debug!(error = %fault, "cannot sign in again");
                    }
                }
            }
        }
    }
}

/// The changes of each commit. etcd never spreads one over two messages, unless it is asked to.
fn commits(events: &[Event]) -> impl Iterator<Item = &[Event]> {
    events.chunk_by(|one, other| revision(one) == revision(other))
}

fn revision(event: &Event) -> Revision {
    event.kv().map(|found| unsigned(found.mod_revision())).unwrap_or_default()
}

fn oldest(compacted_at: Revision) -> Error {
    Error::Compacted { oldest: Revision(compacted_at.0 + 1) }
}

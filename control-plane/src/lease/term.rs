//! One term of office: the desk, and everything that is under way at the store for it.

use std::collections::{BTreeSet, VecDeque};

use futures::StreamExt as _;
use futures::future::{BoxFuture, OptionFuture};
use futures::stream::FuturesUnordered;
use postroom_proto::id::SessionId;
use postroom_proto::lease::Moment;
use postroom_proto::reason::{Failure, Reason};
use tokio::sync::oneshot;

use super::desk::{Desk, EndSession, Heartbeat, Session, Settled};
use super::handle::Offers;
use super::leader::{Confirmed, Office};
use super::plan::Mailbox;
use super::profile::Profile;
use super::record::{SessionRecord, session};
use super::writing::{Batch, Done, carry_out};
use crate::clock;
use crate::store::{Error, Guard, Outcome, Revision, SharedStore, Write, key};

/// Most commits under way.
const WRITING: usize = 8;
/// Most registrations, and most sessions that are looked up, at one time.
const CALLING: usize = 64;

/// Something that was under way at the store has come to its end.
pub(super) enum News {
    Written(Done),
    Registered(Registered),
    LookedUp(LookedUp),
    Confirmed(Confirmed),
}

/// A session whose record was written, or not.
pub(super) struct Registered {
    session: Session,
    outcome: Result<Outcome, Error>,
    answer: oneshot::Sender<Result<SessionId, Failure>>,
}

/// A session that the desk did not know, as the store has it.
pub(super) struct LookedUp {
    heartbeat: Heartbeat,
    found: Result<Option<Session>, Error>,
    answer: oneshot::Sender<Result<Offers, Failure>>,
}

/// One term of office.
pub(super) struct Term {
    pub(super) office: Office,
    pub(super) desk: Desk,
    /// What should be read, and the revision of the model that says so.
    pub(super) mailboxes: Vec<Mailbox>,
    pub(super) revision: Option<u64>,
    writing: FuturesUnordered<BoxFuture<'static, Done>>,
    waiting: VecDeque<Batch>,
    registering: FuturesUnordered<BoxFuture<'static, Registered>>,
    looking_up: FuturesUnordered<BoxFuture<'static, LookedUp>>,
    confirming: Option<BoxFuture<'static, Confirmed>>,
    leaving: Vec<(SessionId, oneshot::Sender<Result<(), Failure>>)>,
    store: SharedStore,
}

impl Term {
    pub(super) fn new(office: Office, desk: Desk, store: SharedStore) -> Self {
        Self {
            office,
            desk,
            mailboxes: Vec::new(),
            revision: None,
            writing: FuturesUnordered::new(),
            waiting: VecDeque::new(),
            registering: FuturesUnordered::new(),
            looking_up: FuturesUnordered::new(),
            confirming: None,
            leaving: Vec::new(),
            store,
        }
    }

    /// What came to its end next. Never returns while nothing is under way.
    pub(super) async fn next(&mut self) -> News {
        tokio::select! {
            Some(done) = self.writing.next() => News::Written(done),
            Some(registered) = self.registering.next() => News::Registered(registered),
            Some(found) = self.looking_up.next() => News::LookedUp(found),
            Some(confirmed) = OptionFuture::from(self.confirming.as_mut()) => {
                self.confirming = None;
                News::Confirmed(confirmed)
            }
            else => std::future::pending().await,
        }
    }

    /// Begins to confirm the office, unless that is under way.
    pub(super) fn confirm(&mut self, sent: Moment) {
        if let Some(confirming) = self.office.confirm(sent) {
            self.confirming = Some(confirming);
        }
    }

    /// Gives the office up, after what is under way with it.
    pub(super) async fn resign(mut self) {
        if let Some(confirming) = self.confirming.take() {
            // Whatever it says, the office ends here.
            let _ = self.office.confirmed(confirming.await);
        }
        self.office.resign().await;
    }

    /// Writes the record of a session that begins.
    pub(super) fn register(&mut self, profile: Profile, answer: oneshot::Sender<Result<SessionId, Failure>>) {
        if self.registering.len() >= CALLING {
            return drop(answer.send(Err(busy())));
        }
        let (id, begun) = (SessionId::random(), clock::now());
        let at = key::session(&id);
        let value = SessionRecord::begun(profile.clone(), begun).encode();
        let guards = vec![self.office.guard(), Guard::Absent(at.clone())];
        let store = self.store.clone();
        let begun = Some(begun);
        self.registering.push(Box::pin(async move {
            let outcome = store.commit(guards, vec![Write::Put(at, value)]).await;
            let revision = if let Ok(Outcome::Committed(revision)) = &outcome { *revision } else { Revision(0) };
            Registered { session: Session { id, profile, begun, ended: None, revision }, outcome, answer }
        }));
    }

    /// The record is written, or not. Answers the worker.
    pub(super) fn registered(&mut self, now: Moment, registered: Registered) {
        let Registered { session, outcome, answer } = registered;
        let result = match outcome {
            Err(error) => Err(error.into()),
            Ok(Outcome::Conflict) => Err(super::handle::no_leader()),
            Ok(Outcome::Unknown) => {
                // A session that nobody uses ends by itself; the worker registers again.
                let text = "it is not known whether the session was recorded; register again";
                Err(Failure::new(Reason::OutcomeUnknown, text))
            }
            Ok(Outcome::Committed(_)) => {
                let Profile { worker, pool, .. } = &session.profile;
                tracing::info!(worker, pool, session = %session.id, "a worker has registered");
                let id = session.id.clone();
                self.desk.register(now, session);
                Ok(id)
            }
        };
        let _ = answer.send(result);
    }

    /// Reads the record of a session that the desk does not know.
    pub(super) fn look_up(&mut self, heartbeat: Heartbeat, answer: oneshot::Sender<Result<Offers, Failure>>) {
        if self.looking_up.len() >= CALLING {
            return drop(answer.send(Err(busy())));
        }
        let store = self.store.clone();
        self.looking_up.push(Box::pin(async move {
            let found = store.get(&key::session(&heartbeat.session)).await;
            let found = found.map(|entry| entry.as_ref().and_then(session).filter(|session| session.ended.is_none()));
            LookedUp { heartbeat, found, answer }
        }));
    }

    /// A session that the desk did not know, and that was written without it, is known from now on.
    pub(super) fn looked_up(&mut self, now: Moment, found: LookedUp) {
        let LookedUp { heartbeat, found, answer } = found;
        let result = match found {
            Err(error) => Err(error.into()),
            // Only who leads may take it in.
            Ok(_) if !self.office.is_trusted(now) => Err(super::handle::no_leader()),
            Ok(None) => Err(session_over()),
            Ok(Some(session)) => {
                self.desk.register(now, session);
                let offers = self.desk.heartbeat(now, &heartbeat).map_err(|_| session_over());
                offers.map(|offers| Offers { term: self.office.term(), offers })
            }
        };
        let _ = answer.send(result);
    }

    /// Commits these as soon as there is room.
    pub(super) fn write(&mut self, batches: impl IntoIterator<Item = Batch>) {
        self.waiting.extend(batches);
        self.start_writing();
    }

    /// Confirms to a worker once the end of its session is written.
    pub(super) fn leave(&mut self, end: EndSession, answer: oneshot::Sender<Result<(), Failure>>) {
        self.leaving.push((end.session.clone(), answer));
        self.write([Batch::End(end)]);
    }

    fn start_writing(&mut self) {
        while self.writing.len() < WRITING
            && let Some(batch) = self.waiting.pop_front()
        {
            self.writing.push(Box::pin(carry_out(self.store.clone(), self.office.term(), batch)));
        }
    }

    /// Tells the desk what became of a commit, and starts the next one. Answers the sessions that were given something.
    pub(super) fn settle(&mut self, now: Moment, done: Done) -> BTreeSet<SessionId> {
        let mut given = BTreeSet::new();
        match done {
            Done::Ended(end, settled) => {
                self.desk.session_settled(now, &end, settled);
                self.confirm_leaving(&end);
            }
            Done::Assigned(moves) => {
                for (assign, settled) in moves {
                    if let Settled::Committed(epoch) = settled {
                        let (reason, former) = (assign.reason.as_str_name(), assign.former.as_deref());
                        tracing::info!(
                            mailbox = %assign.mailbox, session = %assign.to, epoch = epoch.0, reason, former, "assigned"
                        );
                        given.insert(assign.to.clone());
                    }
                    self.desk.mailbox_settled(now, &assign, settled);
                }
            }
            Done::Unassigned(retired) => {
                for (unassign, settled) in retired {
                    self.desk.mailbox_retired(&unassign, settled);
                }
            }
            Done::Forgotten(forgotten, gone) => {
                for forget in forgotten {
                    self.desk.session_forgotten(now, &forget, gone);
                }
            }
        }
        self.start_writing();
        given
    }

    /// An end that was not written is written in a later round; to the worker it is decided either way.
    fn confirm_leaving(&mut self, end: &EndSession) {
        let mut still = Vec::new();
        for (session, answer) in self.leaving.drain(..) {
            if session == end.session {
                let _ = answer.send(Ok(()));
            } else {
                still.push((session, answer));
            }
        }
        self.leaving = still;
    }
}

pub(super) fn session_over() -> Failure {
    Failure::new(Reason::SessionEnded, "the session is over; drop everything and register again")
}

fn busy() -> Failure {
    let text = format!("{CALLING} calls of this kind wait for the store already; try again");
    Failure::new(Reason::TooMany, text)
}

//! One term of office: the desk, and the commits that are under way for it.

use std::collections::{BTreeSet, VecDeque};

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use postroom_proto::id::SessionId;
use postroom_proto::lease::Moment;
use postroom_proto::reason::Failure;
use tokio::sync::oneshot;

use super::desk::{Desk, EndSession, Settled};
use super::leader::Office;
use super::plan::Mailbox;
use super::writing::{Batch, Done, carry_out};
use crate::store::SharedStore;

/// Most commits under way.
const WRITING: usize = 8;

/// One term of office: the desk, and the commits that are under way for it.
pub(super) struct Term {
    pub(super) office: Office,
    pub(super) desk: Desk,
    /// What should be read, and the revision of the model that says so.
    pub(super) mailboxes: Vec<Mailbox>,
    pub(super) revision: Option<u64>,
    /// Commits that are under way.
    pub(super) writing: FuturesUnordered<BoxFuture<'static, Done>>,
    waiting: VecDeque<Batch>,
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
            leaving: Vec::new(),
            store,
        }
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
                        tracing::info!(mailbox = %assign.mailbox, session = %assign.to, epoch = epoch.0, "assigned");
                        given.insert(assign.to.clone());
                    }
                    self.desk.mailbox_settled(&assign, settled);
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

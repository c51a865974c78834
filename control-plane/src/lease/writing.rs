//! Carries out what the desk intends: guarded commits, and what the keys hold where a commit did not go through.

use std::time::Duration;

use postroom_proto::id::MailboxUid;

use super::desk::{Assign, Assignment, EndSession, Forget, Session, Settled, Unassign, Write as Intent};
use super::leader::guard;
use super::record::{AssignmentRecord, SessionRecord, assignment, session};
use crate::clock;
use crate::failure::chain;
use crate::store::{Entry, Guard, Outcome, Revision, SharedStore, Write, key};

/// Most moves in one commit. Small enough that one conflict among them costs little, and that each with its guard fits
/// what a commit may hold.
const MOVES: usize = 50;
/// Pause before a key is read again that could not be read.
const READ_AGAIN: Duration = Duration::from_millis(200);

/// What became of some intents.
#[derive(Debug)]
pub(super) enum Done {
    Ended(EndSession, Settled<Session>),
    Assigned(Vec<(Assign, Settled<Assignment>)>),
    Unassigned(Vec<(Unassign, Settled<Assignment>)>),
    /// Whether the records are gone.
    Forgotten(Vec<Forget>, bool),
}

/// Intents that are committed as one.
#[derive(Debug)]
pub(super) enum Batch {
    End(EndSession),
    Assign(Vec<Assign>),
    Unassign(Vec<Unassign>),
    Forget(Vec<Forget>),
}

/// Ordering: ends come first, as the desk intended them.
pub(super) fn batches(intents: Vec<Intent>) -> Vec<Batch> {
    let mut batches = Vec::new();
    let (mut moves, mut retired, mut forgotten) = (Vec::new(), Vec::new(), Vec::new());
    for intent in intents {
        match intent {
            Intent::EndSession(end) => batches.push(Batch::End(end)),
            Intent::Assign(assign) => moves.push(assign),
            Intent::Unassign(unassign) => retired.push(unassign),
            Intent::Forget(forget) => forgotten.push(forget),
        }
    }
    batches.extend(chunks(moves).map(Batch::Assign));
    batches.extend(chunks(retired).map(Batch::Unassign));
    batches.extend(chunks(forgotten).map(Batch::Forget));
    batches
}

fn chunks<T>(intents: Vec<T>) -> impl Iterator<Item = Vec<T>> {
    let mut intents = intents.into_iter().peekable();
    std::iter::from_fn(move || {
        intents.peek()?;
        Some(intents.by_ref().take(MOVES).collect())
    })
}

/// Commits a batch and says what became of each intent. Returns only once that is known, however long it takes.
pub(super) async fn carry_out(store: SharedStore, term: Revision, batch: Batch) -> Done {
    match batch {
        Batch::End(end) => {
            let settled = end_session(&store, term, &end).await;
            Done::Ended(end, settled)
        }
        Batch::Assign(moves) => Done::Assigned(assign(&store, term, moves).await),
        Batch::Unassign(retired) => Done::Unassigned(unassign(&store, term, retired).await),
        Batch::Forget(forgotten) => {
            let gone = forget(&store, term, &forgotten).await;
            Done::Forgotten(forgotten, gone)
        }
    }
}

async fn end_session(store: &SharedStore, term: Revision, end: &EndSession) -> Settled<Session> {
    let at = key::session(&end.session);
    let found = read(store, &at).await;
    let record = found.as_ref().filter(|entry| entry.mod_revision == end.expected);
    let Some(record) = record.and_then(|entry| SessionRecord::decode(&entry.value)) else {
        return Settled::Conflict(found.as_ref().and_then(session));
    };
    let guards = vec![guard(term), Guard::Unchanged(at.clone(), end.expected)];
    let writes = vec![Write::Put(at.clone(), record.ended(end.how).encode())];
    match commit(store, guards, writes).await {
        Outcome::Committed(revision) => Settled::Committed(revision),
        Outcome::Conflict => Settled::Conflict(read(store, &at).await.as_ref().and_then(session)),
        Outcome::Unknown => Settled::Unknown(read(store, &at).await.as_ref().and_then(session)),
    }
}

async fn assign(store: &SharedStore, term: Revision, moves: Vec<Assign>) -> Vec<(Assign, Settled<Assignment>)> {
    let mut guards = vec![guard(term)];
    let mut writes = Vec::with_capacity(moves.len());
    let since = clock::now();
    for step in &moves {
        let at = key::assignment(&step.mailbox);
        guards.push(match step.expected {
            Some(epoch) => Guard::Unchanged(at.clone(), Revision(epoch.0)),
            None => Guard::Absent(at.clone()),
        });
        let record = AssignmentRecord::new(&step.to, step.home.as_deref(), since, step.reason, step.former.as_deref());
        writes.push(Write::Put(at, record.encode()));
        if step.forced {
            tracing::warn!(mailbox = %step.mailbox, "a mailbox is taken from an owner that did not let go in time");
        }
    }
    let outcome = commit(store, guards, writes).await;
    let mut settled = Vec::with_capacity(moves.len());
    for step in moves {
        let result = match outcome {
            Outcome::Committed(revision) => Settled::Committed(revision),
            Outcome::Conflict => Settled::Conflict(holder(store, &step.mailbox).await),
            Outcome::Unknown => Settled::Unknown(holder(store, &step.mailbox).await),
        };
        settled.push((step, result));
    }
    settled
}

async fn unassign(store: &SharedStore, term: Revision, retired: Vec<Unassign>) -> Vec<(Unassign, Settled<Assignment>)> {
    let keys = retired.iter().map(|step| (key::assignment(&step.mailbox), step.expected));
    let (guards, writes) = keys
        .map(|(at, epoch)| (Guard::Unchanged(at.clone(), Revision(epoch.0)), Write::Delete(at)))
        .unzip::<_, _, Vec<_>, Vec<_>>();
    let outcome = commit(store, [vec![guard(term)], guards].concat(), writes).await;
    let mut settled = Vec::with_capacity(retired.len());
    for step in retired {
        let result = match outcome {
            Outcome::Committed(revision) => Settled::Committed(revision),
            Outcome::Conflict => Settled::Conflict(holder(store, &step.mailbox).await),
            Outcome::Unknown => Settled::Unknown(holder(store, &step.mailbox).await),
        };
        settled.push((step, result));
    }
    settled
}

/// What is not known to be gone is removed another time.
async fn forget(store: &SharedStore, term: Revision, forgotten: &[Forget]) -> bool {
    let keys = forgotten.iter().map(|step| (key::session(&step.session), step.expected));
    let (guards, writes) = keys
        .map(|(at, revision)| (Guard::Unchanged(at.clone(), revision), Write::Delete(at)))
        .unzip::<_, _, Vec<_>, Vec<_>>();
    let outcome = commit(store, [vec![guard(term)], guards].concat(), writes).await;
    matches!(outcome, Outcome::Committed(_))
}

async fn holder(store: &SharedStore, mailbox: &MailboxUid) -> Option<Assignment> {
    let entry = read(store, &key::assignment(mailbox)).await?;
    assignment(&entry).map(|(_, assignment)| assignment)
}

/// An error says that certainly nothing was written, which to the desk is the same as a guard that did not hold.
async fn commit(store: &SharedStore, guards: Vec<Guard>, writes: Vec<Write>) -> Outcome {
    match store.commit(guards, writes).await {
        Ok(outcome) => outcome,
        Err(error) => {
            tracing::error!(error = chain(&error), "the store refused a write of the leader");
            Outcome::Conflict
        }
    }
}

/// The desk must know what a key holds before it decides anew, so this waits for the store as long as it takes.
async fn read(store: &SharedStore, key: &str) -> Option<Entry> {
    loop {
        match store.get(key).await {
            Ok(entry) => return entry,
            Err(error) => {
                tracing::warn!(error = chain(&error), key, "a key cannot be read; trying again");
                tokio::time::sleep(READ_AGAIN).await;
            }
        }
    }
}

//! Takes office: wins the leader's key, and seats a desk on what the store says then.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use postroom_proto::lease::Moment;
use tokio::time::Instant;

use super::desk::{Desk, Ended, Session};
use super::following;
use super::leader::Office;
use super::record::{SessionRecord, assignment, session};
use super::run::Settings;
use super::term::Term;
use crate::clock;
use crate::store::{self, Entry, Error, Guard, SharedStore, Write, key};

/// A replica that wants to lead.
#[derive(Clone)]
pub(super) struct Candidate {
    store: SharedStore,
    settings: Settings,
    start: Instant,
    /// True until the sessions of the process that held the data folder before have been ended.
    former: Arc<AtomicBool>,
}

impl Candidate {
    pub(super) fn new(store: SharedStore, settings: Settings) -> Self {
        let former = Arc::new(AtomicBool::new(settings.alone));
        Self { store, settings, start: Instant::now(), former }
    }

    pub(super) fn store(&self) -> &SharedStore {
        &self.store
    }

    pub(super) fn replica(&self) -> &str {
        &self.settings.replica
    }

    /// Now, on the clock of this replica's lease plane.
    pub(super) fn now(&self) -> Moment {
        self.start.elapsed()
    }

    /// A moment of [`Candidate::now`] on tokio's clock.
    pub(super) fn instant(&self, moment: Moment) -> Instant {
        self.start + moment
    }

    /// Tries to become the leader. `None`: another replica is.
    pub(super) async fn take_office(self) -> Result<Option<Term>, Error> {
        let terms = self.settings.terms;
        let Some(office) =
            Office::win(&*self.store, &self.settings.replica, terms, self.settings.alone, self.now()).await?
        else {
            return Ok(None);
        };
        // Ordering: read only after the key was won, so that no write of a former leader can follow the reading.
        let mut sessions = store::list_all(&self.store, key::SESSIONS).await?;
        let assignments: Vec<_> =
            store::list_all(&self.store, key::ASSIGNMENTS).await?.iter().filter_map(assignment).collect();
        let decided = following::read(&self.store).await?;
        // Once in the life of a process: at a later term of office the sessions are those of workers that live.
        if self.former.load(Ordering::Relaxed) {
            self.end_former(&office, &sessions).await?;
            self.former.store(false, Ordering::Relaxed);
            sessions = store::list_all(&self.store, key::SESSIONS).await?;
        }
        let owners: HashSet<_> = assignments.iter().map(|(_, a)| a.session.clone()).collect();
        let sessions: Vec<Session> = sessions.iter().filter_map(session).collect();
        let (kept, over): (Vec<_>, Vec<_>) =
            sessions.into_iter().partition(|s| s.ended.is_none() || owners.contains(&s.id));
        self.forget(&office, &over).await?;
        let mut desk = Desk::take_office(self.now(), office.term(), terms, kept, assignments);
        desk.decide(self.now(), clock::now(), decided);
        Ok(Some(Term::new(office, desk, self.store.clone())))
    }

    /// Ends the sessions of the process that held the data folder before.
    async fn end_former(&self, office: &Office, sessions: &[Entry]) -> Result<(), Error> {
        for entry in sessions {
            let Some(record) = SessionRecord::decode(&entry.value).filter(|record| !record.is_over()) else { continue };
            let guards = vec![office.guard(), Guard::Unchanged(entry.key.clone(), entry.mod_revision)];
            let write = Write::Put(entry.key.clone(), record.ended(Ended::default()).encode());
            self.store.commit(guards, vec![write]).await?;
        }
        Ok(())
    }

    /// Removes the records of sessions that ended and own nothing any more.
    async fn forget(&self, office: &Office, over: &[Session]) -> Result<(), Error> {
        for chunk in over.chunks(crate::store::MAX_WRITES) {
            let writes = chunk.iter().map(|session| Write::Delete(key::session(&session.id))).collect();
            self.store.commit(vec![office.guard()], writes).await?;
        }
        Ok(())
    }
}

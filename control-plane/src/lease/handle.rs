//! How the services talk to the leader: calls over a bounded channel, each with its answer.

use std::collections::HashMap;

use postroom_proto::id::{MailboxUid, SessionId};
use postroom_proto::reason::{Failure, Reason};
use postroom_proto::v1::UnassignedReason;
use tokio::sync::{mpsc, oneshot};

use super::desk::look::FleetSeen;
use super::desk::{Heartbeat, Offer, Running, Seen};
use super::profile::Profile;
use crate::store::Revision;

/// Most calls that wait for the leader.
const CALLS: usize = 1024;

/// A handle and the calls that come through it.
pub(crate) fn pair() -> (Handle, mpsc::Receiver<Call>) {
    let (calls, receiver) = mpsc::channel(CALLS);
    (Handle { calls }, receiver)
}

/// Everything that a session should hold, and in which term of office that was said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offers {
    /// Revision of the leader's key.
    pub term: Revision,
    /// What to hold.
    pub offers: Vec<Offer>,
}

/// A call with the way back to its caller.
pub(crate) enum Call {
    Register { profile: Profile, answer: oneshot::Sender<Result<SessionId, Failure>> },
    Heartbeat { heartbeat: Heartbeat, answer: oneshot::Sender<Result<Offers, Failure>> },
    Leave { session: SessionId, returning: bool, answer: oneshot::Sender<Result<(), Failure>> },
    Running { answer: oneshot::Sender<Result<Vec<Running>, Failure>> },
    Sessions { answer: oneshot::Sender<Result<Vec<Seen>, Failure>> },
    Fleet { answer: oneshot::Sender<Result<FleetSeen, Failure>> },
    Unassigned { mailboxes: Vec<MailboxUid>, answer: oneshot::Sender<Result<Reasons, Failure>> },
}

/// Why nobody reads some mailboxes.
pub type Reasons = HashMap<MailboxUid, UnassignedReason>;

/// How the services talk to the leader.
#[derive(Debug, Clone)]
pub struct Handle {
    calls: mpsc::Sender<Call>,
}

impl Handle {
    /// Opens a session.
    pub async fn register(&self, profile: Profile) -> Result<SessionId, Failure> {
        self.call(|answer| Call::Register { profile, answer }).await
    }

    /// Hears a session; everything it should hold.
    pub async fn heartbeat(&self, heartbeat: Heartbeat) -> Result<Offers, Failure> {
        self.call(|answer| Call::Heartbeat { heartbeat, answer }).await
    }

    /// Ends a session that has let go of everything.
    pub async fn leave(&self, session: SessionId, returning: bool) -> Result<(), Failure> {
        self.call(|answer| Call::Leave { session, returning, answer }).await
    }

    /// What the sessions that live say they run.
    pub async fn running(&self) -> Result<Vec<Running>, Failure> {
        self.call(|answer| Call::Running { answer }).await
    }

    /// The sessions that live, as the leader sees them.
    pub async fn sessions(&self) -> Result<Vec<Seen>, Failure> {
        self.call(|answer| Call::Sessions { answer }).await
    }

    /// The fleet, as the leader sees it.
    pub async fn fleet(&self) -> Result<FleetSeen, Failure> {
        self.call(|answer| Call::Fleet { answer }).await
    }

    /// Why nobody reads each of these mailboxes; those that somebody has are left out.
    pub async fn unassigned(&self, mailboxes: Vec<MailboxUid>) -> Result<Reasons, Failure> {
        self.call(|answer| Call::Unassigned { mailboxes, answer }).await
    }

    async fn call<T>(&self, call: impl FnOnce(oneshot::Sender<Result<T, Failure>>) -> Call) -> Result<T, Failure> {
        let stopping = || Failure::new(Reason::ShuttingDown, "the lease plane is stopping; try again");
        let (answer, receiver) = oneshot::channel();
        self.calls.send(call(answer)).await.map_err(|_| stopping())?;
        // What was under way goes down with the term of office that it belonged to.
        receiver.await.map_err(|_| no_leader())?
    }
}

impl std::fmt::Debug for Call {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Call")
    }
}

impl Call {
    /// Nobody leads here, for this reason.
    pub(super) fn refuse(self, why: &Failure) {
        // Whoever asked may have gone.
        match self {
            Self::Register { answer, .. } => drop(answer.send(Err(why.clone()))),
            Self::Heartbeat { answer, .. } => drop(answer.send(Err(why.clone()))),
            Self::Leave { answer, .. } => drop(answer.send(Err(why.clone()))),
            Self::Running { answer } => drop(answer.send(Err(why.clone()))),
            Self::Sessions { answer } => drop(answer.send(Err(why.clone()))),
            Self::Fleet { answer } => drop(answer.send(Err(why.clone()))),
            Self::Unassigned { answer, .. } => drop(answer.send(Err(why.clone()))),
        }
    }
}

pub(super) fn not_ours() -> Failure {
    let text = "no mailbox is leased, because the store is not the one that the ledger belongs to, or was adopted only just now; \
         see `postroom store show`";
    Failure::new(Reason::StoreNotOurs, text)
}

pub(super) fn no_leader() -> Failure {
    Failure::new(Reason::NoLeader, "nobody leads at the moment; try again")
}

//! From a worker's call to the ledger: who may report for a mailbox, where its contacts go, and that large bodies are
//! durable before they are named.

use std::sync::Arc;

use postroom_proto::id::{Epoch, Generation, MailboxUid, SessionId};
use postroom_proto::reason::{Failure, Reason};
use tokio::sync::watch;

use crate::access::vault::Vault;
use crate::binding::Binding;
use crate::blob::Blobs;
use crate::contact::arrival::Arrivals;
use crate::definition::model::Model;
use crate::lease::record::assignment;
use crate::ledger::{Fence, SharedLedger};
use crate::store::{Entry, SharedStore, key};

use self::lives::Lives;
use self::unstored::Unstored;

mod body;
pub mod lives;
mod opening;
mod replaying;
mod reporting;
pub mod unstored;

pub use replaying::Held;

/// Takes in what workers report. Any replica can: all that is kept in memory is which mailboxes it could not store, and when
/// each was last seen to be read.
#[derive(Clone)]
pub struct Intake {
    store: SharedStore,
    ledger: SharedLedger,
    model: watch::Receiver<Arc<Model>>,
    vault: Arc<Vault>,
    blobs: Blobs,
    arrivals: Arc<Arrivals>,
    unstored: Arc<Unstored>,
    lives: Arc<Lives>,
    binding: Binding,
}

impl Intake {
    /// `binding` knows the generation to fence with.
    pub fn new(
        store: SharedStore,
        ledger: SharedLedger,
        model: watch::Receiver<Arc<Model>>,
        vault: Arc<Vault>,
        blobs: Blobs,
        arrivals: Arc<Arrivals>,
        binding: Binding,
    ) -> Self {
        let (unstored, lives) = (Arc::default(), Arc::default());
        Self { store, ledger, model, vault, blobs, arrivals, unstored, lives, binding }
    }

    /// Which mailboxes cannot be stored at the moment.
    pub fn unstored(&self) -> Arc<Unstored> {
        self.unstored.clone()
    }

    /// When mailboxes were last seen to be read.
    pub fn lives(&self) -> Arc<Lives> {
        self.lives.clone()
    }

    /// Refuses unless the store says that `session` holds `mailbox` under `epoch`.
    ///
    /// Invariant: only an epoch that the store minted for this session reaches the ledger's fence. Without this check
    /// any worker could raise the fence of a foreign mailbox so far that nobody could ever report for it again.
    async fn check_held(&self, session: &SessionId, mailbox: &MailboxUid, epoch: Epoch) -> Result<(), Failure> {
        let entry = self.store.get(&key::assignment(mailbox)).await?;
        check(entry.as_ref(), session, mailbox, epoch)
    }

    fn generation(&self) -> Generation {
        self.binding.standing().generation
    }

    fn fence(&self, epoch: Epoch, session: &SessionId) -> Fence {
        Fence { generation: self.generation(), epoch, session: session.clone() }
    }
}

/// The same for what was found in the store.
fn check(entry: Option<&Entry>, session: &SessionId, mailbox: &MailboxUid, epoch: Epoch) -> Result<(), Failure> {
    let found = entry.and_then(assignment);
    if found.is_some_and(|(_, found)| found.epoch == epoch && found.session == *session) {
        return Ok(());
    }
    Err(Failure::new(Reason::LeaseLost, format!("{mailbox} is not held by this session under epoch {epoch}")))
}

fn session(text: &str) -> Result<SessionId, Failure> {
    SessionId::parse(text).map_err(|error| Failure::invalid_field("session", error.to_string()))
}

fn mailbox(field: &str, text: &str) -> Result<MailboxUid, Failure> {
    MailboxUid::parse(text).map_err(|error| Failure::invalid_field(field, error.to_string()))
}

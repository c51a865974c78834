//! Old messages that wait for an operator: what people ask about them and decide.
//!
//! A mailbox that is first read with more messages to take than its queue's `backlogGuard` holds them back. Its reader says
//! so with the report that sets the first cursor, and reads what is newer. What an operator decides stands in the ledger;
//! the reader is called to learn of it, and the ledger takes none of the old messages that are not released.

use std::sync::Arc;

use postroom_proto::convert::from_timestamp;
use postroom_proto::id::MailboxUid;
use postroom_proto::reason::{Failure, Reason};
use postroom_proto::v1;
use tokio::sync::watch;

use crate::access::vault::Vault;
use crate::clock;
use crate::definition::{self, model::Model};
use crate::errand::Errands;
use crate::ledger::backlog::{Decision, Release};
use crate::ledger::{Micros, SharedLedger};
use crate::observation::Observer;

/// How far a cut-off may lie in the future: clocks differ.
const LENIENCE: Micros = 60 * 1_000_000;

/// What people do about old messages that wait.
#[derive(Clone)]
pub struct Backlogs {
    observer: Observer,
    ledger: SharedLedger,
    errands: Errands,
    model: watch::Receiver<Arc<Model>>,
    vault: Arc<Vault>,
}

impl Backlogs {
    /// Finds mailboxes by `observer`, decides in `ledger`, and has readers called by `errands`.
    pub fn new(
        observer: Observer,
        ledger: SharedLedger,
        errands: Errands,
        model: watch::Receiver<Arc<Model>>,
        vault: Arc<Vault>,
    ) -> Self {
        Self { observer, ledger, errands, model, vault }
    }

    /// The old messages of a mailbox, named by e-mail or uid.
    pub async fn get(&self, wanted: &str) -> Result<v1::Backlog, Failure> {
        self.describe(wanted, &self.observer.uid(wanted)?).await
    }

    /// Releases them. `by`: the caller's role.
    pub async fn approve(&self, request: &v1::ApproveBacklogRequest, by: &str) -> Result<v1::Backlog, Failure> {
        let since = request.since_time.as_ref().map(from_timestamp);
        if since.is_some_and(|since| since > clock::now().saturating_add(LENIENCE)) {
            let text =
                "lies in the future; write the time from which on messages are to be taken, for example 2026-01-31";
            return Err(Failure::invalid_field("since", text));
        }
        let release = Release { since, rate_per_minute: request.rate_per_minute };
        self.decide(&request.mailbox, Some(release), by).await
    }

    /// Holds them back again.
    pub async fn stop(&self, wanted: &str, by: &str) -> Result<v1::Backlog, Failure> {
        self.decide(wanted, None, by).await
    }

    async fn decide(&self, wanted: &str, release: Option<Release>, by: &str) -> Result<v1::Backlog, Failure> {
        let uid = self.observer.uid(wanted)?;
        let decision = Decision { release, made_at: clock::now(), made_by: by.to_owned() };
        if !self.ledger.decide_backlog(&uid, decision).await? {
            // What it says when there never was any, too.
            let ended = self.describe(wanted, &uid).await?;
            let text = format!("nothing of {wanted} waits any more: {} messages were taken", ended.taken_count);
            return Err(Failure::new(Reason::NoBacklog, text));
        }
        tracing::info!(mailbox = %uid, by, ?release, "it was decided about old messages that wait");
        // Ordering: the reader is called once it can read what was decided.
        self.call(&uid).await;
        self.describe(wanted, &uid).await
    }

    async fn describe(&self, wanted: &str, uid: &MailboxUid) -> Result<v1::Backlog, Failure> {
        let backlog = self.ledger.backlog(uid).await?.ok_or_else(|| {
            let text = format!("nothing of {wanted} waits or ever waited for an operator: see `postroom mailbox show`");
            Failure::new(Reason::NoBacklog, text)
        })?;
        let model = self.model.borrow().clone();
        let email = model.mailbox(uid).map(|place| place.address.email.clone()).unwrap_or_default();
        Ok(backlog.describe(uid.as_str(), &email))
    }

    /// Has the holder open the mailbox again. Were the call lost, it would ask by itself some minutes later.
    async fn call(&self, uid: &MailboxUid) {
        let model = self.model.borrow().clone();
        match definition::resolve(&model, &self.vault, uid) {
            Ok(definition) => self.errands.recall(definition).await,
            Err(failure) => tracing::debug!(mailbox = %uid, error = failure.message, "its reader is not called"),
        }
    }
}

//! Who did what: every call that changes something is written down before it is done, and what became of it before the
//! answer leaves.
//!
//! Invariant: nothing is changed that is not written down. What cannot be written down is not done; what was done, and
//! whose outcome cannot be written, keeps a row without one, and the log says so. [`table`] (pure) says which calls, and what
//! of them; [`describe`] (pure) reads it from the request; [`layer`] stands between the gate and the services; [`refusals`]
//! (pure) counts what the gate turned away, which is written down once a minute.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::Extensions;
use postroom_proto::reason::{Reason, name};
use postroom_proto::v1;
use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::refusals::Refusals;
use crate::access::caller::Caller;
use crate::access::listening::Peer;
use crate::clock;
use crate::ledger::Micros;
use crate::ledger::audit::{Begun, SharedAudit};

pub mod describe;
pub mod layer;
pub mod refusals;
pub mod table;

/// How often attempts that were not let in are written down.
const FLUSH: Duration = Duration::from_secs(60);
/// How often it is looked for what is too old.
const FORGET: Duration = Duration::from_secs(3600);
/// Rows of attempts that were not let in which are kept, however young they are: about 20 MB.
const REFUSED_KEPT: u64 = 100_000;
/// Most definitions of an apply, and most fields of one, that are told.
const TOLD: usize = 50;

/// Writes the audit. Cheap to share.
#[derive(Clone)]
pub struct Audit {
    log: SharedAudit,
    refusals: Arc<Mutex<Refusals>>,
}

impl std::fmt::Debug for Audit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Audit")
    }
}

/// What a call changed, which a service puts into the extensions of its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changes(pub String);

impl Changes {
    /// Of an apply or a rollback: each field, old and new, but for secrets.
    pub fn of_model(applied: &v1::ApplyModelResponse, only_asked: bool) -> Self {
        let field = |it: &v1::FieldChange| json!({"field": it.field, "old": it.old_value, "new": it.new_value});
        let change = |it: &v1::Change| {
            let kind = it.kind().as_str_name().trim_start_matches("KIND_").to_lowercase();
            let fields: Vec<_> = it.fields.iter().take(TOLD).map(field).collect();
            let mut told = json!({"kind": kind, "noun": it.noun, "name": it.name, "fields": fields});
            if it.fields.len() > TOLD {
                told["moreFields"] = json!(it.fields.len() - TOLD);
            }
            told
        };
        let changes: Vec<_> = applied.changes.iter().take(TOLD).map(change).collect();
        let mut told = json!({"revision": applied.revision, "changes": changes});
        if applied.changes.len() > TOLD {
            told["moreChanges"] = json!(applied.changes.len() - TOLD);
        }
        if only_asked {
            told["onlyAsked"] = json!(true);
        }
        Self(told.to_string())
    }
}

impl Audit {
    /// Writes to this log.
    pub fn new(log: SharedAudit) -> Self {
        Self { log, refusals: Arc::default() }
    }

    /// The log.
    pub fn log(&self) -> &SharedAudit {
        &self.log
    }

    /// Counts an attempt that was not let in.
    pub fn refuse(&self, caller: Option<&Caller>, address: String, path: &str, reason: Reason) {
        let (who, role) = caller.map_or_else(Default::default, |it| (it.name.clone(), it.role.to_string()));
        let call = refusals::call(clock::now(), who, role, address, path);
        self.refusals().add(call, name(reason));
    }

    /// Writes down what was counted. What cannot be written is counted on.
    pub async fn flush(&self) {
        let refused = self.refusals().take();
        if refused.is_empty() {
            return;
        }
        if let Err(error) = self.log.refuse(refused.clone()).await {
            tracing::error!(
                error = crate::failure::chain(&error),
                "attempts that were refused cannot be written to the audit"
            );
            self.refusals().put_back(refused);
        }
    }

    /// Writes down what was counted, and removes what is older than `keep`, until `stop` is raised; then once more.
    pub async fn run(self, keep: Duration, stop: CancellationToken) {
        // Not at the start: a setting that was mistyped can be mended before anything is gone.
        let later = Instant::now() + FORGET;
        let (mut flush, mut forget) = (tokio::time::interval(FLUSH), tokio::time::interval_at(later, FORGET));
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                _ = flush.tick() => self.flush().await,
                _ = forget.tick() => self.forget(keep).await,
            }
        }
        self.flush().await;
    }

    async fn forget(&self, keep: Duration) {
        let since = clock::now() - Micros::try_from(keep.as_micros()).unwrap_or(Micros::MAX);
        match self.log.forget(since, REFUSED_KEPT).await {
            Ok(0) => {}
            Ok(rows) => tracing::info!(count = rows, "rows of the audit that were older than its setting are removed"),
            Err(error) => {
                tracing::warn!(error = crate::failure::chain(&error), "old rows of the audit cannot be removed");
            }
        }
    }

    fn refusals(&self) -> MutexGuard<'_, Refusals> {
        // Nothing panics while it is locked.
        self.refusals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call of somebody who was let in.
fn begun(extensions: &Extensions, path: &str, told: describe::Told) -> Begun {
    let caller = extensions.get::<Caller>();
    Begun {
        at: clock::now(),
        who: caller.map(|it| it.name.clone()).unwrap_or_default(),
        role: caller.map(|it| it.role.to_string()).unwrap_or_default(),
        address: address(extensions),
        rpc: path.trim_start_matches('/').to_owned(),
        subject: told.subject,
        detail: told.detail,
    }
}

/// Where a call comes from, without the port; empty: not known.
fn address(extensions: &Extensions) -> String {
    let peer = extensions.get::<Peer>().and_then(|peer| peer.from);
    peer.map(|peer| peer.ip().to_string()).unwrap_or_default()
}

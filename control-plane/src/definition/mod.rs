//! Definitions: what an operator wants.
//!
//! An apply goes `rename` → [`wire`] (read, normalise) → `merge` (with what is stored, by name) → `validate` (all faults
//! at once) → `plan` (what changes, by `fields`) → `tree` (one guarded commit). All but the last are pure. [`history`]
//! tells revisions apart, `moving` says what an apply leaves behind in the ledger. [`view`] follows the store and
//! publishes the [`model`]; [`resolve()`] makes of it what a worker needs to read, [`sending`] what it needs to send.

use std::sync::Arc;

use postroom_proto::reason::{Failure, Reason};
use postroom_proto::v1;

use self::merge::{Draft, Removals};
pub use self::resolve::{resolve, resolve_server};
pub use self::tree::{Author, ReadError};
use self::tree::{Origin, Snapshot, WriteError};
pub use self::view::Definitions;
use crate::access::vault::Vault;
use crate::ledger::Ledger;

mod fields;
pub mod history;
mod merge;
pub mod model;
mod moving;
pub mod normalise;
mod object;
mod outgoing;
mod plan;
mod rename;
pub mod resealing;
mod resolve;
pub mod rollout;
#[cfg(test)]
pub(crate) mod sample;
pub mod secrets;
pub mod sending;
mod tree;
mod validate;
pub mod view;
pub mod wire;

/// Longest id of a request, in bytes.
const REQUEST_ID: usize = 64;

/// What changing definitions stands on.
#[derive(Clone, Copy)]
pub struct Ground<'a> {
    /// The model.
    pub definitions: &'a Definitions,
    /// Seals secrets.
    pub vault: &'a Vault,
    /// Knows which contacts wait for whom.
    pub ledger: &'a dyn Ledger,
}

impl std::fmt::Debug for Ground<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ground").field("definitions", &self.definitions).finish_non_exhaustive()
    }
}

/// Applies a model: all of it or, with a failure, nothing. Applied again it changes nothing.
pub async fn apply(
    ground: Ground<'_>,
    request: v1::ApplyModelRequest,
    author: &Author,
) -> Result<v1::ApplyModelResponse, Failure> {
    let attempt = Attempt { etag: &request.etag, request: &request.request_id, rollback_of: 0, author };
    let _changing = ground.definitions.changing().await;
    let base = match attempt.begin(ground).await? {
        Begun::On(base) => base,
        Begun::Done(answer) => return Ok(answer),
    };
    let current = rename::rename(&base.model, &request.renames)?;
    let asked = wire::read(request.model.unwrap_or_default());
    let mut mint = || uuid::Uuid::now_v7().simple().to_string();
    let removals = Removals { prune: request.prune, named: &request.removals };
    let draft = merge::merge(&current, asked, &removals, ground.vault, &mut mint)?;
    attempt.finish(ground, &base, draft, request.validate_only).await
}

/// Makes a new revision with the content of an old one.
pub async fn roll_back(
    ground: Ground<'_>,
    request: v1::RollbackModelRequest,
    author: &Author,
) -> Result<v1::ApplyModelResponse, Failure> {
    let attempt = Attempt { etag: &request.etag, request: &request.request_id, rollback_of: request.revision, author };
    let _changing = ground.definitions.changing().await;
    let base = match attempt.begin(ground).await? {
        Begun::On(base) => base,
        Begun::Done(answer) => return Ok(answer),
    };
    let old = at(ground.definitions, &base, request.revision).await?;
    attempt.finish(ground, &base, Draft::of(&old), request.validate_only).await
}

/// A revision of the model for the wire; 0 is the newest.
pub async fn export(definitions: &Definitions, revision: u64) -> Result<v1::ExportModelResponse, Failure> {
    let newest = definitions.model();
    if revision == 0 || revision == newest.revision() {
        return Ok(v1::ExportModelResponse { revision: newest.revision(), model: Some(wire::model(&newest)) });
    }
    let _reading = definitions.changing().await;
    let base = definitions.refresh().await?;
    let model = at(definitions, &base, revision).await?;
    Ok(v1::ExportModelResponse { revision, model: Some(wire::model(&model)) })
}

async fn at(definitions: &Definitions, base: &Snapshot, revision: u64) -> Result<model::Model, Failure> {
    let head = history::head(definitions.store(), revision).await?;
    let head = head.ok_or_else(|| history::no_revision(revision, definitions))?;
    Ok(tree::read_at(definitions.store(), base, &head).await?)
}

/// One try to change the model.
struct Attempt<'a> {
    etag: &'a str,
    request: &'a str,
    rollback_of: u64,
    author: &'a Author,
}

enum Begun {
    /// To be changed from here.
    On(Arc<Snapshot>),
    /// It was done before, by the same request.
    Done(v1::ApplyModelResponse),
}

impl Attempt<'_> {
    async fn begin(&self, ground: Ground<'_>) -> Result<Begun, Failure> {
        if self.request.len() > REQUEST_ID {
            return Err(Failure::invalid_field("request_id", format!("is longer than {REQUEST_ID} bytes")));
        }
        let base = ground.definitions.refresh().await?;
        let newest = base.model.revision();
        if self.etag.is_empty() {
            return Ok(Begun::On(base));
        }
        let seen: u64 = self.etag.trim().parse().map_err(|_| {
            Failure::invalid_field(
                "etag",
                format!("{:?} is no revision; write the number that export shows", self.etag),
            )
        })?;
        if seen == newest {
            return Ok(Begun::On(base));
        }
        let store = ground.definitions.store();
        if let Some(head) = history::made_by(store, self.request, seen, newest).await? {
            let changes = history::between(store, head.parent, head.revision).await?.unwrap_or_default();
            return Ok(Begun::Done(v1::ApplyModelResponse { revision: head.revision, changes, notes: Vec::new() }));
        }
        Err(history::moved(ground.definitions, seen, newest).await?)
    }

    async fn finish(
        &self,
        ground: Ground<'_>,
        base: &Snapshot,
        draft: Draft,
        validate_only: bool,
    ) -> Result<v1::ApplyModelResponse, Failure> {
        let faults = validate::validate(&draft);
        if !faults.is_empty() {
            return Err(Failure::invalid(faults));
        }
        let plan = plan::plan(&base.model, draft);
        let mut revision = base.model.revision();
        let mut notes = Vec::new();
        if !plan.changes.is_empty() {
            moving::orphans(ground.ledger, &base.model, &plan.model).await?;
            notes = moving::notes(ground.ledger, &base.model, &plan.model).await?;
        }
        if !plan.changes.is_empty() && !validate_only {
            revision = plan.model.revision();
            let origin = Origin { author: self.author, rollback_of: self.rollback_of, request: self.request };
            let definitions = ground.definitions;
            match tree::write(definitions.store(), base, plan.model, origin).await {
                // A caller that reads right after its apply finds it, here and now.
                Ok(written) => drop(definitions.publish(written)),
                Err(error) => return Err(unwritten(definitions, base, error).await),
            }
        }
        Ok(v1::ApplyModelResponse { revision, changes: plan.changes, notes })
    }
}

async fn unwritten(definitions: &Definitions, base: &Snapshot, error: WriteError) -> Failure {
    match error {
        WriteError::Conflict => {
            let told = async {
                let newest = definitions.refresh().await?.model.revision();
                if newest == base.model.revision() {
                    let text = "the secrets of the model were sealed again meanwhile; apply again";
                    return Ok(Failure::new(Reason::EtagMismatch, text));
                }
                history::moved(definitions, base.model.revision(), newest).await
            };
            told.await.unwrap_or_else(Failure::from)
        }
        WriteError::Unknown => Failure::new(
            Reason::OutcomeUnknown,
            "it is not known whether the model was changed; apply again, which changes nothing if it was",
        ),
        WriteError::Read(error) => error.into(),
    }
}

#[cfg(test)]
mod tests;

//! Definitions: what an operator wants.
//!
//! An apply goes [`wire`] (read, normalise) → `merge` (with what is stored, by name) → `validate` (all faults at once)
//! → `plan` (what changes) → `tree` (one guarded commit). All but the last are pure. [`view`] follows the store and
//! publishes the [`model`]; [`resolve()`] makes of it what a worker needs.

use postroom_proto::reason::{Failure, Reason};
use postroom_proto::v1;

pub use self::resolve::resolve;
use self::tree::WriteError;
pub use self::tree::{Author, ReadError};
pub use self::view::Definitions;
use crate::access::vault::{self, Vault};

mod merge;
pub mod model;
pub mod normalise;
mod object;
mod plan;
mod resolve;
mod tree;
mod validate;
pub mod view;
pub mod wire;

/// Applies a model: all of it or, with a failure, nothing. Applied again it changes nothing.
pub async fn apply(
    definitions: &Definitions,
    vault: &Vault,
    request: v1::ApplyModelRequest,
    author: &Author,
) -> Result<v1::ApplyModelResponse, Failure> {
    let base = definitions.refresh().await?;
    check_etag(&request.etag, base.model.revision())?;
    let asked = wire::read(request.model.unwrap_or_default());
    let mut mint = || uuid::Uuid::now_v7().simple().to_string();
    let draft = merge::merge(&base.model, asked, vault, &mut mint).map_err(unsealed)?;
    let faults = validate::validate(&draft);
    if !faults.is_empty() {
        return Err(Failure::invalid(faults));
    }
    let plan = plan::plan(&base.model, draft);
    let revision = plan.model.revision();
    if plan.changes.is_empty() {
        return Ok(v1::ApplyModelResponse { revision, changes: Vec::new() });
    }
    if request.validate_only {
        return Ok(v1::ApplyModelResponse { revision: base.model.revision(), changes: plan.changes });
    }
    let written = tree::write(definitions.store(), &base, plan.model, author).await.map_err(unwritten)?;
    // A caller that reads right after its apply finds it, here and now.
    definitions.publish(written);
    Ok(v1::ApplyModelResponse { revision, changes: plan.changes })
}

fn check_etag(etag: &str, revision: u64) -> Result<(), Failure> {
    if etag.is_empty() {
        return Ok(());
    }
    let seen: u64 = etag.trim().parse().map_err(|_| {
        Failure::invalid_field("etag", format!("{etag:?} is no revision; write the number that export shows"))
    })?;
    if seen == revision { Ok(()) } else { Err(moved(revision)) }
}

fn moved(revision: u64) -> Failure {
    let message = format!("the model is at revision {revision} now; read it again, then apply again");
    Failure::new(Reason::EtagMismatch, message).with("revision", revision.to_string())
}

fn unsealed(error: vault::Error) -> Failure {
    Failure::new(Reason::Internal, error.to_string())
}

fn unwritten(error: WriteError) -> Failure {
    match error {
        WriteError::Conflict => Failure::new(
            Reason::EtagMismatch,
            "somebody else changed the model meanwhile; read it again, then apply again",
        ),
        WriteError::Unknown => Failure::new(
            Reason::OutcomeUnknown,
            "it is not known whether the model was changed; apply again, which changes nothing if it was",
        ),
        WriteError::Read(error) => error.into(),
    }
}

#[cfg(test)]
mod tests;

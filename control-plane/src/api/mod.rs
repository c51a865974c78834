//! gRPC services: decode, call, encode, and nothing else.

pub mod access;
pub mod audit;
pub mod backup;
mod bytes;
pub mod contact;
pub mod definition;
pub mod errand;
pub mod large;
pub mod lease;
pub mod message;
pub mod operator;
pub mod outbox;
pub mod page;
pub mod report;
mod scope;
pub mod secret;
pub mod send;
pub mod store;
pub mod worker;

use postroom_proto::id::SessionId;
use postroom_proto::reason::{Failure, Reason};
use tonic::Extensions;

use crate::access::caller::Caller;
use crate::access::role::Role;

/// Who calls.
///
/// Invariant: no request reaches a service but through the gate, which puts the caller there.
fn caller(extensions: &Extensions) -> Result<&Caller, Failure> {
    extensions.get().ok_or_else(|| Failure::new(Reason::Unauthenticated, "the call came past the gate"))
}

/// What the caller may do.
fn role(extensions: &Extensions) -> Result<Role, Failure> {
    Ok(caller(extensions)?.role.clone())
}

/// The session that a field names.
fn session(field: &str, text: &str) -> Result<SessionId, Failure> {
    SessionId::parse(text).map_err(|error| Failure::invalid_field(field, error.to_string()))
}

/// The caller's name, as it is written down beside what was changed.
fn by(extensions: &Extensions) -> Result<String, Failure> {
    Ok(caller(extensions)?.name.clone())
}

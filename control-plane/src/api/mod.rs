//! gRPC services: decode, call, encode, and nothing else.

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
pub mod send;
pub mod store;
pub mod worker;

use postroom_proto::reason::{Failure, Reason};
use tonic::Extensions;

use crate::access::role::Role;

/// Who calls.
///
/// Invariant: no request reaches a service but through the gate, which puts the role there.
fn role(extensions: &Extensions) -> Result<Role, Failure> {
    extensions.get().cloned().ok_or_else(|| Failure::new(Reason::Unauthenticated, "the call came past the gate"))
}

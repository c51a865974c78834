//! Who calls.

use std::net::SocketAddr;

use super::role::Role;

/// Who called, in the words of history, decisions and the audit. The gate puts it into the extensions of every request
/// that it lets through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Name of the token, or of the worker.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// From where the call came; `None` where that is not known.
    pub from: Option<SocketAddr>,
}

impl Caller {
    /// A caller of whom nothing is known but name and role.
    pub fn new(name: impl Into<String>, role: Role) -> Self {
        Self { name: name.into(), role, from: None }
    }
}

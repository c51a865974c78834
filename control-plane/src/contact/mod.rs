//! Contacts: the order in which they are handed out, how they change state, and how takers wait for them.

pub mod allocation;
pub mod arrival;
pub mod taking;

//! Contacts: the order in which they are handed out, how they change state, how takers wait for them and others watch
//! them, which conversation they belong to, and their attachments.

pub mod allocation;
pub mod arrival;
pub mod attachment;
pub mod file_name;
pub mod taking;
pub mod thread;
pub mod watching;

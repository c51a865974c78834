//! One mailbox: sign in, catch up, settle, wait, and start again.

pub mod imap;

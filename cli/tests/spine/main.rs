//! The spine: real mail out of a real IMAP server, signed in with OAuth, as contacts over gRPC. Whatever happens on the
//! way, every message becomes one contact.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod backlog;
mod backup;
mod broken;
mod bucket;
mod crash;
mod disk;
mod exchange;
mod fault_matrix;
mod faults;
mod flow;
mod harness;
mod identity;
mod kinds;
mod losses;
mod people;
mod rekeying;
mod rotation;
mod secrets;
mod sign_in;
mod takers;

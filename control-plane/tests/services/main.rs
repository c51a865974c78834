//! The real services of a control plane, over real gRPC, with workers and takers played by the test.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod access;
mod audit;
mod backlog;
mod backup;
mod bench;
mod contacts;
mod fence;
mod messages;
mod outbox;
mod rotation;
mod status;
mod store;
mod watching;
mod workers;

//! The real services of a control plane, over real gRPC, with workers and takers played by the test.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod access;
mod audit;
mod backlog;
mod backup;
mod bench;
mod certificates;
mod contacts;
mod fence;
mod messages;
mod outbox;
mod roles;
mod rotation;
mod secured;
mod status;
mod store;
mod tokens;
mod watching;
mod workers;

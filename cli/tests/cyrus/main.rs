//! A real Cyrus, which differs from Dovecot in what it tells and when, read with a password: every message is accounted for
//! exactly once, whatever people and the network do meanwhile.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

#[allow(dead_code, reason = "each test crate uses a part of it")]
#[path = "../spine/harness.rs"]
mod harness;

mod after_intake;
mod faults;
mod flow;
mod house;
mod people;
mod rekeying;

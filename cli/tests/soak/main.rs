//! A day in a minute: mailboxes under steady mail, at a server that misbehaves all the time. In the end every message is
//! one contact, every mailbox reconciles, and nothing has grown from the first quarter of the time to the last: neither
//! memory nor tasks nor sockets.
//!
//! How large it is is set by the environment ([`day::Size`]); `deploy/soak --day` runs the large form.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]
#![allow(clippy::print_stderr, reason = "seeds and figures are for people who read the log of a run")]

#[allow(dead_code, reason = "each test crate uses a part of it")]
#[path = "../spine/harness.rs"]
mod harness;

mod day;
mod faults;
mod growth;

//! Mail on its way out: real replies through a real Postfix, and through what stands in for Microsoft Graph, into a real
//! mailbox. Whatever happens on the way, every mail arrives once, or says what is not known.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

#[allow(dead_code, reason = "each test crate uses a part of it")]
#[path = "../shared/control_plane.rs"]
mod control_plane;
#[allow(dead_code, reason = "each test crate uses a part of it")]
#[path = "../spine/harness.rs"]
mod harness;
#[allow(dead_code, reason = "each test crate uses a part of it")]
#[path = "../shared/process.rs"]
mod process;

mod bounce;
mod check;
mod crash;
mod faults;
mod graph_faults;
mod loops;
mod office;
mod rate;
mod reply;
mod trace;
mod unknown;

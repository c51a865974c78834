//! What an operator's monitoring sees: metrics and health of real processes, and alerts of a real Prometheus.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

#[allow(dead_code, reason = "each test crate uses a part of it")]
#[path = "../spine/harness.rs"]
mod harness;

#[allow(dead_code, reason = "each test crate uses a part of it")]
#[path = "../shared/control_plane.rs"]
mod control_plane;
#[allow(dead_code, reason = "each test crate uses a part of it")]
#[path = "../shared/process.rs"]
mod process;

mod night;
mod observed;
mod rules;

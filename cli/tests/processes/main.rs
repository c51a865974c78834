//! Control plane and workers as processes of their own: how they start, refuse to start, stop, and stand in for each
//! other.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

#[allow(dead_code, reason = "each test crate uses a part of it")]
#[path = "../spine/harness.rs"]
mod harness;

#[path = "../shared/control_plane.rs"]
mod control_plane;
#[path = "../shared/process.rs"]
mod process;

mod access;
mod app_token;
mod back_off;
mod dead_host;
mod deleting;
mod namesakes;
mod refusals;
mod stalls;
mod stops;
mod two_tenants;

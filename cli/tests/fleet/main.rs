//! Whole fleets of real processes under faults: a control plane with its store in etcd, several workers, Dovecot, and
//! mail that keeps coming. In the end every message is one contact, and no two workers have believed at one time that they
//! hold a mailbox.
//!
//! Two scenarios run at a time, however many threads there are. How large they are is set by the environment
//! ([`scale::Scale`]); `deploy/soak` runs the large form again and again.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]
#![allow(clippy::print_stderr, reason = "times are for people who read the log of a run")]

#[allow(dead_code, reason = "each test crate uses a part of it")]
#[path = "../shared/control_plane.rs"]
mod control_plane;
#[allow(dead_code, reason = "each test crate uses a part of it")]
#[path = "../spine/harness.rs"]
mod harness;
#[allow(dead_code, reason = "each test crate uses a part of it")]
#[path = "../shared/process.rs"]
mod process;

mod audit;
mod post;
mod scale;
mod scenario;
mod store;
mod worker;

mod adoption;
mod chaos;
mod etcd;
mod links;
mod restarts;
mod sleep;
mod takeover;
mod workers;

//! What is done with bytes that others wrote: one function a kind, each with what must hold whatever the bytes.
//!
//! A fuzzer (`fuzz/`) and the property tests (`tests/`) call the same functions, and share the seeds in `seeds/`, one folder
//! a function. What a fuzzer found stays there as a seed.

use std::cell::RefCell;

use tokio::runtime::{Builder, Runtime};

mod imap;
mod message;
mod said;

pub use imap::{challenge, imap};
pub use message::message;
pub use said::{throttle, token};

/// A target, by the name of its folder of seeds.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: [Target; 5] =
    [("message", message), ("imap", imap), ("challenge", challenge), ("throttle", throttle), ("token", token)];

thread_local! {
    static RUNTIME: RefCell<Option<Runtime>> = const { RefCell::new(None) };
}

/// Runs a future to its end on a runtime of this thread. Nothing here waits for anything.
fn run<T>(future: impl Future<Output = T>) -> T {
    RUNTIME.with_borrow_mut(|runtime| {
        let runtime = runtime.get_or_insert_with(|| {
            Builder::new_current_thread().enable_time().build().unwrap_or_else(|error| panic!("no runtime: {error}"))
        });
        runtime.block_on(future)
    })
}

//! Steps that end when a server falls silent, and what an error of one means.

use std::future::Future;
use std::io;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::FutureExt as _;

use super::Error;
use crate::mailbox::imap::guard::{Notes, Violation};

/// Runs a step that ends when nothing arrives for `step`; while bytes come it may last. A panic of the parser is an
/// unreadable answer.
pub(super) async fn watched<T>(
    progress: &AtomicU64,
    step: Duration,
    work: impl Future<Output = io::Result<T>>,
) -> Result<T, Error> {
    let work = AssertUnwindSafe(work).catch_unwind();
    let mut work = std::pin::pin!(work);
    loop {
        let before = progress.load(Ordering::Relaxed);
        match tokio::time::timeout(step, &mut work).await {
            Ok(Ok(Ok(value))) => return Ok(value),
            Ok(Ok(Err(error))) => return Err(io_error(error)),
            Ok(Err(_panic)) => return Err(Error::Malformed),
            Err(_) if progress.load(Ordering::Relaxed) == before => return Err(Error::TimedOut),
            Err(_) => {}
        }
    }
}

pub(super) fn io_error(error: io::Error) -> Error {
    if let Some(violation) = error.get_ref().and_then(|inner| inner.downcast_ref::<Violation>()) {
        return Error::Violation(violation.clone());
    }
    match error.kind() {
        // async-imap's parse errors quote the whole buffer: only the kind is kept.
        io::ErrorKind::Other => Error::Malformed,
        _ => Error::Lost { remark: None },
    }
}

/// Adds to a lost connection what was said before it ended.
pub(super) fn lost(error: Error, notes: &mut Notes) -> Error {
    match error {
        Error::Lost { remark: None } => Error::Lost { remark: notes.remark.take() },
        error => error,
    }
}

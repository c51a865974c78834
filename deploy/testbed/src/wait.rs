//! Bounded waits for what other tasks report.

use std::time::Duration;

use tokio::sync::watch;

use crate::error::{Error, Result};

/// Generous: the machine may be busy with other tests.
const LONGEST_SECONDS: u64 = 120;

/// Waits until a value is enough, and returns what `enough` made of it.
pub(crate) async fn until<T, R>(
    mut values: watch::Receiver<T>,
    enough: impl Fn(&T) -> Option<R>,
    what: String,
) -> Result<R> {
    let found = async {
        loop {
            if let Some(found) = enough(&values.borrow_and_update()) {
                return Some(found);
            }
            values.changed().await.ok()?;
        }
    };
    match tokio::time::timeout(Duration::from_secs(LONGEST_SECONDS), found).await {
        Ok(Some(found)) => Ok(found),
        Ok(None) | Err(_) => Err(Error::Late { what, seconds: LONGEST_SECONDS }),
    }
}

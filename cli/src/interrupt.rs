//! Ctrl-C: a command ends at once, but leaves no broken line behind.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::error::Kind;

/// How long a command has to end by itself. Only one that is blocked in a read, as of standard input, needs more.
const GRACE: Duration = Duration::from_millis(500);

/// Watches for SIGINT from now on. The token is cancelled by it; the process ends soon after that in any case.
pub fn watch() -> CancellationToken {
    let interrupted = CancellationToken::new();
    let told = interrupted.clone();
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_err() {
            // Nothing watches then, and the signal does what it does by default: it ends the process.
            return;
        }
        told.cancel();
        tokio::time::sleep(GRACE).await;
        std::process::exit(Kind::Interrupted.exit_code().into());
    });
    interrupted
}

//! Listens for nudges: the control plane says that a heartbeat is worth sending before its time.
//!
//! Nothing depends on them but time. When the stream breaks it is opened again after a pause, and opening it begins with
//! a nudge, so that what was missed is heard of.

use std::sync::Arc;
use std::time::Duration;

use postroom_proto::id::SessionId;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::control::Control;

/// Pause before a broken stream is opened again. It doubles each time that none was heard on it.
const AGAIN: Duration = Duration::from_millis(500);
/// Longest such pause.
const AGAIN_AT_LEAST: Duration = Duration::from_secs(10);

/// Follows the session of the worker, whichever it is, until `told`. Several nudges in a row are one.
pub async fn listen(
    control: Control,
    mut session: watch::Receiver<String>,
    nudged: Arc<Notify>,
    told: CancellationToken,
) {
    loop {
        let current = SessionId::parse(&session.borrow_and_update()).ok();
        let listening = async {
            match current {
                Some(current) => listen_to(&control, &current, &nudged).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = told.cancelled() => return,
            () = listening => {}
            changed = session.changed() => if changed.is_err() {
                // There will be no session any more.
                return told.cancelled().await;
            },
        }
    }
}

/// Listens to one session, however often the stream breaks.
async fn listen_to(control: &Control, session: &SessionId, nudged: &Notify) {
    let mut pause = AGAIN;
    loop {
        match control.watch_nudge(session).await {
            Ok(mut nudges) => {
                while let Ok(Some(_)) = nudges.message().await {
                    pause = AGAIN;
                    nudged.notify_one();
                }
            }
            Err(error) => tracing::debug!(%error, "nudges are not heard at the moment; heartbeats keep their time"),
        }
        // Jitter: a control plane that is back must not be met by all its workers at once.
        tokio::time::sleep(pause.mul_f64(rand::random_range(0.5..=1.5))).await;
        pause = (pause * 2).min(AGAIN_AT_LEAST);
    }
}

#[cfg(test)]
mod tests;

//! A connection of its own beside the one that reads, for what the control plane wants to know of a mailbox.

use std::time::Duration;

use postroom_proto::v1::MailboxDefinition;

use super::sign_in::sign_in;
use super::trouble::Trouble;
use super::{Mail, Shared};
use crate::diagnosis::{self, Diagnosis, imap};
use crate::mailbox::imap::command::Error;
use crate::mailbox::imap::guard::Limits;

/// Connects, signs in and selects the folder, with limits of its own.
pub(crate) async fn connect(
    shared: &Shared,
    definition: &MailboxDefinition,
    limits: Limits,
) -> Result<Mail, Diagnosis> {
    let connected = match Box::pin(sign_in(shared, definition, limits, || {})).await {
        // The token was a stale one, and is dropped: once more with a new one.
        Err(Trouble::TokenExpired) => Box::pin(sign_in(shared, definition, limits, || {})).await,
        connected => connected,
    };
    connected.map_err(diagnosed)
}

/// Why a command on such a connection failed.
pub(crate) fn broken(error: Error) -> Diagnosis {
    diagnosed(Trouble::from(error))
}

/// Says goodbye, but waits for no long answer.
pub(crate) async fn leave(folder: Mail) {
    let _ = tokio::time::timeout(Duration::from_secs(2), folder.log_out()).await;
}

fn diagnosed(trouble: Trouble) -> Diagnosis {
    match trouble {
        Trouble::Problem(found) => found,
        Trouble::TokenExpired => imap::connection_lost(None),
        Trouble::Stop(_) | Trouble::Called => diagnosis::defect("a connection beside the reading was told to stop"),
    }
}

//! Why an attempt ended, whoever ended it.

use crate::diagnosis::{Diagnosis, imap};
use crate::mailbox::catch_up::Broken;
use crate::mailbox::commit::Stop;
use crate::mailbox::imap::command::Error as ImapError;
use crate::mailbox::imap::connection;

/// Why an attempt ended.
#[derive(Debug)]
pub(super) enum Trouble {
    Stop(Stop),
    /// Told to let go, or the definition has changed.
    Called,
    /// The token has run out, or was a stale one: normal.
    TokenExpired,
    Problem(Diagnosis),
}

impl From<Diagnosis> for Trouble {
    fn from(found: Diagnosis) -> Self {
        Self::Problem(found)
    }
}

impl From<Stop> for Trouble {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Refused(found) => Self::Problem(found),
            stop => Self::Stop(stop),
        }
    }
}

impl From<Broken> for Trouble {
    fn from(broken: Broken) -> Self {
        match broken {
            Broken::Stop(stop) => stop.into(),
            Broken::Imap(error) => error.into(),
        }
    }
}

impl From<ImapError> for Trouble {
    fn from(error: ImapError) -> Self {
        if let ImapError::Bye { text } = &error
            && imap::is_token_expired(text)
        {
            return Self::TokenExpired;
        }
        let command = match &error {
            ImapError::Refused { command, .. } => command,
            _ => "a command",
        };
        Self::Problem(connection::diagnose(&error, |text| imap::command_refused(command, text)))
    }
}

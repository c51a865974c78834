//! What failed below, in the words of the wire.

use std::error::Error;

use postroom_proto::reason::{Failure, Reason};

use crate::sqlite::writer::WriteError;
use crate::{blob, definition, ledger, store};

impl From<ledger::Error> for Failure {
    fn from(error: ledger::Error) -> Self {
        let reason = match &error {
            ledger::Error::Write { source: WriteError::Unknown(_), .. } => Reason::OutcomeUnknown,
            ledger::Error::Write { source: WriteError::Closed, .. } => Reason::ShuttingDown,
            _ => Reason::StorageFailed,
        };
        Self::new(reason, chain(&error))
    }
}

impl From<store::Error> for Failure {
    fn from(error: store::Error) -> Self {
        let reason = match &error {
            store::Error::Compacted { .. } => Reason::RevisionCompacted,
            store::Error::TooLarge { .. } => Reason::Internal,
            _ => Reason::StorageFailed,
        };
        Self::new(reason, chain(&error))
    }
}

impl From<definition::ReadError> for Failure {
    fn from(error: definition::ReadError) -> Self {
        match error {
            definition::ReadError::Store(error) => error.into(),
            other => Self::new(Reason::StorageFailed, chain(&other)),
        }
    }
}

impl From<blob::Error> for Failure {
    fn from(error: blob::Error) -> Self {
        let reason = match &error {
            blob::Error::Invalid(_) => Reason::BlobInvalid,
            blob::Error::Missing(_) => Reason::NotFound,
            blob::Error::Refused(_) | blob::Error::Backend { .. } | blob::Error::Bucket { .. } => Reason::StorageFailed,
        };
        Self::new(reason, chain(&error))
    }
}

/// An error with all its causes in one line, so that an operator sees "disk full" and not only "write failed".
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

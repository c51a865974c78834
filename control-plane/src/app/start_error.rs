//! Why a control plane does not start, and what its process says of it.

use std::net::SocketAddr;

use postroom_proto::observe::ListenError;
use postroom_proto::settings::{Refusal, refusal};

use crate::access::tls;
use crate::access::vault::KeyError;
use crate::config::Invalid;
use crate::failure::chain;
use crate::{binding, blob, definition, folder, ledger, store};

/// Why a control plane did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The settings are refused.
    #[error(transparent)]
    Config(#[from] Invalid),
    /// The data folder cannot be used.
    #[error(transparent)]
    Folder(#[from] folder::Error),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}; it may be in use: name another with --listen")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The ledger cannot be used.
    #[error(transparent)]
    Ledger(#[from] ledger::Error),
    /// The folder or bucket of large bodies cannot be used.
    #[error(transparent)]
    Blobs(#[from] blob::Error),
    /// The port's certificates cannot be used.
    #[error(transparent)]
    Tls(#[from] tls::Error),
    /// The key of the secrets cannot be used.
    #[error(transparent)]
    Vault(#[from] KeyError),
    /// Store and ledger cannot be compared.
    #[error(transparent)]
    Binding(#[from] binding::Error),
    /// The model cannot be read.
    #[error(transparent)]
    Definitions(#[from] definition::ReadError),
    /// Metrics and health cannot be served.
    #[error(transparent)]
    Observe(#[from] ListenError),
    /// The protos that are served to whoever asks for them are broken.
    #[error("the protos cannot be served")]
    Reflection(#[from] tonic_reflection::server::Error),
}

impl From<StartError> for Refusal {
    fn from(error: StartError) -> Self {
        match &error {
            StartError::Config(_)
            | StartError::Folder(_)
            | StartError::Listen { .. }
            | StartError::Tls(_)
            | StartError::Observe(_) => Self::new(refusal::USAGE, chain(&error), "see --help"),
            _ => Self::new(refusal::INTERNAL, chain(&error), "mend it and start again; nothing was changed"),
        }
    }
}

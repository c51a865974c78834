//! Definitions and manifests as they are stored: JSON under the digest of its bytes.

use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::model::{IncomingServer, Instance, Queue};

/// Largest object, so that two fit into a commit.
pub(super) const MAX_BYTES: usize = 512 * 1024;

/// The format that is written. A newer one is refused rather than half understood.
const FORMAT: u32 = 1;

/// Why an object cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// It was written by a newer version.
    #[error("object {digest} has format {found}, newer than {FORMAT}; install the newer version again")]
    NewerFormat {
        /// Its digest.
        digest: String,
        /// Its format.
        found: u32,
    },
    /// It is not what its digest says, or no object.
    #[error("object {digest} is damaged: {what}")]
    Damaged {
        /// Its digest.
        digest: String,
        /// What is wrong.
        what: String,
    },
}

/// Which kind of definition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Kind {
    Instance,
    IncomingServer,
    Queue,
}

/// One definition.
#[derive(Debug, Clone)]
pub(super) enum Definition {
    Instance(Arc<Instance>),
    IncomingServer(Arc<IncomingServer>),
    Queue(Arc<Queue>),
}

impl Definition {
    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::Instance(_) => Kind::Instance,
            Self::IncomingServer(_) => Kind::IncomingServer,
            Self::Queue(_) => Kind::Queue,
        }
    }

    pub(super) fn uid(&self) -> &str {
        match self {
            Self::Instance(it) => &it.uid,
            Self::IncomingServer(it) => &it.uid,
            Self::Queue(it) => &it.uid,
        }
    }

    pub(super) fn name(&self) -> &str {
        match self {
            Self::Instance(it) => &it.name,
            Self::IncomingServer(it) => &it.name,
            Self::Queue(it) => &it.name,
        }
    }

    pub(super) fn revision(&self) -> u64 {
        match self {
            Self::Instance(it) => it.revision,
            Self::IncomingServer(it) => it.revision,
            Self::Queue(it) => it.revision,
        }
    }

    /// The bytes to store. The revision is not among them, so that equal definitions are one object.
    pub(super) fn encode(&self) -> Vec<u8> {
        match self {
            Self::Instance(it) => encode(&**it),
            Self::IncomingServer(it) => encode(&**it),
            Self::Queue(it) => encode_queue(it),
        }
    }

    /// Reads what [`encode`](Self::encode) wrote.
    pub(super) fn decode(kind: Kind, digest: &str, bytes: &[u8], revision: u64) -> Result<Self, DecodeError> {
        Ok(match kind {
            Kind::Instance => Self::Instance(Arc::new(Instance { revision, ..decode(digest, bytes)? })),
            Kind::IncomingServer => {
                Self::IncomingServer(Arc::new(IncomingServer { revision, ..decode(digest, bytes)? }))
            }
            Kind::Queue => Self::Queue(Arc::new(Queue { revision, ..decode(digest, bytes)? })),
        })
    }
}

pub(super) fn encode_queue(queue: &Queue) -> Vec<u8> {
    encode(queue)
}

#[derive(Serialize)]
struct Written<'a, T> {
    format: u32,
    #[serde(flatten)]
    body: &'a T,
}

#[derive(Deserialize)]
struct Format {
    format: u32,
}

/// The bytes of an object.
pub(super) fn encode<T: Serialize>(body: &T) -> Vec<u8> {
    // Serialising into memory fails only for maps with keys that are no text, and no stored type has one.
    serde_json::to_vec(&Written { format: FORMAT, body }).unwrap_or_default()
}

/// Reads the body of an object whose digest was compared.
pub(super) fn decode<T: DeserializeOwned>(digest: &str, bytes: &[u8]) -> Result<T, DecodeError> {
    let damaged = |error: serde_json::Error| {
        // Only the place: the text of the error may repeat what stands there.
        let what = format!("line {} column {} is not as expected", error.line(), error.column());
        DecodeError::Damaged { digest: digest.into(), what }
    };
    let Format { format } = serde_json::from_slice(bytes).map_err(damaged)?;
    if format > FORMAT {
        return Err(DecodeError::NewerFormat { digest: digest.into(), found: format });
    }
    serde_json::from_slice(bytes).map_err(damaged)
}

/// The name of an object: SHA-256 in lower-case hexadecimal.
pub(super) fn digest(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(&Sha256::digest(bytes))
}

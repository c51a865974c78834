//! Definitions and manifests as they are stored: JSON under the digest of its bytes.

use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::model::{IncomingServer, Instance, OutgoingServer, Queue, System};

/// Largest object, so that two fit into a commit.
pub(super) const MAX_BYTES: usize = 512 * 1024;

/// The format that is written. A newer one is refused rather than half understood. Format 1 knew no system settings, no
/// outgoing servers and no proxies; format 2 knew no outgoing server's host, scope, CA file, proxy and copy of sent mail;
/// format 3 knew no guard of a queue against backlogs; format 4 knew no deletion after intake.
const FORMAT: u32 = 5;

/// Uid and name of the system settings, of which there is one set.
pub(super) const SYSTEM: &str = "system";

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
    OutgoingServer,
    System,
}

impl Kind {
    /// What people call it.
    pub(super) fn noun(self) -> &'static str {
        match self {
            Self::Instance => "instance",
            Self::IncomingServer => "incoming-server",
            Self::Queue => "queue",
            Self::OutgoingServer => "outgoing-server",
            Self::System => "system",
        }
    }

    /// The kind of a noun that can be created and removed.
    pub(super) fn of_noun(noun: &str) -> Option<Self> {
        let kinds = [Self::Instance, Self::IncomingServer, Self::OutgoingServer, Self::Queue];
        kinds.into_iter().find(|kind| kind.noun() == noun)
    }
}

/// One definition.
#[derive(Debug, Clone)]
pub(super) enum Definition {
    Instance(Arc<Instance>),
    IncomingServer(Arc<IncomingServer>),
    Queue(Arc<Queue>),
    OutgoingServer(Arc<OutgoingServer>),
    System(Arc<System>),
}

macro_rules! each {
    ($definition:expr, $it:ident => $value:expr, system => $system:expr) => {
        match $definition {
            Self::Instance($it) => $value,
            Self::IncomingServer($it) => $value,
            Self::Queue($it) => $value,
            Self::OutgoingServer($it) => $value,
            Self::System(_) => $system,
        }
    };
}

impl Definition {
    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::Instance(_) => Kind::Instance,
            Self::IncomingServer(_) => Kind::IncomingServer,
            Self::Queue(_) => Kind::Queue,
            Self::OutgoingServer(_) => Kind::OutgoingServer,
            Self::System(_) => Kind::System,
        }
    }

    pub(super) fn uid(&self) -> &str {
        each!(self, it => &it.uid, system => SYSTEM)
    }

    pub(super) fn name(&self) -> &str {
        each!(self, it => &it.name, system => SYSTEM)
    }

    pub(super) fn revision(&self) -> u64 {
        match self {
            Self::System(it) => it.revision,
            _ => each!(self, it => it.revision, system => 0),
        }
    }

    /// The same, last changed by this revision of the model.
    pub(super) fn stamped(self, revision: u64) -> Self {
        fn stamp<T: Clone>(it: Arc<T>, of: impl Fn(&mut T) -> &mut u64, revision: u64) -> Arc<T> {
            let mut it = it;
            *of(Arc::make_mut(&mut it)) = revision;
            it
        }
        match self {
            Self::Instance(it) => Self::Instance(stamp(it, |it| &mut it.revision, revision)),
            Self::IncomingServer(it) => Self::IncomingServer(stamp(it, |it| &mut it.revision, revision)),
            Self::Queue(it) => Self::Queue(stamp(it, |it| &mut it.revision, revision)),
            Self::OutgoingServer(it) => Self::OutgoingServer(stamp(it, |it| &mut it.revision, revision)),
            Self::System(it) => Self::System(stamp(it, |it| &mut it.revision, revision)),
        }
    }

    /// True when both are the very same value in memory, hence equal.
    pub(super) fn same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Instance(a), Self::Instance(b)) => Arc::ptr_eq(a, b),
            (Self::IncomingServer(a), Self::IncomingServer(b)) => Arc::ptr_eq(a, b),
            (Self::Queue(a), Self::Queue(b)) => Arc::ptr_eq(a, b),
            (Self::OutgoingServer(a), Self::OutgoingServer(b)) => Arc::ptr_eq(a, b),
            (Self::System(a), Self::System(b)) => Arc::ptr_eq(a, b),
            _ => false,
        }
    }

    /// The bytes to store. The revision is not among them, so that equal definitions are one object.
    pub(super) fn encode(&self) -> Vec<u8> {
        match self {
            Self::Instance(it) => encode(&**it),
            Self::IncomingServer(it) => encode(&**it),
            Self::Queue(it) => encode_queue(it),
            Self::OutgoingServer(it) => encode(&**it),
            Self::System(it) => encode(&**it),
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
            Kind::OutgoingServer => {
                Self::OutgoingServer(Arc::new(OutgoingServer { revision, ..decode(digest, bytes)? }))
            }
            Kind::System => Self::System(Arc::new(System { revision, ..decode(digest, bytes)? })),
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

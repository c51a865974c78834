//! A body on its way in.

use std::sync::Arc;

use bytes::Bytes;
use object_store::{ObjectStore, ObjectStoreExt as _, PutPayload, WriteMultipart};
use sha2::{Digest as _, Sha256};
use tokio::sync::OwnedSemaphorePermit;

use super::{Error, Place, name};

/// A body on its way in. One that is dropped leaves nothing to be seen; in a bucket its parts stay until a rule of the
/// bucket takes them away, while [`Upload::abort`] does that at once.
#[derive(Debug)]
pub struct Upload {
    place: Place,
    digest: String,
    size_bytes: u64,
    taken: u64,
    hash: Sha256,
    way: Way,
    _turn: Option<OwnedSemaphorePermit>,
}

#[derive(Debug)]
enum Way {
    /// What fits into one part is written at once: in a bucket that is one request instead of three.
    Whole(Vec<Bytes>),
    Parts(WriteMultipart),
}

impl Upload {
    pub(super) async fn begin(
        place: Place,
        turn: Option<OwnedSemaphorePermit>,
        digest: &str,
        size_bytes: u64,
    ) -> Result<Self, Error> {
        let way = if size_bytes <= place.part as u64 {
            Way::Whole(Vec::new())
        } else {
            let begun = place.store.put_multipart(&name(digest)).await;
            let parts = begun.map_err(|source| place.failed("begin a body", source))?;
            Way::Parts(WriteMultipart::new_with_chunk_size(parts, place.part))
        };
        Ok(Self { place, digest: digest.into(), size_bytes, taken: 0, hash: Sha256::new(), way, _turn: turn })
    }

    /// Takes the next piece.
    pub async fn push(&mut self, piece: Bytes) -> Result<(), Error> {
        self.taken += piece.len() as u64;
        if self.taken > self.size_bytes {
            return Err(Error::Invalid(format!("it is longer than the {} bytes announced", self.size_bytes)));
        }
        self.hash.update(&piece);
        match &mut self.way {
            Way::Whole(pieces) => pieces.push(piece),
            Way::Parts(parts) => {
                // Bounds what is held in memory: at most so many parts, and one that is being filled.
                let free = parts.wait_for_capacity(self.place.parts_at_once).await;
                free.map_err(|source| self.place.failed("write a body", source))?;
                parts.put(piece);
            }
        }
        Ok(())
    }

    /// Makes the body durable and visible, if it is what was announced; otherwise nothing of it stays.
    pub async fn finish(self) -> Result<(), Error> {
        let digest = data_encoding::HEXLOWER.encode(&self.hash.finalize());
        if self.taken != self.size_bytes || digest != self.digest {
            let found = format!("{} bytes with digest {digest}", self.taken);
            abort(self.way).await.map_err(|source| self.place.failed("drop a body", source))?;
            return Err(Error::Invalid(format!("{found} came, {} with {} announced", self.size_bytes, self.digest)));
        }
        let store: Arc<dyn ObjectStore> = self.place.store.clone();
        let done = match self.way {
            Way::Whole(pieces) => store.put(&name(&self.digest), PutPayload::from_iter(pieces)).await,
            Way::Parts(parts) => parts.finish().await,
        };
        done.map(|_| ()).map_err(|source| self.place.failed("finish a body", source))
    }

    /// Drops what came so far.
    pub async fn abort(self) {
        if let Err(error) = abort(self.way).await {
            let error = self.place.failed("drop a body", error);
            tracing::warn!(%error, digest = self.digest, "an unfinished body could not be removed");
        }
    }
}

async fn abort(way: Way) -> object_store::Result<()> {
    match way {
        Way::Whole(_) => Ok(()),
        Way::Parts(parts) => parts.abort().await,
    }
}

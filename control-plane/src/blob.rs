//! Large message bodies, outside the ledger, under the digest of their bytes.
//!
//! Ordering: a body is durable here before the report that names it is committed, so the ledger never points at nothing.
//!
//! Invariant: nothing removes a body. A backup relies on that (see [`crate::backup`]).

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt as _};
use object_store::local::LocalFileSystem;
use object_store::path::Path as Name;
use object_store::{GetOptions, ObjectStore, ObjectStoreExt as _, WriteMultipart};
use sha2::{Digest as _, Sha256};

/// Why a body could not be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The bytes are not what the digest says, or more than were announced.
    #[error("the body is not what was announced: {0}")]
    Invalid(String),
    /// There is no such body.
    #[error("there is no body {0}")]
    Missing(String),
    /// The folder or service behind it failed.
    #[error("the blob store failed to {attempt}")]
    Backend {
        /// What was tried.
        attempt: &'static str,
        /// Why.
        #[source]
        source: object_store::Error,
    },
}

/// True for a SHA-256 digest in lower-case hexadecimal.
pub fn is_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// A place for bodies.
#[derive(Debug, Clone)]
pub struct Blobs {
    store: Arc<dyn ObjectStore>,
}

impl Blobs {
    /// Bodies in a folder, which is created when it is missing. Every body is flushed to disk before it counts.
    pub fn folder(path: &Path) -> Result<Self, Error> {
        let backend = |source| Error::Backend { attempt: "open its folder", source };
        std::fs::create_dir_all(path)
            .map_err(|source| backend(object_store::Error::Generic { store: "folder", source: Box::new(source) }))?;
        let store = LocalFileSystem::new_with_prefix(path).map_err(backend)?.with_fsync(true);
        Ok(Self { store: Arc::new(store) })
    }

    /// True when the body is here, whole and durable.
    pub async fn contains(&self, digest: &str) -> Result<bool, Error> {
        Ok(self.size(digest).await?.is_some())
    }

    /// The length of a body in bytes. `None`: it is not here.
    pub async fn size(&self, digest: &str) -> Result<Option<u64>, Error> {
        match self.store.head(&name(digest)).await {
            Ok(found) => Ok(Some(found.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(source) => Err(Error::Backend { attempt: "look for a body", source }),
        }
    }

    /// Begins to take in a body. Nothing is visible before [`Upload::finish`].
    pub async fn upload(&self, digest: &str, size_bytes: u64) -> Result<Upload, Error> {
        let parts = self
            .store
            .put_multipart(&name(digest))
            .await
            .map_err(|source| Error::Backend { attempt: "begin a body", source })?;
        Ok(Upload {
            digest: digest.into(),
            size_bytes,
            taken: 0,
            hash: Sha256::new(),
            parts: WriteMultipart::new_with_chunk_size(parts, 1024 * 1024),
        })
    }

    /// The bytes of a body, in pieces.
    pub async fn read(&self, digest: &str) -> Result<BoxStream<'static, Result<Bytes, Error>>, Error> {
        self.read_with(digest, GetOptions::default()).await
    }

    /// Some of the bytes of a body, in pieces. What lies behind its end is not there; a range that begins there is refused.
    pub async fn read_range(
        &self,
        digest: &str,
        range: std::ops::Range<u64>,
    ) -> Result<BoxStream<'static, Result<Bytes, Error>>, Error> {
        self.read_with(digest, GetOptions { range: Some(range.into()), ..Default::default() }).await
    }

    async fn read_with(
        &self,
        digest: &str,
        options: GetOptions,
    ) -> Result<BoxStream<'static, Result<Bytes, Error>>, Error> {
        let failed = |source| Error::Backend { attempt: "read a body", source };
        match self.store.get_opts(&name(digest), options).await {
            Ok(found) => Ok(found.into_stream().map(move |piece| piece.map_err(failed)).boxed()),
            Err(object_store::Error::NotFound { .. }) => Err(Error::Missing(digest.into())),
            Err(source) => Err(failed(source)),
        }
    }
}

/// Two levels, so that no folder grows without bound.
fn name(digest: &str) -> Name {
    let (shelf, rest) = digest.split_at_checked(2).unwrap_or(("", digest));
    Name::from_iter([shelf, rest])
}

/// A body on its way in.
#[derive(Debug)]
pub struct Upload {
    digest: String,
    size_bytes: u64,
    taken: u64,
    hash: Sha256,
    parts: WriteMultipart,
}

impl Upload {
    /// Takes the next piece.
    pub async fn push(&mut self, piece: Bytes) -> Result<(), Error> {
        self.taken += piece.len() as u64;
        if self.taken > self.size_bytes {
            return Err(Error::Invalid(format!("it is longer than the {} bytes announced", self.size_bytes)));
        }
        self.hash.update(&piece);
        // Bounds what is held in memory: at most this many pieces of 1 MiB wait for the disk.
        let full = self.parts.wait_for_capacity(4).await;
        full.map_err(|source| Error::Backend { attempt: "write a body", source })?;
        self.parts.put(piece);
        Ok(())
    }

    /// Makes the body durable and visible, if it is what was announced; otherwise nothing of it stays.
    pub async fn finish(self) -> Result<(), Error> {
        let digest = data_encoding::HEXLOWER.encode(&self.hash.finalize());
        if self.taken != self.size_bytes || digest != self.digest {
            let found = format!("{} bytes with digest {digest}", self.taken);
            self.parts.abort().await.map_err(|source| Error::Backend { attempt: "drop a body", source })?;
            return Err(Error::Invalid(format!("{found} came, {} with {} announced", self.size_bytes, self.digest)));
        }
        self.parts.finish().await.map_err(|source| Error::Backend { attempt: "finish a body", source })?;
        Ok(())
    }

    /// Drops what came so far.
    pub async fn abort(self) {
        if let Err(error) = self.parts.abort().await {
            tracing::warn!(%error, digest = self.digest, "an unfinished body could not be removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::TryStreamExt as _;

    use super::*;

    fn digest(bytes: &[u8]) -> String {
        data_encoding::HEXLOWER.encode(&Sha256::digest(bytes))
    }

    #[tokio::test]
    async fn a_body_comes_back_as_it_went_in() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = Blobs::folder(folder.path()).unwrap();
        let body: Vec<u8> = (0..3_000_000u32).map(|n| n as u8).collect();
        for _ in 0..2 {
            let mut upload = blobs.upload(&digest(&body), body.len() as u64).await.unwrap();
            for piece in body.chunks(256 * 1024) {
                upload.push(Bytes::copy_from_slice(piece)).await.unwrap();
            }
            upload.finish().await.unwrap();
        }
        assert!(blobs.contains(&digest(&body)).await.unwrap());
        let pieces: Vec<Bytes> = blobs.read(&digest(&body)).await.unwrap().try_collect().await.unwrap();
        assert_eq!(pieces.concat(), body);
    }

    #[tokio::test]
    async fn a_body_that_is_not_what_was_announced_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = Blobs::folder(folder.path()).unwrap();
        let announced = digest(b"whole");
        let mut short = blobs.upload(&announced, 5).await.unwrap();
        short.push(Bytes::from_static(b"whol")).await.unwrap();
        assert!(matches!(short.finish().await, Err(Error::Invalid(_))));
        let mut other = blobs.upload(&announced, 5).await.unwrap();
        other.push(Bytes::from_static(b"other")).await.unwrap();
        assert!(matches!(other.finish().await, Err(Error::Invalid(_))));
        let mut long = blobs.upload(&announced, 5).await.unwrap();
        assert!(matches!(long.push(Bytes::from_static(b"longer")).await, Err(Error::Invalid(_))));
        long.abort().await;
        assert!(!blobs.contains(&announced).await.unwrap());
        assert!(matches!(blobs.read(&announced).await, Err(Error::Missing(_))));
    }
}

//! Large message bodies, outside the ledger, under the digest of their bytes: in a folder, or in a bucket of a server that
//! speaks S3.
//!
//! Ordering: a body is durable here before the report that names it is committed, so the ledger never points at nothing.
//!
//! Invariant: nothing removes a body. A backup relies on that (see [`crate::backup`]).
//!
//! Invariant: no body is held in memory as a whole but for one of a single part; of all uploads together at most
//! [`UPLOADS`] times the parts of one.
//!
//! Reading order: [`choice`] (where bodies are, in one line), [`Blobs`], [`upload`] (on the way in), `s3` (the bucket).

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt as _};
use object_store::local::LocalFileSystem;
use object_store::path::Path as Name;
use object_store::{GetOptions, ObjectStore, ObjectStoreExt as _};
use tokio::sync::Semaphore;

pub mod choice;
mod s3;
#[cfg(test)]
mod suite;
pub mod upload;

use self::choice::{BlobsChoice, S3Settings};
pub use self::s3::Refused;
pub use self::upload::Upload;

/// Bodies on their way in at one time; further ones wait.
pub const UPLOADS: usize = 8;
const MIB: usize = 1024 * 1024;

/// Why a body could not be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The bytes are not what the digest says, or more than were announced.
    #[error("the body is not what was announced: {0}")]
    Invalid(String),
    /// There is no such body.
    #[error("there is no body {0}")]
    Missing(String),
    /// The bucket cannot be used with these settings.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The folder failed.
    #[error("the blob store failed to {attempt}")]
    Backend {
        /// What was tried.
        attempt: &'static str,
        /// Why.
        #[source]
        source: object_store::Error,
    },
    /// The bucket failed.
    #[error("{place} failed to {attempt}: {why}")]
    Bucket {
        /// Which.
        place: Arc<str>,
        /// What was tried.
        attempt: &'static str,
        /// What its server said, or why it said nothing.
        why: String,
    },
}

/// True for a SHA-256 digest in lower-case hexadecimal.
pub fn is_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// A place for bodies. Cheap to share.
#[derive(Debug, Clone)]
pub struct Blobs {
    place: Place,
    /// Where bodies were before there was a bucket, or were restored to: it is read, and never written.
    former: Option<Place>,
    turns: Arc<Semaphore>,
}

/// A folder or a bucket.
#[derive(Debug, Clone)]
struct Place {
    store: Arc<dyn ObjectStore>,
    /// Its name where it is a bucket.
    bucket: Option<Arc<str>>,
    /// Bytes that are written at once. Servers that speak S3 take parts of 5 MiB or more.
    part: usize,
    /// Parts of one body that are on their way at one time.
    parts_at_once: usize,
}

impl Place {
    fn folder(path: &Path) -> Result<Self, Error> {
        let backend = |source| Error::Backend { attempt: "open its folder", source };
        std::fs::create_dir_all(path)
            .map_err(|source| backend(object_store::Error::Generic { store: "folder", source: Box::new(source) }))?;
        let store = LocalFileSystem::new_with_prefix(path).map_err(backend)?.with_fsync(true);
        Ok(Self { store: Arc::new(store), bucket: None, part: MIB, parts_at_once: 4 })
    }

    fn failed(&self, attempt: &'static str, source: object_store::Error) -> Error {
        match &self.bucket {
            Some(place) => Error::Bucket { place: place.clone(), attempt, why: s3::words(&source) },
            None => Error::Backend { attempt, source },
        }
    }

    async fn size(&self, digest: &str) -> Result<Option<u64>, Error> {
        match self.store.head(&name(digest)).await {
            Ok(found) => Ok(Some(found.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(source) => Err(self.failed("look for a body", source)),
        }
    }

    /// `None`: it is not here.
    async fn read(&self, digest: &str, options: GetOptions) -> Result<Option<Pieces>, Error> {
        match self.store.get_opts(&name(digest), options).await {
            Ok(found) => {
                let place = self.clone();
                let failed = move |source| place.failed("read a body", source);
                Ok(Some(found.into_stream().map(move |piece| piece.map_err(&failed)).boxed()))
            }
            Err(source @ object_store::Error::NotFound { .. }) if !s3::is_bucket_missing(&source) => Ok(None),
            Err(source) => Err(self.failed("read a body", source)),
        }
    }
}

/// The bytes of a body.
pub type Pieces = BoxStream<'static, Result<Bytes, Error>>;

impl Blobs {
    /// Bodies in a folder, which is created when it is missing. Every body is flushed to disk before it counts.
    pub fn folder(path: &Path) -> Result<Self, Error> {
        Ok(Self::new(Place::folder(path)?, None))
    }

    /// Bodies in a bucket, which is tried. What lies in `folder`, which is created when it is missing, is found too.
    ///
    /// # Errors
    /// [`Error::Refused`] when somebody has to mend something. A server that does not answer is no error: large bodies wait
    /// until it does.
    pub async fn bucket(settings: &S3Settings, folder: &Path) -> Result<Self, Error> {
        let place =
            Place { store: s3::open(settings)?, bucket: Some(settings.url().into()), part: 5 * MIB, parts_at_once: 2 };
        if let Some(why) = s3::probe(&*place.store, settings).await? {
            tracing::warn!(
                endpoint = settings.url(),
                error = why,
                "the bucket does not answer; large messages wait until it does"
            );
        }
        Ok(Self::new(place, Some(Place::folder(folder)?)))
    }

    /// Bodies where it was chosen; `folder` is the one in the data folder.
    pub async fn open(choice: &BlobsChoice, folder: &Path) -> Result<Self, Error> {
        match choice {
            BlobsChoice::Folder => Self::folder(folder),
            BlobsChoice::S3(settings) => Self::bucket(settings, folder).await,
        }
    }

    fn new(place: Place, former: Option<Place>) -> Self {
        Self { place, former, turns: Arc::new(Semaphore::new(UPLOADS)) }
    }

    /// True when the body is here, whole and durable.
    pub async fn contains(&self, digest: &str) -> Result<bool, Error> {
        Ok(self.size(digest).await?.is_some())
    }

    /// The length of a body in bytes. `None`: it is not here.
    pub async fn size(&self, digest: &str) -> Result<Option<u64>, Error> {
        // Ordering: the folder first, which costs nothing.
        if let Some(former) = &self.former
            && let Some(size) = former.size(digest).await?
        {
            return Ok(Some(size));
        }
        self.place.size(digest).await
    }

    /// Begins to take in a body, when it is its turn. Nothing is visible before [`Upload::finish`].
    pub async fn upload(&self, digest: &str, size_bytes: u64) -> Result<Upload, Error> {
        // The semaphore is never closed.
        let turn = self.turns.clone().acquire_owned().await.ok();
        Upload::begin(self.place.clone(), turn, digest, size_bytes).await
    }

    /// The bytes of a body, in pieces.
    pub async fn read(&self, digest: &str) -> Result<Pieces, Error> {
        self.read_with(digest, GetOptions::default()).await
    }

    /// Some of the bytes of a body, in pieces. What lies behind its end is not there; a range that begins there is refused.
    pub async fn read_range(&self, digest: &str, range: std::ops::Range<u64>) -> Result<Pieces, Error> {
        self.read_with(digest, GetOptions { range: Some(range.into()), ..Default::default() }).await
    }

    async fn read_with(&self, digest: &str, options: GetOptions) -> Result<Pieces, Error> {
        for place in self.former.iter().chain([&self.place]) {
            if let Some(pieces) = place.read(digest, options.clone()).await? {
                return Ok(pieces);
            }
        }
        Err(Error::Missing(digest.into()))
    }
}

/// Two levels, so that no folder grows without bound.
fn name(digest: &str) -> Name {
    let (shelf, rest) = digest.split_at_checked(2).unwrap_or(("", digest));
    Name::from_iter([shelf, rest])
}

//! Makes a backup: copies first, then packs and sends as fast as it is asked. What order this takes, and why, is told in
//! [`super`].
//!
//! Nothing runs by itself: a backup goes on while its caller polls, and stops when it is dropped. Memory is bounded by
//! one piece, and 32 bytes for each body.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt as _};
use postroom_proto::reason::{Failure, Reason};
use postroom_proto::v1;
use secrecy::ExposeSecret as _;
use tokio::io::AsyncReadExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::manifest::{Manifest, NAMED, Seal};
use super::packing::Packing;
use super::{Event, FORMAT, member};
use crate::access::vault::Vault;
use crate::blob::Blobs;
use crate::definition::Definitions;
use crate::ledger::sqlite::copy::BodyDigest;
use crate::store::opened::Opened;
use crate::{blob, clock, folder, ledger, store};

/// Folder of the copies, in the data folder.
const SCRATCH: &str = "backup";
/// Bytes that are read at once.
const PIECE: usize = 256 * 1024;
/// Bodies that are looked for at one time.
const LOOKS: usize = 16;
/// Bytes of the archive that are sent at once, at least; what one piece brings comes on top.
const CHUNK: usize = 64 * 1024;
/// Longest silence while it copies.
const PULSE: Duration = Duration::from_secs(1);
/// Bytes that go into the archive between two reports of progress.
const STRIDE: u64 = 4 * 1024 * 1024;

/// Why a backup could not be made.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("the folder {path} of the copies cannot be used")]
    Scratch {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("a copy needs as much free space in the data folder as the databases take")]
    Ledger(#[source] ledger::Error),
    #[error("the store cannot be copied")]
    Store(#[source] store::Error),
    #[error("a copy cannot be read")]
    Look(#[from] sqlx::Error),
    #[error("ledger and store do not belong together: epoch {epoch}, revision {revision}")]
    Apart { epoch: u64, revision: u64 },
    #[error("a body cannot be read")]
    Body(#[from] blob::Error),
    #[error("the archive cannot be written")]
    Pack(#[from] io::Error),
}

/// Makes backups, one at a time.
#[derive(Debug, Clone)]
pub struct Backups {
    ground: Arc<Ground>,
    turn: Arc<Semaphore>,
    stopping: CancellationToken,
}

/// What there is to copy.
#[derive(Debug)]
pub struct Ground {
    /// The data folder.
    pub data: PathBuf,
    /// The ledger.
    pub ledger: Arc<ledger::sqlite::Sqlite>,
    /// The store.
    pub store: Opened,
    /// The bodies.
    pub blobs: Blobs,
    /// The model, whose trees stay while they are copied.
    pub definitions: Arc<Definitions>,
    /// The keys.
    pub vault: Arc<Vault>,
}

impl Backups {
    /// Makes backups of this until told to stop. Takes away copies that a crash has left.
    pub fn new(ground: Ground, stopping: CancellationToken) -> Self {
        drop(Scratch(ground.data.join(SCRATCH)));
        Self { ground: Arc::new(ground), turn: Arc::new(Semaphore::new(1)), stopping }
    }

    /// Begins a backup.
    pub fn begin(&self, include_key: bool) -> Result<Making, Failure> {
        let turn = self.turn.clone().try_acquire_owned().map_err(|_| {
            let busy = Failure::new(Reason::TooMany, "another backup is being made; wait until it is done");
            Failure { retry_after: Some(Duration::from_secs(60)), ..busy }
        })?;
        let work = copy(self.ground.clone(), include_key);
        let step = Step::Copying { work: Box::pin(work), ground: self.ground.clone() };
        Ok(Making { step, stopping: self.stopping.clone(), _turn: turn })
    }
}

/// A backup that is being made.
pub struct Making {
    step: Step,
    stopping: CancellationToken,
    _turn: OwnedSemaphorePermit,
}

enum Step {
    Copying { work: Pin<Box<dyn Future<Output = Result<Copies, Error>> + Send>>, ground: Arc<Ground> },
    Sending(Box<Sending>),
    Done,
}

impl Making {
    /// What comes next; `None` once it is whole. After an error there is nothing more.
    pub async fn next(&mut self) -> Result<Option<Event>, Failure> {
        let stopping = self.stopping.clone();
        let next = tokio::select! {
            next = self.step.next() => next,
            () = stopping.cancelled() => {
                self.step = Step::Done;
                return Err(Failure::new(Reason::ShuttingDown, "the control plane is stopping; make the backup later"));
            }
        };
        next.map_err(|error| {
            self.step = Step::Done;
            Failure::new(Reason::StorageFailed, crate::failure::chain(&error))
        })
    }
}

impl Step {
    async fn next(&mut self) -> Result<Option<Event>, Error> {
        match self {
            Self::Copying { work, ground } => match tokio::time::timeout(PULSE, work).await {
                Err(_) => Ok(Some(copying(&ground.data))),
                Ok(copies) => {
                    let sending = Sending::new(copies?, ground.blobs.clone());
                    let progress = sending.progress();
                    *self = Self::Sending(Box::new(sending));
                    Ok(Some(progress))
                }
            },
            Self::Sending(sending) => match sending.next().await? {
                Some(event) => Ok(Some(event)),
                None => {
                    let done = Event::Done(sending.manifest.describe(&sending.seal));
                    *self = Self::Done;
                    Ok(Some(done))
                }
            },
            Self::Done => Ok(None),
        }
    }
}

/// How far the copies are, by their size.
fn copying(data: &Path) -> Event {
    let sizes = |folder: &Path| {
        let size = |name: &&str| std::fs::metadata(folder.join(name)).map_or(0, |found| found.len());
        [member::LEDGER, member::STORE].iter().map(size).sum::<u64>()
    };
    let total_bytes = sizes(data);
    Event::Progress(v1::BackupProgress {
        stage: v1::BackupStage::Copying.into(),
        done_bytes: sizes(&data.join(SCRATCH)).min(total_bytes),
        total_bytes,
    })
}

/// The copies' folder, which is removed when it is dropped.
#[derive(Debug)]
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %self.0.display(), %error, "copies of a backup could not be removed");
        }
    }
}

/// What was copied, as of one moment.
struct Copies {
    scratch: Scratch,
    manifest: Manifest,
    bodies: Vec<BodyDigest>,
    key: Vec<u8>,
}

async fn copy(ground: Arc<Ground>, include_key: bool) -> Result<Copies, Error> {
    let folder = ground.data.join(SCRATCH);
    let unusable = |source| Error::Scratch { path: folder.clone(), source };
    drop(Scratch(folder.clone()));
    std::fs::create_dir(&folder).map_err(unusable)?;
    let scratch = Scratch(folder);
    let (ledger_path, store_path) = (scratch.0.join(member::LEDGER), scratch.0.join(member::STORE));
    let created_micros = clock::now();

    // Ordering: keys are held, then ledger, store, bodies; see the module above.
    let keys = ground.vault.hold_keys().await;
    ground.ledger.copy_to(&ledger_path).await.map_err(Error::Ledger)?;
    // Ordering: a store that is copied key by key has the head of the model before its trees. A rotation that goes on
    // may not take these away in between.
    let trees = ground.definitions.changing().await;
    ground.store.copy_to(&store_path).await.map_err(Error::Store)?;
    drop(trees);
    let ledger = ledger::sqlite::copy::describe(&ledger_path).await?;
    let store = store::sqlite::copy::describe(&store_path).await?;
    if ledger.highest_epoch > store.revision.0 {
        return Err(Error::Apart { epoch: ledger.highest_epoch, revision: store.revision.0 });
    }
    let bodies = ledger::sqlite::copy::bodies(&ledger_path).await?;
    let (mut body_bytes, mut missing, mut missing_bodies) = (0, Vec::new(), 0);
    let mut found = Vec::with_capacity(bodies.len());
    // Several at once: a bucket takes its time for each.
    let mut looks = futures::stream::iter(bodies)
        .map(|body| {
            let blobs = &ground.blobs;
            let digest = data_encoding::HEXLOWER.encode(&body);
            async move { blobs.size(&digest).await.map(|size| (body, digest, size)) }
        })
        .buffered(LOOKS);
    while let Some(looked) = looks.next().await {
        match looked? {
            (body, _, Some(size)) => {
                body_bytes += size;
                found.push(body);
            }
            (_, digest, None) => {
                tracing::error!(digest, "a message body is missing; the backup goes on without it");
                missing_bodies += 1;
                if missing.len() < NAMED {
                    missing.push(digest);
                }
            }
        }
    }
    drop(looks);
    let key = if include_key { keys.text.expose_secret().as_bytes().to_vec() } else { Vec::new() };
    let (key_id, further_key_ids) = match keys.ids.split_last() {
        Some((newest, older)) => (newest.clone(), older.to_vec()),
        None => Default::default(),
    };
    let size = |path: &Path| std::fs::metadata(path).map(|found| found.len()).map_err(Error::Pack);
    let manifest = Manifest {
        format: FORMAT,
        version: env!("CARGO_PKG_VERSION").into(),
        created_micros,
        ledger_id: ledger.id,
        ledger_bytes: size(&ledger_path)?,
        highest_epoch: ledger.highest_epoch,
        messages: ledger.messages,
        contacts: ledger.contacts,
        store_id: store.id,
        store_bytes: size(&store_path)?,
        revision: store.revision.0,
        bodies: found.len() as u64,
        body_bytes,
        missing_bodies,
        missing,
        key_id,
        further_key_ids,
        key_bytes: key.len() as u64,
    };
    Ok(Copies { scratch, manifest, bodies: found, key })
}

/// Packs what was copied, and hands it out.
struct Sending {
    manifest: Manifest,
    seal: Seal,
    blobs: Blobs,
    /// `None` once the last bytes were handed out, and while a piece is being packed.
    packing: Option<Packing>,
    members: VecDeque<Source>,
    bodies: std::vec::IntoIter<BodyDigest>,
    current: Option<(String, BoxStream<'static, Result<Bytes, Error>>)>,
    done_bytes: u64,
    told_bytes: u64,
    scratch: Scratch,
}

/// Where a member comes from.
enum Source {
    Bytes(&'static str, Vec<u8>),
    File(&'static str, u64),
}

impl Sending {
    fn new(copies: Copies, blobs: Blobs) -> Self {
        let Copies { scratch, manifest, bodies, key } = copies;
        let mut members = VecDeque::from([
            Source::Bytes(member::MANIFEST, serde_json::json!(manifest).to_string().into_bytes()),
            Source::File(member::LEDGER, manifest.ledger_bytes),
            Source::File(member::STORE, manifest.store_bytes),
        ]);
        if !key.is_empty() {
            members.push_back(Source::Bytes(member::KEY, key));
        }
        let created_seconds = u64::try_from(manifest.created_micros / 1_000_000).unwrap_or(0);
        Self {
            manifest,
            seal: Seal::default(),
            blobs,
            packing: Some(Packing::new(created_seconds)),
            members,
            bodies: bodies.into_iter(),
            current: None,
            done_bytes: 0,
            told_bytes: 0,
            scratch,
        }
    }

    fn progress(&self) -> Event {
        Event::Progress(v1::BackupProgress {
            stage: v1::BackupStage::Sending.into(),
            done_bytes: self.done_bytes,
            total_bytes: self.manifest.payload_bytes(),
        })
    }

    /// The next part of the archive, or how far it is. `None`: that was all.
    async fn next(&mut self) -> Result<Option<Event>, Error> {
        while let Some(packing) = &mut self.packing {
            if packing.waiting() >= CHUNK {
                return Ok(Some(Event::Chunk(packing.take())));
            }
            if self.done_bytes - self.told_bytes >= STRIDE {
                self.told_bytes = self.done_bytes;
                return Ok(Some(self.progress()));
            }
            if let Some(last) = self.step().await? {
                return Ok(Some(Event::Chunk(last)));
            }
        }
        Ok(None)
    }

    /// Packs one piece, or begins or ends a member. Returns the last bytes of the archive when nothing is left to pack.
    async fn step(&mut self) -> Result<Option<Bytes>, Error> {
        if let Some((name, pieces)) = &mut self.current {
            if let Some(piece) = pieces.next().await {
                self.pack(piece?).await?;
                return Ok(None);
            }
            let name = std::mem::take(name);
            self.current = None;
            let digest = self.packing()?.end()?;
            self.seal(name, digest);
            return Ok(None);
        }
        if let Some(source) = self.members.pop_front() {
            let (name, size, pieces) = match source {
                Source::Bytes(name, bytes) => {
                    let size = bytes.len() as u64;
                    (name, size, futures::stream::iter([Ok(bytes.into())]).boxed())
                }
                Source::File(name, size) => (name, size, file(&self.scratch.0.join(name)).await?),
            };
            self.packing()?.begin(name, size)?;
            self.current = Some((name.into(), pieces));
            return Ok(None);
        }
        if let Some(body) = self.bodies.next() {
            let digest = data_encoding::HEXLOWER.encode(&body);
            let size = self.blobs.size(&digest).await?.ok_or_else(|| blob::Error::Missing(digest.clone()))?;
            let name = member::body(&digest);
            let pieces = self.blobs.read(&digest).await?.map(|piece| piece.map_err(Error::from)).boxed();
            self.packing()?.begin(&name, size)?;
            self.current = Some((name, pieces));
            return Ok(None);
        }
        let seal = serde_json::json!(self.seal).to_string();
        self.packing()?.add(member::SEAL, seal.as_bytes())?;
        match self.packing.take() {
            Some(packing) => Ok(Some(packing.finish()?)),
            None => Err(ended().into()),
        }
    }

    /// Compressing takes milliseconds, which others on this thread should not wait for.
    async fn pack(&mut self, piece: Bytes) -> Result<(), Error> {
        let mut packing = self.packing.take().ok_or_else(ended)?;
        self.done_bytes += piece.len() as u64;
        let packed = tokio::task::spawn_blocking(move || packing.push(&piece).map(|()| packing)).await;
        self.packing = Some(packed.map_err(io::Error::other)??);
        Ok(())
    }

    fn seal(&mut self, name: String, digest: String) {
        if !name.starts_with(folder::BLOBS) {
            self.seal.members.insert(name, digest);
        } else if member::body(&digest) != name {
            tracing::error!(name, "a message body is not what it was when it came; the backup marks it as damaged");
            self.seal.damaged.push(name);
        }
    }

    fn packing(&mut self) -> io::Result<&mut Packing> {
        self.packing.as_mut().ok_or_else(ended)
    }
}

fn ended() -> io::Error {
    io::Error::other("the archive is at its end")
}

/// A file in pieces.
async fn file(path: &Path) -> io::Result<BoxStream<'static, Result<Bytes, Error>>> {
    let file = tokio::fs::File::open(path).await?;
    let pieces = futures::stream::try_unfold(file, |mut file| async move {
        let mut piece = Vec::with_capacity(PIECE);
        (&mut file).take(PIECE as u64).read_to_end(&mut piece).await?;
        Ok((!piece.is_empty()).then(|| (Bytes::from(piece), file)))
    });
    Ok(pieces.boxed())
}

//! The model in the store, kept like a git tree.
//!
//! Objects under their digests, a manifest in chunks that lists them, and a head that names the manifest. Objects are
//! written first, in as many commits as they need; nobody sees them. One guarded commit of the head publishes them all.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use serde::{Deserialize, Serialize};

use super::model::Model;
use super::object::{self, DecodeError, Definition, Kind};
use super::plan;
use crate::store::{self, Guard, MAX_COMMIT_BYTES, MAX_WRITES, Outcome, Revision, Store, Write, key};

/// Most entries of a manifest chunk.
const CHUNK_ENTRIES: usize = 1000;
/// Most bytes of the entries of a manifest chunk, below what an object may have.
const CHUNK_BYTES: usize = object::MAX_BYTES - 16 * 1024;
/// Objects read at once.
const READS: usize = 16;
/// How often a commit of objects is repeated when its outcome is unknown. Writing an object again changes nothing.
const REPEATS: usize = 3;

/// Why the model could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// What is stored cannot be understood.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// An object that the model needs is not there.
    #[error("object {digest} of the model is missing; restore the store from a backup")]
    Missing {
        /// Its digest.
        digest: String,
    },
}

/// Why the model could not be written.
#[derive(Debug, thiserror::Error)]
pub(super) enum WriteError {
    #[error("the model was changed meanwhile")]
    Conflict,
    #[error("it is not known whether the model was changed")]
    Unknown,
    #[error(transparent)]
    Read(#[from] ReadError),
}

impl From<store::Error> for WriteError {
    fn from(error: store::Error) -> Self {
        Self::Read(error.into())
    }
}

/// Who changed the model, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Author {
    /// Name of the caller.
    pub name: String,
    /// In microseconds since 1970.
    pub time: i64,
}

/// What is recorded with a revision besides its content.
#[derive(Debug, Clone, Copy)]
pub(super) struct Origin<'a> {
    pub(super) author: &'a Author,
    /// The revision whose content it has; 0: none.
    pub(super) rollback_of: u64,
    /// The caller's id of the request; may be empty.
    pub(super) request: &'a str,
}

/// A revision of the model as it is stored under the head and in the history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Head {
    pub(super) revision: u64,
    /// Digest of the manifest.
    pub(super) manifest: String,
    /// The revision before; 0: none.
    pub(super) parent: u64,
    /// In microseconds since 1970.
    pub(super) time: i64,
    pub(super) author: String,
    /// Tells two attempts with the same content apart.
    pub(super) commit: String,
    /// The revision whose content it has, when it was made by a rollback; 0: it was not.
    #[serde(default)]
    pub(super) rollback_of: u64,
    /// The caller's id of the request that made it; may be empty.
    #[serde(default)]
    pub(super) request: String,
}

/// Digests of the chunks, in order.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Manifest {
    pub(super) chunks: Vec<String>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Chunk {
    pub(super) entries: Vec<Entry>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Entry {
    kind: Kind,
    pub(super) uid: String,
    name: String,
    pub(super) digest: String,
    /// Revision of the model that last changed it.
    changed: u64,
}

/// A model together with where it came from.
#[derive(Debug, Clone, Default)]
pub(super) struct Snapshot {
    pub(super) model: Arc<Model>,
    /// Mod revision of the head; `None`: there is no head yet.
    pub(super) head: Option<Revision>,
    definitions: HashMap<String, (String, Definition)>,
    /// Every object that is known to be stored: definitions, chunks, manifest.
    stored: HashSet<String>,
}

/// Reads the newest model, except for what `known` already has.
pub(super) async fn read(store: &dyn Store, known: &Snapshot) -> Result<Snapshot, ReadError> {
    let Some(entry) = store.get(key::MODEL_HEAD).await? else { return Ok(Snapshot::default()) };
    if known.head == Some(entry.mod_revision) {
        return Ok(known.clone());
    }
    let head: Head = object::decode("model/head", &entry.value)?;
    let (entries, mut stored) = entries(store, &head).await?;
    let resolved = futures::stream::iter(entries.into_iter().map(|entry| resolve(store, known, entry)));
    let resolved: Vec<_> = resolved.buffer_unordered(READS).try_collect().await?;
    stored.extend(resolved.iter().map(|(digest, _)| digest.clone()));
    let model = Model::new(head.revision, plan::assemble(resolved.iter().map(|(_, definition)| definition.clone())));
    let definitions = resolved.into_iter().map(|it| (it.1.uid().to_owned(), it)).collect();
    Ok(Snapshot { model: Arc::new(model), head: Some(entry.mod_revision), definitions, stored })
}

/// The model of an old revision, except for what `known` already has.
pub(super) async fn read_at(store: &dyn Store, known: &Snapshot, head: &Head) -> Result<Model, ReadError> {
    let (entries, _) = entries(store, head).await?;
    let resolved = futures::stream::iter(entries.into_iter().map(|entry| resolve(store, known, entry)));
    let resolved: Vec<_> = resolved.buffer_unordered(READS).try_collect().await?;
    Ok(Model::new(head.revision, plan::assemble(resolved.into_iter().map(|(_, definition)| definition))))
}

/// What a revision consists of, and the digests of the objects that say so.
pub(super) async fn entries(store: &dyn Store, head: &Head) -> Result<(Vec<Entry>, HashSet<String>), ReadError> {
    let manifest: Manifest = object::decode(&head.manifest, &fetch(store, &head.manifest).await?)?;
    let mut stored = HashSet::from([head.manifest.clone()]);
    let mut entries = Vec::new();
    for digest in &manifest.chunks {
        let chunk: Chunk = object::decode(digest, &fetch(store, digest).await?)?;
        entries.extend(chunk.entries);
        stored.insert(digest.clone());
    }
    Ok((entries, stored))
}

/// One definition of a revision.
pub(super) async fn definition(store: &dyn Store, entry: &Entry) -> Result<Definition, ReadError> {
    let bytes = fetch(store, &entry.digest).await?;
    Ok(Definition::decode(entry.kind, &entry.digest, &bytes, entry.changed)?)
}

/// An object of any kind.
pub(super) async fn object<T: serde::de::DeserializeOwned>(store: &dyn Store, digest: &str) -> Result<T, ReadError> {
    Ok(object::decode(digest, &fetch(store, digest).await?)?)
}

/// Writes a model as the successor of `base`.
pub(super) async fn write(
    store: &dyn Store,
    base: &Snapshot,
    model: Model,
    origin: Origin<'_>,
) -> Result<Snapshot, WriteError> {
    let mut pending: Vec<(String, Vec<u8>)> = Vec::new();
    let mut stored = HashSet::new();
    let mut add = |bytes: Vec<u8>| {
        let digest = object::digest(&bytes);
        if stored.insert(digest.clone()) && !base.stored.contains(&digest) {
            pending.push((digest.clone(), bytes));
        }
        digest
    };
    let mut definitions = HashMap::new();
    let mut entries = Vec::new();
    // System settings that were never changed are nothing that is stored.
    let definitions_of =
        plan::definitions(&model).into_iter().filter(|it| it.kind() != Kind::System || it.revision() > 0);
    for definition in definitions_of {
        let digest = match base.definitions.get(definition.uid()) {
            // Same revision, hence the same content, and stored. Encoding all of a large model again would cost seconds.
            Some((digest, known)) if known.revision() == definition.revision() => digest.clone(),
            _ => add(definition.encode()),
        };
        entries.push(Entry {
            kind: definition.kind(),
            uid: definition.uid().to_owned(),
            name: definition.name().to_owned(),
            digest: digest.clone(),
            changed: definition.revision(),
        });
        definitions.insert(definition.uid().to_owned(), (digest, definition));
    }
    // Uids sort by age, so that a new definition changes the last chunk and leaves the others as they are.
    entries.sort_by(|a, b| (a.kind, &a.uid).cmp(&(b.kind, &b.uid)));
    let chunks = chunks(entries).into_iter().map(|chunk| add(object::encode(&chunk))).collect();
    let manifest = add(object::encode(&Manifest { chunks }));
    write_objects(store, pending).await?;
    stored.extend(definitions.values().map(|(digest, _)| digest.clone()));

    let head = Head {
        revision: model.revision(),
        manifest,
        parent: base.model.revision(),
        time: origin.author.time,
        author: origin.author.name.clone(),
        commit: uuid::Uuid::new_v4().simple().to_string(),
        rollback_of: origin.rollback_of,
        request: origin.request.to_owned(),
    };
    let mod_revision = publish(store, base, &head).await?;
    Ok(Snapshot { model: Arc::new(model), head: Some(mod_revision), definitions, stored })
}

/// The one commit that makes a revision visible.
async fn publish(store: &dyn Store, base: &Snapshot, head: &Head) -> Result<Revision, WriteError> {
    let guard = match base.head {
        Some(revision) => Guard::Unchanged(key::MODEL_HEAD.into(), revision),
        None => Guard::Absent(key::MODEL_HEAD.into()),
    };
    let history = key::model_revision(head.revision);
    let value = Bytes::from(object::encode(head));
    let writes = vec![Write::Put(key::MODEL_HEAD.into(), value.clone()), Write::Put(history.clone(), value)];
    match store.commit(vec![guard], writes).await? {
        Outcome::Committed(revision) => Ok(revision),
        Outcome::Conflict => Err(WriteError::Conflict),
        Outcome::Unknown => {
            // History tells even when somebody else's revision already stands on top of ours.
            let entry = store.get(&history).await?;
            let found = entry.as_ref().map(|entry| object::decode::<Head>(&history, &entry.value));
            match (entry, found.transpose().map_err(ReadError::from)?) {
                (Some(entry), Some(found)) if found.commit == head.commit => Ok(entry.mod_revision),
                (_, Some(_)) => Err(WriteError::Conflict),
                // It may still arrive.
                (_, None) => Err(WriteError::Unknown),
            }
        }
    }
}

pub(super) async fn write_objects(store: &dyn Store, objects: Vec<(String, Vec<u8>)>) -> Result<(), WriteError> {
    let mut batch: Vec<Write> = Vec::new();
    let mut bytes = 0;
    for (digest, value) in objects {
        let key = key::model_object(&digest);
        let size = key.len() + value.len();
        if batch.len() == MAX_WRITES || bytes + size > MAX_COMMIT_BYTES {
            write_batch(store, std::mem::take(&mut batch)).await?;
            bytes = 0;
        }
        bytes += size;
        batch.push(Write::Put(key, value.into()));
    }
    if batch.is_empty() { Ok(()) } else { write_batch(store, batch).await }
}

pub(super) async fn write_batch(store: &dyn Store, batch: Vec<Write>) -> Result<(), WriteError> {
    for _ in 0..=REPEATS {
        match store.commit(Vec::new(), batch.clone()).await? {
            Outcome::Committed(_) => return Ok(()),
            Outcome::Conflict => return Err(WriteError::Conflict),
            Outcome::Unknown => {}
        }
    }
    Err(WriteError::Unknown)
}

async fn resolve(store: &dyn Store, known: &Snapshot, entry: Entry) -> Result<(String, Definition), ReadError> {
    if let Some((digest, definition)) = known.definitions.get(&entry.uid)
        && *digest == entry.digest
        && definition.revision() == entry.changed
    {
        return Ok((entry.digest, definition.clone()));
    }
    let definition = definition(store, &entry).await?;
    Ok((entry.digest, definition))
}

async fn fetch(store: &dyn Store, digest: &str) -> Result<Bytes, ReadError> {
    let entry = store.get(&key::model_object(digest)).await?;
    let value = entry.ok_or_else(|| ReadError::Missing { digest: digest.into() })?.value;
    if object::digest(&value) != digest {
        let what = "its content has another digest; restore the store from a backup".into();
        return Err(DecodeError::Damaged { digest: digest.into(), what }.into());
    }
    Ok(value)
}

fn chunks(entries: Vec<Entry>) -> Vec<Chunk> {
    let mut chunks: Vec<Chunk> = Vec::new();
    let mut bytes = 0;
    for entry in entries {
        let size = serde_json::to_vec(&entry).map_or(0, |it| it.len() + 1);
        match chunks.last_mut() {
            Some(last) if last.entries.len() < CHUNK_ENTRIES && bytes + size <= CHUNK_BYTES => {
                bytes += size;
                last.entries.push(entry);
            }
            _ => {
                bytes = size;
                chunks.push(Chunk { entries: vec![entry] });
            }
        }
    }
    chunks
}

//! Seals every secret of the model and of its history again, under the newest key of the vault.
//!
//! A revision is a tree of objects under their digests, so a secret in another form makes another object, another chunk
//! and another manifest: these are written first, then one guarded commit lets the revision name its new manifest. What a
//! revision says stays the same. Killed anywhere, each revision is whole, in its old form or in its new one, and the next
//! [`pass`](Resealing::pass) finds which.
//!
//! Ordering: applies go on meanwhile and seal with the newest key, but keep what they find. So passes are repeated, and the
//! last one, with the `sweep`, runs while nobody changes the model.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};

use futures::{StreamExt as _, TryStreamExt as _};
use postroom_proto::reason::{Failure, Reason};

use super::object::{self, Definition};
use super::secrets;
use super::tree::{self, Chunk, Entry, Head, Manifest, ReadError, WriteError};
use super::view::Definitions;
use crate::access::vault::{self, Sealed, Vault};
use crate::store::{Guard, MAX_WRITES, Outcome, Revision, Store, Write, key};

/// Objects read at once.
const READS: usize = 16;
/// Passes that are made at most while others may change the model; the last ones are made alone.
const PASSES: usize = 5;
/// Keys listed at once. Objects have at most 512 KiB.
const PAGE: usize = 200;
/// Most revisions and definitions that are named; the rest is only counted.
const NAMED: usize = 20;

/// How far it is, for whoever watches.
#[derive(Debug, Default)]
pub struct Told {
    /// Revisions that were looked at.
    pub revisions: AtomicU64,
    /// Revisions there are.
    pub total: AtomicU64,
}

/// What was found and done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// Revisions in which something was sealed again.
    pub revisions: u64,
    /// Secrets that were sealed again. One that several revisions share is one.
    pub secrets: u64,
    /// Secrets that nobody can open, since their key is lost.
    pub lost: u64,
    /// Secrets that do not open with the key that they name, or whose key is not at hand.
    pub unreadable: u64,
    /// The first of them, each with why.
    pub named: Vec<String>,
    /// Keys that must stay at hand, since something that cannot be sealed again names them.
    pub kept_keys: BTreeSet<String>,
}

/// The work, which remembers what it has seen.
pub struct Resealing<'a> {
    definitions: &'a Definitions,
    vault: &'a Vault,
    told: &'a Told,
    /// Only counts.
    dry: bool,
    tally: Tally,
    /// Manifests whose secrets are all as they should be.
    clean: HashSet<String>,
    /// What became of chunks, by their digests; one that stays as it is names itself.
    chunks: HashMap<String, String>,
    /// The same of definitions.
    objects: HashMap<String, String>,
    /// Manifests that no revision names any more.
    replaced: HashSet<String>,
}

/// A revision as it stands in the store.
struct Stored {
    head: Head,
    at: Revision,
}

impl<'a> Resealing<'a> {
    /// To be sealed with the newest key of this vault.
    pub fn new(definitions: &'a Definitions, vault: &'a Vault, told: &'a Told, dry: bool) -> Self {
        Self {
            definitions,
            vault,
            told,
            dry,
            tally: Tally::default(),
            clean: HashSet::new(),
            chunks: HashMap::new(),
            objects: HashMap::new(),
            replaced: HashSet::new(),
        }
    }

    /// What was found and done so far.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// All of it: until no revision names one of the older keys, and nothing that does is left.
    pub async fn run(&mut self, older: &[String]) -> Result<(), Failure> {
        for _ in 0..PASSES {
            if self.pass(false).await? {
                break;
            }
        }
        let alone = self.definitions.changing_alone().await;
        while !self.pass(true).await? {}
        // Nobody begins with the former model any more when what it names goes.
        self.definitions.refresh().await?;
        self.sweep(older).await?;
        drop(alone);
        Ok(())
    }

    /// Goes through all revisions, the newest first. Answers true when nothing was left to be done.
    /// `alone`: the caller holds `Definitions::changing_alone`.
    pub async fn pass(&mut self, alone: bool) -> Result<bool, Failure> {
        let revisions = self.revisions().await?;
        self.told.total.store(revisions.len() as u64, Ordering::Relaxed);
        self.told.revisions.store(0, Ordering::Relaxed);
        let mut changed = false;
        for stored in revisions.into_iter().rev() {
            if !self.clean.contains(&stored.head.manifest) {
                changed |= self.revision(stored, alone).await?;
            }
            self.told.revisions.fetch_add(1, Ordering::Relaxed);
        }
        Ok(!changed)
    }

    /// Removes what no revision names any more and what still names one of these keys: what was replaced, and what applies
    /// left that were cut off. Nobody may be changing the model meanwhile.
    async fn sweep(&self, older: &[String]) -> Result<u64, Failure> {
        // Chunks and manifests hold no secrets, but list what goes.
        let replaced = self.chunks.iter().filter(|(old, new)| old != new).map(|(old, _)| old);
        let mut going: Vec<String> = replaced.chain(&self.replaced).cloned().collect();
        let marks: Vec<String> = older.iter().map(|id| format!("\"keyId\":\"{id}\"")).collect();
        // What has a secret that cannot be sealed again stays, as it is named by itself.
        let stays = |digest: &str| self.objects.get(digest).is_some_and(|new| new == digest);
        let mut after: Option<String> = None;
        loop {
            let page = self.store().list(key::MODEL_OBJECTS, after.as_deref(), PAGE).await?;
            after = page.entries.last().map(|entry| entry.key.clone());
            let stale = page.entries.iter().filter(|entry| names_any(&entry.value, &marks));
            let stale = stale.filter_map(|entry| key::parse_model_object(&entry.key)).filter(|digest| !stays(digest));
            going.extend(stale.map(str::to_owned));
            if !page.more {
                break;
            }
        }
        going.sort();
        going.dedup();
        for some in going.chunks(MAX_WRITES) {
            let writes = some.iter().map(|digest| Write::Delete(key::model_object(digest))).collect();
            tree::write_batch(self.store(), writes).await.map_err(unwritten)?;
        }
        Ok(going.len() as u64)
    }

    async fn revisions(&self) -> Result<Vec<Stored>, Failure> {
        let (mut found, mut after) = (Vec::new(), None::<String>);
        loop {
            let page = self.store().list(key::MODEL_REVISIONS, after.as_deref(), PAGE).await?;
            for entry in &page.entries {
                let head = object::decode(&entry.key, &entry.value).map_err(ReadError::from)?;
                found.push(Stored { head, at: entry.mod_revision });
            }
            after = page.entries.last().map(|entry| entry.key.clone());
            if !page.more {
                return Ok(found);
            }
        }
    }

    /// Lets a revision name a manifest without older keys. Answers true when it did not before.
    async fn revision(&mut self, stored: Stored, alone: bool) -> Result<bool, Failure> {
        let Stored { mut head, at } = stored;
        let former = head.manifest.clone();
        let manifest: Manifest = tree::object(self.store(), &former).await?;
        let mut pending = Vec::new();
        let mut chunks = Vec::with_capacity(manifest.chunks.len());
        for digest in manifest.chunks {
            chunks.push(self.chunk(digest, &mut pending).await?);
        }
        if chunks.iter().all(|(old, new)| old == new) {
            self.clean.insert(former);
            return Ok(false);
        }
        self.tally.revisions += 1;
        let manifest = object::encode(&Manifest { chunks: chunks.into_iter().map(|(_, new)| new).collect() });
        head.manifest = object::digest(&manifest);
        if !self.dry {
            pending.push((head.manifest.clone(), manifest));
            tree::write_objects(self.store(), pending).await.map_err(unwritten)?;
            self.name(&head, &former, at, alone).await?;
            self.replaced.insert(former);
        }
        self.clean.insert(head.manifest);
        Ok(true)
    }

    /// What becomes of a chunk, beside what it was. What has to be written for it is added to `pending`.
    async fn chunk(
        &mut self,
        digest: String,
        pending: &mut Vec<(String, Vec<u8>)>,
    ) -> Result<(String, String), Failure> {
        if let Some(known) = self.chunks.get(&digest) {
            return Ok((digest, known.clone()));
        }
        let mut chunk: Chunk = tree::object(self.store(), &digest).await?;
        let store = self.definitions.store();
        let unseen: Vec<Entry> =
            chunk.entries.iter().filter(|entry| !self.objects.contains_key(&entry.digest)).cloned().collect();
        let read = futures::stream::iter(unseen)
            .map(|entry| async move { tree::definition(store, &entry).await.map(|found| (entry, found)) });
        let mut read = Box::pin(read.buffer_unordered(READS));
        let mut differs = false;
        while let Some((entry, found)) = read.try_next().await? {
            let new = self.object(&found, &entry.digest, pending);
            // A definition of two secrets, one of which does not open, names an older key in its new form too: it stays.
            self.objects.insert(new.clone(), new.clone());
            self.objects.insert(entry.digest, new);
            // Memory is bounded: what nobody sees yet may be written early.
            if pending.len() >= MAX_WRITES && !self.dry {
                tree::write_objects(store, std::mem::take(pending)).await.map_err(unwritten)?;
            }
        }
        for entry in &mut chunk.entries {
            if let Some(new) = self.objects.get(&entry.digest).filter(|new| **new != entry.digest) {
                differs = true;
                entry.digest = new.clone();
            }
        }
        let new = if differs {
            let bytes = object::encode(&chunk);
            let new = object::digest(&bytes);
            pending.push((new.clone(), bytes));
            new
        } else {
            digest.clone()
        };
        self.chunks.insert(digest.clone(), new.clone());
        Ok((digest, new))
    }

    /// The digest of a definition with its secrets sealed again.
    fn object(&mut self, definition: &Definition, digest: &str, pending: &mut Vec<(String, Vec<u8>)>) -> String {
        let (vault, tally) = (self.vault, &mut self.tally);
        let newest = vault.key_id();
        let changed = secrets::changed(definition, |found| again(vault, &newest, self.dry, &found, tally));
        match changed {
            None => digest.to_owned(),
            Some(changed) => {
                let bytes = changed.encode();
                let new = object::digest(&bytes);
                pending.push((new.clone(), bytes));
                new
            }
        }
    }

    /// The one commit that makes a revision name its new manifest.
    async fn name(&self, head: &Head, former: &str, at: Revision, alone: bool) -> Result<(), Failure> {
        let history = key::model_revision(head.revision);
        let value = bytes::Bytes::from(object::encode(head));
        // Ordering: an apply that is under way keeps the head as it found it until it has published.
        let turn = if alone { None } else { Some(self.definitions.changing_alone().await) };
        let mut guards = vec![Guard::Unchanged(history.clone(), at)];
        let mut writes = vec![Write::Put(history.clone(), value.clone())];
        let entry = self.store().get(key::MODEL_HEAD).await?;
        if let Some(entry) = entry {
            let newest: Head = object::decode(key::MODEL_HEAD, &entry.value).map_err(ReadError::from)?;
            if newest.revision == head.revision && newest.manifest == former {
                guards.push(Guard::Unchanged(key::MODEL_HEAD.into(), entry.mod_revision));
                writes.push(Write::Put(key::MODEL_HEAD.into(), value));
            }
        }
        let shown = writes.len() > 1;
        let outcome = self.store().commit(guards, writes).await?;
        if shown {
            self.definitions.refresh().await?;
        }
        drop(turn);
        match outcome {
            Outcome::Committed(_) => Ok(()),
            Outcome::Unknown => {
                // Written again it would have another value; what stands there tells.
                match self.store().get(&history).await? {
                    Some(entry) if entry.mod_revision != at => Ok(()),
                    _ => Err(unknown()),
                }
            }
            Outcome::Conflict => {
                Err(Failure::new(Reason::EtagMismatch, "a revision of the model was changed meanwhile; rotate again"))
            }
        }
    }

    fn store(&self) -> &'a dyn Store {
        self.definitions.store()
    }
}

/// A secret in its new form, where it needs one and can have one.
fn again(vault: &Vault, newest: &str, dry: bool, found: &secrets::Found<'_>, tally: &mut Tally) -> Option<Sealed> {
    let sealed = found.sealed;
    // A dry run is asked what a new key would seal, unless there is one already that has not sealed everything.
    if sealed.key_id == newest && !(dry && vault.key_ids().len() == 1) {
        return None;
    }
    if dry && sealed.key_id == newest {
        return match vault.open(found.owner, sealed) {
            Ok(_) => {
                tally.secrets += 1;
                // Another form, so that it counts as changed; it is written nowhere.
                Some(Sealed { nonce: Vec::new(), ..sealed.clone() })
            }
            Err(error) => tally.refuse(found, &error, false),
        };
    }
    match vault.seal_again(found.owner, sealed) {
        Ok(again) => {
            tally.secrets += 1;
            again
        }
        Err(error) => tally.refuse(found, &error, vault.is_lost(&sealed.key_id)),
    }
}

impl Tally {
    fn refuse(&mut self, found: &secrets::Found<'_>, error: &vault::Error, lost: bool) -> Option<Sealed> {
        if lost {
            self.lost += 1;
        } else {
            self.unreadable += 1;
            self.kept_keys.insert(found.sealed.key_id.clone());
            if self.named.len() < NAMED {
                self.named.push(format!("{}: {error}", (found.what)()));
            }
        }
        None
    }
}

/// True when the bytes of an object hold one of these texts. The quotes of a text that somebody has typed are escaped in
/// it, so that only the field itself is found.
fn names_any(bytes: &[u8], marks: &[String]) -> bool {
    marks.iter().any(|mark| bytes.windows(mark.len()).any(|window| window == mark.as_bytes()))
}

fn unknown() -> Failure {
    let text = "it is not known whether a revision was sealed again; rotate again, which goes on where this ended";
    Failure::new(Reason::OutcomeUnknown, text)
}

fn unwritten(error: WriteError) -> Failure {
    match error {
        WriteError::Unknown => unknown(),
        WriteError::Conflict => Failure::new(Reason::Internal, "a write without guards met a conflict"),
        WriteError::Read(error) => error.into(),
    }
}

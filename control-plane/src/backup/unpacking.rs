//! Reads an archive, and trusts nothing in it.
//!
//! Invariant: only the names that an archive of ours has are taken, each once and in its order, and only from plain
//! files; where they are written to is decided here. No member is larger than the manifest announced, and nothing that
//! was read counts before the seal has confirmed it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use flate2::bufread::GzDecoder;
use postroom_proto::v1;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};

use super::manifest::{Manifest, Seal};
use super::{FORMAT, member};
use crate::ledger::sqlite::copy::BodyDigest;
use crate::sqlite::copy::Unfit;
use crate::{blob, ledger, store};

/// Largest manifest.
const MANIFEST_BYTES: u64 = 1024 * 1024;
/// Largest seal: it names the bodies that were damaged.
const SEAL_BYTES: u64 = 64 * 1024 * 1024;
/// Largest key file.
const KEY_BYTES: u64 = 64 * 1024;
/// Bytes that are read at once.
const PIECE: usize = 256 * 1024;

/// Why an archive is refused.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// Something else.
    #[error("this is no backup: {0}")]
    NoBackup(String),
    /// A newer version made it.
    #[error(
        "the backup has format {found}, made by version {version}; this version reads up to {FORMAT}: install a newer one"
    )]
    NewerFormat {
        /// Its format.
        found: u32,
        /// Version that made it.
        version: String,
    },
    /// Its end is missing.
    #[error("the backup is incomplete: it was cut off while it was made or copied; use another one")]
    Incomplete,
    /// It is not what was written.
    #[error("the backup is damaged: {0}; use another one")]
    Damaged(String),
    /// A database in it cannot be used.
    #[error("{name} in the backup cannot be used")]
    Database {
        /// The member.
        name: &'static str,
        /// Why.
        #[source]
        source: Unfit,
    },
    /// It cannot be read.
    #[error("the backup cannot be read")]
    Read(#[source] io::Error),
    /// What is in it cannot be written.
    #[error("{path} cannot be written")]
    Write {
        /// Where to.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// An archive that was read to its end and found whole.
#[derive(Debug)]
pub struct Unpacked {
    /// What it says of itself.
    pub manifest: Manifest,
    /// What confirmed that.
    pub seal: Seal,
    /// Its bodies, ascending.
    bodies: Vec<BodyDigest>,
}

/// What becomes of bodies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bodies {
    /// They are written beside the databases.
    Keep,
    /// They are read, compared with their names, and dropped.
    Check,
}

impl Unpacked {
    /// What the archive holds, for the wire.
    pub fn describe(&self) -> v1::Backup {
        self.manifest.describe(&self.seal)
    }

    /// Looks into the databases: whole, of a version that is known here, of each other, and with every body they name.
    pub async fn check(&self, folder: &Path) -> Result<(), Refused> {
        let (ledger_path, store_path) = (folder.join(member::LEDGER), folder.join(member::STORE));
        let unfit = |name| move |source| Refused::Database { name, source };
        ledger::sqlite::copy::check(&ledger_path).await.map_err(unfit(member::LEDGER))?;
        store::sqlite::copy::check(&store_path).await.map_err(unfit(member::STORE))?;
        let of_ledger = ledger::sqlite::copy::describe(&ledger_path).await;
        let of_ledger = of_ledger.map_err(|error| unfit(member::LEDGER)(error.into()))?;
        let of_store = store::sqlite::copy::describe(&store_path).await;
        let of_store = of_store.map_err(|error| unfit(member::STORE)(error.into()))?;
        if !self.manifest.describes(&of_ledger, &of_store) {
            return Err(Refused::Damaged("its databases are not those that it says it holds".into()));
        }
        if of_ledger.highest_epoch > of_store.revision.0 {
            return Err(Refused::Damaged("its store is older than its ledger".into()));
        }
        let named = ledger::sqlite::copy::bodies(&ledger_path).await;
        let named = named.map_err(|error| unfit(member::LEDGER)(error.into()))?;
        let here = |body: &&BodyDigest| self.bodies.binary_search(body).is_ok();
        let absent = named.iter().filter(|body| !here(body)).count() as u64;
        if absent != self.manifest.missing_bodies || named.len() as u64 - absent != self.bodies.len() as u64 {
            return Err(Refused::Damaged("its bodies are not those that its ledger names".into()));
        }
        Ok(())
    }
}

/// Reads an archive to its end and writes what it holds into `folder`, which must be empty. After an error, what was
/// written there is worth nothing.
pub fn unpack(input: impl Read, folder: &Path, bodies: Bodies) -> Result<Unpacked, Refused> {
    let mut input = BufReader::with_capacity(PIECE, input);
    let begin = input.fill_buf().map_err(Refused::Read)?;
    if begin.is_empty() {
        return Err(Refused::Incomplete);
    }
    if !begin.starts_with(&[0x1f]) {
        return Err(Refused::NoBackup("it does not begin as one".into()));
    }
    let mut archive = tar::Archive::new(GzDecoder::new(input));
    // Raw: no extension of the format is followed, so that a name is what stands in a header, and is refused if long.
    let entries = archive.entries().map_err(broken)?.raw(true);
    let unpacked = Unpacking { entries, folder, piece: vec![0; PIECE] }.run(bodies)?;

    // Behind the last member there are zeros; the sum over everything comes last of all.
    let mut rest = archive.into_inner();
    let mut padding = Vec::new();
    rest.by_ref().take(MANIFEST_BYTES).read_to_end(&mut padding).map_err(broken)?;
    let behind = rest.into_inner().fill_buf().map_err(Refused::Read)?.len();
    if padding.len() as u64 == MANIFEST_BYTES || padding.iter().any(|byte| *byte != 0) || behind > 0 {
        return Err(Refused::Damaged("there is more behind its end".into()));
    }
    Ok(unpacked)
}

/// What a failure to read means.
fn broken(error: io::Error) -> Refused {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => Refused::Incomplete,
        _ if error.raw_os_error().is_some() => Refused::Read(error),
        _ => Refused::Damaged(error.to_string()),
    }
}

struct Unpacking<'a, R: Read> {
    entries: tar::Entries<'a, R>,
    folder: &'a Path,
    piece: Vec<u8>,
}

impl<'a, R: Read> Unpacking<'a, R> {
    fn run(mut self, keep: Bodies) -> Result<Unpacked, Refused> {
        let (manifest, manifest_digest) = self.manifest()?;
        let mut expected = Seal::default();
        expected.members.insert(member::MANIFEST.into(), manifest_digest);
        let mut files = vec![(member::LEDGER, manifest.ledger_bytes), (member::STORE, manifest.store_bytes)];
        if manifest.key_bytes > KEY_BYTES {
            return Err(Refused::Damaged("it announces a key file that is too large".into()));
        }
        if manifest.key_bytes > 0 {
            files.push((member::KEY, manifest.key_bytes));
        }
        for (name, size) in files {
            let entry = self.entry(|found| found == name)?.1;
            let digest = self.keep(entry, size, Some(&self.folder.join(name)))?;
            expected.members.insert(name.into(), digest);
        }
        let bodies = self.bodies(&manifest, keep, &mut expected)?;
        let seal: Seal = {
            let (_, mut entry) = self.entry(|found| found == member::SEAL)?;
            json(&read(&mut entry, SEAL_BYTES)?).ok_or_else(|| Refused::Damaged("its digests cannot be read".into()))?
        };
        if seal != expected {
            return Err(Refused::Damaged("its digests are not those of what is in it".into()));
        }
        match self.entries.next() {
            None => Ok(Unpacked { manifest, seal, bodies }),
            Some(Ok(_)) => Err(Refused::Damaged("there is more behind its end".into())),
            Some(Err(error)) => Err(broken(error)),
        }
    }

    fn manifest(&mut self) -> Result<(Manifest, String), Refused> {
        /// What every format has.
        #[derive(serde::Deserialize)]
        struct Any {
            format: u32,
            version: String,
        }
        let mut entry = match self.entry(|found| found == member::MANIFEST) {
            Ok((_, entry)) => entry,
            // Whatever is compressed by gzip and not ours ends here.
            Err(Refused::Damaged(why)) => return Err(Refused::NoBackup(why)),
            Err(other) => return Err(other),
        };
        let text = read(&mut entry, MANIFEST_BYTES)?;
        let unreadable = || Refused::NoBackup(format!("its {} cannot be read", member::MANIFEST));
        let any: Any = json(&text).ok_or_else(unreadable)?;
        if any.format > FORMAT {
            return Err(Refused::NewerFormat { found: any.format, version: any.version });
        }
        let manifest = json(&text).ok_or_else(unreadable)?;
        Ok((manifest, hex(&Sha256::digest(&text))))
    }

    fn bodies(&mut self, manifest: &Manifest, keep: Bodies, expected: &mut Seal) -> Result<Vec<BodyDigest>, Refused> {
        let mut bodies: Vec<BodyDigest> = Vec::new();
        let mut left = manifest.body_bytes;
        if keep == Bodies::Keep {
            make_folder(&self.folder.join(crate::folder::BLOBS))?;
        }
        for _ in 0..manifest.bodies {
            let (name, entry) = self.entry(|name| body_of(name).is_some())?;
            let body = body_of(&name).filter(|body| bodies.last().is_none_or(|last| last < body));
            let body = body.ok_or_else(|| Refused::Damaged(format!("{name:?} is out of its place")))?;
            let size = entry.size();
            let larger = || Refused::Damaged("its bodies are larger than announced".into());
            left = left.checked_sub(size).ok_or_else(larger)?;
            let path = (keep == Bodies::Keep).then(|| self.folder.join(&name));
            if let Some(shelf) = path.as_deref().and_then(Path::parent) {
                make_folder(shelf)?;
            }
            let digest = self.keep(entry, size, path.as_deref())?;
            if member::body(&digest) != name {
                // Damaged before it was packed, if the seal says so too; then it does not come back.
                expected.damaged.push(name);
                if let Some(path) = path {
                    fs::remove_file(&path).map_err(|source| Refused::Write { path, source })?;
                }
            }
            bodies.push(body);
        }
        Ok(bodies)
    }

    /// The next member, if it is a plain file whose name is expected here.
    fn entry(&mut self, expected: impl Fn(&str) -> bool) -> Result<(String, tar::Entry<'a, R>), Refused> {
        let entry = self.entries.next().ok_or(Refused::Incomplete)?.map_err(broken)?;
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        if entry.header().entry_type() != tar::EntryType::Regular {
            return Err(Refused::Damaged(format!("{name:?} in it is no plain file")));
        }
        if !expected(&name) {
            return Err(Refused::Damaged(format!("{name:?} in it is not what belongs there")));
        }
        Ok((name, entry))
    }

    /// Reads a member of exactly `size` bytes, writes it to `path`, and says its digest.
    fn keep(&mut self, mut entry: tar::Entry<'a, R>, size: u64, path: Option<&Path>) -> Result<String, Refused> {
        if entry.size() != size {
            return Err(Refused::Damaged("a file in it has not the size that it announces".into()));
        }
        let mut file = path.map(Target::create).transpose()?;
        let (mut hash, mut missing) = (Sha256::new(), size);
        while missing > 0 {
            let count = entry.read(&mut self.piece).map_err(broken)?;
            let bytes = self.piece.get(..count).filter(|bytes| !bytes.is_empty()).ok_or(Refused::Incomplete)?;
            missing = missing.saturating_sub(bytes.len() as u64);
            hash.update(bytes);
            if let Some(file) = &mut file {
                file.write(bytes)?;
            }
        }
        if let Some(file) = file {
            file.finish()?;
        }
        Ok(hex(&hash.finalize()))
    }
}

/// A file that is being written.
struct Target {
    path: PathBuf,
    file: File,
}

impl Target {
    fn create(path: &Path) -> Result<Self, Refused> {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        let file = file.map_err(|source| Refused::Write { path: path.into(), source })?;
        Ok(Self { path: path.into(), file })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Refused> {
        self.file.write_all(bytes).map_err(|source| Refused::Write { path: self.path.clone(), source })
    }

    fn finish(self) -> Result<(), Refused> {
        self.file.sync_all().map_err(|source| Refused::Write { path: self.path, source })
    }
}

fn make_folder(path: &Path) -> Result<(), Refused> {
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made.map_err(|source| Refused::Write { path: path.into(), source }),
    }
}

/// The digest that a body's name stands for.
fn body_of(name: &str) -> Option<BodyDigest> {
    let mut parts = name.split('/');
    let (root, shelf, rest) = (parts.next()?, parts.next()?, parts.next()?);
    let digest = format!("{shelf}{rest}");
    let ours = root == crate::folder::BLOBS && shelf.len() == 2 && parts.next().is_none() && blob::is_digest(&digest);
    if ours { data_encoding::HEXLOWER.decode(digest.as_bytes()).ok()?.try_into().ok() } else { None }
}

fn read(entry: &mut tar::Entry<'_, impl Read>, most: u64) -> Result<Vec<u8>, Refused> {
    if entry.size() > most {
        return Err(Refused::Damaged("its description is too large".into()));
    }
    let mut text = Vec::new();
    entry.read_to_end(&mut text).map_err(broken)?;
    if (text.len() as u64) < entry.size() { Err(Refused::Incomplete) } else { Ok(text) }
}

fn json<T: DeserializeOwned>(text: &[u8]) -> Option<T> {
    serde_json::from_slice(text).ok()
}

fn hex(digest: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(digest)
}

#[cfg(test)]
mod tests;

//! Brings a backup back into a data folder.
//!
//! Ordering: everything is unpacked beside the folder's content and verified there; then one rename ([`folder::RESTORED`])
//! makes it the content to be, then what stood there before moves aside, then the files move to their places. A crash
//! before the rename leaves the folder as it was. One behind it leaves a folder that `up` refuses and a restore with
//! `force` mends.
//!
//! What is not in an archive is made anew by the next start: the lock, and `context.toml` with a new admin token.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use postroom_proto::{convert, v1};
use secrecy::{ExposeSecret as _, SecretString};

use super::member;
use super::unpacking::{Bodies, Refused, unpack};
use crate::access::vault::{KeyError, Vault, without};
use crate::folder;
use crate::ledger::sqlite::copy;

/// Where the archive is unpacked, in the data folder, so that nothing crosses from one disk to another afterwards.
const RESTORING: &str = "restoring";
/// What the folders are called into which former content is moved.
const ASIDE: &str = "before-restore-";

/// Why a backup was not restored. The folder is as it was, unless files could not be moved within it at last; then it is
/// marked as half restored.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The archive is at fault.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The folder is at fault.
    #[error(transparent)]
    Folder(#[from] folder::Error),
    /// Something is in the folder.
    #[error("the data folder {0} is not empty")]
    NotEmpty(PathBuf),
    /// The key file is at fault.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The key file is another one.
    #[error("the key file does not hold key {key_id}, which sealed the secrets in the backup")]
    OtherKey {
        /// The key that is needed.
        key_id: String,
    },
}

/// Which keys there are to open the restored secrets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keys {
    /// Those of the archive.
    Included,
    /// Those that were given.
    Given,
    /// None: the secrets have to be set again.
    None,
}

/// What was restored.
#[derive(Debug)]
pub struct Restored {
    /// What the archive held.
    pub backup: v1::Backup,
    /// What opens its secrets.
    pub keys: Keys,
    /// Mails that were not sent yet when it was made, and may have been sent since.
    pub mails: u64,
    /// Where the former content of the folder is now.
    pub aside: Option<PathBuf>,
}

/// Restores an archive into `data`, which must be in nobody's use and empty; with `force`, what is in it moves aside.
/// `keys` are the content of a key file.
pub async fn restore(
    input: impl Read + Send + 'static,
    data: &Path,
    keys: Option<SecretString>,
    force: bool,
) -> Result<Restored, Error> {
    let given = keys.as_ref().map(Vault::from_text).transpose()?;
    let _lock = folder::lock(data)?;
    let unusable = |source| folder::Error::Io { path: data.into(), source };
    let former = content(data).map_err(unusable)?;
    if !former.is_empty() && !force {
        return Err(Error::NotEmpty(data.into()));
    }
    let draft = Draft::create(data.join(RESTORING)).map_err(unusable)?;
    let place = draft.0.clone();
    let unpacked = tokio::task::spawn_blocking(move || unpack(input, &place, Bodies::Keep)).await;
    let unpacked = unpacked.map_err(|error| unusable(io::Error::other(error)))??;
    unpacked.check(&draft.0).await?;
    let created = unpacked.manifest.created_micros;
    let mails = copy::distrust_mails(&draft.0.join(folder::LEDGER), created, crate::clock::now()).await;
    let mails = mails.map_err(|error| Refused::Database { name: member::LEDGER, source: error.into() })?;
    let lacks = |vault: &Vault| unpacked.manifest.key_ids().find(|id| !vault.holds(id));
    if let Some(key_id) = given.as_ref().and_then(lacks) {
        return Err(Error::OtherKey { key_id: key_id.clone() });
    }
    let keys = match keys {
        Some(keys) => write_keys(&draft.0, &keys).map(|()| Keys::Given).map_err(unusable)?,
        None if unpacked.manifest.key_bytes > 0 => {
            let text = fs::read_to_string(draft.0.join(folder::KEY)).map_err(unusable)?;
            if lacks(&Vault::from_text(&SecretString::from(text))?).is_some() {
                return Err(
                    Refused::Damaged("its key file does not hold the key that sealed its secrets".into()).into()
                );
            }
            Keys::Included
        }
        // Whoever restores without them has said that they are lost; the next start does not ask again.
        None => {
            let ids: Vec<&str> = unpacked.manifest.key_ids().map(String::as_str).collect();
            write_keys(&draft.0, &without(&ids)?).map(|()| Keys::None).map_err(unusable)?
        }
    };
    let aside = settle(data, &draft.0, former).map_err(unusable)?;
    Ok(Restored { backup: unpacked.describe(), keys, mails, aside })
}

/// What is in a data folder beside what a restore passes over: the lock, what former restores left, and `lost+found`.
fn content(data: &Path) -> io::Result<Vec<PathBuf>> {
    let passed = |name: &str| [folder::LOCK, RESTORING, "lost+found"].contains(&name) || name.starts_with(ASIDE);
    let mut found = Vec::new();
    for entry in fs::read_dir(data)? {
        let entry = entry?;
        if !entry.file_name().to_str().is_some_and(passed) {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// Keys that were given replace those of the archive.
fn write_keys(folder: &Path, keys: &SecretString) -> io::Result<()> {
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(folder.join(folder::KEY))?;
    file.write_all(keys.expose_secret().as_bytes())?;
    file.sync_all()
}

/// Ordering: see the module. While anything is on its way, [`folder::RESTORED`] is there.
fn settle(data: &Path, draft: &Path, former: Vec<PathBuf>) -> io::Result<Option<PathBuf>> {
    for folder in folders(draft)? {
        File::open(folder)?.sync_all()?;
    }
    let restored = data.join(folder::RESTORED);
    let aside = (!former.is_empty()).then(|| data.join(format!("{ASIDE}{}", now())));
    if let Some(aside) = &aside {
        fs::DirBuilder::new().mode(0o700).create(aside)?;
    }
    let (cut_off, former): (Vec<_>, Vec<_>) = former.into_iter().partition(|path| *path == restored);
    match &aside {
        // A restore was cut off here: its mark stays until ours takes its place, which a rename does to an empty folder.
        Some(aside) if !cut_off.is_empty() => {
            move_into(aside, former)?;
            let rest = aside.join(folder::RESTORED);
            fs::DirBuilder::new().mode(0o700).create(&rest)?;
            move_into(&rest, content(&restored)?)?;
            fs::rename(draft, &restored)?;
        }
        Some(aside) => {
            fs::rename(draft, &restored)?;
            File::open(data)?.sync_all()?;
            move_into(aside, former)?;
        }
        None => fs::rename(draft, &restored)?,
    }
    File::open(data)?.sync_all()?;
    move_into(data, content(&restored)?)?;
    File::open(data)?.sync_all()?;
    fs::remove_dir(&restored)?;
    File::open(data)?.sync_all()?;
    Ok(aside)
}

/// The time as names of folders carry it.
fn now() -> String {
    let seconds = crate::clock::now() / 1_000_000;
    convert::to_timestamp(seconds * 1_000_000).to_string().replace(['-', ':'], "")
}

fn move_into(folder: &Path, files: Vec<PathBuf>) -> io::Result<()> {
    files.iter().try_for_each(|path| match path.file_name() {
        Some(name) => fs::rename(path, folder.join(name)),
        None => Ok(()),
    })
}

/// A folder and all below it.
fn folders(root: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = vec![root.to_path_buf()];
    let mut next = 0;
    while let Some(folder) = found.get(next).cloned() {
        next += 1;
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                found.push(entry.path());
            }
        }
    }
    Ok(found)
}

/// A folder that is removed when it is dropped, if it is still there.
struct Draft(PathBuf);

impl Draft {
    fn create(path: PathBuf) -> io::Result<Self> {
        drop(Self(path.clone()));
        fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %self.0.display(), %error, "a draft could not be removed");
        }
    }
}

/// Reads an archive to its end and looks into its databases, without restoring it anywhere. They are written to a folder
/// in `scratch` meanwhile.
pub async fn verify(input: impl Read + Send + 'static, scratch: &Path) -> Result<v1::Backup, Error> {
    let name = format!("postroom-verify-{}", uuid::Uuid::new_v4().simple());
    let unusable = |source| folder::Error::Io { path: scratch.into(), source };
    let draft = Draft::create(scratch.join(name)).map_err(unusable)?;
    let place = draft.0.clone();
    let unpacked = tokio::task::spawn_blocking(move || unpack(input, &place, Bodies::Check)).await;
    let unpacked = unpacked.map_err(|error| unusable(io::Error::other(error)))??;
    unpacked.check(&draft.0).await?;
    Ok(unpacked.describe())
}

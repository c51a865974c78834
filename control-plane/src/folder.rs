//! The data folder of an installation, and whose it is.

use std::fs::{File, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// Definitions, assignments, sessions.
pub const STORE: &str = "store.db";
/// Messages, contacts, cursors.
pub const LEDGER: &str = "ledger.db";
/// Raw messages that are too large for the ledger.
pub const BLOBS: &str = "blobs";
/// Seals the secrets.
pub const KEY: &str = "secret.key";
/// Certificate of the installation's own CA, for those who call a server that has a certificate of it.
pub const CA: &str = "ca.pem";
/// Whoever has locked it owns the folder.
pub const LOCK: &str = "lock";
/// What was restored and verified, on its way to its place. While it is there the folder is not whole.
pub const RESTORED: &str = "restored";

/// Why a data folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process uses it.
    #[error("the data folder {0} is in use by another process; stop that one, or name another folder with --data")]
    InUse(PathBuf),
    /// A restore has not come to its end.
    #[error(
        "a restore into the data folder {0} was cut off before its end; run `postroom backup restore` again, with --force"
    )]
    HalfRestored(PathBuf),
    /// The operating system refuses.
    #[error("the data folder {path} cannot be used")]
    Io {
        /// The folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Takes possession of a data folder, which is created when it is missing, for as long as the file lives.
pub fn lock(data: &Path) -> Result<File, Error> {
    let folder = |source| Error::Io { path: data.into(), source };
    std::fs::create_dir_all(data).map_err(folder)?;
    // Everybody's mail lies in it: it is its owner's alone, whoever made it.
    std::fs::set_permissions(data, Permissions::from_mode(0o700)).map_err(folder)?;
    let file = File::create(data.join(LOCK)).map_err(folder)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::InUse(data.into())),
        Err(TryLockError::Error(source)) => Err(folder(source)),
    }
}

/// Refuses a folder that a restore left in the middle of its work.
pub fn refuse_half_restored(data: &Path) -> Result<(), Error> {
    if data.join(RESTORED).exists() { Err(Error::HalfRestored(data.into())) } else { Ok(()) }
}

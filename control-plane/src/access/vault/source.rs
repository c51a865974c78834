//! Where the keys of the vault come from.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use secrecy::SecretString;
use secrecy::zeroize::Zeroizing;

use super::key::{Key, KeyError, Keys};

/// Variable by which systemd says where the credentials of a service are.
const CREDENTIALS: &str = "CREDENTIALS_DIRECTORY";

/// Where the keys are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// In a file, which is made when there is no key yet, and changed when the key is rotated.
    File(PathBuf),
    /// In an environment variable.
    Variable(String),
    /// In a credential of systemd (`LoadCredential=`), by its name.
    Credential(String),
}

/// What is no source of keys.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} names no place of a key; write file:PATH, env:VARIABLE or credential:NAME")]
pub struct NoSource(String);

impl FromStr for KeySource {
    type Err = NoSource;

    fn from_str(text: &str) -> Result<Self, NoSource> {
        let plain = |name: &str| !name.is_empty() && !name.contains(['/', '=', '\0', ' ']);
        match text.trim().split_once(':') {
            Some(("file", path)) if !path.is_empty() => Ok(Self::File(path.into())),
            Some(("env", name)) if plain(name) => Ok(Self::Variable(name.into())),
            Some(("credential", name)) if plain(name) && !name.starts_with('.') => Ok(Self::Credential(name.into())),
            _ => Err(NoSource(text.into())),
        }
    }
}

impl fmt::Display for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "the key file {}", path.display()),
            Self::Variable(name) => write!(f, "the environment variable {name}"),
            Self::Credential(name) => write!(f, "the systemd credential {name}"),
        }
    }
}

impl KeySource {
    /// What it holds. `None`: there is nothing there.
    pub(super) fn read(&self) -> Result<Option<SecretString>, KeyError> {
        match self {
            Self::File(path) => read_file(path),
            Self::Variable(name) => match std::env::var(name) {
                Ok(text) if !text.trim().is_empty() => Ok(Some(SecretString::from(text))),
                Ok(_) | Err(std::env::VarError::NotPresent) => Ok(None),
                Err(std::env::VarError::NotUnicode(_)) => {
                    Err(KeyError::Unset(format!("the variable {name} is not text; write keys in base64 into it")))
                }
            },
            Self::Credential(name) => match std::env::var_os(CREDENTIALS) {
                Some(folder) => read_file(&Path::new(&folder).join(name)),
                None => Err(KeyError::Unset(format!(
                    "{CREDENTIALS} is not set, so systemd gave no credential; write LoadCredential={name}:PATH into the unit"
                ))),
            },
        }
    }

    /// Makes the first key where one can be made.
    pub(super) fn create(&self) -> Result<(), KeyError> {
        match self {
            Self::File(path) => {
                create(path).map_err(|source| KeyError::File { attempt: "create", path: path.clone(), source })
            }
            Self::Variable(_) | Self::Credential(_) => Err(KeyError::Unset(format!(
                "{self} is empty; make a key with `openssl rand -base64 32`, and keep a copy of it elsewhere"
            ))),
        }
    }

    /// Replaces what it holds, as a whole or not at all. Only a file can be replaced.
    pub(super) fn replace(&self, keys: &Keys) -> Result<(), KeyError> {
        match self {
            Self::File(path) => {
                let replaced = write_beside(path, &keys.write(), |draft| fs::rename(draft, path));
                replaced.map_err(|source| KeyError::File { attempt: "replace", path: path.clone(), source })
            }
            Self::Variable(_) | Self::Credential(_) => {
                Err(KeyError::Fixed { place: self.to_string(), held: keys.ids().join(", ") })
            }
        }
    }

    /// True when this process may change it.
    pub fn is_file(&self) -> bool {
        matches!(self, Self::File(_))
    }
}

fn read_file(path: &Path) -> Result<Option<SecretString>, KeyError> {
    let failed = |source| KeyError::File { attempt: "read", path: path.into(), source };
    let text = match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(failed)?,
    };
    let mode = fs::metadata(path).map_err(failed)?.permissions().mode() & 0o777;
    if mode & 0o007 != 0 {
        tracing::warn!(path = %path.display(), mode = format!("{mode:o}"), "everybody on this machine can reach the key file; chmod 600 it");
    }
    Ok(Some(SecretString::from(text)))
}

/// Makes a key and puts it in place whole. If another process was faster, its key stands.
pub(super) fn create(path: &Path) -> io::Result<()> {
    let mut keys = Keys::default();
    keys.add(Key::random()?);
    // Ordering: a link appears with its content or not at all, and never replaces a key that is there.
    write_beside(path, &keys.write(), |draft| match fs::hard_link(draft, path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    })
}

/// Writes a file for its owner alone beside its place, and lets `put` bring it there. It is durable when this returns.
fn write_beside(path: &Path, text: &Zeroizing<String>, put: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let draft = folder.join(format!(".key-{}", uuid::Uuid::new_v4().simple()));
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        put(&draft)
    })();
    let _ = fs::remove_file(&draft);
    written?;
    File::open(folder)?.sync_all()
}

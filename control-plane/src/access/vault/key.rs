//! Keys: their text form, their names, and why one cannot be had.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use chacha20poly1305::{KeyInit as _, XChaCha20Poly1305};
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret as _, SecretBox, SecretString};
use sha2::{Digest as _, Sha256};

/// Bytes of a key.
pub(super) const KEY_BYTES: usize = 32;
/// Characters of a key's name.
const ID_CHARACTERS: usize = 12;
/// What stands before the name of a key that is lost for good.
const LOST: &str = "lost:";

/// Why keys could not be had, or not be changed.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The key file cannot be read or written.
    #[error("cannot {attempt} the key file {path:?}")]
    File {
        /// What was tried.
        attempt: &'static str,
        /// The key file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The place of the key is not there.
    #[error("the key of the stored secrets cannot be read: {0}")]
    Unset(String),
    /// What was given is no key.
    #[error(
        "line {line} of the vault key is not 32 bytes in base64; restore the key, or make one with `openssl rand -base64 32`"
    )]
    Malformed {
        /// The line, from 1.
        line: usize,
    },
    /// There is no key in it.
    #[error("the vault key is empty; restore it, or make one with `openssl rand -base64 32`")]
    Empty,
    /// There is no key, but there are secrets that were sealed with one.
    #[error(
        "{place} is missing, and the stored secrets are sealed with key {wanted}; put the file back that holds this key. If \
         it is lost for good: write a new key (`openssl rand -base64 32`) and the line lost:{wanted} into it, start again, \
         and set the secrets again"
    )]
    Gone {
        /// Where it was looked for.
        place: String,
        /// The key that is needed.
        wanted: String,
    },
    /// There are keys, but not the one that is needed.
    #[error(
        "the stored secrets are sealed with key {wanted}, and {place} holds {held} instead; put the key back that belongs to \
         this installation. If it is lost for good: add the line lost:{wanted}, start again, and set the secrets again"
    )]
    Wanting {
        /// Where it was looked for.
        place: String,
        /// The key that is needed.
        wanted: String,
        /// The names of the keys that are there.
        held: String,
    },
    /// The place of the keys cannot be written by this process.
    #[error(
        "the keys come from {place}, which holds key {held} alone and is not changed from here: add a new one \
         (`openssl rand -base64 32`) as its last line, start again, then rotate"
    )]
    Fixed {
        /// Where the keys come from.
        place: String,
        /// The key that is there.
        held: String,
    },
}

/// One key.
pub(super) struct Key {
    pub(super) id: String,
    bytes: SecretBox<[u8; KEY_BYTES]>,
}

/// What a key file says.
#[derive(Default, Clone)]
pub(super) struct Keys {
    /// Never empty once read; the newest is last.
    pub(super) keys: Vec<Arc<Key>>,
    /// Names of keys that nobody has any more.
    pub(super) lost: BTreeSet<String>,
}

impl Key {
    /// A key that nobody had before.
    pub(super) fn random() -> io::Result<Self> {
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        getrandom::fill(bytes.as_mut()).map_err(io::Error::other)?;
        Ok(Self::of(*bytes))
    }

    fn of(bytes: [u8; KEY_BYTES]) -> Self {
        let digest = Sha256::new().chain_update(b"postroom vault key id").chain_update(bytes).finalize();
        let id = data_encoding::HEXLOWER.encode(&digest[..ID_CHARACTERS / 2]);
        Self { id, bytes: SecretBox::new(Box::new(bytes)) }
    }

    fn parse(text: &str) -> Option<Self> {
        let decoded = Zeroizing::new(BASE64.decode(text).ok()?);
        Some(Self::of(decoded.as_slice().try_into().ok()?))
    }

    pub(super) fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new(&(*self.bytes.expose_secret()).into())
    }
}

impl Keys {
    /// Reads keys, a line or a word each, the newest last; between them `lost:` and the name of a key that is lost.
    pub(super) fn parse(text: &SecretString) -> Result<Self, KeyError> {
        let mut found = Self::default();
        for (number, line) in text.expose_secret().lines().enumerate() {
            let malformed = || KeyError::Malformed { line: number + 1 };
            for word in line.split([' ', '\t', ',']).filter(|word| !word.is_empty()) {
                match word.strip_prefix(LOST) {
                    Some(id) if is_id(id) => _ = found.lost.insert(id.to_owned()),
                    Some(_) => return Err(malformed()),
                    None => found.add(Key::parse(word).ok_or_else(malformed)?),
                }
            }
        }
        if found.keys.is_empty() { Err(KeyError::Empty) } else { Ok(found) }
    }

    /// The same text again.
    pub(super) fn write(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(64 * (self.keys.len() + self.lost.len())));
        for key in &self.keys {
            text.push_str(&Zeroizing::new(BASE64.encode(key.bytes.expose_secret())));
            text.push('\n');
        }
        for id in &self.lost {
            text.push_str(&format!("{LOST}{id}\n"));
        }
        text
    }

    /// A key that stands there twice is one key, where it stands last.
    pub(super) fn add(&mut self, key: Key) {
        self.keys.retain(|known| known.id != key.id);
        self.keys.push(Arc::new(key));
    }

    pub(super) fn find(&self, id: &str) -> Option<&Arc<Key>> {
        self.keys.iter().find(|key| key.id == id)
    }

    /// The names of the keys, the newest last.
    pub(super) fn ids(&self) -> Vec<String> {
        self.keys.iter().map(|key| key.id.clone()).collect()
    }
}

pub(super) fn is_id(text: &str) -> bool {
    text.len() == ID_CHARACTERS && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

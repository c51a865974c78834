//! Secrets at rest: sealed with XChaCha20-Poly1305 under a key that is kept apart from the database.
//!
//! A sealed secret is bound to its owner (a path such as `incoming-server/<uid>/secret`), so that nobody who can write
//! to the database can make one server sign in with another's secret.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use chacha20poly1305::aead::{Aead as _, Payload};
use chacha20poly1305::{KeyInit as _, XChaCha20Poly1305, XNonce};
use secrecy::zeroize::{Zeroize as _, Zeroizing};
use secrecy::{ExposeSecret as _, SecretBox, SecretString};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// Bytes of a key.
const KEY_BYTES: usize = 32;
/// Bytes of a nonce. 192 bits, so that a random one is never used twice.
const NONCE_BYTES: usize = 24;

/// Keys to seal and open secrets with. The newest seals; all of them open.
pub struct Vault {
    /// Never empty; the newest is last.
    keys: Vec<Key>,
}

/// A secret that can be stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sealed {
    /// The key that opens it.
    pub key_id: String,
    /// 24 bytes.
    #[serde(with = "as_base64")]
    pub nonce: Vec<u8>,
    /// The secret with its tag.
    #[serde(with = "as_base64")]
    pub ciphertext: Vec<u8>,
}

/// Why keys could not be had.
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
    /// What was given is no key.
    #[error(
        "line {line} of the vault key is not 32 bytes in base64; restore the key, or make one with `openssl rand -base64 32`"
    )]
    Malformed {
        /// The line, from 1.
        line: usize,
    },
    /// There is no line in it.
    #[error("the vault key is empty; restore it, or make one with `openssl rand -base64 32`")]
    Empty,
}

/// Why a secret could not be sealed or opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It was sealed with a key that is not at hand.
    #[error(
        "the secret was sealed with key {key_id}, which is not at hand; restore the key file that holds it, or set the secret again"
    )]
    UnknownKey {
        /// The key that is needed.
        key_id: String,
    },
    /// It was changed, or belongs to another owner.
    #[error("the secret does not open with key {key_id}: it was altered, or moved here from elsewhere; set it again")]
    Altered {
        /// The key that it names.
        key_id: String,
    },
    /// The operating system gives no random bytes, or the secret is absurdly long.
    #[error("the secret could not be sealed")]
    Seal,
}

struct Key {
    id: String,
    bytes: SecretBox<[u8; KEY_BYTES]>,
}

impl Vault {
    /// Reads the keys of a file, one a line, the newest last. Without such a file a new key is made and written there,
    /// readable by its owner alone.
    pub fn open_or_create(path: &Path) -> Result<Self, KeyError> {
        let text = match read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                create(path).map_err(|source| KeyError::File { attempt: "create", path: path.into(), source })?;
                read(path)
            }
            other => other,
        };
        Self::from_text(&text.map_err(|source| KeyError::File { attempt: "read", path: path.into(), source })?)
    }

    /// Takes keys as a key file holds them: 32 bytes in base64 a line, the newest last.
    pub fn from_text(text: &SecretString) -> Result<Self, KeyError> {
        let lines = text.expose_secret().lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        let keys: Vec<Key> = lines
            .map(|(number, line)| Key::parse(line.trim()).ok_or(KeyError::Malformed { line: number + 1 }))
            .collect::<Result<_, _>>()?;
        if keys.is_empty() { Err(KeyError::Empty) } else { Ok(Self { keys }) }
    }

    /// The key that seals.
    pub fn key_id(&self) -> &str {
        self.keys.last().map_or("", |key| key.id.as_str())
    }

    /// True when this key is at hand.
    pub fn holds(&self, key_id: &str) -> bool {
        self.keys.iter().any(|key| key.id == key_id)
    }

    /// Seals a secret for its owner.
    pub fn seal(&self, owner: &str, secret: &SecretString) -> Result<Sealed, Error> {
        let key = self.keys.last().ok_or(Error::Seal)?;
        let mut nonce = [0; NONCE_BYTES];
        getrandom::fill(&mut nonce).map_err(|_| Error::Seal)?;
        let payload = Payload { msg: secret.expose_secret().as_bytes(), aad: owner.as_bytes() };
        let ciphertext = key.cipher().encrypt(&XNonce::from(nonce), payload).map_err(|_| Error::Seal)?;
        Ok(Sealed { key_id: key.id.clone(), nonce: nonce.into(), ciphertext })
    }

    /// Opens a secret that was sealed for the same owner.
    pub fn open(&self, owner: &str, sealed: &Sealed) -> Result<SecretString, Error> {
        let key = self.keys.iter().find(|key| key.id == sealed.key_id);
        let key = key.ok_or_else(|| Error::UnknownKey { key_id: sealed.key_id.clone() })?;
        let altered = || Error::Altered { key_id: sealed.key_id.clone() };
        let nonce: [u8; NONCE_BYTES] = sealed.nonce.as_slice().try_into().map_err(|_| altered())?;
        let payload = Payload { msg: &sealed.ciphertext, aad: owner.as_bytes() };
        let plain = key.cipher().decrypt(&XNonce::from(nonce), payload).map_err(|_| altered())?;
        String::from_utf8(plain).map(SecretString::from).map_err(|error| {
            error.into_bytes().zeroize();
            altered()
        })
    }
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids: Vec<&str> = self.keys.iter().map(|key| key.id.as_str()).collect();
        f.debug_struct("Vault").field("keys", &ids).finish()
    }
}

impl Key {
    fn parse(line: &str) -> Option<Self> {
        let decoded = Zeroizing::new(BASE64.decode(line).ok()?);
        let bytes: [u8; KEY_BYTES] = decoded.as_slice().try_into().ok()?;
        let digest = Sha256::new().chain_update(b"postroom vault key id").chain_update(bytes).finalize();
        let id = data_encoding::HEXLOWER.encode(&digest[..6]);
        Some(Self { id, bytes: SecretBox::new(Box::new(bytes)) })
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new(&(*self.bytes.expose_secret()).into())
    }
}

fn read(path: &Path) -> io::Result<SecretString> {
    let text = fs::read_to_string(path)?;
    let mode = fs::metadata(path)?.permissions().mode() & 0o777;
    if mode & 0o007 != 0 {
        tracing::warn!(path = %path.display(), mode = format!("{mode:o}"), "everybody on this machine can reach the key file; chmod 600 it");
    }
    Ok(SecretString::from(text))
}

/// Makes a key and puts it in place whole. If another process was faster, its key stands.
fn create(path: &Path) -> io::Result<()> {
    let mut bytes = Zeroizing::new([0; KEY_BYTES]);
    getrandom::fill(bytes.as_mut()).map_err(io::Error::other)?;
    let line = Zeroizing::new(format!("{}\n", BASE64.encode(bytes.as_ref())));

    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let draft = folder.join(format!(".key-{}", uuid::Uuid::new_v4().simple()));
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
        file.write_all(line.as_bytes())?;
        file.sync_all()?;
        // Ordering: a link appears with its content or not at all, and never replaces a key that is there.
        match fs::hard_link(&draft, path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            other => other,
        }
    })();
    let _ = fs::remove_file(&draft);
    written?;
    File::open(folder)?.sync_all()
}

mod as_base64 {
    use base64::Engine as _;
    use serde::{Deserialize as _, Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&super::BASE64.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(deserializer)?;
        super::BASE64.decode(text).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OWNER: &str = "incoming-server/0190/secret";

    fn vault(seeds: &[u8]) -> Vault {
        let lines: Vec<String> = seeds.iter().map(|seed| BASE64.encode([*seed; KEY_BYTES])).collect();
        Vault::from_text(&lines.join("\n").into()).unwrap()
    }

    fn open(vault: &Vault, owner: &str, sealed: &Sealed) -> Result<String, Error> {
        vault.open(owner, sealed).map(|secret| secret.expose_secret().to_owned())
    }

    #[test]
    fn only_the_owner_opens_a_secret() {
        let vault = vault(&[1]);
        let sealed = vault.seal(OWNER, &"planted ~ secret 🙂".into()).unwrap();
        assert_eq!(open(&vault, OWNER, &sealed).unwrap(), "planted ~ secret 🙂");
        let other = open(&vault, "incoming-server/0191/secret", &sealed);
        assert_eq!(other, Err(Error::Altered { key_id: vault.key_id().into() }));
        assert_ne!(
            vault.seal(OWNER, &"planted ~ secret 🙂".into()).unwrap(),
            sealed,
            "equal secrets do not look equal"
        );
    }

    #[test]
    fn any_flipped_bit_is_noticed() {
        let vault = vault(&[1]);
        let sealed = vault.seal(OWNER, &"x".into()).unwrap();
        for bit in 0..sealed.ciphertext.len() * 8 {
            let mut altered = sealed.clone();
            altered.ciphertext[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(open(&vault, OWNER, &altered), Err(Error::Altered { .. })));
        }
        for bit in 0..NONCE_BYTES * 8 {
            let mut altered = sealed.clone();
            altered.nonce[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(open(&vault, OWNER, &altered), Err(Error::Altered { .. })));
        }
        let short = Sealed { nonce: vec![1], ..sealed };
        assert!(matches!(open(&vault, OWNER, &short), Err(Error::Altered { .. })));
    }

    #[test]
    fn the_newest_key_seals_and_the_older_ones_open() {
        let (old, both, new) = (vault(&[1]), vault(&[1, 2]), vault(&[2]));
        let sealed = old.seal(OWNER, &"a".into()).unwrap();
        assert_eq!(open(&both, OWNER, &sealed).unwrap(), "a");
        let error = open(&new, OWNER, &sealed).unwrap_err();
        assert_eq!(error, Error::UnknownKey { key_id: old.key_id().into() });
        assert!(error.to_string().contains(old.key_id()) && error.to_string().contains("restore the key file"));
        let resealed = both.seal(OWNER, &"b".into()).unwrap();
        assert_eq!((resealed.key_id.as_str(), both.key_id()), (new.key_id(), new.key_id()));
        assert_eq!(open(&new, OWNER, &resealed).unwrap(), "b");
    }

    #[test]
    fn the_key_file_is_made_once_for_its_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vault.key");
        let first = Vault::open_or_create(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no draft is left behind");
        let sealed = first.seal(OWNER, &"kept".into()).unwrap();
        let again = Vault::open_or_create(&path).unwrap();
        assert_eq!(again.key_id(), first.key_id());
        assert_eq!(open(&again, OWNER, &sealed).unwrap(), "kept");
        create(&path).unwrap();
        assert_eq!(Vault::open_or_create(&path).unwrap().key_id(), first.key_id(), "a key is never replaced");
    }

    #[test]
    fn what_is_no_key_is_refused_and_not_repeated() {
        let path = tempfile::tempdir().unwrap().path().join("gone").join("vault.key");
        assert!(matches!(Vault::open_or_create(&path), Err(KeyError::File { attempt: "create", .. })));
        assert!(matches!(Vault::from_text(&" \n".into()), Err(KeyError::Empty)));
        let planted = format!("{}\nplanted", BASE64.encode([1; KEY_BYTES]));
        let error = Vault::from_text(&planted.into()).unwrap_err();
        assert!(matches!(error, KeyError::Malformed { line: 2 }));
        assert!(!format!("{error} {error:?}").contains("planted"));
    }

    #[test]
    fn nothing_printed_or_stored_shows_a_secret() {
        let vault = vault(&[7]);
        let sealed = vault.seal(OWNER, &"planted".into()).unwrap();
        let json = serde_json::to_string(&sealed).unwrap();
        let printed = format!("{vault:?} {sealed:?} {json}");
        assert!(!printed.contains("planted") && !printed.contains(&BASE64.encode([7; KEY_BYTES])), "{printed}");
        assert!(printed.contains(vault.key_id()));
        assert_eq!(serde_json::from_str::<Sealed>(&json).unwrap(), sealed);
    }

    proptest! {
        #[test]
        fn every_secret_comes_back(secret: String, owner: String) {
            let vault = vault(&[3]);
            let sealed = vault.seal(&owner, &secret.as_str().into()).unwrap();
            prop_assert_eq!(open(&vault, &owner, &sealed).unwrap(), secret);
        }
    }
}

//! Secrets at rest: sealed with XChaCha20-Poly1305 under a key that is kept apart from the database.
//!
//! A sealed secret is bound to its owner (a path such as `incoming-server/<uid>/secret`), so that nobody who can write
//! to the database can make one server sign in with another's secret. It names its key, so that several keys can be in use
//! while everything is sealed anew: [`crate::rotation`] says how.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use chacha20poly1305::XNonce;
use chacha20poly1305::aead::{Aead as _, Payload};
use secrecy::zeroize::Zeroize as _;
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tokio::sync::OwnedRwLockReadGuard;

pub use self::key::KeyError;
use self::key::{Key, Keys};
pub use self::source::{KeySource, NoSource};

mod key;
mod source;

/// Bytes of a nonce. 192 bits, so that a random one is never used twice.
const NONCE_BYTES: usize = 24;
/// How long a change of keys waits for whoever relies on them.
const PATIENCE: Duration = Duration::from_secs(10);

/// Keys to seal and open secrets with. The newest seals; all of them open.
pub struct Vault {
    ring: Arc<RwLock<Ring>>,
    /// Where the keys came from. `None`: they were given as text, and cannot be changed.
    source: Option<KeySource>,
    /// Held for reading by whoever needs the keys to stay as they are.
    steady: Arc<tokio::sync::RwLock<()>>,
}

struct Ring {
    /// Never empty; the newest is last.
    keys: Keys,
    /// Keys that nothing stored names any more. They still open until this process ends, for whoever began with a model
    /// that was read before the last secret was sealed anew.
    retired: Vec<Arc<Key>>,
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
    /// What [`identity`](Self::identity) it had before it was sealed under another key; empty: it never was.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub origin: String,
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

/// Why keys could not be changed.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// The keys are at fault.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Somebody needs the keys as they are.
    #[error("a backup is copying what the keys seal; wait until it sends, then rotate")]
    Busy,
    /// The process is stopping, or the work has panicked.
    #[error("the change of keys was cut off; rotate again, which goes on where this ended")]
    CutOff,
}

/// What a rotation begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Begun {
    /// The key that seals from now on.
    pub key_id: String,
    /// The older ones, which are to go.
    pub older: Vec<String>,
    /// True when there were several keys already: a rotation was cut off, or the operator added a key.
    pub resumed: bool,
}

/// The text of a key file with a new key, which says of these keys that they are lost for good.
pub fn without(lost: &[&str]) -> Result<SecretString, KeyError> {
    let random = |source| KeyError::File { attempt: "make a key for", path: "secret.key".into(), source };
    let mut keys = Keys::default();
    keys.add(Key::random().map_err(random)?);
    keys.lost.extend(lost.iter().filter(|id| key::is_id(id)).map(|id| (*id).to_owned()));
    Ok(SecretString::from(keys.write().as_str()))
}

impl Sealed {
    /// The same for a secret however often it was sealed under another key, and different for two secrets that were set one
    /// after the other. Nothing can be guessed by it.
    pub fn identity(&self) -> String {
        if !self.origin.is_empty() {
            return self.origin.clone();
        }
        let parts = [self.key_id.as_bytes(), &self.nonce, &self.ciphertext];
        let digest = parts.iter().fold(Sha256::new(), |digest, part| {
            digest.chain_update((part.len() as u64).to_le_bytes()).chain_update(part)
        });
        BASE64.encode(digest.finalize())
    }
}

impl Vault {
    /// Takes the keys that a source holds. `wanted` are the keys that stored secrets name: without any, and without a key,
    /// a new one is made; and none of them may be missing, unless the source says that it is lost.
    pub fn load(source: &KeySource, wanted: &BTreeSet<String>) -> Result<Self, KeyError> {
        let place = || source.to_string();
        let text = match source.read()? {
            Some(text) => text,
            None => match wanted.first() {
                Some(wanted) => return Err(KeyError::Gone { place: place(), wanted: wanted.clone() }),
                None => {
                    source.create()?;
                    source.read()?.ok_or(KeyError::Empty)?
                }
            },
        };
        let keys = Keys::parse(&text)?;
        let missing = wanted.iter().find(|id| keys.find(id).is_none() && !keys.lost.contains(*id));
        if let Some(wanted) = missing {
            return Err(KeyError::Wanting { place: place(), wanted: wanted.clone(), held: keys.ids().join(", ") });
        }
        Ok(Self::of(keys, Some(source.clone())))
    }

    /// Takes keys as a key file holds them: 32 bytes in base64 a line, the newest last.
    pub fn from_text(text: &SecretString) -> Result<Self, KeyError> {
        Ok(Self::of(Keys::parse(text)?, None))
    }

    fn of(keys: Keys, source: Option<KeySource>) -> Self {
        let ring = Arc::new(RwLock::new(Ring { keys, retired: Vec::new() }));
        Self { ring, source, steady: Arc::default() }
    }

    /// The key that seals.
    pub fn key_id(&self) -> String {
        self.look(|ring| ring.keys.keys.last().map(|key| key.id.clone()).unwrap_or_default())
    }

    /// All keys, the one that seals last.
    pub fn key_ids(&self) -> Vec<String> {
        self.look(|ring| ring.keys.ids())
    }

    /// True when this key is at hand.
    pub fn holds(&self, key_id: &str) -> bool {
        self.look(|ring| ring.keys.find(key_id).is_some())
    }

    /// True when the operator has said that nobody has this key any more.
    pub fn is_lost(&self, key_id: &str) -> bool {
        self.look(|ring| ring.keys.lost.contains(key_id) && ring.keys.find(key_id).is_none())
    }

    /// Where the keys come from. `None`: they were given.
    pub fn source(&self) -> Option<&KeySource> {
        self.source.as_ref()
    }

    /// Seals a secret for its owner.
    pub fn seal(&self, owner: &str, secret: &SecretString) -> Result<Sealed, Error> {
        let key = self.look(|ring| ring.keys.keys.last().cloned()).ok_or(Error::Seal)?;
        let mut nonce = [0; NONCE_BYTES];
        getrandom::fill(&mut nonce).map_err(|_| Error::Seal)?;
        let payload = Payload { msg: secret.expose_secret().as_bytes(), aad: owner.as_bytes() };
        let ciphertext = key.cipher().encrypt(&XNonce::from(nonce), payload).map_err(|_| Error::Seal)?;
        Ok(Sealed { key_id: key.id.clone(), nonce: nonce.into(), ciphertext, origin: String::new() })
    }

    /// Seals a secret again, under the newest key. `None`: it already is.
    pub fn seal_again(&self, owner: &str, sealed: &Sealed) -> Result<Option<Sealed>, Error> {
        if sealed.key_id == self.key_id() {
            return Ok(None);
        }
        let again = self.seal(owner, &self.open(owner, sealed)?)?;
        Ok(Some(Sealed { origin: sealed.identity(), ..again }))
    }

    /// Opens a secret that was sealed for the same owner.
    pub fn open(&self, owner: &str, sealed: &Sealed) -> Result<SecretString, Error> {
        let key = self.look(|ring| {
            let retired = || ring.retired.iter().find(|key| key.id == sealed.key_id);
            ring.keys.find(&sealed.key_id).or_else(retired).cloned()
        });
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

    /// Keeps the keys as they are while the guard lives: none is added, none goes. The names and the text of the keys go
    /// along, for whoever puts them beside what they seal.
    pub async fn hold_keys(&self) -> Held {
        let guard = self.steady.clone().read_owned().await;
        let (ids, text) = self.look(|ring| (ring.keys.ids(), SecretString::from(ring.keys.write().as_str())));
        Held { ids, text, _guard: guard }
    }

    /// Makes sure that there is a newest key that is to replace others. Where the source holds several keys already, the
    /// newest of them is meant: a rotation that was cut off goes on, and the operator may have added a key himself.
    pub async fn begin_rotation(&self) -> Result<Begun, ChangeError> {
        self.change(|ring, source| {
            let Some(source) = source else {
                let held = Ring::look(ring, |ring| ring.keys.ids().join(", "));
                return Err(KeyError::Fixed { place: "elsewhere".into(), held });
            };
            let mut keys = Keys::parse(&source.read()?.ok_or(KeyError::Empty)?)?;
            let present = Ring::look(ring, |ring| ring.keys.ids());
            if let Some(wanted) = present.into_iter().find(|id| keys.find(id).is_none()) {
                let held = keys.ids().join(", ");
                return Err(KeyError::Wanting { place: source.to_string(), wanted, held });
            }
            let resumed = keys.keys.len() > 1;
            if !resumed {
                if let KeySource::File(path) = source {
                    let random = |source| KeyError::File { attempt: "make a key for", path: path.clone(), source };
                    keys.add(Key::random().map_err(random)?);
                }
                // Ordering: the key is durable before anything is sealed with it. What cannot be replaced says so here.
                source.replace(&keys)?;
            }
            let mut older = keys.ids();
            let key_id = older.pop().unwrap_or_default();
            Ring::keep(ring, keys);
            Ok(Begun { key_id, older, resumed })
        })
        .await
    }

    /// Lets go of older keys, which nothing that is stored names any more. Answers true when the source holds them still,
    /// since only the operator can change it.
    pub async fn end_rotation(&self, gone: &BTreeSet<String>) -> Result<bool, ChangeError> {
        let gone = gone.clone();
        self.change(move |ring, source| {
            let mut kept = Ring::look(ring, |ring| ring.keys.clone());
            let newest = kept.keys.last().map(|key| key.id.clone());
            let before = kept.keys.len();
            kept.keys.retain(|key| Some(&key.id) == newest.as_ref() || !gone.contains(&key.id));
            if kept.keys.len() == before {
                return Ok(false);
            }
            let source = source.filter(|source| source.is_file());
            if let Some(source) = source {
                source.replace(&kept)?;
            }
            Ring::keep(ring, kept);
            Ok(source.is_none())
        })
        .await
    }

    /// Changes the keys once nobody relies on them.
    ///
    /// Ordering: the work syncs a disk, so it has a thread of its own; it takes its turn along and puts the keys into the
    /// ring itself, so that file and ring agree even if nobody waits for it any more.
    async fn change<T: Send + 'static>(
        &self,
        work: impl FnOnce(&RwLock<Ring>, Option<&KeySource>) -> Result<T, KeyError> + Send + 'static,
    ) -> Result<T, ChangeError> {
        let turn = tokio::time::timeout(PATIENCE, self.steady.clone().write_owned());
        let turn = turn.await.map_err(|_| ChangeError::Busy)?;
        let (ring, source) = (self.ring.clone(), self.source.clone());
        let changing = tokio::task::spawn_blocking(move || {
            let changed = work(&ring, source.as_ref());
            drop(turn);
            changed
        });
        Ok(changing.await.map_err(|_| ChangeError::CutOff)??)
    }

    fn look<T>(&self, at: impl FnOnce(&Ring) -> T) -> T {
        Ring::look(&self.ring, at)
    }
}

impl Ring {
    fn look<T>(ring: &RwLock<Self>, at: impl FnOnce(&Self) -> T) -> T {
        at(&ring.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Has these keys from now on, and lets those go on opening that are not among them.
    fn keep(ring: &RwLock<Self>, keys: Keys) {
        let mut ring = ring.write().unwrap_or_else(PoisonError::into_inner);
        let going: Vec<Arc<Key>> = ring.keys.keys.iter().filter(|key| keys.find(&key.id).is_none()).cloned().collect();
        ring.retired.extend(going);
        ring.keys = keys;
    }
}

/// The keys of a vault, which stay as they are while this lives.
pub struct Held {
    /// Their names, the one that seals last.
    pub ids: Vec<String>,
    /// The text of a key file that holds them.
    pub text: SecretString,
    _guard: OwnedRwLockReadGuard<()>,
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Held").field("ids", &self.ids).finish_non_exhaustive()
    }
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vault").field("keys", &self.key_ids()).finish_non_exhaustive()
    }
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
mod tests;

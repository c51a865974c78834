//! What a caller is known by, as it stands in the store: a token, an enrolment or a worker's certificate. None of it can
//! be signed in with: a token stands there as its digest.

use std::time::Duration;

use bytes::Bytes;
use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::role::Role;
use crate::ledger::Micros;

/// Format of the record.
const FORMAT: u32 = 1;
/// Random bytes of an id.
const ID_BYTES: usize = 6;
/// So long an expired credential is still listed.
pub const LISTED: Duration = Duration::from_secs(30 * 24 * 3600);

/// SHA-256 of a token, of a certificate (DER) or of a public key (DER).
pub type Fingerprint = [u8; 32];

/// Bearer tokens have 256 random bits, so a fast digest is as good as a slow one.
pub fn fingerprint(what: &[u8]) -> Fingerprint {
    Sha256::digest(what).into()
}

/// What a caller is known by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A bearer token.
    Token,
    /// A token for a worker's first certificate.
    Enrolment,
    /// A worker's certificate.
    Certificate,
}

/// A credential, as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credential {
    format: u32,
    /// What it is.
    pub kind: Kind,
    /// Name of the token, or of the worker.
    pub name: String,
    /// What its bearer may do.
    #[serde(with = "as_text")]
    pub role: Role,
    /// Of the token, or of the certificate.
    #[serde(with = "as_hex")]
    pub fingerprint: Fingerprint,
    /// When it was made.
    pub created: Micros,
    /// Who made it.
    pub by: String,
    /// From then on it is worth nothing.
    pub expires: Micros,
    /// Of an enrolment: the only public key that it is for, once that is known.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "as_optional_hex")]
    pub redeemed: Option<Fingerprint>,
}

impl Credential {
    /// One that is made now.
    pub fn new(
        kind: Kind,
        name: &str,
        role: Role,
        fingerprint: Fingerprint,
        (created, by, expires): (Micros, &str, Micros),
    ) -> Self {
        let (name, by) = (name.into(), by.into());
        Self { format: FORMAT, kind, name, role, fingerprint, created, by, expires, redeemed: None }
    }

    /// The same enrolment, which from now on is for this public key alone.
    pub fn redeemed_by(self, public_key: Fingerprint) -> Self {
        Self { redeemed: Some(public_key), ..self }
    }

    /// True from its end on.
    pub fn is_over(&self, now: Micros) -> bool {
        now >= self.expires
    }

    /// The value for the store.
    pub fn encode(&self) -> Bytes {
        // A struct of strings and numbers always has a JSON form.
        serde_json::to_vec(self).unwrap_or_default().into()
    }

    /// Reads a value of the store. `None`: it is no credential that this version knows, so that nobody is let in by it.
    pub fn decode(value: &[u8]) -> Option<Self> {
        serde_json::from_slice(value).ok().filter(|read: &Self| read.format == FORMAT)
    }
}

/// A random id: lower-case hexadecimal.
pub fn new_id() -> Result<String, getrandom::Error> {
    let mut bytes = [0; ID_BYTES];
    getrandom::fill(&mut bytes)?;
    Ok(HEXLOWER.encode(&bytes))
}

/// True for what [`new_id`] makes.
pub fn is_id(text: &str) -> bool {
    text.len() == 2 * ID_BYTES && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

mod as_text {
    use serde::{Deserialize as _, Deserializer, Serializer, de};

    use super::Role;

    pub(super) fn serialize<S: Serializer>(role: &Role, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(role)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Role, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

mod as_hex {
    use data_encoding::HEXLOWER;
    use serde::{Deserialize as _, Deserializer, Serializer, de};

    use super::Fingerprint;

    pub(super) fn serialize<S: Serializer>(fingerprint: &Fingerprint, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&HEXLOWER.encode(fingerprint))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Fingerprint, D::Error> {
        let bytes = HEXLOWER.decode(String::deserialize(deserializer)?.as_bytes()).map_err(de::Error::custom)?;
        bytes.try_into().map_err(|_| de::Error::custom("is not 32 bytes"))
    }
}

mod as_optional_hex {
    use serde::{Deserializer, Serializer};

    use super::{Fingerprint, as_hex};

    pub(super) fn serialize<S: Serializer>(value: &Option<Fingerprint>, serializer: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(fingerprint) => as_hex::serialize(fingerprint, serializer),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Fingerprint>, D::Error> {
        as_hex::deserialize(deserializer).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_is_read_back_and_its_stored_form_stays_readable() {
        let stored = format!(
            r#"{{"format":1,"kind":"token","name":"cem","role":"instance:core1","fingerprint":"{}","created":5,"by":"ada","expires":9}}"#,
            "ab".repeat(32)
        );
        let role = Role::Instance("core1".into());
        let credential = Credential::new(Kind::Token, "cem", role, [0xab; 32], (5, "ada", 9));
        assert_eq!(credential.encode().as_ref(), stored.as_bytes());
        assert_eq!(Credential::decode(stored.as_bytes()), Some(credential.clone()));
        assert!(!credential.is_over(8) && credential.is_over(9));
        let redeemed = Credential { redeemed: Some([1; 32]), ..credential };
        assert_eq!(Credential::decode(&redeemed.encode()), Some(redeemed));
    }

    #[test]
    fn what_is_not_understood_lets_nobody_in() {
        let stored = format!(
            r#"{{"format":1,"kind":"token","name":"a","role":"admin","fingerprint":"{}","created":5,"by":"","expires":9}}"#,
            "ab".repeat(32)
        );
        assert!(Credential::decode(stored.as_bytes()).is_some());
        for (from, to) in [("\"format\":1", "\"format\":2"), ("admin", "root"), ("token", "cookie"), ("abab", "ab")] {
            assert_eq!(Credential::decode(stored.replacen(from, to, 1).as_bytes()), None, "{to}");
        }
    }

    #[test]
    fn ids_are_told_from_names() {
        assert!(is_id(&new_id().unwrap()));
        assert!(!is_id("abcdef") && !is_id("ABCDEFABCDEF") && !is_id("my token 123"));
    }
}

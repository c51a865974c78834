//! Where a secret comes from: `{env: NAME}`, `{file: path}` or `{value: …}`; or that it is to go: `{clear: true}`.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use postroom_proto::v1::SecretInput;
use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};

use crate::Environment;

/// The places, as they stand in the file; exactly one must be there.
#[derive(Default)]
pub(super) struct Secret {
    env: Option<String>,
    file: Option<PathBuf>,
    value: Option<String>,
    clear: bool,
}

impl Secret {
    /// Fetches the secret. `base`: what relative paths are relative to. The error says what to write instead and never
    /// holds the secret.
    pub(super) fn fetch(self, base: &Path, environment: Environment<'_>) -> Result<SecretInput, String> {
        if self.clear && self.env.is_none() && self.file.is_none() && self.value.is_none() {
            return Ok(SecretInput { value: String::new(), clear: true });
        }
        let value = match (self.env, self.file, self.value.filter(|_| !self.clear)) {
            (Some(name), None, None) => match environment(&name) {
                Some(value) => value.into_string().map_err(|_| format!("environment variable {name} is not UTF-8"))?,
                None => return Err(format!("environment variable {name} is not set")),
            },
            (None, Some(path), None) => {
                let path = base.join(path);
                let text =
                    fs::read_to_string(&path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
                // Editors end a file with a line break that is not part of the secret.
                text.trim_end_matches(['\n', '\r']).to_owned()
            }
            (None, None, Some(value)) => value,
            _ => return Err("needs exactly one of env, file, value and clear".into()),
        };
        if value.is_empty() {
            return Err(
                "is empty; leave the whole key out to keep what is stored, or write {clear: true} to remove it".into(),
            );
        }
        Ok(SecretInput { value, clear: false })
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SecretVisitor)
    }
}

/// Reads by hand: derived code quotes what it did not expect, and that may be the secret itself.
struct SecretVisitor;

const EXPECTED: &str = "write {env: NAME}, {file: path} or {value: \"…\"}, or {clear: true} to remove it";

impl<'de> Visitor<'de> for SecretVisitor {
    type Value = Secret;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(EXPECTED)
    }

    fn visit_str<E: de::Error>(self, _: &str) -> Result<Secret, E> {
        Err(E::custom(EXPECTED))
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<Secret, E> {
        Err(E::custom(EXPECTED))
    }

    fn visit_i64<E: de::Error>(self, _: i64) -> Result<Secret, E> {
        Err(E::custom(EXPECTED))
    }

    fn visit_u64<E: de::Error>(self, _: u64) -> Result<Secret, E> {
        Err(E::custom(EXPECTED))
    }

    fn visit_i128<E: de::Error>(self, _: i128) -> Result<Secret, E> {
        Err(E::custom(EXPECTED))
    }

    fn visit_u128<E: de::Error>(self, _: u128) -> Result<Secret, E> {
        Err(E::custom(EXPECTED))
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<Secret, E> {
        Err(E::custom(EXPECTED))
    }

    fn visit_unit<E: de::Error>(self) -> Result<Secret, E> {
        Err(E::custom(EXPECTED))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Secret, A::Error> {
        let mut secret = Secret::default();
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "env" => secret.env = Some(map.next_value()?),
                "file" => secret.file = Some(map.next_value()?),
                "value" => secret.value = Some(map.next_value()?),
                // Its own error would quote what stands there.
                "clear" => secret.clear = map.next_value().map_err(|_: A::Error| de::Error::custom(EXPECTED))?,
                _ => return Err(de::Error::custom(EXPECTED)),
            }
        }
        Ok(secret)
    }
}

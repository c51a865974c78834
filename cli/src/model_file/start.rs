//! `start: unseen` or `start: {since: 2026-01-31}`.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};
use serde::{Serialize, Serializer};

/// What is taken at the first reading, as it stands in the file.
pub(super) enum Start {
    /// A policy without a parameter.
    Word(String),
    /// Everything received at or after this time.
    Since(String),
}

impl Serialize for Start {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeMap as _;
        match self {
            Self::Word(word) => serializer.serialize_str(word),
            Self::Since(since) => {
                let mut map = serializer.serialize_map(Some(1))?;
                map.serialize_entry("since", since)?;
                map.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for Start {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StartVisitor)
    }
}

struct StartVisitor;

impl<'de> Visitor<'de> for StartVisitor {
    type Value = Start;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("unseen, new, all or {since: 2026-01-31}")
    }

    fn visit_str<E: de::Error>(self, word: &str) -> Result<Start, E> {
        Ok(Start::Word(word.into()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Start, A::Error> {
        let mut since = None;
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "since" => since = Some(map.next_value::<String>()?),
                _ => return Err(de::Error::unknown_field(&key, &["since"])),
            }
        }
        since.map(Start::Since).ok_or_else(|| de::Error::missing_field("since"))
    }
}

//! `backlogGuard: 1000` or `backlogGuard: off`.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, Visitor};
use serde::{Serialize, Serializer};

/// When a mailbox waits for an operator, as it stands in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Guard {
    /// Never.
    Off,
    /// With more messages to take than this.
    MoreThan(u32),
}

impl fmt::Display for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::MoreThan(count) => count.fmt(f),
        }
    }
}

impl Serialize for Guard {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Off => serializer.serialize_str("off"),
            Self::MoreThan(count) => serializer.serialize_u32(*count),
        }
    }
}

impl<'de> Deserialize<'de> for Guard {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(GuardVisitor)
    }
}

struct GuardVisitor;

impl Visitor<'_> for GuardVisitor {
    type Value = Guard;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a whole number up to {}, or off", u32::MAX)
    }

    fn visit_str<E: de::Error>(self, word: &str) -> Result<Guard, E> {
        match word {
            "off" => Ok(Guard::Off),
            // On a command line everything is a word.
            word => word.parse().map(Guard::MoreThan).map_err(|_| E::invalid_value(de::Unexpected::Str(word), &self)),
        }
    }

    /// YAML 1.1 reads `off` as a truth.
    fn visit_bool<E: de::Error>(self, truth: bool) -> Result<Guard, E> {
        if truth { Err(E::invalid_value(de::Unexpected::Bool(truth), &self)) } else { Ok(Guard::Off) }
    }

    fn visit_u64<E: de::Error>(self, count: u64) -> Result<Guard, E> {
        let number = u32::try_from(count).map(Guard::MoreThan);
        number.map_err(|_| E::invalid_value(de::Unexpected::Unsigned(count), &self))
    }

    fn visit_i64<E: de::Error>(self, count: i64) -> Result<Guard, E> {
        let number = u32::try_from(count).map(Guard::MoreThan);
        number.map_err(|_| E::invalid_value(de::Unexpected::Signed(count), &self))
    }
}

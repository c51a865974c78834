//! YAML: what [`super::json`] says, in the form that people read and `yq` takes.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeMap as _, Serializer};
use serde_saphyr::DoubleQuoted;

use super::{json, text};
use crate::error::{Error, Kind};

/// A message as one YAML document, without the line that separates documents.
pub fn message<M: prost::Message + prost::Name>(message: &M) -> Result<String, Error> {
    from_json(&json::line(message)?)
}

fn from_json(json: &str) -> Result<String, Error> {
    let defect = |detail: &dyn fmt::Display| Error::new(Kind::Internal, format!("cannot write YAML: {detail}"));
    let tree: Tree = serde_json::from_str(json).map_err(|error| defect(&error))?;
    // Strings of several lines stand in blocks, as people wrote them; long ones of one line are not folded.
    let options = serde_saphyr::ser_options! { compact_list_indent: false, folded_wrap_chars: usize::MAX };
    let yaml = serde_saphyr::to_string_with_options(&tree, options).map_err(|error| defect(&error))?;
    // Every string that holds such a character is in double quotes, where an escape means the same as in JSON.
    Ok(json::escape(&yaml))
}

/// A JSON value that keeps the order of its fields: that of the protos.
enum Tree {
    Null,
    Bool(bool),
    Number(serde_json::Number),
    Text(String),
    List(Vec<Tree>),
    Map(Vec<(String, Tree)>),
}

impl Serialize for Tree {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Number(value) => value.serialize(serializer),
            Self::Text(value) if value.chars().any(|c| c != '\n' && text::is_dangerous(c)) => {
                DoubleQuoted(value).serialize(serializer)
            }
            Self::Text(value) => serializer.serialize_str(value),
            Self::List(values) => values.serialize(serializer),
            Self::Map(fields) => {
                let mut map = serializer.serialize_map(Some(fields.len()))?;
                for (name, value) in fields {
                    map.serialize_entry(name, value)?;
                }
                map.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TreeVisitor)
    }
}

struct TreeVisitor;

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = Tree;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Tree, E> {
        Ok(Tree::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Tree, E> {
        Ok(Tree::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Tree, E> {
        Ok(Tree::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Tree, E> {
        Ok(serde_json::Number::from_f64(value).map_or(Tree::Null, Tree::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Tree, E> {
        Ok(Tree::Text(value.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<Tree, A::Error> {
        let mut list = Vec::new();
        while let Some(value) = values.next_element()? {
            list.push(value);
        }
        Ok(Tree::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Tree, A::Error> {
        let mut map = Vec::new();
        while let Some(field) = fields.next_entry()? {
            map.push(field);
        }
        Ok(Tree::Map(map))
    }
}

#[cfg(test)]
mod tests {
    use postroom_proto::v1;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn strings_that_look_like_something_else_are_quoted() {
        let names =
            ["true", "no", "null", "~", "1e3", "007", "0x1F", "12:30:00", "2026-01-01", "", "- a", "a: b", "*x", "on"];
        let queues = names.map(|name| v1::Queue { name: name.into(), ..Default::default() });
        let yaml = message(&v1::Model { queues: queues.into(), ..Default::default() }).unwrap();
        let read: serde_json::Value = serde_saphyr::from_str(&yaml).unwrap();
        let read = read["queues"].as_array().unwrap().iter().map(|queue| queue["name"].as_str().unwrap());
        assert!(read.eq(names), "{yaml}");
        for name in ["true", "no", "007", "2026-01-01", "on"] {
            assert!(yaml.contains(&format!("name: \"{name}\"")) || yaml.contains(&format!("name: '{name}'")), "{name}");
        }
    }

    #[test]
    fn a_message_reads_well() {
        let content = v1::ContactContent {
            subject: "\u{1b}[2J\u{202e}Re: 4711".into(),
            text: "Hello,\n\nmy invoice is wrong.\n".into(),
            ..Default::default()
        };
        let contact = v1::Contact {
            id: "0198c0ffee0198c0ffee0198c0ffee01".into(),
            size_bytes: 2048,
            received_time: Some(postroom_proto::convert::to_timestamp(1_772_366_400_000_000)),
            content: Some(content),
            ..Default::default()
        };
        insta::assert_snapshot!(message(&contact).unwrap());
    }

    proptest! {
        #[test]
        fn any_text_comes_back_as_it_was_and_steers_no_terminal(texts in prop::collection::vec(any::<String>(), 1..4)) {
            let json = serde_json::json!({ "list": texts, "text": texts.join("\n"), "map": { "x": texts[0] } });
            let yaml = from_json(&json.to_string()).unwrap();
            prop_assert!(!yaml.chars().any(|c| c != '\n' && text::is_dangerous(c)), "{:?}", yaml);
            let read: serde_json::Value = serde_saphyr::from_str(&yaml).unwrap();
            prop_assert_eq!(read, json, "{}", yaml);
        }
    }
}

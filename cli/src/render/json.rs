//! JSON: the mapping of proto3, lowerCamelCase, read from the compiled protos.

use std::fmt::Write as _;
use std::sync::LazyLock;

use postroom_proto::v1;
use prost_reflect::{DescriptorPool, DynamicMessage, ReflectMessage as _, SerializeOptions};
use serde_json::ser::Formatter;

use super::text;
use crate::error::{Error, Kind};

static POOL: LazyLock<Result<DescriptorPool, prost_reflect::DescriptorError>> =
    LazyLock::new(|| DescriptorPool::decode(v1::FILE_DESCRIPTOR_SET));

/// A message as JSON with indents and a final line break. Fields with their default value are there too, so that
/// `.mailboxes[]` of an empty list is no error.
pub fn message<M: prost::Message + prost::Name>(message: &M) -> Result<String, Error> {
    mapped(message, serde_json::ser::PrettyFormatter::new())
}

/// A message as one line of JSON, for streams of them.
pub fn line<M: prost::Message + prost::Name>(message: &M) -> Result<String, Error> {
    mapped(message, serde_json::ser::CompactFormatter)
}

fn mapped<M: prost::Message + prost::Name>(message: &M, formatter: impl Formatter) -> Result<String, Error> {
    let defect = |detail: &dyn std::fmt::Display| Error::new(Kind::Internal, format!("cannot write JSON: {detail}"));
    let pool = POOL.as_ref().map_err(|error| defect(error))?;
    let descriptor = pool.get_message_by_name(&M::full_name()).ok_or_else(|| defect(&M::full_name()))?;
    let mut dynamic = DynamicMessage::new(descriptor);
    dynamic.transcode_from(message).map_err(|error| defect(&error))?;
    debug_assert_eq!(dynamic.descriptor().full_name(), M::full_name());
    let mut json = Vec::new();
    let mut serializer = serde_json::Serializer::with_formatter(&mut json, formatter);
    let options = SerializeOptions::new().skip_default_fields(false);
    dynamic.serialize_with_options(&mut serializer, &options).map_err(|error| defect(&error))?;
    let mut json = escape(&String::from_utf8_lossy(&json));
    json.push('\n');
    Ok(json)
}

/// JSON escapes the first 32 control characters only; the others steer terminals too. They can stand in strings
/// alone, where an escape means the same.
pub(super) fn escape(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len());
    for c in json.chars() {
        if c != '\n' && text::is_dangerous(c) {
            // All of them are in the basic plane, so four digits do.
            let _ = write!(escaped, "\\u{:04x}", u32::from(c));
        } else {
            escaped.push(c);
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_follow_the_proto_json_mapping() {
        let queue = v1::Queue {
            name: "Münster\u{9b}\u{1b}".into(),
            max_message_bytes: 26_214_400,
            start: Some(v1::Start {
                policy: v1::StartPolicy::Since.into(),
                since_time: Some(postroom_proto::convert::to_timestamp(1_772_366_400_000_000)),
            }),
            addresses: vec![v1::Address { email: "a@b.example".into(), ..Default::default() }],
            ..Default::default()
        };
        insta::assert_snapshot!(message(&queue).unwrap());
    }

    #[test]
    fn a_line_is_one_line() {
        let queue = v1::Queue { name: "a\nb\u{2028}c".into(), ..Default::default() };
        let shown = line(&queue).unwrap();
        assert_eq!((shown.lines().count(), shown.matches('\u{2028}').count()), (1, 0), "{shown}");
        let same: serde_json::Value = serde_json::from_str(&message(&queue).unwrap()).unwrap();
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), same);
    }

    #[test]
    fn an_empty_list_is_there() {
        assert!(message(&v1::ListMailboxesResponse::default()).unwrap().contains("\"mailboxes\": []"));
    }
}

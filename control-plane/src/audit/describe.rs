//! What a request is about and what it asks for, taken from its bytes. Pure.
//!
//! Invariant: only the fields that the table names are read, so that no secret and no mail gets into the audit.

use std::sync::LazyLock;

use bytes::Bytes;
use prost_reflect::{DescriptorPool, DynamicMessage, ReflectMessage as _, SerializeOptions};
use serde_json::{Map, Value};

use super::table::Rule;

/// Most characters of one text.
const TEXT: usize = 200;
/// Most items of one list.
const ITEMS: usize = 20;
/// Most characters of a subject.
const SUBJECT: usize = 200;

/// The messages of all calls. `None`: the descriptors that were compiled in cannot be read, which a test would notice.
static POOL: LazyLock<Option<DescriptorPool>> =
    LazyLock::new(|| DescriptorPool::decode(postroom_proto::v1::FILE_DESCRIPTOR_SET).ok());

/// What is told of a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Told {
    /// What it is about.
    pub subject: String,
    /// What it asks for, as JSON; empty: nothing besides.
    pub detail: String,
    /// True when it only asks what would happen.
    pub only_asks: bool,
}

/// Reads a request of the call of this path. What cannot be read is told as nothing: the call itself will be refused.
pub fn describe(path: &str, rule: Rule, request: Bytes) -> Told {
    let Some(mut message) = decode(path, request) else { return Told::default() };
    let only_asks = message.get_field_by_name("validate_only").is_some_and(|it| it.as_bool() == Some(true));
    let wanted = |name: &str| rule.subject.contains(&name) || rule.detail.contains(&name);
    let others: Vec<_> = message.descriptor().fields().filter(|field| !wanted(field.json_name())).collect();
    others.iter().for_each(|field| message.clear_field(field));
    let options = SerializeOptions::new().skip_default_fields(true);
    let written = message.serialize_with_options(serde_json::value::Serializer, &options);
    let Ok(Value::Object(fields)) = written else { return Told { only_asks, ..Told::default() } };
    let subject: Vec<String> = rule.subject.iter().filter_map(|name| fields.get(*name)).map(text).collect();
    let detail: Map<String, Value> = rule
        .detail
        .iter()
        .filter_map(|name| fields.get(*name).map(|value| ((*name).to_owned(), bounded(value))))
        .collect();
    Told { subject: cut(&subject.join(" "), SUBJECT), detail: json(&Value::Object(detail)), only_asks }
}

fn decode(path: &str, request: Bytes) -> Option<DynamicMessage> {
    let (service, method) = path.strip_prefix('/')?.split_once('/')?;
    let service = POOL.as_ref()?.get_service_by_name(service)?;
    let method = service.methods().find(|it| it.name() == method)?;
    DynamicMessage::decode(method.input(), request).ok()
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// A value of bounded length, which says what was left out.
pub fn bounded(value: &Value) -> Value {
    match value {
        Value::String(text) => Value::String(cut(text, TEXT)),
        Value::Array(items) => {
            let mut kept: Vec<Value> = items.iter().take(ITEMS).map(bounded).collect();
            if items.len() > ITEMS {
                kept.push(Value::String(format!("and {} more", items.len() - ITEMS)));
            }
            Value::Array(kept)
        }
        Value::Object(fields) => {
            Value::Object(fields.iter().take(ITEMS).map(|(name, value)| (name.clone(), bounded(value))).collect())
        }
        other => other.clone(),
    }
}

/// As it is stored; nothing for nothing.
pub fn json(value: &Value) -> String {
    match value {
        Value::Object(fields) if fields.is_empty() => String::new(),
        value => value.to_string(),
    }
}

/// The first characters of a text.
pub fn cut(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use postroom_proto::v1;

    use super::super::table::rule;
    use super::*;

    fn told(path: &str, request: &impl prost::Message) -> Told {
        describe(path, rule(path), request.encode_to_vec().into())
    }

    #[test]
    fn subject_and_detail_are_the_fields_of_the_table() {
        let request = v1::TransferContactsRequest {
            instance: "core1".into(),
            contacts: (0..30)
                .map(|n| v1::AllocatedContact { contact: format!("c{n}"), ..Default::default() })
                .collect(),
            queue: "Münster / \"Büro\"".into(),
            ..Default::default()
        };
        let told = told("/postroom.v1.ContactService/TransferContacts", &request);
        assert_eq!(told.subject, "core1");
        let detail: Value = serde_json::from_str(&told.detail).unwrap();
        assert_eq!(detail["queue"], "Münster / \"Büro\"");
        assert_eq!(detail["contacts"].as_array().unwrap().len(), 21);
        assert_eq!(detail["contacts"][20], "and 10 more");
        assert_eq!(detail.get("priority"), None, "what was not said is not told");
    }

    #[test]
    fn no_secret_and_no_model_is_told() {
        let server = v1::IncomingServer {
            name: "planted".into(),
            secret: Some(v1::SecretInput { value: "planted".into(), clear: false }),
            ..Default::default()
        };
        let model = v1::Model { incoming_servers: vec![server], ..Default::default() };
        let mut request =
            v1::ApplyModelRequest { model: Some(model), prune: true, validate_only: true, ..Default::default() };
        let path = "/postroom.v1.DefinitionService/ApplyModel";
        let dry = told(path, &request);
        assert_eq!((dry.detail.as_str(), dry.only_asks), (r#"{"prune":true}"#, true));
        request.validate_only = false;
        assert!(!told(path, &request).only_asks);
    }

    #[test]
    fn whatever_the_bytes_nothing_breaks() {
        for path in ["/postroom.v1.MessageService/DiscardMessage", "/no/Such", "nonsense", ""] {
            assert_eq!(describe(path, rule(path), Bytes::from_static(b"\xff\xff\xff")), Told::default());
        }
        let long = v1::DiscardMessageRequest { message: "1".into(), reason: "ü".repeat(100_000) };
        let told = told("/postroom.v1.MessageService/DiscardMessage", &long);
        assert!(told.detail.len() < 1000 && told.detail.contains('…'));
    }
}

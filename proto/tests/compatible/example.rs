//! Examples of a message in which every field says something.

use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, Value};

/// How deep messages within messages are filled; some hold themselves.
const DEPTH: usize = 4;

/// As many examples as the largest `oneof` of the message has fields, so that each of them is set in one.
pub(crate) fn of(message: &MessageDescriptor) -> Vec<DynamicMessage> {
    let choices = message.oneofs().filter(|it| !it.is_synthetic()).map(|it| it.fields().count());
    (0..choices.max().unwrap_or(1)).map(|choice| filled(message, choice, 0)).collect()
}

fn filled(message: &MessageDescriptor, choice: usize, depth: usize) -> DynamicMessage {
    let mut example = DynamicMessage::new(message.clone());
    for field in message.fields() {
        let chosen = match field.containing_oneof().filter(|it| !it.is_synthetic()) {
            None => true,
            Some(oneof) => oneof.fields().nth(choice % oneof.fields().count()) == Some(field.clone()),
        };
        let nested = matches!(field.kind(), Kind::Message(_));
        if chosen && !(nested && depth >= DEPTH) {
            let value = value(&field, depth);
            example.set_field(&field, value);
        }
    }
    example
}

fn value(field: &FieldDescriptor, depth: usize) -> Value {
    if field.is_map() {
        let Kind::Message(entry) = field.kind() else { unreachable!("a map has entries") };
        let key = MapKey::String(entry.map_entry_key_field().name().into());
        return Value::Map([(key, single(&entry.map_entry_value_field(), depth))].into());
    }
    if field.is_list() { Value::List(vec![single(field, depth)]) } else { single(field, depth) }
}

/// Derived from number and name of the field: what is read into another field is noticed.
fn single(field: &FieldDescriptor, depth: usize) -> Value {
    let number = field.number();
    let whole = i64::from(number) + 100;
    match field.kind() {
        Kind::Bool => Value::Bool(true),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => Value::I32(whole as i32),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => Value::I64(whole),
        Kind::Uint32 | Kind::Fixed32 => Value::U32(number + 100),
        Kind::Uint64 | Kind::Fixed64 => Value::U64(u64::from(number) + 100),
        Kind::Float => Value::F32(number as f32 + 0.5),
        Kind::Double => Value::F64(f64::from(number) + 0.5),
        Kind::String => Value::String(field.name().into()),
        Kind::Bytes => Value::Bytes(field.name().as_bytes().to_vec().into()),
        Kind::Message(message) => Value::Message(filled(&message, 0, depth + 1)),
        // The first that says something; a later version only adds behind it.
        Kind::Enum(of) => Value::EnumNumber(of.values().map(|it| it.number()).find(|it| *it != 0).unwrap_or(0)),
    }
}

//! What may not change between two versions of the protos, as sentences about each thing that did.

use prost_reflect::{DescriptorPool, EnumDescriptor, MessageDescriptor};
use prost_types::FieldDescriptorProto;

/// Everything of `old` that `new` does not keep.
pub(crate) fn broken(old: &DescriptorPool, new: &DescriptorPool) -> Vec<String> {
    let mut found = Vec::new();
    for message in old.all_messages().filter(|it| it.package_name().starts_with("postroom.")) {
        match new.get_message_by_name(message.full_name()) {
            Some(now) => fields(&message, &now, &mut found),
            None => found.push(format!("message {} is gone", message.full_name())),
        }
    }
    for old in old.all_enums().filter(|it| it.package_name().starts_with("postroom.")) {
        match new.get_enum_by_name(old.full_name()) {
            Some(now) => values(&old, &now, &mut found),
            None => found.push(format!("enum {} is gone", old.full_name())),
        }
    }
    for service in old.services() {
        let now = new.get_service_by_name(service.full_name());
        for method in service.methods() {
            let now = now.as_ref().and_then(|now| now.methods().find(|it| it.name() == method.name()));
            let Some(now) = now else {
                found.push(format!("call {} is gone", method.full_name()));
                continue;
            };
            if method.method_descriptor_proto() != now.method_descriptor_proto() {
                found.push(format!("call {} takes, gives or streams something else", method.full_name()));
            }
        }
    }
    found
}

fn fields(old: &MessageDescriptor, new: &MessageDescriptor, found: &mut Vec<String>) {
    for field in old.fields() {
        let place = format!("field {} ({})", field.full_name(), field.number());
        let Some(now) = new.get_field(field.number()) else {
            if !new.reserved_ranges().any(|range| range.contains(&field.number())) {
                found.push(format!("{place} is gone, and its number is not reserved"));
            }
            continue;
        };
        let before = shape(field.field_descriptor_proto());
        let after = shape(now.field_descriptor_proto());
        if before != after {
            found.push(format!("{place} was {before}, and is {after}"));
        }
        let choice = |field: &prost_reflect::FieldDescriptor| {
            field.containing_oneof().filter(|it| !it.is_synthetic()).map(|it| it.name().to_owned())
        };
        if choice(&field) != choice(&now) {
            found.push(format!("{place} went into another oneof, or out of one"));
        }
    }
    for field in new.fields() {
        if old.reserved_ranges().any(|range| range.contains(&field.number())) {
            found.push(format!("field {} uses the number {} again", field.full_name(), field.number()));
        }
    }
}

/// All of a field that stands on the wire or in JSON.
fn shape(field: &FieldDescriptorProto) -> String {
    let presence = if field.proto3_optional() { "optional " } else { "" };
    let (label, kind) = (field.label().as_str_name(), field.r#type().as_str_name());
    format!("{presence}{label} {kind} {} {}", field.type_name(), field.name()).replace("  ", " ")
}

fn values(old: &EnumDescriptor, new: &EnumDescriptor, found: &mut Vec<String>) {
    for value in old.values() {
        let now = new.get_value(value.number()).map(|now| now.name().to_owned());
        if now.as_deref() != Some(value.name()) {
            let now = now.unwrap_or_else(|| "gone".into());
            found.push(format!("value {} = {} of {} is {now}", value.name(), value.number(), old.full_name()));
        }
    }
}

#[cfg(test)]
mod tests {
    use postroom_proto::v1::FILE_DESCRIPTOR_SET;
    use prost::Message as _;
    use prost_types::field_descriptor_proto::Type;
    use prost_types::{DescriptorProto, FileDescriptorSet};

    use super::*;

    fn broken_by(change: impl Fn(&mut FileDescriptorSet)) -> Vec<String> {
        let old = DescriptorPool::decode(FILE_DESCRIPTOR_SET).unwrap();
        let mut set = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap();
        change(&mut set);
        broken(&old, &DescriptorPool::from_file_descriptor_set(set).unwrap())
    }

    fn message<'a>(set: &'a mut FileDescriptorSet, name: &str) -> &'a mut DescriptorProto {
        set.file.iter_mut().flat_map(|it| &mut it.message_type).find(|it| it.name() == name).unwrap()
    }

    #[test]
    fn additions_break_nothing() {
        let broken = broken_by(|set| {
            let contact = message(set, "Contact");
            let mut field = contact.field[0].clone();
            (field.name, field.json_name, field.number) = (Some("brand_new".into()), None, Some(5000));
            contact.field.push(field);
        });
        assert_eq!(broken, Vec::<String>::new());
    }

    #[test]
    fn each_change_that_breaks_somebody_is_told() {
        let first = |set: &mut FileDescriptorSet, change: fn(&mut FieldDescriptorProto)| {
            change(&mut message(set, "Contact").field[0]);
        };
        let told = broken_by(|set| first(set, |field| field.name = Some("renamed".into())));
        assert!(told.len() == 1 && told[0].contains("Contact.") && told[0].contains("renamed"), "{told:?}");
        let told = broken_by(|set| first(set, |field| field.set_type(Type::Bytes)));
        assert!(told.len() == 1 && told[0].contains("TYPE_BYTES"), "{told:?}");
        let told = broken_by(|set| first(set, |field| field.number = Some(5000)));
        assert!(told.len() == 1 && told[0].ends_with("is gone, and its number is not reserved"), "{told:?}");
        let told = broken_by(|set| {
            let reason = set.file.iter_mut().flat_map(|it| &mut it.enum_type).find(|it| it.name() == "Reason");
            reason.unwrap().value[1].name = Some("REASON_OTHER".into());
        });
        assert!(told.len() == 1 && told[0].contains("REASON_OTHER"), "{told:?}");
        let told = broken_by(|set| {
            let service = set.file.iter_mut().flat_map(|it| &mut it.service).find(|it| it.name() == "ContactService");
            service.unwrap().method[0].server_streaming = Some(true);
        });
        assert_eq!(told, ["call postroom.v1.ContactService.AllocateContacts takes, gives or streams something else"]);
    }
}

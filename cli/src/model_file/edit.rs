//! Changing single keys of a definition, in the words of the model file: `priority=5`, `start=since:2026-01-31`.
//!
//! The definition is taken apart into its keys, changed and read again as if it stood in a file, so that every key of the
//! file can be set, under the same rules and with the same faults.

use std::path::Path;

use postroom_proto::reason::FieldFault;
use postroom_proto::v1;
use serde_json::{Map, Value, json};

use super::read::{convert, for_people};
use super::{File, write};
use crate::Environment;
use crate::error::{Error, Kind};

/// What is to be changed of one definition.
#[derive(Debug, Default)]
pub(crate) struct Edit<'a> {
    /// `KEY=VALUE`.
    pub(crate) pairs: &'a [String],
    /// Keys that go back to their defaults.
    pub(crate) unset: &'a [String],
    /// The keys are those of this address of the queue, which is added if it is new.
    pub(crate) address: Option<&'a str>,
    /// Addresses of the queue that go.
    pub(crate) remove_addresses: &'a [String],
}

/// Keys that hold a number, and those that hold a truth.
const NUMBERS: &[&str] = &["priority", "maxMessageBytes", "imap.port"];
const TRUTHS: &[&str] = &["enabled", "sender"];
/// Keys that hold a secret.
const SECRETS: &[&str] = &["secret", "password"];

/// The model with nothing but the changed definition. `section` is its key in the file; `model` holds just the
/// definition as it is, or for a new one with nothing but its name.
pub(crate) fn edit(
    model: &v1::Model,
    section: &str,
    new: Option<&str>,
    edit: &Edit<'_>,
    environment: Environment<'_>,
) -> Result<v1::Model, Error> {
    let defect = |error: serde_json::Error| Error::new(Kind::Internal, format!("cannot take it apart: {error}"));
    let mut file = serde_json::to_value(write::file(model)).map_err(defect)?;
    let list = section != "system";
    if file.get(section).is_none() {
        let fresh = new.map_or_else(|| json!({}), |name| json!({ "name": name }));
        file[section] = if list { json!([fresh]) } else { fresh };
    }
    let definition = if list { &mut file[section][0] } else { &mut file[section] };
    let mut faults = Vec::new();
    for email in edit.remove_addresses {
        faults.extend(remove_address(definition, email).err());
    }
    match edit.address.map(|email| address(definition, email)) {
        None => set(definition, edit, &mut faults),
        Some(Ok(address)) => set(address, edit, &mut faults),
        Some(Err(fault)) => faults.push(fault),
    }
    if !faults.is_empty() {
        return Err(refused(faults));
    }
    let file: File = serde_path_to_error::deserialize(file).map_err(|error| {
        let description = for_people(&error.inner().to_string());
        refused(vec![below(section, FieldFault { field: error.path().to_string(), description })])
    })?;
    convert(file, Path::new("."), environment).map_err(|error| {
        let faults = error.faults.into_iter().map(|fault| below(section, fault)).collect();
        Error { faults, ..error }.help("correct it; nothing was changed")
    })
}

/// The fault without the place of the definition, of which there is one.
pub(crate) fn below(section: &str, fault: FieldFault) -> FieldFault {
    let list = format!("{section}[0].");
    let field = fault.field.strip_prefix(&list).or_else(|| fault.field.strip_prefix(section)?.strip_prefix('.'));
    FieldFault { field: field.unwrap_or(&fault.field).to_owned(), ..fault }
}

fn refused(faults: Vec<FieldFault>) -> Error {
    let message = match faults.len() {
        1 => "1 key is at fault".to_owned(),
        count => format!("{count} keys are at fault"),
    };
    Error::new(Kind::Invalid, message).faults(faults).help("correct it; nothing was changed")
}

fn fault(field: &str, description: impl Into<String>) -> FieldFault {
    FieldFault { field: field.into(), description: description.into() }
}

fn set(definition: &mut Value, edit: &Edit<'_>, faults: &mut Vec<FieldFault>) {
    for key in edit.unset {
        let cleared = SECRETS.contains(&key.as_str()).then(|| json!({ "clear": true }));
        put(definition, key, cleared);
    }
    for pair in edit.pairs {
        // Without what was written: it may be a secret in the wrong place.
        let Some((key, text)) = pair.split_once('=') else {
            faults.push(fault("KEY=VALUE", "a word without = is neither; write for example priority=5"));
            continue;
        };
        match value(key, text) {
            Ok(value) => put(definition, key, value),
            Err(description) => faults.push(fault(key, description)),
        }
    }
}

/// `None`: the default.
fn value(key: &str, text: &str) -> Result<Option<Value>, String> {
    if SECRETS.contains(&key) {
        return match text.split_once(':') {
            Some(("env", name)) => Ok(Some(json!({ "env": name }))),
            Some(("file", path)) => Ok(Some(json!({ "file": path }))),
            _ => Err(format!(
                "is not taken from the command line, where others can see it; write {key}=env:NAME or {key}=file:PATH, \
                 or --unset {key} to remove it"
            )),
        };
    }
    if text.is_empty() {
        return Ok(None);
    }
    if NUMBERS.contains(&key) {
        let number: u64 = text.parse().map_err(|_| format!("{text:?} is not a whole number from 1 up"))?;
        return Ok(Some(json!(number)));
    }
    if TRUTHS.contains(&key) {
        let truth: bool = text.parse().map_err(|_| format!("{text:?} is neither true nor false"))?;
        return Ok(Some(json!(truth)));
    }
    if key == "start"
        && let Some(since) = text.strip_prefix("since:")
    {
        return Ok(Some(json!({ "since": since.trim() })));
    }
    if matches!(key, "addresses" | "imap") {
        return Err("is no single value; set what is in it, for example imap.port=993, or use --address".into());
    }
    Ok(Some(json!(text)))
}

fn put(definition: &mut Value, key: &str, value: Option<Value>) {
    let (object, key) = match key.split_once('.') {
        Some((outer, inner)) => {
            if !definition[outer].is_object() {
                definition[outer] = Value::Object(Map::new());
            }
            (&mut definition[outer], inner)
        }
        None => (definition, key),
    };
    match (value, object.as_object_mut()) {
        (Some(value), _) => object[key] = value,
        (None, Some(object)) => drop(object.remove(key)),
        (None, None) => {}
    }
}

fn is(address: &Value, email: &str) -> bool {
    address["email"].as_str().is_some_and(|it| it.to_lowercase() == email.to_lowercase())
}

fn address<'a>(queue: &'a mut Value, email: &str) -> Result<&'a mut Value, FieldFault> {
    if !queue["addresses"].is_array() {
        queue["addresses"] = json!([]);
    }
    let Some(addresses) = queue["addresses"].as_array_mut() else { return Err(fault("addresses", "are no list")) };
    if addresses.iter().filter(|it| is(it, email)).count() > 1 {
        let description = format!("{email} is read in several folders; use a model file to say which is meant");
        return Err(fault("--address", description));
    }
    let at = addresses.iter().position(|it| is(it, email)).unwrap_or_else(|| {
        addresses.push(json!({ "email": email }));
        addresses.len() - 1
    });
    Ok(&mut addresses[at])
}

fn remove_address(queue: &mut Value, email: &str) -> Result<(), FieldFault> {
    let missing = || fault("--remove-address", format!("{email} is no address of this queue"));
    let addresses = queue["addresses"].as_array_mut().ok_or_else(missing)?;
    let before = addresses.len();
    addresses.retain(|it| !is(it, email));
    if addresses.len() == before { Err(missing()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model() -> v1::Model {
        let text = "queues:\n  - name: Billing\n    instance: core1\n    language: fi\n    priority: 10\n    addresses:\n      - {email: a@b.example, server: s, priority: 3}\n      - {email: two@b.example, server: s}\n      - {email: two@b.example, server: s, folder: Other}\n";
        super::super::read(text, Path::new("."), &|_| None).unwrap()
    }

    fn words(text: &[&str]) -> Vec<String> {
        text.iter().map(ToString::to_string).collect()
    }

    fn edited(pairs: &[&str], unset: &[&str], address: Option<&str>, gone: &[&str]) -> Result<v1::Queue, Error> {
        let (pairs, unset, gone) = (words(pairs), words(unset), words(gone));
        let wanted = Edit { pairs: &pairs, unset: &unset, address, remove_addresses: &gone };
        let environment = |name: &str| (name == "SECRET").then(|| "planted".into());
        edit(&model(), "queues", None, &wanted, &environment).map(|mut model| model.queues.remove(0))
    }

    #[test]
    fn keys_are_set_and_unset_and_the_others_stay() {
        let queue = edited(
            &["priority=5", "start=since:2026-01-31", "afterIntake=move:Done", "backlogGuard=20"],
            &["language"],
            None,
            &[],
        );
        let queue = queue.unwrap();
        assert_eq!((queue.priority, queue.language.as_str(), queue.instance.as_str()), (5, "", "core1"));
        assert_eq!(queue.start.unwrap().since_time.unwrap().seconds, 1_769_817_600);
        assert_eq!(queue.after_intake.as_ref().unwrap().folder, "Done");
        assert_eq!(queue.backlog_guard, Some(v1::BacklogGuard { message_count: 20, off: false }));
        assert_eq!(queue.addresses, model().queues[0].addresses);
        assert_eq!(edited(&["priority="], &[], None, &[]).unwrap().priority, 0, "nothing is the default");
    }

    #[test]
    fn addresses_are_changed_added_and_removed() {
        let queue = edited(&["priority=7", "sender=true"], &[], Some("A@b.example"), &["two@b.example"]).unwrap();
        assert_eq!(queue.addresses.len(), 1);
        assert_eq!((queue.addresses[0].priority, queue.addresses[0].sender), (7, true));
        let queue = edited(&["server=s", "password=env:SECRET"], &[], Some("new@b.example"), &[]).unwrap();
        let added = &queue.addresses[3];
        assert_eq!((added.email.as_str(), added.server.as_str()), ("new@b.example", "s"));
        assert_eq!(added.password.as_ref().unwrap().value, "planted");
        let cleared = edited(&[], &["password"], Some("a@b.example"), &[]).unwrap();
        assert!(cleared.addresses[0].password.as_ref().unwrap().clear);
    }

    #[test]
    fn what_cannot_be_set_is_told_without_secrets() {
        let refused = |pairs: &[&str], address, gone: &[&str]| edited(pairs, &[], address, gone).unwrap_err().render();
        insta::assert_snapshot!(refused(&["priority=high", "start", "addresses=x"], None, &["c@b.example"]), @r#"
        error: 4 keys are at fault
          --remove-address: c@b.example is no address of this queue
          priority: "high" is not a whole number from 1 up
          KEY=VALUE: a word without = is neither; write for example priority=5
          addresses: is no single value; set what is in it, for example imap.port=993, or use --address
        help: correct it; nothing was changed
        "#);
        let says = |shown: String, parts: &[&str]| {
            assert!(parts.iter().all(|part| shown.contains(part)), "{shown}");
            assert!(!shown.contains("queues[0]"), "{shown}");
        };
        says(refused(&["colour=red"], None, &[]), &["\n  colour: unknown field `colour`, expected one of `name`"]);
        let twice = refused(&["start=never", "priority=0"], None, &[]);
        says(twice, &["\n  start: \"never\" is not known", "\n  priority: must be 1 or more"]);
        says(
            refused(&["sender=true"], Some("two@b.example"), &[]),
            &["--address: two@b.example is read in several folders"],
        );
        says(refused(&["sender=yes"], Some("a@b.example"), &[]), &["\n  sender: \"yes\" is neither true nor false"]);
        let shown = refused(&["password=planted"], Some("a@b.example"), &[]);
        assert!(!shown.contains("planted") && shown.contains("password=env:NAME"), "{shown}");
    }

    #[test]
    fn a_new_definition_begins_with_its_name() {
        let pairs = words(&["authentication=password", "imap.host=mail.example", "imap.port=143"]);
        let wanted = Edit { pairs: &pairs, ..Edit::default() };
        let model = edit(&v1::Model::default(), "incomingServers", Some("own"), &wanted, &|_| None).unwrap();
        let server = &model.incoming_servers[0];
        assert_eq!((server.name.as_str(), server.imap_host.as_str(), server.imap_port), ("own", "mail.example", 143));
        let pairs = words(&["language=de"]);
        let system = edit(&v1::Model::default(), "system", None, &Edit { pairs: &pairs, ..Edit::default() }, &|_| None);
        assert_eq!(system.unwrap().system.unwrap().language, "de");
    }
}

//! The protos change compatibly: whoever speaks those of an earlier version is understood, and understands.
//!
//! `kept/VERSION/` holds what a version spoke: its descriptors, and an encoded example of every message with its JSON.
//! `POSTROOM_KEEP=1 cargo test --workspace --test compatible` writes what the present version speaks; it is run when a
//! version is released, and before that for messages that were never in a release and have changed all the same.

#![allow(clippy::unwrap_used, reason = "a test panics where its setup fails")]

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use postroom_proto::v1::FILE_DESCRIPTOR_SET;
use postroom_proto::version::VERSION;
use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage};
use prost_types::FileDescriptorSet;
use serde::{Deserialize, Serialize};

mod example;
mod rules;

/// A message as a version spoke it.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    /// What was on the wire, in hexadecimal.
    wire: String,
    /// What it means.
    json: serde_json::Value,
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/compatible/kept")
}

fn present() -> DescriptorPool {
    DescriptorPool::decode(FILE_DESCRIPTOR_SET).unwrap()
}

/// The versions of which something is kept.
fn versions() -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.sort();
    assert!(!found.is_empty(), "nothing is kept");
    found
}

/// Examples of every message, by its name and the number of the example.
fn examples(pool: &DescriptorPool) -> BTreeMap<String, Kept> {
    let messages = pool.all_messages().filter(|it| it.package_name() == "postroom.v1" && !it.is_map_entry());
    let of_message = |message: prost_reflect::MessageDescriptor| {
        let all = example::of(&message);
        all.into_iter().enumerate().map(move |(at, example)| {
            let wire = data_encoding::HEXLOWER.encode(&example.encode_to_vec());
            (format!("{}/{at}", message.full_name()), Kept { wire, json: serde_json::to_value(&example).unwrap() })
        })
    };
    messages.flat_map(of_message).collect()
}

#[test]
fn the_present_version_is_kept_when_asked() {
    if std::env::var_os("POSTROOM_KEEP").is_none() {
        return;
    }
    let folder = folder().join(VERSION);
    fs::create_dir_all(&folder).unwrap();
    let mut set = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap();
    for file in &mut set.file {
        // Comments and lines are nobody's contract.
        file.source_code_info = None;
    }
    fs::write(folder.join("descriptors.bin"), set.encode_to_vec()).unwrap();
    let text = serde_json::to_string_pretty(&examples(&present())).unwrap();
    fs::write(folder.join("messages.json"), text + "\n").unwrap();
}

#[test]
fn nothing_that_a_version_spoke_was_changed_or_removed() {
    for version in versions() {
        let kept = fs::read(version.join("descriptors.bin")).unwrap();
        let broken = rules::broken(&DescriptorPool::decode(kept.as_slice()).unwrap(), &present());
        assert!(broken.is_empty(), "since {}:\n{}", version.display(), broken.join("\n"));
    }
}

#[test]
fn what_a_version_wrote_is_read_as_it_was_meant() {
    let pool = present();
    for version in versions() {
        let text = fs::read_to_string(version.join("messages.json")).unwrap();
        let kept: BTreeMap<String, Kept> = serde_json::from_str(&text).unwrap();
        assert!(kept.len() > 100, "{} examples", kept.len());
        for (name, kept) in kept {
            let message = pool.get_message_by_name(name.split('/').next().unwrap());
            let message = message.unwrap_or_else(|| panic!("{name} is gone"));
            let wire = data_encoding::HEXLOWER.decode(kept.wire.as_bytes()).unwrap();
            let read = DynamicMessage::decode(message, wire.as_slice()).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert_eq!(read.unknown_fields().count(), 0, "{name} has fields that nobody knows any more");
            assert_eq!(serde_json::to_value(&read).unwrap(), kept.json, "{name}");
        }
    }
}

/// An older reader passes over what it does not know.
#[test]
fn what_the_present_version_writes_is_read_by_a_version_that_is_kept() {
    let written = examples(&present());
    for version in versions() {
        let pool = DescriptorPool::decode(fs::read(version.join("descriptors.bin")).unwrap().as_slice()).unwrap();
        for (name, present) in &written {
            let Some(message) = pool.get_message_by_name(name.split('/').next().unwrap()) else { continue };
            let wire = data_encoding::HEXLOWER.decode(present.wire.as_bytes()).unwrap();
            DynamicMessage::decode(message, wire.as_slice()).unwrap_or_else(|e| panic!("{name}: {e}"));
        }
    }
}

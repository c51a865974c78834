//! Messages written after the RFCs, and what is made of each.

use std::fmt::Write as _;
use std::path::PathBuf;

use postroom_proto::v1::EmailAddress;
use postroom_worker::contact::classify::classify;
use postroom_worker::contact::parse::{is_placeholder, parse};

use crate::checked;

/// All messages with their names, in the order of the names.
pub(crate) fn corpus() -> Vec<(String, Vec<u8>)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let eml = files.filter(|path| path.extension().is_some_and(|end| end == "eml"));
    let mut all: Vec<(String, Vec<u8>)> = eml
        .map(|path| (path.file_stem().unwrap().to_str().unwrap().to_owned(), std::fs::read(&path).unwrap()))
        .collect();
    all.sort();
    assert!(all.len() > 50, "the corpus is there");
    all
}

fn addresses(list: &[EmailAddress]) -> String {
    list.iter().map(|one| format!("{:?} <{}>", one.name, one.address)).collect::<Vec<_>>().join(", ")
}

fn described(raw: &[u8]) -> String {
    let content = checked(raw);
    let mut out = format!("kind: {:?}\n", classify(&parse(raw).signs));
    for (name, list) in
        [("from", &content.from), ("to", &content.to), ("cc", &content.cc), ("reply to", &content.reply_to)]
    {
        if !list.is_empty() {
            writeln!(out, "{name}: {}", addresses(list)).unwrap();
        }
    }
    writeln!(out, "subject: {:?}", content.subject).unwrap();
    writeln!(out, "id: {:?}", content.message_id).unwrap();
    for (name, ids) in [("in reply to", &content.in_reply_to), ("references", &content.references)] {
        if !ids.is_empty() {
            writeln!(out, "{name}: {ids:?}").unwrap();
        }
    }
    writeln!(out, "date: {:?}", content.date_time.map(|date| date.seconds)).unwrap();
    for one in &content.attachments {
        writeln!(
            out,
            "attachment: {:?} {} {} bytes, id {:?}, {:?} at {}+{}",
            one.name,
            one.media_type,
            one.size_bytes,
            one.content_id,
            one.encoding(),
            one.raw_offset,
            one.raw_bytes
        )
        .unwrap();
    }
    if !content.truncated.is_empty() {
        writeln!(out, "truncated: {:?}", content.truncated).unwrap();
    }
    for (name, text) in [("text", &content.text), ("html", &content.html)] {
        if !text.is_empty() {
            writeln!(out, "{name}:").unwrap();
            for line in text.split_inclusive('\n') {
                writeln!(out, "    {line:?}").unwrap();
            }
        }
    }
    out
}

#[test]
fn each_message_of_the_corpus_becomes_what_its_snapshot_says() {
    for (name, raw) in corpus() {
        insta::with_settings!({ prepend_module_to_snapshot => false, omit_expression => true }, {
            insta::assert_snapshot!(name, described(&raw));
        });
    }
}

#[test]
fn only_the_placeholder_is_one() {
    for (name, raw) in corpus() {
        assert_eq!(is_placeholder(&parse(&raw).content), name == "exchange-placeholder", "{name}");
    }
}

#[test]
fn a_message_reads_the_same_with_bare_line_feeds() {
    for (name, raw) in corpus() {
        if ["bare-carriage-returns", "random-bytes"].contains(&name.as_str()) {
            continue;
        }
        let bare: Vec<u8> = raw.iter().copied().filter(|byte| *byte != b'\r').collect();
        let (with, without) = (checked(&raw), checked(&bare));
        assert_eq!(with.text.replace("\r\n", "\n"), without.text, "{name}");
        assert_eq!((with.from, with.subject, with.references), (without.from, without.subject, without.references));
        assert_eq!(with.attachments.len(), without.attachments.len(), "{name}");
    }
}

//! `apply` and `export`.

use postroom_proto::reason::Failure;
use postroom_proto::v1;
use postroom_proto::v1::change::Kind;

use super::Session;
use crate::args::{Apply, Output};
use crate::client;
use crate::error::Error;
use crate::model_file;
use crate::render::{json, text};

pub(super) async fn apply(session: &mut Session<'_, '_>, args: &Apply) -> Result<(), Error> {
    // Ordering: the file first, so that its faults are told even when no control plane can be reached.
    let document = model_file::read_document(&args.file, session.environment)?;
    let applied = session.client()?.apply_model(document.model).await;
    let answer = applied.map_err(|error| placed(error, &document.lines))?;
    session.show(&answer, |answer| format!("{}revision {}\n", changes(&answer.changes), answer.revision))
}

pub(super) async fn export(session: &mut Session<'_, '_>) -> Result<(), Error> {
    let model = session.client()?.export_model().await?.model.unwrap_or_default();
    let exported = match session.output {
        // The model file is YAML already, and what `apply -f` takes.
        Output::Table | Output::Yaml => model_file::write(&model)?,
        Output::Json => json::message(&model)?,
    };
    session.write(exported.as_bytes())
}

/// Faults of the control plane's with their lines in the file.
fn placed(error: client::Error, lines: &model_file::Lines) -> Error {
    match error {
        client::Error::Answered { failure } if !failure.fields.is_empty() => {
            let fields = failure.fields.into_iter().map(|fault| lines.place(fault)).collect();
            client::Error::Answered { failure: Failure::invalid(fields) }.into()
        }
        other => other.into(),
    }
}

/// Every change with its fields, old and new.
pub(super) fn changes(changes: &[v1::Change]) -> String {
    let mut shown = String::new();
    for change in changes {
        let verb = match change.kind() {
            Kind::Create => "create",
            Kind::Update => "update",
            Kind::Delete => "remove",
            Kind::Unspecified => "change",
        };
        let name = if change.noun == "system" { String::new() } else { format!(" {}", text::line(&change.name)) };
        shown += &format!("{verb} {}{name}\n", text::line(&change.noun));
        for field in &change.fields {
            shown += &format!("  {}: {}\n", text::line(&field.field), values(change.kind(), field));
        }
    }
    if changes.is_empty() {
        shown += "nothing to change\n";
    }
    shown
}

fn values(kind: Kind, field: &v1::FieldChange) -> String {
    let (old, new) = (text::line(&field.old_value), text::line(&field.new_value));
    match (field.secret, old.is_empty(), new.is_empty()) {
        (true, false, false) => "changed".into(),
        (true, _, true) => "removed".into(),
        (_, true, false) if kind == Kind::Create || field.secret => new,
        (_, true, _) => format!("(not set) → {new}"),
        (_, false, true) => format!("{old} → (not set)"),
        (_, false, false) => format!("{old} → {new}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_tells_each_change() {
        let change = |kind: Kind, noun: &str, name: &str, fields: &[(&str, &str, &str)]| v1::Change {
            kind: kind.into(),
            noun: noun.into(),
            name: name.into(),
            fields: fields
                .iter()
                .map(|(field, old, new)| v1::FieldChange {
                    field: (*field).into(),
                    old_value: (*old).into(),
                    new_value: (*new).into(),
                    secret: field.ends_with("password"),
                })
                .collect(),
        };
        let all = [
            change(Kind::Update, "system", "system", &[("language", "", "de")]),
            change(Kind::Create, "instance", "core1", &[("pool", "", "default")]),
            change(
                Kind::Update,
                "queue",
                "Büro \u{1b}[2J",
                &[
                    ("priority", "10", "5"),
                    ("language", "fi", ""),
                    ("addresses[x@y.example].password", "set", "set"),
                    ("addresses[z@y.example].password", "", "set"),
                    ("addresses[v@y.example].password", "set", ""),
                ],
            ),
            change(Kind::Delete, "queue", "old", &[]),
        ];
        insta::assert_snapshot!(changes(&all), @r"
        update system
          language: (not set) → de
        create instance core1
          pool: default
        update queue Büro �[2J
          priority: 10 → 5
          language: fi → (not set)
          addresses[x@y.example].password: changed
          addresses[z@y.example].password: set
          addresses[v@y.example].password: removed
        remove queue old
        ");
        assert_eq!(changes(&[]), "nothing to change\n");
    }
}

//! `apply` and `export`.

use postroom_proto::v1;
use postroom_proto::v1::change::Kind;

use super::Session;
use crate::args::{Apply, Output};
use crate::error::Error;
use crate::model_file;
use crate::render::{json, text};

pub(super) async fn apply(session: &mut Session<'_, '_>, args: &Apply) -> Result<(), Error> {
    // Ordering: the file first, so that its faults are told even when no control plane can be reached.
    let model = model_file::read_file(&args.file, session.environment)?;
    let answer = session.client()?.apply_model(model).await?;
    session.show(&answer, changes)
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

fn changes(answer: &v1::ApplyModelResponse) -> String {
    let mut shown = String::new();
    for change in &answer.changes {
        let verb = match change.kind() {
            Kind::Create => "created",
            Kind::Update => "updated",
            Kind::Unspecified => "changed",
        };
        shown += &format!("{verb} {} {}", text::line(&change.noun), text::line(&change.name));
        if !change.fields.is_empty() {
            shown += &format!(": {}", text::line(&change.fields.join(", ")));
        }
        shown.push('\n');
    }
    if answer.changes.is_empty() {
        shown += "nothing to change\n";
    }
    shown + &format!("revision {}\n", answer.revision)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_apply_tells_each_change() {
        let change = |kind: Kind, noun: &str, name: &str, fields: &[&str]| v1::Change {
            kind: kind.into(),
            noun: noun.into(),
            name: name.into(),
            fields: fields.iter().map(ToString::to_string).collect(),
        };
        let answer = v1::ApplyModelResponse {
            revision: 8,
            changes: vec![
                change(Kind::Create, "instance", "core1", &[]),
                change(Kind::Update, "queue", "Büro \u{1b}[2J", &["priority", "addresses[x@y.example].password"]),
            ],
        };
        insta::assert_snapshot!(changes(&answer), @r"
        created instance core1
        updated queue Büro �[2J: priority, addresses[x@y.example].password
        revision 8
        ");
        let answer = v1::ApplyModelResponse { revision: 8, changes: vec![] };
        insta::assert_snapshot!(changes(&answer), @r"
        nothing to change
        revision 8
        ");
    }
}

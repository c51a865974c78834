//! `apply`, `export`, `diff`, `history` and `rollback`.

use postroom_proto::reason::{Failure, FieldFault};
use postroom_proto::v1;
use postroom_proto::v1::change::Kind;

use super::Session;
use crate::args::{Apply, Diff, History, Output, Rollback};
use crate::client;
use crate::error::Error;
use crate::model_file;
use crate::render::{json, table, text, time};

pub(super) async fn apply(session: &mut Session<'_, '_>, args: &Apply) -> Result<(), Error> {
    // Ordering: the file first, so that its faults are told even when no control plane can be reached.
    let document = model_file::read_document(&args.file, session.environment)?;
    let request = v1::ApplyModelRequest { model: Some(document.model), prune: args.prune, ..Default::default() };
    let lines = document.lines;
    commit(session, request, args.dry_run, |fault| lines.place(fault)).await
}

pub(super) async fn diff(session: &mut Session<'_, '_>, args: &Diff) -> Result<(), Error> {
    if let Some(file) = &args.file {
        let document = model_file::read_document(file, session.environment)?;
        let request = v1::ApplyModelRequest {
            model: Some(document.model),
            prune: args.prune,
            validate_only: true,
            ..Default::default()
        };
        let planned = session.client()?.change_model(request).await;
        let planned = planned.map_err(|error| placed(error, |fault| document.lines.place(fault)))?;
        return session.show(&planned, |planned| changes(&planned.changes));
    }
    let (old, new) = (args.revisions.first().copied(), args.revisions.get(1).copied());
    let compared = session.client()?.compare_revisions(old.unwrap_or_default(), new.unwrap_or_default()).await?;
    session.show(&compared, |compared| match compared.changes.is_empty() {
        true => "nothing differs\n".into(),
        false => changes(&compared.changes),
    })
}

pub(super) async fn history(session: &mut Session<'_, '_>, args: &History) -> Result<(), Error> {
    let listed = session.client()?.list_revisions(args.limit).await?;
    session.show(&listed, |listed| revisions(&listed.revisions))?;
    if !listed.next_page_token.is_empty() {
        session.note("there are older revisions: name a higher --limit");
    }
    Ok(())
}

pub(super) async fn rollback(session: &mut Session<'_, '_>, args: &Rollback) -> Result<(), Error> {
    let client = session.client()?;
    let mut request = v1::RollbackModelRequest { revision: args.revision, validate_only: true, ..Default::default() };
    let planned = client.roll_back(request.clone()).await?;
    if !announce(session, &planned, args.dry_run)? {
        return Ok(());
    }
    request.validate_only = false;
    request.etag = planned.revision.to_string();
    request.request_id = uuid::Uuid::new_v4().to_string();
    let done = client.roll_back(request).await?;
    finish(session, &done)
}

/// Plans, shows and commits. What moved between plan and commit is refused, and told.
pub(super) async fn commit(
    session: &mut Session<'_, '_>,
    mut request: v1::ApplyModelRequest,
    dry_run: bool,
    place: impl Fn(FieldFault) -> FieldFault,
) -> Result<(), Error> {
    let client = session.client()?;
    request.validate_only = true;
    let planned = client.change_model(request.clone()).await.map_err(|error| placed(error, &place))?;
    if !announce(session, &planned, dry_run)? {
        return Ok(());
    }
    request.validate_only = false;
    request.etag = planned.revision.to_string();
    request.request_id = uuid::Uuid::new_v4().to_string();
    let done = client.change_model(request).await.map_err(|error| placed(error, &place))?;
    finish(session, &done)
}

/// Shows a plan. False: there is nothing to commit.
fn announce(session: &mut Session<'_, '_>, planned: &v1::ApplyModelResponse, dry_run: bool) -> Result<bool, Error> {
    let ends = dry_run || planned.changes.is_empty();
    match session.output {
        Output::Table => {
            let mut shown = changes(&planned.changes);
            if ends && !dry_run {
                shown += &format!("revision {}\n", planned.revision);
            }
            session.write(shown.as_bytes())?;
        }
        // For programs there is one answer.
        Output::Json | Output::Yaml if ends => session.show(planned, |_| String::new())?,
        Output::Json | Output::Yaml => {}
    }
    planned.notes.iter().for_each(|note| session.note(&format!("note: {note}")));
    if dry_run {
        session.note("dry run: nothing was changed");
    }
    Ok(!ends)
}

fn finish(session: &mut Session<'_, '_>, done: &v1::ApplyModelResponse) -> Result<(), Error> {
    session.show(done, |done| format!("revision {}\n", done.revision))
}

fn revisions(revisions: &[v1::Revision]) -> String {
    let row = |it: &v1::Revision| {
        let mut changed: Vec<String> = it.changes.iter().take(NAMED).map(brief).collect();
        if it.changes.len() > NAMED {
            changed.push(format!("{} more", it.changes.len() - NAMED));
        }
        let mut changed = changed.join("; ");
        if it.rollback_of > 0 {
            changed = format!("rollback to {}: {changed}", it.rollback_of);
        }
        [it.revision.to_string(), time::time(it.create_time.as_ref()), it.author.clone(), changed]
    };
    table::rows(["REVISION", "TIME", "AUTHOR", "CHANGED"], revisions.iter().map(row))
}

/// Most changes of a revision that its line names.
const NAMED: usize = 4;

fn brief(change: &v1::Change) -> String {
    let verb = verb(change.kind());
    let name = if change.noun == "system" { String::new() } else { format!(" {}", change.name) };
    let fields: Vec<&str> = change.fields.iter().map(|it| it.field.as_str()).collect();
    match change.kind() {
        Kind::Update => format!("{verb} {}{name} ({})", change.noun, fields.join(", ")),
        _ => format!("{verb} {}{name}", change.noun),
    }
}

fn verb(kind: Kind) -> &'static str {
    match kind {
        Kind::Create => "create",
        Kind::Update => "update",
        Kind::Delete => "remove",
        Kind::Unspecified => "change",
    }
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

/// Faults of the control plane's, each with its place in what the operator wrote.
pub(super) fn placed(error: client::Error, place: impl Fn(FieldFault) -> FieldFault) -> Error {
    match error {
        client::Error::Answered { failure } if !failure.fields.is_empty() => {
            let fields = failure.fields.into_iter().map(place).collect();
            client::Error::Answered { failure: Failure::invalid(fields) }.into()
        }
        other => other.into(),
    }
}

/// Every change with its fields, old and new.
pub(super) fn changes(changes: &[v1::Change]) -> String {
    let mut shown = String::new();
    for change in changes {
        let verb = verb(change.kind());
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

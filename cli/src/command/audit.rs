//! `audit`.

use jiff::Timestamp;
use postroom_proto::{convert, v1};
use serde_json::Value;

use super::Session;
use crate::args::{Audit, ListAudit};
use crate::error::Error;
use crate::render::{table, time, words};

/// Most characters of what changed, in the table.
const SHOWN: usize = 120;

pub(super) async fn run(session: &mut Session<'_, '_>, verb: Audit) -> Result<(), Error> {
    let Audit::List(args) = verb;
    list(session, args).await
}

async fn list(session: &mut Session<'_, '_>, args: ListAudit) -> Result<(), Error> {
    let when = |time: Timestamp| convert::to_timestamp(time.as_microsecond());
    let request = v1::ListAuditRequest {
        who: args.who.unwrap_or_default(),
        rpc: args.rpc.unwrap_or_default(),
        subject: args.subject.unwrap_or_default(),
        since_time: args.since.map(when),
        until_time: args.until.map(when),
        refused: args.refused,
        ..Default::default()
    };
    let limit = args.limit.get();
    let progress = session.progress("reading the audit");
    let client = session.client()?.with_progress(&progress);
    let mut all = progress.during(client.list_audit(request, limit)).await?;
    let more = !std::mem::take(&mut all.next_page_token).is_empty();
    session.show(&all, |all| listed(&all.entries))?;
    if more {
        session.note(&format!("there are more than these {limit} entries; --limit N lists more"));
    }
    Ok(())
}

fn listed(entries: &[v1::AuditEntry]) -> String {
    let header = ["TIME", "WHO", "ROLE", "FROM", "CALL", "SUBJECT", "OUTCOME", "WHAT"];
    table::rows(header, entries.iter().map(row))
}

fn row(entry: &v1::AuditEntry) -> [String; 8] {
    let call = entry.rpc.rsplit('/').next().unwrap_or_default().to_owned();
    let mut outcome = words::audit_outcome(entry.outcome);
    if !entry.reason.is_empty() {
        outcome += &format!(" ({})", entry.reason);
    }
    if entry.count > 1 {
        outcome += &format!(" {} times", entry.count);
    }
    [
        time::time(entry.time.as_ref()),
        entry.who.clone(),
        entry.role.clone(),
        entry.address.clone(),
        call,
        entry.subject.clone(),
        outcome,
        what(entry),
    ]
}

/// In one line what was asked for or what changed; the other forms have all of it.
fn what(entry: &v1::AuditEntry) -> String {
    let read = |text: &str| serde_json::from_str::<Value>(text).unwrap_or_default();
    let changes = read(&entry.changes);
    let mut told: Vec<String> = Vec::new();
    if let Some(revision) = changes.get("revision") {
        told.push(format!("revision {revision}"));
    }
    for change in changes.get("changes").and_then(Value::as_array).into_iter().flatten() {
        let text = |name: &str| change.get(name).and_then(Value::as_str).unwrap_or_default();
        told.push(format!("{} {} {:?}", text("kind"), text("noun"), text("name")));
    }
    if told.is_empty() {
        let detail = read(&entry.detail);
        let fields = detail.as_object().into_iter().flatten();
        told.extend(fields.map(|(name, value)| format!("{name}: {value}")));
    }
    if told.is_empty() {
        told.push(entry.message.clone());
    }
    let told = told.join(", ");
    match told.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &told[..end]),
        None => told,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_says_what_changed_or_what_was_asked_for() {
        let entry = v1::AuditEntry {
            rpc: "postroom.v1.DefinitionService/ApplyModel".into(),
            outcome: v1::AuditOutcome::Done.into(),
            changes: r#"{"revision":7,"changes":[{"kind":"update","noun":"queue","name":"Billing","fields":[]}]}"#
                .into(),
            detail: r#"{"prune":true}"#.into(),
            count: 1,
            ..Default::default()
        };
        assert_eq!(what(&entry), "revision 7, update queue \"Billing\"");
        assert_eq!(row(&entry)[4], "ApplyModel");
        let asked = v1::AuditEntry { changes: String::new(), ..entry };
        assert_eq!(what(&asked), "prune: true");
        let refused = v1::AuditEntry {
            outcome: v1::AuditOutcome::Refused.into(),
            reason: "UNAUTHENTICATED".into(),
            count: 40,
            ..Default::default()
        };
        assert_eq!(row(&refused)[6], "refused (UNAUTHENTICATED) 40 times");
        let broken = v1::AuditEntry { changes: "no JSON".into(), message: "why".into(), ..Default::default() };
        assert_eq!(what(&broken), "why");
    }
}

//! `mailbox reconcile`: the folder beside the ledger.

use postroom_proto::v1::{self, reconcile_mailbox_response::Told};

use super::Session;
use crate::error::{Error, Kind};
use crate::render::{table, text, time, words};

/// Shows findings as they come, and the summary. An error, with a code of its own, when the two sides differ.
pub(super) async fn run(session: &mut Session<'_, '_>, mailbox: String, all: bool) -> Result<(), Error> {
    let progress = session.progress("comparing");
    let client = session.client()?;
    let mut told = progress.during(client.reconcile_mailbox(mailbox.clone(), all)).await?;
    let mut verdict = None;
    while let Some(item) = progress.during(told.next()).await? {
        match &item.told {
            Some(Told::Progress(at)) => progress.at(at.folder_count + at.ledger_count, 0),
            Some(Told::Finding(_)) => session.show_item(&item, row)?,
            Some(Told::Summary(summary)) => {
                verdict = Some(summary.clone());
                session.show_item(&item, row)?;
            }
            None => {}
        }
    }
    let Some(summary) = verdict else {
        return Err(Error::new(Kind::Unavailable, "the comparison ended before its end").help("start it again"));
    };
    if summary.clean {
        return Ok(());
    }
    if summary.renumbered {
        let message = format!("the folder of {mailbox} is numbered anew (UIDVALIDITY): it cannot be compared");
        let help = format!(
            "its reader re-keys it as soon as it notices: see `postroom mailbox show {mailbox}`, and try again"
        );
        return Err(Error::new(Kind::NotWell, message).help(help));
    }
    let (missing, all) = (summary.missing_count, summary.folder_count);
    let message = format!("{missing} of {all} messages in the folder of {mailbox} are missing in the ledger");
    Err(Error::new(Kind::NotWell, message)
        .help("mark them as unread and move them out of the folder and back: they are read as new messages then"))
}

fn row(item: &v1::ReconcileMailboxResponse) -> String {
    match &item.told {
        Some(Told::Finding(finding)) => line(finding),
        Some(Told::Summary(summary)) => summed(summary),
        Some(Told::Progress(_)) | None => String::new(),
    }
}

/// One line a finding: it may be one of very many, so no table waits for the last.
fn line(finding: &v1::Finding) -> String {
    let kind = words::finding_kind(finding.kind);
    let received = time::time(finding.received_time.as_ref());
    let known = match finding.message.as_str() {
        "" => String::new(),
        id => format!("  message {id}, {}", words::disposition(finding.disposition)),
    };
    let size = if finding.size_bytes == 0 { "-".to_owned() } else { time::size(finding.size_bytes) };
    text::line(&format!("{kind:<19}  {:<22}  {received:<20}  {size}{known}", finding.source_key)) + "\n"
}

fn summed(summary: &v1::ReconcileSummary) -> String {
    let count = |count: u64| count.to_string();
    let verdict = if summary.clean { "clean" } else { "not clean" };
    table::pairs([
        ("verdict", verdict.to_owned()),
        ("in the folder", count(summary.folder_count)),
        ("in the ledger", count(summary.ledger_count)),
        ("in both", count(summary.both_count)),
        ("missing", count(summary.missing_count)),
        ("pending", count(summary.pending_count)),
        ("before start", count(summary.before_start_count)),
        ("unread before start", count(summary.unread_before_start_count)),
        ("moved", count(summary.moved_count)),
        ("gone", count(summary.gone_count)),
        ("gone unsettled", count(summary.gone_unsettled_count)),
        ("contacts", count(summary.contact_count)),
        ("quarantined", count(summary.quarantined_count)),
        ("too large", count(summary.too_large_count)),
        ("vanished", count(summary.vanished_count)),
        ("filtered", count(summary.filtered_count)),
        ("duplicates", count(summary.duplicate_count)),
    ])
}

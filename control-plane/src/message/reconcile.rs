//! Compares a mailbox's folder with the ledger, in both directions.
//!
//! The folder comes in parts from a worker; the messages of each part are looked up in the ledger. Then the ledger is
//! walked through for what was not in the folder. Memory does not grow with the folder's size but for one bit a message
//! of the ledger (`Rows`), and a slow reader holds up the worker that lists.
//!
//! Ordering: the cursor and the last row of the ledger are read before the folder is listed. What the cursor says is dealt
//! with stands in the ledger from that moment on, so a message that is then looked up in vain is missing; and a row that
//! comes later is not looked for in a list that was made before.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use futures::stream::{BoxStream, StreamExt as _};
use postroom_proto::convert::to_timestamp;
use postroom_proto::id::MailboxUid;
use postroom_proto::reason::{Failure, Reason};
use postroom_proto::v1::reconcile_mailbox_response::Told;
use postroom_proto::v1::report_errand_request::Found;
use postroom_proto::v1::{
    self, Disposition, Finding, FindingKind, FolderMessage, FolderPart, ReconcileProgress, ReconcileSummary,
    errand::Task,
};
use tokio::sync::OwnedSemaphorePermit;

use super::Messages;
use crate::definition;
use crate::errand::Asked;
use crate::ledger::SharedLedger;
use crate::ledger::message::Standing;

/// How long the listing of a folder may take.
const LISTING: Duration = Duration::from_secs(3600);
/// Rows of the ledger looked at in one piece.
const PIECE: usize = 1000;

impl Messages {
    /// What is told of a mailbox, piece by piece; the summary comes last. `all`: also what is only counted otherwise.
    pub async fn reconcile(
        &self,
        uid: MailboxUid,
        all: bool,
    ) -> Result<BoxStream<'static, Result<Told, Failure>>, Failure> {
        let room = self.reconciliations.clone().try_acquire_owned().map_err(|_| {
            Failure::new(Reason::TooMany, "as many mailboxes as possible are being reconciled; try again later")
        })?;
        let model = self.model.borrow().clone();
        let definition = definition::resolve(&model, &self.vault, &uid)?;
        let place = model.mailbox(&uid);
        let moves = place.is_some_and(|place| place.queue.after_intake.takes_away());
        let cursor = self.ledger.cursor(&uid).await?;
        let (last, total) = self.ledger.extent(&uid).await?;
        let cursor = Some(v1::Cursor { protocol: cursor.protocol, value: cursor.value });
        let asked = self.errands.ask(definition, Task::List(v1::ListTask { cursor }), LISTING).await?;
        let run = Run {
            ledger: self.ledger.clone(),
            asked: Some(asked),
            comparison: Comparison::new(uid.as_str(), moves, all),
            uid,
            after: 0,
            last,
            total,
            told: VecDeque::new(),
            ended: false,
            _room: room,
        };
        let told = futures::stream::unfold(Some(run), |run| async {
            let mut run = run?;
            match run.next().await {
                Ok(Some(told)) => Some((Ok(told), Some(run))),
                Ok(None) => None,
                Err(failure) => Some((Err(failure), None)),
            }
        });
        Ok(told.boxed())
    }
}

/// One reconciliation under way.
struct Run {
    ledger: SharedLedger,
    uid: MailboxUid,
    /// The listing; gone once it has ended.
    asked: Option<Asked>,
    comparison: Comparison,
    /// The last row that was looked at.
    after: i64,
    last: i64,
    total: u64,
    told: VecDeque<Told>,
    ended: bool,
    _room: OwnedSemaphorePermit,
}

impl Run {
    async fn next(&mut self) -> Result<Option<Told>, Failure> {
        loop {
            if let Some(told) = self.told.pop_front() {
                return Ok(Some(told));
            }
            if self.ended {
                return Ok(None);
            }
            self.step().await?;
        }
    }

    async fn step(&mut self) -> Result<(), Failure> {
        if let Some(asked) = &mut self.asked {
            match asked.next().await? {
                Some(Found::Part(part)) => self.take(part).await?,
                Some(_) => {}
                None => self.asked = None,
            }
            return Ok(());
        }
        let rows = self.ledger.standing_after(&self.uid, self.after, self.last, PIECE).await?;
        match rows.last() {
            Some(last) => {
                self.after = last.id;
                let findings = rows.iter().filter_map(|row| self.comparison.row(row));
                self.told.extend(findings.map(Told::Finding));
                self.progress();
            }
            None => {
                self.ended = true;
                self.told.push_back(Told::Summary(self.comparison.summary.clone()));
            }
        }
        Ok(())
    }

    async fn take(&mut self, part: FolderPart) -> Result<(), Failure> {
        if part.renumbered {
            self.comparison.renumber();
        }
        let keys: Vec<String> = part.messages.iter().map(|message| message.source_key.clone()).collect();
        let known = self.ledger.standing_of(&self.uid, &keys).await?;
        let known: HashMap<&str, &Standing> = known.iter().map(|row| (row.source_key.as_str(), row)).collect();
        for message in &part.messages {
            let row = known.get(message.source_key.as_str()).copied();
            self.told.extend(self.comparison.message(message, row).map(Told::Finding));
        }
        self.progress();
        Ok(())
    }

    fn progress(&mut self) {
        let summary = &self.comparison.summary;
        self.told.push_back(Told::Progress(ReconcileProgress {
            folder_count: summary.folder_count,
            ledger_count: summary.ledger_count,
            ledger_total: self.total,
        }));
    }
}

/// Both sides, message by message. Pure.
#[derive(Debug)]
pub struct Comparison {
    /// Rows of the ledger that are in the folder.
    seen: Rows,
    /// What is counted so far.
    pub summary: ReconcileSummary,
    moves: bool,
    all: bool,
}

impl Comparison {
    /// Nothing compared yet. `moves`: messages are moved away, or deleted, after intake.
    pub fn new(mailbox: &str, moves: bool, all: bool) -> Self {
        let summary = ReconcileSummary { mailbox: mailbox.into(), clean: true, ..ReconcileSummary::default() };
        Self { seen: Rows::default(), summary, moves, all }
    }

    /// The folder is numbered anew: nothing of it can be compared.
    pub fn renumber(&mut self) {
        self.summary.renumbered = true;
        self.summary.clean = false;
    }

    /// A message of the folder, and its row where the ledger has one. What is to be told of it.
    pub fn message(&mut self, message: &FolderMessage, row: Option<&Standing>) -> Option<Finding> {
        let summary = &mut self.summary;
        summary.folder_count += 1;
        if let Some(row) = row {
            summary.both_count += 1;
            self.seen.insert(row.id);
            // It is there, under another key than it had.
            if let Some(original) = row.duplicate_of {
                self.seen.insert(original);
            }
            return None;
        }
        let (kind, count, told) = match (message.pending, message.before_start, message.unread_since) {
            (true, ..) => (FindingKind::Pending, &mut summary.pending_count, true),
            (_, true, true) => (FindingKind::UnreadBeforeStart, &mut summary.unread_before_start_count, true),
            (_, true, false) => (FindingKind::BeforeStart, &mut summary.before_start_count, self.all),
            (false, false, _) => (FindingKind::Missing, &mut summary.missing_count, true),
        };
        *count += 1;
        summary.clean &= kind != FindingKind::Missing;
        told.then(|| Finding {
            kind: kind.into(),
            source_key: message.source_key.clone(),
            received_time: message.received_time,
            size_bytes: message.size_bytes,
            ..Finding::default()
        })
    }

    /// A row of the ledger, after all messages of the folder. What is to be told of it.
    pub fn row(&mut self, row: &Standing) -> Option<Finding> {
        let summary = &mut self.summary;
        summary.ledger_count += 1;
        *match row.disposition {
            Disposition::Contact | Disposition::Unspecified => &mut summary.contact_count,
            Disposition::Quarantined => &mut summary.quarantined_count,
            Disposition::TooLarge => &mut summary.too_large_count,
            Disposition::Vanished => &mut summary.vanished_count,
            Disposition::Filtered => &mut summary.filtered_count,
            Disposition::Duplicate => &mut summary.duplicate_count,
        } += 1;
        // Of a folder that is numbered anew nothing was listed. And what became of a message is told of its first key.
        if summary.renumbered || row.disposition == Disposition::Duplicate || self.seen.contains(row.id) {
            return None;
        }
        let (kind, count, told) = match (row.disposition, row.settled) {
            (Disposition::Contact, true) if self.moves => (FindingKind::Moved, &mut summary.moved_count, self.all),
            (Disposition::Contact, false) => (FindingKind::GoneUnsettled, &mut summary.gone_unsettled_count, true),
            _ => (FindingKind::Gone, &mut summary.gone_count, true),
        };
        *count += 1;
        told.then(|| Finding {
            kind: kind.into(),
            source_key: row.source_key.clone(),
            received_time: row.received_at.map(to_timestamp),
            size_bytes: row.size_bytes,
            message: row.id.to_string(),
            disposition: row.disposition.into(),
        })
    }
}

/// A set of rows: a bit for each, in blocks of 8 KiB for what lies close together.
#[derive(Debug, Default)]
struct Rows(HashMap<i64, Box<[u64; 1024]>>);

impl Rows {
    const BLOCK: i64 = 64 * 1024;

    fn insert(&mut self, row: i64) {
        let (word, bit) = Self::place(row);
        self.0.entry(row / Self::BLOCK).or_insert_with(|| Box::new([0; 1024]))[word] |= bit;
    }

    fn contains(&self, row: i64) -> bool {
        let (word, bit) = Self::place(row);
        self.0.get(&(row / Self::BLOCK)).is_some_and(|block| block[word] & bit != 0)
    }

    fn place(row: i64) -> (usize, u64) {
        // Rows are counted from 1, so that the rest is never negative.
        let rest = row.rem_euclid(Self::BLOCK) as usize;
        (rest / 64, 1 << (rest % 64))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn listed(key: &str) -> FolderMessage {
        FolderMessage { source_key: key.into(), seen: true, size_bytes: 7, ..FolderMessage::default() }
    }

    fn row(id: i64, disposition: Disposition, settled: bool) -> Standing {
        let source_key = format!("1:{id}");
        Standing { id, source_key, disposition, settled, received_at: Some(5), size_bytes: 7, duplicate_of: None }
    }

    #[test]
    fn a_message_under_a_new_key_is_there_and_under_a_former_one_not_missed() {
        let original = row(1, Disposition::Contact, true);
        let gone = row(2, Disposition::Contact, true);
        let copy = |id: i64, of: i64| Standing { duplicate_of: Some(of), ..row(id, Disposition::Duplicate, true) };
        let mut comparison = Comparison::new("m", false, false);
        assert_eq!(comparison.message(&listed("1.2:4"), Some(&copy(4, 1))), None);
        // Its key before the last one.
        let former = copy(3, 1);
        let (lost, former_of_lost) = (copy(6, 2), copy(5, 2));
        let told: Vec<_> = [&original, &gone, &former, &copy(4, 1), &former_of_lost, &lost]
            .into_iter()
            .filter_map(|row| comparison.row(row))
            .map(|finding| finding.message)
            .collect();
        assert_eq!(told, ["2"], "once, by its first key");
        let summary = comparison.summary;
        assert_eq!((summary.both_count, summary.contact_count, summary.duplicate_count), (1, 2, 4));
        assert!(summary.clean);
    }

    fn kind(finding: Option<Finding>) -> Option<FindingKind> {
        finding.map(|finding| finding.kind())
    }

    #[test]
    fn what_is_in_the_folder_only_is_pending_left_or_missing() {
        let mut comparison = Comparison::new("m", false, false);
        let pending = FolderMessage { pending: true, ..listed("1:1") };
        let left = FolderMessage { before_start: true, ..listed("1:2") };
        let unread = FolderMessage { unread_since: true, ..left.clone() };
        assert_eq!(kind(comparison.message(&pending, None)), Some(FindingKind::Pending));
        assert_eq!(kind(comparison.message(&left, None)), None, "only counted");
        assert_eq!(kind(comparison.message(&unread, None)), Some(FindingKind::UnreadBeforeStart));
        let known = row(4, Disposition::Contact, true);
        assert_eq!(
            kind(comparison.message(&FolderMessage { before_start: true, ..listed("1:4") }, Some(&known))),
            None
        );
        assert!(comparison.summary.clean, "nothing is missing");
        let missing = comparison.message(&listed("1:5"), None).expect("a finding");
        assert_eq!((missing.kind(), missing.source_key.as_str()), (FindingKind::Missing, "1:5"));
        let summary = comparison.summary;
        assert_eq!((summary.folder_count, summary.both_count, summary.missing_count), (5, 1, 1));
        assert_eq!((summary.pending_count, summary.before_start_count, summary.unread_before_start_count), (1, 1, 1));
        assert!(!summary.clean);
        let mut telling = Comparison::new("m", false, true);
        assert_eq!(kind(telling.message(&left, None)), Some(FindingKind::BeforeStart));
    }

    #[test]
    fn what_is_in_the_ledger_only_was_moved_or_is_gone() {
        for (moves, settled, expected) in [
            (true, true, FindingKind::Moved),
            (false, true, FindingKind::Gone),
            (true, false, FindingKind::GoneUnsettled),
            (false, false, FindingKind::GoneUnsettled),
        ] {
            let mut comparison = Comparison::new("m", moves, true);
            assert_eq!(kind(comparison.row(&row(1, Disposition::Contact, settled))), Some(expected));
            assert!(comparison.summary.clean, "a user may move and delete");
        }
        let mut comparison = Comparison::new("m", true, false);
        assert_eq!(kind(comparison.row(&row(1, Disposition::Contact, true))), None, "only counted");
        for (id, disposition) in
            [Disposition::Quarantined, Disposition::TooLarge, Disposition::Vanished].iter().enumerate()
        {
            let gone = comparison.row(&row(id as i64 + 2, *disposition, true));
            assert_eq!(kind(gone), Some(FindingKind::Gone), "we move only contacts");
        }
        let here = row(9, Disposition::Filtered, true);
        comparison.message(&listed("1:9"), Some(&here));
        assert_eq!(comparison.row(&here), None);
        let summary = comparison.summary;
        assert_eq!((summary.ledger_count, summary.moved_count, summary.gone_count), (5, 1, 3));
        assert_eq!((summary.quarantined_count, summary.too_large_count, summary.vanished_count), (1, 1, 1));
        assert_eq!((summary.contact_count, summary.filtered_count), (1, 1));
    }

    #[test]
    fn a_folder_that_is_numbered_anew_is_not_clean() {
        let mut comparison = Comparison::new("m", false, false);
        comparison.renumber();
        assert_eq!(comparison.row(&row(1, Disposition::Contact, true)), None, "it cannot be known");
        assert_eq!((comparison.summary.clean, comparison.summary.gone_count), (false, 0));
    }

    proptest! {
        #[test]
        fn a_set_of_rows_has_what_was_put_in(rows in prop::collection::btree_set(1i64..300_000, 0..200), other in 1i64..300_000) {
            let mut set = Rows::default();
            rows.iter().for_each(|row| set.insert(*row));
            prop_assert!(rows.iter().all(|row| set.contains(*row)));
            prop_assert_eq!(set.contains(other), rows.contains(&other));
        }

        /// Whatever lies on either side: each message is counted once on each side that has it.
        #[test]
        fn the_counts_add_up(folder in prop::collection::btree_set(1i64..60, 0..40), ledger in prop::collection::btree_set(1i64..60, 0..40)) {
            let mut comparison = Comparison::new("m", false, false);
            for id in &folder {
                let known = ledger.contains(id).then(|| row(*id, Disposition::Contact, true));
                comparison.message(&listed(&format!("1:{id}")), known.as_ref());
            }
            let gone: BTreeSet<i64> = ledger
                .iter()
                .filter_map(|id| comparison.row(&row(*id, Disposition::Contact, true)))
                .map(|finding| finding.message.parse().expect("a row"))
                .collect();
            let summary = comparison.summary;
            prop_assert_eq!(&gone, &ledger.difference(&folder).copied().collect());
            prop_assert_eq!(summary.missing_count, folder.difference(&ledger).count() as u64);
            prop_assert_eq!(summary.both_count, folder.intersection(&ledger).count() as u64);
            prop_assert_eq!(summary.clean, folder.is_subset(&ledger));
        }
    }
}

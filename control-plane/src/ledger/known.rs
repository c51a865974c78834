//! Which messages of a folder that was numbered anew the ledger has: as many of each kind as it has, and no more. Pure.
//!
//! Invariant: no message of the ledger is taken for two of the folder. So of two mails that are alike in everything, of which
//! the ledger has one, one is new, and nothing is lost because something else looks like it.

use std::collections::{HashMap, VecDeque};

use super::Micros;

/// A message of the folder, of which only the headers are known.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sought {
    /// Made of its headers; empty when they could not be had.
    pub fingerprint: Vec<u8>,
    /// It has a Message-ID and a Date.
    pub identified: bool,
    /// When the mail server says that it was received.
    pub received_at: Option<Micros>,
    /// In bytes; 0: not known.
    pub size_bytes: u64,
}

/// A message of the ledger that was not seen in the present numbering yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Its row.
    pub id: i64,
    /// Made of its headers; empty when they were never read: it was too large, or could not be read.
    pub fingerprint: Vec<u8>,
    /// When the mail server said that it was received.
    pub received_at: Option<Micros>,
    /// In bytes.
    pub size_bytes: u64,
}

/// For each message that is sought the row that it is, if any. Of several the one that was recorded first.
///
/// A message is the same when the headers are the same and
/// 1. the time of receipt is, too; or
/// 2. it is identified and has the same size: its server, or who restored it, says another time.
///
/// Without Message-ID or Date only the first holds: devices that send one subject all day would otherwise lose mail. What the
/// ledger never read the headers of is the same when time and size are.
pub fn assign(sought: &[Sought], candidates: &[Candidate]) -> Vec<Option<i64>> {
    let mut taken = vec![None; sought.len()];
    let mut free: Vec<&Candidate> = candidates.iter().collect();
    free.sort_unstable_by_key(|row| row.id);
    // Ordering: every message that is surely the same has its row before any that is only most likely so.
    for by in [By::Time, By::Size, By::Bare] {
        let mut rows: HashMap<Mark<'_>, VecDeque<i64>> = HashMap::new();
        for row in &free {
            if let Some(mark) = by.of_row(row) {
                rows.entry(mark).or_default().push_back(row.id);
            }
        }
        for (one, taken) in sought.iter().zip(&mut taken).filter(|(_, taken)| taken.is_none()) {
            *taken = by.of_sought(one).and_then(|mark| rows.get_mut(&mark)?.pop_front());
        }
        free.retain(|row| !taken.contains(&Some(row.id)));
    }
    taken
}

/// What a message and a row have to have in common: fingerprint, time and size, as far as they matter.
type Mark<'m> = (&'m [u8], Option<Micros>, u64);

#[derive(Clone, Copy)]
enum By {
    Time,
    Size,
    Bare,
}

impl By {
    fn of_sought(self, one: &Sought) -> Option<Mark<'_>> {
        let read = !one.fingerprint.is_empty();
        let enough = match self {
            Self::Time => read && one.received_at.is_some(),
            Self::Size => read && one.identified,
            Self::Bare => one.received_at.is_some() && one.size_bytes > 0,
        };
        enough.then(|| self.mark(&one.fingerprint, one.received_at, one.size_bytes))
    }

    fn of_row(self, row: &Candidate) -> Option<Mark<'_>> {
        let bare = row.fingerprint.is_empty();
        (bare == matches!(self, Self::Bare)).then(|| self.mark(&row.fingerprint, row.received_at, row.size_bytes))
    }

    fn mark(self, fingerprint: &[u8], received_at: Option<Micros>, size_bytes: u64) -> Mark<'_> {
        match self {
            Self::Time => (fingerprint, received_at, 0),
            Self::Size => (fingerprint, None, size_bytes),
            Self::Bare => (&[], received_at, size_bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn sought(fingerprint: &[u8], identified: bool, received_at: impl Into<Option<Micros>>, size_bytes: u64) -> Sought {
        Sought { fingerprint: fingerprint.into(), identified, received_at: received_at.into(), size_bytes }
    }

    fn row(id: i64, fingerprint: &[u8], received_at: impl Into<Option<Micros>>, size_bytes: u64) -> Candidate {
        Candidate { id, fingerprint: fingerprint.into(), received_at: received_at.into(), size_bytes }
    }

    #[test]
    fn of_two_that_are_alike_one_is_new_when_the_ledger_has_one() {
        let two = [sought(b"a", true, 5, 10), sought(b"a", true, 5, 10)];
        assert_eq!(assign(&two, &[row(1, b"a", 5, 10)]), [Some(1), None]);
        assert_eq!(assign(&two, &[row(2, b"a", 5, 10), row(1, b"a", 5, 10)]), [Some(1), Some(2)]);
        assert_eq!(assign(&two, &[]), [None, None]);
    }

    #[test]
    fn another_time_of_receipt_is_no_matter_only_where_the_message_is_identified() {
        let ledger = [row(1, b"a", 5, 10)];
        assert_eq!(assign(&[sought(b"a", true, 99, 10)], &ledger), [Some(1)]);
        assert_eq!(assign(&[sought(b"a", true, None, 10)], &ledger), [Some(1)]);
        assert_eq!(assign(&[sought(b"a", true, 99, 11)], &ledger), [None], "another size");
        assert_eq!(assign(&[sought(b"a", false, 99, 10)], &ledger), [None], "no Message-ID, or no Date");
        assert_eq!(assign(&[sought(b"a", false, 5, 11)], &ledger), [Some(1)], "received in the same second");
        assert_eq!(assign(&[sought(b"a", false, None, 10)], &[row(1, b"a", None, 10)]), [None], "nobody says when");
        assert_eq!(assign(&[sought(b"b", true, 5, 10)], &ledger), [None], "other headers");
    }

    #[test]
    fn what_is_surely_the_same_comes_before_what_most_likely_is() {
        let ledger = [row(1, b"a", 5, 10), row(2, b"a", 6, 10)];
        let folder = [sought(b"a", true, 99, 10), sought(b"a", true, 5, 10)];
        assert_eq!(assign(&folder, &ledger), [Some(2), Some(1)]);
    }

    #[test]
    fn what_was_never_read_is_known_by_time_and_size() {
        let ledger = [row(1, b"", 5, 90)];
        assert_eq!(assign(&[sought(b"a", true, 5, 90)], &ledger), [Some(1)]);
        assert_eq!(assign(&[sought(b"", false, 5, 90)], &ledger), [Some(1)]);
        assert_eq!(assign(&[sought(b"a", true, 6, 90), sought(b"a", true, 5, 91)], &ledger), [None, None]);
        assert_eq!(assign(&[sought(b"a", true, None, 90)], &[row(1, b"", None, 90)]), [None]);
        assert_eq!(assign(&[sought(b"", false, 5, 0)], &[row(1, b"", 5, 0)]), [None]);
        assert_eq!(assign(&[sought(b"a", true, 5, 90)], &[row(1, b"b", 5, 90)]), [None], "its headers are known");
    }

    prop_compose! {
        fn any_sought()(
            fingerprint in 0u8..4, identified in any::<bool>(), received in proptest::option::of(0i64..4), size in 0u64..3,
        ) -> Sought {
            // Which headers there are says whether they identify.
            let (fingerprint, identified) = match fingerprint {
                0 => (vec![], false),
                other => (vec![other], identified && other > 1),
            };
            Sought { fingerprint, identified, received_at: received, size_bytes: size }
        }
    }

    proptest! {
        /// However folder and ledger look: no row is given twice, no message gets one that is another's, and a folder that
        /// has what the ledger has is known as a whole, in whatever order and with whatever more in between.
        #[test]
        fn rows_are_given_once_and_to_their_own(
            mut folder in proptest::collection::vec(any_sought(), 0..20),
            ledger in proptest::collection::vec(any_sought(), 0..20),
        ) {
            let candidates: Vec<Candidate> = ledger.iter().zip(1i64..)
                .map(|(one, id)| row(id, &one.fingerprint, one.received_at, one.size_bytes)).collect();
            let given = assign(&folder, &candidates);
            let ids: Vec<i64> = given.iter().flatten().copied().collect();
            prop_assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len());
            for (one, id) in folder.iter().zip(&given) {
                let Some(id) = id else { continue };
                let row = &candidates[usize::try_from(*id - 1).expect("a row")];
                prop_assert!(row.fingerprint == one.fingerprint || row.fingerprint.is_empty());
                prop_assert!(row.received_at == one.received_at || (one.identified && row.size_bytes == one.size_bytes));
            }
            let mut reversed = candidates.clone();
            reversed.reverse();
            prop_assert_eq!(&assign(&folder, &reversed), &given, "the order of rows does not matter");

            folder.extend(ledger.iter().cloned());
            let knowable = |one: &&Sought| one.received_at.is_some() && (!one.fingerprint.is_empty() || one.size_bytes > 0);
            let whole = assign(&folder, &candidates);
            for (one, id) in ledger.iter().zip(1i64..).filter(|(one, _)| knowable(one)) {
                prop_assert!(whole.contains(&Some(id)), "{one:?} was not known again");
            }
        }
    }
}

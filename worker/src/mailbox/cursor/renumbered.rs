//! A folder that is numbered anew: what is remembered of that, and which of its messages are taken.

use std::collections::BTreeMap;

use super::{Cursor, Numbering};

/// How long a folder may be being restored after it was found to be numbered anew, in microseconds: a day.
const RESTORING: i64 = 24 * 3600 * 1_000_000;

/// How the folder was numbered anew the last time.
///
/// What lay in it then, the messages up to the anchor, is looked for in the ledger, and only what is not there and came after
/// the first reading is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Renumbered {
    /// When the mailbox was first read, in microseconds since 1970.
    pub since: i64,
    /// Of what was there at the first reading not everything had been taken yet.
    pub backlog: bool,
    /// When it was noticed.
    pub began: i64,
    /// When all up to the anchor had been looked at. `None`: that is under way.
    pub finished: Option<i64>,
    /// Messages that the ledger had.
    pub known: u64,
    /// Messages that it did not have, and that were taken.
    pub new: u64,
    /// Messages that it did not have, and that were left.
    pub left: u64,
}

impl Cursor {
    /// The cursor of the folder when it is found to be numbered anew: its UIDVALIDITY and UIDNEXT as SELECT said, when the
    /// mailbox was first read, and the time `now`. Nothing of it is looked at yet. What waited for an operator waits no more:
    /// among the new UIDs it is not known which it was.
    ///
    /// Of what waited, an operator leaves what was received before `left_before`.
    pub fn renumber(&self, uid_validity: u32, uid_next: u32, since: i64, left_before: Option<i64>, now: i64) -> Self {
        // Whatever failed is not in the ledger, wherever it stood.
        let failed = self.waiting().is_some() || !self.pending.is_empty();
        let backlog = match &self.renumbered {
            None => failed || self.done < self.anchor,
            Some(before) => failed || before.finished.is_none() && before.backlog,
        };
        let renumbered = Renumbered { since, backlog, began: now, finished: None, known: 0, new: 0, left: 0 };
        Self {
            numbering: Numbering { validity: uid_validity, round: self.numbering.round.saturating_add(1) },
            done: 0,
            anchor: uid_next.saturating_sub(1),
            start: self.start,
            pending: BTreeMap::new(),
            renumbered: Some(renumbered),
            waiting: self.waiting.map(|waiting| waiting.end(left_before)),
        }
    }

    /// True when a message of a folder that was numbered anew may be in the ledger although it lay in the folder only later:
    /// whoever restores a folder fills it for hours, and its reader looks at it within seconds.
    pub fn may_be_restored(&self, received: Option<i64>, now: i64) -> bool {
        let Some(renumbered) = &self.renumbered else { return false };
        now < renumbered.began.saturating_add(RESTORING) && received.is_none_or(|received| received < renumbered.began)
    }

    /// True when such a message, which the ledger does not have, is left: it is older than the first reading, and the start
    /// policy left it then. That it lies in the folder only now makes it no new mail.
    pub fn leaves_restored(&self, uid: u32, seen: bool, received: Option<i64>, now: i64) -> bool {
        uid > self.anchor
            && self.may_be_restored(received, now)
            && !self.is_newer(received)
            && !self.takes_old(seen, received)
    }

    /// Such a message is left. From here on it passes for one that was there as the folder was numbered anew, and so do those
    /// before it: of those, what is newer than the first reading was taken, and what is older was looked for.
    pub fn leave_restored(&mut self, uid: u32) {
        self.anchor = self.anchor.max(uid);
        self.pending.remove(&uid);
        self.pass(uid);
    }

    /// True when a message that failed may be in the ledger under another key all the same.
    pub fn may_be_known(&self, uid: u32, received: Option<i64>, now: i64) -> bool {
        self.renumbered.is_some() && uid <= self.anchor || self.may_be_restored(received, now)
    }

    /// How the folder was numbered anew the last time. `None`: never.
    pub fn renumbered(&self) -> Option<&Renumbered> {
        self.renumbered.as_ref()
    }

    /// The last message that is to be looked for in the ledger. `None`: the folder was not numbered anew, or all is done.
    pub fn rekeys_up_to(&self) -> Option<u32> {
        self.renumbered.as_ref().filter(|it| it.finished.is_none()).map(|_| self.anchor)
    }

    /// All up to the anchor was looked at, at this time.
    pub fn finish_rekeying(&mut self, now: i64) {
        if let Some(renumbered) = &mut self.renumbered {
            renumbered.finished = Some(now);
        }
    }

    /// Counts what became of a message while the folder is re-keyed.
    pub fn count(&mut self, add: impl FnOnce(&mut Renumbered)) {
        if let Some(renumbered) = self.renumbered.as_mut().filter(|it| it.finished.is_none()) {
            add(renumbered);
        }
    }

    /// The folder was numbered anew, and a message in it is newer than the first reading, or may be. The times of servers
    /// have no fractions of seconds.
    pub(super) fn is_newer(&self, received: Option<i64>) -> bool {
        let Some(renumbered) = &self.renumbered else { return false };
        received.is_none_or(|received| received >= renumbered.since - renumbered.since.rem_euclid(1_000_000))
    }
}

/// What is stored. Field numbers are a format.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct StoredRenumbered {
    #[prost(int64, tag = "1")]
    since: i64,
    #[prost(bool, tag = "2")]
    backlog: bool,
    #[prost(int64, tag = "3")]
    began: i64,
    #[prost(int64, optional, tag = "4")]
    finished: Option<i64>,
    #[prost(uint64, tag = "5")]
    known: u64,
    #[prost(uint64, tag = "6")]
    new: u64,
    #[prost(uint64, tag = "7")]
    left: u64,
}

impl From<Renumbered> for StoredRenumbered {
    fn from(renumbered: Renumbered) -> Self {
        let Renumbered { since, backlog, began, finished, known, new, left } = renumbered;
        Self { since, backlog, began, finished, known, new, left }
    }
}

impl From<StoredRenumbered> for Renumbered {
    fn from(stored: StoredRenumbered) -> Self {
        let StoredRenumbered { since, backlog, began, finished, known, new, left } = stored;
        Self { since, backlog, began, finished, known, new, left }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Place, Start};
    use super::*;

    const SECOND: i64 = 1_000_000;

    /// A cursor of `start` that had read all of UIDs 1 to 10, which were there before, and up to 20.
    fn read(start: Start) -> Cursor {
        let mut cursor = Cursor::first(9, 11, start);
        cursor.pass(20);
        cursor
    }

    #[test]
    fn after_a_renumbering_what_is_newer_is_taken_and_what_was_left_stays_left() {
        let since = 100 * SECOND + 7;
        for (start, old) in [
            (Start::Unseen, false),
            (Start::New, false),
            (Start::All, true),
            (Start::Since(50 * SECOND), true),
            (Start::Since(99 * SECOND + 1), false),
        ] {
            let cursor = read(start).renumber(8, 16, since, None, 500);
            assert_eq!((cursor.numbering, cursor.done), (Numbering { validity: 8, round: 1 }, 0));
            assert_eq!(cursor.rekeys_up_to(), Some(15));
            for seen in [true, false] {
                assert_eq!(cursor.takes(3, seen, Some(99 * SECOND)), old, "{start:?}");
                assert!(cursor.takes(3, seen, Some(100 * SECOND)), "in the second of the first reading: {start:?}");
                assert!(cursor.takes(3, seen, None), "{start:?}");
                assert!(cursor.takes(16, seen, Some(0)), "it came later: {start:?}");
            }
        }
    }

    #[test]
    fn what_had_not_been_read_of_the_first_messages_goes_by_its_flags_again() {
        let since = 100 * SECOND;
        let takes = |cursor: &Cursor| (cursor.takes(3, true, Some(0)), cursor.takes(3, false, Some(0)));
        let mut half = Cursor::first(9, 11, Start::Unseen);
        half.pass(5);
        let again = half.renumber(8, 11, since, None, 500);
        assert_eq!(takes(&again), (false, true));
        assert_eq!(
            takes(&again.renumber(7, 11, since, None, 600)),
            (false, true),
            "numbered anew before all was looked at"
        );
        let mut ended = again;
        ended.pass(10);
        ended.finish_rekeying(550);
        assert_eq!(takes(&ended.renumber(7, 11, since, None, 600)), (false, false));
        let mut failed = read(Start::Unseen);
        failed.fail(3);
        assert_eq!(takes(&failed.renumber(8, 11, since, None, 500)), (false, true), "one was to be tried again");
        assert_eq!(takes(&read(Start::Unseen).renumber(8, 11, since, None, 500)), (false, false));
    }

    #[test]
    fn what_a_slow_restore_brings_goes_by_the_start_policy_and_not_by_when_it_came() {
        let (since, began) = (100 * SECOND + 7, 5000 * SECOND);
        // Seen anew when it was empty; 1 to 9 come later.
        let empty = |start| {
            let mut cursor = read(start).renumber(8, 1, since, None, began);
            cursor.finish_rekeying(began);
            cursor
        };
        let day = 24 * 3600 * SECOND;
        for (start, old) in [
            (Start::Unseen, false),
            (Start::New, false),
            (Start::All, true),
            (Start::Since(50 * SECOND), true),
            (Start::Since(99 * SECOND + 1), false),
        ] {
            let mut cursor = empty(start);
            for seen in [true, false] {
                let leaves = |received, now| cursor.leaves_restored(3, seen, received, now);
                assert_eq!(leaves(Some(99 * SECOND), began + 1), !old, "{start:?}");
                assert!(!leaves(Some(100 * SECOND), began + 1), "in the second of the first reading: {start:?}");
                assert!(!leaves(None, began + 1), "nobody says when: {start:?}");
                assert!(!leaves(Some(99 * SECOND), began + day), "the restore is over: {start:?}");
                assert!(!leaves(Some(began), began + 1), "new mail: {start:?}");
            }
            cursor.settle(4);
            cursor.settle(6);
            if !old {
                cursor.leave_restored(5);
                let left = Place::BeforeStart { doubtful: false };
                assert_eq!(cursor.place(5, true, Some(99 * SECOND)), left, "{start:?}");
                assert_eq!(cursor.place(4, true, Some(100 * SECOND)), Place::Done, "{start:?}");
            }
            assert_eq!(cursor.place(6, true, Some(99 * SECOND)), Place::Done, "{start:?}");
            assert_eq!((cursor.done, cursor.rekeys_up_to()), (6, None));
            assert_eq!(Cursor::decode(Some(&cursor.encode())), Ok(Some(cursor)));
        }
        let mut failed = read(Start::Unseen);
        failed.fail(3);
        let mut half = failed.renumber(8, 1, since, None, began);
        half.finish_rekeying(began);
        assert!(half.leaves_restored(3, true, Some(0), began + 1), "not all had been read: flags tell");
        assert!(!half.leaves_restored(3, false, Some(0), began + 1));
        let mut waited = Cursor::holding(9, 11, Start::All, 7);
        waited.leave(1, 50 * SECOND);
        let mut waited = waited.renumber(8, 1, since, Some(50 * SECOND), began);
        waited.finish_rekeying(began);
        assert!(waited.leaves_restored(3, false, Some(49 * SECOND), began + 1), "an operator left it for its age");
        assert!(!waited.leaves_restored(3, false, Some(51 * SECOND), began + 1));
        assert!(!read(Start::New).leaves_restored(30, false, Some(0), 1), "never numbered anew");
    }

    #[test]
    fn the_place_of_what_was_looked_for_in_the_ledger() {
        let left = |doubtful| Place::BeforeStart { doubtful };
        let mut cursor = read(Start::Unseen).renumber(8, 16, 100 * SECOND, None, 500);
        assert_eq!(cursor.place(3, false, Some(200 * SECOND)), Place::Pending);
        cursor.pass(15);
        cursor.count(|it| it.known += 14);
        cursor.finish_rekeying(600);
        cursor.count(|it| it.known += 1);
        assert_eq!(cursor.renumbered().map(|it| (it.known, it.finished)), Some((14, Some(600))));
        assert_eq!((cursor.rekeys_up_to(), cursor.reach()), (None, 15));
        assert_eq!(cursor.place(3, true, Some(200 * SECOND)), Place::Done);
        assert_eq!(cursor.place(3, true, Some(50 * SECOND)), left(false));
        assert_eq!(cursor.place(3, false, Some(50 * SECOND)), left(true));
    }

    #[test]
    fn a_cursor_of_a_renumbered_folder_is_read_for_ever_and_not_by_older_workers() {
        let mut cursor = read(Start::New).renumber(8, 16, 3, None, 5);
        cursor.count(|it| (it.known, it.new, it.left) = (1, 2, 3));
        cursor.finish_rekeying(6);
        let value = [8, 2, 16, 8, 32, 15, 40, 2, 64, 1, 74, 12, 8, 3, 24, 5, 32, 6, 40, 1, 48, 2, 56, 3];
        assert_eq!(cursor.encode().value, value);
        assert_eq!(Cursor::decode(Some(&cursor.encode())), Ok(Some(cursor)));
    }
}

//! Messages of a first reading that wait for an operator, because there are more of them than the queue allows.
//!
//! The cursor of such a mailbox begins behind them, so that new mail is read. They are read by a second mark, from the first
//! message up to the anchor, whenever and as far as they are released.

use postroom_proto::v1;

use super::{Cursor, Start};

/// Old messages that wait, or waited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Waiting {
    /// Of the messages up to the anchor, those up to this UID are dealt with, or pending.
    pub(super) done: u32,
    /// How many the start policy took when they were counted.
    pub(super) counted: u64,
    /// How many of them were taken by now.
    pub(super) taken: u64,
    /// How many of them were left by now, because they were older than the operator wanted.
    pub(super) left: u64,
    /// What was received before this time may have been left for its age; 0: nothing was.
    pub(super) left_before: i64,
}

impl Waiting {
    /// Nothing waits any more, wherever it was. What was not dealt with goes by the release that is in force.
    pub(super) fn end(self, left_before: Option<i64>) -> Self {
        let left_before = match self.done == u32::MAX {
            true => self.left_before,
            false => left_before.unwrap_or(0).max(self.left_before),
        };
        Self { done: u32::MAX, left_before, ..self }
    }
}

impl Cursor {
    /// The cursor of a folder that was never read and whose messages wait: of those, the start policy takes `counted`.
    pub fn holding(uid_validity: u32, uid_next: u32, start: Start, counted: u64) -> Self {
        let first = Self::first(uid_validity, uid_next, start);
        let waiting = Waiting { done: 0, counted, taken: 0, left: 0, left_before: 0 };
        Self { done: first.anchor, waiting: Some(waiting), ..first }
    }

    /// The first and the last UID that may still wait. `None`: nothing does.
    pub fn waiting(&self) -> Option<(u32, u32)> {
        let waiting = self.waiting.filter(|waiting| waiting.done < self.anchor)?;
        Some((waiting.done + 1, self.anchor))
    }

    /// True when this message waits, if the start policy takes it.
    pub fn waits(&self, uid: u32) -> bool {
        self.waiting().is_some_and(|(first, last)| (first..=last).contains(&uid))
    }

    /// True when this message is one of those that waited, or wait.
    pub fn is_old(&self, uid: u32) -> bool {
        self.waiting.is_some() && uid <= self.anchor
    }

    /// A message that waited is left, because the server received it before `since`.
    pub fn leave(&mut self, uid: u32, since: i64) {
        let waits = self.waits(uid);
        if let Some(waiting) = self.waiting.as_mut().filter(|_| waits) {
            waiting.left += 1;
            waiting.left_before = waiting.left_before.max(since);
        }
        self.pass(uid);
    }

    /// How the messages that wait, or waited, stand. `None`: none ever did.
    pub fn progress(&self) -> Option<v1::BacklogProgress> {
        let waiting = self.waiting?;
        Some(v1::BacklogProgress {
            message_count: waiting.counted,
            taken_count: waiting.taken,
            left_count: waiting.left,
            finished: self.waiting().is_none(),
        })
    }

    /// Messages that waited were looked at up to `uid`; `taken`: this one is dealt with or pending.
    pub(super) fn advance(&mut self, uid: u32, taken: bool) {
        let waits = self.waits(uid);
        if let Some(waiting) = self.waiting.as_mut().filter(|_| waits) {
            waiting.done = uid;
            waiting.taken += u64::from(taken);
        }
    }

    /// True when a message that waited may have been left for its age.
    pub(super) fn may_be_left(&self, uid: u32, received: Option<i64>) -> bool {
        self.is_old(uid) && self.was_left_for_its_age(received)
    }

    /// The same of any message that passes for one of them.
    pub(super) fn was_left_for_its_age(&self, received: Option<i64>) -> bool {
        self.waiting.is_some_and(|waiting| received.is_some_and(|received| received < waiting.left_before))
    }
}

/// What is stored. Field numbers are a format.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct StoredWaiting {
    #[prost(uint32, tag = "1")]
    done: u32,
    #[prost(uint64, tag = "2")]
    counted: u64,
    #[prost(uint64, tag = "3")]
    taken: u64,
    #[prost(uint64, tag = "4")]
    left: u64,
    #[prost(int64, tag = "5")]
    left_before: i64,
}

impl From<Waiting> for StoredWaiting {
    fn from(waiting: Waiting) -> Self {
        let Waiting { done, counted, taken, left, left_before } = waiting;
        Self { done, counted, taken, left, left_before }
    }
}

impl From<StoredWaiting> for Waiting {
    fn from(stored: StoredWaiting) -> Self {
        let StoredWaiting { done, counted, taken, left, left_before } = stored;
        Self { done, counted, taken, left, left_before }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Place, Verdict};
    use super::*;

    fn stored(cursor: &Cursor) -> Cursor {
        Cursor::decode(Some(&cursor.encode())).expect("decodes").expect("a cursor")
    }

    fn progress(cursor: &Cursor) -> (u64, u64, bool) {
        let progress = cursor.progress().expect("some wait");
        (progress.taken_count, progress.left_count, progress.finished)
    }

    #[test]
    fn in_a_folder_that_is_numbered_anew_nothing_waits_and_what_was_left_stays_left() {
        let mut cursor = Cursor::holding(9, 11, Start::Unseen, 7);
        cursor.leave(1, 50);
        let again = cursor.renumber(8, 11, 100_000_000, None, 500);
        assert_eq!((again.waiting(), progress(&again)), (None, (0, 1, true)));
        let takes = |seen, received| again.takes(3, seen, Some(received));
        assert_eq!((takes(false, 60), takes(true, 60)), (true, false), "they had not been dealt with: flags tell");
        assert!(!takes(false, 40), "it was left for its age");
        assert_eq!(stored(&again), again);
        let later = cursor.renumber(8, 11, 100_000_000, Some(70), 500);
        assert!(!later.takes(3, false, Some(60)) && later.takes(3, false, Some(70)), "it is to be left for its age");
        let twice = later.renumber(7, 11, 100_000_000, None, 600);
        assert!(!twice.takes(3, false, Some(60)), "whatever the numbering");
    }

    #[test]
    fn new_mail_is_read_while_the_old_waits() {
        let mut cursor = Cursor::holding(9, 11, Start::Unseen, 7);
        assert_eq!((cursor.done, cursor.waiting()), (10, Some((1, 10))));
        assert_eq!((cursor.attempts(3), cursor.attempts(11)), (Some(0), Some(0)));
        cursor.settle(11);
        cursor.fail(12);
        cursor.pass(20);
        assert_eq!((cursor.waiting(), progress(&cursor)), (Some((1, 10)), (0, 0, false)));
        assert_eq!(cursor.place(3, false, Some(0)), Place::Pending, "it waits");
        assert_eq!(cursor.place(3, true, Some(0)), Place::BeforeStart { doubtful: false });
        assert_eq!((cursor.place(11, false, None), cursor.place(12, false, None)), (Place::Done, Place::Pending));
        assert_eq!(stored(&cursor), cursor);
    }

    #[test]
    fn what_waited_is_counted_once_and_comes_to_an_end() {
        let mut cursor = Cursor::holding(9, 11, Start::All, 10);
        cursor.leave(1, 500);
        cursor.leave(2, 400);
        cursor.settle(3);
        assert_eq!(cursor.fail(4), Verdict::Again);
        cursor.pass(6);
        assert_eq!((cursor.waiting(), progress(&cursor)), (Some((7, 10)), (2, 2, false)));
        assert_eq!((cursor.attempts(3), cursor.attempts(4), cursor.done), (None, Some(1), 10));
        cursor.settle(4);
        assert_eq!(progress(&cursor), (2, 2, false), "it was taken before");
        assert_eq!(stored(&cursor), cursor);
        cursor.pass(10);
        assert_eq!((cursor.waiting(), progress(&cursor)), (None, (2, 2, true)));
        let left = Place::BeforeStart { doubtful: false };
        assert_eq!((cursor.place(1, false, Some(499)), cursor.place(3, false, Some(500))), (left, Place::Done));
        assert_eq!(cursor.place(11, false, Some(0)), Place::Pending, "it came later");
        assert_eq!(stored(&cursor), cursor);
    }

    #[test]
    fn an_older_worker_refuses_what_waits_and_reads_what_does_no_longer() {
        let mut cursor = Cursor::holding(9, 3, Start::All, 2);
        let version = |cursor: &Cursor| cursor.encode().value[1];
        assert_eq!(cursor.encode().value, [8, 3, 16, 9, 24, 2, 32, 2, 40, 3, 82, 2, 16, 2]);
        cursor.settle(1);
        assert_eq!(version(&cursor), 3);
        cursor.settle(2);
        assert_eq!(version(&cursor), 1);
    }
}

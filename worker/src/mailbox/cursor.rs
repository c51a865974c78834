//! How far a folder has been read. Pure; opaque to everybody else.
//!
//! A low-water mark and a bounded set of messages below it that are still to be read: one that fails neither blocks the
//! mailbox nor is skipped.

use std::collections::BTreeMap;

use postroom_proto::v1;
use prost::Message as _;

use self::waiting::{StoredWaiting, Waiting};

mod waiting;

/// The name of this encoding in [`v1::Cursor::protocol`].
pub const PROTOCOL: &str = "imap";
/// A message is tried this often before it is put aside.
pub const MAX_ATTEMPTS: u32 = 3;
/// Most messages kept pending. When there are more, the next one that fails is put aside at once.
pub const MAX_PENDING: usize = 200;
/// The version of folders that were never numbered anew. Workers that know no other read these still.
const VERSION: u32 = 1;
/// How long a folder may be being restored after it was found to be numbered anew, in microseconds: a day.
const RESTORING: i64 = 24 * 3600 * 1_000_000;
/// Of a cursor of a folder that was numbered anew.
const VERSION_RENUMBERED: u32 = 2;
/// Of a cursor with messages that wait: a worker that does not know of them would never read them.
const VERSION_WAITING: u32 = 3;

/// Which of the messages that were there at the first reading are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// Those without `\Seen`.
    Unseen,
    /// None.
    New,
    /// All.
    All,
    /// Those that the server received at or after this time, in microseconds since 1970.
    Since(i64),
}

impl Start {
    /// The policy of a queue.
    pub fn of(start: Option<&v1::Start>) -> Self {
        let Some(start) = start else { return Self::Unseen };
        match start.policy() {
            v1::StartPolicy::Unseen | v1::StartPolicy::Unspecified => Self::Unseen,
            v1::StartPolicy::New => Self::New,
            v1::StartPolicy::All => Self::All,
            v1::StartPolicy::Since => {
                Self::Since(start.since_time.as_ref().map_or(0, postroom_proto::convert::from_timestamp))
            }
        }
    }
}

/// Where a message of the folder stands, as far as the cursor knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// It is still to be read, or to be tried again.
    Pending,
    /// It was there before the first reading, and the start policy left it.
    BeforeStart {
        /// The policy went by `\Seen`, and the message does not have it now: it was marked as unread later.
        doubtful: bool,
    },
    /// It was dealt with: the ledger has it.
    Done,
}

/// One numbering of a folder: UIDs mean something only together with it.
///
/// A server that numbers a folder anew gives it another UIDVALIDITY (RFC 3501 section 2.3.1.1), or a former one again, or
/// none other at all when an old state of the folder was put back below it. So the numberings of a folder are counted here,
/// and keys of two of them are never alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Numbering {
    /// UIDVALIDITY.
    pub validity: u32,
    /// How often the folder was numbered anew since the mailbox was first read.
    pub round: u32,
}

/// The numbering in which a folder with this UIDVALIDITY is first read.
impl From<u32> for Numbering {
    fn from(validity: u32) -> Self {
        Self { validity, round: 0 }
    }
}

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

/// What to do with a message that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Try it again later; it is pending.
    Again,
    /// Put it aside; it is not pending any more.
    GiveUp,
}

/// How far a folder has been read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    /// The numbering that all UIDs here belong to.
    pub numbering: Numbering,
    /// Every message up to this UID is dealt with, or pending, unless it waits for an operator.
    pub done: u32,
    /// Messages up to this UID were there at the first reading, or as the folder was numbered anew: `start` decides about
    /// them, and `renumbered`.
    anchor: u32,
    start: Start,
    /// Failed attempts by UID.
    pending: BTreeMap<u32, u32>,
    renumbered: Option<Renumbered>,
    /// Those up to the anchor that wait, or waited, for an operator.
    waiting: Option<Waiting>,
}

/// Why a stored cursor cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Another protocol wrote it.
    #[error("the cursor belongs to protocol {0:?}")]
    Protocol(String),
    /// It is damaged.
    #[error("the cursor cannot be decoded")]
    Damaged,
    /// A later version wrote it.
    #[error("the cursor has version {0}, which a newer worker wrote")]
    Version(u32),
}

impl Cursor {
    /// The cursor of a folder that was never read: `uid_next` is what SELECT said.
    pub fn first(uid_validity: u32, uid_next: u32, start: Start) -> Self {
        let anchor = uid_next.saturating_sub(1);
        let done = if start == Start::New { anchor } else { 0 };
        let numbering = uid_validity.into();
        Self { numbering, done, anchor, start, pending: BTreeMap::new(), renumbered: None, waiting: None }
    }

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

    /// The highest UID that the folder is known to have given out: its UIDNEXT is above it, unless an older state of the
    /// folder was put back.
    pub fn reach(&self) -> u32 {
        self.done.max(self.anchor)
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

    /// Reads a stored cursor. `None`: the mailbox was never read.
    pub fn decode(cursor: Option<&v1::Cursor>) -> Result<Option<Self>, Error> {
        let Some(cursor) = cursor.filter(|cursor| !cursor.protocol.is_empty()) else { return Ok(None) };
        if cursor.protocol != PROTOCOL {
            return Err(Error::Protocol(cursor.protocol.clone()));
        }
        let stored = Stored::decode(cursor.value.as_slice()).map_err(|_| Error::Damaged)?;
        if !(VERSION..=VERSION_WAITING).contains(&stored.version) {
            return Err(if stored.version == 0 { Error::Damaged } else { Error::Version(stored.version) });
        }
        let start = match stored.start {
            1 => Start::Unseen,
            2 => Start::New,
            3 => Start::All,
            4 => Start::Since(stored.since),
            _ => return Err(Error::Damaged),
        };
        Ok(Some(Self {
            numbering: Numbering { validity: stored.uid_validity, round: stored.round },
            done: stored.done,
            anchor: stored.anchor,
            start,
            pending: stored.pending.iter().map(|pending| (pending.uid, pending.attempts)).collect(),
            renumbered: stored.renumbered.map(|it| Renumbered {
                since: it.since,
                backlog: it.backlog,
                began: it.began,
                finished: it.finished,
                known: it.known,
                new: it.new,
                left: it.left,
            }),
            waiting: stored.waiting.map(Waiting::from),
        }))
    }

    /// The cursor for a report.
    pub fn encode(&self) -> v1::Cursor {
        let (start, since) = match self.start {
            Start::Unseen => (1, 0),
            Start::New => (2, 0),
            Start::All => (3, 0),
            Start::Since(since) => (4, since),
        };
        let pending = self.pending.iter().map(|(uid, attempts)| StoredPending { uid: *uid, attempts: *attempts });
        let stored = Stored {
            version: self.version(),
            uid_validity: self.numbering.validity,
            done: self.done,
            anchor: self.anchor,
            start,
            since,
            pending: pending.collect(),
            round: self.numbering.round,
            renumbered: self.renumbered.as_ref().map(|it| StoredRenumbered {
                since: it.since,
                backlog: it.backlog,
                began: it.began,
                finished: it.finished,
                known: it.known,
                new: it.new,
                left: it.left,
            }),
            waiting: self.waiting.map(StoredWaiting::from),
        };
        v1::Cursor { protocol: PROTOCOL.into(), value: stored.encode_to_vec() }
    }

    fn version(&self) -> u32 {
        match (self.waiting(), &self.renumbered) {
            (Some(_), _) => VERSION_WAITING,
            (None, Some(_)) => VERSION_RENUMBERED,
            (None, None) => VERSION,
        }
    }

    /// True when a message is to be taken; false when it was there before and the start policy leaves it.
    ///
    /// While a folder is re-keyed, only messages that the ledger does not have are asked about. What the server received
    /// after the first reading is always taken, and what it received before it is what the start policy left then: what it
    /// took is in the ledger. Only when not all of that had been read yet, flags have to tell once more.
    pub fn takes(&self, uid: u32, seen: bool, received: Option<i64>) -> bool {
        if uid > self.anchor || self.is_newer(received) {
            return true;
        }
        if self.renumbered.is_some() && self.may_be_left(uid, received) {
            return false;
        }
        match self.start {
            Start::Unseen if self.renumbered.is_some_and(|it| !it.backlog) => false,
            Start::Unseen => !seen,
            Start::New => false,
            Start::All => true,
            // A time that the server does not say is no reason to lose a message.
            Start::Since(since) => received.is_none_or(|received| received >= since),
        }
    }

    /// The folder was numbered anew, and a message in it is newer than the first reading, or may be. The times of servers
    /// have no fractions of seconds.
    fn is_newer(&self, received: Option<i64>) -> bool {
        let Some(renumbered) = &self.renumbered else { return false };
        received.is_none_or(|received| received >= renumbered.since - renumbered.since.rem_euclid(1_000_000))
    }

    /// Where a message of the folder stands.
    ///
    /// What the start policy left is not recorded anywhere, so under [`Start::Unseen`] all that was there before the first
    /// reading may be such a message: whoever asks has to look into the ledger first.
    pub fn place(&self, uid: u32, seen: bool, received: Option<i64>) -> Place {
        let left = Place::BeforeStart { doubtful: false };
        if self.pending.contains_key(&uid) {
            return Place::Pending;
        }
        if uid > self.done || self.waits(uid) {
            return if self.takes(uid, seen, received) { Place::Pending } else { left };
        }
        if uid > self.anchor || self.is_newer(received) {
            return Place::Done;
        }
        if self.may_be_left(uid, received) {
            return left;
        }
        match self.start {
            Start::Unseen => Place::BeforeStart { doubtful: !seen },
            Start::New | Start::All | Start::Since(_) if self.takes(uid, seen, received) => Place::Done,
            Start::New | Start::All | Start::Since(_) => left,
        }
    }

    /// UIDs that are still to be read, ascending.
    pub fn pending(&self) -> Vec<u32> {
        self.pending.keys().copied().collect()
    }

    /// How often a message has failed. `None`: it was dealt with.
    pub fn attempts(&self, uid: u32) -> Option<u32> {
        self.pending.get(&uid).copied().or((uid > self.done || self.waits(uid)).then_some(0))
    }

    /// A message was dealt with, whatever became of it.
    pub fn settle(&mut self, uid: u32) {
        self.pending.remove(&uid);
        self.advance(uid, true);
        self.done = self.done.max(uid);
    }

    /// Every message up to `uid` was looked at.
    pub fn pass(&mut self, uid: u32) {
        self.advance(uid, false);
        self.done = self.done.max(uid);
    }

    /// A message could not be read this time.
    pub fn fail(&mut self, uid: u32) -> Verdict {
        let attempts = self.pending.get(&uid).copied().unwrap_or(0) + 1;
        self.advance(uid, true);
        self.done = self.done.max(uid);
        let full = self.pending.len() >= MAX_PENDING && !self.pending.contains_key(&uid);
        if attempts >= MAX_ATTEMPTS || full {
            self.pending.remove(&uid);
            return Verdict::GiveUp;
        }
        self.pending.insert(uid, attempts);
        Verdict::Again
    }
}

/// Numbering and UID of a source key.
pub fn split(source_key: &str) -> Option<(Numbering, u32)> {
    let (numbering, uid) = source_key.split_once(':')?;
    let numbering = match numbering.split_once('.') {
        None => Numbering::from(numbering.parse::<u32>().ok()?),
        Some((validity, round)) => Numbering { validity: validity.parse().ok()?, round: round.parse().ok()? },
    };
    Some((numbering, uid.parse().ok()?))
}

/// Identity of a message within its mailbox: `9:42`, and `9.1:42` after the folder was numbered anew.
pub fn source_key(numbering: impl Into<Numbering>, uid: u32) -> String {
    match numbering.into() {
        Numbering { validity, round: 0 } => format!("{validity}:{uid}"),
        Numbering { validity, round } => format!("{validity}.{round}:{uid}"),
    }
}

/// The UID of a source key. `None`: it belongs to another numbering.
pub fn uid_of(source_key: &str, numbering: impl Into<Numbering>) -> Option<u32> {
    let (found, uid) = split(source_key)?;
    (found == numbering.into()).then_some(uid)
}

/// What is stored. Field numbers are a format: old cursors must decode for ever.
#[derive(Clone, PartialEq, prost::Message)]
struct Stored {
    #[prost(uint32, tag = "1")]
    version: u32,
    #[prost(uint32, tag = "2")]
    uid_validity: u32,
    #[prost(uint32, tag = "3")]
    done: u32,
    #[prost(uint32, tag = "4")]
    anchor: u32,
    #[prost(uint32, tag = "5")]
    start: u32,
    #[prost(int64, tag = "6")]
    since: i64,
    #[prost(message, repeated, tag = "7")]
    pending: Vec<StoredPending>,
    #[prost(uint32, tag = "8")]
    round: u32,
    #[prost(message, optional, tag = "9")]
    renumbered: Option<StoredRenumbered>,
    #[prost(message, optional, tag = "10")]
    waiting: Option<StoredWaiting>,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct StoredRenumbered {
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

#[derive(Clone, PartialEq, prost::Message)]
struct StoredPending {
    #[prost(uint32, tag = "1")]
    uid: u32,
    #[prost(uint32, tag = "2")]
    attempts: u32,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_start_policy_decides_only_about_what_was_there_before() {
        for (start, old_seen, old_unseen) in [
            (Start::Unseen, false, true),
            (Start::New, false, false),
            (Start::All, true, true),
            (Start::Since(100), false, false),
        ] {
            let cursor = Cursor::first(9, 11, start);
            assert_eq!(cursor.takes(10, true, Some(99)), old_seen, "{start:?}");
            assert_eq!(cursor.takes(10, false, Some(99)), old_unseen, "{start:?}");
            assert!(cursor.takes(11, true, Some(0)), "{start:?}");
        }
        assert!(Cursor::first(9, 11, Start::Since(100)).takes(10, true, Some(100)));
        assert_eq!(Cursor::first(9, 11, Start::New).done, 10);
        assert_eq!(Cursor::first(9, 1, Start::New).done, 0);
    }

    #[test]
    fn a_place_is_pending_left_or_done() {
        let left = |doubtful| Place::BeforeStart { doubtful };
        // UIDs 1 to 10 were there before; 11 to 20 came later; 15 failed once; 20 is read last.
        let read = |start| {
            let mut cursor = Cursor::first(9, 11, start);
            cursor.fail(15);
            cursor.pass(20);
            cursor
        };
        for (start, seen, unseen) in [
            (Start::Unseen, left(false), left(true)),
            (Start::New, left(false), left(false)),
            (Start::All, Place::Done, Place::Done),
            (Start::Since(100), left(false), left(false)),
        ] {
            assert_eq!(read(start).place(3, true, Some(99)), seen, "{start:?}");
            assert_eq!(read(start).place(3, false, Some(99)), unseen, "{start:?}");
            assert_eq!(read(start).place(14, true, Some(99)), Place::Done, "{start:?}");
            assert_eq!(read(start).place(15, true, Some(99)), Place::Pending, "{start:?}");
            assert_eq!(read(start).place(21, true, Some(99)), Place::Pending, "{start:?}");
        }
        assert_eq!(read(Start::Since(100)).place(3, true, Some(100)), Place::Done);
        let unread = Cursor::first(9, 11, Start::Unseen);
        assert_eq!((unread.place(3, true, None), unread.place(3, false, None)), (left(false), Place::Pending));
    }

    #[test]
    fn a_message_is_given_up_at_its_third_failure() {
        let mut cursor = Cursor::first(9, 1, Start::All);
        assert_eq!([cursor.fail(5), cursor.fail(5), cursor.fail(5)], [Verdict::Again, Verdict::Again, Verdict::GiveUp]);
        assert!(cursor.pending().is_empty());
        assert_eq!(cursor.done, 5);
    }

    #[test]
    fn source_keys_belong_to_a_numbering() {
        assert_eq!(source_key(9, 42), "9:42");
        assert_eq!(uid_of("9:42", 9), Some(42));
        assert_eq!(uid_of("8:42", 9), None);
        assert_eq!(uid_of("42", 9), None);
        let second = Numbering { validity: 9, round: 2 };
        assert_eq!(source_key(second, 42), "9.2:42");
        assert_eq!((uid_of("9.2:42", second), uid_of("9:42", second), uid_of("9.2:42", 9)), (Some(42), None, None));
        assert_eq!((split("9.2.1:42"), split("9.:42"), split("9.2:")), (None, None, None));
    }

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

    #[test]
    fn cursors_of_version_1_are_read_for_ever() {
        let value = [8, 1, 16, 9, 24, 7, 32, 5, 40, 4, 48, 100, 58, 4, 8, 3, 16, 2];
        let cursor = Cursor::decode(Some(&v1::Cursor { protocol: "imap".into(), value: value.into() }));
        let cursor = cursor.expect("decodes").expect("a cursor");
        assert_eq!((cursor.numbering, cursor.done, cursor.anchor, cursor.start), (9.into(), 7, 5, Start::Since(100)));
        assert_eq!(cursor.pending, BTreeMap::from([(3, 2)]));
        assert_eq!(cursor.encode().value, value);
    }

    #[test]
    fn foreign_and_damaged_cursors_are_refused() {
        let decode = |protocol: &str, value: &[u8]| {
            Cursor::decode(Some(&v1::Cursor { protocol: protocol.into(), value: value.into() }))
        };
        assert_eq!(decode("", b""), Ok(None));
        assert_eq!(Cursor::decode(None), Ok(None));
        assert_eq!(decode("graph", b""), Err(Error::Protocol("graph".into())));
        assert_eq!(decode("imap", b"\xff"), Err(Error::Damaged));
        assert_eq!(decode("imap", &[8, 4]), Err(Error::Version(4)));
        assert_eq!(decode("imap", b""), Err(Error::Damaged));
    }

    proptest! {
        /// Whatever fails and succeeds in whatever order: every message ends exactly once, the set stays bounded, and
        /// the cursor survives being stored at any point.
        #[test]
        fn every_message_ends_exactly_once(outcomes in proptest::collection::vec(0u8..4, 1..600)) {
            let mut cursor = Cursor::first(9, 1, Start::All);
            let mut ended = std::collections::BTreeSet::new();
            let mut failures = outcomes.into_iter().cycle();
            for uid in 1..=300u32 {
                let fails = failures.next() == Some(0);
                if fails {
                    if cursor.fail(uid) == Verdict::GiveUp {
                        prop_assert!(ended.insert(uid));
                    }
                } else {
                    cursor.settle(uid);
                    prop_assert!(ended.insert(uid));
                }
                prop_assert!(cursor.pending().len() <= MAX_PENDING);
                let stored = Cursor::decode(Some(&cursor.encode())).expect("decodes").expect("a cursor");
                prop_assert_eq!(&stored, &cursor);
            }
            for _ in 0..MAX_ATTEMPTS {
                for uid in cursor.pending() {
                    prop_assert!(!ended.contains(&uid));
                    if cursor.fail(uid) == Verdict::GiveUp {
                        ended.insert(uid);
                    }
                }
            }
            prop_assert_eq!(ended.len(), 300);
            prop_assert_eq!(cursor.done, 300);
        }

        #[test]
        fn any_bytes_are_a_cursor_or_an_error(value in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = Cursor::decode(Some(&v1::Cursor { protocol: "imap".into(), value }));
        }
    }
}

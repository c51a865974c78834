//! How far a folder has been read. Pure; opaque to everybody else.
//!
//! A low-water mark and a bounded set of messages below it that are still to be read: one that fails neither blocks the
//! mailbox nor is skipped.

use std::collections::BTreeMap;

use postroom_proto::v1;
use prost::Message as _;

/// The name of this encoding in [`v1::Cursor::protocol`].
pub const PROTOCOL: &str = "imap";
/// A message is tried this often before it is put aside.
pub const MAX_ATTEMPTS: u32 = 3;
/// Most messages kept pending. When there are more, the next one that fails is put aside at once.
pub const MAX_PENDING: usize = 200;
const VERSION: u32 = 1;

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
    pub uid_validity: u32,
    /// Every message up to this UID is dealt with, or pending.
    pub done: u32,
    /// Messages up to this UID were there at the first reading: `start` decides about them.
    anchor: u32,
    start: Start,
    /// Failed attempts by UID.
    pending: BTreeMap<u32, u32>,
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
        Self { uid_validity, done, anchor, start, pending: BTreeMap::new() }
    }

    /// Reads a stored cursor. `None`: the mailbox was never read.
    pub fn decode(cursor: Option<&v1::Cursor>) -> Result<Option<Self>, Error> {
        let Some(cursor) = cursor.filter(|cursor| !cursor.protocol.is_empty()) else { return Ok(None) };
        if cursor.protocol != PROTOCOL {
            return Err(Error::Protocol(cursor.protocol.clone()));
        }
        let stored = Stored::decode(cursor.value.as_slice()).map_err(|_| Error::Damaged)?;
        if stored.version != VERSION {
            return Err(if stored.version > VERSION { Error::Version(stored.version) } else { Error::Damaged });
        }
        let start = match stored.start {
            1 => Start::Unseen,
            2 => Start::New,
            3 => Start::All,
            4 => Start::Since(stored.since),
            _ => return Err(Error::Damaged),
        };
        Ok(Some(Self {
            uid_validity: stored.uid_validity,
            done: stored.done,
            anchor: stored.anchor,
            start,
            pending: stored.pending.iter().map(|pending| (pending.uid, pending.attempts)).collect(),
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
            version: VERSION,
            uid_validity: self.uid_validity,
            done: self.done,
            anchor: self.anchor,
            start,
            since,
            pending: pending.collect(),
        };
        v1::Cursor { protocol: PROTOCOL.into(), value: stored.encode_to_vec() }
    }

    /// True when a message is to be taken; false when it was there before and the start policy leaves it.
    pub fn takes(&self, uid: u32, seen: bool, received: Option<i64>) -> bool {
        if uid > self.anchor {
            return true;
        }
        match self.start {
            Start::Unseen => !seen,
            Start::New => false,
            Start::All => true,
            // A time that the server does not say is no reason to lose a message.
            Start::Since(since) => received.is_none_or(|received| received >= since),
        }
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
        if uid > self.done {
            return if self.takes(uid, seen, received) { Place::Pending } else { left };
        }
        if uid > self.anchor {
            return Place::Done;
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
        self.pending.get(&uid).copied().or((uid > self.done).then_some(0))
    }

    /// A message was dealt with, whatever became of it.
    pub fn settle(&mut self, uid: u32) {
        self.pending.remove(&uid);
        self.done = self.done.max(uid);
    }

    /// Every message up to `uid` was looked at.
    pub fn pass(&mut self, uid: u32) {
        self.done = self.done.max(uid);
    }

    /// A message could not be read this time.
    pub fn fail(&mut self, uid: u32) -> Verdict {
        let attempts = self.pending.get(&uid).copied().unwrap_or(0) + 1;
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
pub fn split(source_key: &str) -> Option<(u32, u32)> {
    let (validity, uid) = source_key.split_once(':')?;
    Some((validity.parse().ok()?, uid.parse().ok()?))
}

/// Identity of a message within its mailbox.
pub fn source_key(uid_validity: u32, uid: u32) -> String {
    format!("{uid_validity}:{uid}")
}

/// The UID of a source key. `None`: it belongs to another numbering.
pub fn uid_of(source_key: &str, uid_validity: u32) -> Option<u32> {
    let (validity, uid) = split(source_key)?;
    (validity == uid_validity).then_some(uid)
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
    }

    #[test]
    fn cursors_of_version_1_are_read_for_ever() {
        let value = [8, 1, 16, 9, 24, 7, 32, 5, 40, 4, 48, 100, 58, 4, 8, 3, 16, 2];
        let cursor = Cursor::decode(Some(&v1::Cursor { protocol: "imap".into(), value: value.into() }));
        let cursor = cursor.expect("decodes").expect("a cursor");
        assert_eq!((cursor.uid_validity, cursor.done, cursor.anchor, cursor.start), (9, 7, 5, Start::Since(100)));
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
        assert_eq!(decode("imap", &[8, 2]), Err(Error::Version(2)));
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

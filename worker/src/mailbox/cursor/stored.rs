//! The form in which a cursor stands in the ledger: read for ever, and refused by those who do not know all of it.

use postroom_proto::v1;
use prost::Message as _;

use super::renumbered::StoredRenumbered;
use super::waiting::{StoredWaiting, Waiting};
use super::{Cursor, Numbering, PROTOCOL, Renumbered, Start};

/// The version of folders that were never numbered anew. Workers that know no other read these still.
const VERSION: u32 = 1;
/// Of a cursor of a folder that was numbered anew.
const VERSION_RENUMBERED: u32 = 2;
/// Of a cursor with messages that wait: a worker that does not know of them would never read them.
const VERSION_WAITING: u32 = 3;

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
            renumbered: stored.renumbered.map(Renumbered::from),
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
            renumbered: self.renumbered.map(StoredRenumbered::from),
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

#[derive(Clone, PartialEq, prost::Message)]
struct StoredPending {
    #[prost(uint32, tag = "1")]
    uid: u32,
    #[prost(uint32, tag = "2")]
    attempts: u32,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

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
        #[test]
        fn any_bytes_are_a_cursor_or_an_error(value in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = Cursor::decode(Some(&v1::Cursor { protocol: "imap".into(), value }));
        }
    }
}

//! What stands in the store under a session's and a mailbox's key, and in the leader's.

use bytes::Bytes;
use postroom_proto::id::{Epoch, MailboxUid, SessionId};
use serde::{Deserialize, Serialize};

use super::desk::{Assignment, Ended, Session};
use crate::store::{Entry, key};

/// Format of a session's record. Readers take this and the one before.
const FORMAT: u32 = 1;

/// A session, as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRecord {
    format: u32,
    /// Name of its worker.
    pub worker: String,
    /// Build of the worker.
    #[serde(default)]
    pub build: String,
    /// How it ended; absent while it lives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ended: Option<EndedRecord>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct EndedRecord {
    returning: bool,
}

impl SessionRecord {
    /// A session that begins.
    pub fn begun(worker: &str, build: &str) -> Self {
        Self { format: FORMAT, worker: worker.into(), build: build.into(), ended: None }
    }

    /// The same session, ended.
    pub fn ended(mut self, returning: bool) -> Self {
        self.ended = Some(EndedRecord { returning });
        self
    }

    /// True once it has ended.
    pub fn is_over(&self) -> bool {
        self.ended.is_some()
    }

    /// The value for the store.
    pub fn encode(&self) -> Bytes {
        // A struct of strings, numbers and bools always has a JSON form.
        serde_json::to_vec(self).unwrap_or_default().into()
    }

    /// Reads a value of the store; `None` when it is not a session's record.
    pub fn decode(value: &[u8]) -> Option<Self> {
        serde_json::from_slice(value).ok()
    }
}

/// The session that an entry holds; `None` when the entry is no session's.
pub fn session(entry: &Entry) -> Option<Session> {
    let record = SessionRecord::decode(&entry.value)?;
    Some(Session {
        id: key::parse_session(&entry.key)?,
        worker: record.worker,
        ended: record.ended.map(|ended| Ended { returning: ended.returning }),
        revision: entry.mod_revision,
    })
}

/// The assignment that an entry holds; `None` when the entry is no assignment.
pub fn assignment(entry: &Entry) -> Option<(MailboxUid, Assignment)> {
    let mailbox = key::parse_assignment(&entry.key)?;
    let session = SessionId::parse(std::str::from_utf8(&entry.value).ok()?).ok()?;
    Some((mailbox, Assignment { session, epoch: Epoch(entry.mod_revision.0) }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Revision;

    #[test]
    fn a_session_is_read_back_and_its_stored_form_stays_readable() {
        let stored = br#"{"format":1,"worker":"w1","build":"0.1.0","ended":{"returning":true}}"#;
        let record = SessionRecord::begun("w1", "0.1.0").ended(true);
        assert_eq!(SessionRecord::decode(stored), Some(record.clone()));
        assert_eq!(record.encode().as_ref(), stored);
        let id = SessionId::random();
        let entry = Entry { key: key::session(&id), value: record.encode(), mod_revision: Revision(7) };
        let read = session(&entry).unwrap();
        assert_eq!((read.id, read.worker.as_str(), read.revision), (id, "w1", Revision(7)));
        assert_eq!(read.ended, Some(Ended { returning: true }));
    }
}

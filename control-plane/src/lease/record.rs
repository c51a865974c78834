//! What stands in the store under a session's and a mailbox's key.
//!
//! A reader takes every form that was ever written: sessions without a profile, assignments that are a bare session id.

use bytes::Bytes;
use postroom_proto::id::{Epoch, MailboxUid, SessionId};
use postroom_proto::v1::MoveReason;
use serde::{Deserialize, Serialize};

use super::desk::{Assignment, Ended, Session};
use super::profile::Profile;
use crate::ledger::Micros;
use crate::store::{self, Entry, SharedStore, key};

/// Format of a session's record. The first had neither pool, role, capacity nor a time.
const SESSION: u32 = 2;

/// A session, as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRecord {
    format: u32,
    /// What its worker said about itself.
    #[serde(flatten)]
    pub profile: Profile,
    /// When it began, for people; absent where that was not recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begun: Option<Micros>,
    /// How it ended; absent while it lives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ended: Option<EndedRecord>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct EndedRecord {
    returning: bool,
    #[serde(default)]
    silent: bool,
}

impl SessionRecord {
    /// A session that begins.
    pub fn begun(profile: Profile, begun: Micros) -> Self {
        Self { format: SESSION, profile, begun: Some(begun), ended: None }
    }

    /// The same session, ended.
    pub fn ended(mut self, how: Ended) -> Self {
        self.ended = Some(EndedRecord { returning: how.returning, silent: how.silent });
        self
    }

    /// True once it has ended.
    pub fn is_over(&self) -> bool {
        self.ended.is_some()
    }

    /// The value for the store.
    pub fn encode(&self) -> Bytes {
        encode(self)
    }

    /// Reads a value of the store; `None` when it is not a session's record.
    pub fn decode(value: &[u8]) -> Option<Self> {
        serde_json::from_slice(value).ok()
    }
}

/// The session that an entry holds; `None` when the entry is no session's.
pub fn session(entry: &Entry) -> Option<Session> {
    let SessionRecord { profile, begun, ended, .. } = SessionRecord::decode(&entry.value)?;
    let ended = ended.map(|EndedRecord { returning, silent }| Ended { returning, silent });
    Some(Session { id: key::parse_session(&entry.key)?, profile, begun, ended, revision: entry.mod_revision })
}

/// The record of a session that lives.
pub async fn living(store: &SharedStore, session: &SessionId) -> Result<Option<SessionRecord>, store::Error> {
    let entry = store.get(&key::session(session)).await?;
    let record = entry.and_then(|entry| SessionRecord::decode(&entry.value));
    Ok(record.filter(|record| !record.is_over()))
}

/// Who has a mailbox and how it came to it, as JSON. Its epoch is the revision that wrote it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssignmentRecord {
    /// The owner.
    pub session: String,
    /// Name of the active worker that the owner, a spare, stands in for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub home: Option<String>,
    /// Since when; absent where that was not recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Micros>,
    /// Name of a [`MoveReason`], without its prefix.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// Name of the worker that had it before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub former: Option<String>,
}

/// Stands before the names of reasons on the wire, and is left out in the store.
const REASON: &str = "MOVE_REASON_";

impl AssignmentRecord {
    /// A mailbox that comes to a session now.
    pub fn new(to: &SessionId, home: Option<&str>, since: Micros, reason: MoveReason, former: Option<&str>) -> Self {
        Self {
            session: to.to_string(),
            home: home.map(Into::into),
            since: Some(since),
            reason: Some(reason.as_str_name().trim_start_matches(REASON).into()),
            former: former.map(Into::into),
        }
    }

    /// Why it came to its owner.
    pub fn reason(&self) -> MoveReason {
        let name = self.reason.as_ref().map(|reason| format!("{REASON}{reason}"));
        name.and_then(|name| MoveReason::from_str_name(&name)).unwrap_or_default()
    }

    /// The value for the store.
    pub fn encode(&self) -> Bytes {
        encode(self)
    }

    /// Reads a value of the store; `None` when it is no assignment's.
    pub fn decode(value: &[u8]) -> Option<Self> {
        if value.first() == Some(&b'{') {
            return serde_json::from_slice(value).ok();
        }
        let session = std::str::from_utf8(value).ok()?.to_owned();
        Some(Self { session, home: None, since: None, reason: None, former: None })
    }
}

/// The assignment that an entry holds; `None` when the entry is no assignment.
pub fn assignment(entry: &Entry) -> Option<(MailboxUid, Assignment)> {
    let mailbox = key::parse_assignment(&entry.key)?;
    let AssignmentRecord { session, home, .. } = AssignmentRecord::decode(&entry.value)?;
    let session = SessionId::parse(&session).ok()?;
    Some((mailbox, Assignment { session, epoch: Epoch(entry.mod_revision.0), home }))
}

/// The JSON form of a struct of strings, numbers and bools, which always has one.
pub(super) fn encode(record: &impl Serialize) -> Bytes {
    serde_json::to_vec(record).unwrap_or_default().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lease::profile::Role;
    use crate::store::Revision;

    fn entry(key: String, value: Bytes) -> Entry {
        Entry { key, value, mod_revision: Revision(7) }
    }

    #[test]
    fn a_session_is_read_back_and_its_stored_form_stays_readable() {
        let stored = br#"{"format":2,"worker":"w1","build":"0.1.0","pool":"north","role":"spare","capacity":50,"begun":5,"ended":{"returning":true,"silent":false}}"#;
        let profile = Profile {
            build: "0.1.0".into(),
            pool: "north".into(),
            role: Role::Spare,
            capacity: 50,
            ..Profile::new("w1")
        };
        let ended = Ended { returning: true, silent: false };
        let record = SessionRecord::begun(profile.clone(), 5).ended(ended);
        assert_eq!(SessionRecord::decode(stored), Some(record.clone()));
        assert_eq!(record.encode().as_ref(), stored);
        let id = SessionId::random();
        let read = session(&entry(key::session(&id), record.encode())).unwrap();
        assert_eq!((read.id, read.profile, read.revision), (id, profile, Revision(7)));
        assert_eq!((read.begun, read.ended), (Some(5), Some(ended)));
    }

    #[test]
    fn a_session_of_the_first_format_is_an_active_one_of_the_default_pool() {
        let stored = br#"{"format":1,"worker":"w1","build":"0.1.0","ended":{"returning":true}}"#;
        let record = SessionRecord::decode(stored).unwrap();
        assert_eq!(record.profile, Profile { build: "0.1.0".into(), ..Profile::new("w1") });
        assert!(record.is_over() && record.begun.is_none());
    }

    #[test]
    fn an_assignment_is_read_back_and_its_stored_form_stays_readable() {
        let (mailbox, id) = (MailboxUid::derive("a@b.example", "INBOX", "b.example"), SessionId::parse("s1").unwrap());
        let stored = br#"{"session":"s1","home":"w1","since":5,"reason":"WORKER_SILENT","former":"w1"}"#;
        let record = AssignmentRecord::new(&id, Some("w1"), 5, MoveReason::WorkerSilent, Some("w1"));
        assert_eq!(record.encode().as_ref(), stored);
        assert_eq!(AssignmentRecord::decode(stored), Some(record.clone()));
        assert_eq!(record.reason(), MoveReason::WorkerSilent);
        let read = assignment(&entry(key::assignment(&mailbox), record.encode())).unwrap();
        assert_eq!(read, (mailbox, Assignment { session: id, epoch: Epoch(7), home: Some("w1".into()) }));
    }

    #[test]
    fn an_assignment_that_is_a_bare_session_id_is_read() {
        let mailbox = MailboxUid::derive("a@b.example", "INBOX", "b.example");
        let id = SessionId::random();
        let (_, read) = assignment(&entry(key::assignment(&mailbox), id.to_string().into())).unwrap();
        assert_eq!((read.session, read.home), (id, None));
        let record = AssignmentRecord::decode(b"s1").unwrap();
        assert_eq!((record.reason(), record.since), (MoveReason::Unspecified, None));
        assert_eq!(assignment(&entry(key::assignment(&mailbox), "no session".into())), None);
    }
}

//! Names of the keys in the store. No other file spells one.

use postroom_proto::id::{MailboxUid, SessionId, is_name};

use crate::access::credential::is_id;

/// Who leads.
pub const LEADER: &str = "leader";
/// The id of the store, where the back end has no other place for it.
pub const STORE_ID: &str = "store/id";
/// The id of the ledger that belongs to this store.
pub const STORE_LEDGER: &str = "store/ledger";
/// Prefix of what operators have decided about workers, by the worker's name.
pub const WORKERS: &str = "worker/";
/// Present while an operator has frozen the fleet.
pub const FREEZE: &str = "freeze";
/// Prefix of the worker sessions.
pub const SESSIONS: &str = "session/";
/// Prefix of the mailbox assignments.
pub const ASSIGNMENTS: &str = "assign/";
/// The newest revision of the model.
pub const MODEL_HEAD: &str = "model/head";
/// Prefix of all revisions of the model; they sort by number.
pub const MODEL_REVISIONS: &str = "model/revision/";
/// Prefix of the objects of the model.
pub const MODEL_OBJECTS: &str = "model/object/";

/// Prefix of what callers are known by.
pub const ACCESS: &str = "access/";
/// The installation's own CA.
pub const AUTHORITY: &str = "access/authority";
/// The token that was made last. It is written with every token, so that of two which are made at one moment one is
/// made first.
pub const LAST_TOKEN: &str = "access/last-token";
/// Prefix of the credentials.
const CREDENTIALS: &str = "access/credential/";
/// Prefix of when credentials were last used. Apart from them, since whoever follows those must not hear of each use.
pub const USES: &str = "used/";

/// A credential.
pub fn credential(id: &str) -> String {
    format!("{CREDENTIALS}{id}")
}

/// The credential that a key names.
pub fn parse_credential(key: &str) -> Option<&str> {
    key.strip_prefix(CREDENTIALS).filter(|id| is_id(id))
}

/// When a credential was last used.
pub fn usage(id: &str) -> String {
    format!("{USES}{id}")
}

/// The credential whose use a key names.
pub fn parse_usage(key: &str) -> Option<&str> {
    key.strip_prefix(USES).filter(|id| is_id(id))
}

/// A worker session.
pub fn session(id: &SessionId) -> String {
    format!("{SESSIONS}{id}")
}

/// The session that a key names.
pub fn parse_session(key: &str) -> Option<SessionId> {
    SessionId::parse(key.strip_prefix(SESSIONS)?).ok()
}

/// What operators have decided about a worker.
pub fn worker(name: &str) -> String {
    format!("{WORKERS}{name}")
}

/// The worker that a key names.
pub fn parse_worker(key: &str) -> Option<&str> {
    key.strip_prefix(WORKERS).filter(|name| is_name(name))
}

/// The assignment of a mailbox.
pub fn assignment(mailbox: &MailboxUid) -> String {
    format!("{ASSIGNMENTS}{mailbox}")
}

/// The mailbox whose assignment a key names.
pub fn parse_assignment(key: &str) -> Option<MailboxUid> {
    MailboxUid::parse(key.strip_prefix(ASSIGNMENTS)?).ok()
}

/// A revision of the model.
pub fn model_revision(number: u64) -> String {
    format!("{MODEL_REVISIONS}{number:010}")
}

/// The revision of the model that a key names.
pub fn parse_model_revision(key: &str) -> Option<u64> {
    let digits = key.strip_prefix(MODEL_REVISIONS)?;
    let fits = digits.len() >= 10 && digits.bytes().all(|b| b.is_ascii_digit());
    fits.then(|| digits.parse().ok()).flatten()
}

/// An object of the model by its digest: SHA-256 in lower-case hexadecimal.
pub fn model_object(digest: &str) -> String {
    format!("{MODEL_OBJECTS}{digest}")
}

/// The digest of the object that a key names.
pub fn parse_model_object(key: &str) -> Option<&str> {
    let digest = key.strip_prefix(MODEL_OBJECTS)?;
    let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    (digest.len() == 64 && digest.bytes().all(hex)).then_some(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_read_back() {
        let id = SessionId::random();
        assert_eq!(parse_session(&session(&id)), Some(id));
        let mailbox = MailboxUid::derive("a@b.example", "INBOX", "b.example");
        assert_eq!(parse_assignment(&assignment(&mailbox)), Some(mailbox));
        assert_eq!(parse_worker(&worker("w-1")), Some("w-1"));
        assert_eq!(parse_credential(&credential("0123456789ab")), Some("0123456789ab"));
        assert_eq!(parse_usage(&usage("0123456789ab")), Some("0123456789ab"));
        assert_eq!(model_revision(42), "model/revision/0000000042");
        for number in [0, 42, 9_999_999_999] {
            assert_eq!(parse_model_revision(&model_revision(number)), Some(number));
        }
        let digest = "ab".repeat(32);
        assert_eq!(parse_model_object(&model_object(&digest)), Some(digest.as_str()));
    }

    #[test]
    fn revisions_sort_by_number() {
        assert!(model_revision(9) < model_revision(10));
        assert!(model_revision(999_999) < model_revision(1_000_000));
    }

    #[test]
    fn other_keys_are_not_mistaken() {
        assert_eq!(parse_session("assign/x"), None);
        assert_eq!(parse_assignment("assign/someone"), None);
        assert_eq!(parse_worker("worker/A b"), None);
        assert_eq!(parse_credential(AUTHORITY), None);
        assert_eq!(parse_credential("access/credential/../x"), None);
        assert_eq!(parse_model_revision("model/revision/+000000001"), None);
        assert_eq!(parse_model_object("model/object/../x"), None);
    }
}

//! Who is meant: typed ids, so that one is never taken for another.

use std::borrow::Cow;
use std::fmt;

use sha2::{Digest as _, Sha256};

use crate::folder::in_utf7;

/// Why a text is not an id of its kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {what}")]
pub struct InvalidId {
    text: String,
    what: &'static str,
}

/// What [`is_name`] asks for, in words.
pub const NAME_RULE: &str = "1 to 62 lower-case letters, digits and hyphens, a letter first";

/// True for names of workers, pools and instances: `[a-z][a-z0-9-]{0,61}`.
pub fn is_name(text: &str) -> bool {
    let mut bytes = text.bytes();
    text.len() <= 62
        && bytes.next().is_some_and(|first| first.is_ascii_lowercase())
        && bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// A name made of any text, such as the name of a host: what does not belong in one becomes a hyphen.
pub fn name_of(text: &str) -> String {
    let mut name: String = text.trim().to_lowercase();
    if !name.starts_with(|first: char| first.is_ascii_lowercase()) {
        name.insert_str(0, "host-");
    }
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let name: String = name.chars().map(|c| if fits(c) { c } else { '-' }).take(62).collect();
    name.trim_end_matches('-').to_owned()
}

/// One life of a worker process. Random, so that a restarted worker is never taken for its former self.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(String);

impl SessionId {
    /// A session id that nobody had before.
    pub fn random() -> Self {
        Self(uuid::Uuid::new_v4().simple().to_string())
    }

    /// Takes what came over the wire: 1 to 64 letters, digits and hyphens.
    pub fn parse(text: &str) -> Result<Self, InvalidId> {
        let fits = (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        if fits { Ok(Self(text.into())) } else { Err(InvalidId { text: text.into(), what: "a session id" }) }
    }

    /// The text of the id.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a lease is for.
///
/// Derived from what is read, never minted: the same e-mail, folder and tenant (or host) always have the same uid, so
/// that renaming, moving, removing and adding again find the former cursor and ledger.
///
/// Kept in place and not on the heap: a leader that hears of 50,000 of them a second allocates nothing for that.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MailboxUid([u8; UID]);

/// `mbx-` and 24 hexadecimal digits.
const UID: usize = 28;

impl MailboxUid {
    /// The uid of the mailbox that `email` and `folder` name in `realm`, which is the tenant (OAuth) or the IMAP host.
    pub fn derive(email: &str, folder: &str, realm: &str) -> Self {
        let email = email.trim().to_lowercase();
        // RFC 3501 section 5.1: INBOX is the one name without case. Exchange folds all of them, Dovecot none.
        let folder = if folder.eq_ignore_ascii_case("inbox") { "INBOX" } else { folder };
        // One folder, whether its name is written as people see it or as the server lists it.
        let folder = if folder.is_ascii() { Cow::Borrowed(folder) } else { Cow::Owned(in_utf7(folder)) };
        let realm = realm.trim().to_lowercase();
        let mut hash = Sha256::new();
        for part in [email.as_str(), &folder, realm.as_str()] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part.as_bytes());
        }
        let digest = hash.finalize();
        let mut uid = *b"mbx-000000000000000000000000";
        data_encoding::HEXLOWER.encode_mut(&digest[..12], &mut uid[4..]);
        Self(uid)
    }

    /// Takes what came over the wire.
    pub fn parse(text: &str) -> Result<Self, InvalidId> {
        let hex = text.strip_prefix("mbx-").unwrap_or_default();
        let fits = hex.len() == 24 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        let uid = text.as_bytes().try_into().ok().filter(|_| fits);
        uid.map(Self).ok_or_else(|| InvalidId { text: text.into(), what: "a mailbox uid" })
    }

    /// The text of the uid.
    pub fn as_str(&self) -> &str {
        // Invariant: nothing but ASCII is ever put in.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Debug for MailboxUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MailboxUid({self})")
    }
}

impl fmt::Display for MailboxUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Fences the writes made under a lease. Minted by the store (the revision that wrote the assignment), never by a
/// holder, and only ever grows for a mailbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Epoch(pub u64);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Counts how often the ledger was handed to another store. Epochs of different generations do not compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Generation(pub u64);

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_host_has_a_name() {
        for (host, name) in [
            ("mail-1", "mail-1"),
            ("Mail-1.Example.org\n", "mail-1-example-org"),
            ("7a1f", "host-7a1f"),
            ("", "host"),
            ("ünïcode_.", "host--n-code"),
        ] {
            assert_eq!(name_of(host), name);
            assert!(is_name(&name_of(host)), "{host:?}");
        }
        assert_eq!(name_of(&"x".repeat(100)).len(), 62);
    }

    #[test]
    fn a_mailbox_is_known_again_however_it_is_written() {
        let uid = MailboxUid::derive("Billing@Contoso.example", "inbox", "CONTOSO.example");
        assert_eq!(uid, MailboxUid::derive(" billing@contoso.example ", "INBOX", "contoso.example"));
        assert_ne!(uid, MailboxUid::derive("billing@contoso.example", "Archive", "contoso.example"));
        assert_ne!(uid, MailboxUid::derive("billing@contoso.example", "INBOX", "fabrikam.example"));
        let drafts = |folder| MailboxUid::derive("billing@contoso.example", folder, "contoso.example");
        assert_eq!(drafts("Entwürfe"), drafts("Entw&APw-rfe"));
        assert_eq!(MailboxUid::parse(uid.as_str()), Ok(uid));
    }

    #[test]
    fn parts_of_a_mailbox_do_not_run_into_each_other() {
        assert_ne!(MailboxUid::derive("a", "bc", "d"), MailboxUid::derive("ab", "c", "d"));
    }

    #[test]
    fn names_are_those_of_dns_labels_with_a_letter_first() {
        assert!(is_name("core1") && is_name("a") && is_name(&"a".repeat(62)));
        for bad in ["", "1core", "Core1", "core_1", "-a", "ä", &"a".repeat(63)] {
            assert!(!is_name(bad), "{bad}");
        }
    }
}

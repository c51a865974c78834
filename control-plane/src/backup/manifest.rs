//! What an archive says of itself: the manifest before, the seal behind everything else.

use std::collections::BTreeMap;

use postroom_proto::{convert, v1};
use serde::{Deserialize, Serialize};

use crate::ledger::sqlite::copy::Description as Ledger;
use crate::store::sqlite::copy::Description as Store;

/// Most lost bodies that are named; the rest is only counted.
pub(super) const NAMED: usize = 1000;

/// First member: what follows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// See [`super::FORMAT`].
    pub format: u32,
    /// Version of Postroom that made it.
    pub version: String,
    /// Whatever was acknowledged before is in it: microseconds since 1970.
    pub created_micros: i64,
    /// The ledger's id.
    pub ledger_id: String,
    /// Its size in the archive.
    pub ledger_bytes: u64,
    /// Highest epoch of any fence in it.
    pub highest_epoch: u64,
    /// Messages in it.
    pub messages: u64,
    /// Contacts in it.
    pub contacts: u64,
    /// The store's id.
    pub store_id: String,
    /// Its size in the archive.
    pub store_bytes: u64,
    /// Its newest revision.
    pub revision: u64,
    /// Bodies that follow.
    pub bodies: u64,
    /// Their size together.
    pub body_bytes: u64,
    /// How many bodies the ledger names that were not there.
    pub missing_bodies: u64,
    /// Digests of the first of them.
    pub missing: Vec<String>,
    /// Name of the key that seals.
    pub key_id: String,
    /// Names of older keys, under which secrets in it may still be sealed: it was made while the key was rotated.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub further_key_ids: Vec<String>,
    /// Size of the key file in the archive; 0 when it is left out.
    pub key_bytes: u64,
}

/// Last member: that nothing is missing or altered. It finds damage, not forgery: whoever can write an archive can write
/// its seal.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Seal {
    /// SHA-256 of every member but bodies, which are named by theirs.
    pub members: BTreeMap<String, String>,
    /// Bodies whose bytes were not what their name says already when the backup was made.
    pub damaged: Vec<String>,
}

impl Manifest {
    /// Names of all keys that open what is in it, the one that seals first.
    pub(super) fn key_ids(&self) -> impl Iterator<Item = &String> {
        std::iter::once(&self.key_id).chain(&self.further_key_ids)
    }

    /// True when ledger and store fit what is said of them.
    pub(super) fn describes(&self, ledger: &Ledger, store: &Store) -> bool {
        let of_ledger = (&ledger.id, ledger.highest_epoch, ledger.messages, ledger.contacts);
        let of_store = (&store.id, store.revision.0);
        of_ledger == (&self.ledger_id, self.highest_epoch, self.messages, self.contacts)
            && of_store == (&self.store_id, self.revision)
            && ledger.store_id.as_ref() == Some(&store.id)
    }

    /// Bytes of the members that follow, before the seal.
    pub fn payload_bytes(&self) -> u64 {
        [self.store_bytes, self.body_bytes, self.key_bytes]
            .iter()
            .fold(self.ledger_bytes, |sum, n| sum.saturating_add(*n))
    }

    /// The same for the wire.
    pub fn describe(&self, seal: &Seal) -> v1::Backup {
        v1::Backup {
            format: self.format,
            version: self.version.clone(),
            created_time: Some(convert::to_timestamp(self.created_micros)),
            ledger_id: self.ledger_id.clone(),
            store_id: self.store_id.clone(),
            revision: self.revision,
            message_count: self.messages,
            contact_count: self.contacts,
            body_count: self.bodies,
            body_bytes: self.body_bytes,
            lost_body_count: self.missing_bodies.saturating_add(seal.damaged.len() as u64),
            key_id: self.key_id.clone(),
            key_included: self.key_bytes > 0,
        }
    }
}

//! What operators decide: about workers, by name, and about the fleet as a whole. It stands in the store until it is
//! taken back.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::profile::Role;
use super::record;
use crate::ledger::Micros;

/// Format of both records.
const FORMAT: u32 = 1;

/// What is decided about every session of a worker's name, as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    format: u32,
    /// It is given no mailbox, and gives away those it has.
    #[serde(default)]
    pub drained: bool,
    /// What it is for, whatever it says itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// When the last decision was made.
    pub time: Micros,
    /// Who made it.
    #[serde(default)]
    pub by: String,
}

impl Decision {
    /// Nothing is decided yet, as somebody says.
    pub fn new(time: Micros, by: impl Into<String>) -> Self {
        Self { format: FORMAT, drained: false, role: None, time, by: by.into() }
    }

    /// The value for the store.
    pub fn encode(&self) -> Bytes {
        record::encode(self)
    }

    /// Reads a value of the store; `None` when it is no decision.
    pub fn decode(value: &[u8]) -> Option<Self> {
        serde_json::from_slice(value).ok()
    }
}

/// The fleet is frozen: no session is ended for its silence, and nothing moves that has a seat. As JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Freeze {
    format: u32,
    /// Since when.
    pub since: Micros,
    /// Until when; absent: until somebody ends it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Micros>,
    /// Who froze it.
    #[serde(default)]
    pub by: String,
    /// Why.
    #[serde(default)]
    pub note: String,
}

impl Freeze {
    /// From now on.
    pub fn new(since: Micros, until: Option<Micros>, by: impl Into<String>, note: impl Into<String>) -> Self {
        Self { format: FORMAT, since, until, by: by.into(), note: note.into() }
    }

    /// False once its time is over.
    pub fn holds(&self, now: Micros) -> bool {
        self.until.is_none_or(|until| now < until)
    }

    /// The value for the store.
    pub fn encode(&self) -> Bytes {
        record::encode(self)
    }

    /// Reads a value of the store; `None` when it is no freeze.
    pub fn decode(value: &[u8]) -> Option<Self> {
        serde_json::from_slice(value).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decision_is_read_back_and_its_stored_form_stays_readable() {
        let stored = br#"{"format":1,"drained":true,"role":"spare","time":5,"by":"operator"}"#;
        let decision = Decision { drained: true, role: Some(Role::Spare), ..Decision::new(5, "operator") };
        assert_eq!(decision.encode().as_ref(), stored);
        assert_eq!(Decision::decode(stored), Some(decision));
    }

    #[test]
    fn a_freeze_is_read_back_and_ends_by_itself() {
        let stored = br#"{"format":1,"since":5,"until":9,"by":"operator","note":"etcd"}"#;
        let freeze = Freeze::new(5, Some(9), "operator", "etcd");
        assert_eq!(freeze.encode().as_ref(), stored);
        assert_eq!(Freeze::decode(stored), Some(freeze.clone()));
        assert!(freeze.holds(8) && !freeze.holds(9));
        assert!(Freeze::new(5, None, "", "").holds(Micros::MAX));
    }
}

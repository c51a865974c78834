//! Attempts that were not let in, counted until they are written down. Pure.
//!
//! Invariant: whoever floods costs a bounded number of rows a minute and a bounded amount of memory. Attempts of one caller,
//! address, call and reason within a minute are one row; beyond [`KINDS`] of them in a minute the others of each reason
//! are one row together.

use std::collections::BTreeMap;

use crate::ledger::Micros;
use crate::ledger::audit::{Begun, Refused};

/// Most kinds of attempts that are told apart between two writings.
pub const KINDS: usize = 50;
/// The address of those beyond.
pub const OTHERS: &str = "(others)";

type Kind = (String, String, String, String, String);

/// What was counted since it was last written down.
#[derive(Debug, Default)]
pub struct Refusals(BTreeMap<Kind, Refused>);

impl Refusals {
    /// Counts an attempt.
    pub fn add(&mut self, call: Begun, reason: &str) {
        let at = call.at;
        self.merge(Refused { call, reason: reason.into(), count: 1, last_at: at });
    }

    /// Counts again what could not be written down.
    pub fn put_back(&mut self, refused: Vec<Refused>) {
        refused.into_iter().for_each(|it| self.merge(it));
    }

    /// All that was counted, the first first; from here on it is counted anew.
    pub fn take(&mut self) -> Vec<Refused> {
        let mut all: Vec<Refused> = std::mem::take(&mut self.0).into_values().collect();
        all.sort_by_key(|it| it.call.at);
        all
    }

    fn merge(&mut self, mut refused: Refused) {
        let full = self.0.len() >= KINDS;
        let mut kind = kind(&refused);
        if full && !self.0.contains_key(&kind) {
            let Begun { at, .. } = refused.call;
            refused.call = Begun { at, address: OTHERS.into(), ..Begun::default() };
            kind = self::kind(&refused);
        }
        match self.0.get_mut(&kind) {
            None => _ = self.0.insert(kind, refused),
            Some(known) => {
                known.count = known.count.saturating_add(refused.count);
                known.call.at = known.call.at.min(refused.call.at);
                known.last_at = known.last_at.max(refused.last_at);
            }
        }
    }
}

fn kind(refused: &Refused) -> Kind {
    let call = &refused.call;
    (call.who.clone(), call.role.clone(), call.address.clone(), call.rpc.clone(), refused.reason.clone())
}

/// The rows of a page of refusals are cut to what is of use: a path that nobody serves may be as long as a caller likes.
pub fn call(at: Micros, who: String, role: String, address: String, path: &str) -> Begun {
    let rpc = super::describe::cut(path.trim_start_matches('/'), 100);
    Begun { at, who, role, address, rpc, ..Begun::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(at: Micros, address: &str) -> Begun {
        call(at, String::new(), String::new(), address.into(), "/postroom.v1.DefinitionService/ApplyModel")
    }

    #[test]
    fn a_flood_from_one_address_is_one_row() {
        let mut refusals = Refusals::default();
        (0..10_000).for_each(|at| refusals.add(attempt(at, "192.0.2.1"), "UNAUTHENTICATED"));
        refusals.add(attempt(7, "192.0.2.2"), "UNAUTHENTICATED");
        let rows = refusals.take();
        assert_eq!(rows.len(), 2);
        assert_eq!((rows[0].count, rows[0].call.at, rows[0].last_at), (10_000, 0, 9999));
        assert!(refusals.take().is_empty(), "each is told once");
    }

    #[test]
    fn a_flood_from_everywhere_is_a_bounded_number_of_rows_and_counted_whole() {
        let mut refusals = Refusals::default();
        for at in 0..10_000 {
            refusals.add(attempt(at, &format!("2001:db8::{at:x}")), "UNAUTHENTICATED");
            refusals.add(attempt(at, &format!("2001:db8::{at:x}")), "PERMISSION_DENIED");
        }
        let rows = refusals.take();
        assert!(rows.len() <= KINDS + 2, "{}", rows.len());
        assert_eq!(rows.iter().map(|it| it.count).sum::<u64>(), 20_000);
        assert_eq!(rows.iter().filter(|it| it.call.address == OTHERS).count(), 2, "one for each reason");
        refusals.put_back(rows);
        assert_eq!(refusals.take().iter().map(|it| it.count).sum::<u64>(), 20_000, "what was not written is not lost");
        assert!(call(0, String::new(), String::new(), String::new(), &"/x".repeat(9999)).rpc.len() < 200);
    }
}

//! The order of contacts and the changes of their state, as pure functions. The ledger stores what they decide.
//!
//! Promise: at the moment of allocation no queued contact of the instance has a better place than one handed out. The
//! [`Key`] of a contact is frozen at intake; how keys compare is the policy of the instance.

use std::cmp::Ordering;

use postroom_proto::v1::ContactState;

use crate::definition::model::Allocation;
use crate::ledger::Micros;

/// A contact that was refused so often is dead: it is handed out no more until somebody requeues it.
pub const MOST_REFUSALS: u32 = 10;
/// Longest time from allocation to deadline, however often it is extended: a working day.
pub const LONGEST_HOLD: Micros = 8 * 3600 * 1_000_000;

/// Place of a contact in the order of its instance. Frozen at intake, so that giving a contact back restores its place.
/// Its own order is that of the policy `strict`: the smaller, the sooner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Effective priority; 1 is first.
    pub priority: u32,
    /// Since when it waits.
    pub waiting_since: Micros,
    /// Order of intake, so that no two are equal.
    pub message: i64,
}

impl Key {
    /// `Less` when this contact is to be handed out before the other at `now`. Never `Equal` for two contacts.
    pub fn compare(&self, other: &Self, policy: Allocation, now: Micros) -> Ordering {
        match policy {
            Allocation::Strict => self.cmp(other),
            // waited / priority > waited' / priority', without division.
            Allocation::TargetTime => {
                let waited = |key: &Self| i128::from(now.saturating_sub(key.waiting_since).max(0));
                let (ours, theirs) = (i128::from(self.priority.max(1)), i128::from(other.priority.max(1)));
                (waited(other) * ours).cmp(&(waited(self) * theirs)).then_with(|| self.cmp(other))
            }
        }
    }
}

/// The best `max` of what waits, best first.
pub fn best(mut waiting: Vec<Key>, policy: Allocation, now: Micros, max: usize) -> Vec<Key> {
    waiting.sort_by(|a, b| a.compare(b, policy, now));
    waiting.truncate(max);
    waiting
}

/// Who holds a contact, and until when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Custody {
    /// Where the contact stands.
    pub state: ContactState,
    /// The allocation it is or was handed out by; empty while queued.
    pub request_id: String,
    /// When it was handed out; only while it is or was.
    pub allocated_at: Option<Micros>,
    /// Until when it must be accepted; only while allocated.
    pub deadline_at: Option<Micros>,
    /// How often it was given back or its deadline was missed.
    pub refusals: u32,
}

/// Why an answer was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// No such contact in this instance.
    #[error("there is no such contact in this instance")]
    Unknown,
    /// It was never handed out, or was put back meanwhile.
    #[error("it is not allocated: it was given back, or its deadline passed; take it again")]
    NotAllocated,
    /// Somebody else has it.
    #[error("it is allocated by another request; only that one may answer for it")]
    OtherRequest,
    /// Its state does not allow it.
    #[error("{0}")]
    WrongState(&'static str),
}

/// What an answer does to a contact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Write the new state.
    Change(ContactState),
    /// Write the new deadline.
    Extend(Micros),
    /// It is so already.
    Nothing(ContactState),
}

impl Custody {
    fn is_by(&self, request_id: &str) -> bool {
        request_id.is_empty() || self.request_id == request_id
    }
}

/// True when a contact that is allocated must go back to its place.
pub fn lapsed(custody: &Custody, now: Micros) -> bool {
    custody.state == ContactState::Allocated && custody.deadline_at.is_none_or(|deadline| deadline <= now)
}

/// Where a contact goes that was refused `refusals` times before and now once more.
pub fn refuse(refusals: u32) -> ContactState {
    if refusals.saturating_add(1) >= MOST_REFUSALS { ContactState::Dead } else { ContactState::Queued }
}

/// Takes custody for `request_id`; an empty one means whichever allocation it is in.
pub fn accept(custody: &Custody, request_id: &str, now: Micros) -> Result<Effect, Refused> {
    let ours = custody.is_by(request_id);
    match custody.state {
        ContactState::Allocated if !ours => Err(Refused::OtherRequest),
        // Invariant: a deadline that has passed counts as passed even before anybody put the contact back.
        ContactState::Allocated if lapsed(custody, now) => Err(Refused::NotAllocated),
        ContactState::Allocated => Ok(Effect::Change(ContactState::Accepted)),
        ContactState::Accepted | ContactState::Ended if ours => Ok(Effect::Nothing(custody.state)),
        ContactState::Accepted | ContactState::Ended => Err(Refused::OtherRequest),
        ContactState::Queued | ContactState::Dead | ContactState::Unspecified => Err(Refused::NotAllocated),
    }
}

/// Gives back what `request_id` holds; an empty one means whichever allocation it is in.
pub fn reject(custody: &Custody, request_id: &str) -> Result<Effect, Refused> {
    match custody.state {
        ContactState::Allocated if custody.is_by(request_id) => Ok(Effect::Change(refuse(custody.refusals))),
        ContactState::Allocated => Err(Refused::OtherRequest),
        ContactState::Queued | ContactState::Dead => Ok(Effect::Nothing(custody.state)),
        ContactState::Accepted => Err(Refused::WrongState("it is accepted already and can no longer be rejected")),
        ContactState::Ended => Err(Refused::WrongState("it has ended and can no longer be rejected")),
        ContactState::Unspecified => Err(Refused::NotAllocated),
    }
}

/// Holds what `request_id` has for `accept_within` from now; an empty one means whichever allocation it is in. A
/// deadline is never shortened, and never later than [`LONGEST_HOLD`] after the allocation.
pub fn extend(custody: &Custody, request_id: &str, accept_within: Micros, now: Micros) -> Result<Effect, Refused> {
    match custody.state {
        ContactState::Allocated if !custody.is_by(request_id) => Err(Refused::OtherRequest),
        ContactState::Allocated if lapsed(custody, now) => Err(Refused::NotAllocated),
        ContactState::Allocated => {
            let latest = custody.allocated_at.unwrap_or(now).saturating_add(LONGEST_HOLD);
            let wanted = now.saturating_add(accept_within).min(latest);
            Ok(Effect::Extend(custody.deadline_at.map_or(wanted, |standing| standing.max(wanted))))
        }
        ContactState::Accepted => Err(Refused::WrongState("it is accepted and has no deadline any more")),
        ContactState::Ended => Err(Refused::WrongState("it has ended")),
        ContactState::Queued | ContactState::Dead | ContactState::Unspecified => Err(Refused::NotAllocated),
    }
}

/// Ends what `request_id` accepted; an empty one means whichever allocation it came by.
pub fn end(custody: &Custody, request_id: &str) -> Result<Effect, Refused> {
    let ours = custody.is_by(request_id);
    match custody.state {
        ContactState::Accepted if ours => Ok(Effect::Change(ContactState::Ended)),
        ContactState::Ended if ours => Ok(Effect::Nothing(ContactState::Ended)),
        ContactState::Accepted | ContactState::Ended => Err(Refused::OtherRequest),
        ContactState::Allocated if ours => Err(Refused::WrongState("it is allocated; accept it first")),
        ContactState::Allocated => Err(Refused::OtherRequest),
        ContactState::Queued | ContactState::Dead | ContactState::Unspecified => Err(Refused::NotAllocated),
    }
}

/// Puts a dead contact back to its place.
pub fn requeue(custody: &Custody) -> Result<Effect, Refused> {
    match custody.state {
        ContactState::Dead => Ok(Effect::Change(ContactState::Queued)),
        ContactState::Queued | ContactState::Allocated => Ok(Effect::Nothing(custody.state)),
        ContactState::Accepted => Err(Refused::WrongState("it is accepted; only what is dead can be requeued")),
        ContactState::Ended => Err(Refused::WrongState("it has ended; only what is dead can be requeued")),
        ContactState::Unspecified => Err(Refused::NotAllocated),
    }
}

/// Moves a contact into another queue. One that is allocated or accepted is moved by whom it was handed to.
pub fn transfer(custody: &Custody, request_id: &str, now: Micros) -> Result<Effect, Refused> {
    let free = matches!(custody.state, ContactState::Queued | ContactState::Dead) || lapsed(custody, now);
    match custody.state {
        ContactState::Ended => Err(Refused::WrongState("it has ended and cannot be transferred")),
        ContactState::Unspecified => Err(Refused::NotAllocated),
        _ if free || custody.is_by(request_id) => Ok(Effect::Change(ContactState::Queued)),
        _ => Err(Refused::OtherRequest),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOUR: Micros = 3600 * 1_000_000;

    fn in_state(state: ContactState) -> Custody {
        Custody { state, request_id: "ours".into(), allocated_at: Some(0), deadline_at: None, refusals: 0 }
    }

    fn allocated(deadline_at: Micros) -> Custody {
        Custody { deadline_at: Some(deadline_at), ..in_state(ContactState::Allocated) }
    }

    fn key(priority: u32, waiting_since: Micros, message: i64) -> Key {
        Key { priority, waiting_since, message }
    }

    #[test]
    fn priority_comes_first_then_age_then_intake() {
        let keys = vec![key(10, 1, 1), key(5, 9, 4), key(5, 9, 3), key(5, 2, 2)];
        let expected = [key(5, 2, 2), key(5, 9, 3), key(5, 9, 4), key(10, 1, 1)];
        assert_eq!(best(keys, Allocation::Strict, 0, 9), expected);
    }

    #[test]
    fn with_target_time_a_lower_priority_overtakes_once_it_has_waited_in_proportion() {
        let (urgent, patient) = (key(5, 100, 2), key(10, 0, 1));
        let first = |now| best(vec![urgent, patient], Allocation::TargetTime, now, 1)[0];
        assert_eq!(first(101), patient, "it has waited a hundred times as long, and more than double is enough");
        assert_eq!(first(199), patient);
        assert_eq!(first(200), urgent, "waited twice as long with twice the priority: as good, then priority decides");
        assert_eq!(first(10_000), urgent);
    }

    proptest! {
        #[test]
        fn both_policies_are_total_orders(
            keys in prop::collection::vec((0..5u32, -50..50i64), 3),
            now in -60..1000i64,
        ) {
            let [a, b, c] = [0, 1, 2].map(|n: usize| key(keys[n].0, keys[n].1, n as i64));
            for policy in [Allocation::Strict, Allocation::TargetTime] {
                prop_assert_eq!(a.compare(&b, policy, now), b.compare(&a, policy, now).reverse());
                prop_assert_ne!(a.compare(&b, policy, now), Ordering::Equal);
                if a.compare(&b, policy, now).is_lt() && b.compare(&c, policy, now).is_lt() {
                    prop_assert!(a.compare(&c, policy, now).is_lt());
                }
            }
        }
    }

    #[test]
    fn accepting_is_for_the_holder_in_time_and_can_be_repeated() {
        assert_eq!(accept(&allocated(10), "ours", 9), Ok(Effect::Change(ContactState::Accepted)));
        assert_eq!(accept(&allocated(10), "", 9), Ok(Effect::Change(ContactState::Accepted)));
        assert_eq!(accept(&allocated(10), "other", 9), Err(Refused::OtherRequest));
        assert_eq!(accept(&allocated(10), "ours", 10), Err(Refused::NotAllocated));
        for state in [ContactState::Accepted, ContactState::Ended] {
            assert_eq!(accept(&in_state(state), "ours", 99), Ok(Effect::Nothing(state)));
            assert_eq!(accept(&in_state(state), "other", 99), Err(Refused::OtherRequest));
        }
        assert_eq!(accept(&in_state(ContactState::Dead), "ours", 9), Err(Refused::NotAllocated));
    }

    #[test]
    fn rejecting_gives_back_what_is_held_and_can_be_repeated() {
        assert_eq!(reject(&allocated(10), "ours"), Ok(Effect::Change(ContactState::Queued)));
        assert_eq!(reject(&allocated(10), "other"), Err(Refused::OtherRequest));
        let queued = in_state(ContactState::Queued);
        assert_eq!(reject(&queued, "ours"), Ok(Effect::Nothing(ContactState::Queued)));
        assert!(matches!(reject(&in_state(ContactState::Accepted), "ours"), Err(Refused::WrongState(_))));
    }

    #[test]
    fn the_tenth_refusal_is_the_last() {
        let nine = Custody { refusals: MOST_REFUSALS - 2, ..allocated(10) };
        assert_eq!(reject(&nine, "ours"), Ok(Effect::Change(ContactState::Queued)));
        let ten = Custody { refusals: MOST_REFUSALS - 1, ..allocated(10) };
        assert_eq!(reject(&ten, "ours"), Ok(Effect::Change(ContactState::Dead)));
        let dead = in_state(ContactState::Dead);
        assert_eq!(reject(&dead, "ours"), Ok(Effect::Nothing(ContactState::Dead)));
        assert_eq!(requeue(&dead), Ok(Effect::Change(ContactState::Queued)));
        assert_eq!(requeue(&allocated(10)), Ok(Effect::Nothing(ContactState::Allocated)));
        assert!(matches!(requeue(&in_state(ContactState::Ended)), Err(Refused::WrongState(_))));
    }

    #[test]
    fn a_deadline_is_extended_within_bounds_and_never_shortened() {
        assert_eq!(extend(&allocated(10), "ours", 100, 9), Ok(Effect::Extend(109)));
        assert_eq!(extend(&allocated(500), "ours", 100, 9), Ok(Effect::Extend(500)));
        assert_eq!(extend(&allocated(10), "ours", 100, 10), Err(Refused::NotAllocated), "too late");
        assert_eq!(extend(&allocated(10), "other", 100, 9), Err(Refused::OtherRequest));
        let long = allocated(LONGEST_HOLD - 1);
        assert_eq!(extend(&long, "ours", HOUR, LONGEST_HOLD - 2), Ok(Effect::Extend(LONGEST_HOLD)));
        assert!(matches!(extend(&in_state(ContactState::Accepted), "ours", 1, 1), Err(Refused::WrongState(_))));
    }

    #[test]
    fn only_what_is_accepted_ends_and_it_ends_once() {
        assert_eq!(end(&in_state(ContactState::Accepted), "ours"), Ok(Effect::Change(ContactState::Ended)));
        assert_eq!(end(&in_state(ContactState::Ended), "ours"), Ok(Effect::Nothing(ContactState::Ended)));
        assert_eq!(end(&in_state(ContactState::Accepted), "other"), Err(Refused::OtherRequest));
        assert!(matches!(end(&allocated(10), "ours"), Err(Refused::WrongState(_))));
        assert_eq!(end(&in_state(ContactState::Queued), "ours"), Err(Refused::NotAllocated));
    }

    #[test]
    fn what_somebody_holds_only_he_transfers() {
        let queued = Ok(Effect::Change(ContactState::Queued));
        for state in [ContactState::Queued, ContactState::Dead, ContactState::Accepted] {
            assert_eq!(transfer(&in_state(state), "ours", 9), queued);
        }
        assert_eq!(transfer(&allocated(10), "ours", 9), queued);
        assert_eq!(transfer(&allocated(10), "other", 9), Err(Refused::OtherRequest));
        assert_eq!(transfer(&allocated(10), "other", 10), queued, "its deadline has passed");
        assert_eq!(transfer(&in_state(ContactState::Accepted), "other", 9), Err(Refused::OtherRequest));
        assert!(matches!(transfer(&in_state(ContactState::Ended), "ours", 9), Err(Refused::WrongState(_))));
    }
}

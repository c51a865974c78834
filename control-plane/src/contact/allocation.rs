//! The order of contacts and the changes of their state, as pure functions. The ledger stores what they decide.
//!
//! Promise: at the moment of allocation no queued contact of the instance has a better [`Key`] than one handed out.

use postroom_proto::v1::ContactState;

use crate::ledger::Micros;

/// Place of a contact in the order of its instance: the smaller, the sooner. Frozen at intake, so that giving a contact
/// back restores its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Effective priority; 1 is first.
    pub priority: u32,
    /// Since when it waits.
    pub waiting_since: Micros,
    /// Order of intake, so that no two are equal.
    pub message: i64,
}

/// Who holds a contact, and until when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Custody {
    /// Where the contact stands.
    pub state: ContactState,
    /// The allocation it is or was handed out by; empty while queued.
    pub request_id: String,
    /// Until when it must be accepted; only while allocated.
    pub deadline_at: Option<Micros>,
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
    /// Custody was taken; there is no way back into the queue from there.
    #[error("it is accepted already and can no longer be rejected")]
    Accepted,
}

/// What an answer does to a contact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Write the new state.
    Change(ContactState),
    /// It is so already.
    Nothing(ContactState),
}

/// True when a contact that is allocated must go back to its place.
pub fn lapsed(custody: &Custody, now: Micros) -> bool {
    custody.state == ContactState::Allocated && custody.deadline_at.is_none_or(|deadline| deadline <= now)
}

/// Takes custody for `request_id`; an empty one means whichever allocation it is in.
pub fn accept(custody: &Custody, request_id: &str, now: Micros) -> Result<Effect, Refused> {
    let ours = request_id.is_empty() || custody.request_id == request_id;
    match custody.state {
        ContactState::Allocated if !ours => Err(Refused::OtherRequest),
        // Invariant: a deadline that has passed counts as passed even before anybody put the contact back.
        ContactState::Allocated if lapsed(custody, now) => Err(Refused::NotAllocated),
        ContactState::Allocated => Ok(Effect::Change(ContactState::Accepted)),
        ContactState::Accepted if ours => Ok(Effect::Nothing(ContactState::Accepted)),
        ContactState::Accepted => Err(Refused::OtherRequest),
        ContactState::Queued | ContactState::Unspecified => Err(Refused::NotAllocated),
    }
}

/// Gives back what `request_id` holds; an empty one means whichever allocation it is in.
pub fn reject(custody: &Custody, request_id: &str) -> Result<Effect, Refused> {
    let ours = request_id.is_empty() || custody.request_id == request_id;
    match custody.state {
        ContactState::Allocated if ours => Ok(Effect::Change(ContactState::Queued)),
        ContactState::Allocated => Err(Refused::OtherRequest),
        ContactState::Accepted => Err(Refused::Accepted),
        ContactState::Queued => Ok(Effect::Nothing(ContactState::Queued)),
        ContactState::Unspecified => Err(Refused::NotAllocated),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allocated(deadline_at: Micros) -> Custody {
        Custody { state: ContactState::Allocated, request_id: "ours".into(), deadline_at: Some(deadline_at) }
    }

    #[test]
    fn priority_comes_first_then_age_then_intake() {
        let key = |priority, waiting_since, message| Key { priority, waiting_since, message };
        let mut keys = [key(10, 1, 1), key(5, 9, 4), key(5, 9, 3), key(5, 2, 2)];
        keys.sort();
        assert_eq!(keys, [key(5, 2, 2), key(5, 9, 3), key(5, 9, 4), key(10, 1, 1)]);
    }

    #[test]
    fn accepting_is_for_the_holder_in_time_and_can_be_repeated() {
        assert_eq!(accept(&allocated(10), "ours", 9), Ok(Effect::Change(ContactState::Accepted)));
        assert_eq!(accept(&allocated(10), "", 9), Ok(Effect::Change(ContactState::Accepted)));
        assert_eq!(accept(&allocated(10), "other", 9), Err(Refused::OtherRequest));
        assert_eq!(accept(&allocated(10), "ours", 10), Err(Refused::NotAllocated));
        let accepted = Custody { state: ContactState::Accepted, ..allocated(10) };
        assert_eq!(accept(&accepted, "ours", 99), Ok(Effect::Nothing(ContactState::Accepted)));
        assert_eq!(accept(&accepted, "other", 99), Err(Refused::OtherRequest));
    }

    #[test]
    fn rejecting_gives_back_what_is_held_and_can_be_repeated() {
        assert_eq!(reject(&allocated(10), "ours"), Ok(Effect::Change(ContactState::Queued)));
        assert_eq!(reject(&allocated(10), "other"), Err(Refused::OtherRequest));
        let queued = Custody { state: ContactState::Queued, request_id: String::new(), deadline_at: None };
        assert_eq!(reject(&queued, "ours"), Ok(Effect::Nothing(ContactState::Queued)));
        let accepted = Custody { state: ContactState::Accepted, ..allocated(10) };
        assert_eq!(reject(&accepted, "ours"), Err(Refused::Accepted));
    }
}

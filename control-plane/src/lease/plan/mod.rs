//! Who should hold what. Pure: the same input gives the same plan in whatever order it comes, and planning a plan that
//! was carried out changes nothing. Ties go to the worker whose name, and to the mailbox whose uid, comes first.
//!
//! The rules, in their order. A mailbox only ever goes to workers of its pool, and none beyond their capacity.
//! 1. Who has a mailbox keeps it, unless a newer session of the same worker name lives: that one takes it over.
//! 2. The mailboxes of an ended session go to its worker's name, or wait a while for it when it said it would return.
//! 3. Those of an active worker that died go, as a whole, to the least loaded spare, which then stands in for it.
//! 4. What nobody has goes, heaviest first, to the least loaded active worker; to spares where no active one lives.
//! 5. What a drained worker has goes to whoever can carry it, and what a spare has back to the worker that it stands in
//!    for, once that has lived for a while.
//! 6. Who carries less than 90 % of the mean is lifted to it by the most loaded, as long as the giver stays above.
//!
//! Rules 5 and 6 are voluntary: nothing would be lost by waiting. Only so many moves of that kind are planned at a time,
//! and none while the fleet is frozen.
//!
//! Cost: O((mailboxes + workers) log) plus the voluntary moves, each of them logarithmic as a rule.
//!
//! Reading order: `stay` (rules 1 and 2) → `spread` (3 and 4) → `yielding` (5) → `lift` (6), all of which write
//! into `draft` and know the workers from `fleet`.

use std::sync::Arc;

use postroom_proto::id::{MailboxUid, SessionId};
use postroom_proto::lease::Moment;
use postroom_proto::v1::{MoveReason, UnassignedReason};

use super::profile::Role;
use crate::store::Revision;

mod draft;
mod fleet;
mod lift;
mod spread;
mod stay;
#[cfg(test)]
mod tests;
mod yielding;

/// A mailbox that is to be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mailbox {
    /// Which one.
    pub uid: MailboxUid,
    /// How much work it is, compared with others. Zero counts as one.
    pub weight: u32,
    /// Pool whose workers may read it.
    pub pool: Arc<str>,
}

/// A session as the planner sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Worker {
    /// The session.
    pub session: SessionId,
    /// The stable name of the worker.
    pub name: String,
    /// The pool whose mailboxes it reads.
    pub pool: String,
    /// What it is for.
    pub role: Role,
    /// An operator has set its role.
    pub role_set: bool,
    /// Most mailboxes that it can read; 0: no limit.
    pub capacity: u32,
    /// An operator drains it.
    pub drained: bool,
    /// It has lived for long enough to be trusted with what a spare holds for it.
    pub settled: bool,
    /// Revision that wrote the session's record: of two sessions of a name the higher one is the newer.
    pub born: Revision,
    /// What may be done with it.
    pub state: State,
}

/// What the planner may do with a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It lives and may be given mailboxes.
    Taking,
    /// It keeps what it has and is given nothing: it drains itself, or this leader does not know yet whether it lives.
    Keeping,
    /// It has ended. Its seats are kept for its name until then.
    Ended {
        /// `None`: they are free at once.
        seats_until: Option<Moment>,
        /// It was not heard for too long.
        silent: bool,
    },
}

/// Who has a mailbox now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seat<'a> {
    /// The session.
    pub session: &'a SessionId,
    /// Name of the active worker that it stands in for.
    pub home: Option<&'a str>,
    /// It was moved to even out the load a moment ago, and is not moved for that reason again.
    pub pinned: bool,
}

/// How far a plan may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most voluntary moves.
    pub voluntary: usize,
    /// Nothing moves that has a seat: of such mailboxes only those are given to another session whose worker's name
    /// lives on.
    pub frozen: bool,
}

impl Limits {
    /// No limits.
    pub const NONE: Self = Self { voluntary: usize::MAX, frozen: false };
}

/// What is wanted for a mailbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted<'a> {
    /// A session should have it. One that has ended: its seat is kept warm.
    At {
        /// The session.
        session: &'a SessionId,
        /// Name of the active worker that it then stands in for.
        home: Option<&'a str>,
        /// Why it goes there; means nothing when it is there.
        reason: MoveReason,
    },
    /// Nobody can take it.
    Nobody(UnassignedReason),
}

impl<'a> Wanted<'a> {
    /// The session that should have it.
    pub fn session(&self) -> Option<&'a SessionId> {
        match self {
            Self::At { session, .. } => Some(session),
            Self::Nobody(_) => None,
        }
    }
}

/// Who should hold what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan<'a> {
    /// For each mailbox, in the order in which they were given.
    pub wanted: Vec<Wanted<'a>>,
    /// There are voluntary moves beyond the limit: plan again when some of these are done.
    pub capped: bool,
}

/// Who should hold each of `mailboxes`. `seats` tell, in the same order, who has each now.
pub fn plan<'a>(
    now: Moment,
    mailboxes: &[Mailbox],
    workers: &'a [Worker],
    limits: Limits,
    seats: &[Option<Seat<'a>>],
) -> Plan<'a> {
    let fleet = fleet::Fleet::new(workers);
    let mut draft = draft::Draft::new(mailboxes, &fleet);
    let left_over = stay::stay(&mut draft, now, limits.frozen, seats);
    spread::spread(&mut draft, left_over.orphans);
    let mut budget = Budget { left: if limits.frozen { 0 } else { limits.voluntary }, capped: false };
    if !limits.frozen {
        yielding::yielding(&mut draft, left_over.leaving, &mut budget);
        yielding::back(&mut draft, left_over.evicted);
        lift::lift(&mut draft, &mut budget);
    }
    Plan { wanted: draft.finish(), capped: budget.capped }
}

/// Voluntary moves that may still be planned.
struct Budget {
    left: usize,
    /// One was wanted that may not be planned.
    capped: bool,
}

impl Budget {
    fn spend(&mut self) -> bool {
        self.capped |= self.left == 0;
        let spent = self.left > 0;
        self.left = self.left.saturating_sub(1);
        spent
    }
}

fn weight(mailbox: &Mailbox) -> u64 {
    u64::from(mailbox.weight.max(1))
}

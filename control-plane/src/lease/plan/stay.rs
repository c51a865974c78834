//! Who keeps or inherits what, and what is left over.

use std::collections::BTreeMap;

use postroom_proto::lease::Moment;
use postroom_proto::v1::MoveReason;

use super::draft::{Draft, Number};
use super::fleet::Index;
use super::{Seat, State, Worker};
use crate::lease::profile::Role;

/// What rules 1 and 2 leave over.
#[derive(Debug, Default)]
pub(super) struct LeftOver<'a> {
    pub(super) orphans: Orphans<'a>,
    /// What is wanted where it is for want of a better place, in the order of the uids.
    pub(super) leaving: Vec<(Number, Leaving)>,
    /// What is too much for the worker that has it. It is among the orphans too.
    pub(super) evicted: Vec<(Number, Index)>,
}

/// Mailboxes that nobody has any more, in the order of the uids.
#[derive(Debug, Default)]
pub(super) struct Orphans<'a> {
    /// By pool and name of the active worker that died.
    pub(super) of_dead: BTreeMap<(&'a str, &'a str), Vec<Number>>,
    pub(super) others: Vec<Number>,
}

/// Why a mailbox should not stay where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leaving {
    /// An operator drains its worker.
    Drained,
    /// The worker that its spare stands in for is back.
    Home(Index),
    /// A spare carries it although active workers live.
    Spare,
}

pub(super) fn stay<'a>(
    draft: &mut Draft<'a, '_>,
    now: Moment,
    frozen: bool,
    seats: &[Option<Seat<'a>>],
) -> LeftOver<'a> {
    let fleet = draft.fleet;
    let mut left = LeftOver::default();
    for number in draft.order.clone() {
        let mailbox = draft.mailbox(number);
        let Some(seat) = seats.get(number as usize).copied().flatten() else {
            left.orphans.others.push(number);
            continue;
        };
        let owner = fleet.by_session(seat.session);
        let spot = draft.spot(number);
        spot.free = !seat.pinned;
        spot.seated = true;
        spot.reason = MoveReason::WorkerLeft;
        let Some((owner, worker)) = owner.map(|owner| (owner, fleet.worker(owner))) else {
            left.orphans.others.push(number);
            continue;
        };
        let successor = fleet.successor(worker);
        let keeper = match worker.state {
            State::Taking | State::Keeping => Some(successor.unwrap_or(owner)),
            State::Ended { seats_until, .. } => successor
                .or_else(|| fleet.newest(&worker.name))
                .or((frozen || seats_until > Some(now)).then_some(owner)),
        };
        spot.reason = why_gone(worker);
        let Some(keeper) = keeper else {
            orphan(&mut left.orphans, number, worker, seat.home, &mailbox.pool);
            continue;
        };
        let fits =
            |draft: &Draft<'_, '_>, keeper| *fleet.worker(keeper).pool == *mailbox.pool && draft.has_room(keeper);
        // A freeze leaves everything where it is, right or wrong.
        let keeper = if frozen && !fits(draft, keeper) { owner } else { keeper };
        let kept = fleet.worker(keeper);
        if !frozen && !fits(draft, keeper) {
            if *kept.pool != *mailbox.pool {
                draft.spot(number).reason = MoveReason::Operator;
                left.orphans.others.push(number);
            } else if kept.drained {
                // Spares may take these too, as they may all that it has.
                draft.spot(number).reason = MoveReason::Operator;
                orphan(&mut left.orphans, number, kept, seat.home, &mailbox.pool);
                left.evicted.push((number, keeper));
            } else {
                left.orphans.others.push(number);
                left.evicted.push((number, keeper));
            }
            continue;
        }
        let home = seat.home.filter(|_| kept.role == Role::Spare);
        draft.put(number, keeper, home, MoveReason::WorkerRestarted);
        if !matches!(kept.state, State::Ended { .. })
            && let Some(why) = leaving(draft, kept, home)
        {
            left.leaving.push((number, why));
        }
    }
    left
}

/// Why a mailbox has to leave a worker that is gone, or is too much for it.
fn why_gone(worker: &Worker) -> MoveReason {
    match worker.state {
        State::Ended { silent: true, .. } => MoveReason::WorkerSilent,
        State::Ended { .. } => MoveReason::WorkerLeft,
        State::Taking | State::Keeping => MoveReason::Balance,
    }
}

fn orphan<'a>(orphans: &mut Orphans<'a>, number: Number, worker: &'a Worker, home: Option<&'a str>, pool: &str) {
    let dead = match worker.role {
        Role::Active => Some(worker.name.as_str()),
        Role::Spare => home,
    };
    match dead.filter(|_| *worker.pool == *pool) {
        Some(dead) => orphans.of_dead.entry((&worker.pool, dead)).or_default().push(number),
        None => orphans.others.push(number),
    }
}

fn leaving(draft: &Draft<'_, '_>, kept: &Worker, home: Option<&str>) -> Option<Leaving> {
    if kept.drained {
        return Some(Leaving::Drained);
    }
    if kept.role == Role::Active {
        return None;
    }
    let settled = || draft.fleet.pool(&kept.pool).settled.then_some(Leaving::Spare);
    let Some(home) = home else { return settled() };
    match draft.fleet.active(&kept.pool, home) {
        Some(back) => draft.fleet.worker(back).settled.then_some(Leaving::Home(back)),
        None if draft.fleet.is_there(home) => settled(),
        None => None,
    }
}

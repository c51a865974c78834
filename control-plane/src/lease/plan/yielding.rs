//! What should not stay where it is although it could: at a drained worker, or at a spare whose worker is back.

use std::cmp::Reverse;

use postroom_proto::v1::MoveReason;

use super::draft::{Draft, Number};
use super::fleet::Index;
use super::stay::Leaving;
use super::{Budget, weight};
use crate::lease::profile::Role;

pub(super) fn yielding(draft: &mut Draft<'_, '_>, mut leaving: Vec<(Number, Leaving)>, budget: &mut Budget) {
    // Stable: of equal ones the first uid comes first.
    leaving.sort_by_key(|(number, _)| Reverse(weight(draft.mailbox(*number))));
    for (number, why) in leaving {
        let Some((to, home, reason)) = better(draft, number, why) else { continue };
        if !budget.spend() {
            return;
        }
        draft.put(number, to, home, reason);
    }
}

/// What was too much for its worker and found no other place stays with it after all where others have left.
pub(super) fn back(draft: &mut Draft<'_, '_>, evicted: Vec<(Number, Index)>) {
    for (number, keeper) in evicted {
        if draft.spot(number).worker.is_none() && draft.has_room(keeper) {
            draft.put(number, keeper, None, MoveReason::WorkerRestarted);
        }
    }
}

/// A better place. `None`: nobody else can carry it.
fn better<'a>(draft: &Draft<'a, '_>, number: Number, why: Leaving) -> Option<(Index, Option<&'a str>, MoveReason)> {
    let spot = draft.spots[number as usize];
    let from = draft.fleet.worker(spot.worker?);
    let pool = draft.fleet.pool(&from.pool);
    let reason = match why {
        Leaving::Drained => MoveReason::Operator,
        Leaving::Spare if from.role_set => MoveReason::Operator,
        Leaving::Home(_) | Leaving::Spare => MoveReason::Returned,
    };
    let active = || draft.lightest(&pool.actives).map(|to| (to, None, reason));
    match (why, spot.home) {
        (Leaving::Home(home), _) if draft.has_room(home) => Some((home, None, reason)),
        (Leaving::Home(_) | Leaving::Spare, _) => active(),
        // Another spare goes on standing in, and nobody but its own worker ends that.
        (Leaving::Drained, Some(home)) => match draft.fleet.active(&from.pool, home) {
            Some(back) if draft.has_room(back) => Some((back, None, reason)),
            Some(_) => active(),
            None if draft.fleet.is_there(home) => active(),
            None => draft.lightest(&pool.spares).map(|to| (to, Some(home), reason)).or_else(active),
        },
        (Leaving::Drained, None) => active().or_else(|| {
            let home = (from.role == Role::Active).then_some(from.name.as_str());
            draft.lightest(&pool.spares).map(|to| (to, home, reason))
        }),
    }
}

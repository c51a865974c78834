//! Evens out the load: whoever carries less than 90 % of the mean of its pool is lifted by the most loaded.

use std::collections::{BTreeSet, HashSet};

use postroom_proto::v1::MoveReason;

use super::draft::{Draft, Number};
use super::fleet::Index;
use super::{Budget, weight};

pub(super) fn lift(draft: &mut Draft<'_, '_>, budget: &mut Budget) {
    let mut pools: Vec<Vec<Index>> = draft.fleet.pools().map(|pool| pool.actives.clone()).collect();
    // The budget goes to them in a fixed order.
    pools.sort_unstable_by_key(|actives| actives.first().map(|&first| &draft.fleet.worker(first).name));
    for actives in pools {
        lift_one(draft, &actives, budget);
    }
}

/// Every move brings two loads closer together, so it ends.
fn lift_one(draft: &mut Draft<'_, '_>, actives: &[Index], budget: &mut Budget) {
    let loads: Vec<u64> = actives.iter().map(|&active| draft.loads[active as usize]).collect();
    // What spares carry for workers that are gone counts as if they were there: a death is no reason to even out the rest.
    let (carried_for, gone) = stood_in_for(draft, actives);
    let total = loads.iter().sum::<u64>() + carried_for;
    let floor = (9 * total).div_ceil(10 * (actives.len() as u64 + gone).max(1));
    // A place is a worker's position in the order of the names.
    let mut order: BTreeSet<(u64, usize)> = loads.iter().enumerate().map(|(place, &load)| (load, place)).collect();
    let can_take = |draft: &Draft<'_, '_>, place: usize| draft.has_room(actives[place]);
    if !order.iter().any(|&(load, place)| load < floor && can_take(draft, place)) {
        return;
    }
    let mut carried = carried(draft, actives);
    loop {
        let mut low = order.iter().take_while(|(low, _)| *low < floor);
        let Some(&(low, taker)) = low.find(|(_, place)| can_take(draft, *place)) else { return };
        let mut donors = order.iter().rev().take_while(|&&(high, _)| high > floor && high - low > 1);
        let gift = donors.find_map(|&(high, giver)| {
            let most = (high - floor).min((high - low) / 2);
            Some((high, giver, *carried[giver].range(..(most + 1, 0)).next_back()?))
        });
        let Some((high, giver, gift)) = gift else { return };
        let number = draft.order[gift.1 as usize];
        if draft.spot(number).seated && !budget.spend() {
            return;
        }
        draft.put(number, actives[taker], None, MoveReason::Balance);
        carried[giver].remove(&gift);
        carried[taker].insert(gift);
        order.remove(&(high, giver));
        order.remove(&(low, taker));
        order.insert((high - gift.0, giver));
        order.insert((low + gift.0, taker));
    }
}

/// What the spares of the pool carry in the place of workers that are gone, and how many those are.
fn stood_in_for(draft: &Draft<'_, '_>, actives: &[Index]) -> (u64, u64) {
    let Some(&first) = actives.first() else { return (0, 0) };
    let pool = &draft.fleet.worker(first).pool;
    if draft.fleet.pool(pool).spares.is_empty() {
        return (0, 0);
    }
    let (mut load, mut names) = (0, HashSet::new());
    for (spot, mailbox) in draft.spots.iter().zip(draft.mailboxes) {
        if let Some(home) = spot.home
            && *mailbox.pool == **pool
        {
            load += weight(mailbox);
            names.insert(home);
        }
    }
    (load, names.len() as u64)
}

/// What each of these carries and may give, by weight and then by uid.
fn carried(draft: &Draft<'_, '_>, actives: &[Index]) -> Vec<BTreeSet<(u64, Number)>> {
    let mut places = vec![None; draft.loads.len()];
    for (place, &active) in actives.iter().enumerate() {
        places[active as usize] = Some(place);
    }
    let mut carried = vec![Vec::new(); actives.len()];
    for (rank, &number) in (0..).zip(&draft.order) {
        let spot = draft.spots[number as usize];
        if let Some(place) = spot.worker.filter(|_| spot.free).and_then(|worker| places[worker as usize]) {
            carried[place].push((weight(draft.mailbox(number)), rank));
        }
    }
    carried.into_iter().map(BTreeSet::from_iter).collect()
}

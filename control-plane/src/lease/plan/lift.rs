//! Evens out the load: whoever carries less than 90 % of the mean of its pool is lifted to the mean by the most loaded.
//!
//! To the mean and not just to 90 %: whoever stood right there would be lifted again by the death of any other worker,
//! which raises the mean a little.

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

fn lift_one(draft: &mut Draft<'_, '_>, actives: &[Index], budget: &mut Budget) {
    let loads: Vec<u64> = actives.iter().map(|&active| draft.loads[active as usize]).collect();
    // What spares carry for workers that are gone counts as if they were there: a death is no reason to even out the rest.
    let (carried_for, gone) = stood_in_for(draft, actives);
    let total = loads.iter().sum::<u64>() + carried_for;
    let workers = (actives.len() as u64 + gone).max(1);
    let floor = (9 * total).div_ceil(10 * workers);
    let mean = (total / workers).max(floor);
    // A place is a worker's position in the order of the names.
    let order: BTreeSet<(u64, usize)> = loads.iter().enumerate().map(|(place, &load)| (load, place)).collect();
    let low = |draft: &Draft<'_, '_>, (load, place): (u64, usize)| load < floor && draft.has_room(actives[place]);
    if !order.iter().any(|&at| low(draft, at)) {
        return;
    }
    let mut scales = Scales { carried: carried(draft, actives), order };
    // Every move brings two loads closer together, so it ends. What one was given another may pass on: it is gone through
    // until nothing is given any more.
    loop {
        let mut given = false;
        // One after the other, so that those who are lifted at all are lifted the whole way when the budget ends it.
        let takers: Vec<_> = scales.order.iter().copied().take_while(|(load, _)| *load < floor).collect();
        for (mut load, taker) in takers {
            while load < mean && draft.has_room(actives[taker]) {
                let gift = scales.gift(load, mean).or_else(|| (load < floor).then(|| scales.gift(load, floor))?);
                let Some(gift) = gift else { break };
                let number = draft.order[gift.what.1 as usize];
                if draft.spot(number).seated && !budget.spend() {
                    return;
                }
                draft.put(number, actives[taker], None, MoveReason::Balance);
                load = scales.give(gift, (load, taker));
                given = true;
            }
        }
        if !given {
            return;
        }
    }
}

/// What may be given, and by whom.
struct Gift {
    giver: (u64, usize),
    what: (u64, Number),
}

/// Loads and what they consist of.
struct Scales {
    carried: Vec<BTreeSet<(u64, Number)>>,
    order: BTreeSet<(u64, usize)>,
}

impl Scales {
    /// The largest gift of the most loaded that has one for who carries `low`, and stays at `least` or above.
    fn gift(&self, low: u64, least: u64) -> Option<Gift> {
        let mut givers = self.order.iter().rev().take_while(|&&(high, _)| high > least && high > low + 1);
        givers.find_map(|&(high, place)| {
            let most = (high - least).min((high - low) / 2);
            let what = *self.carried[place].range(..(most + 1, 0)).next_back()?;
            Some(Gift { giver: (high, place), what })
        })
    }

    /// Carries a gift out; what the taker carries then.
    fn give(&mut self, gift: Gift, (low, taker): (u64, usize)) -> u64 {
        let Gift { giver: (high, giver), what } = gift;
        self.carried[giver].remove(&what);
        self.carried[taker].insert(what);
        for former in [(high, giver), (low, taker)] {
            self.order.remove(&former);
        }
        self.order.extend([(high - what.0, giver), (low + what.0, taker)]);
        low + what.0
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

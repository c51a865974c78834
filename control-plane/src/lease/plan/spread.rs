//! What nobody has: the mailboxes of a dead active worker go to a spare, all others to the active workers.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use postroom_proto::v1::MoveReason;

use super::draft::{Draft, Number};
use super::fleet::Index;
use super::stay::Orphans;
use super::weight;

pub(super) fn spread<'a>(draft: &mut Draft<'a, '_>, orphans: Orphans<'a>) {
    let Orphans { of_dead, mut others } = orphans;
    for ((pool, dead), numbers) in of_dead {
        others.extend(stand_in(draft, pool, dead, numbers));
    }
    let mut by_pool: HashMap<&str, Vec<Number>> = HashMap::new();
    for number in others {
        by_pool.entry(&draft.mailbox(number).pool).or_default().push(number);
    }
    for (pool, mut numbers) in by_pool {
        let pool = draft.fleet.pool(pool);
        let targets = if pool.actives.is_empty() { &pool.spares } else { &pool.actives };
        numbers.sort_unstable_by(|&a, &b| {
            let (a, b) = (draft.mailbox(a), draft.mailbox(b));
            (Reverse(weight(a)), &a.uid).cmp(&(Reverse(weight(b)), &b.uid))
        });
        to_the_lightest(draft, targets, &numbers);
    }
}

/// Gives the mailboxes of a dead worker to whom stands in for it. Answers those for which there is no room.
fn stand_in<'a>(draft: &mut Draft<'a, '_>, pool: &str, dead: &'a str, numbers: Vec<Number>) -> Vec<Number> {
    let fleet = draft.fleet;
    let mut numbers = numbers.into_iter().peekable();
    // It is the spare that died, and its worker lives.
    if let Some(back) = fleet.active(pool, dead) {
        while draft.has_room(back)
            && let Some(number) = numbers.next()
        {
            draft.put(number, back, None, MoveReason::Returned);
        }
        return numbers.collect();
    }
    if fleet.is_there(dead) {
        return numbers.collect();
    }
    // Who stands in for it already goes on with it, so that they stay together.
    let mut already: HashMap<Index, usize> = HashMap::new();
    if numbers.peek().is_some() && !fleet.pool(pool).spares.is_empty() {
        for spot in draft.spots.iter().filter(|spot| spot.home == Some(dead)) {
            if let Some(worker) = spot.worker {
                *already.entry(worker).or_default() += 1;
            }
        }
    }
    let mut spares = fleet.pool(pool).spares.clone();
    spares.sort_by_key(|spare| (Reverse(already.get(spare).copied()), draft.loads[*spare as usize]));
    for spare in spares {
        while draft.has_room(spare)
            && let Some(number) = numbers.next()
        {
            let reason = draft.spot(number).reason;
            draft.put(number, spare, Some(dead), reason);
        }
    }
    numbers.collect()
}

/// Gives each to whoever carries least, in their order.
fn to_the_lightest(draft: &mut Draft<'_, '_>, targets: &[Index], numbers: &[Number]) {
    let places = targets.iter().enumerate().filter(|(_, target)| draft.has_room(**target));
    let mut lightest: BinaryHeap<_> =
        places.map(|(place, &target)| Reverse((draft.loads[target as usize], place))).collect();
    for &number in numbers {
        let Some(mut top) = lightest.peek_mut() else { return };
        let Reverse((load, place)) = &mut *top;
        let target = targets[*place];
        let reason = draft.spot(number).reason;
        draft.put(number, target, None, reason);
        *load = draft.loads[target as usize];
        if !draft.has_room(target) {
            std::collections::binary_heap::PeekMut::pop(top);
        }
    }
}

//! A plan in the making: where each mailbox is wanted so far, and what each worker carries by that.

use postroom_proto::v1::{MoveReason, UnassignedReason};

use super::fleet::{Fleet, Index};
use super::{Mailbox, Wanted, weight};

/// A mailbox's place in the list that the plan was given.
pub(super) type Number = u32;

/// Where a mailbox is wanted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Spot<'a> {
    pub(super) worker: Option<Index>,
    pub(super) home: Option<&'a str>,
    pub(super) reason: MoveReason,
    /// It may be moved to even out the load.
    pub(super) free: bool,
    /// It has a seat, so that moving it is a move.
    pub(super) seated: bool,
}

/// A plan in the making.
pub(super) struct Draft<'a, 'f> {
    pub(super) mailboxes: &'f [Mailbox],
    pub(super) fleet: &'f Fleet<'a>,
    /// The mailboxes in the order of their uids.
    pub(super) order: Vec<Number>,
    pub(super) spots: Vec<Spot<'a>>,
    /// By worker.
    pub(super) loads: Vec<u64>,
    counts: Vec<u32>,
}

impl<'a, 'f> Draft<'a, 'f> {
    pub(super) fn new(mailboxes: &'f [Mailbox], fleet: &'f Fleet<'a>) -> Self {
        let mut order: Vec<Number> = (0..).zip(mailboxes).map(|(i, _)| i).collect();
        if !mailboxes.is_sorted_by(|a, b| a.uid <= b.uid) {
            order.sort_unstable_by(|&a, &b| mailboxes[a as usize].uid.cmp(&mailboxes[b as usize].uid));
        }
        let nowhere = Spot { worker: None, home: None, reason: MoveReason::New, free: true, seated: false };
        Self {
            mailboxes,
            fleet,
            order,
            spots: vec![nowhere; mailboxes.len()],
            loads: vec![0; fleet.workers.len()],
            counts: vec![0; fleet.workers.len()],
        }
    }

    pub(super) fn mailbox(&self, i: Number) -> &'f Mailbox {
        &self.mailboxes[i as usize]
    }

    pub(super) fn spot(&mut self, i: Number) -> &mut Spot<'a> {
        &mut self.spots[i as usize]
    }

    /// True when a worker can carry one more.
    pub(super) fn has_room(&self, worker: Index) -> bool {
        let capacity = self.fleet.worker(worker).capacity;
        capacity == 0 || self.counts[worker as usize] < capacity
    }

    /// Wants a mailbox at a worker instead of where it is wanted.
    pub(super) fn put(&mut self, i: Number, worker: Index, home: Option<&'a str>, reason: MoveReason) {
        let heavy = weight(self.mailbox(i));
        let spot = self.spot(i);
        let former = spot.worker.replace(worker);
        (spot.home, spot.reason) = (home, reason);
        if let Some(former) = former {
            self.loads[former as usize] -= heavy;
            self.counts[former as usize] -= 1;
        }
        self.loads[worker as usize] += heavy;
        self.counts[worker as usize] += 1;
    }

    /// Of some workers, which are in the order of their names, the least loaded one that has room.
    pub(super) fn lightest(&self, of: &[Index]) -> Option<Index> {
        let open = of.iter().copied().filter(|&worker| self.has_room(worker));
        open.min_by_key(|&worker| self.loads[worker as usize])
    }

    /// The plan, with the reason why nobody can take what is wanted nowhere.
    pub(super) fn finish(self) -> Vec<Wanted<'a>> {
        let wanted = self.spots.iter().zip(self.mailboxes).map(|(spot, mailbox)| match spot.worker {
            Some(worker) => {
                let session = &self.fleet.worker(worker).session;
                Wanted::At { session, home: spot.home, reason: spot.reason }
            }
            None => {
                let pool = self.fleet.pool(&mailbox.pool);
                let someone = !pool.actives.is_empty() || !pool.spares.is_empty();
                let full = UnassignedReason::NoCapacity;
                Wanted::Nobody(if someone { full } else { UnassignedReason::NoWorker })
            }
        });
        wanted.collect()
    }
}

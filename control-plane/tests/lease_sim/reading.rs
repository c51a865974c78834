//! How a process reads its mailboxes: it begins at once or a little later, opens several in one call, and reports.

use postroom_proto::id::{Epoch, MailboxUid, SessionId};
use postroom_proto::lease::Moment;
use postroom_worker::holder::Offer;

use crate::ledger::{Report, Verdict};
use crate::mutation::Mutation;
use crate::process::{RETRY, act};
use crate::serving::{self, Lease, Opened};
use crate::world::{Actor, World, seconds};

/// The first mailboxes of a process, when they are many, begin within this time.
const SPREAD: f64 = 8.0;

/// A mailbox that is being read.
#[derive(Debug)]
pub(crate) struct Reader {
    pub(crate) epoch: Epoch,
    /// What the ledger has; `None` until the mailbox is open.
    pub(crate) cursor: Option<u64>,
    report: Option<Report>,
    /// When the call under way was made.
    called: Moment,
    pub(crate) draining: bool,
    offered: Moment,
    /// It is not opened before this moment.
    pub(crate) begins: Moment,
    /// It is among the first that its process was given.
    first: bool,
}

/// Begins to read a mailbox under a new lease. `spread`: at a moment of its own. `first`: it is among the first that the
/// process was given.
pub(crate) fn begin(world: &mut World, i: usize, offer: &Offer, spread: bool, first: bool) {
    let now = world.now;
    let delay = if spread { world.chance(0.0, SPREAD) } else { 0.0 };
    let Offer { mailbox, epoch, .. } = offer.clone();
    let reader = Reader {
        epoch,
        cursor: None,
        report: None,
        called: Moment::ZERO,
        draining: false,
        offered: now,
        begins: now + seconds(delay),
        first,
    };
    world.processes[i].readers.insert(mailbox.clone(), reader);
    if spread {
        world.counts.spread += 1;
        let due = move |world: &mut World| {
            if world.is(Mutation::RampUnchecked) {
                call(world, i, vec![Lease { mailbox, epoch }]);
            } else {
                open(world, i, vec![mailbox]);
            }
        };
        world.at(delay, move |world| world.when(Actor::Process(i), due));
    }
}

/// Reads a mailbox by its newer definition, under the same lease.
pub(crate) fn begin_anew(world: &mut World, i: usize, offer: &Offer) {
    let now = world.now;
    if let Some(reader) = world.processes[i].readers.get_mut(&offer.mailbox) {
        (reader.cursor, reader.report, reader.called, reader.offered) = (None, None, Moment::ZERO, now);
    }
}

/// Once a second: what is not open is opened, and of the rest some has new messages.
pub(crate) fn read(world: &mut World, i: usize) {
    let now = world.now;
    let mailboxes: Vec<_> = world.processes[i].readers.keys().cloned().collect();
    let mut closed = Vec::new();
    for mailbox in mailboxes {
        let (arrived, count, batch) = (world.likely(0.15), world.pick(&[1, 2, 3]), world.mint());
        let process = &mut world.processes[i];
        let (Some(reader), Some(session)) = (process.readers.get_mut(&mailbox), process.holder.session()) else {
            continue;
        };
        let Some(from) = reader.cursor else {
            closed.push(mailbox);
            continue;
        };
        let epoch = reader.epoch;
        if reader.report.is_none() && arrived {
            let session = session.clone();
            reader.report = Some(Report { mailbox: mailbox.clone(), epoch, session, batch, from, count });
            reader.called = Moment::ZERO;
        }
        if !process.trusts(now, &mailbox, epoch) {
            continue;
        }
        if process.suspended.is_some() && process.holder.may_write(now, &mailbox, epoch) {
            world.violated(format_args!("process {i} is suspended and may write to {mailbox} under epoch {epoch}"));
        }
        let other = world.writers(&mailbox).find(|&other| other != i);
        if let Some(other) = other {
            world.violated(format_args!("processes {other} and {i} both write to {mailbox}"));
        }
        report(world, i, &mailbox);
    }
    open(world, i, closed);
    let delay = world.chance(0.8, 1.2);
    world.at(delay, move |world| world.when(Actor::Process(i), move |world| read(world, i)));
}

impl Reader {
    /// True when no call is under way, which then is noted.
    fn may_call(&mut self, now: Moment) -> bool {
        let free = self.called == Moment::ZERO || now >= self.called + seconds(RETRY);
        if free {
            self.called = now;
        }
        free
    }
}

/// Opens what may begin, in one call. What became of a lease while its mailbox waited is looked up here and now.
pub(crate) fn open(world: &mut World, i: usize, mailboxes: Vec<MailboxUid>) {
    let now = world.now;
    let mut leases = Vec::new();
    for mailbox in mailboxes {
        let Some(reader) = world.processes[i].readers.get_mut(&mailbox) else { continue };
        if reader.draining || now < reader.begins {
            continue;
        }
        let late = reader.called == Moment::ZERO && !reader.first && now > reader.offered;
        if reader.may_call(now) {
            leases.push(Lease { mailbox, epoch: reader.epoch });
        }
        if late {
            return world.violated(format_args!("process {i} takes a mailbox over and waits before it begins"));
        }
    }
    if !leases.is_empty() {
        call(world, i, leases);
    }
}

fn call(world: &mut World, i: usize, leases: Vec<Lease>) {
    let replica = world.any_replica();
    let Some(session) = world.processes[i].holder.session().cloned() else { return };
    for Lease { mailbox, epoch } in &leases {
        if !world.processes[i].holder.holds(mailbox, *epoch) {
            return world.violated(format_args!("process {i} opens {mailbox} under epoch {epoch}, which it lost"));
        }
    }
    world.send(Actor::Process(i), Actor::Replica(replica), move |world| {
        let outcomes = serving::open_all(world, replica, &leases, &session);
        let answer = move |world: &mut World| opened(world, i, &session, &leases, outcomes);
        world.send(Actor::Replica(replica), Actor::Process(i), answer);
    });
}

/// Each mailbox has an outcome of its own, or none.
fn opened(world: &mut World, i: usize, session: &SessionId, leases: &[Lease], outcomes: Vec<(MailboxUid, Opened)>) {
    for (place, (mailbox, outcome)) in outcomes.into_iter().enumerate() {
        let lease = if world.is(Mutation::OutcomesByPlace) {
            leases.get(place)
        } else {
            leases.iter().find(|lease| lease.mailbox == mailbox)
        };
        let Some(Lease { mailbox, epoch }) = lease else { continue };
        match outcome {
            Opened::NotCaughtUp | Opened::Failed => {}
            Opened::LeaseLost => lost(world, i, mailbox, *epoch),
            Opened::At { cursor } => {
                let reader = world.processes[i].readers.get_mut(mailbox);
                if let Some(reader) = reader.filter(|reader| reader.epoch == *epoch && reader.cursor.is_none()) {
                    reader.cursor = Some(cursor);
                    if !world.ledger.has_opened(mailbox, *epoch, session, cursor) {
                        world.violated(format_args!("process {i} reads {mailbox} from {cursor} on, as nobody told it"));
                    }
                }
            }
        }
    }
}

/// Sends the report under way, or sends it again. It may arrive very late.
fn report(world: &mut World, i: usize, mailbox: &MailboxUid) {
    let (now, replica) = (world.now, world.any_replica());
    let Some(reader) = world.processes[i].readers.get_mut(mailbox) else { return };
    let Some(report) = reader.report.clone() else { return };
    if !reader.may_call(now) {
        return;
    }
    world.send(Actor::Process(i), Actor::Replica(replica), move |world| {
        let verdict = serving::report(world, &report);
        world.send(Actor::Replica(replica), Actor::Process(i), move |world| reported(world, i, &report, verdict));
    });
}

fn reported(world: &mut World, i: usize, report: &Report, verdict: Verdict) {
    let reader = world.processes[i].readers.get_mut(&report.mailbox);
    let current = |reader: &&mut Reader| reader.report.as_ref().is_some_and(|known| known.batch == report.batch);
    let Some(reader) = reader.filter(current) else { return };
    match verdict {
        Verdict::LeaseLost => lost(world, i, &report.mailbox, report.epoch),
        Verdict::Committed { cursor } | Verdict::Repeated { cursor } | Verdict::CursorMismatch { cursor } => {
            reader.report = None;
            reader.cursor = Some(cursor);
        }
    }
}

fn lost(world: &mut World, i: usize, mailbox: &MailboxUid, epoch: Epoch) {
    let actions = world.processes[i].holder.lost(mailbox, epoch);
    act(world, i, actions);
}

//! The shell of a worker process around the real holder: register, heartbeats, opening, reporting, draining.

use std::collections::BTreeMap;

use postroom_control_plane::lease::desk::{Heartbeat, Offer, Refusal};
use postroom_proto::id::{Epoch, MailboxUid, SessionId};
use postroom_proto::lease::Moment;
use postroom_worker::holder::{self, Action, Answer, Holder, Ticket};

use crate::fleet;
use crate::ledger::{Report, Verdict};
use crate::mutation::Mutation;
use crate::replica::{self, Opened};
use crate::world::{Actor, World, number, seconds};

/// A call that was not answered for this long is made again.
const RETRY: f64 = 1.5;

#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) name: usize,
    pub(crate) up: bool,
    pub(crate) frozen_until: Moment,
    holder: Holder,
    replica: usize,
    jitter: f64,
    in_flight: Option<Ticket>,
    readers: BTreeMap<MailboxUid, Reader>,
    suspended: bool,
    leaving: Option<Leaving>,
}

/// A mailbox that is being read.
#[derive(Debug)]
struct Reader {
    epoch: Epoch,
    /// What the ledger has; `None` until the mailbox is open.
    cursor: Option<u64>,
    report: Option<Report>,
    /// When the call under way was made.
    called: Moment,
    draining: bool,
}

#[derive(Debug, Clone, Copy)]
struct Leaving {
    returning: bool,
    attempts: u32,
}

/// A new process under a name. The former one lives on, unless it was stopped.
pub(crate) fn start(world: &mut World, name: usize) {
    let i = world.processes.len();
    let replica = world.any_replica();
    world.processes.push(Process {
        name,
        up: true,
        frozen_until: Moment::ZERO,
        holder: Holder::new(world.terms),
        replica,
        jitter: 0.0,
        in_flight: None,
        readers: BTreeMap::new(),
        suspended: false,
        leaving: None,
    });
    world.current[name] = i;
    register(world, i);
    let (beat, work) = (world.chance(0.0, 0.2), world.chance(0.0, 1.0));
    world.at(beat, move |world| world.when(Actor::Process(i), move |world| pump(world, i)));
    world.at(work, move |world| world.when(Actor::Process(i), move |world| read(world, i)));
}

/// Dies; a new process of the name comes later, unless there is one.
pub(crate) fn crash(world: &mut World, i: usize) {
    let back_in = world.pick(&[0.6, 2.0, 18.0]);
    down(world, i, back_in);
}

/// Begins to drain everything; then says goodbye.
pub(crate) fn redeploy(world: &mut World, i: usize) {
    let returning = world.likely(0.8);
    let process = &mut world.processes[i];
    if process.leaving.is_none() && world.now >= process.frozen_until {
        process.leaving = Some(Leaving { returning, attempts: 0 });
        let actions = process.holder.stop();
        act(world, i, actions);
    }
}

fn down(world: &mut World, i: usize, back_in: f64) {
    let process = &mut world.processes[i];
    let name = process.name;
    if std::mem::take(&mut process.up) && world.current[name] == i {
        world.at(back_in, move |world| {
            if world.current[name] == i {
                start(world, name);
            }
        });
    }
}

fn register(world: &mut World, i: usize) {
    let (replica, profile) = (world.any_replica(), fleet::profile(world.processes[i].name));
    world.send(Actor::Replica(replica), move |world| {
        let reply = Box::new(move |world: &mut World, session: SessionId| {
            world.send(Actor::Process(i), move |world| {
                let (terms, holder) = (world.terms, &mut world.processes[i].holder);
                if holder.session().is_none() {
                    holder.registered(session, terms);
                }
            });
        });
        replica::register(world, replica, profile, false, reply);
    });
    let again = move |world: &mut World| {
        if world.processes[i].holder.session().is_none() {
            register(world, i);
        }
    };
    world.at(RETRY, move |world| world.when(Actor::Process(i), again));
}

/// What the process does by the clock.
fn pump(world: &mut World, i: usize) {
    let now = world.now;
    let process = &mut world.processes[i];
    let actions = process.holder.tick(now);
    act(world, i, actions);
    let process = &mut world.processes[i];
    if process.leaving.is_some() && process.holder.is_empty() {
        leave(world, i);
        return;
    }
    if process.holder.heartbeat_due(process.jitter).is_some_and(|due| due <= now) {
        send_heartbeat(world, i);
    }
    let delay = world.chance(0.05, 0.25);
    world.at(delay, move |world| world.when(Actor::Process(i), move |world| pump(world, i)));
}

fn send_heartbeat(world: &mut World, i: usize) {
    let now = world.now;
    let jitter = world.chance(-1.0, 1.0);
    let late_accepted = world.is(Mutation::LateAnswersAccepted);
    let timeout = world.terms.heartbeat_timeout.as_secs_f64();
    let process = &mut world.processes[i];
    process.jitter = jitter;
    let Some(beat) = process.holder.heartbeat(now) else { return };
    process.in_flight = Some(beat.ticket);
    let (replica, ticket, session) = (process.replica, beat.ticket, beat.session.clone());
    let heard = to_desk(beat);
    world.send(Actor::Replica(replica), move |world| {
        let reply = Box::new(move |world: &mut World, answer: Result<(u64, Vec<Offer>), Refusal>| {
            world.send(Actor::Process(i), move |world| answered(world, i, &session, ticket, answer));
        });
        replica::heartbeat(world, replica, heard, false, reply);
    });
    let abandon = move |world: &mut World| {
        if world.processes[i].in_flight == Some(ticket) {
            world.processes[i].replica = world.any_replica();
            if late_accepted {
                // Keeps one under way for late answers to be taken for the answer to it.
                send_heartbeat(world, i);
            } else {
                world.processes[i].in_flight = None;
                world.processes[i].holder.abandoned(ticket);
            }
        }
    };
    world.at(timeout, move |world| world.when(Actor::Process(i), abandon));
}

fn answered(
    world: &mut World,
    i: usize,
    session: &SessionId,
    ticket: Ticket,
    answer: Result<(u64, Vec<Offer>), Refusal>,
) {
    let (now, terms) = (world.now, world.terms);
    let mut ticket = ticket;
    if world.is(Mutation::AnchorAtReceipt) {
        ticket.sent = now;
    }
    let process = &mut world.processes[i];
    if process.holder.session() != Some(session) {
        return;
    }
    if let (true, Some(in_flight)) = (world.mutation == Some(Mutation::LateAnswersAccepted), process.in_flight) {
        ticket.sequence = in_flight.sequence;
    }
    if process.in_flight.is_some_and(|in_flight| in_flight.sequence == ticket.sequence) {
        process.in_flight = None;
    }
    let definitions = &world.definitions;
    let actions = match answer {
        Ok((term, offers)) => {
            let offers = offers.into_iter().map(|Offer { mailbox, epoch }| {
                let definition_revision = definitions[number(&mailbox)];
                holder::Offer { mailbox, epoch, definition_revision }
            });
            process.holder.answered(now, ticket, Answer { term, terms, offers: offers.collect() })
        }
        Err(_) => process.holder.session_ended(session),
    };
    act(world, i, actions);
}

fn to_desk(beat: holder::Heartbeat) -> Heartbeat {
    Heartbeat {
        session: beat.session,
        sequence: beat.ticket.sequence,
        term: beat.term,
        held: beat.held.into_iter().map(heard).collect(),
        draining: beat.draining,
    }
}

fn act(world: &mut World, i: usize, actions: Vec<Action>) {
    for action in actions {
        match action {
            Action::Register => {
                world.processes[i].in_flight = None;
                world.processes[i].suspended = false;
                register(world, i);
            }
            Action::Open(offer) | Action::Reopen(offer) => {
                let reader =
                    Reader { epoch: offer.epoch, cursor: None, report: None, called: Moment::ZERO, draining: false };
                world.processes[i].readers.insert(offer.mailbox.clone(), reader);
                open(world, i, &offer.mailbox);
            }
            Action::Drain(mailbox, epoch) => {
                if let Some(reader) = world.processes[i].readers.get_mut(&mailbox) {
                    reader.draining = true;
                }
                let takes = world.pick(&[0.1, 0.3, 1.2, 12.0]);
                let drained = move |world: &mut World| drained(world, i, &mailbox, epoch);
                world.at(takes, move |world| world.when(Actor::Process(i), drained));
            }
            Action::Close(mailbox, epoch) => close(&mut world.processes[i], &mailbox, epoch),
            Action::Suspend => {
                world.processes[i].suspended = true;
                world.counts.suspended += 1;
            }
            Action::Resume => {
                world.processes[i].suspended = false;
                world.counts.resumed += 1;
            }
        }
    }
}

fn drained(world: &mut World, i: usize, mailbox: &MailboxUid, epoch: Epoch) {
    let process = &mut world.processes[i];
    // Not when it was closed at once and opened again meanwhile.
    if process.readers.get(mailbox).is_some_and(|reader| reader.draining) {
        close(process, mailbox, epoch);
        process.holder.let_go(mailbox, epoch);
    }
}

fn close(process: &mut Process, mailbox: &MailboxUid, epoch: Epoch) {
    if process.readers.get(mailbox).is_some_and(|reader| reader.epoch == epoch) {
        process.readers.remove(mailbox);
    }
}

/// Once a second: what is not open is opened, and of the rest some has new messages.
fn read(world: &mut World, i: usize) {
    let now = world.now;
    let mailboxes: Vec<_> = world.processes[i].readers.keys().cloned().collect();
    for mailbox in mailboxes {
        let (arrived, count, batch) = (world.likely(0.15), world.pick(&[1, 2, 3]), world.mint());
        let process = &mut world.processes[i];
        let (Some(reader), Some(session)) = (process.readers.get_mut(&mailbox), process.holder.session()) else {
            continue;
        };
        let Some(from) = reader.cursor else {
            open(world, i, &mailbox);
            continue;
        };
        if !process.holder.may_write(now, &mailbox, reader.epoch) {
            continue;
        }
        if reader.report.is_none() && arrived {
            let (epoch, session) = (reader.epoch, session.clone());
            reader.report = Some(Report { mailbox: mailbox.clone(), epoch, session, batch, from, count });
            reader.called = Moment::ZERO;
        }
        let (epoch, suspended) = (reader.epoch, process.suspended);
        if suspended {
            world.violated(format_args!("process {i} is suspended and may write to {mailbox} under epoch {epoch}"));
        }
        let other = world.writers(&mailbox).find(|&other| other != i);
        if let Some(other) = other {
            world.violated(format_args!("processes {other} and {i} both write to {mailbox}"));
        }
        report(world, i, &mailbox);
    }
    let delay = world.chance(0.8, 1.2);
    world.at(delay, move |world| world.when(Actor::Process(i), move |world| read(world, i)));
}

/// True when no call is under way, which then is noted.
fn may_call(now: Moment, reader: &mut Reader) -> bool {
    let free = reader.called == Moment::ZERO || now >= reader.called + seconds(RETRY);
    if free {
        reader.called = now;
    }
    free
}

fn open(world: &mut World, i: usize, mailbox: &MailboxUid) {
    let (now, replica) = (world.now, world.any_replica());
    let process = &mut world.processes[i];
    let (Some(reader), Some(session)) = (process.readers.get_mut(mailbox), process.holder.session().cloned()) else {
        return;
    };
    if !may_call(now, reader) {
        return;
    }
    let (mailbox, epoch) = (mailbox.clone(), reader.epoch);
    world.send(Actor::Replica(replica), move |world| {
        let opened = replica::open(world, replica, &mailbox, epoch, &session);
        world.send(Actor::Process(i), move |world| match opened {
            Opened::NotCaughtUp => {}
            Opened::LeaseLost => lost(world, i, &mailbox, epoch),
            Opened::At { cursor } => {
                let reader = world.processes[i].readers.get_mut(&mailbox);
                if let Some(reader) = reader.filter(|reader| reader.epoch == epoch && reader.cursor.is_none()) {
                    reader.cursor = Some(cursor);
                }
            }
        });
    });
}

/// Sends the report under way, or sends it again. It may arrive very late.
fn report(world: &mut World, i: usize, mailbox: &MailboxUid) {
    let (now, replica) = (world.now, world.any_replica());
    let Some(reader) = world.processes[i].readers.get_mut(mailbox) else { return };
    let Some(report) = reader.report.clone() else { return };
    if !may_call(now, reader) {
        return;
    }
    world.send(Actor::Replica(replica), move |world| {
        let verdict = replica::report(world, &report);
        world.send(Actor::Process(i), move |world| reported(world, i, &report, verdict));
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

/// Says goodbye a few times, then stops however that went.
fn leave(world: &mut World, i: usize) {
    let replica = world.any_replica();
    let process = &mut world.processes[i];
    let Some(leaving) = &mut process.leaving else { return };
    leaving.attempts += 1;
    let Leaving { returning, attempts } = *leaving;
    let back_in = [1.0, 5.0, 12.0][i % 3];
    let Some(session) = process.holder.session().cloned().filter(|_| attempts <= 3) else {
        return down(world, i, back_in);
    };
    world.send(Actor::Replica(replica), move |world| {
        let reply = Box::new(move |world: &mut World, ()| {
            world.send(Actor::Process(i), move |world| down(world, i, back_in));
        });
        replica::leave(world, replica, session, returning, false, reply);
    });
    world.at(RETRY, move |world| world.when(Actor::Process(i), move |world| leave(world, i)));
}

impl Process {
    /// The mailboxes that it may write to now. None while it is frozen: it cannot do anything.
    pub(crate) fn writable(&self, now: Moment) -> impl Iterator<Item = &MailboxUid> {
        let runs = self.up && now >= self.frozen_until;
        let held = runs.then(|| self.holder.held()).into_iter().flatten();
        held.filter(move |(mailbox, epoch)| self.holder.may_write(now, mailbox, *epoch)).map(|(mailbox, _)| mailbox)
    }

    pub(crate) fn may_write(&self, now: Moment, mailbox: &MailboxUid) -> bool {
        let epoch = self.readers.get(mailbox).map(|reader| reader.epoch);
        let runs = self.up && now >= self.frozen_until;
        runs && epoch.is_some_and(|epoch| self.holder.may_write(now, mailbox, epoch))
    }

    pub(crate) fn reads(&self, mailbox: &MailboxUid) -> bool {
        self.readers.get(mailbox).is_some_and(|reader| reader.cursor.is_some())
    }
}

fn heard(held: holder::Held) -> postroom_control_plane::lease::desk::Held {
    let holder::Held { mailbox, epoch, definition_revision, .. } = held;
    postroom_control_plane::lease::desk::Held { mailbox, epoch, definition_revision }
}

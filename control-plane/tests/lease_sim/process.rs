//! The shell of a worker process around the real holder: register, heartbeats, what follows from answers, goodbye.

use std::collections::BTreeMap;

use postroom_control_plane::lease::desk::{Heartbeat, Offer, Refusal};
use postroom_proto::id::{Epoch, MailboxUid, SessionId};
use postroom_proto::lease::Moment;
use postroom_worker::holder::{self, Action, Answer, Holder, Ticket};
use postroom_worker::pace::crowd::Crowd;

use crate::mutation::Mutation;
use crate::reading::{self, Reader};
use crate::serving;
use crate::world::{Actor, World, number};

/// A call that was not answered for this long is made again.
pub(crate) const RETRY: f64 = 1.5;
/// Up to so many mailboxes begin at once when a process is given its first.
const BURST: usize = 4;

#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) name: usize,
    pub(crate) up: bool,
    pub(crate) frozen_until: Moment,
    /// The network does not reach it until then.
    pub(crate) cut_off_until: Moment,
    pub(crate) holder: Holder,
    pub(crate) readers: BTreeMap<MailboxUid, Reader>,
    replica: usize,
    jitter: f64,
    in_flight: Option<Ticket>,
    crowd: Crowd,
    /// It has been given its first mailboxes.
    settled_in: bool,
    /// What it read when its trust lapsed, until it has trust again.
    pub(crate) suspended: Option<Vec<(MailboxUid, Epoch)>>,
    /// With a mutation: it does not care for trust.
    reckless: bool,
    leaving: Option<Leaving>,
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
        cut_off_until: Moment::ZERO,
        holder: Holder::new(world.terms),
        readers: BTreeMap::new(),
        replica,
        jitter: 0.0,
        in_flight: None,
        crowd: Crowd::new(BURST),
        settled_in: false,
        suspended: None,
        reckless: world.is(Mutation::SuspensionIgnored),
        leaving: None,
    });
    world.current[name] = i;
    register(world, i);
    let (beat, work) = (world.chance(0.0, 0.2), world.chance(0.0, 1.0));
    world.at(beat, move |world| world.when(Actor::Process(i), move |world| pump(world, i)));
    world.at(work, move |world| world.when(Actor::Process(i), move |world| reading::read(world, i)));
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
    let (replica, profile) = (world.any_replica(), world.fleet.profile(world.processes[i].name));
    world.send(Actor::Process(i), Actor::Replica(replica), move |world| {
        let reply = Box::new(move |world: &mut World, session: SessionId| {
            world.send(Actor::Replica(replica), Actor::Process(i), move |world| {
                let (terms, holder) = (world.terms, &mut world.processes[i].holder);
                if holder.session().is_none() {
                    holder.registered(session, terms);
                }
            });
        });
        serving::register(world, replica, profile, false, reply);
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
    world.send(Actor::Process(i), Actor::Replica(replica), move |world| {
        // A call that was given up is not always heard.
        if world.now > now + world.terms.heartbeat_timeout && world.likely(0.5) {
            return;
        }
        let reply = Box::new(move |world: &mut World, answer: Result<(u64, Vec<Offer>), Refusal>| {
            world.send(Actor::Replica(replica), Actor::Process(i), move |world| {
                answered(world, i, &session, ticket, answer)
            });
        });
        serving::heartbeat(world, replica, heard, false, reply);
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

pub(crate) fn act(world: &mut World, i: usize, actions: Vec<Action>) {
    let opens = actions.iter().filter(|action| matches!(action, Action::Open(_))).count();
    let process = &mut world.processes[i];
    let spread = process.crowd.is_one(opens) || (opens > 0 && world.mutation == Some(Mutation::RampForAll));
    let first = !process.settled_in;
    process.settled_in |= opens > 0;
    let mut due = Vec::new();
    for action in actions {
        match action {
            Action::Register => {
                world.processes[i].in_flight = None;
                world.processes[i].suspended = None;
                register(world, i);
            }
            Action::Open(offer) => {
                reading::begin(world, i, &offer, spread, first);
                due.push(offer.mailbox);
            }
            Action::Reopen(offer) => {
                reading::begin_anew(world, i, &offer);
                due.push(offer.mailbox);
            }
            Action::Drain(mailbox, epoch) => {
                if let Some(reader) = world.processes[i].readers.get_mut(&mailbox) {
                    reader.draining = true;
                }
                let takes = world.pick(&[0.1, 0.3, 1.2, 12.0]);
                let drained = move |world: &mut World| drained(world, i, &mailbox, epoch);
                world.at(takes, move |world| world.when(Actor::Process(i), drained));
            }
            Action::Close(mailbox, epoch) => close(world, i, &mailbox, epoch),
            Action::Suspend => suspend(world, i),
            Action::Resume => resume(world, i),
        }
    }
    reading::open(world, i, due);
}

fn suspend(world: &mut World, i: usize) {
    let closes = world.is(Mutation::SuspensionCloses);
    let process = &mut world.processes[i];
    process.suspended = Some(process.readers.iter().map(|(mailbox, reader)| (mailbox.clone(), reader.epoch)).collect());
    if closes {
        process.readers.clear();
    }
    world.counts.suspended += 1;
}

/// Trust is back. What it read, and still holds under the same epoch, nobody had meanwhile: it must go on as it was.
fn resume(world: &mut World, i: usize) {
    world.counts.resumed += 1;
    let process = &mut world.processes[i];
    for (mailbox, epoch) in process.suspended.take().unwrap_or_default() {
        let reads = process.readers.get(&mailbox).is_some_and(|reader| reader.epoch == epoch);
        if process.holder.holds(&mailbox, epoch) && !reads {
            return world.violated(format_args!("process {i} has {mailbox} again and has closed it meanwhile"));
        }
    }
}

fn drained(world: &mut World, i: usize, mailbox: &MailboxUid, epoch: Epoch) {
    // Not when it was closed at once and opened again meanwhile.
    if world.processes[i].readers.get(mailbox).is_some_and(|reader| reader.draining) {
        close(world, i, mailbox, epoch);
        world.processes[i].holder.let_go(mailbox, epoch);
    }
}

fn close(world: &mut World, i: usize, mailbox: &MailboxUid, epoch: Epoch) {
    let (now, process) = (world.now, &mut world.processes[i]);
    if let Some(reader) = process.readers.get(mailbox)
        && reader.epoch == epoch
    {
        world.counts.overtaken += u64::from(now < reader.begins);
        process.readers.remove(mailbox);
        if let Some(held) = &mut process.suspended {
            held.retain(|(other, _)| other != mailbox);
        }
    }
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
    world.send(Actor::Process(i), Actor::Replica(replica), move |world| {
        let reply = Box::new(move |world: &mut World, ()| {
            world.send(Actor::Replica(replica), Actor::Process(i), move |world| down(world, i, back_in));
        });
        serving::leave(world, replica, session, returning, false, reply);
    });
    world.at(RETRY, move |world| world.when(Actor::Process(i), move |world| leave(world, i)));
}

impl Process {
    fn runs(&self, now: Moment) -> bool {
        self.up && now >= self.frozen_until
    }

    /// True when it has this session and nothing has kept it from sending heartbeats since then.
    pub(crate) fn tries(&self, session: &SessionId, since: Moment) -> bool {
        let kept = self.frozen_until.max(self.cut_off_until);
        self.up && self.holder.session() == Some(session) && kept <= since
    }

    /// True when it believes that it may write to the mailbox under this lease.
    pub(crate) fn trusts(&self, now: Moment, mailbox: &MailboxUid, epoch: Epoch) -> bool {
        self.holder.may_write(now, mailbox, epoch) || (self.reckless && self.holder.holds(mailbox, epoch))
    }

    /// The mailboxes that it may write to now. None while it is frozen: it cannot do anything.
    pub(crate) fn writable(&self, now: Moment) -> impl Iterator<Item = &MailboxUid> {
        let held = self.runs(now).then(|| self.holder.held()).into_iter().flatten();
        held.filter(move |(mailbox, epoch)| self.trusts(now, mailbox, *epoch)).map(|(mailbox, _)| mailbox)
    }

    pub(crate) fn may_write(&self, now: Moment, mailbox: &MailboxUid) -> bool {
        let epoch = self.readers.get(mailbox).map(|reader| reader.epoch);
        self.runs(now) && epoch.is_some_and(|epoch| self.trusts(now, mailbox, epoch))
    }

    pub(crate) fn reads(&self, mailbox: &MailboxUid) -> bool {
        self.readers.get(mailbox).is_some_and(|reader| reader.cursor.is_some())
    }
}

fn heard(held: holder::Held) -> postroom_control_plane::lease::desk::Held {
    let holder::Held { mailbox, epoch, definition_revision, .. } = held;
    postroom_control_plane::lease::desk::Held { mailbox, epoch, definition_revision }
}

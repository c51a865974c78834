//! The shell of a replica: election, the leader's loop, and what workers call.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;

use postroom_control_plane::lease::decision::Decision;
use postroom_control_plane::lease::desk::{
    Assign, Assignment, Desk, EndSession, Heartbeat, Offer, Refusal, Session, Settled, Write,
};
use postroom_control_plane::lease::profile::Profile;
use postroom_control_plane::store::Revision;
use postroom_proto::id::{Epoch, MailboxUid, SessionId};
use postroom_proto::lease::Moment;
use postroom_proto::v1::MoveReason;

use crate::fleet;
use crate::ledger::{Report, Verdict};
use crate::mutation::Mutation;
use crate::store::Op;
use crate::world::{Actor, MAILBOXES, World, mailbox};

/// A write that was not answered for this long is looked up.
const WRITE_TIMEOUT: f64 = 2.0;

#[derive(Debug, Default)]
pub(crate) struct Replica {
    pub(crate) frozen_until: Moment,
    /// Counts restarts.
    pub(crate) life: u64,
    office: Option<Office>,
    view: View,
}

#[derive(Debug)]
struct Office {
    desk: Desk,
    term: u64,
    since: Moment,
    /// Answers nobody from this moment on.
    trusted_until: Moment,
    in_flight: Vec<Assign>,
    /// With a mutation: decisions that were taken back without its hearing of it.
    forgotten: BTreeMap<String, Decision>,
}

/// What the replica's watch has told it so far.
#[derive(Debug, Default)]
struct View {
    leader: Option<usize>,
    revision: u64,
    seen: usize,
    assignments: BTreeMap<MailboxUid, Assignment>,
}

/// What became of opening a mailbox.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Opened {
    At { cursor: u64 },
    NotCaughtUp,
    LeaseLost,
}

pub(crate) fn start(world: &mut World, replica: usize) {
    let delay = world.chance(0.0, 1.0);
    world.at(delay, move |world| world.when(Actor::Replica(replica), move |world| campaign(world, replica)));
    world.at(delay, move |world| world.when(Actor::Replica(replica), move |world| watch(world, replica)));
}

/// Forgets everything; the leader's key, if it has it, must run out.
pub(crate) fn crash(world: &mut World, replica: usize, back_in: f64) {
    let life = world.replicas[replica].life + 1;
    world.replicas[replica] = Replica { life, ..Replica::default() };
    world.freeze(Actor::Replica(replica), back_in);
    start(world, replica);
}

/// Gives the key back, as before a restart.
pub(crate) fn resign(world: &mut World, replica: usize) {
    let leads = world.store.leader(world.now).is_some_and(|leader| leader.replica == replica);
    if leads && world.now >= world.replicas[replica].frozen_until {
        world.store.depose();
        world.replicas[replica].office = None;
    }
}

fn campaign(world: &mut World, replica: usize) {
    let now = world.now;
    let terms = world.terms;
    let trusted_until = now + terms.leader_trust();
    let leader = world.store.leader(now);
    world.replicas[replica].view.leader = leader.map(|leader| leader.replica);
    let term = world.replicas[replica].office.as_ref().map(|office| office.term);
    match leader {
        Some(leader) if Some(leader.term) == term => {
            world.store.keep_alive(now + terms.leader_ttl);
            if let Some(office) = &mut world.replicas[replica].office {
                office.trusted_until = trusted_until;
            }
        }
        Some(_) => world.replicas[replica].office = None,
        None => {
            let term = world.store.elect(replica, now + terms.leader_ttl);
            let lie = if world.is(Mutation::NoGrace) { terms.ttl + terms.leader_ttl } else { Moment::ZERO };
            let sessions = world.store.sessions.values().cloned();
            let assignments = world.store.assignments.iter().map(|(mailbox, owner)| (mailbox.clone(), owner.clone()));
            let desk = Desk::take_office(now - lie, Revision(term), terms, sessions, assignments);
            let office =
                Office { desk, term, since: now, trusted_until, in_flight: Vec::new(), forgotten: BTreeMap::new() };
            world.replicas[replica].office = Some(office);
            world.counts.terms_of_office += 1;
            lead(world, replica, term);
        }
    }
    let leads = world.replicas[replica].office.is_some();
    let delay =
        if leads { terms.leader_ttl.as_secs_f64() / 3.0 * world.chance(0.9, 1.1) } else { world.chance(0.5, 1.5) };
    world.at(delay, move |world| world.when(Actor::Replica(replica), move |world| campaign(world, replica)));
}

/// The leader's loop. A round happens only when the desk asks for one.
fn lead(world: &mut World, replica: usize, term: u64) {
    let now = world.now;
    let settled = !world.is(Mutation::NoGrace) || {
        let since = world.replicas[replica].office.as_ref().map(|office| office.since);
        since.is_none_or(|since| now >= since + world.terms.settle())
    };
    let (mutation, mut decided) = (world.mutation, world.store.decided.clone());
    let Some(office) = world.replicas[replica].office.as_mut().filter(|office| office.term == term) else { return };
    if mutation == Some(Mutation::DrainForgotten) {
        decided.workers.extend(office.forgotten.clone());
        office.forgotten = decided.workers.clone();
    }
    office.desk.decide(now, 0, decided);
    if settled && now < office.trusted_until && office.desk.next_wake(now).is_some_and(|wake| wake <= now) {
        let mut mailboxes = fleet::mailboxes();
        if mutation == Some(Mutation::PoolIgnored) {
            mailboxes.iter_mut().for_each(|mailbox| mailbox.pool = "default".into());
        }
        let writes = office.desk.round(now, &mailboxes);
        let mut moves = Vec::new();
        for write in writes {
            match write {
                Write::EndSession(end) => commit(world, replica, term, vec![Op::End(end)], |_, _| ()),
                Write::Assign(assign)
                    if mutation == Some(Mutation::SpareKeeps) && assign.reason == MoveReason::Returned =>
                {
                    let found = world.store.assignments.get(&assign.mailbox).cloned();
                    if let Some(office) = self::office(world, replica, term) {
                        office.desk.mailbox_settled(now, &assign, Settled::Conflict(found));
                    }
                }
                Write::Assign(assign) => {
                    world.counts.stood_in += u64::from(assign.home.is_some());
                    moves.push(Op::Assign(assign));
                }
                Write::Unassign(unassign) => moves.push(Op::Unassign(unassign)),
                Write::Forget(forget) => commit(world, replica, term, vec![Op::Forget(forget)], |_, _| ()),
            }
        }
        let size = world.pick(&[1, 5, 50]);
        for batch in moves.chunks(size) {
            commit(world, replica, term, batch.to_vec(), |_, _| ());
        }
    }
    let delay = world.chance(0.1, 0.3);
    world.at(delay, move |world| world.when(Actor::Replica(replica), move |world| lead(world, replica, term)));
}

/// Carries out a commit as a leader would, and tells its desk. The commit may reach the store long after it was sent,
/// and its answer never.
fn commit(world: &mut World, replica: usize, term: u64, ops: Vec<Op>, then: impl FnOnce(&mut World, bool) + 'static) {
    if let Some(office) = office(world, replica, term) {
        let moves = ops.iter().filter_map(|op| if let Op::Assign(assign) = op { Some(assign.clone()) } else { None });
        office.in_flight.extend(moves);
    }
    let delay = if world.likely(0.9) { world.chance(0.0, 0.02) } else { world.chance(0.0, 5.0) };
    let lost = world.chaotic() && world.likely(0.03);
    let open = Rc::new(Cell::new(true));
    let then = Rc::new(Cell::new(Some(then)));
    let guard = (!world.is(Mutation::NoLeaderCompare)).then_some(term);
    let life = world.replicas[replica].life;
    let (late_ops, late_open, late_then) = (ops.clone(), open.clone(), then.clone());
    let same_life = move |world: &World| world.replicas[replica].life == life;
    world.at(delay, move |world| {
        let outcome = world.store.commit(world.now, guard, &ops);
        if lost || !same_life(world) {
            return;
        }
        world.at(0.01, move |world| {
            let answer = move |world: &mut World| {
                if same_life(world) && open.replace(false) {
                    settle(world, replica, term, &ops, Some(outcome));
                    if let Some(then) = then.take() {
                        then(world, outcome.is_some());
                    }
                }
            };
            world.when(Actor::Replica(replica), answer);
        });
    });
    world.at(WRITE_TIMEOUT, move |world| {
        let look_up = move |world: &mut World| {
            if same_life(world) && late_open.replace(false) {
                world.counts.unknown += 1;
                settle(world, replica, term, &late_ops, None);
                if let Some(then) = late_then.take() {
                    then(world, false);
                }
            }
        };
        world.when(Actor::Replica(replica), look_up);
    });
}

/// `None`: the outcome is unknown.
fn settle(world: &mut World, replica: usize, term: u64, ops: &[Op], outcome: Option<Option<Revision>>) {
    fn settled<T>(outcome: Option<Option<Revision>>, found: Option<T>) -> Settled<T> {
        match outcome {
            Some(Some(revision)) => Settled::Committed(revision),
            Some(None) => Settled::Conflict(found),
            None => Settled::Unknown(found),
        }
    }
    let now = world.now;
    for op in ops {
        match op {
            Op::Register { session, .. } => {
                let found = world.store.sessions.get(session).cloned();
                if let (Some(office), Some(found)) = (office(world, replica, term), found) {
                    office.desk.register(now, found);
                }
            }
            Op::End(end) => {
                let found = world.store.sessions.get(&end.session).cloned();
                if let Some(office) = office(world, replica, term) {
                    office.desk.session_settled(now, end, settled::<Session>(outcome, found));
                }
            }
            Op::Assign(assign) => {
                world.counts.moves += u64::from(outcome.flatten().is_some());
                let found = world.store.assignments.get(&assign.mailbox).cloned();
                if let Some(office) = office(world, replica, term) {
                    office.in_flight.retain(|other| other != assign);
                    office.desk.mailbox_settled(now, assign, settled(outcome, found));
                }
            }
            Op::Unassign(unassign) => {
                let found = world.store.assignments.get(&unassign.mailbox).cloned();
                if let Some(office) = office(world, replica, term) {
                    office.desk.mailbox_retired(unassign, settled(outcome, found));
                }
            }
            Op::Forget(forget) => {
                if let Some(office) = office(world, replica, term) {
                    office.desk.session_forgotten(now, forget, outcome.flatten().is_some());
                }
            }
        }
    }
}

fn office(world: &mut World, replica: usize, term: u64) -> Option<&mut Office> {
    world.replicas[replica].office.as_mut().filter(|office| office.term == term)
}

/// Follows the store, a little behind.
fn watch(world: &mut World, replica: usize) {
    let view = &mut world.replicas[replica].view;
    for (mailbox, assignment) in &world.store.log[view.seen..] {
        match assignment {
            Some(assignment) => view.assignments.insert(mailbox.clone(), assignment.clone()),
            None => view.assignments.remove(mailbox),
        };
    }
    view.seen = world.store.log.len();
    view.revision = world.store.revision();
    let delay = if world.chaotic() && world.likely(0.05) { world.chance(0.1, 3.0) } else { world.chance(0.02, 0.2) };
    world.at(delay, move |world| world.when(Actor::Replica(replica), move |world| watch(world, replica)));
}

/// The replica that serves calls to the leader: itself, or the one it takes for the leader. A call is forwarded once.
/// `None`: no leader is known.
enum Route {
    Here { term: u64 },
    To(usize),
}

fn route(world: &World, replica: usize, forwarded: bool) -> Option<Route> {
    let found = &world.replicas[replica];
    match &found.office {
        Some(office) => (world.now < office.trusted_until).then_some(Route::Here { term: office.term }),
        None => found.view.leader.filter(|&leader| !forwarded && leader != replica).map(Route::To),
    }
}

type Reply<T> = Box<dyn FnOnce(&mut World, T)>;

/// Answers the session, or nothing.
pub(crate) fn register(world: &mut World, replica: usize, profile: Profile, forwarded: bool, reply: Reply<SessionId>) {
    match route(world, replica, forwarded) {
        None => {}
        Some(Route::To(leader)) => {
            world.send(Actor::Replica(leader), move |world| register(world, leader, profile, true, reply));
        }
        Some(Route::Here { term }) => {
            let session = SessionId::parse(&format!("s{}", world.mint())).unwrap();
            let op = Op::Register { session: session.clone(), profile };
            commit(world, replica, term, vec![op], move |world, committed| {
                if committed {
                    reply(world, session);
                }
            });
        }
    }
}

/// Answers the offers or that the session has ended, or nothing.
pub(crate) fn heartbeat(
    world: &mut World,
    replica: usize,
    heard: Heartbeat,
    forwarded: bool,
    reply: Reply<Result<(u64, Vec<Offer>), Refusal>>,
) {
    match route(world, replica, forwarded) {
        None => {}
        Some(Route::To(leader)) => {
            world.send(Actor::Replica(leader), move |world| heartbeat(world, leader, heard, true, reply));
        }
        Some(Route::Here { term }) => {
            let now = world.now;
            let awaited = !world.is(Mutation::ReleaseNotAwaited);
            let offered_in_flight = world.is(Mutation::OfferedInFlight);
            let record = world.store.sessions.get(&heard.session).cloned();
            let Some(office) = office(world, replica, term) else { return };
            let held = if awaited { heard.held } else { Vec::new() };
            let heard = Heartbeat { held, ..heard };
            let mut answer = office.desk.heartbeat(now, &heard);
            if answer == Err(Refusal::Unknown) {
                answer = match record {
                    Some(record) if record.ended.is_none() => {
                        // Written without this desk. Only who still has the key may take it in.
                        if world.store.leader(now).is_some_and(|leader| leader.term == term)
                            && let Some(office) = self::office(world, replica, term)
                        {
                            office.desk.register(now, record);
                        }
                        return;
                    }
                    _ => Err(Refusal::Ended),
                };
            } else if let (true, Ok(offers)) = (offered_in_flight, &mut answer) {
                let moving = office.in_flight.iter().filter_map(|assign| {
                    let owner = office.desk.assignment(&assign.mailbox)?;
                    (owner.session == heard.session)
                        .then(|| Offer { mailbox: assign.mailbox.clone(), epoch: owner.epoch })
                });
                offers.extend(moving);
            }
            reply(world, answer.map(|offers| (term, offers)));
        }
    }
}

/// Answers once the session has ended.
pub(crate) fn leave(
    world: &mut World,
    replica: usize,
    session: SessionId,
    returning: bool,
    forwarded: bool,
    reply: Reply<()>,
) {
    match route(world, replica, forwarded) {
        None => {}
        Some(Route::To(leader)) => {
            world.send(Actor::Replica(leader), move |world| leave(world, leader, session, returning, true, reply));
        }
        Some(Route::Here { term }) => {
            let Some(office) = office(world, replica, term) else { return };
            let Some(end): Option<EndSession> = office.desk.leave(&session, returning) else { return reply(world, ()) };
            commit(world, replica, term, vec![Op::End(end)], |world, committed| {
                if committed {
                    reply(world, ());
                }
            });
        }
    }
}

/// Any replica opens a mailbox, provided that its view has reached the epoch and finds the caller to be the owner.
pub(crate) fn open(world: &mut World, replica: usize, uid: &MailboxUid, epoch: Epoch, session: &SessionId) -> Opened {
    let view = &world.replicas[replica].view;
    if world.mutation != Some(Mutation::OpenUnchecked) && view.revision < epoch.0 {
        return Opened::NotCaughtUp;
    }
    let owner = view.assignments.get(uid);
    if world.mutation != Some(Mutation::OpenUnchecked)
        && owner.is_none_or(|owner| owner.epoch != epoch || owner.session != *session)
    {
        return Opened::LeaseLost;
    }
    world.ledger.open(uid, epoch, session).map_or(Opened::LeaseLost, |cursor| Opened::At { cursor })
}

/// Somebody who holds nothing asks to open a mailbox, with an epoch higher than any.
pub(crate) fn intrude(world: &mut World, replica: usize) {
    let number = world.pick(&[1, 20, MAILBOXES - 2]);
    let session = SessionId::parse("intruder").unwrap();
    open(world, replica, &mailbox(number), Epoch(1 << 60), &session);
}

/// Any replica commits a report.
pub(crate) fn report(world: &mut World, report: &Report) -> Verdict {
    let verdict = world.ledger.report(report, world.mutation);
    match verdict {
        Ok(Verdict::Committed { .. }) => world.counts.commits += 1,
        Ok(Verdict::LeaseLost) => world.counts.refused += 1,
        _ => {}
    }
    verdict.unwrap_or_else(|broken| {
        world.violated(broken);
        Verdict::LeaseLost
    })
}

//! The shell of a replica: election, and the leader's loop.

use std::collections::BTreeMap;
use std::ops::Range;

use postroom_control_plane::lease::decision::Decision;
use postroom_control_plane::lease::desk::{Assign, Assignment, Desk, EndSession, Heartbeat, Session, Settled, Write};
use postroom_control_plane::lease::profile::Profile;
use postroom_control_plane::store::Revision;
use postroom_proto::id::{MailboxUid, SessionId};
use postroom_proto::lease::Moment;
use postroom_proto::v1::MoveReason;

use crate::attention::{self, Attention};
use crate::commit::commit;
use crate::mutation::Mutation;
use crate::store::Op;
use crate::world::{Actor, World};

/// Workers that only the desk sees, with a mutation.
const CROWD: usize = 40;

#[derive(Debug, Default)]
pub(crate) struct Replica {
    pub(crate) frozen_until: Moment,
    /// Counts restarts.
    pub(crate) life: u64,
    pub(crate) office: Option<Office>,
    pub(crate) view: View,
}

#[derive(Debug)]
pub(crate) struct Office {
    pub(crate) desk: Desk,
    pub(crate) term: u64,
    pub(crate) in_flight: Vec<Assign>,
    pub(crate) attention: Attention,
    since: Moment,
    /// Answers nobody from this moment on.
    trusted_until: Moment,
    /// With a mutation: decisions that were taken back without its hearing of it.
    forgotten: BTreeMap<String, Decision>,
}

/// What the replica's watch has told it so far.
#[derive(Debug, Default)]
pub(crate) struct View {
    pub(crate) leader: Option<usize>,
    pub(crate) revision: u64,
    pub(crate) assignments: BTreeMap<MailboxUid, Assignment>,
    seen: usize,
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
    let now = world.now;
    let found = &mut world.replicas[replica];
    if now < found.frozen_until {
        return;
    }
    let term = found.office.take().map(|office| office.term);
    // A store that does not answer keeps the key until it runs out.
    if world.store.leader(now).is_some_and(|leader| Some(leader.term) == term)
        && world.store.stalled_until(now).is_none()
    {
        world.store.depose();
    }
}

/// Gives the office up once its trust has lapsed: it has refused its callers, or slept, and whom it did not hear it
/// cannot tell from the dead. True: it has none now.
fn lapse(world: &mut World, replica: usize) -> bool {
    let now = world.now;
    let lapsed = world.replicas[replica].office.as_ref().is_some_and(|office| !office.is_trusted(now));
    if lapsed && world.mutation != Some(Mutation::OfficeKept) {
        world.counts.lapsed += 1;
        resign(world, replica);
    }
    world.replicas[replica].office.is_none()
}

fn campaign(world: &mut World, replica: usize) {
    let (now, terms) = (world.now, world.terms);
    if world.store.stalled_until(now).is_none() {
        confirm_or_win(world, replica);
    }
    let leads = world.replicas[replica].office.is_some();
    let delay =
        if leads { terms.leader_ttl.as_secs_f64() / 3.0 * world.chance(0.9, 1.1) } else { world.chance(0.5, 1.5) };
    world.at(delay, move |world| world.when(Actor::Replica(replica), move |world| campaign(world, replica)));
}

fn confirm_or_win(world: &mut World, replica: usize) {
    let (now, terms, alone) = (world.now, world.terms, world.fleet.alone());
    let trusted_until = now + terms.leader_trust();
    lapse(world, replica);
    let mut leader = world.store.leader(now);
    let term = world.replicas[replica].office.as_ref().map(|office| office.term);
    if alone && leader.map(|leader| leader.term) != term {
        // Nobody else can have the store open: the key is that of a dead process.
        world.store.depose();
        leader = None;
    }
    world.replicas[replica].view.leader = leader.map(|leader| leader.replica);
    match leader {
        Some(leader) if Some(leader.term) == term => {
            world.store.keep_alive(key_expires(world));
            if let Some(office) = &mut world.replicas[replica].office {
                if !office.is_trusted(now) {
                    office.attention.misses(office.trusted_until..now);
                }
                office.trusted_until = trusted_until;
            }
        }
        Some(_) => world.replicas[replica].office = None,
        None => {
            let term = world.store.elect(replica, key_expires(world));
            let lie = if world.is(Mutation::NoGrace) { terms.ttl + terms.leader_ttl } else { Moment::ZERO };
            let sessions = world.store.sessions.values().cloned();
            let assignments = world.store.assignments.iter().map(|(mailbox, owner)| (mailbox.clone(), owner.clone()));
            let desk = Desk::take_office(now - lie, Revision(term), terms, sessions, assignments);
            let mut attention = Attention::default();
            let alive = world.store.sessions.values().filter(|session| session.ended.is_none());
            alive.for_each(|session| attention.meets(now, &session.id));
            let office = Office {
                desk,
                term,
                in_flight: Vec::new(),
                attention,
                since: now,
                trusted_until,
                forgotten: BTreeMap::new(),
            };
            world.replicas[replica].office = Some(office);
            world.counts.terms_of_office += 1;
            lead(world, replica, term);
        }
    }
}

/// Until when the key of a leader stands that is not heard again. Where nobody else can lead it does not run out.
fn key_expires(world: &World) -> Moment {
    if world.fleet.alone() { Moment::MAX } else { world.now + world.terms.leader_ttl }
}

/// The leader's loop. A round happens only when the desk asks for one.
fn lead(world: &mut World, replica: usize, term: u64) {
    let now = world.now;
    let settled = !world.is(Mutation::NoGrace) || {
        let since = world.replicas[replica].office.as_ref().map(|office| office.since);
        since.is_none_or(|since| now >= since + world.terms.settle())
    };
    let (mutation, mut decided) = (world.mutation, world.store.decided.clone());
    if mutation != Some(Mutation::RoundUntrusted) && office(world, replica, term).is_some() && lapse(world, replica) {
        return;
    }
    let fleet = world.fleet;
    let Some(office) = office(world, replica, term) else { return };
    if mutation == Some(Mutation::BrakeReleased) {
        office.crowd(now);
    }
    if mutation == Some(Mutation::DrainForgotten) {
        decided.workers.extend(office.forgotten.clone());
        office.forgotten = decided.workers.clone();
    }
    office.desk.decide(now, 0, decided);
    let trusted = office.is_trusted(now) || mutation == Some(Mutation::RoundUntrusted);
    if settled && trusted && office.desk.next_wake(now).is_some_and(|wake| wake <= now) {
        let mut mailboxes = fleet.mailboxes();
        if mutation == Some(Mutation::PoolIgnored) {
            mailboxes.iter_mut().for_each(|mailbox| mailbox.pool = "default".into());
        }
        let writes = office.desk.round(now, &mailboxes);
        world.counts.braked += u64::from(office.desk.brake(now).is_some());
        let ends =
            writes.iter().filter_map(|write| if let Write::EndSession(end) = write { Some(end.clone()) } else { None });
        judge(world, replica, &ends.collect::<Vec<_>>());
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

/// A leader has decided the ends of these sessions.
pub(crate) fn judge(world: &mut World, replica: usize, ends: &[EndSession]) {
    let Some(office) = &mut world.replicas[replica].office else { return };
    let mut attention = std::mem::take(&mut office.attention);
    let untrusted = office.trusted_until..world.now.max(office.trusted_until);
    attention.misses(untrusted);
    if let Some(wrong) = attention::judge(world, &mut attention, ends) {
        world.violated(wrong);
    }
    if let Some(office) = &mut world.replicas[replica].office {
        office.attention = attention;
    }
}

/// The office of a replica, if it is still that of this term.
pub(crate) fn office(world: &mut World, replica: usize, term: u64) -> Option<&mut Office> {
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

impl Replica {
    /// It does nothing for a while.
    pub(crate) fn misses(&mut self, time: Range<Moment>) {
        if let Some(office) = &mut self.office {
            office.attention.misses(time);
        }
    }
}

impl Office {
    /// False: somebody else may lead.
    pub(crate) fn is_trusted(&self, now: Moment) -> bool {
        now < self.trusted_until
    }

    /// Takes in a session whose record is written.
    pub(crate) fn meets(&mut self, now: Moment, session: Session) {
        if session.ended.is_none() {
            self.attention.meets(now, &session.id);
        }
        self.desk.register(now, session);
    }

    /// Workers of a pool that has no mailboxes speak.
    fn crowd(&mut self, now: Moment) {
        for number in 0..CROWD {
            let id = SessionId::parse(&format!("crowd-{number}")).unwrap();
            let profile = Profile { pool: "nowhere".into(), ..Profile::new(format!("crowd-{number}")) };
            let revision = Revision(1);
            self.desk.register(now, Session { id: id.clone(), profile, begun: None, ended: None, revision });
            let sequence = u64::try_from(now.as_millis()).unwrap();
            let heartbeat = Heartbeat { session: id, sequence, term: 0, held: Vec::new(), draining: false };
            self.desk.heartbeat(now, &heartbeat).unwrap();
        }
    }
}

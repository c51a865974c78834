//! What workers call: any replica answers, or forwards what only the leader can.

use postroom_control_plane::lease::desk::{EndSession, Heartbeat, Offer, Refusal};
use postroom_control_plane::lease::profile::Profile;
use postroom_proto::id::{Epoch, MailboxUid, SessionId};

use crate::commit::commit;
use crate::ledger::{Report, Verdict};
use crate::mutation::Mutation;
use crate::replica::{self, office};
use crate::store::Op;
use crate::world::{Actor, BROKEN, MAILBOXES, World, mailbox, number};

/// A lease that a mailbox is to be opened under.
#[derive(Debug, Clone)]
pub(crate) struct Lease {
    pub(crate) mailbox: MailboxUid,
    pub(crate) epoch: Epoch,
}

/// What became of opening a mailbox.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Opened {
    At {
        cursor: u64,
    },
    NotCaughtUp,
    LeaseLost,
    /// It has nothing to do with the lease.
    Failed,
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
        Some(office) => office.is_trusted(world.now).then_some(Route::Here { term: office.term }),
        None => found.view.leader.filter(|&leader| !forwarded && leader != replica).map(Route::To),
    }
}

type Reply<T> = Box<dyn FnOnce(&mut World, T)>;

/// Answers the session, or nothing.
pub(crate) fn register(world: &mut World, replica: usize, profile: Profile, forwarded: bool, reply: Reply<SessionId>) {
    match route(world, replica, forwarded) {
        None => {}
        Some(Route::To(leader)) => {
            world.send(Actor::Replica(replica), Actor::Replica(leader), move |world| {
                register(world, leader, profile, true, reply)
            });
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
            world.send(Actor::Replica(replica), Actor::Replica(leader), move |world| {
                heartbeat(world, leader, heard, true, reply)
            });
        }
        Some(Route::Here { term }) => {
            let now = world.now;
            let awaited = !world.is(Mutation::ReleaseNotAwaited);
            let offered_in_flight = world.is(Mutation::OfferedInFlight);
            let record = world.store.sessions.get(&heard.session).cloned();
            let stalled = world.store.stalled_until(now).is_some();
            let Some(office) = office(world, replica, term) else { return };
            let held = if awaited { heard.held } else { Vec::new() };
            let heard = Heartbeat { held, ..heard };
            let mut answer = office.desk.heartbeat(now, &heard);
            office.attention.hears(now, &heard);
            if answer == Err(Refusal::Unknown) {
                answer = match record {
                    _ if stalled => return,
                    Some(record) if record.ended.is_none() => {
                        // Written without this desk. Only who still has the key may take it in.
                        if world.store.leader(now).is_some_and(|leader| leader.term == term)
                            && let Some(office) = self::office(world, replica, term)
                        {
                            office.meets(now, record);
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
            world.send(Actor::Replica(replica), Actor::Replica(leader), move |world| {
                leave(world, leader, session, returning, true, reply)
            });
        }
        Some(Route::Here { term }) => {
            let Some(office) = office(world, replica, term) else { return };
            let Some(end): Option<EndSession> = office.desk.leave(&session, returning) else { return reply(world, ()) };
            replica::judge(world, replica, std::slice::from_ref(&end));
            commit(world, replica, term, vec![Op::End(end)], |world, committed| {
                if committed {
                    reply(world, ());
                }
            });
        }
    }
}

/// Any replica opens mailboxes, each with an outcome of its own, in any order. About some it may say nothing.
pub(crate) fn open_all(
    world: &mut World,
    replica: usize,
    leases: &[Lease],
    session: &SessionId,
) -> Vec<(MailboxUid, Opened)> {
    let mut outcomes = Vec::new();
    for Lease { mailbox, epoch } in leases {
        let outcome = if number(mailbox) == BROKEN {
            Opened::Failed
        } else if world.chaotic() && world.likely(0.03) {
            continue;
        } else {
            open(world, replica, mailbox, *epoch, session)
        };
        outcomes.push((mailbox.clone(), outcome));
    }
    let opened = outcomes.iter().filter(|(_, outcome)| matches!(outcome, Opened::At { .. })).count();
    if opened < leases.len() {
        world.counts.partly += u64::from(opened > 0);
        if world.is(Mutation::OneFailureFailsAll) {
            outcomes.iter_mut().for_each(|(_, outcome)| *outcome = Opened::Failed);
        }
    }
    if world.likely(0.5) {
        outcomes.reverse();
    }
    outcomes
}

/// Any replica opens a mailbox, provided that its view has reached the epoch and finds the caller to be the owner.
fn open(world: &mut World, replica: usize, uid: &MailboxUid, epoch: Epoch, session: &SessionId) -> Opened {
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

//! Drains, freezes, the brake, and what is tidied up, at one desk and in virtual time.

use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

use super::*;
use crate::lease::decision::Decision;
use crate::lease::profile::Profile;

const TERM: u64 = 3;

fn at(seconds: f64) -> Moment {
    Duration::from_secs_f64(seconds)
}

fn uid(number: u64) -> MailboxUid {
    MailboxUid::parse(&format!("mbx-{number:024x}")).unwrap()
}

fn id(text: &str) -> SessionId {
    SessionId::parse(text).unwrap()
}

fn mailboxes(count: u64) -> Vec<Mailbox> {
    (0..count).map(|number| Mailbox { uid: uid(number), weight: 1, pool: "default".into() }).collect()
}

fn record(session: &str, revision: u64) -> Session {
    let profile = Profile::new(session);
    Session { id: id(session), profile, begun: None, ended: None, revision: Revision(revision) }
}

/// Takes office at zero; the workers are named as their sessions.
fn office(sessions: &[&str], assignments: &[(u64, &str)]) -> Desk {
    let sessions = (1..).zip(sessions).map(|(revision, session)| record(session, revision));
    let assignments = assignments.iter().map(|(number, session)| {
        (uid(*number), Assignment { session: id(session), epoch: Epoch(100 + number), home: None })
    });
    Desk::take_office(Moment::ZERO, Revision(TERM), LeaseTerms::default(), sessions, assignments)
}

fn beat(desk: &mut Desk, now: f64, session: &str, sequence: u64, held: impl IntoIterator<Item = u64>) -> Vec<Offer> {
    let held = held.into_iter().map(|number| Held {
        mailbox: uid(number),
        epoch: Epoch(100 + number),
        definition_revision: 1,
    });
    let held = held.collect();
    desk.heartbeat(at(now), &Heartbeat { session: id(session), sequence, term: TERM, held, draining: false }).unwrap()
}

fn decided(worker: &str, drained: bool) -> Decided {
    let mut decision = Decision::new(0, "ada");
    decision.drained = drained;
    Decided { workers: [(worker.to_owned(), decision)].into(), freeze: None }
}

fn assigns(writes: &[Write]) -> Vec<Assign> {
    let assigns = writes.iter().filter_map(|write| if let Write::Assign(assign) = write { Some(assign) } else { None });
    assigns.cloned().collect()
}

fn ends(writes: &[Write]) -> usize {
    writes.iter().filter(|write| matches!(write, Write::EndSession(_))).count()
}

/// The chain of a drain with default terms, every link of it slower than it is on a sane network: the decision is heard
/// through the watch, a round asks the worker, a nudge makes it send a heartbeat, it lets go and says so, a round gives the
/// mailboxes away, the commit nudges the others, and their next answers name them.
#[test]
fn the_last_of_50_mailboxes_of_a_drained_worker_is_taken_over_within_2_seconds() {
    const HOP: f64 = 0.05;
    const COMMIT: f64 = 0.05;
    const ROUND: f64 = 0.02;
    // A report that is under way when the worker is asked to let go.
    const LETTING_GO: f64 = 0.5;
    // Heartbeats keep a tenth of their distance, however much there is to tell.
    const DISTANCE: f64 = 0.2;
    let owned: Vec<(u64, &str)> = (0..50).map(|number| (number, "a")).collect();
    let mut desk = office(&["a", "b", "c"], &owned);
    let all = mailboxes(50);
    beat(&mut desk, 3.9, "a", 1, 0..50);
    beat(&mut desk, 3.9, "b", 1, []);
    beat(&mut desk, 3.9, "c", 1, []);
    // Whatever the load asks for beside it is not of interest.
    let began = 4.0;
    let mut now = began + COMMIT + HOP;
    desk.decide(at(now), 0, decided("a", true));
    assert_eq!(desk.next_wake(at(now)), Some(at(now)), "a decision is acted on at once");
    now += ROUND;
    assert!(assigns(&desk.round(at(now), &all)).is_empty(), "it is asked first");
    assert_eq!(desk.take_nudged(), BTreeSet::from([id("a")]));
    now += HOP + HOP;
    let asked = now - HOP;
    assert!(beat(&mut desk, now, "a", 2, 0..50).is_empty());
    now = (now + HOP + LETTING_GO).max(asked + DISTANCE) + HOP;
    assert!(beat(&mut desk, now, "a", 3, []).is_empty());
    assert_eq!(desk.next_wake(at(now)), Some(at(now)));
    now += ROUND;
    let moves = assigns(&desk.round(at(now), &all));
    assert_eq!(moves.len(), 50);
    now += COMMIT;
    for assign in &moves {
        assert_eq!((assign.reason, assign.former.as_deref(), assign.forced), (MoveReason::Operator, Some("a"), false));
        desk.mailbox_settled(at(now), assign, Settled::Committed(Revision(500)));
    }
    now += HOP + HOP;
    let mut offered = HashSet::new();
    for session in ["b", "c"] {
        offered.extend(beat(&mut desk, now, session, 2, []).into_iter().map(|offer| offer.mailbox));
    }
    now += HOP;
    assert_eq!(offered.len(), 50);
    assert!(now - began < 2.0, "{} s", now - began);
    println!(
        "the last of 50 mailboxes of a drained worker is offered elsewhere {:.2} s after the decision",
        now - began
    );
}

#[test]
fn who_is_drained_is_given_nothing_until_that_ends() {
    let mut desk = office(&["a"], &[]);
    beat(&mut desk, 3.9, "a", 1, []);
    desk.decide(at(3.9), 0, decided("a", true));
    assert!(desk.round(at(4.0), &mailboxes(1)).is_empty());
    assert_eq!(desk.unassigned(at(4.0), &[uid(0)])[&uid(0)], UnassignedReason::NoWorker);
    desk.decide(at(5.0), 0, decided("a", false));
    assert_eq!(assigns(&desk.round(at(5.0), &mailboxes(1))).len(), 1);
}

#[test]
fn when_most_fall_silent_at_once_nobody_is_ended_for_a_minute() {
    let names = ["a", "b", "c", "d", "e"];
    let mut desk = office(&[], &[]);
    for (i, name) in names.iter().enumerate() {
        desk.register(at(1.0), record(name, i as u64));
    }
    assert_eq!(ends(&desk.round(at(13.0), &[])), 0, "the brake");
    assert_eq!(desk.brake(at(13.0)), Some(BRAKE));
    assert_eq!(desk.fleet(at(13.0)).brake, Some(BRAKE));
    assert!(beat(&mut desk, 72.0, "a", 1, []).is_empty(), "as if nothing had happened");
    assert_eq!(ends(&desk.round(at(72.9), &[])), 0);
    assert_eq!(desk.next_wake(at(72.9)), Some(at(73.0)));
    assert_eq!(ends(&desk.round(at(73.0), &[])), 4, "those that are still silent");
    assert_eq!(desk.brake(at(73.0)), None);
}

#[test]
fn three_that_fall_silent_are_ended() {
    let mut desk = office(&[], &[]);
    for (i, name) in ["a", "b", "c"].iter().enumerate() {
        desk.register(at(1.0), record(name, i as u64));
    }
    assert_eq!(ends(&desk.round(at(13.0), &[])), 3);
}

#[test]
fn frozen_nobody_is_ended_for_silence_until_the_freeze_ends_by_itself() {
    let mut desk = office(&[], &[]);
    desk.register(at(1.0), record("a", 1));
    let freeze = Some(Freeze::new(0, Some(20_000_000), "ada", ""));
    desk.decide(at(2.0), 0, Decided { freeze, ..Decided::default() });
    assert_eq!(ends(&desk.round(at(13.0), &[])), 0);
    assert!(desk.fleet(at(13.0)).freeze.is_some());
    assert_eq!(desk.next_wake(at(13.0)), Some(at(22.0)), "20 s after it was heard at 2 s");
    assert_eq!(ends(&desk.round(at(22.0), &[])), 1);
    assert!(desk.fleet(at(22.0)).freeze.is_none());
    // A leader that hears late of one that is over does not freeze.
    desk.decide(at(23.0), 30_000_000, Decided { freeze: Some(Freeze::new(0, Some(1), "", "")), ..Decided::default() });
    assert!(desk.fleet(at(23.0)).freeze.is_none());
}

#[test]
fn what_left_the_model_is_let_go_and_then_forgotten_and_can_come_back() {
    let mut desk = office(&["a"], &[(0, "a")]);
    beat(&mut desk, 3.9, "a", 1, [0]);
    assert!(desk.round(at(4.0), &[]).is_empty(), "it is asked first");
    assert!(beat(&mut desk, 4.1, "a", 2, [0]).is_empty());
    beat(&mut desk, 4.5, "a", 3, []);
    let unassign = Unassign { mailbox: uid(0), expected: Epoch(100) };
    assert_eq!(desk.round(at(4.6), &[]), [Write::Unassign(unassign.clone())]);
    desk.mailbox_retired(&unassign, Settled::Committed(Revision(200)));
    assert_eq!(desk.assignment(&uid(0)), None);
    assert_eq!(assigns(&desk.round(at(5.0), &mailboxes(1)))[0].expected, None);
}

#[test]
fn the_record_of_an_ended_session_goes_once_it_owns_nothing() {
    let mut desk = office(&["a", "b"], &[(0, "a")]);
    beat(&mut desk, 3.9, "a", 1, []);
    beat(&mut desk, 3.9, "b", 1, []);
    let end = desk.leave(&id("a"), false).unwrap();
    desk.session_settled(at(4.0), &end, Settled::Committed(Revision(9)));
    let moved = assigns(&desk.round(at(4.0), &mailboxes(1))).remove(0);
    beat(&mut desk, 63.0, "b", 2, []);
    let forgets = |writes: Vec<Write>| -> Vec<Forget> {
        writes.into_iter().filter_map(|it| if let Write::Forget(forget) = it { Some(forget) } else { None }).collect()
    };
    assert!(forgets(desk.round(at(64.0), &mailboxes(1))).is_empty(), "its mailbox is still on the way");
    desk.mailbox_settled(at(64.0), &moved, Settled::Committed(Revision(10)));
    let forget = Forget { session: id("a"), expected: Revision(9) };
    assert_eq!(forgets(desk.round(at(65.0), &mailboxes(1))), std::slice::from_ref(&forget));
    assert!(forgets(desk.round(at(66.0), &mailboxes(1))).is_empty(), "not twice");
    desk.session_forgotten(at(66.0), &forget, true);
    let late = Heartbeat { session: id("a"), sequence: 9, term: TERM, held: Vec::new(), draining: false };
    assert_eq!(desk.heartbeat(at(67.0), &late), Err(Refusal::Unknown));
}

#[test]
fn what_is_beyond_a_workers_capacity_is_kept_from_it() {
    let mut desk = office(&[], &[]);
    let profile = Profile { capacity: 1, ..Profile::new("a") };
    desk.register(at(1.0), Session { profile, ..record("a", 1) });
    let writes = assigns(&desk.round(at(4.0), &mailboxes(2)));
    assert_eq!(writes.len(), 1);
    assert_eq!(desk.unassigned(at(4.0), &[uid(1)])[&uid(1)], UnassignedReason::NoCapacity);
    desk.mailbox_settled(at(4.1), &writes[0], Settled::Committed(Revision(100)));
    assert_eq!(beat(&mut desk, 4.2, "a", 1, []).len(), 1);
    // A new process of that name carries less: nothing of what it cannot carry is offered.
    let mut desk = office(&[], &[(0, "a"), (1, "a")]);
    desk.register(at(1.0), Session { profile: Profile { capacity: 1, ..Profile::new("a") }, ..record("a", 1) });
    desk.round(at(4.0), &mailboxes(2));
    let offered = beat(&mut desk, 4.2, "a", 1, []);
    assert_eq!(offered.iter().map(|offer| offer.mailbox.clone()).collect::<Vec<_>>(), [uid(0)]);
}

#[test]
fn many_mailboxes_wait_until_the_workers_are_there() {
    let mut desk = office(&[], &[]);
    let (few, many) = (mailboxes(VOLUNTARY as u64), mailboxes(VOLUNTARY as u64 + 1));
    desk.round(at(5.0), &many);
    desk.register(at(10.0), record("a", 1));
    assert!(assigns(&desk.round(at(10.0), &many)).is_empty());
    assert_eq!(desk.next_wake(at(10.0)), Some(at(10.5)));
    assert_eq!(desk.unassigned(at(10.0), &[uid(0)])[&uid(0)], UnassignedReason::Moving);
    desk.register(at(10.3), record("b", 2));
    assert!(assigns(&desk.round(at(10.5), &many)).is_empty(), "somebody came meanwhile");
    let given = assigns(&desk.round(at(10.8), &many));
    let to = |session: &str| given.iter().filter(|assign| assign.to == id(session)).count();
    assert_eq!((to("a"), to("b")), (101, 100));
    let mut alone = office(&[], &[]);
    alone.register(at(10.0), record("a", 1));
    assert_eq!(assigns(&alone.round(at(10.0), &few)).len(), few.len(), "what can be evened out later does not wait");
}

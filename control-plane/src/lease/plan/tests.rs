//! The rules one by one, then what must hold for any fleet.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use proptest::prelude::*;

use super::*;

const NOW: Moment = Duration::from_secs(100);
const GONE: State = State::Ended { seats_until: None, silent: false };
const SILENT: State = State::Ended { seats_until: None, silent: true };

fn id(text: &str) -> SessionId {
    SessionId::parse(text).unwrap()
}

fn uid(number: usize) -> MailboxUid {
    MailboxUid::parse(&format!("mbx-{number:024x}")).unwrap()
}

fn mailbox(number: usize, weight: u32, pool: &str) -> Mailbox {
    Mailbox { uid: uid(number), weight, pool: pool.into() }
}

/// An active worker of the default pool that has lived for long.
fn worker(session: &str, name: &str, born: u64, state: State) -> Worker {
    Worker {
        session: id(session),
        name: name.into(),
        pool: "default".into(),
        role: Role::Active,
        role_set: false,
        capacity: 0,
        drained: false,
        settled: true,
        born: Revision(born),
        state,
    }
}

/// One that lives; its name is the first letter of its session.
fn live(session: &str) -> Worker {
    worker(session, &session[..1], 1, State::Taking)
}

fn spare(session: &str) -> Worker {
    Worker { role: Role::Spare, ..live(session) }
}

/// Who has what: session and home, by mailbox.
type Seats = HashMap<MailboxUid, (SessionId, Option<String>)>;

/// Mailboxes of weight 1, their seats named in order: `session`, `session/home`, or empty for none.
fn seats(named: &[&str]) -> (Vec<Mailbox>, Seats) {
    let mailboxes: Vec<_> = (0..named.len()).map(|i| mailbox(i, 1, "default")).collect();
    let taken = named.iter().enumerate().filter(|(_, seat)| !seat.is_empty());
    let seats = taken.map(|(i, seat)| {
        let (session, home) = seat.split_once('/').map_or((*seat, None), |(session, home)| (session, Some(home)));
        (uid(i), (id(session), home.map(Into::into)))
    });
    (mailboxes, seats.collect())
}

fn planned<'a>(mailboxes: &[Mailbox], workers: &'a [Worker], limits: Limits, seats: &'a Seats) -> Plan<'a> {
    let seats = mailboxes.iter().map(|mailbox| {
        let (session, home) = seats.get(&mailbox.uid)?;
        Some(Seat { session, home: home.as_deref(), pinned: false })
    });
    plan(NOW, mailboxes, workers, limits, &seats.collect::<Vec<_>>())
}

/// The plan in the words of [`seats`].
fn told(plan: &Plan<'_>) -> Vec<String> {
    let told = plan.wanted.iter().map(|wanted| match wanted {
        Wanted::At { session, home: Some(home), .. } => format!("{session}/{home}"),
        Wanted::At { session, .. } => session.to_string(),
        Wanted::Nobody(UnassignedReason::NoCapacity) => "full".into(),
        Wanted::Nobody(_) => String::new(),
    });
    told.collect()
}

fn wanted(workers: &[Worker], named: &[&str]) -> Vec<String> {
    let (mailboxes, seats) = seats(named);
    told(&planned(&mailboxes, workers, Limits::NONE, &seats))
}

fn wanted_frozen(workers: &[Worker], named: &[&str]) -> Vec<String> {
    let (mailboxes, seats) = seats(named);
    told(&planned(&mailboxes, workers, Limits { frozen: true, ..Limits::NONE }, &seats))
}

fn reasons(workers: &[Worker], named: &[&str]) -> Vec<MoveReason> {
    let (mailboxes, seats) = seats(named);
    let plan = planned(&mailboxes, workers, Limits::NONE, &seats);
    let reasons = plan.wanted.iter().map(|wanted| match wanted {
        Wanted::At { reason, .. } => *reason,
        Wanted::Nobody(_) => MoveReason::Unspecified,
    });
    reasons.collect()
}

#[test]
fn without_workers_nothing_is_wanted() {
    assert_eq!(wanted(&[], &["", "gone"]), ["", ""]);
}

#[test]
fn the_newest_session_of_a_name_inherits() {
    let workers = [worker("old", "w", 1, State::Taking), worker("new", "w", 2, State::Taking)];
    assert_eq!(wanted(&workers, &["old", "new", ""]), ["new", "new", "new"]);
    assert_eq!(reasons(&workers, &["old", ""]), [MoveReason::WorkerRestarted, MoveReason::New]);
}

#[test]
fn an_older_session_does_not_take_from_a_newer_one_that_drains() {
    let workers = [worker("old", "w", 1, State::Taking), worker("new", "w", 2, State::Keeping)];
    assert_eq!(wanted(&workers, &["new"]), ["new"]);
}

#[test]
fn seats_of_the_ended_go_to_their_name_first() {
    let workers =
        [worker("a1", "a", 1, GONE), worker("a2", "a", 2, State::Taking), worker("b1", "b", 3, State::Taking)];
    assert_eq!(wanted(&workers, &["a1", "b1"]), ["a2", "b1"]);
}

#[test]
fn seats_are_kept_warm_until_the_time_is_over() {
    let left = |until| worker("a1", "a", 1, State::Ended { seats_until: Some(until), silent: false });
    assert_eq!(wanted(&[left(NOW + Duration::from_nanos(1)), live("b1")], &["a1"]), ["a1"]);
    assert_eq!(wanted(&[left(NOW), live("b1")], &["a1"]), ["b1"]);
}

#[test]
fn a_move_says_what_became_of_the_former_owner() {
    let workers = [worker("a1", "a", 1, GONE), worker("b1", "b", 1, SILENT), live("c1")];
    let expected = [MoveReason::WorkerLeft, MoveReason::WorkerSilent, MoveReason::WorkerLeft];
    assert_eq!(reasons(&workers, &["a1", "b1", "nobody-knows"]), expected);
}

#[test]
fn a_worker_that_joins_is_lifted_and_nobody_falls_below() {
    let workers = [live("a1"), live("b1"), live("c1")];
    let named: Vec<_> = (0..30).map(|i| if i % 2 == 0 { "a1" } else { "b1" }).collect();
    let plan = wanted(&workers, &named);
    let load = |session: &str| plan.iter().filter(|wanted| *wanted == session).count();
    assert_eq!((load("a1"), load("b1"), load("c1")), (10, 10, 10));
    assert_eq!(reasons(&workers, &named).iter().filter(|reason| **reason == MoveReason::Balance).count(), 10);
}

#[test]
fn a_death_after_a_lift_moves_nothing_of_others() {
    // The first one came alone and had everything; small shares are where a worker of 90 % is soon below.
    let name = |number: usize| format!("w{number:02}");
    let workers: Vec<_> = (0..20).map(|number| worker(&name(number), &name(number), 1, State::Taking)).collect();
    let lifted = wanted(&workers, &["w00"; 200]);
    for worker in &workers {
        assert_eq!(lifted.iter().filter(|session| **session == worker.session.as_str()).count(), 10);
    }
    let mut left = workers;
    left[7] = worker("w07", "w07", 1, SILENT);
    let named: Vec<&str> = lifted.iter().map(String::as_str).collect();
    let moved = wanted(&left, &named).into_iter().zip(&lifted).filter(|(after, before)| after != *before).count();
    assert_eq!(moved, 10, "what the dead one had");
}

#[test]
fn one_heavy_mailbox_is_not_passed_around() {
    let workers = [live("a1"), live("b1")];
    let mailboxes = [mailbox(0, 100, "default"), mailbox(1, 1, "default")];
    let (_, seats) = seats(&["a1", "a1"]);
    assert_eq!(told(&planned(&mailboxes, &workers, Limits::NONE, &seats)), ["a1", "b1"]);
}

#[test]
fn what_was_moved_a_moment_ago_is_not_moved_again() {
    let workers = [live("a1"), live("b1")];
    let (mailboxes, _) = seats(&["a1", "a1", "a1"]);
    let session = id("a1");
    let seats = [false, true, true].map(|pinned| Some(Seat { session: &session, home: None, pinned }));
    let plan = plan(NOW, &mailboxes, &workers, Limits::NONE, &seats);
    assert_eq!(told(&plan), ["b1", "a1", "a1"]);
}

#[test]
fn a_mailbox_goes_only_to_its_pool_and_leaves_a_foreign_one() {
    let north = Worker { pool: "north".into(), ..live("n1") };
    let workers = [live("a1"), north];
    let mailboxes = [mailbox(0, 1, "north"), mailbox(1, 1, "north"), mailbox(2, 1, "south"), mailbox(3, 1, "default")];
    let (_, seats) = seats(&["", "a1", "a1", "a1"]);
    let plan = planned(&mailboxes, &workers, Limits::NONE, &seats);
    assert_eq!(told(&plan), ["n1", "n1", "", "a1"]);
    let moved = Wanted::At { session: &workers[1].session, home: None, reason: MoveReason::Operator };
    assert_eq!(plan.wanted[1], moved);
    assert_eq!(plan.wanted[2], Wanted::Nobody(UnassignedReason::NoWorker));
}

#[test]
fn nobody_is_given_more_than_it_can_carry() {
    let small = Worker { capacity: 1, ..live("a1") };
    assert_eq!(wanted(std::slice::from_ref(&small), &["", ""]), ["a1", "full"]);
    assert_eq!(wanted(std::slice::from_ref(&small), &["a1", "a1"]), ["a1", "full"], "not even what it has");
    assert_eq!(wanted(&[small, live("b1")], &["a1", "a1", "", ""]), ["a1", "b1", "b1", "b1"]);
}

#[test]
fn a_spare_holds_nothing_while_active_workers_live() {
    assert_eq!(wanted(&[live("a1"), spare("s1")], &["", "a1", "s1"]), ["a1", "a1", "a1"]);
    let full = Worker { capacity: 1, ..live("a1") };
    assert_eq!(wanted(&[full, spare("s1")], &["", ""]), ["a1", "full"], "not even what they cannot carry");
}

#[test]
fn what_a_dead_worker_had_goes_to_one_spare_as_a_whole() {
    let dead = worker("a1", "a", 1, SILENT);
    let workers = [dead.clone(), live("b1"), spare("s1"), spare("t1")];
    assert_eq!(wanted(&workers, &["a1", "a1", "b1", "a1"]), ["s1/a", "s1/a", "b1", "s1/a"]);
    assert_eq!(reasons(&workers, &["a1"]), [MoveReason::WorkerSilent]);
    let left = ["t1/a", "a1", "b1", "a1"];
    assert_eq!(wanted(&workers, &left), ["t1/a", "t1/a", "b1", "t1/a"], "whoever began goes on");
    let busy = [dead.clone(), worker("c1", "c", 1, SILENT), live("b1"), spare("s1"), spare("t1")];
    assert_eq!(wanted(&busy, &["s1/c", "a1"]), ["s1/c", "t1/a"], "the least loaded");
    let small = [dead.clone(), live("b1"), Worker { capacity: 2, ..spare("s1") }];
    assert_eq!(wanted(&small, &["a1", "a1", "a1"]), ["s1/a", "s1/a", "b1"], "as far as it can carry them");
    assert_eq!(wanted(&[dead, live("b1")], &["a1"]), ["b1"], "without a spare they are spread");
}

#[test]
fn a_spare_gives_back_what_it_has_once_the_worker_has_lived_for_a_while() {
    let back = |settled| Worker { settled, ..worker("a2", "a", 2, State::Taking) };
    let named = ["s1/a", "s1/a", "b1", "b1"];
    assert_eq!(wanted(&[back(false), live("b1"), spare("s1")], &named), ["s1/a", "s1/a", "b1", "b1"]);
    let workers = [back(true), live("b1"), spare("s1")];
    assert_eq!(wanted(&workers, &named), ["a2", "a2", "b1", "b1"]);
    assert_eq!(reasons(&workers, &named)[0], MoveReason::Returned);
    let draining = Worker { drained: true, ..back(true) };
    assert_eq!(wanted(&[draining, live("b1"), spare("s1")], &named)[0], "s1/a", "not to one that is drained");
    let other = Worker { pool: "north".into(), ..back(true) };
    assert_eq!(wanted(&[other, live("b1"), spare("s1")], &named)[..2], ["b1", "b1"], "nor to another pool");
}

#[test]
fn when_the_spare_dies_too_another_takes_over_or_the_worker_that_is_back() {
    let dead = Worker { role: Role::Spare, ..worker("s1", "s", 1, SILENT) };
    assert_eq!(wanted(&[dead.clone(), live("b1"), spare("t1")], &["s1/a", "s1/a"]), ["t1/a", "t1/a"]);
    let back = Worker { settled: false, ..live("a2") };
    assert_eq!(wanted(&[dead.clone(), back, live("b1"), spare("t1")], &["s1/a", "b1"]), ["a2", "b1"]);
    assert_eq!(wanted(&[dead, live("b1")], &["s1/a"]), ["b1"]);
}

#[test]
fn without_active_workers_spares_carry_everything_until_one_has_lived_for_a_while() {
    assert_eq!(wanted(&[spare("s1"), spare("t1")], &["", "", ""]), ["s1", "t1", "s1"]);
    let young = Worker { settled: false, ..live("a1") };
    assert_eq!(wanted(&[young, spare("s1")], &["s1", "s1"]), ["s1", "s1"]);
    assert_eq!(wanted(&[live("a1"), spare("s1")], &["s1", "s1"]), ["a1", "a1"]);
    assert_eq!(reasons(&[live("a1"), spare("s1")], &["s1"]), [MoveReason::Returned]);
    let set = Worker { role_set: true, ..spare("s1") };
    assert_eq!(reasons(&[live("a1"), set], &["s1"]), [MoveReason::Operator]);
}

#[test]
fn what_is_drained_gives_everything_to_whoever_can_carry_it() {
    let drained = Worker { drained: true, ..live("a1") };
    let workers = [drained.clone(), live("b1"), spare("s1")];
    assert_eq!(wanted(&workers, &["a1", "a1", ""]), ["b1", "b1", "b1"]);
    assert_eq!(reasons(&workers, &["a1"]), [MoveReason::Operator]);
    let full = Worker { capacity: 1, ..live("b1") };
    let spares = [drained.clone(), full.clone(), spare("s1")];
    assert_eq!(wanted(&spares, &["a1", "a1"]), ["b1", "s1/a"], "a spare where no active worker can");
    assert_eq!(wanted(&spares, &["b1", "s1/a"]), ["b1", "s1/a"], "and it stays there");
    assert_eq!(wanted(&[drained.clone(), full], &["a1", "a1"]), ["b1", "a1"], "what nobody can carry stays");
    assert_eq!(wanted(std::slice::from_ref(&drained), &["a1", ""]), ["a1", ""]);
    let again = Worker { born: Revision(2), session: id("a2"), ..drained };
    let gone = worker("a1", "a", 1, GONE);
    assert_eq!(wanted(&[gone, again, live("b1")], &["a1"]), ["b1"], "nor does a new session of it take anything");
}

#[test]
fn a_drained_spare_hands_on_what_it_stands_in_for() {
    let drained = Worker { drained: true, ..spare("s1") };
    assert_eq!(wanted(&[drained.clone(), spare("t1"), live("b1")], &["s1/a"]), ["t1/a"]);
    assert_eq!(wanted(&[drained.clone(), live("b1")], &["s1/a"]), ["b1"]);
    assert_eq!(wanted(&[drained, spare("t1")], &["s1"]), ["t1"]);
}

#[test]
fn frozen_nothing_moves_that_has_a_seat() {
    let workers = [
        live("a1"),
        live("b1"),
        worker("c1", "c", 1, SILENT),
        worker("d1", "d", 1, GONE),
        worker("d2", "d", 2, State::Taking),
        Worker { drained: true, ..live("e1") },
        spare("s1"),
    ];
    let named = ["a1", "a1", "a1", "c1", "d1", "e1", "s1", "nobody-knows", ""];
    let plan = wanted_frozen(&workers, &named);
    assert_eq!(plan[..7], ["a1", "a1", "a1", "c1", "d2", "e1", "s1"]);
    assert!(plan[7..].iter().all(|wanted| wanted == "b1" || wanted == "d2"), "what nobody has is given: {plan:?}");
    let full = [worker("d1", "d", 1, GONE), Worker { capacity: 1, ..worker("d2", "d", 2, State::Taking) }];
    assert_eq!(wanted_frozen(&full, &["d1", "d1"]), ["d2", "d1"]);
}

#[test]
fn only_so_many_voluntary_moves_are_planned_at_a_time_and_drains_come_first() {
    let workers = [Worker { drained: true, ..live("a1") }, live("b1"), live("c1")];
    let (mailboxes, seats) = seats(&["a1", "a1", "a1", "b1", "b1", "b1", "b1"]);
    let plan = planned(&mailboxes, &workers, Limits { voluntary: 2, frozen: false }, &seats);
    assert_eq!(told(&plan), ["c1", "c1", "a1", "b1", "b1", "b1", "b1"]);
    assert!(plan.capped);
    assert!(!planned(&mailboxes, &workers, Limits::NONE, &seats).capped);
}

/// Any worker of a few names, pools and capacities.
fn any_worker() -> impl Strategy<Value = Worker> {
    let state = prop_oneof![
        6 => Just(State::Taking),
        1 => Just(State::Keeping),
        1 => Just(GONE),
        1 => Just(SILENT),
        1 => Just(State::Ended { seats_until: Some(NOW + Duration::from_secs(1)), silent: false }),
    ];
    let role = prop_oneof![3 => Just(Role::Active), 1 => Just(Role::Spare)];
    let capacity = prop_oneof![3 => Just(0u32), 2 => 1u32..30];
    (0u8..8, 0u64..1000, state, role, capacity, 0u8..8).prop_map(|(name, born, state, role, capacity, dice)| Worker {
        pool: if name % 4 == 3 { "north".into() } else { "default".into() },
        role,
        capacity,
        settled: dice > 2,
        ..worker("none", &format!("w{name}"), born, state)
    })
}

prop_compose! {
    fn any_fleet()(
        workers in prop::collection::vec(any_worker(), 0..14),
        mailboxes in prop::collection::vec((0u32..50, prop::option::of((0usize..16, 0u8..16)), 0u8..5), 0..80),
        drained in (any::<u8>(), any::<u8>(), any::<u8>()).prop_map(|(a, b, c)| a & b & c),
    ) -> (Vec<Worker>, Vec<Mailbox>, Seats) {
        let name = |i: usize| id(&format!("s{i}"));
        let workers: Vec<_> =
            workers.into_iter().enumerate().map(|(i, worker)| Worker { session: name(i), ..worker }).collect();
        // That is decided by name.
        let drains = |worker: &Worker| drained >> (worker.name.as_bytes()[1] - b'0') & 1 == 1;
        let workers: Vec<_> = workers.into_iter().map(|worker| Worker { drained: drains(&worker), ..worker }).collect();
        let seats = mailboxes.iter().enumerate().filter_map(|(i, (_, seat, _))| {
            let (session, home) = (*seat)?;
            Some((uid(i), (name(session), (home < 8).then(|| format!("w{home}")))))
        });
        let seats = seats.collect();
        let pool = |dice| if dice == 0 { "north" } else { "default" };
        let mailboxes = mailboxes.iter().enumerate();
        (workers, mailboxes.map(|(i, (weight, _, dice))| mailbox(i, *weight, pool(*dice))).collect(), seats)
    }
}

/// The seats once a plan is carried out, and how many moves that took from owners that live.
fn carried_out(mailboxes: &[Mailbox], workers: &[Worker], seats: &Seats, plan: &Plan<'_>) -> (Seats, usize) {
    let (mut after, mut voluntary) = (seats.clone(), 0);
    for (mailbox, wanted) in mailboxes.iter().zip(&plan.wanted) {
        let Wanted::At { session, home, reason } = wanted else { continue };
        let former = seats.get(&mailbox.uid).map(|(session, _)| session);
        if former == Some(session) {
            continue;
        }
        let lives = |worker: &Worker| !matches!(worker.state, State::Ended { .. });
        let former = former.and_then(|former| workers.iter().find(|worker| worker.session == *former));
        let asked = matches!(reason, MoveReason::Balance | MoveReason::Returned | MoveReason::Operator);
        let right_pool = former.is_some_and(|former| former.pool == *mailbox.pool);
        voluntary += usize::from(asked && right_pool && former.is_some_and(lives));
        after.insert(mailbox.uid.clone(), ((*session).clone(), home.map(Into::into)));
    }
    (after, voluntary)
}

fn find<'a>(workers: &'a [Worker], session: &SessionId) -> &'a Worker {
    workers.iter().find(|worker| worker.session == *session).unwrap()
}

proptest! {
    #[test]
    fn planning_a_plan_again_changes_nothing((workers, mailboxes, seats) in any_fleet()) {
        let first = planned(&mailboxes, &workers, Limits::NONE, &seats);
        let (after, _) = carried_out(&mailboxes, &workers, &seats, &first);
        let again = planned(&mailboxes, &workers, Limits::NONE, &after);
        for ((first, again), mailbox) in first.wanted.iter().zip(&again.wanted).zip(&mailboxes) {
            prop_assert_eq!(first.session(), again.session(), "{}", mailbox.uid);
        }
    }

    #[test]
    fn planned_in_steps_it_comes_to_rest((workers, mailboxes, seats) in any_fleet(), cap in 1usize..6) {
        let limits = Limits { voluntary: cap, frozen: false };
        let (mut seats, mut steps, mut total) = (seats, 0, 0);
        loop {
            let plan = planned(&mailboxes, &workers, limits, &seats);
            let (after, voluntary) = carried_out(&mailboxes, &workers, &seats, &plan);
            // What is too much for a worker must leave it, whatever the limit.
            let evicted = workers.iter().filter(|worker| worker.capacity > 0).count() * mailboxes.len();
            prop_assert!(voluntary <= cap || (steps == 0 && evicted > 0), "{voluntary} at once");
            if after == seats {
                prop_assert!(!plan.capped);
                break;
            }
            (seats, steps, total) = (after, steps + 1, total + voluntary);
            prop_assert!(steps <= total / cap + 3, "{steps} steps for {total} moves");
        }
    }

    #[test]
    fn only_those_who_may_take_are_given_anything((workers, mailboxes, seats) in any_fleet()) {
        let plan = planned(&mailboxes, &workers, Limits::NONE, &seats);
        let may = |worker: &Worker| worker.state == State::Taking;
        for (mailbox, wanted) in mailboxes.iter().zip(&plan.wanted) {
            let Some(wanted) = wanted.session() else { continue };
            let worker = find(&workers, wanted);
            prop_assert_eq!(&*worker.pool, &*mailbox.pool);
            if seats.get(&mailbox.uid).map(|(session, _)| session) == Some(wanted) {
                continue;
            }
            prop_assert!(may(worker));
            let newer = |other: &&Worker| {
                may(other) && other.name == worker.name && fleet::age(other) > fleet::age(worker)
            };
            prop_assert!(!workers.iter().any(|other| newer(&other)));
            let own = seats.get(&mailbox.uid).and_then(|(session, _)| workers.iter().find(|w| w.session == *session));
            prop_assert!(!worker.drained || own.is_some_and(|own| own.name == worker.name));
        }
    }

    #[test]
    fn nobody_carries_more_than_it_can((workers, mailboxes, seats) in any_fleet()) {
        let plan = planned(&mailboxes, &workers, Limits::NONE, &seats);
        let mut carried: HashMap<&SessionId, u32> = HashMap::new();
        for session in plan.wanted.iter().filter_map(Wanted::session) {
            *carried.entry(session).or_default() += 1;
        }
        for (session, carried) in carried {
            let capacity = find(&workers, session).capacity;
            prop_assert!(capacity == 0 || carried <= capacity);
        }
    }

    #[test]
    fn a_spare_is_empty_while_its_active_workers_live((workers, mailboxes, seats) in any_fleet()) {
        let plan = planned(&mailboxes, &workers, Limits::NONE, &seats);
        let fleet = fleet::Fleet::new(&workers);
        let carried = |worker: &Worker| plan.wanted.iter().filter(|it| it.session() == Some(&worker.session)).count();
        let open = |worker: &Worker| worker.capacity == 0 || carried(worker) < worker.capacity as usize;
        for (mailbox, wanted) in mailboxes.iter().zip(&plan.wanted) {
            let Wanted::At { session, home, .. } = wanted else { continue };
            let worker = find(&workers, session);
            if worker.role == Role::Active || matches!(worker.state, State::Ended { .. }) {
                continue;
            }
            let pool = fleet.pool(&mailbox.pool);
            let room = pool.actives.iter().any(|&active| open(fleet.worker(active)));
            let back = |home: &str| fleet.active(&mailbox.pool, home).is_some_and(|i| fleet.worker(i).settled);
            prop_assert!(!room || !pool.settled || home.is_some_and(|home| !back(home)), "{}", mailbox.uid);
        }
    }

    #[test]
    fn the_order_of_what_is_given_does_not_matter((workers, mailboxes, seats) in any_fleet(), cap in 0usize..20) {
        let limits = Limits { voluntary: cap, frozen: false };
        let plan = planned(&mailboxes, &workers, limits, &seats);
        let reversed: Vec<_> = workers.iter().rev().cloned().collect();
        prop_assert_eq!(&plan, &planned(&mailboxes, &reversed, limits, &seats));
        let backwards: Vec<_> = mailboxes.iter().rev().cloned().collect();
        let other = planned(&backwards, &workers, limits, &seats);
        prop_assert!(plan.wanted.iter().eq(other.wanted.iter().rev()));
    }

    #[test]
    fn frozen_whoever_lives_keeps_what_it_has((workers, mailboxes, seats) in any_fleet()) {
        let plan = planned(&mailboxes, &workers, Limits { frozen: true, ..Limits::NONE }, &seats);
        let (after, _) = carried_out(&mailboxes, &workers, &seats, &plan);
        for (mailbox, (session, _)) in &seats {
            let Some(owner) = workers.iter().find(|worker| worker.session == *session) else { continue };
            prop_assert_eq!(&find(&workers, &after[mailbox].0).name, &owner.name);
        }
    }

    #[test]
    fn a_death_moves_exactly_what_the_dead_worker_had(
        loads in prop::collection::vec(0usize..40, 2..8), dead in 0usize..8, with_spare in any::<bool>(),
    ) {
        let mut workers: Vec<_> = (0..loads.len()).map(|i| live(&format!("{}1", char::from(b'a' + i as u8)))).collect();
        if with_spare {
            workers.push(spare("s1"));
        }
        let named: Vec<String> = loads.iter().zip(&workers).flat_map(|(load, w)| vec![w.session.to_string(); *load]).collect();
        let (mailboxes, seats) = seats(&named.iter().map(String::as_str).collect::<Vec<_>>());
        // From a fleet that is at rest.
        let rest = planned(&mailboxes, &workers, Limits::NONE, &seats);
        let (seats, _) = carried_out(&mailboxes, &workers, &seats, &rest);
        let died = workers[dead % loads.len()].session.clone();
        let mut after = workers.clone();
        after[dead % loads.len()].state = SILENT;
        let plan = planned(&mailboxes, &after, Limits::NONE, &seats);
        let mut takers = HashSet::new();
        for (mailbox, wanted) in mailboxes.iter().zip(&plan.wanted) {
            let (owner, _) = &seats[&mailbox.uid];
            prop_assert_eq!(wanted.session() == Some(owner), *owner != died, "{}", mailbox.uid);
            if *owner == died {
                takers.insert(wanted.session().unwrap().as_str());
            }
        }
        prop_assert!(!with_spare || takers.iter().all(|taker| *taker == "s1"));
    }

    #[test]
    fn a_join_moves_only_to_who_joined_and_only_until_it_is_lifted(
        weights in prop::collection::vec(1u32..40, 0..120), count in 1usize..6,
    ) {
        let names: Vec<String> = (0..=count).map(|i| format!("{}1", char::from(b'a' + i as u8))).collect();
        let workers: Vec<_> = names.iter().map(|name| live(name)).collect();
        let mailboxes: Vec<_> = weights.iter().enumerate().map(|(i, &weight)| mailbox(i, weight, "default")).collect();
        let nobody = Seats::new();
        let before = planned(&mailboxes, &workers[..count], Limits::NONE, &nobody).wanted;
        let seats: Seats =
            mailboxes.iter().zip(&before).map(|(m, wanted)| (m.uid.clone(), (wanted.session().unwrap().clone(), None))).collect();
        let plan = planned(&mailboxes, &workers, Limits::NONE, &seats);
        let load = |session: &SessionId| -> u64 {
            mailboxes.iter().zip(&plan.wanted).filter(|(_, wanted)| wanted.session() == Some(session)).map(|(m, _)| weight(m)).sum()
        };
        let total: u64 = mailboxes.iter().map(weight).sum();
        let floor = (9 * total).div_ceil(10 * (count as u64 + 1));
        let mean = (total / (count as u64 + 1)).max(floor);
        let joined = &workers[count].session;
        let moved: Vec<u64> = mailboxes
            .iter()
            .zip(&plan.wanted)
            .filter(|(mailbox, wanted)| wanted.session() != Some(&seats[&mailbox.uid].0))
            .map(|(mailbox, wanted)| if wanted.session() == Some(joined) { weight(mailbox) } else { 0 })
            .collect();
        prop_assert!(moved.iter().all(|weight| *weight > 0), "somebody else was given something");
        // Before the last of them it was still below.
        let heaviest = moved.iter().max().copied().unwrap_or(0);
        prop_assert!(moved.is_empty() || load(joined) - heaviest < mean);
        let mut by_owner: BTreeMap<&SessionId, u64> = BTreeMap::new();
        for (mailbox, (owner, _)) in mailboxes.iter().map(|m| (m, &seats[&m.uid])) {
            *by_owner.entry(owner).or_default() += weight(mailbox);
        }
        for (owner, before) in by_owner {
            prop_assert!(load(owner) >= floor.min(before), "a giver fell below");
        }
    }
}

use std::time::Duration;

use super::*;
use crate::lease::profile::Profile;

const GRACE: f64 = 17.0;
/// How a session ends that is not heard.
const SILENT: Ended = Ended { returning: false, silent: true };
const RETURNING: Ended = Ended { returning: true, silent: false };

fn at(seconds: f64) -> Moment {
    Duration::from_secs_f64(seconds)
}

fn uid(number: u64) -> MailboxUid {
    MailboxUid::parse(&format!("mbx-{number:024x}")).unwrap()
}

fn id(text: &str) -> SessionId {
    SessionId::parse(text).unwrap()
}

fn record(text: &str, worker: &str, revision: u64) -> Session {
    Session { id: id(text), profile: Profile::new(worker), begun: None, ended: None, revision: Revision(revision) }
}

fn owner(text: &str, epoch: u64) -> Assignment {
    Assignment { session: id(text), epoch: Epoch(epoch), home: None }
}

fn mailboxes(count: u64) -> Vec<Mailbox> {
    (0..count).map(|number| Mailbox { uid: uid(number), weight: 1, pool: "default".into() }).collect()
}

/// Takes office at zero.
fn office(sessions: &[Session], assignments: &[(u64, Assignment)]) -> Desk {
    let assignments = assignments.iter().map(|(number, owner)| (uid(*number), owner.clone()));
    Desk::take_office(Moment::ZERO, Revision(3), LeaseTerms::default(), sessions.iter().cloned(), assignments)
}

fn heartbeat(session: &str, sequence: u64, held: &[(u64, u64)]) -> Heartbeat {
    let held = held.iter().map(|&(number, epoch)| Held {
        mailbox: uid(number),
        epoch: Epoch(epoch),
        definition_revision: epoch + 100,
    });
    let held = held.collect();
    Heartbeat { session: id(session), sequence, term: 3, held, draining: false }
}

#[test]
fn what_sessions_run_is_what_they_said_last() {
    let mut desk = asking();
    let told = |desk: &Desk| {
        let running = desk.running().into_iter();
        running.map(|it| (it.session.to_string(), it.held.values().copied().collect::<Vec<_>>())).collect::<Vec<_>>()
    };
    let said = told(&desk);
    assert_eq!(said[0], (id("a").to_string(), vec![105]), "{said:?}");
    hear(&mut desk, 2.0, &heartbeat("a", 9, &[]));
    assert_eq!(told(&desk)[0].1, Vec::<u64>::new());
    hear(&mut desk, 2.1, &heartbeat("a", 8, &[(0, 5)]));
    assert_eq!(told(&desk)[0].1, Vec::<u64>::new(), "one that was overtaken changes nothing");
    desk.leave(&id("a"), false);
    assert!(told(&desk).iter().all(|(session, _)| *session != id("a").to_string()));
}

/// Hears a session and answers the numbers and epochs that it is offered.
fn hear(desk: &mut Desk, now: f64, heartbeat: &Heartbeat) -> Vec<(u64, u64)> {
    let number = |mailbox: &MailboxUid| u64::from_str_radix(&mailbox.as_str()["mbx-".len() + 8..], 16).unwrap();
    let offers = desk.heartbeat(at(now), heartbeat).unwrap();
    offers.iter().map(|offer| (number(&offer.mailbox), offer.epoch.0)).collect()
}

fn assign(number: u64, expected: Option<u64>, to: &str) -> Assign {
    let (mailbox, expected, to) = (uid(number), expected.map(Epoch), id(to));
    Assign { mailbox, expected, to, home: None, reason: MoveReason::Unspecified, former: None, forced: false }
}

/// A round, without what is written for people.
fn round(desk: &mut Desk, now: f64, mailboxes: &[Mailbox]) -> Vec<Write> {
    let mut writes = desk.round(at(now), mailboxes);
    for write in &mut writes {
        if let Write::Assign(assign) = write {
            (assign.reason, assign.former) = (MoveReason::Unspecified, None);
        }
    }
    writes
}

fn end(session: &str, expected: u64) -> EndSession {
    EndSession { session: id(session), expected: Revision(expected), how: SILENT }
}

/// A desk where `a` has mailbox 0 under epoch 5 and the newer session `b` of its name wants it.
fn asking() -> Desk {
    let mut desk = office(&[record("a", "w", 1), record("b", "w", 2)], &[(0, owner("a", 5))]);
    hear(&mut desk, 1.0, &heartbeat("a", 4, &[(0, 5)]));
    hear(&mut desk, 1.0, &heartbeat("b", 1, &[]));
    assert_eq!(round(&mut desk, 4.0, &mailboxes(1)), []);
    desk
}

#[test]
fn nothing_is_planned_before_the_office_has_settled() {
    let mut desk = office(&[record("a", "w", 1)], &[]);
    hear(&mut desk, 0.0, &heartbeat("a", 1, &[]));
    assert_eq!(round(&mut desk, 3.9, &mailboxes(1)), []);
    assert_eq!(desk.next_wake(at(3.9)), Some(at(4.0)));
    assert_eq!(round(&mut desk, 4.0, &mailboxes(1)), [Write::Assign(assign(0, None, "a"))]);
}

#[test]
fn a_committed_move_is_offered_and_its_revision_is_the_epoch() {
    let mut desk = office(&[record("a", "w", 1)], &[]);
    hear(&mut desk, 0.0, &heartbeat("a", 1, &[]));
    round(&mut desk, 4.0, &mailboxes(1));
    assert_eq!(hear(&mut desk, 4.5, &heartbeat("a", 2, &[])), [], "not while it is in flight");
    assert_eq!(round(&mut desk, 4.5, &mailboxes(1)), [], "nor is it written twice");
    desk.mailbox_settled(at(9.0), &assign(0, None, "a"), Settled::Committed(Revision(9)));
    assert_eq!(hear(&mut desk, 5.0, &heartbeat("a", 3, &[])), [(0, 9)]);
}

#[test]
fn a_new_leader_answers_at_once_with_what_it_found() {
    let mut desk = office(&[record("a", "w", 1)], &[(0, owner("a", 5))]);
    assert_eq!(hear(&mut desk, 0.1, &heartbeat("a", 40, &[(0, 5)])), [(0, 5)]);
}

#[test]
fn a_new_leader_ends_nobody_before_the_grace_is_over() {
    let mut desk = office(&[record("a", "w", 1), record("b", "v", 2)], &[]);
    hear(&mut desk, 1.0, &heartbeat("b", 1, &[]));
    assert_eq!(round(&mut desk, GRACE - 0.1, &[]), []);
    assert_eq!(desk.next_wake(at(GRACE - 0.1)), Some(at(GRACE)));
    assert_eq!(round(&mut desk, GRACE, &[]), [Write::EndSession(end("a", 1)), Write::EndSession(end("b", 2))]);
}

#[test]
fn who_registered_here_is_ended_after_the_ttl() {
    let mut desk = office(&[], &[]);
    desk.register(at(1.0), record("a", "w", 1));
    assert_eq!(round(&mut desk, 12.9, &[]), []);
    assert_eq!(round(&mut desk, 13.0, &[]), [Write::EndSession(end("a", 1))]);
}

#[test]
fn registration_counts_as_a_heartbeat() {
    let mut desk = office(&[], &[]);
    desk.register(at(1.0), record("a", "w", 1));
    assert_eq!(round(&mut desk, 4.0, &mailboxes(1)), [Write::Assign(assign(0, None, "a"))]);
}

#[test]
fn a_decided_end_is_never_taken_back() {
    let mut desk = office(&[record("a", "w", 1), record("b", "v", 2)], &[(0, owner("a", 5))]);
    hear(&mut desk, 16.0, &heartbeat("b", 1, &[]));
    assert_eq!(round(&mut desk, GRACE, &mailboxes(1)), [Write::EndSession(end("a", 1))]);
    assert_eq!(desk.heartbeat(at(GRACE), &heartbeat("a", 1, &[])), Err(Refusal::Ended));
    assert_eq!(round(&mut desk, 18.0, &mailboxes(1)), [], "it keeps its mailbox until the end is written");
    desk.session_settled(at(19.0), &end("a", 1), Settled::Unknown(Some(record("a", "w", 1))));
    assert_eq!(desk.heartbeat(at(19.0), &heartbeat("a", 2, &[])), Err(Refusal::Ended));
    assert_eq!(round(&mut desk, 19.0, &mailboxes(1)), [Write::EndSession(end("a", 1))]);
    let ended = Session { ended: Some(SILENT), ..record("a", "w", 7) };
    desk.session_settled(at(20.0), &end("a", 1), Settled::Conflict(Some(ended)));
    assert_eq!(round(&mut desk, 20.0, &mailboxes(1)), [Write::Assign(assign(0, Some(5), "b"))]);
}

#[test]
fn a_session_that_nobody_registered_is_not_known() {
    let mut desk = office(&[], &[]);
    assert_eq!(desk.heartbeat(at(0.0), &heartbeat("a", 1, &[])), Err(Refusal::Unknown));
}

#[test]
fn a_release_takes_a_later_heartbeat_than_the_one_known_when_asked() {
    let mut desk = asking();
    assert_eq!(hear(&mut desk, 4.1, &heartbeat("a", 4, &[])), [], "the mailbox is in nobody's answer");
    assert_eq!(round(&mut desk, 4.1, &mailboxes(1)), [], "a repeated heartbeat tells nothing");
    assert_eq!(hear(&mut desk, 5.0, &heartbeat("a", 5, &[(0, 5)])), []);
    assert_eq!(round(&mut desk, 5.0, &mailboxes(1)), [], "it still drains");
    assert_eq!(hear(&mut desk, 6.0, &heartbeat("a", 3, &[])), []);
    assert_eq!(round(&mut desk, 6.0, &mailboxes(1)), [], "an overtaken heartbeat tells nothing");
    hear(&mut desk, 7.0, &heartbeat("a", 6, &[]));
    assert_eq!(desk.next_wake(at(7.0)), Some(at(7.0)));
    assert_eq!(round(&mut desk, 7.0, &mailboxes(1)), [Write::Assign(assign(0, Some(5), "b"))]);
    desk.mailbox_settled(at(9.0), &assign(0, Some(5), "b"), Settled::Committed(Revision(9)));
    assert_eq!(hear(&mut desk, 8.0, &heartbeat("b", 2, &[])), [(0, 9)]);
    assert_eq!(hear(&mut desk, 8.0, &heartbeat("a", 7, &[])), []);
}

#[test]
fn a_release_takes_a_heartbeat_that_knows_this_leader() {
    let mut desk = asking();
    // Sent before the one that the former leader answered with the mailbox, and received after it.
    hear(&mut desk, 5.0, &Heartbeat { term: 2, ..heartbeat("a", 5, &[]) });
    assert_eq!(round(&mut desk, 5.0, &mailboxes(1)), []);
    hear(&mut desk, 6.0, &heartbeat("a", 7, &[(0, 5)]));
    assert_eq!(round(&mut desk, 6.0, &mailboxes(1)), []);
}

#[test]
fn who_does_not_let_go_in_time_loses_the_mailbox_all_the_same() {
    let mut desk = asking();
    for second in 5..64 {
        for session in [heartbeat("a", second, &[(0, 5)]), heartbeat("b", second, &[])] {
            hear(&mut desk, second as f64, &session);
        }
        assert_eq!(round(&mut desk, second as f64, &mailboxes(1)), []);
    }
    assert_eq!(desk.next_wake(at(63.0)), Some(at(64.0)));
    let forced = Assign { forced: true, ..assign(0, Some(5), "b") };
    assert_eq!(round(&mut desk, 64.0, &mailboxes(1)), [Write::Assign(forced)]);
}

#[test]
fn what_is_wanted_where_it_is_is_offered_again() {
    let mut desk = asking();
    hear(&mut desk, 4.5, &Heartbeat { draining: true, ..heartbeat("b", 2, &[]) });
    assert_eq!(round(&mut desk, 4.5, &mailboxes(1)), []);
    assert_eq!(hear(&mut desk, 5.0, &heartbeat("a", 5, &[(0, 5)])), [(0, 5)]);
}

#[test]
fn a_write_that_may_still_arrive_keeps_its_mailbox_from_everybody() {
    let mut desk = asking();
    hear(&mut desk, 5.0, &heartbeat("a", 5, &[]));
    round(&mut desk, 5.0, &mailboxes(1));
    desk.mailbox_settled(at(9.0), &assign(0, Some(5), "b"), Settled::Unknown(Some(owner("a", 5))));
    hear(&mut desk, 5.5, &Heartbeat { draining: true, ..heartbeat("b", 2, &[]) });
    assert_eq!(hear(&mut desk, 6.0, &heartbeat("a", 6, &[])), [], "although it is wanted there again");
    assert_eq!(round(&mut desk, 6.0, &mailboxes(1)), [Write::Assign(assign(0, Some(5), "a"))]);
    desk.mailbox_settled(at(9.0), &assign(0, Some(5), "a"), Settled::Conflict(Some(owner("b", 8))));
    assert_eq!(hear(&mut desk, 7.0, &heartbeat("a", 7, &[])), []);
    assert_eq!(desk.assignment(&uid(0)), Some(&owner("b", 8)));
}

#[test]
fn a_conflict_of_another_write_of_the_commit_does_not_end_the_doubt() {
    let mut desk = asking();
    hear(&mut desk, 5.0, &heartbeat("a", 5, &[]));
    round(&mut desk, 5.0, &mailboxes(1));
    desk.mailbox_settled(at(9.0), &assign(0, Some(5), "b"), Settled::Unknown(Some(owner("a", 5))));
    assert_eq!(round(&mut desk, 6.0, &mailboxes(1)), [Write::Assign(assign(0, Some(5), "b"))]);
    desk.mailbox_settled(at(9.0), &assign(0, Some(5), "b"), Settled::Conflict(Some(owner("a", 5))));
    assert_eq!(hear(&mut desk, 7.0, &heartbeat("a", 6, &[])), []);
    assert_eq!(round(&mut desk, 7.0, &mailboxes(1)), [Write::Assign(assign(0, Some(5), "b"))]);
}

#[test]
fn a_write_whose_result_is_found_is_settled() {
    let mut desk = asking();
    hear(&mut desk, 5.0, &heartbeat("a", 5, &[]));
    round(&mut desk, 5.0, &mailboxes(1));
    desk.mailbox_settled(at(9.0), &assign(0, Some(5), "b"), Settled::Unknown(Some(owner("b", 8))));
    assert_eq!(hear(&mut desk, 6.0, &heartbeat("b", 2, &[])), [(0, 8)]);
}

#[test]
fn a_write_that_certainly_failed_leaves_the_mailbox_where_it_is() {
    let mut desk = asking();
    hear(&mut desk, 5.0, &heartbeat("a", 5, &[]));
    round(&mut desk, 5.0, &mailboxes(1));
    desk.mailbox_settled(at(9.0), &assign(0, Some(5), "b"), Settled::Conflict(Some(owner("a", 5))));
    assert_eq!(hear(&mut desk, 6.0, &heartbeat("a", 6, &[])), [(0, 5)]);
    assert_eq!(round(&mut desk, 6.0, &mailboxes(1)), [], "and it is asked for anew");
    assert_eq!(hear(&mut desk, 7.0, &heartbeat("a", 7, &[(0, 5)])), []);
}

#[test]
fn who_drains_keeps_what_it_lists_and_is_given_nothing() {
    let mut desk = office(&[record("a", "w", 1)], &[(0, owner("a", 5)), (1, owner("a", 6))]);
    let draining = Heartbeat { draining: true, ..heartbeat("a", 1, &[(0, 5)]) };
    assert_eq!(hear(&mut desk, 1.0, &draining), [(0, 5)]);
    assert_eq!(round(&mut desk, 4.0, &mailboxes(3)), []);
}

#[test]
fn the_seats_of_who_returns_wait_for_its_name() {
    let mut desk = office(&[record("a", "w", 1), record("b", "v", 2)], &[(0, owner("a", 5)), (1, owner("b", 6))]);
    hear(&mut desk, 4.0, &heartbeat("b", 1, &[(1, 6)]));
    hear(&mut desk, 4.0, &heartbeat("a", 1, &[]));
    let goodbye = EndSession { how: RETURNING, ..end("a", 1) };
    assert_eq!(desk.leave(&id("a"), true), Some(goodbye.clone()));
    assert_eq!(desk.leave(&id("a"), true), None, "it is being written");
    desk.session_settled(at(5.0), &goodbye, Settled::Committed(Revision(7)));
    assert_eq!(round(&mut desk, 5.0, &mailboxes(2)), []);
    desk.register(at(8.0), record("c", "w", 8));
    assert_eq!(round(&mut desk, 8.0, &mailboxes(2)), [Write::Assign(assign(0, Some(5), "c"))]);
}

#[test]
fn the_seats_of_who_does_not_return_go_to_others() {
    let mut desk = office(&[record("a", "w", 1), record("b", "v", 2)], &[(0, owner("a", 5))]);
    hear(&mut desk, 4.0, &heartbeat("a", 1, &[]));
    let goodbye = EndSession { how: RETURNING, ..end("a", 1) };
    desk.leave(&id("a"), true);
    desk.session_settled(at(5.0), &goodbye, Settled::Committed(Revision(7)));
    hear(&mut desk, 30.0, &heartbeat("b", 1, &[]));
    assert_eq!(round(&mut desk, 30.0, &mailboxes(1)), []);
    assert_eq!(desk.next_wake(at(30.0)), Some(at(35.0)));
    assert_eq!(round(&mut desk, 35.0, &mailboxes(1)), [Write::Assign(assign(0, Some(5), "b"))]);
}

#[test]
fn a_mailbox_that_is_no_longer_to_be_read_does_not_keep_the_desk_awake() {
    let mut desk = asking();
    assert_eq!(round(&mut desk, 5.0, &[]), []);
    assert_eq!(desk.next_wake(at(5.0)), Some(at(GRACE)), "the next deadline is that of a session");
}

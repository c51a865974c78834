use std::time::Duration;

use super::*;

fn terms() -> LeaseTerms {
    LeaseTerms::default()
}

fn at(seconds: f64) -> Moment {
    Duration::from_secs_f64(seconds)
}

fn uid(number: u8) -> MailboxUid {
    MailboxUid::parse(&format!("mbx-{number:024x}")).unwrap()
}

fn session(text: &str) -> SessionId {
    SessionId::parse(text).unwrap()
}

fn offer(number: u8, epoch: u64) -> Offer {
    Offer { mailbox: uid(number), epoch: Epoch(epoch), definition_revision: 1 }
}

fn registered() -> Holder {
    let mut holder = Holder::new(terms());
    holder.registered(session("s"), terms());
    holder
}

fn answer(offers: &[Offer]) -> Answer {
    Answer { term: 1, terms: terms(), offers: offers.to_vec() }
}

/// A heartbeat that is answered at once.
fn beat(holder: &mut Holder, now: f64, offers: &[Offer]) -> Vec<Action> {
    let ticket = holder.heartbeat(at(now)).unwrap().ticket;
    holder.answered(at(now), ticket, answer(offers))
}

fn listed(holder: &mut Holder, now: f64) -> Vec<(MailboxUid, u64, bool)> {
    let held = holder.heartbeat(at(now)).unwrap().held;
    held.into_iter().map(|held| (held.mailbox, held.epoch.0, held.draining)).collect()
}

#[test]
fn an_earlier_term_after_trust_has_lapsed_is_that_of_a_store_that_went_back() {
    let mut holder = registered();
    let newer = Answer { term: 9, ..answer(&[offer(1, 7)]) };
    let ticket = holder.heartbeat(at(0.0)).unwrap().ticket;
    assert_eq!(holder.answered(at(0.0), ticket, newer), [Action::Open(offer(1, 7))]);
    assert_eq!(beat(&mut holder, 10.9, &[]), [], "a leader that was replaced may still answer");
    assert!(holder.may_write(at(10.9), &uid(1), Epoch(7)));
    assert_eq!(beat(&mut holder, 11.0, &[]), [Action::Close(uid(1), Epoch(7)), Action::Register]);
    holder.registered(session("t"), terms());
    assert_eq!(beat(&mut holder, 12.0, &[offer(1, 3)]), [Action::Open(offer(1, 3))]);
}

#[test]
fn without_a_session_there_is_nothing_to_say() {
    let mut holder = Holder::new(terms());
    assert_eq!((holder.heartbeat_due(0.0), holder.heartbeat(at(1.0))), (None, None));
}

#[test]
fn what_is_offered_is_opened_once_and_listed() {
    let mut holder = registered();
    assert!(!holder.may_write(at(0.0), &uid(1), Epoch(7)));
    assert_eq!(beat(&mut holder, 0.0, &[offer(1, 7)]), [Action::Open(offer(1, 7))]);
    assert_eq!(beat(&mut holder, 2.0, &[offer(1, 7)]), []);
    assert!(holder.may_write(at(2.0), &uid(1), Epoch(7)));
    assert!(!holder.may_write(at(2.0), &uid(1), Epoch(6)), "under its own epoch only");
    assert_eq!(listed(&mut holder, 4.0), [(uid(1), 7, false)]);
}

#[test]
fn a_nudge_brings_the_next_heartbeat_forward_but_never_two_at_once() {
    let mut holder = registered();
    beat(&mut holder, 0.0, &[]);
    assert_eq!(holder.heartbeat_due(0.0), Some(at(2.0)));
    holder.nudged();
    assert_eq!(holder.heartbeat_due(0.0), Some(at(0.2)), "a tenth of the distance is kept");
    let ticket = holder.heartbeat(at(0.2)).unwrap().ticket;
    holder.nudged();
    assert_eq!(holder.heartbeat_due(0.0), None, "one is under way");
    holder.answered(at(0.3), ticket, answer(&[]));
    assert_eq!(holder.heartbeat_due(0.0), Some(at(0.4)), "what happened after it was sent is asked for at once");
    beat(&mut holder, 0.4, &[]);
    assert_eq!(holder.heartbeat_due(0.0), Some(at(2.4)), "each nudge counts once");
}

#[test]
fn trust_counts_from_sending() {
    let mut holder = registered();
    let ticket = holder.heartbeat(at(10.0)).unwrap().ticket;
    holder.answered(at(10.9), ticket, answer(&[offer(1, 7)]));
    assert_eq!(holder.trust_ends(), Some(at(21.0)));
    assert!(holder.may_write(at(20.999), &uid(1), Epoch(7)));
    assert!(!holder.may_write(at(21.0), &uid(1), Epoch(7)));
}

#[test]
fn an_answer_that_comes_after_its_trust_opens_nothing() {
    let mut holder = registered();
    let ticket = holder.heartbeat(at(10.0)).unwrap().ticket;
    assert_eq!(holder.answered(at(21.0), ticket, answer(&[offer(1, 7)])), []);
    assert!(holder.is_empty());
}

#[test]
fn an_answer_to_an_abandoned_heartbeat_is_dropped() {
    let mut holder = registered();
    let first = holder.heartbeat(at(0.0)).unwrap().ticket;
    holder.abandoned(first);
    assert_eq!(holder.answered(at(1.1), first, answer(&[offer(1, 7)])), []);
    let second = holder.heartbeat(at(2.0)).unwrap().ticket;
    assert_eq!(holder.answered(at(2.1), first, answer(&[offer(1, 7)])), []);
    assert_eq!(holder.answered(at(2.2), second, answer(&[])), []);
}

#[test]
fn a_leader_that_was_replaced_is_not_listened_to() {
    let mut holder = registered();
    assert_eq!(holder.heartbeat(at(0.0)).unwrap().term, 0);
    let newer = Answer { term: 2, ..answer(&[offer(1, 7)]) };
    let ticket = holder.heartbeat(at(0.0)).unwrap().ticket;
    assert_eq!(holder.answered(at(0.0), ticket, newer), [Action::Open(offer(1, 7))]);
    let heartbeat = holder.heartbeat(at(2.0)).unwrap();
    assert_eq!(heartbeat.term, 2);
    assert_eq!(holder.answered(at(2.0), heartbeat.ticket, answer(&[offer(2, 8)])), []);
    assert_eq!(holder.trust_ends(), Some(at(11.0)), "nor does it renew trust");
}

#[test]
fn what_is_not_offered_any_more_is_drained_and_then_gone() {
    let mut holder = registered();
    beat(&mut holder, 0.0, &[offer(1, 7), offer(2, 8)]);
    assert_eq!(beat(&mut holder, 2.0, &[offer(2, 8)]), [Action::Drain(uid(1), Epoch(7))]);
    assert!(holder.may_write(at(2.0), &uid(1), Epoch(7)), "the report under way may be finished");
    assert_eq!(beat(&mut holder, 4.0, &[offer(2, 8)]), [], "it is asked once");
    holder.let_go(&uid(1), Epoch(7));
    assert!(!holder.may_write(at(4.0), &uid(1), Epoch(7)));
    assert_eq!(listed(&mut holder, 6.0), [(uid(2), 8, false)]);
}

#[test]
fn what_is_being_drained_is_taken_back_only_by_an_answer_after_it_was_let_go() {
    let mut holder = registered();
    beat(&mut holder, 0.0, &[offer(1, 7)]);
    assert_eq!(beat(&mut holder, 2.0, &[offer(1, 9)]), [Action::Drain(uid(1), Epoch(7))]);
    assert_eq!(beat(&mut holder, 4.0, &[offer(1, 9)]), []);
    holder.let_go(&uid(1), Epoch(7));
    assert!(holder.is_empty());
    assert_eq!(beat(&mut holder, 6.0, &[offer(1, 9)]), [Action::Open(offer(1, 9))]);
}

#[test]
fn lapsed_trust_suspends_and_the_same_epoch_resumes() {
    let mut holder = registered();
    beat(&mut holder, 0.0, &[offer(1, 7)]);
    assert_eq!(holder.tick(at(10.9)), []);
    assert_eq!(holder.tick(at(11.0)), [Action::Suspend]);
    assert_eq!((holder.tick(at(12.0)), holder.trust_ends()), (vec![], None));
    assert_eq!(listed(&mut holder, 12.5), [(uid(1), 7, false)], "it is not let go");
    assert_eq!(beat(&mut holder, 13.0, &[offer(1, 7)]), [Action::Resume]);
    assert!(holder.may_write(at(13.0), &uid(1), Epoch(7)));
}

#[test]
fn after_a_suspension_what_belongs_to_others_is_closed_at_once() {
    let mut holder = registered();
    beat(&mut holder, 0.0, &[offer(1, 7), offer(2, 8), offer(3, 9)]);
    holder.tick(at(11.0));
    let actions = beat(&mut holder, 13.0, &[offer(2, 20), offer(3, 9)]);
    let (one, two) = (Action::Close(uid(1), Epoch(7)), Action::Close(uid(2), Epoch(8)));
    assert_eq!(actions, [one, two, Action::Resume, Action::Open(offer(2, 20))]);
    assert_eq!(listed(&mut holder, 14.0), [(uid(2), 20, false), (uid(3), 9, false)]);
}

#[test]
fn a_drain_does_not_outlive_trust() {
    let mut holder = registered();
    beat(&mut holder, 0.0, &[offer(1, 7)]);
    beat(&mut holder, 2.0, &[]);
    assert_eq!(holder.tick(at(13.0)), [Action::Suspend, Action::Close(uid(1), Epoch(7))]);
    assert!(holder.is_empty());
}

#[test]
fn a_newer_definition_is_opened_again_under_the_same_lease() {
    let mut holder = registered();
    beat(&mut holder, 0.0, &[offer(1, 7)]);
    let newer = Offer { definition_revision: 2, ..offer(1, 7) };
    assert_eq!(beat(&mut holder, 2.0, std::slice::from_ref(&newer)), [Action::Reopen(newer)]);
    assert_eq!(beat(&mut holder, 4.0, &[offer(1, 7)]), [], "a replica that is behind takes nothing back");
}

#[test]
fn an_ended_session_closes_everything_and_registers_again() {
    let mut holder = registered();
    beat(&mut holder, 0.0, &[offer(1, 7)]);
    assert_eq!(holder.session_ended(&session("other")), []);
    assert_eq!(holder.session_ended(&session("s")), [Action::Close(uid(1), Epoch(7)), Action::Register]);
    assert!(!holder.may_write(at(0.1), &uid(1), Epoch(7)));
    holder.registered(session("t"), terms());
    let heartbeat = holder.heartbeat(at(1.0)).unwrap();
    assert_eq!((heartbeat.session, heartbeat.ticket.sequence), (session("t"), 1));
}

#[test]
fn a_lost_lease_closes_its_mailbox_only() {
    let mut holder = registered();
    beat(&mut holder, 0.0, &[offer(1, 7), offer(2, 8)]);
    assert_eq!(holder.lost(&uid(1), Epoch(6)), []);
    assert_eq!(holder.lost(&uid(1), Epoch(7)), [Action::Close(uid(1), Epoch(7))]);
    assert_eq!(listed(&mut holder, 2.0), [(uid(2), 8, false)]);
}

#[test]
fn who_stops_drains_everything_and_takes_nothing() {
    let mut holder = registered();
    beat(&mut holder, 0.0, &[offer(1, 7)]);
    assert_eq!(holder.stop(), [Action::Drain(uid(1), Epoch(7))]);
    let heartbeat = holder.heartbeat(at(1.0)).unwrap();
    assert!(heartbeat.draining);
    assert_eq!(holder.answered(at(1.0), heartbeat.ticket, answer(&[offer(1, 7), offer(2, 8)])), []);
    holder.let_go(&uid(1), Epoch(7));
    assert!(holder.is_empty());
    assert_eq!(holder.session_ended(&session("s")), [], "nor does it register again");
}

#[test]
fn heartbeats_keep_their_distance_and_hurry_when_there_is_news() {
    let mut holder = registered();
    assert_eq!(holder.heartbeat_due(0.5), Some(Moment::ZERO), "the first one at once");
    let ticket = holder.heartbeat(at(10.0)).unwrap().ticket;
    assert_eq!(holder.heartbeat_due(0.0), None, "one at a time");
    holder.answered(at(10.0), ticket, answer(&[offer(1, 7)]));
    let due = |holder: &Holder, jitter| holder.heartbeat_due(jitter).unwrap().as_secs_f64();
    assert_eq!((due(&holder, -9.0), due(&holder, 0.0), due(&holder, 1.0)), (11.6, 12.0, 12.4));
    holder.lost(&uid(1), Epoch(7));
    assert_eq!(due(&holder, 1.0), 10.2);
}

//! How contacts are handed out, and how they come back.

use super::*;

pub(crate) async fn the_best_contacts_come_first(ledger: impl Ledger) {
    fill(&ledger, "a@x.example", &[(10, 1), (5, 30), (5, 20), (10, 2), (1, 99)], 1000).await;
    let first = ledger.allocate(take(2, "r1"), 2000).await.unwrap().contacts;
    assert_eq!(subjects(&first), ["1:4", "1:2"]);
    assert_eq!(first[0].state(), ContactState::Allocated);
    let rest = ledger.allocate(take(10, "r2"), 2000).await.unwrap().contacts;
    assert_eq!(subjects(&rest), ["1:1", "1:0", "1:3"]);
    assert!(ledger.allocate(take(10, "r3"), 2000).await.unwrap().contacts.is_empty());
    let foreign = Take { instance_uid: "i2".into(), ..take(10, "r4") };
    assert!(ledger.allocate(foreign, 2000).await.unwrap().contacts.is_empty());
}

pub(crate) async fn an_allocation_fits_an_answer(ledger: impl Ledger) {
    ledger.open(&mailbox("a@x.example"), &fence(1, "s1")).await.unwrap().unwrap();
    let mut messages: Vec<Message> = (0..4).map(|number| message(&format!("1:{number}"), number)).collect();
    for message in &mut messages {
        message.content.as_mut().unwrap().html = "x".repeat(1024 * 1024);
    }
    ledger.report(batch("a@x.example", fence(1, "s1"), 0, 1, messages), 10).await.unwrap().unwrap();
    let first = ledger.allocate(take(500, "r1"), 20).await.unwrap().contacts;
    assert_eq!(subjects(&first), ["1:0", "1:1"], "as many as fit, best first");
    assert_eq!(first[0].content.as_ref().unwrap().html.len(), 1024 * 1024);
    let rest = ledger.allocate(take(500, "r2"), 20).await.unwrap().contacts;
    assert_eq!(subjects(&rest), ["1:2", "1:3"]);
}

pub(crate) async fn a_repeated_request_holds_the_same_contacts(ledger: impl Ledger) {
    fill(&ledger, "a@x.example", &[(5, 1), (5, 2), (5, 3)], 1000).await;
    let first = ledger.allocate(take(2, "r1"), 2000).await.unwrap().contacts;
    assert_eq!(ledger.allocate(take(2, "r1"), 3000).await.unwrap().contacts, first);
    let accepted = vec![(first[0].id.clone(), "r1".to_owned())];
    ledger.answer("i1", Answer::Accept, accepted, 4000).await.unwrap();
    let left = ledger.allocate(take(2, "r1"), 5000).await.unwrap().contacts;
    assert_eq!(left, first[1..], "what is left of the same set, and nothing new");
    assert!(ledger.allocate(take(2, "r1"), 500 * SECOND).await.unwrap().contacts.is_empty());
}

pub(crate) async fn a_contact_given_back_has_its_old_place(ledger: impl Ledger) {
    fill(&ledger, "a@x.example", &[(5, 1), (5, 2), (5, 3)], 1000).await;
    let held = ledger.allocate(take(2, "r1"), 2000).await.unwrap().contacts;
    let reject = vec![(held[0].id.clone(), "r1".to_owned())];
    assert_eq!(answered(&ledger, "i1", Answer::Reject, reject.clone(), 3000).await, [Ok(ContactState::Queued)]);
    assert_eq!(answered(&ledger, "i1", Answer::Reject, reject, 3000).await, [Ok(ContactState::Queued)]);
    let next = ledger.allocate(take(2, "r2"), 4000).await.unwrap().contacts;
    assert_eq!(subjects(&next), ["1:0", "1:2"]);
    assert_eq!(next[0].refusal_count, 1);
}

pub(crate) async fn a_missed_deadline_gives_back_and_a_late_answer_is_refused(ledger: impl Ledger) {
    fill(&ledger, "a@x.example", &[(5, 1)], 1000).await;
    let held = ledger.allocate(take(1, "r1"), 0).await.unwrap().contacts;
    let id = held[0].id.clone();
    let accept = |request: &str| vec![(id.clone(), request.to_owned())];
    let late = 120 * SECOND;
    let refused = answered(&ledger, "i1", Answer::Accept, accept("r1"), late).await;
    assert_eq!(refused, [Err(Refused::NotAllocated)]);
    assert_eq!(ledger.lapse(late - 1).await.unwrap(), Vec::<String>::new());
    assert_eq!(ledger.lapse(late).await.unwrap(), ["i1"]);
    assert_eq!(subjects(&ledger.allocate(take(1, "r2"), late).await.unwrap().contacts), ["1:0"]);
    let refused = answered(&ledger, "i1", Answer::Accept, accept("r1"), late + 1).await;
    assert_eq!(refused, [Err(Refused::OtherRequest)], "it is somebody else's by now");
    let done = answered(&ledger, "i1", Answer::Accept, accept("r2"), late + 2).await;
    assert_eq!(done, [Ok(ContactState::Accepted)]);
    let again = answered(&ledger, "i1", Answer::Accept, accept("r2"), 999 * SECOND).await;
    assert_eq!(again, [Ok(ContactState::Accepted)], "accepting can be repeated, even after the deadline");
    let foreign = answered(&ledger, "i2", Answer::Accept, accept("r2"), late + 3).await;
    assert_eq!(foreign, [Err(Refused::Unknown)], "an instance never sees another's contacts");
}

pub(crate) async fn held_contacts_can_be_held_longer(ledger: impl Ledger) {
    fill(&ledger, "a@x.example", &[(5, 1)], 1000).await;
    let id = ledger.allocate(take(1, "r1"), 0).await.unwrap().contacts[0].id.clone();
    let extend = |request: &str, now| {
        ledger.answer("i1", Answer::Extend(120 * SECOND), vec![(id.clone(), request.to_owned())], now)
    };
    let extended = extend("r1", 100 * SECOND).await.unwrap()[0];
    assert_eq!((extended.state, extended.deadline_at), (ContactState::Allocated, Some(220 * SECOND)));
    assert_eq!(extend("r2", 100 * SECOND).await.unwrap()[0].refused, Some(Refused::OtherRequest));
    assert_eq!(ledger.lapse(219 * SECOND).await.unwrap(), Vec::<String>::new(), "the first deadline is not kept");
    assert_eq!(extend("r1", 220 * SECOND).await.unwrap()[0].refused, Some(Refused::NotAllocated), "too late");
    assert_eq!(ledger.lapse(220 * SECOND).await.unwrap(), ["i1"]);
}

pub(crate) async fn what_was_accepted_ends_once(ledger: impl Ledger) {
    fill(&ledger, "a@x.example", &[(5, 1)], 1000).await;
    let id = ledger.allocate(take(1, "r1"), 0).await.unwrap().contacts[0].id.clone();
    let ours = || vec![(id.clone(), "r1".to_owned())];
    let end = |how: &str| Answer::End(how.into());
    let early = answered(&ledger, "i1", end("early"), ours(), 1).await;
    assert!(matches!(early[0], Err(Refused::WrongState(_))), "{early:?}");
    answered(&ledger, "i1", Answer::Accept, ours(), 2).await;
    assert_eq!(answered(&ledger, "i2", end("foreign"), ours(), 3).await, [Err(Refused::Unknown)]);
    assert_eq!(answered(&ledger, "i1", end("answered"), ours(), 3).await, [Ok(ContactState::Ended)]);
    assert_eq!(answered(&ledger, "i1", end("again"), ours(), 9).await, [Ok(ContactState::Ended)]);
    assert_eq!(answered(&ledger, "i1", Answer::Accept, ours(), 9).await, [Ok(ContactState::Ended)]);
    let (_, contact) = ledger.contact(&id).await.unwrap().unwrap();
    assert_eq!((contact.state(), contact.outcome.as_str()), (ContactState::Ended, "answered"));
    assert_eq!(contact.ended_time.unwrap().nanos, 3000);
    assert!(ledger.allocate(take(9, "r2"), 10).await.unwrap().contacts.is_empty());
}

pub(crate) async fn a_contact_that_nobody_wants_dies_and_can_be_requeued(ledger: impl Ledger) {
    fill(&ledger, "a@x.example", &[(5, 1), (5, 2)], 1000).await;
    let id = ledger.allocate(take(1, "r"), 0).await.unwrap().contacts[0].id.clone();
    let mine = || vec![(id.clone(), String::new())];
    for refusal in 1..=MOST_REFUSALS {
        // Given back and missed in turns: both count.
        let now = i64::from(refusal) * 1000 * SECOND;
        if refusal % 2 == 0 {
            ledger.lapse(now).await.unwrap();
        } else {
            answered(&ledger, "i1", Answer::Reject, mine(), now).await;
        }
        let (_, contact) = ledger.contact(&id).await.unwrap().unwrap();
        let dead = refusal == MOST_REFUSALS;
        assert_eq!(contact.refusal_count, refusal);
        assert_eq!(contact.state(), if dead { ContactState::Dead } else { ContactState::Queued });
        assert_eq!(contact.dead_time.is_some(), dead);
        let next = ledger.allocate(take(1, &format!("r{refusal}")), now).await.unwrap().contacts;
        assert_eq!(subjects(&next), [if dead { "1:1" } else { "1:0" }], "its place is its old one until it dies");
    }
    assert_eq!(answered(&ledger, "i2", Answer::Requeue, mine(), 1).await, [Err(Refused::Unknown)]);
    assert_eq!(answered(&ledger, "i1", Answer::Requeue, mine(), 1).await, [Ok(ContactState::Queued)]);
    assert_eq!(answered(&ledger, "i1", Answer::Requeue, mine(), 1).await, [Ok(ContactState::Queued)]);
    let again = ledger.allocate(take(1, "last"), 2).await.unwrap().contacts;
    assert_eq!((subjects(&again), again[0].refusal_count), (vec!["1:0"], 0));
}

pub(super) fn transfer(request_id: &str, contacts: &[&str], instance: u8, priority: u32) -> Transfer {
    Transfer {
        request_id: request_id.into(),
        contacts: contacts.iter().map(|id| ((*id).to_owned(), String::new())).collect(),
        instance_uid: format!("i{instance}"),
        instance: format!("core{instance}"),
        queue_uid: format!("q-of-{instance}"),
        queue: format!("Queue of {instance}"),
        priority,
        language: "sv".into(),
    }
}

pub(super) async fn moved(
    ledger: &impl Ledger,
    from: &str,
    transfer: Transfer,
    now: Micros,
) -> Vec<Result<ContactState, Refused>> {
    ledger.transfer(from, transfer, now).await.unwrap().iter().map(AnswerOutcome::result).collect()
}

pub(crate) async fn a_contact_moves_to_another_instance_with_its_age(ledger: impl Ledger) {
    fill(&ledger, "a@x.example", &[(5, 1), (5, 2), (5, 3)], 1000).await;
    let held = ledger.allocate(take(2, "r1"), 10).await.unwrap().contacts;
    let (first, second) = (held[0].id.as_str(), held[1].id.as_str());
    answered(&ledger, "i1", Answer::Accept, vec![(first.into(), "r1".into())], 11).await;

    let both = transfer("t1", &[first, second, "nobody"], 2, 7);
    let queued = Ok(ContactState::Queued);
    assert_eq!(moved(&ledger, "i2", both.clone(), 12).await[0], Err(Refused::Unknown), "only its own");
    assert_eq!(moved(&ledger, "i1", both.clone(), 13).await, [queued, queued, Err(Refused::Unknown)]);
    let taken = ledger.allocate(Take { instance_uid: "i2".into(), ..take(9, "r2") }, 14).await.unwrap().contacts;
    assert_eq!(subjects(&taken), ["1:0", "1:1"]);
    let one = &taken[0];
    assert_eq!((one.priority, one.language.as_str(), one.queue.as_str()), (7, "sv", "Queue of 2"));
    assert_eq!(one.received_time, held[0].received_time, "its age stays");
    assert_eq!((one.instance.as_str(), one.refusal_count), ("core2", 0));

    // The answer was lost: repeated, it moves nothing back and tells nothing of what happened since.
    assert_eq!(moved(&ledger, "i1", both, 15).await[0], queued);
    assert_eq!(ledger.contact(first).await.unwrap().unwrap().1.state(), ContactState::Allocated);
    let late = answered(&ledger, "i1", Answer::Accept, vec![(first.into(), "r1".into())], 16).await;
    assert_eq!(late, [Err(Refused::Unknown)]);
    let (instance, contact) = ledger.contact(first).await.unwrap().unwrap();
    assert_eq!(instance, "i2");
    let from: Vec<_> = contact.transfers.iter().map(|it| (it.from_instance.as_str(), it.from_priority)).collect();
    assert_eq!(from, [("core1", 5)]);
    assert_eq!(subjects(&ledger.allocate(take(9, "r3"), 17).await.unwrap().contacts), ["1:2"]);
}

pub(crate) async fn target_time_hands_out_what_has_waited_longest_for_its_priority(ledger: impl Ledger) {
    // At 1000: waited 990/10 = 99, 500/5 = 100, 900/10 = 90, 100/1 = 100, which ties and has the better priority.
    fill(&ledger, "a@x.example", &[(10, 10), (5, 500), (10, 100), (1, 900)], 1000).await;
    let take = |max, request| Take { policy: Allocation::TargetTime, ..take(max, request) };
    let first = ledger.allocate(take(3, "r1"), 1000).await.unwrap().contacts;
    assert_eq!(subjects(&first), ["1:3", "1:1", "1:0"]);
    let repeated = ledger.allocate(take(3, "r1"), 50_000).await.unwrap().contacts;
    assert_eq!(subjects(&repeated), ["1:3", "1:1", "1:0"], "in the order in which they were handed out");
    assert_eq!(subjects(&ledger.allocate(take(3, "r2"), 1000).await.unwrap().contacts), ["1:2"]);
}

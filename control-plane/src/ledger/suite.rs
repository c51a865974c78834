//! What every ledger must do. One function a promise; `conformance!` makes tests of them for a back end.

use postroom_proto::id::{Epoch, Generation, MailboxUid, SessionId};
use postroom_proto::v1::{self, ContactKind, ContactState, Disposition};

use super::{
    Answer, AnswerOutcome, Answered, Batch, ContactFilter, Cursor, Fence, Intake, Ledger, Message, Micros,
    NotCommitted, Raw, Take, Transfer,
};
use crate::contact::allocation::{MOST_REFUSALS, Refused};
use crate::definition::model::Allocation;

mod binding;
mod message;
mod tally;
pub(crate) use binding::*;
pub(crate) use message::*;
pub(crate) use tally::*;

const SECOND: Micros = 1_000_000;

pub(crate) fn mailbox(email: &str) -> MailboxUid {
    MailboxUid::derive(email, "INBOX", "contoso.example")
}

pub(crate) fn fence(epoch: u64, session: &str) -> Fence {
    Fence { generation: Generation(1), epoch: Epoch(epoch), session: SessionId::parse(session).unwrap() }
}

fn cursor(value: u8) -> Cursor {
    if value == 0 { Cursor::default() } else { Cursor { protocol: "imap".into(), value: vec![value] } }
}

pub(crate) fn message(key: &str, received_at: Micros) -> Message {
    Message {
        source_key: key.into(),
        disposition: Disposition::Contact,
        reason: String::new(),
        received_at: Some(received_at),
        size_bytes: 3,
        limit_bytes: 0,
        attempt_count: 0,
        fingerprint: vec![1],
        raw: Raw::Inline(bytes::Bytes::from_static(b"raw")),
        content: Some(v1::ContactContent { subject: key.into(), text: "text".into(), ..Default::default() }),
        kind: ContactKind::Normal,
    }
}

fn batch(email: &str, fence: Fence, from: u8, to: u8, messages: Vec<Message>) -> Batch {
    Batch {
        mailbox: mailbox(email),
        fence,
        id: format!("batch-{email}-{from}-{to}"),
        expected: cursor(from),
        next: cursor(to),
        intake: Intake {
            instance_uid: "i1".into(),
            instance: "core1".into(),
            queue_uid: "q1".into(),
            queue: "Münster / \"Büro\" #1 🙂".into(),
            address: email.into(),
            priority: 10,
            language: "fi".into(),
        },
        messages,
        settled: Vec::new(),
    }
}

fn take(max: u32, request_id: &str) -> Take {
    Take {
        instance_uid: "i1".into(),
        policy: Allocation::Strict,
        max,
        request_id: request_id.into(),
        accept_within: 120 * SECOND,
    }
}

/// Opens a mailbox and fills it with contacts of the given (priority, received) keys.
async fn fill(ledger: &impl Ledger, email: &str, keys: &[(u32, Micros)], now: Micros) {
    ledger.open(&mailbox(email), &fence(1, "s1")).await.unwrap().unwrap();
    for (number, (priority, received_at)) in keys.iter().enumerate() {
        let number = u8::try_from(number).unwrap();
        let mut batch =
            batch(email, fence(1, "s1"), number, number + 1, vec![message(&format!("1:{number}"), *received_at)]);
        batch.intake.priority = *priority;
        ledger.report(batch, now).await.unwrap().unwrap();
    }
}

async fn total(ledger: &impl Ledger) -> usize {
    ledger.contacts(&ContactFilter::default(), None, 1000).await.unwrap().rows.len()
}

/// All pages of a list.
async fn listed(ledger: &impl Ledger, filter: &ContactFilter, size: usize) -> Vec<v1::Contact> {
    let (mut after, mut seen) = (None, Vec::new());
    loop {
        let page = ledger.contacts(filter, after.as_ref(), size).await.unwrap();
        assert!(page.rows.len() <= size);
        seen.extend(page.rows.into_iter().map(|(_, contact)| contact));
        after = page.next;
        if after.is_none() {
            return seen;
        }
    }
}

/// What became of an answer, without deadlines.
async fn answered(
    ledger: &impl Ledger,
    instance: &str,
    answer: Answer,
    contacts: Vec<Answered>,
    now: Micros,
) -> Vec<Result<ContactState, Refused>> {
    let outcomes = ledger.answer(instance, answer, contacts, now).await.unwrap();
    outcomes.iter().map(AnswerOutcome::result).collect()
}

fn subjects(contacts: &[v1::Contact]) -> Vec<&str> {
    contacts.iter().map(|contact| contact.content.as_ref().unwrap().subject.as_str()).collect()
}

pub(crate) async fn a_report_becomes_contacts_once(ledger: impl Ledger) {
    ledger.open(&mailbox("a@x.example"), &fence(7, "s1")).await.unwrap().unwrap();
    let first = batch("a@x.example", fence(7, "s1"), 0, 1, vec![message("1:1", 5), message("1:2", 6)]);
    let answer = ledger.report(first.clone(), 100).await.unwrap().unwrap();
    assert_eq!(answer.outcomes.len(), 2);
    assert!(answer.outcomes.iter().all(|o| o.contact.len() == 32 && !o.already_known));

    // The answer was lost: the same batch gets the same answer, and nothing is made twice.
    assert_eq!(ledger.report(first, 200).await.unwrap().unwrap(), answer);
    // The same messages under another batch, as after a cursor that was not kept: known already.
    let again = batch("a@x.example", fence(7, "s1"), 1, 2, vec![message("1:2", 6), message("1:3", 7)]);
    let second = ledger.report(again, 300).await.unwrap().unwrap();
    assert!(second.outcomes[0].already_known && !second.outcomes[1].already_known);
    assert_eq!(second.outcomes[0].contact, answer.outcomes[1].contact);
    assert_eq!(total(&ledger).await, 3);

    let record = ledger.mailboxes(&[mailbox("a@x.example")]).await.unwrap().remove(0);
    assert_eq!((record.message_count, record.contact_count, record.reported_at), (3, 3, Some(300)));
    let (instance, raw) = ledger.raw(&answer.outcomes[0].contact).await.unwrap().unwrap();
    assert_eq!((instance.as_str(), raw), ("i1", Raw::Inline(bytes::Bytes::from_static(b"raw"))));
}

pub(crate) async fn a_fence_is_raised_and_never_lowered(ledger: impl Ledger) {
    let uid = mailbox("a@x.example");
    assert!(ledger.open(&uid, &fence(7, "s1")).await.unwrap().is_some());
    assert!(ledger.open(&uid, &fence(7, "s1")).await.unwrap().is_some(), "opening can be repeated");
    assert!(ledger.open(&uid, &fence(6, "s1")).await.unwrap().is_none(), "a lower epoch");
    assert!(ledger.open(&uid, &fence(7, "s2")).await.unwrap().is_none(), "another session's equal epoch");
    assert!(ledger.open(&uid, &fence(8, "s2")).await.unwrap().is_some());

    let late = batch("a@x.example", fence(7, "s1"), 0, 1, vec![message("1:1", 5)]);
    assert_eq!(ledger.report(late, 100).await.unwrap(), Err(NotCommitted::LeaseLost));
    assert_eq!(total(&ledger).await, 0, "nothing matched, nothing written");
    let mine = batch("a@x.example", fence(8, "s2"), 0, 1, vec![message("1:1", 5)]);
    assert!(ledger.report(mine, 100).await.unwrap().is_ok());
    let never_opened = batch("b@x.example", fence(8, "s2"), 0, 1, vec![]);
    assert_eq!(ledger.report(never_opened, 100).await.unwrap(), Err(NotCommitted::LeaseLost));
}

pub(crate) async fn a_cursor_moves_only_from_where_it_is(ledger: impl Ledger) {
    let uid = mailbox("a@x.example");
    assert_eq!(ledger.open(&uid, &fence(7, "s1")).await.unwrap().unwrap().cursor, Cursor::default());
    let anchor = batch("a@x.example", fence(7, "s1"), 0, 4, vec![]);
    ledger.report(anchor, 100).await.unwrap().unwrap();
    let stale = batch("a@x.example", fence(7, "s1"), 3, 5, vec![message("1:1", 5)]);
    let committed = cursor(4);
    assert_eq!(ledger.report(stale, 100).await.unwrap(), Err(NotCommitted::CursorMismatch { committed }));
    assert_eq!(total(&ledger).await, 0);
    assert_eq!(ledger.open(&uid, &fence(9, "s2")).await.unwrap().unwrap().cursor, cursor(4), "it outlives its holder");
}

pub(crate) async fn one_refused_report_leaves_the_others_of_its_group_alone(ledger: impl Ledger) {
    for email in ["a@x.example", "b@x.example", "c@x.example"] {
        ledger.open(&mailbox(email), &fence(1, "s1")).await.unwrap().unwrap();
    }
    let (a, b, c) = tokio::join!(
        ledger.report(batch("a@x.example", fence(1, "s1"), 0, 1, vec![message("1:1", 1)]), 10),
        ledger.report(batch("b@x.example", fence(1, "other"), 0, 1, vec![message("1:1", 1)]), 10),
        ledger.report(batch("c@x.example", fence(1, "s1"), 0, 1, vec![message("1:1", 1)]), 10),
    );
    assert!(a.unwrap().is_ok() && b.unwrap().is_err() && c.unwrap().is_ok());
    assert_eq!(total(&ledger).await, 2);
}

pub(crate) async fn what_is_not_a_contact_is_recorded_all_the_same(ledger: impl Ledger) {
    let uid = mailbox("a@x.example");
    ledger.open(&uid, &fence(1, "s1")).await.unwrap().unwrap();
    let large = Message {
        disposition: Disposition::TooLarge,
        reason: "80 MB, the queue takes 25".into(),
        raw: Raw::None,
        content: None,
        ..message("1:1", 5)
    };
    let answer = ledger.report(batch("a@x.example", fence(1, "s1"), 0, 1, vec![large]), 10).await.unwrap().unwrap();
    assert_eq!(answer.outcomes[0].contact, "");
    let record = ledger.mailboxes(std::slice::from_ref(&uid)).await.unwrap().remove(0);
    assert_eq!((record.message_count, record.contact_count), (1, 0));
    let unsettled = ledger.open(&uid, &fence(1, "s1")).await.unwrap().unwrap().unsettled;
    assert!(unsettled.is_empty(), "what is no contact is left as it is in the mailbox");
}

pub(crate) async fn settling_is_remembered(ledger: impl Ledger) {
    let uid = mailbox("a@x.example");
    ledger.open(&uid, &fence(1, "s1")).await.unwrap().unwrap();
    let messages = vec![message("1:1", 5), message("1:2", 6)];
    ledger.report(batch("a@x.example", fence(1, "s1"), 0, 1, messages), 10).await.unwrap().unwrap();
    let opened = ledger.open(&uid, &fence(1, "s1")).await.unwrap().unwrap();
    assert_eq!(opened.unsettled, ["1:1", "1:2"]);
    let mut settled = batch("a@x.example", fence(1, "s1"), 1, 2, vec![]);
    settled.settled = vec!["1:1".into()];
    ledger.report(settled, 20).await.unwrap().unwrap();
    assert_eq!(ledger.open(&uid, &fence(1, "s1")).await.unwrap().unwrap().unsettled, ["1:2"]);
}

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

pub(crate) async fn contacts_are_listed_page_by_page(ledger: impl Ledger) {
    fill(&ledger, "a@x.example", &[(5, 3), (5, 1), (1, 9), (10, 2), (5, 2)], 1000).await;
    ledger.allocate(take(1, "r1"), 2000).await.unwrap();
    let filter =
        ContactFilter { instance_uid: Some("i1".into()), state: Some(ContactState::Queued), ..Default::default() };
    let seen = listed(&ledger, &filter, 2).await;
    assert_eq!(subjects(&seen), ["1:1", "1:4", "1:0", "1:3"]);
    assert!(seen.iter().all(|contact| contact.content.as_ref().unwrap().text.is_empty()));
    let (_, whole) = ledger.contact(&seen[0].id).await.unwrap().unwrap();
    assert_eq!(whole.content.unwrap().text, "text");
    assert_eq!(ledger.contact("no such").await.unwrap(), None);
}

pub(crate) async fn only_the_holder_says_how_reading_goes(ledger: impl Ledger) {
    let uid = mailbox("a@x.example");
    ledger.open(&uid, &fence(7, "s1")).await.unwrap().unwrap();
    let status = |code: &str| v1::MailboxStatus {
        problem: Some(v1::Problem { code: code.into(), ..Default::default() }),
        ..Default::default()
    };
    let mine = (uid.clone(), fence(7, "s1"), status("MINE"));
    let stale = (uid.clone(), fence(6, "s1"), status("STALE"));
    ledger.record_statuses(vec![mine, stale]).await.unwrap();
    let opened = ledger.open(&uid, &fence(8, "s2")).await.unwrap().unwrap();
    assert_eq!(opened.status.unwrap().problem.unwrap().code, "MINE", "the next holder is told");
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

fn transfer(request_id: &str, contacts: &[&str], instance: u8, priority: u32) -> Transfer {
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

async fn moved(
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

/// A message with an id, which answers others.
fn reply(key: &str, id: &str, in_reply_to: &str, references: &[&str]) -> Message {
    let mut message = message(key, 5);
    let content = message.content.as_mut().unwrap();
    content.message_id = id.into();
    content.in_reply_to = vec![in_reply_to.into()];
    content.references = references.iter().map(|id| (*id).to_owned()).collect();
    message
}

pub(crate) async fn replies_join_the_thread_of_what_they_answer(ledger: impl Ledger) {
    ledger.open(&mailbox("a@x.example"), &fence(1, "s1")).await.unwrap().unwrap();
    let first = batch(
        "a@x.example",
        fence(1, "s1"),
        0,
        1,
        vec![
            reply("1:1", "one@x", "", &[]),
            reply("1:2", "two@x", "unknown@x", &["one@x"]),
            // DHL's: the same Message-ID again, in another mail. Both stay, and neither joins the other.
            reply("1:3", "one@x", "", &[]),
            reply("1:4", "", "", &[]),
        ],
    );
    let ids: Vec<String> =
        ledger.report(first, 10).await.unwrap().unwrap().outcomes.into_iter().map(|it| it.contact).collect();
    let second = batch(
        "a@x.example",
        fence(1, "s1"),
        1,
        2,
        vec![
            reply("1:5", "five@x", "two@x", &[]),
            reply("1:6", "six@x", "one@x", &[]),
            reply("1:7", "one@x", "one@x", &[]),
        ],
    );
    let later: Vec<String> =
        ledger.report(second, 20).await.unwrap().unwrap().outcomes.into_iter().map(|it| it.contact).collect();
    assert!(ids.iter().chain(&later).all(|id| !id.is_empty()), "no Message-ID ever costs a contact");
    let contact = async |id: &str| ledger.contact(id).await.unwrap().unwrap().1;
    assert_eq!(contact(&ids[1]).await.thread, ids[0], "even within one report");
    assert_eq!(contact(&ids[2]).await.thread, ids[2]);
    assert_eq!(contact(&ids[3]).await.thread, ids[3]);
    let five = contact(&later[0]).await;
    assert_eq!((five.thread.as_str(), five.earlier_contacts), (ids[0].as_str(), vec![ids[1].clone(), ids[0].clone()]));
    assert_eq!(contact(&later[1]).await.thread, ids[2], "of two with the same id the newer one is meant");
    assert_eq!(contact(&later[2]).await.thread, later[2], "a mail that answers itself answers nothing");
    let filter = ContactFilter { thread: Some(ids[0].clone()), ..Default::default() };
    assert_eq!(subjects(&listed(&ledger, &filter, 2).await), ["1:1", "1:2", "1:5"]);
}

pub(crate) async fn a_thread_ends_where_the_instance_does(ledger: impl Ledger) {
    ledger.open(&mailbox("a@x.example"), &fence(1, "s1")).await.unwrap().unwrap();
    let ours = batch("a@x.example", fence(1, "s1"), 0, 1, vec![reply("1:1", "one@x", "", &[])]);
    let one = ledger.report(ours, 10).await.unwrap().unwrap().outcomes.remove(0).contact;
    let mut theirs = batch("a@x.example", fence(1, "s1"), 1, 2, vec![reply("1:2", "two@x", "one@x", &[])]);
    theirs.intake.instance_uid = "i2".into();
    let two = ledger.report(theirs, 20).await.unwrap().unwrap().outcomes.remove(0).contact;
    let contact = ledger.contact(&two).await.unwrap().unwrap().1;
    assert_eq!((contact.thread, contact.earlier_contacts), (two.clone(), vec![]));
    // Moved to where the answered mail is, it joins it; moved away again, it is on its own.
    moved(&ledger, "i2", transfer("t1", &[&two], 1, 1), 30).await;
    let contact = ledger.contact(&two).await.unwrap().unwrap().1;
    assert_eq!((contact.thread, contact.earlier_contacts), (one.clone(), vec![one]));
    moved(&ledger, "i1", transfer("t2", &[&two], 2, 1), 40).await;
    let contact = ledger.contact(&two).await.unwrap().unwrap().1;
    assert_eq!((contact.thread, contact.earlier_contacts), (two, vec![]));
    assert_eq!(contact.transfers.len(), 2);
}

pub(crate) async fn lists_are_narrowed(ledger: impl Ledger) {
    for (number, email) in [(1u8, "a@x.example"), (2, "b@x.example")] {
        ledger.open(&mailbox(email), &fence(1, "s1")).await.unwrap().unwrap();
        for step in 0..4u8 {
            let mut one = message(&format!("{number}:{step}"), i64::from(step) * 10);
            one.kind = if step % 2 == 0 { ContactKind::Normal } else { ContactKind::Bounce };
            let from =
                v1::EmailAddress { name: format!("Zoë {number}"), address: format!("C{step}@Fabrikam.example") };
            one.content.as_mut().unwrap().from = vec![from];
            let mut batch = batch(email, fence(1, "s1"), step, step + 1, vec![one]);
            batch.intake.instance_uid = format!("i{number}");
            batch.intake.queue_uid = format!("q{number}");
            batch.intake.priority = 1 + u32::from(step) / 2;
            ledger.report(batch, 1000).await.unwrap().unwrap();
        }
    }
    ledger.allocate(take(1, "r1"), 2000).await.unwrap();
    let none = ContactFilter::default;
    let text = |text: &str| Some(text.to_owned());
    let cases: [(&str, ContactFilter, &[&str]); 10] = [
        ("all", none(), &["1:1", "1:2", "1:3", "1:0", "2:0", "2:1", "2:2", "2:3"]),
        ("state", ContactFilter { state: Some(ContactState::Allocated), ..none() }, &["1:0"]),
        ("queue", ContactFilter { queue_uid: text("q1"), ..none() }, &["1:1", "1:2", "1:3", "1:0"]),
        ("foreign queue", ContactFilter { queue_uid: text("q1"), instance_uid: text("i2"), ..none() }, &[]),
        ("priority", ContactFilter { priority: Some(2), ..none() }, &["1:2", "1:3", "2:2", "2:3"]),
        ("kind", ContactFilter { kind: Some(ContactKind::Bounce), ..none() }, &["1:1", "1:3", "2:1", "2:3"]),
        ("address", ContactFilter { address: text("b@x.example"), ..none() }, &["2:0", "2:1", "2:2", "2:3"]),
        ("since", ContactFilter { received_since: Some(20), received_until: Some(30), ..none() }, &["1:2", "2:2"]),
        ("sender", ContactFilter { sender: "c1@fabrikam".into(), ..none() }, &["1:1", "2:1"]),
        ("sender", ContactFilter { sender: "zoë 2".into(), ..none() }, &["2:0", "2:1", "2:2", "2:3"]),
    ];
    for (what, filter, expected) in cases {
        for size in [1, 2, 3, 100] {
            assert_eq!(subjects(&listed(&ledger, &filter, size).await), expected, "{what}, {size} a page");
        }
    }
}

pub(crate) async fn every_change_of_a_contact_is_told_in_order(ledger: impl Ledger) {
    assert_eq!(ledger.newest_contact_change().await.unwrap(), 0);
    let nothing = ledger.contact_changes(None, 0, 100).await.unwrap().unwrap();
    assert_eq!((nothing.changes.len(), nothing.upto, nothing.newest), (0, 0, 0));
    assert!(ledger.contact_changes(None, 1, 100).await.unwrap().is_none(), "never reached here");

    fill(&ledger, "a@x.example", &[(5, 1), (5, 2)], 1000).await;
    let two = ledger.contact_changes(Some("i1"), 0, 100).await.unwrap().unwrap();
    assert_eq!(two.changes.iter().map(|change| change.revision).collect::<Vec<_>>(), [1, 2]);
    assert!(two.changes.iter().all(|it| it.contact.content.as_ref().unwrap().text.is_empty()));
    let id = ledger.allocate(take(1, "r1"), 2000).await.unwrap().contacts[0].id.clone();
    let mine = || vec![(id.clone(), "r1".to_owned())];
    answered(&ledger, "i1", Answer::Extend(500 * SECOND), mine(), 2001).await;
    answered(&ledger, "i1", Answer::Accept, mine(), 2002).await;
    let after = ledger.contact_changes(Some("i1"), 2, 100).await.unwrap().unwrap();
    assert_eq!((after.changes.len(), after.upto, after.newest), (1, 5, 5), "three of one contact are told as one");
    assert_eq!((after.changes[0].revision, after.changes[0].contact.state()), (5, ContactState::Accepted));
    let window = ledger.contact_changes(Some("i1"), 0, 2).await.unwrap().unwrap();
    assert_eq!((window.upto, window.newest), (2, 5));
    answered(&ledger, "i1", Answer::Accept, mine(), 2003).await;
    assert_eq!(ledger.newest_contact_change().await.unwrap(), 5, "what changes nothing is no change");

    moved(&ledger, "i1", transfer("t1", &[&id], 2, 1), 2004).await;
    let of = async |instance| ledger.contact_changes(instance, 5, 100).await.unwrap().unwrap().changes;
    let told = of(Some("i1")).await;
    assert_eq!(told.iter().map(|it| (it.left, it.contact.id.as_str())).collect::<Vec<_>>(), [(true, id.as_str())]);
    let told = of(Some("i2")).await;
    assert_eq!(
        told.iter().map(|it| (it.left, it.contact.state())).collect::<Vec<_>>(),
        [(false, ContactState::Queued)]
    );
    assert_eq!(of(None).await.len(), 1, "who sees all sees it stay");
}

pub(crate) async fn old_changes_are_cut_off_and_no_revision_is_used_twice(ledger: impl Ledger) {
    fill(&ledger, "a@x.example", &[(5, 1), (5, 2), (5, 3), (5, 4)], 1000).await;
    ledger.trim_contact_changes(2).await.unwrap();
    assert!(ledger.contact_changes(None, 1, 100).await.unwrap().is_none(), "the second was cut off");
    assert_eq!(ledger.contact_changes(None, 2, 100).await.unwrap().unwrap().changes.len(), 2);
    ledger.trim_contact_changes(0).await.unwrap();
    ledger.allocate(take(1, "r1"), 2000).await.unwrap();
    assert_eq!(ledger.newest_contact_change().await.unwrap(), 5);
}

/// Makes a test of every promise for the back end that `$open` opens.
macro_rules! conformance {
    ($open:expr => $($promise:ident),+ $(,)?) => {
        $(#[tokio::test]
        async fn $promise() {
            super::$promise($open.await).await;
        })+
    };
}

mod sqlite {
    use super::super::sqlite::Sqlite;
    use super::*;
    use crate::sqlite::Location;

    async fn memory() -> Sqlite {
        Sqlite::open(&Location::Memory).await.unwrap()
    }

    conformance!(memory() =>
        a_report_becomes_contacts_once,
        a_fence_is_raised_and_never_lowered,
        a_cursor_moves_only_from_where_it_is,
        one_refused_report_leaves_the_others_of_its_group_alone,
        what_is_not_a_contact_is_recorded_all_the_same,
        settling_is_remembered,
        the_best_contacts_come_first,
        an_allocation_fits_an_answer,
        a_repeated_request_holds_the_same_contacts,
        a_contact_given_back_has_its_old_place,
        a_missed_deadline_gives_back_and_a_late_answer_is_refused,
        contacts_are_listed_page_by_page,
        held_contacts_can_be_held_longer,
        what_was_accepted_ends_once,
        a_contact_that_nobody_wants_dies_and_can_be_requeued,
        a_contact_moves_to_another_instance_with_its_age,
        target_time_hands_out_what_has_waited_longest_for_its_priority,
        replies_join_the_thread_of_what_they_answer,
        a_thread_ends_where_the_instance_does,
        lists_are_narrowed,
        every_change_of_a_contact_is_told_in_order,
        old_changes_are_cut_off_and_no_revision_is_used_twice,
        the_counts_agree_with_the_contacts,
        only_the_holder_says_how_reading_goes,
        a_ledger_belongs_to_its_first_store_until_another_is_adopted,
        messages_are_listed_by_what_narrows_them,
        a_message_says_all_that_is_known,
        a_discarded_message_is_decided_and_a_contact_is_not_discarded,
        a_replayed_message_is_one_contact,
        a_replay_under_a_lost_lease_changes_nothing,
        a_mailbox_is_walked_through_in_pieces,
    );

    #[tokio::test]
    async fn a_restart_keeps_everything() {
        let folder = tempfile::tempdir().unwrap();
        let location = Location::File(folder.path().join("ledger.db"));
        let ledger = Sqlite::open(&location).await.unwrap();
        fill(&ledger, "a@x.example", &[(5, 1), (5, 2)], 1000).await;
        ledger.allocate(take(1, "r1"), 2000).await.unwrap();
        let id = ledger.id().to_owned();
        ledger.close().await;

        let ledger = Sqlite::open(&location).await.unwrap();
        assert_eq!(ledger.id(), id);
        assert_eq!(subjects(&ledger.allocate(take(5, "r1"), 3000).await.unwrap().contacts), ["1:0"]);
        assert_eq!(subjects(&ledger.allocate(take(5, "r2"), 3000).await.unwrap().contacts), ["1:1"]);
        let opened = ledger.open(&mailbox("a@x.example"), &fence(1, "s1")).await.unwrap().unwrap();
        assert_eq!(opened.cursor, cursor(2));
    }
}

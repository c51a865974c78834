//! What every ledger must do. One function a promise; `conformance!` makes tests of them for a back end.

use postroom_proto::id::{Epoch, Generation, MailboxUid, SessionId};
use postroom_proto::v1::{self, ContactKind, ContactState, Disposition};

use super::{
    Answer, AnswerOutcome, Answered, Batch, ContactFilter, Cursor, Fence, Intake, Ledger, Message, Micros,
    NotCommitted, Raw, Take, Transfer,
};
use crate::contact::allocation::{MOST_REFUSALS, Refused};
use crate::definition::model::Allocation;

mod allocation;
mod backlog;
mod binding;
mod contact;
mod known;
mod message;
mod outbox;
mod tally;
pub(crate) use allocation::*;
pub(crate) use backlog::*;
pub(crate) use binding::*;
pub(crate) use contact::*;
pub(crate) use known::*;
pub(crate) use message::*;
pub(crate) use outbox::*;
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
        bounce: None,
        duplicate_of: None,
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
        numbering: 0,
        backlog: None,
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

/// Of contacts alone, and of none twice: what was put aside, is settled or was taken in too lately is never named.
pub(crate) async fn what_is_to_be_deleted_is_what_was_taken_in_long_enough_ago(ledger: impl Ledger) {
    let uid = mailbox("a@x.example");
    let due = async |before| ledger.due(&uid, before).await.unwrap();
    assert!(due(1000).await.is_empty(), "it was never opened");
    ledger.open(&uid, &fence(1, "s1")).await.unwrap().unwrap();
    let aside = |key: &str, disposition| Message { disposition, content: None, raw: Raw::None, ..message(key, 5) };
    let first = vec![
        message("1:1", 5),
        aside("1:2", Disposition::Quarantined),
        aside("1:3", Disposition::TooLarge),
        aside("1:4", Disposition::Vanished),
        message("1:5", 5),
        message("1:6", 5),
    ];
    ledger.report(batch("a@x.example", fence(1, "s1"), 0, 1, first), 10).await.unwrap().unwrap();
    let later = batch("a@x.example", fence(1, "s1"), 1, 2, vec![message("1:7", 5)]);
    ledger.report(Batch { settled: vec!["1:6".into()], ..later }, 20).await.unwrap().unwrap();
    assert_eq!(due(10).await, Vec::<String>::new());
    assert_eq!(due(11).await, ["1:1", "1:5"]);
    assert_eq!(due(21).await, ["1:1", "1:5", "1:7"]);
    let settled = Batch { settled: vec!["1:1".into()], ..batch("a@x.example", fence(1, "s1"), 2, 3, vec![]) };
    ledger.report(settled, 30).await.unwrap().unwrap();
    assert_eq!(due(31).await, ["1:5", "1:7"], "deleted once");
    // Numbered anew: a key means another message now, or none.
    let renumbered = Batch { numbering: 1, ..batch("a@x.example", fence(1, "s1"), 3, 4, vec![]) };
    ledger.report(renumbered, 40).await.unwrap().unwrap();
    assert!(due(1000).await.is_empty());
    let id = ledger.standing_of(&uid, &["1:5".to_owned()]).await.unwrap()[0].id;
    let copy = Message { duplicate_of: Some(id), ..aside("9.1:2", Disposition::Duplicate) };
    let known = Batch { numbering: 1, ..batch("a@x.example", fence(1, "s1"), 4, 5, vec![copy]) };
    ledger.report(known, 50).await.unwrap().unwrap();
    assert_eq!((due(50).await, due(51).await), (vec![], vec!["9.1:2".to_owned()]), "under its new key");
    assert!(ledger.due(&mailbox("b@x.example"), 1000).await.unwrap().is_empty());
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

pub(crate) async fn who_did_not_open_a_mailbox_takes_back_nothing_that_is_known_of_it(ledger: impl Ledger) {
    let uid = mailbox("a@x.example");
    ledger.open(&uid, &fence(7, "s1")).await.unwrap().unwrap();
    let at = |seconds| prost_types::Timestamp { seconds, nanos: 0 };
    let unopened = |code: &str| v1::MailboxStatus {
        problem: Some(v1::Problem { code: code.into(), ..Default::default() }),
        ..Default::default()
    };
    let told = v1::MailboxStatus {
        generation: 1,
        refused_credentials: b"digest".to_vec(),
        refused_times: vec![at(1), at(2)],
        renumbering: Some(v1::Renumbering { known_count: 3, ..Default::default() }),
        throttled_until_time: Some(at(9)),
        ..unopened("THROTTLED")
    };
    let then = async |status: v1::MailboxStatus| {
        ledger.record_statuses(vec![(uid.clone(), fence(7, "s1"), status)]).await.unwrap();
        ledger.open(&uid, &fence(7, "s1")).await.unwrap().unwrap().status.unwrap()
    };
    assert_eq!(then(unopened("FIRST")).await, unopened("FIRST"), "nothing is known yet");
    assert_eq!(then(told.clone()).await, told);
    let kept = v1::MailboxStatus { generation: 0, ..told.clone() };
    let want = v1::MailboxStatus { problem: unopened("UNREADABLE").problem, ..kept.clone() };
    assert_eq!(then(unopened("UNREADABLE")).await, want, "what does not work now, and what is known");
    let more = v1::MailboxStatus { refused_times: vec![at(1), at(2), at(3)], ..unopened("UNREADABLE") };
    assert_eq!(then(more.clone()).await.refused_times, more.refused_times, "what is newer counts");
    let opened = v1::MailboxStatus { generation: 1, ..unopened("OTHER") };
    assert_eq!(then(opened.clone()).await, opened, "whoever opened it knows");
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
        what_is_to_be_deleted_is_what_was_taken_in_long_enough_ago,
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
        who_did_not_open_a_mailbox_takes_back_nothing_that_is_known_of_it,
        a_ledger_belongs_to_its_first_store_until_another_is_adopted,
        messages_are_listed_by_what_narrows_them,
        a_message_says_all_that_is_known,
        a_discarded_message_is_decided_and_a_contact_is_not_discarded,
        a_replayed_message_is_one_contact,
        a_replay_under_a_lost_lease_changes_nothing,
        a_mailbox_is_walked_through_in_pieces,
        a_message_under_a_new_key_is_no_new_contact,
        a_folder_can_be_numbered_anew_again_and_again,
        a_message_is_taken_for_one_only,
        what_is_replayed_is_settled_and_known_under_its_new_key,
        a_fingerprint_of_an_earlier_version_is_made_anew,
        a_mail_is_stored_once_for_a_request,
        two_claimers_never_get_the_same_mail,
        a_claim_is_marked_and_settled_by_whom_it_belongs_to,
        a_claim_lapses_before_its_mark_and_behind_it,
        whoever_handed_it_over_is_believed_late,
        a_mail_is_looked_for_only_where_its_copy_would_be,
        the_time_without_a_road_does_not_count,
        a_sending_mailbox_has_its_limits_whoever_claims,
        a_day_has_its_recipients,
        queues_take_turns,
        a_mailbox_that_is_refused_is_left_alone_as_a_whole,
        a_mended_mailbox_is_tried_at_once,
        some_recipients_are_tried_again,
        people_decide_about_mails,
        too_many_mails_to_one_are_refused,
        mails_are_listed_newest_first_and_narrowed,
        every_change_of_a_mail_is_told,
        what_waits_costs_the_same_however_much_it_is,
        what_comes_back_is_tied_to_its_mail_and_becomes_no_contact,
        old_messages_are_taken_only_while_they_are_released,
        a_backlog_says_how_far_it_is_and_who_decided,
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

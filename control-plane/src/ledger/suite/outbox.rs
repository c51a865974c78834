//! What every outbox must do. `Ledger` comes along because the two are one back end.

use std::time::Duration;

use postroom_proto::v1::{OutboxState, RecipientKind, RecipientState, SendTask, SendVerdict};

use super::*;
use crate::ledger::outbox::{
    Bounce, Claim, ClaimLost, Claimed, Claiming, Decided, Lane, MailFilter, NewMail, NotAdded, NotSettled, Outbox, Way,
};
use crate::outbox::Terms;
use crate::outbox::state::{Decision, Recipient, Settlement};

const MINUTE: Micros = 60 * SECOND;
const HOUR: Micros = 60 * MINUTE;
const START: Micros = 500_000 * HOUR;

fn address(address: &str) -> v1::EmailAddress {
    v1::EmailAddress { name: String::new(), address: address.into() }
}

fn new_mail(id: &str, queue: &str, to: &[&str]) -> NewMail {
    NewMail {
        id: id.into(),
        lane: Lane::new("i1", queue, &format!("{queue}@contoso.example")),
        instance: "core1".into(),
        queue: format!("Queue {queue}"),
        contact: String::new(),
        request_id: format!("r-{id}"),
        digest: id.as_bytes().to_vec(),
        from: v1::EmailAddress { name: "Billing".into(), address: format!("{queue}@Contoso.example") },
        recipients: to.iter().map(|to| (RecipientKind::To, address(to))).collect(),
        subject: format!("Subject of {id}"),
        message_id: format!("{id}@contoso.example"),
        size_bytes: 9,
        raw: Raw::Inline(bytes::Bytes::from_static(b"the bytes")),
        automatic: false,
    }
}

fn way(queue: &str) -> Way {
    Way {
        lane: Lane::new("i1", queue, &format!("{queue}@contoso.example")),
        sender: "smtp|billing".into(),
        credentials: b"first".to_vec(),
        outgoing_server: "Out".into(),
        look_in: "out/billing/Sent".into(),
    }
}

fn claiming(worker: &str, queues: &[&str], max: usize) -> Claiming {
    let session = SessionId::parse(&format!("s-{worker}")).unwrap();
    Claiming { session, worker: worker.into(), ways: queues.iter().map(|queue| way(queue)).collect(), max }
}

fn terms() -> Terms {
    Terms { connections: 3, per_minute: 5, per_day: 20, ..Terms::default() }
}

fn said(verdict: SendVerdict) -> Settlement {
    Settlement { verdict, ..Settlement::default() }
}

fn claim_of(worker: &str, claimed: &Claimed) -> Claim {
    let session = SessionId::parse(&format!("s-{worker}")).unwrap();
    Claim { session, mail: claimed.mail.clone(), token: claimed.token.clone() }
}

fn ids(claimed: &[Claimed]) -> Vec<&str> {
    claimed.iter().map(|claimed| claimed.mail.as_str()).collect()
}

/// Stores a mail from each of these queues.
async fn store(outbox: &impl Outbox, mails: &[(&str, &str)], now: Micros) {
    for (id, queue) in mails {
        outbox.add(new_mail(id, queue, &[&format!("{id}@fabrikam.example")]), &terms(), now).await.unwrap().unwrap();
    }
}

async fn claim(outbox: &impl Outbox, worker: &str, queues: &[&str], max: usize, now: Micros) -> Vec<Claimed> {
    outbox.claim(claiming(worker, queues, max), &terms(), now).await.unwrap()
}

async fn settle(
    outbox: &impl Outbox,
    worker: &str,
    claimed: &Claimed,
    said: Settlement,
    now: Micros,
) -> Result<OutboxState, NotSettled> {
    outbox.settle(claim_of(worker, claimed), said, &terms(), now).await.unwrap()
}

async fn mark(outbox: &impl Outbox, worker: &str, claimed: &Claimed, now: Micros) -> Result<Micros, ClaimLost> {
    outbox.mark(claim_of(worker, claimed), &terms(), now).await.unwrap()
}

/// Claims one mail and has it taken by a server.
async fn send(outbox: &impl Outbox, queue: &str, now: Micros) -> Claimed {
    let claimed = claim(outbox, "w", &[queue], 1, now).await.remove(0);
    mark(outbox, "w", &claimed, now).await.unwrap();
    assert_eq!(settle(outbox, "w", &claimed, said(SendVerdict::Sent), now).await, Ok(OutboxState::Sent));
    claimed
}

async fn state(outbox: &impl Outbox, id: &str) -> OutboxState {
    outbox.mail(id).await.unwrap().unwrap().mail.state()
}

pub(crate) async fn a_mail_is_stored_once_for_a_request(outbox: impl Outbox) {
    let mail =
        NewMail { contact: "c1".into(), ..new_mail("m1", "q1", &["ada@fabrikam.example", "Bob@fabrikam.example"]) };
    let stored = outbox.add(mail.clone(), &terms(), START).await.unwrap().unwrap();
    let shown = &stored.mail;
    assert_eq!((shown.id.as_str(), shown.state(), shown.recipient_count), ("m1", OutboxState::Queued, 2));
    assert_eq!(shown.recipients[1].address, Some(address("Bob@fabrikam.example")));
    assert_eq!(shown.recipients[1].state(), RecipientState::Pending);
    assert_eq!((stored.instance_uid.as_str(), &stored.lane), ("i1", &way("q1").lane));
    // The answer was lost: the same content again, composed anew, is the mail that was stored.
    let again = NewMail { id: "m2".into(), message_id: "m2@contoso.example".into(), ..mail.clone() };
    assert_eq!(outbox.add(again.clone(), &terms(), START + 5).await.unwrap().unwrap(), stored);
    let other = NewMail { digest: vec![0], ..again.clone() };
    let reused = NotAdded::Reused { mail: "m1".into() };
    assert_eq!(outbox.add(other, &terms(), START + 5).await.unwrap(), Err(reused));
    assert_eq!(outbox.stored("i1", "r-m1").await.unwrap(), Some((b"m1".to_vec(), stored.clone())));
    assert_eq!(outbox.stored("i2", "r-m1").await.unwrap(), None);
    let elsewhere = NewMail { lane: Lane::new("i2", "q1", "q1@contoso.example"), ..again };
    assert_eq!(outbox.add(elsewhere, &terms(), START).await.unwrap().unwrap().mail.id, "m2", "another's own request");
    let (instance, raw) = outbox.mail_raw("m1").await.unwrap().unwrap();
    assert_eq!((instance.as_str(), raw), ("i1", Raw::Inline(bytes::Bytes::from_static(b"the bytes"))));
    assert_eq!(outbox.mail("m9").await.unwrap(), None);
    assert_eq!(outbox.mail_raw("m9").await.unwrap(), None);
}

pub(crate) async fn two_claimers_never_get_the_same_mail(outbox: impl Outbox) {
    store(&outbox, &[("m1", "q1"), ("m2", "q1"), ("m3", "q1")], START).await;
    let (a, b, c) = tokio::join!(
        claim(&outbox, "a", &["q1"], 2, START),
        claim(&outbox, "b", &["q1"], 2, START),
        claim(&outbox, "c", &["q1"], 2, START),
    );
    let mut all: Vec<&str> = [&a, &b, &c].into_iter().flat_map(|claimed| ids(claimed)).collect();
    all.sort_unstable();
    assert_eq!(all, ["m1", "m2", "m3"]);
    let first = a.iter().chain(&b).chain(&c).find(|claimed| claimed.mail == "m1").unwrap();
    assert_eq!((first.task, first.attempt), (SendTask::Submit, 1));
    assert_eq!((first.sender.as_str(), first.recipients.len()), ("q1@Contoso.example", 1));
    assert_eq!(first.deadline_at, START + 120 * SECOND);
    let shown = outbox.mail("m1").await.unwrap().unwrap().mail;
    assert_eq!((shown.state(), shown.outgoing_server.as_str()), (OutboxState::Sending, "Out"));
    assert!(["a", "b", "c"].contains(&shown.worker.as_str()));
    assert_eq!(shown.next_attempt_time, None);
}

pub(crate) async fn a_claim_is_marked_and_settled_by_whom_it_belongs_to(outbox: impl Outbox) {
    store(&outbox, &[("m1", "q1")], START).await;
    let claimed = claim(&outbox, "a", &["q1"], 1, START).await.remove(0);
    assert_eq!(mark(&outbox, "b", &claimed, START).await, Err(ClaimLost));
    assert_eq!(settle(&outbox, "b", &claimed, said(SendVerdict::Sent), START).await, Err(NotSettled::ClaimLost));
    let forged = Claimed { token: "x".into(), ..claimed.clone() };
    assert_eq!(mark(&outbox, "a", &forged, START).await, Err(ClaimLost));
    let bytes = outbox.claimed_raw(&claim_of("a", &claimed), START).await.unwrap();
    assert_eq!(bytes, Ok(Raw::Inline(bytes::Bytes::from_static(b"the bytes"))));
    assert_eq!(outbox.claimed_raw(&claim_of("b", &claimed), START).await.unwrap(), Err(ClaimLost));

    let until = mark(&outbox, "a", &claimed, START + 60 * SECOND).await.unwrap();
    assert_eq!(until, START + (60 + 615) * SECOND, "the server's time to answer");
    assert_eq!(mark(&outbox, "a", &claimed, START + 90 * SECOND).await, Ok(until), "repeated");
    let wrong = settle(&outbox, "a", &claimed, said(SendVerdict::Found), START).await;
    assert!(matches!(wrong, Err(NotSettled::Verdict(_))), "{wrong:?}");
    let now = START + 100 * SECOND;
    let taken = Settlement { response: "250 2.0.0 queued as 7".into(), ..said(SendVerdict::Sent) };
    assert_eq!(settle(&outbox, "a", &claimed, taken, now).await, Ok(OutboxState::Sent));
    assert_eq!(settle(&outbox, "a", &claimed, said(SendVerdict::Failed), now).await, Ok(OutboxState::Sent), "repeated");
    assert_eq!(mark(&outbox, "a", &claimed, now).await, Err(ClaimLost));
    let shown = outbox.mail("m1").await.unwrap().unwrap().mail;
    assert_eq!(shown.sent_time, Some(postroom_proto::convert::to_timestamp(now)));
    assert_eq!((shown.response.as_str(), shown.worker.as_str()), ("250 2.0.0 queued as 7", ""));
    assert_eq!(shown.recipients[0].state(), RecipientState::Accepted);
}

pub(crate) async fn a_claim_lapses_before_its_mark_and_behind_it(outbox: impl Outbox) {
    store(&outbox, &[("m1", "q1"), ("m2", "q1")], START).await;
    let claimed = claim(&outbox, "a", &["q1"], 2, START).await;
    mark(&outbox, "a", &claimed[1], START).await.unwrap();
    assert_eq!(outbox.lapse_claims(&terms(), START + 119 * SECOND).await.unwrap(), 0);
    let now = START + 120 * SECOND;
    assert_eq!(mark(&outbox, "a", &claimed[0], now).await, Err(ClaimLost), "over is over, also before anybody looked");
    assert_eq!(outbox.lapse_claims(&terms(), now).await.unwrap(), 1);
    assert_eq!(outbox.lapse_claims(&terms(), now).await.unwrap(), 0);
    assert_eq!((state(&outbox, "m1").await, state(&outbox, "m2").await), (OutboxState::Queued, OutboxState::Sending));

    // At once for the one; the other is nobody's before it may be looked for.
    let again = claim(&outbox, "b", &["q1"], 9, now).await;
    assert_eq!(ids(&again), ["m1"]);
    assert_eq!(again[0].attempt, 2);
    assert_eq!(settle(&outbox, "a", &claimed[0], said(SendVerdict::Sent), now).await, Err(NotSettled::ClaimLost));
    settle(&outbox, "b", &again[0], said(SendVerdict::Failed), now).await.unwrap();
    let lapsed = START + 615 * SECOND;
    assert_eq!(outbox.lapse_claims(&terms(), lapsed).await.unwrap(), 1);
    assert_eq!(state(&outbox, "m2").await, OutboxState::Unknown);
    let waiting = outbox.waiting_mail().await.unwrap();
    let place = "out/billing/Sent".to_owned();
    assert_eq!(waiting.unknown, [(way("q1").lane, place, lapsed + 600 * SECOND)]);
    assert!(claim(&outbox, "b", &["q1"], 9, lapsed + 599 * SECOND).await.is_empty());
    let now = lapsed + 600 * SECOND;
    let looked_for = claim(&outbox, "b", &["q1"], 9, now).await;
    assert_eq!((ids(&looked_for), looked_for[0].task), (vec!["m2"], SendTask::LookFor));
    assert_eq!(state(&outbox, "m2").await, OutboxState::Unknown);
    assert!(outbox.waiting_mail().await.unwrap().unknown.is_empty(), "somebody looks");
    let missing = settle(&outbox, "b", &looked_for[0], said(SendVerdict::NotFound), now + SECOND).await;
    assert_eq!(missing, Ok(OutboxState::Queued));
    assert_eq!(ids(&claim(&outbox, "b", &["q1"], 9, now + SECOND).await), ["m2"]);
}

pub(crate) async fn a_mail_is_looked_for_only_where_its_copy_would_be(outbox: impl Outbox) {
    store(&outbox, &[("m1", "q1"), ("m2", "q1")], START).await;
    let by = async |look_in: &str, now| {
        let mut claiming = claiming("a", &["q1"], 1);
        claiming.ways[0].look_in = look_in.into();
        outbox.claim(claiming, &terms(), now).await.unwrap()
    };
    let lose = async |claimed: &Claimed| {
        mark(&outbox, "a", claimed, START).await.unwrap();
        settle(&outbox, "a", claimed, said(SendVerdict::Unknown), START).await.unwrap()
    };
    // One went by a relay that keeps nothing, the other by a server that does. Then the model changes.
    assert_eq!(lose(&by("", START).await[0]).await, OutboxState::Unknown);
    assert_eq!(lose(&by("relay/x/Sent", START).await[0]).await, OutboxState::Unknown);
    let shown = outbox.mail("m1").await.unwrap().unwrap();
    assert_eq!((shown.look_in.as_str(), shown.mail.next_attempt_time), ("", None), "the operator's");
    let now = START + HOUR;
    assert!(by("new/y/Sent", now).await.is_empty());
    assert!(by("", now).await.is_empty());
    let waiting = outbox.waiting_mail().await.unwrap();
    assert_eq!(waiting.unknown, [(way("q1").lane, "relay/x/Sent".to_owned(), START + 600 * SECOND)]);
    let looked_for = by("relay/x/Sent", now).await;
    assert_eq!((ids(&looked_for), looked_for[0].task), (vec!["m2"], SendTask::LookFor));
}

pub(crate) async fn the_time_without_a_road_does_not_count(outbox: impl Outbox) {
    store(&outbox, &[("m1", "q1")], START).await;
    let defer = async |now| {
        let claimed = claim(&outbox, "a", &["q1"], 1, now).await.remove(0);
        settle(&outbox, "a", &claimed, said(SendVerdict::Deferred), now).await.unwrap()
    };
    assert_eq!(defer(START).await, OutboxState::Queued);
    assert_eq!(defer(START + 300 * HOUR).await, OutboxState::Queued, "nothing could send it meanwhile");
    let mut attempts = 1;
    while defer(START + (300 + attempts * 2) * HOUR).await == OutboxState::Queued {
        attempts += 1;
    }
    assert!((90..140).contains(&attempts), "an hour and a bit of each counts: {attempts}");
}

pub(crate) async fn whoever_handed_it_over_is_believed_late(outbox: impl Outbox) {
    store(&outbox, &[("m1", "q1"), ("m2", "q1")], START).await;
    let claimed = claim(&outbox, "a", &["q1"], 2, START).await;
    for claimed in &claimed {
        mark(&outbox, "a", claimed, START).await.unwrap();
    }
    let lapsed = START + 700 * SECOND;
    assert_eq!(outbox.lapse_claims(&terms(), lapsed).await.unwrap(), 2);
    let now = lapsed + 600 * SECOND;
    assert_eq!(settle(&outbox, "a", &claimed[0], said(SendVerdict::Sent), now).await, Ok(OutboxState::Sent));
    let looked_for = claim(&outbox, "b", &["q1"], 9, now).await;
    assert_eq!(ids(&looked_for), ["m2"]);
    let late = settle(&outbox, "a", &claimed[1], said(SendVerdict::Deferred), now).await;
    assert_eq!(late, Err(NotSettled::ClaimLost), "another looks for it already");
    assert_eq!(settle(&outbox, "c", &claimed[1], said(SendVerdict::Sent), now).await, Err(NotSettled::ClaimLost));
    for _ in 0..2 {
        assert_eq!(settle(&outbox, "a", &claimed[1], said(SendVerdict::Sent), now).await, Ok(OutboxState::Sent));
    }
    let looker = settle(&outbox, "b", &looked_for[0], said(SendVerdict::NotFound), now).await;
    assert_eq!(looker, Err(NotSettled::ClaimLost), "the look has ended");
    // What was handed over late counts in the minute in which it ended.
    let loads = outbox.loads(&["smtp|billing".into()], &terms(), now).await.unwrap();
    let load = &loads["smtp|billing"];
    assert_eq!((load.looking, load.ended.len()), (0, 2));
    assert_eq!(load.hours.iter().map(|(_, count)| count).sum::<u64>(), 2, "each recipient once");
}

pub(crate) async fn a_sending_mailbox_has_its_limits_whoever_claims(outbox: impl Outbox) {
    let mails: Vec<String> = (0..12).map(|n| format!("m{n:02}")).collect();
    let mails: Vec<(&str, &str)> = mails.iter().map(|id| (id.as_str(), "q1")).collect();
    store(&outbox, &mails, START).await;
    let first = claim(&outbox, "a", &["q1"], 9, START).await;
    assert_eq!(ids(&first), ["m00", "m01", "m02"], "three at once");
    assert!(claim(&outbox, "b", &["q1"], 9, START).await.is_empty());
    for claimed in &first {
        mark(&outbox, "a", claimed, START).await.unwrap();
        settle(&outbox, "a", claimed, said(SendVerdict::Sent), START + SECOND).await.unwrap();
    }
    let second = claim(&outbox, "b", &["q1"], 9, START + SECOND).await;
    assert_eq!(second.len(), 2, "five a minute");
    // One that handed nothing over does not count, one that did counts from its end.
    let now = START + 31 * SECOND;
    settle(&outbox, "b", &second[0], said(SendVerdict::Deferred), now).await.unwrap();
    mark(&outbox, "b", &second[1], now).await.unwrap();
    settle(&outbox, "b", &second[1], said(SendVerdict::Sent), now).await.unwrap();
    assert_eq!(claim(&outbox, "a", &["q1"], 9, now).await.len(), 1);
    assert!(claim(&outbox, "b", &["q1"], 9, now).await.is_empty());
    let waiting = outbox.waiting_mail().await.unwrap();
    let loads = outbox.loads(&["smtp|billing".into(), "smtp|nobody".into()], &terms(), now).await.unwrap();
    let load = &loads["smtp|billing"];
    assert_eq!((loads.len(), load.sending, load.ended.len()), (1, 1, 4));
    assert_eq!(waiting.queued, [(way("q1").lane, START)]);
    assert_eq!(
        claim(&outbox, "b", &["q1"], 9, START + SECOND + MINUTE).await.len(),
        2,
        "and no more than three at once"
    );
}

pub(crate) async fn a_day_has_its_recipients(outbox: impl Outbox) {
    let many: Vec<String> = (0..15).map(|n| format!("r{n}@fabrikam.example")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    for id in ["m1", "m2"] {
        let mail = NewMail { message_id: id.into(), ..new_mail(id, "q1", &many) };
        outbox.add(mail, &terms(), START).await.unwrap().unwrap();
    }
    store(&outbox, &[("m3", "q2")], START).await;
    let first = claim(&outbox, "a", &["q1", "q2"], 9, START).await;
    assert_eq!(ids(&first), ["m1", "m3"], "fifteen and one of twenty; the rest of q1 has to wait");
    for claimed in &first {
        mark(&outbox, "a", claimed, START).await.unwrap();
        settle(&outbox, "a", claimed, said(SendVerdict::Sent), START).await.unwrap();
    }
    assert!(claim(&outbox, "a", &["q1"], 9, START + 24 * HOUR).await.is_empty());
    assert_eq!(ids(&claim(&outbox, "a", &["q1"], 9, START + 25 * HOUR).await), ["m2"]);
}

pub(crate) async fn queues_take_turns(outbox: impl Outbox) {
    store(&outbox, &[("a1", "q1"), ("a2", "q1"), ("a3", "q1"), ("a4", "q1")], START).await;
    store(&outbox, &[("b1", "q2"), ("b2", "q2"), ("c1", "q3")], START + 1).await;
    let queues = ["q1", "q2", "q3"];
    let mut order = Vec::new();
    for round in 0..7 {
        let now = START + MINUTE * (round + 1);
        let claimed = claim(&outbox, "w", &queues, 1, now).await.remove(0);
        mark(&outbox, "w", &claimed, now).await.unwrap();
        settle(&outbox, "w", &claimed, said(SendVerdict::Sent), now).await.unwrap();
        order.push(claimed.mail);
    }
    assert_eq!(order, ["a1", "b1", "c1", "a2", "b2", "a3", "a4"]);
}

pub(crate) async fn a_mailbox_that_is_refused_is_left_alone_as_a_whole(outbox: impl Outbox) {
    store(&outbox, &[("m1", "q1"), ("m2", "q1"), ("m3", "q2")], START).await;
    let claimed = claim(&outbox, "a", &["q1"], 1, START).await.remove(0);
    let problem = v1::Problem { code: "THROTTLED".into(), cause: "too fast".into(), ..Default::default() };
    let throttled = Settlement {
        problem: Some(problem),
        retry_after: 300 * SECOND,
        whole_mailbox: true,
        ..said(SendVerdict::Deferred)
    };
    assert_eq!(settle(&outbox, "a", &claimed, throttled, START).await, Ok(OutboxState::Queued));
    assert!(claim(&outbox, "a", &["q1", "q2"], 9, START + 299 * SECOND).await.is_empty());
    let alone = outbox.left_alone(START + SECOND).await.unwrap();
    let billing = ("smtp|billing".to_owned(), b"first".to_vec());
    assert_eq!(alone[&billing].code, "THROTTLED");
    let mut other = claiming("a", &["q2"], 9);
    other.ways[0].sender = "smtp|sales".into();
    assert_eq!(ids(&outbox.claim(other, &terms(), START).await.unwrap()), ["m3"], "other mailboxes go on");
    let later = START + 300 * SECOND;
    assert_eq!(ids(&claim(&outbox, "a", &["q1"], 1, later).await), ["m2"], "others first");
    assert_eq!(ids(&claim(&outbox, "a", &["q1"], 9, later).await), ["m1"]);
    assert!(outbox.left_alone(later).await.unwrap().is_empty());
}

pub(crate) async fn a_mended_mailbox_is_tried_at_once(outbox: impl Outbox) {
    store(&outbox, &[("m1", "q1"), ("m2", "q1"), ("m3", "q1"), ("m4", "q1"), ("m5", "q1")], START).await;
    let refused = || Settlement {
        problem: Some(v1::Problem {
            kind: v1::ProblemKind::Credential.into(),
            code: "535".into(),
            ..Default::default()
        }),
        whole_mailbox: true,
        ..said(SendVerdict::Deferred)
    };
    let billing = ("smtp|billing".to_owned(), b"first".to_vec());
    let until = async |now| {
        let alone = outbox.left_alone(now).await.unwrap();
        alone.get(&billing).map(|problem| (problem.code.clone(), problem.next_attempt_time.unwrap().seconds))
    };
    // Three that fail together are one fault.
    let claimed = claim(&outbox, "a", &["q1"], 3, START).await;
    for (n, claimed) in (1..).zip(&claimed) {
        settle(&outbox, "a", claimed, refused(), START + n * SECOND).await.unwrap();
    }
    let (code, first) = until(START + 3 * SECOND).await.unwrap();
    assert_eq!(code, "535");
    assert!(first <= START / SECOND + 3 + 36, "{first}");
    let now = START + 40 * SECOND;
    let again = claim(&outbox, "a", &["q1"], 1, now).await.remove(0);
    settle(&outbox, "a", &again, refused(), now).await.unwrap();
    assert!(until(now).await.unwrap().1 >= now / SECOND + 60, "the second round waits longer");

    // Other credentials are tried at once, and so are the same on somebody's word.
    assert!(claim(&outbox, "a", &["q1"], 1, now + SECOND).await.is_empty());
    let mut mended = claiming("a", &["q1"], 1);
    mended.ways[0].credentials = b"second".to_vec();
    let other = outbox.claim(mended, &terms(), now + SECOND).await.unwrap().remove(0);
    settle(&outbox, "a", &other, said(SendVerdict::Deferred), now + SECOND).await.unwrap();
    outbox.try_again("smtp|billing").await.unwrap();
    assert_eq!(until(now).await, None);
    let later = now + 200 * SECOND;
    assert_eq!(claim(&outbox, "a", &["q1"], 1, later).await.len(), 1);
    outbox.forget_loads(&terms(), later + 100 * HOUR).await.unwrap();
    let loads = outbox.loads(&["smtp|billing".into()], &terms(), later).await.unwrap();
    let load = &loads["smtp|billing"];
    assert!(load.left_alone.is_empty() && load.turn > 0 && load.sending == 1, "{load:?}");
}

pub(crate) async fn some_recipients_are_tried_again(outbox: impl Outbox) {
    let to = ["ok@f.example", "no@f.example", "Later@f.example"];
    outbox.add(new_mail("m1", "q1", &to), &terms(), START).await.unwrap().unwrap();
    let claimed = claim(&outbox, "a", &["q1"], 1, START).await.remove(0);
    mark(&outbox, "a", &claimed, START).await.unwrap();
    let outcome = |key: &str, state, status: &str| Recipient {
        key: key.into(),
        state,
        status: status.into(),
        diagnostic: format!("about {key}"),
    };
    let recipients = vec![
        outcome("no@f.example", RecipientState::Refused, "5.1.1"),
        outcome("later@f.example", RecipientState::Pending, "4.2.2"),
    ];
    let partly = Settlement { recipients, ..said(SendVerdict::Sent) };
    assert_eq!(settle(&outbox, "a", &claimed, partly, START).await, Ok(OutboxState::Queued));
    let shown = outbox.mail("m1").await.unwrap().unwrap().mail;
    let states: Vec<_> = shown.recipients.iter().map(|it| (it.state(), it.status.as_str())).collect();
    assert_eq!(
        states,
        [(RecipientState::Accepted, ""), (RecipientState::Refused, "5.1.1"), (RecipientState::Pending, "4.2.2")]
    );
    let again = claim(&outbox, "a", &["q1"], 1, START + MINUTE).await.remove(0);
    assert_eq!(
        (again.recipients, again.message_id.as_str()),
        (vec!["Later@f.example".to_owned()], "m1@contoso.example")
    );
}

pub(crate) async fn people_decide_about_mails(outbox: impl Outbox) {
    store(&outbox, &[("m1", "q1"), ("m2", "q1")], START).await;
    let decide = async |id, instance, decision, now| outbox.decide(id, instance, decision, now).await.unwrap();
    assert_eq!(decide("m9", None, Decision::Cancel, START).await, Decided::Unknown);
    assert_eq!(decide("m1", Some("i2"), Decision::Cancel, START).await, Decided::Unknown, "another's");
    let Decided::Done(mail) = decide("m1", Some("i1"), Decision::Cancel, START).await else { panic!("not done") };
    assert_eq!((mail.mail.state(), mail.mail.recipients.len()), (OutboxState::Failed, 1));
    assert_eq!(mail.mail.problem.unwrap().code, "CANCELLED");
    assert_eq!(ids(&claim(&outbox, "a", &["q1"], 9, START).await), ["m2"]);
    let refused = decide("m2", None, Decision::Cancel, START).await;
    assert!(matches!(refused, Decided::Refused(OutboxState::Sending, _)), "{refused:?}");

    // Once it may have arrived, only somebody's word sends it again; and its former worker may still say that it was sent.
    let retry = |may_arrive_twice| Decision::Retry { may_arrive_twice };
    assert!(matches!(decide("m1", None, retry(false), START).await, Decided::Done(_)));
    let claimed = claim(&outbox, "a", &["q1"], 9, START).await.remove(0);
    mark(&outbox, "a", &claimed, START).await.unwrap();
    let now = START + 700 * SECOND;
    outbox.lapse_claims(&terms(), now).await.unwrap();
    assert!(matches!(decide("m1", None, retry(false), now).await, Decided::Refused(OutboxState::Unknown, _)));
    assert!(matches!(decide("m1", None, Decision::Cancel, now).await, Decided::Done(_)));
    assert!(matches!(decide("m1", None, retry(false), now).await, Decided::Refused(OutboxState::Failed, _)));
    let Decided::Done(mail) = decide("m1", None, retry(true), now).await else { panic!("not done") };
    assert_eq!(mail.mail.state(), OutboxState::Queued);
    assert_eq!(settle(&outbox, "a", &claimed, said(SendVerdict::Sent), now).await, Ok(OutboxState::Sent));

    // But not of a mail that waits for others than he had, or that another hands over.
    store(&outbox, &[("m3", "q3")], now).await;
    let claimed = claim(&outbox, "a", &["q3"], 1, now).await.remove(0);
    mark(&outbox, "a", &claimed, now).await.unwrap();
    let later = now + 700 * SECOND;
    outbox.lapse_claims(&terms(), later).await.unwrap();
    assert!(matches!(decide("m3", None, retry(true), later).await, Decided::Done(_)));
    let other = claim(&outbox, "b", &["q3"], 1, later).await;
    assert_eq!(ids(&other), ["m3"]);
    assert_eq!(settle(&outbox, "a", &claimed, said(SendVerdict::Sent), later).await, Err(NotSettled::ClaimLost));
}

pub(crate) async fn too_many_mails_to_one_are_refused(outbox: impl Outbox) {
    let terms = Terms { breaker: 3, breaker_automatic: 1, ..terms() };
    let add = async |id: &str, automatic, to: &[&str], now| {
        outbox.add(NewMail { automatic, ..new_mail(id, "q1", to) }, &terms, now).await.unwrap()
    };
    let ada = "Ada@Fabrikam.example";
    assert!(add("m1", true, &[ada], START).await.is_ok());
    let writing = NewMail { automatic: true, ..new_mail("m2", "q1", &[ada]) }.writing();
    let told = outbox.too_often(&writing, &terms, START).await.unwrap();
    assert_eq!(told, Some(NotAdded::Loop { address: ada.to_lowercase(), count: 1 }));
    let automatic = add("m2", true, &["bob@f.example", ada], START).await;
    assert_eq!(automatic, Err(NotAdded::Loop { address: ada.to_lowercase(), count: 1 }));
    assert!(outbox.mail("m2").await.unwrap().is_none());
    assert!(add("m3", false, &["bob@f.example", "ada@fabrikam.EXAMPLE"], START + 1).await.is_ok());
    assert!(add("m4", false, &[ada], START + 2).await.is_ok());
    assert!(matches!(add("m5", false, &[ada], START + 3).await, Err(NotAdded::Loop { count: 3, .. })));
    assert!(add("m4", false, &[ada], START + 3).await.is_ok(), "what was stored stays so");
    let other = new_mail("m6", "q2", &[ada]);
    assert!(outbox.add(other, &terms, START + 3).await.unwrap().is_ok(), "from another address");
    assert!(add("m7", false, &[ada], START + HOUR).await.is_ok(), "the first is an hour ago");
    assert!(add("m8", false, &[ada], START + HOUR).await.is_err());
}

pub(crate) async fn mails_are_listed_newest_first_and_narrowed(outbox: impl Outbox) {
    for n in 0..6 {
        let queue = if n % 2 == 0 { "q1" } else { "q2" };
        let mut mail = new_mail(&format!("m{n}"), queue, &["all@f.example", &format!("r{n}@f.example")]);
        mail.contact = if n < 2 { "c1".into() } else { String::new() };
        if n == 5 {
            mail.lane.instance_uid = "i2".into();
        }
        outbox.add(mail, &terms(), START + n).await.unwrap().unwrap();
    }
    send(&outbox, "q1", START + 10).await;
    outbox.decide("m3", None, Decision::Cancel, START + 11).await.unwrap();
    let none = MailFilter::default;
    let text = |text: &str| Some(text.to_owned());
    use OutboxState::{Failed, Queued, Sent};
    let cases: [(&str, MailFilter, &[&str]); 10] = [
        ("all", none(), &["m5", "m4", "m3", "m2", "m1", "m0"]),
        ("instance", MailFilter { instance_uid: text("i1"), ..none() }, &["m4", "m3", "m2", "m1", "m0"]),
        ("states", MailFilter { states: vec![Sent, Failed], ..none() }, &["m3", "m0"]),
        (
            "state of instance",
            MailFilter { states: vec![Queued], instance_uid: text("i1"), ..none() },
            &["m4", "m2", "m1"],
        ),
        ("contact", MailFilter { contact: text("c1"), ..none() }, &["m1", "m0"]),
        ("contact and address", MailFilter { contact: text("c1"), address: text("r0@f.example"), ..none() }, &["m0"]),
        ("to", MailFilter { address: text("r3@f.example"), ..none() }, &["m3"]),
        (
            "to all",
            MailFilter { address: text("all@f.example"), states: vec![Queued], ..none() },
            &["m5", "m4", "m2", "m1"],
        ),
        ("from", MailFilter { address: text("q2@contoso.example"), ..none() }, &["m5", "m3", "m1"]),
        ("nobody", MailFilter { address: text("x@f.example"), ..none() }, &[]),
    ];
    for (what, filter, expected) in cases {
        for size in [1, 2, 100] {
            let (mut before, mut seen) = (None, Vec::new());
            loop {
                let page = outbox.mails(&filter, before, size).await.unwrap();
                let Some(last) = page.last() else { break };
                before = Some(last.row);
                seen.extend(page.into_iter().map(|mail| mail.mail.id));
            }
            assert_eq!(seen, expected, "{what}, {size} a page");
        }
    }
    let tally = outbox.mail_tally().await.unwrap();
    let one = |state, count| ("i1".to_owned(), state, count);
    assert_eq!(tally, [one(Queued, 3), one(Sent, 1), one(Failed, 1), ("i2".to_owned(), Queued, 1)]);
    let trouble = outbox.mail_trouble(START + 11).await.unwrap();
    assert_eq!((trouble.failed, trouble.unknown), (1, 0));
    assert_eq!(outbox.mail_trouble(START + 12).await.unwrap().failed, 0);
}

pub(crate) async fn every_change_of_a_mail_is_told(outbox: impl Outbox) {
    assert_eq!(outbox.newest_mail_change().await.unwrap(), 0);
    store(&outbox, &[("m1", "q1"), ("m2", "q1")], START).await;
    let mut elsewhere = new_mail("m3", "q1", &["x@f.example"]);
    elsewhere.lane.instance_uid = "i2".into();
    outbox.add(elsewhere, &terms(), START).await.unwrap().unwrap();
    let told = async |instance, after, window| {
        let read = outbox.mail_changes(instance, after, window).await.unwrap()?;
        let changes = read.changes.into_iter().map(|(revision, it)| (revision, it.mail.id.clone(), it.mail.state()));
        Some((changes.collect::<Vec<_>>(), read.upto, read.newest))
    };
    let queued = |revision, id: &str| (revision, id.to_owned(), OutboxState::Queued);
    assert_eq!(told(None, 0, 9).await, Some((vec![queued(1, "m1"), queued(2, "m2"), queued(3, "m3")], 3, 3)));
    send(&outbox, "q1", START).await;
    let sent = (5, "m1".to_owned(), OutboxState::Sent);
    assert_eq!(told(Some("i1"), 2, 9).await, Some((vec![sent], 5, 5)), "claimed and sent, told as one");
    assert_eq!(told(Some("i2"), 0, 9).await, Some((vec![queued(3, "m3")], 5, 5)));
    assert_eq!(told(None, 6, 9).await, None, "never reached");
    outbox.trim_mail_changes(2).await.unwrap();
    assert_eq!(told(None, 2, 9).await, None, "cut off");
    assert_eq!(told(None, 3, 1).await.map(|(changes, upto, newest)| (changes.len(), upto, newest)), Some((1, 4, 5)));
    outbox.trim_mail_changes(0).await.unwrap();
    outbox.decide("m2", None, Decision::Cancel, START).await.unwrap();
    assert_eq!(outbox.newest_mail_change().await.unwrap(), 6, "no revision is used twice");
}

pub(crate) async fn what_waits_costs_the_same_however_much_it_is(outbox: impl Outbox) {
    let terms = Terms { breaker: u32::MAX, ..terms() };
    for n in 0..300 {
        let mail = new_mail(&format!("m{n:03}"), if n % 3 == 0 { "q1" } else { "q2" }, &["x@f.example"]);
        outbox.add(mail, &terms, START + n).await.unwrap().unwrap();
    }
    let waiting = outbox.waiting_mail().await.unwrap();
    assert_eq!(waiting.queued, [(way("q1").lane, START), (way("q2").lane, START + 1)]);
    assert!(waiting.unknown.is_empty());
    let long = Terms { claim_time: Duration::from_secs(1), ..terms };
    let claimed = outbox.claim(claiming("a", &["q1", "q2"], 64), &long, START + 300).await.unwrap();
    assert_eq!(ids(&claimed), ["m000", "m001", "m003"]);
}

pub(crate) async fn what_comes_back_is_tied_to_its_mail_and_becomes_no_contact(both: impl Ledger + Outbox) {
    let mut mail = new_mail("m1", "q1", &["ada@f.example", "bob@f.example"]);
    mail.lane.instance_uid = "i1".into();
    both.add(mail, &terms(), START).await.unwrap().unwrap();
    send(&both, "q1", START).await;
    let uid = mailbox("a@x.example");
    both.open(&uid, &fence(1, "s1")).await.unwrap().unwrap();
    let bounced = |key: &str, message_id: &str, failed: bool| {
        let back = Recipient {
            key: "bob@f.example".into(),
            state: RecipientState::Bounced,
            status: "5.1.1".into(),
            diagnostic: "no such user".into(),
        };
        let recipients = if failed { vec![back] } else { Vec::new() };
        let bounce = Some(Bounce { message_id: message_id.into(), recipients, failed });
        Message { kind: ContactKind::Bounce, bounce, ..message(key, 5) }
    };
    let first = vec![bounced("1:1", "m1@contoso.example", false), bounced("1:2", "other@contoso.example", true)];
    let answer = both.report(batch("a@x.example", fence(1, "s1"), 0, 1, first), START).await.unwrap().unwrap();
    let outcomes: Vec<_> = answer.outcomes.iter().map(|it| (it.disposition(), it.contact.is_empty())).collect();
    assert_eq!(outcomes, [(Disposition::Filtered, true), (Disposition::Contact, false)], "ours, and nobody's");
    assert_eq!(state(&both, "m1").await, OutboxState::Sent, "it is still on its way");

    let second = batch("a@x.example", fence(1, "s1"), 1, 2, vec![bounced("1:3", "m1@contoso.example", true)]);
    both.report(second.clone(), START + 1).await.unwrap().unwrap();
    let shown = both.mail("m1").await.unwrap().unwrap().mail;
    assert_eq!(shown.state(), OutboxState::Bounced);
    let states: Vec<_> = shown.recipients.iter().map(|it| (it.state(), it.status.as_str())).collect();
    assert_eq!(states, [(RecipientState::Accepted, ""), (RecipientState::Bounced, "5.1.1")]);
    assert!(shown.problem.unwrap().cause.contains("no such user"));
    let kept = both.message(3).await.unwrap().unwrap();
    assert_eq!((kept.reason.as_str(), kept.raw_kept, kept.settled), ("bounce of outbox mail m1", true, false));
    assert_eq!(total(&both).await, 1);

    // Told once more, under another key or as a repeated report: nothing new comes of it.
    let newest = both.newest_mail_change().await.unwrap();
    both.report(second, START + 2).await.unwrap().unwrap();
    let again = batch("a@x.example", fence(1, "s1"), 2, 3, vec![bounced("1:4", "m1@contoso.example", true)]);
    both.report(again, START + 2).await.unwrap().unwrap();
    assert_eq!(both.newest_mail_change().await.unwrap(), newest);
    // A mail of another instance is none of ours.
    let mut foreign = batch("a@x.example", fence(1, "s1"), 3, 4, vec![bounced("1:5", "m1@contoso.example", true)]);
    foreign.intake.instance_uid = "i2".into();
    let answer = both.report(foreign, START + 2).await.unwrap().unwrap();
    assert_eq!(answer.outcomes[0].disposition(), Disposition::Contact);
}

//! What every outbox must do. `Ledger` comes along because the two are one back end.

use std::time::Duration;

use postroom_proto::v1::{OutboxState, RecipientKind, RecipientState, SendTask, SendVerdict};

use super::*;
use crate::ledger::outbox::{
    Bounce, Claim, ClaimLost, Claimed, Claiming, Decided, Lane, MailFilter, NewMail, NotAdded, NotSettled, Outbox, Way,
};
use crate::outbox::Terms;
use crate::outbox::state::{Decision, Recipient, Settlement};

mod claims;
mod ends;
mod limits;
pub(crate) use claims::*;
pub(crate) use ends::*;
pub(crate) use limits::*;

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

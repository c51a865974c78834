//! Old messages that wait for an operator.

use postroom_proto::v1::BacklogState;

use super::{batch, cursor, fence, mailbox, message, total};
use crate::ledger::backlog::{Backlog, Decision, Progress, Release};
use crate::ledger::{Batch, Ledger, Micros, NotCommitted};

const EMAIL: &str = "a@x.example";

fn progress(taken_count: u64, left_count: u64, finished: bool) -> Option<Progress> {
    Some(Progress { message_count: 5, taken_count, left_count, finished })
}

/// The next report, which takes one of what waits unless it says otherwise.
fn takes(from: u8, backlog: Option<Progress>) -> Batch {
    Batch { backlog, ..batch(EMAIL, fence(1, "s1"), from, from + 1, vec![message(&format!("1:{from}"), 5)]) }
}

fn approved(since: Option<Micros>, rate_per_minute: u32, made_at: Micros) -> Decision {
    Decision { release: Some(Release { since, rate_per_minute }), made_at, made_by: "operator".into() }
}

fn stopped(made_at: Micros) -> Decision {
    Decision { release: None, made_at, made_by: "admin".into() }
}

async fn backlog(ledger: &impl Ledger) -> Backlog {
    ledger.backlog(&mailbox(EMAIL)).await.unwrap().unwrap()
}

async fn release(ledger: &impl Ledger) -> Option<Option<Release>> {
    ledger.open(&mailbox(EMAIL), &fence(1, "s1")).await.unwrap().unwrap().release
}

/// A mailbox whose five messages wait.
async fn hold(ledger: &impl Ledger) {
    assert_eq!(release(ledger).await, None, "it was never read");
    let anchor = Batch { backlog: progress(0, 0, false), messages: vec![], ..takes(0, None) };
    ledger.report(anchor, 100).await.unwrap().unwrap();
}

pub(crate) async fn old_messages_are_taken_only_while_they_are_released(ledger: impl Ledger) {
    hold(&ledger).await;
    let mismatch = |committed| Err(NotCommitted::CursorMismatch { committed: cursor(committed) });
    assert_eq!(ledger.report(takes(1, progress(1, 0, false)), 110).await.unwrap(), mismatch(1));
    assert!(ledger.report(takes(1, None), 120).await.unwrap().is_ok(), "new mail is taken");
    assert_eq!(release(&ledger).await, Some(None));

    assert!(ledger.decide_backlog(&mailbox(EMAIL), approved(Some(7), 30, 130)).await.unwrap());
    assert_eq!(release(&ledger).await, Some(Some(Release { since: Some(7), rate_per_minute: 30 })));
    let first = takes(2, progress(1, 2, false));
    let answer = ledger.report(first.clone(), 140).await.unwrap().unwrap();
    assert!(ledger.decide_backlog(&mailbox(EMAIL), stopped(150)).await.unwrap());
    assert_eq!(ledger.report(first, 160).await.unwrap(), Ok(answer), "it was taken before");
    assert_eq!(ledger.report(takes(3, progress(2, 2, false)), 170).await.unwrap(), mismatch(3));
    assert_eq!(release(&ledger).await, Some(None));
    assert_eq!(total(&ledger).await, 2);

    ledger.decide_backlog(&mailbox(EMAIL), approved(None, 0, 180)).await.unwrap();
    ledger.report(takes(3, progress(3, 2, true)), 190).await.unwrap().unwrap();
    assert!(ledger.report(takes(4, None), 200).await.unwrap().is_ok());
    assert_eq!(total(&ledger).await, 4);
}

pub(crate) async fn a_backlog_says_how_far_it_is_and_who_decided(ledger: impl Ledger) {
    let uid = mailbox(EMAIL);
    assert_eq!(ledger.backlog(&uid).await.unwrap(), None);
    assert!(!ledger.decide_backlog(&uid, approved(None, 0, 90)).await.unwrap(), "nothing waits");
    hold(&ledger).await;
    let found = backlog(&ledger).await;
    assert_eq!((found.state, found.held_at, found.waiting_count()), (BacklogState::Waiting, 100, 5));
    assert!(ledger.decide_backlog(&uid, stopped(105)).await.unwrap());
    assert_eq!(backlog(&ledger).await, found, "it waits already");

    ledger.decide_backlog(&uid, approved(Some(7), 30, 110)).await.unwrap();
    ledger.report(takes(1, progress(1, 2, false)), 120).await.unwrap().unwrap();
    let found = backlog(&ledger).await;
    assert_eq!((found.state, found.progress_at, found.waiting_count()), (BacklogState::Releasing, Some(120), 2));
    assert_eq!(found.release, Some(Release { since: Some(7), rate_per_minute: 30 }));
    ledger.decide_backlog(&uid, stopped(130)).await.unwrap();
    let found = backlog(&ledger).await;
    assert_eq!((found.state, found.release), (BacklogState::Stopped, None));
    assert_eq!(found.decisions, [stopped(130), approved(Some(7), 30, 110)]);
    let listed = ledger.mailboxes(std::slice::from_ref(&uid)).await.unwrap().remove(0).backlog.unwrap();
    assert_eq!(listed, Backlog { decisions: vec![], ..found });

    ledger.decide_backlog(&uid, approved(None, 0, 140)).await.unwrap();
    ledger.report(takes(2, progress(3, 2, true)), 150).await.unwrap().unwrap();
    let found = backlog(&ledger).await;
    assert_eq!((found.state, found.finished_at, found.waiting_count()), (BacklogState::Finished, Some(150), 0));
    assert!(!ledger.decide_backlog(&uid, stopped(160)).await.unwrap(), "nothing waits any more");
    assert_eq!(backlog(&ledger).await, found);
}

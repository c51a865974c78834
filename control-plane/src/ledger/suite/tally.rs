//! What every ledger counts as a whole.

use super::*;

pub(crate) async fn the_counts_agree_with_the_contacts(ledger: impl Ledger) {
    let empty = ledger.tally().await.unwrap();
    assert_eq!((empty.instances.len(), empty.aside.len()), (0, 0));
    fill(&ledger, "a@x.example", &[(5, 40), (1, 50), (5, 30), (9, 20), (9, 60)], 100).await;
    let mut aside = message("9:1", 7);
    aside.disposition = Disposition::TooLarge;
    aside.content = None;
    ledger.report(batch("a@x.example", fence(1, "s1"), 5, 6, vec![aside]), 100).await.unwrap().unwrap();

    let tally = ledger.tally().await.unwrap();
    assert_eq!(tally.aside, [(Disposition::TooLarge, 1)]);
    let [instance] = tally.instances.as_slice() else { panic!("{tally:?}") };
    assert_eq!((instance.instance_uid.as_str(), instance.instance.as_str()), ("i1", "core1"));
    assert_eq!(instance.contacts, [(ContactState::Queued, 5)]);
    assert_eq!(instance.oldest.as_ref().map(|(_, since)| *since), Some(20), "whatever its priority");

    let waiting = ledger.waiting_in(&["q1".into(), "nobody's".into()]).await.unwrap();
    assert_eq!(waiting.iter().map(|it| (it.count, it.oldest)).collect::<Vec<_>>(), [(5, Some(20)), (0, None)]);

    let taken = ledger.allocate(take(3, "r1"), 200).await.unwrap().contacts;
    let answered = |n: usize| vec![(taken[n].id.clone(), String::new())];
    ledger.answer("i1", Answer::Accept, answered(0), 210).await.unwrap();
    ledger.answer("i1", Answer::Reject, answered(1), 210).await.unwrap();
    let instance = ledger.tally().await.unwrap().instances.remove(0);
    let expected = [(ContactState::Queued, 3), (ContactState::Allocated, 1), (ContactState::Accepted, 1)];
    assert_eq!(instance.contacts, expected);
    ledger.lapse(200 + 121 * SECOND).await.unwrap();
    let instance = ledger.tally().await.unwrap().instances.remove(0);
    assert_eq!(instance.contacts, [(ContactState::Queued, 4), (ContactState::Accepted, 1)]);
}

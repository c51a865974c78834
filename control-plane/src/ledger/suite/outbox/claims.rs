//! Claims: whom they are given, what stands before the data is handed over, and what becomes of lost ones.

use super::*;

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

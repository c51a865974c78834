//! Limits of a sending mailbox, and whose turn it is.

use super::*;

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

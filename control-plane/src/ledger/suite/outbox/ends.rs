//! What becomes of mails: for some recipients, by people, and by what comes back.

use super::*;

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

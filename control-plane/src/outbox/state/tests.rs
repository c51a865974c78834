//! What the pure core promises, over single cases and over whatever happens.

use proptest::prelude::*;

use super::*;

const SECOND: Micros = 1_000_000;
const NOW: Micros = 1_772_366_400 * SECOND;
const DAY: Micros = 24 * 3600 * SECOND;

fn recipient(key: &str, state: RecipientState) -> Recipient {
    Recipient { key: key.into(), state, status: String::new(), diagnostic: String::new() }
}

fn queued(recipients: usize) -> Standing {
    Standing {
        state: OutboxState::Queued,
        claimed: false,
        looking: false,
        marked_at: None,
        since: NOW,
        due_at: Some(NOW),
        deferrals: 0,
        sent_at: None,
        problem: None,
        response: String::new(),
        recipients: (0..recipients).map(|n| recipient(&format!("r{n}@x"), RecipientState::Pending)).collect(),
        seed: 7,
    }
}

/// Claimed and marked.
fn marked(recipients: usize) -> Standing {
    Standing { state: OutboxState::Sending, claimed: true, marked_at: Some(NOW), due_at: None, ..queued(recipients) }
}

fn unmarked(recipients: usize) -> Standing {
    Standing { marked_at: None, ..marked(recipients) }
}

fn said(verdict: SendVerdict) -> Settlement {
    Settlement { verdict, ..Settlement::default() }
}

fn of_kind(kind: ProblemKind) -> Option<Problem> {
    Some(Problem { kind: kind.into(), code: "CODE".into(), cause: "cause".into(), ..Problem::default() })
}

fn settled(standing: Standing, said: Settlement) -> (Standing, Toll) {
    standing.settle(said, 0, &Terms::default(), NOW + SECOND).unwrap()
}

#[test]
fn a_mail_that_was_taken_is_sent_and_counts() {
    let (sent, toll) = settled(marked(2), Settlement { response: "250 2.0.0 OK".into(), ..said(SendVerdict::Sent) });
    assert_eq!((sent.state, sent.pending(), sent.due_at), (OutboxState::Sent, 0, None));
    assert_eq!((sent.sent_at, sent.response.as_str()), (Some(NOW + SECOND), "250 2.0.0 OK"));
    assert_eq!(toll, Toll { handed_over: true, recipients: 2, mailbox: MailboxWord::Works });
}

#[test]
fn of_a_partial_refusal_the_refused_are_listed_and_the_deferred_tried_again() {
    let refused = Recipient {
        status: "5.1.1".into(),
        diagnostic: "no such user".into(),
        ..recipient("r1@x", RecipientState::Refused)
    };
    let one = Settlement { recipients: vec![refused.clone()], ..said(SendVerdict::Sent) };
    let (sent, _) = settled(marked(2), one);
    assert_eq!(sent.state, OutboxState::Sent);
    assert_eq!(sent.recipients[1], refused);
    assert!(sent.problem.unwrap().cause.contains("no such user"));

    let both = vec![refused.clone(), recipient("r2@x", RecipientState::Pending)];
    let (again, _) = settled(marked(3), Settlement { recipients: both, ..said(SendVerdict::Sent) });
    assert_eq!((again.state, again.pending()), (OutboxState::Queued, 1));
    assert!(again.due_at.unwrap() >= NOW + 30 * SECOND);
    assert_eq!(again.problem.as_ref().unwrap().code, "RECIPIENTS_DEFERRED");
    assert_eq!(again.recipients[0].state, RecipientState::Accepted);
    let again = Standing { state: OutboxState::Sending, claimed: true, marked_at: Some(NOW), ..again };
    let (done, toll) = settled(again, said(SendVerdict::Failed));
    assert_eq!((done.state, toll.recipients), (OutboxState::Sent, 0), "one of them has it");
    assert_eq!(done.recipients[2].state, RecipientState::Refused);

    let (failed, _) = settled(marked(1), Settlement { response: "550 no".into(), ..said(SendVerdict::Failed) });
    assert_eq!((failed.state, failed.recipients[0].diagnostic.as_str()), (OutboxState::Failed, "550 no"));
}

#[test]
fn a_lapse_before_the_mark_queues_and_one_behind_it_is_unknown() {
    let (queued, toll) = unmarked(1).lapse(&Terms::default(), NOW + 200 * SECOND);
    assert_eq!((queued.state, queued.due_at), (OutboxState::Queued, Some(NOW + 200 * SECOND)), "at once");
    assert_eq!(toll, Toll::default());
    let again = Standing { state: OutboxState::Sending, claimed: true, ..queued };
    let (again, _) = again.lapse(&Terms::default(), NOW + 400 * SECOND);
    assert!(again.due_at.unwrap() >= NOW + 460 * SECOND, "what kills its worker is not tried without end");

    let (unknown, toll) = marked(2).lapse(&Terms::default(), NOW + 200 * SECOND);
    assert_eq!((unknown.state, unknown.due_at), (OutboxState::Unknown, Some(NOW + 600 * SECOND)));
    assert_eq!((toll.handed_over, toll.recipients), (true, 2));
}

#[test]
fn what_is_unknown_is_looked_for_and_then_sent_or_queued() {
    let (unknown, _) = settled(marked(1), said(SendVerdict::Unknown));
    let looked_for = Standing { claimed: true, looking: true, ..unknown };
    let (found, toll) = settled(looked_for.clone(), said(SendVerdict::Found));
    assert_eq!((found.state, found.sent_at, toll), (OutboxState::Sent, Some(NOW), Toll::default()));
    let (missing, _) = settled(looked_for.clone(), said(SendVerdict::NotFound));
    assert_eq!((missing.state, missing.due_at), (OutboxState::Queued, Some(NOW + SECOND)));
    let (later, _) = settled(looked_for.clone(), said(SendVerdict::Deferred));
    assert_eq!(later.state, OutboxState::Unknown);
    assert!(later.due_at.unwrap() > NOW + 30 * SECOND && later.marked_at.is_some());
    let (later, _) = looked_for.lapse(&Terms::default(), NOW + SECOND);
    assert_eq!((later.state, later.claimed), (OutboxState::Unknown, false));
}

#[test]
fn what_somebody_has_to_mend_waits_and_the_rest_is_given_up() {
    let late = NOW + 5 * DAY;
    let defer = |kind| Settlement { problem: of_kind(kind), ..said(SendVerdict::Deferred) };
    let settle = |kind| marked(1).settle(defer(kind), 0, &Terms::default(), late).unwrap().0;
    let given_up = settle(ProblemKind::Transient);
    assert_eq!((given_up.state, given_up.recipients[0].state), (OutboxState::Failed, RecipientState::Refused));
    let problem = given_up.problem.unwrap();
    assert_eq!(problem.code, "EXPIRED");
    assert!(problem.cause.ends_with(": cause"), "{problem:?}");
    for kind in [ProblemKind::Configuration, ProblemKind::Credential, ProblemKind::Consent, ProblemKind::Policy] {
        let waits = settle(kind);
        assert_eq!((waits.state, waits.since), (OutboxState::Queued, late));
        assert_eq!(waits.problem.unwrap().next_attempt_time, waits.due_at.map(to_timestamp));
    }
}

#[test]
fn a_mailbox_that_does_not_work_is_left_alone() {
    let whole = |retry_after| Settlement { whole_mailbox: true, retry_after, ..said(SendVerdict::Deferred) };
    let until = |deferrals, retry_after| {
        let (mail, toll) = marked(1).settle(whole(retry_after), deferrals, &Terms::default(), NOW).unwrap();
        let MailboxWord::LeaveAlone(until) = toll.mailbox else { panic!("{toll:?}") };
        assert_eq!(mail.due_at, Some(until));
        until - NOW
    };
    assert!((30 * SECOND..=36 * SECOND).contains(&until(0, 0)));
    assert!((120 * SECOND..=144 * SECOND).contains(&until(2, SECOND)));
    assert_eq!(until(0, 7200 * SECOND), 7200 * SECOND);
}

#[test]
fn waits_double_up_to_an_hour_and_differ() {
    for (deferrals, seconds) in [(0, 30), (1, 60), (5, 960), (7, 3600), (31, 3600), (u32::MAX, 3600)] {
        for seed in 0..50 {
            let wait = wait(deferrals, seed);
            assert!((seconds * SECOND..=seconds * SECOND * 6 / 5).contains(&wait), "{deferrals}: {wait}");
        }
    }
    let waits: std::collections::HashSet<Micros> = (0..100).map(|seed| wait(3, seed)).collect();
    assert!(waits.len() > 80, "{} of 100 differ", waits.len());
}

#[test]
fn people_decide_what_their_state_allows() {
    let decide = |standing: &Standing, decision| standing.clone().decide(decision, NOW + SECOND);
    let retry = |may_arrive_twice| Decision::Retry { may_arrive_twice };
    let waits = Standing { due_at: Some(NOW + DAY), ..queued(1) };
    assert_eq!(decide(&waits, retry(false)).unwrap().unwrap().due_at, Some(NOW + SECOND));
    assert_eq!(decide(&queued(1), retry(false)), Ok(None), "it waits already");
    assert_eq!(decide(&marked(1), retry(false)), Ok(None), "it is on its way");
    let cancelled = decide(&waits, Decision::Cancel).unwrap().unwrap();
    assert_eq!((cancelled.state, cancelled.due_at), (OutboxState::Failed, None));
    assert_eq!(decide(&cancelled, Decision::Cancel), Ok(None));
    let again = decide(&cancelled, retry(false)).unwrap().unwrap();
    assert_eq!((again.state, again.due_at, again.problem), (OutboxState::Queued, Some(NOW + SECOND), None));
    assert!(decide(&marked(1), Decision::Cancel).is_err());

    let (unknown, _) = settled(marked(1), said(SendVerdict::Unknown));
    assert!(decide(&unknown, retry(false)).unwrap_err().0.contains("may have arrived"));
    assert_eq!(decide(&unknown, retry(true)).unwrap().unwrap().state, OutboxState::Queued);
    assert_eq!(decide(&unknown, Decision::Cancel).unwrap().unwrap().state, OutboxState::Failed);
    let confirmed = decide(&unknown, Decision::Confirm).unwrap().unwrap();
    assert_eq!((confirmed.state, confirmed.pending(), confirmed.sent_at), (OutboxState::Sent, 0, Some(NOW)));
    assert_eq!(decide(&confirmed, Decision::Confirm), Ok(None));
    assert!(decide(&confirmed, retry(true)).is_err(), "everybody has it");
    assert!(decide(&confirmed, Decision::Cancel).is_err());
    assert!(decide(&queued(1), Decision::Confirm).is_err());
}

#[test]
fn what_comes_back_has_bounced_for_whom_it_names() {
    let back = |key: &str| Recipient {
        status: "5.1.1".into(),
        diagnostic: "unknown".into(),
        ..recipient(key, RecipientState::Bounced)
    };
    let (sent, _) = settled(marked(2), said(SendVerdict::Sent));
    let bounced = sent.clone().bounce(&[back("r1@x")], NOW).unwrap();
    assert_eq!(bounced.state, OutboxState::Bounced);
    let states: Vec<_> = bounced.recipients.iter().map(|it| it.state).collect();
    assert_eq!(states, [RecipientState::Accepted, RecipientState::Bounced]);
    assert!(bounced.problem.as_ref().unwrap().cause.contains("unknown"));
    assert_eq!(bounced.clone().bounce(&[back("r1@x")], NOW), None, "known");
    let again = bounced.decide(Decision::Retry { may_arrive_twice: false }, NOW).unwrap().unwrap();
    assert_eq!((again.state, again.pending()), (OutboxState::Queued, 1), "only for whom it bounced");
    assert_eq!(sent.clone().bounce(&[back("alias@y")], NOW).unwrap().state, OutboxState::Bounced);
    assert!(sent.bounce(&[], NOW).unwrap().recipients.iter().all(|it| it.state == RecipientState::Bounced));
    let (one, _) = settled(marked(1), said(SendVerdict::Sent));
    assert_eq!(one.bounce(&[back("alias@y")], NOW).unwrap().recipients[0].status, "5.1.1");

    // It came back while its answer was not known, and while it was sent once more.
    let (unknown, _) = settled(marked(2), said(SendVerdict::Unknown));
    let bounced = unknown.bounce(&[back("r0@x")], NOW).unwrap();
    assert_eq!((bounced.state, bounced.pending()), (OutboxState::Bounced, 0));
    let under_way = marked(2).bounce(&[back("r0@x")], NOW).unwrap();
    assert_eq!(under_way.state, OutboxState::Sending);
    assert_eq!(settled(under_way, said(SendVerdict::Sent)).0.state, OutboxState::Bounced);
}

/// Whatever may happen to a mail.
#[derive(Debug, Clone)]
enum Event {
    Claim,
    Mark,
    Settle(Settlement),
    Lapse,
    Decide(Decision),
    Bounce(Vec<Recipient>),
}

fn recipients() -> impl Strategy<Value = Vec<Recipient>> {
    let state =
        prop_oneof![Just(RecipientState::Accepted), Just(RecipientState::Refused), Just(RecipientState::Pending)];
    prop::collection::vec((0..4usize, state).prop_map(|(n, state)| recipient(&format!("r{n}@x"), state)), 0..3)
}

fn event() -> impl Strategy<Value = Event> {
    let verdict = (1..=6i32).prop_map(|number| SendVerdict::try_from(number).unwrap());
    let kind = (0..=9i32).prop_map(|number| of_kind(ProblemKind::try_from(number).unwrap()));
    let settlement = (verdict, recipients(), kind, any::<bool>(), 0..9i64).prop_map(
        |(verdict, recipients, problem, whole_mailbox, minutes)| Settlement {
            verdict,
            recipients,
            problem,
            response: String::new(),
            retry_after: minutes * 60 * SECOND,
            whole_mailbox,
        },
    );
    let decision = prop_oneof![
        any::<bool>().prop_map(|may_arrive_twice| Decision::Retry { may_arrive_twice }),
        Just(Decision::Cancel),
        Just(Decision::Confirm),
    ];
    prop_oneof![
        4 => Just(Event::Claim),
        3 => Just(Event::Mark),
        4 => settlement.prop_map(Event::Settle),
        2 => Just(Event::Lapse),
        2 => decision.prop_map(Event::Decide),
        1 => recipients().prop_map(Event::Bounce),
    ]
}

proptest! {
    /// Whatever happens, in whatever order: nothing is handed over again after it may have arrived, unless it was looked
    /// for or somebody has said so; who has it never gets it again; and the state always says what is to be done.
    #[test]
    fn what_may_have_arrived_is_not_sent_again_blindly(
        count in 1..4usize,
        events in prop::collection::vec((event(), 0..3 * DAY), 0..40),
    ) {
        let (mut mail, mut now) = (queued(count), NOW);
        // For each recipient: a server may have it, and nothing has been heard since.
        let mut may_have = vec![false; count];
        for (event, later) in events {
            now += later;
            let before = mail.clone();
            match event {
                Event::Claim if mail.claimed || mail.due_at.is_none_or(|due| due > now) => continue,
                Event::Claim if mail.state == OutboxState::Queued => {
                    for (recipient, may_have) in mail.recipients.iter().zip(&may_have) {
                        prop_assert!(!(recipient.state == RecipientState::Pending && *may_have), "{before:?}");
                    }
                    mail = Standing { state: OutboxState::Sending, claimed: true, looking: false, marked_at: None, due_at: None, ..mail };
                }
                Event::Claim if mail.state == OutboxState::Unknown => mail = Standing { claimed: true, looking: true, ..mail },
                Event::Claim => prop_assert!(false, "nothing else is due: {mail:?}"),
                Event::Mark if mail.claimed && mail.state == OutboxState::Sending => {
                    mail.marked_at = Some(now);
                    for (recipient, may_have) in mail.recipients.iter().zip(&mut may_have) {
                        *may_have |= recipient.state == RecipientState::Pending;
                    }
                }
                Event::Mark => continue,
                Event::Settle(said) => {
                    if !mail.claimed {
                        continue;
                    }
                    let clear = matches!(said.verdict, SendVerdict::Deferred | SendVerdict::Failed | SendVerdict::Sent);
                    let looked_for = mail.task() == v1::SendTask::LookFor;
                    let missing = said.verdict == SendVerdict::NotFound;
                    let configuration = said.verdict == SendVerdict::Deferred
                        && said.problem.as_ref().is_some_and(|problem| is_mended_by_somebody(problem.kind()));
                    let refused_all = mail.recipients.iter().filter(|it| it.state == RecipientState::Pending)
                        .all(|it| said.recipients.iter().any(|s| s.key == it.key && s.state != RecipientState::Pending));
                    let Ok((after, toll)) = mail.clone().settle(said, 0, &Terms::default(), now) else { continue };
                    prop_assert!(!looked_for || toll == Toll::default());
                    if configuration && !looked_for && !refused_all {
                        prop_assert_eq!(after.state, OutboxState::Queued, "a definition ends no mail");
                    }
                    if (clear && !looked_for) || missing {
                        may_have = vec![false; count];
                    }
                    mail = after;
                    prop_assert!(!mail.claimed);
                }
                Event::Lapse if mail.claimed => mail = mail.lapse(&Terms::default(), now).0,
                Event::Lapse => continue,
                Event::Decide(decision) => {
                    let Ok(Some(after)) = mail.clone().decide(decision, now) else { continue };
                    // Somebody's word: he took the risk, or gave it up and takes it back.
                    may_have = vec![false; count];
                    mail = after;
                }
                Event::Bounce(recipients) => {
                    if let Some(after) = mail.clone().bounce(&recipients, now) {
                        mail = after;
                    }
                }
            }
            for (was, is) in before.recipients.iter().zip(&mail.recipients) {
                let kept = is.state == RecipientState::Accepted || is.state == RecipientState::Bounced;
                prop_assert!(was.state != RecipientState::Accepted || kept, "{before:?} {mail:?}");
            }
            match mail.state {
                OutboxState::Queued => prop_assert!(mail.due_at.is_some() && !mail.claimed && mail.pending() > 0 && mail.marked_at.is_none()),
                OutboxState::Sending => prop_assert!(mail.claimed),
                OutboxState::Unknown => prop_assert!(mail.due_at.is_some() && mail.problem.is_some() && mail.marked_at.is_some()),
                OutboxState::Sent => prop_assert!(mail.due_at.is_none() && mail.pending() == 0 && mail.sent_at.is_some()),
                OutboxState::Failed | OutboxState::Bounced => prop_assert!(mail.due_at.is_none() && mail.problem.is_some()),
                OutboxState::Unspecified => prop_assert!(false, "{mail:?}"),
            }
        }
    }
}

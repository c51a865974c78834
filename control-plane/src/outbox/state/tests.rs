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
        looked_for: true,
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

    let both = vec![refused, recipient("r2@x", RecipientState::Pending)];
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
    assert_eq!((unknown.state, unknown.due_at), (OutboxState::Unknown, Some(NOW + 800 * SECOND)), "from its end on");
    assert_eq!((toll.handed_over, toll.recipients), (true, 2));
}

#[test]
fn what_is_unknown_is_looked_for_and_then_sent_or_queued() {
    let (unknown, _) = settled(marked(1), said(SendVerdict::Unknown));
    let looked_for = Standing { claimed: true, looking: true, ..unknown };
    let (found, toll) = settled(looked_for.clone(), said(SendVerdict::Found));
    assert_eq!((found.state, found.sent_at, toll), (OutboxState::Sent, Some(NOW), Toll::default()));
    let (missing, _) = settled(looked_for.clone(), said(SendVerdict::NotFound));
    assert_eq!((missing.state, missing.due_at, missing.deferrals), (OutboxState::Queued, Some(NOW + SECOND), 1));
    assert_eq!(missing.problem.unwrap().code, "OUTCOME_LOST");
    let late = Standing { since: NOW - 5 * DAY, ..looked_for.clone() };
    let (given_up, _) = settled(late, said(SendVerdict::NotFound));
    assert_eq!((given_up.state, given_up.problem.unwrap().code.as_str()), (OutboxState::Failed, "EXPIRED"));
    let (later, _) = settled(looked_for.clone(), said(SendVerdict::Deferred));
    assert_eq!(later.state, OutboxState::Unknown);
    assert!(later.due_at.unwrap() > NOW + 30 * SECOND && later.marked_at.is_some());
    let (later, _) = looked_for.lapse(&Terms::default(), NOW + SECOND);
    assert_eq!((later.state, later.claimed), (OutboxState::Unknown, false));
}

#[test]
fn what_may_have_a_copy_of_a_former_attempt_is_not_looked_for() {
    let lost = |mail: Standing| {
        let mail = Standing { state: OutboxState::Sending, claimed: true, marked_at: Some(NOW), due_at: None, ..mail };
        let (unknown, _) = settled(mail.clone(), said(SendVerdict::Unknown));
        let (lapsed, _) = mail.lapse(&Terms::default(), NOW + SECOND);
        assert_eq!((lapsed.state, lapsed.due_at.is_some()), (unknown.state, unknown.due_at.is_some()));
        assert_eq!(unknown.state, OutboxState::Unknown);
        unknown
    };
    assert!(lost(queued(2)).due_at.is_some());
    assert_eq!(lost(Standing { looked_for: false, ..queued(2) }).due_at, None, "nobody keeps a copy");
    let later = vec![recipient("r1@x", RecipientState::Pending)];
    let (partly, _) = settled(marked(2), Settlement { recipients: later, ..said(SendVerdict::Sent) });
    let unknown = lost(partly);
    assert_eq!(unknown.due_at, None, "the copy is the one that r0 got");
    // What comes back is of the former attempt and says nothing of r1.
    let bounced = unknown.clone().bounce(&[recipient("r0@x", RecipientState::Bounced)], NOW).unwrap();
    assert_eq!((bounced.state, bounced.pending(), bounced.due_at), (OutboxState::Unknown, 1, None));
    assert_eq!(unknown.bounce(&[recipient("r1@x", RecipientState::Bounced)], NOW).unwrap().state, OutboxState::Bounced);

    let (sent, _) = settled(marked(1), said(SendVerdict::Sent));
    let bounced = sent.bounce(&[], NOW).unwrap();
    let again = bounced.decide(Decision::Retry { may_arrive_twice: false }, NOW).unwrap().unwrap();
    assert_eq!(lost(again).due_at, None, "the copy is the one that came back");

    let twice = Decision::Retry { may_arrive_twice: true };
    let again = lost(queued(1)).decide(twice, NOW).unwrap().unwrap();
    assert_eq!(lost(again).due_at, None, "the copy may be the one of the attempt before");
}

#[test]
fn whoever_handed_it_over_is_believed_however_late() {
    let late = |mail: Standing, verdict| mail.settle_late(said(verdict), &Terms::default(), NOW + SECOND);
    let (unknown, _) = marked(2).lapse(&Terms::default(), NOW);
    let looked_for = Standing { claimed: true, looking: true, ..unknown.clone() };
    let (missing, _) = settled(looked_for.clone(), said(SendVerdict::NotFound));
    for mail in [unknown.clone(), looked_for, missing] {
        let (sent, toll) = late(mail, SendVerdict::Sent).unwrap();
        assert_eq!((sent.state, sent.claimed, sent.pending()), (OutboxState::Sent, false, 0));
        assert_eq!((toll.handed_over, toll.recipients), (true, 0), "its recipients are counted already");
    }
    assert_eq!(late(unknown, SendVerdict::Deferred), None);
    assert_eq!(late(unmarked(1), SendVerdict::Sent), None, "another hands it over");
    assert_eq!(late(settled(marked(1), said(SendVerdict::Failed)).0, SendVerdict::Sent), None);
}

#[test]
fn no_answer_about_a_definition_or_a_credential_ends_a_mail() {
    use ProblemKind::{Configuration, Consent, Credential, Interaction, Policy, Transient};
    let refused = |kind| settled(marked(1), Settlement { problem: of_kind(kind), ..said(SendVerdict::Failed) }).0;
    for kind in [Configuration, Consent, Credential, Interaction] {
        assert_eq!((refused(kind).state, refused(kind).pending()), (OutboxState::Queued, 1));
    }
    for kind in [Policy, Transient] {
        assert_eq!(refused(kind).state, OutboxState::Failed);
    }
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
    let given_up = decide(&unknown, Decision::Cancel).unwrap().unwrap();
    assert_eq!(given_up.state, OutboxState::Failed);
    assert!(decide(&given_up, retry(false)).unwrap_err().0.contains("may have arrived"), "giving up told nothing");
    let again = decide(&given_up, retry(true)).unwrap().unwrap();
    assert_eq!((again.state, again.marked_at), (OutboxState::Queued, None));
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

    // Whom it was never handed over for did not send it back.
    let both = vec![recipient("r1@x", RecipientState::Pending), recipient("r2@x", RecipientState::Refused)];
    let (partly, _) = settled(marked(3), Settlement { recipients: both, ..said(SendVerdict::Sent) });
    assert_eq!(partly.clone().bounce(&[back("r1@x")], NOW), None);
    assert_eq!(partly.clone().bounce(&[back("r2@x"), back("r1@x")], NOW), None);
    let bounced = partly.bounce(&[], NOW).unwrap();
    let states: Vec<_> = bounced.recipients.iter().map(|it| it.state).collect();
    assert_eq!(states, [RecipientState::Bounced, RecipientState::Pending, RecipientState::Refused]);
    assert_eq!(bounced.state, OutboxState::Queued, "one of them is still tried");
    assert_eq!(queued(1).bounce(&[], NOW), None);
    assert_eq!(unmarked(1).bounce(&[back("r0@x")], NOW), None);

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
    /// By a server that keeps a copy where it can be looked for, or by one that does not.
    Claim(bool),
    /// And if nothing is heard of it: whether the server took it.
    Mark(bool),
    Settle(Settlement),
    SettleLate,
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
        5 => prop::bool::weighted(0.8).prop_map(Event::Claim),
        3 => any::<bool>().prop_map(Event::Mark),
        4 => settlement.prop_map(Event::Settle),
        1 => Just(Event::SettleLate),
        2 => Just(Event::Lapse),
        2 => decision.prop_map(Event::Decide),
        1 => recipients().prop_map(Event::Bounce),
    ]
}

/// What the servers know, which the control plane has to find out.
struct World {
    /// For each recipient: a server may have it, and nothing has been heard since.
    may_have: Vec<bool>,
    /// For each recipient: a server has it.
    has: Vec<bool>,
    /// The last attempt that handed data over: for whom, whether the server took it, and whether it keeps a copy.
    handed: Option<(Vec<bool>, bool, bool)>,
    /// Its worker has said nothing yet.
    silent: bool,
    /// There is a copy where it can be looked for.
    copy: bool,
}

impl World {
    /// The last attempt is over, and it is known here what came of it.
    fn end_attempt(&mut self) {
        let Some((to, true, keeps)) = &self.handed else { return };
        self.copy |= keeps;
        self.has.iter_mut().zip(to).for_each(|(has, to)| *has |= to);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Whatever happens, in whatever order: nothing is handed over again after it may have arrived, unless it was looked
    /// for or somebody has said so; what is found was sent to everybody who then counts as served; who has it never gets
    /// it again; and the state always says what is to be done.
    #[test]
    fn what_may_have_arrived_is_not_sent_again_blindly(
        count in 1..4usize,
        events in prop::collection::vec((event(), 0..3 * DAY), 0..40),
    ) {
        let (mut mail, mut now) = (queued(count), NOW);
        let nobody = vec![false; count];
        let mut world =
            World { may_have: nobody.clone(), has: nobody.clone(), handed: None, silent: false, copy: false };
        for (event, later) in events {
            now += later;
            let before = mail.clone();
            let pending: Vec<bool> = mail.recipients.iter().map(|it| it.state == RecipientState::Pending).collect();
            match event {
                Event::Claim(_) if mail.claimed || mail.due_at.is_none_or(|due| due > now) => continue,
                Event::Claim(looked_for) if mail.state == OutboxState::Queued => {
                    for (pending, may_have) in pending.iter().zip(&world.may_have) {
                        prop_assert!(!(*pending && *may_have), "{before:?}");
                    }
                    let claimed = (OutboxState::Sending, true, false);
                    mail = Standing { marked_at: None, due_at: None, looked_for, ..mail };
                    (mail.state, mail.claimed, mail.looking) = claimed;
                }
                Event::Claim(_) if mail.state == OutboxState::Unknown => {
                    prop_assert!(mail.looked_for, "{mail:?}");
                    mail = Standing { claimed: true, looking: true, ..mail };
                }
                Event::Claim(_) => prop_assert!(false, "nothing else is due: {mail:?}"),
                Event::Mark(takes) if mail.claimed && mail.state == OutboxState::Sending && mail.marked_at.is_none() => {
                    mail.marked_at = Some(now);
                    world.may_have.iter_mut().zip(&pending).for_each(|(may_have, pending)| *may_have |= pending);
                    (world.handed, world.silent) = (Some((pending, takes, mail.looked_for)), true);
                }
                Event::Mark(_) => continue,
                Event::Settle(said) => {
                    if !mail.claimed {
                        continue;
                    }
                    let looked_for = mail.task() == v1::SendTask::LookFor;
                    let (found, missing) =
                        (said.verdict == SendVerdict::Found, said.verdict == SendVerdict::NotFound);
                    // A look tells the truth about copies, and nothing else.
                    if (found && !world.copy) || (missing && world.copy) {
                        continue;
                    }
                    let clear = matches!(said.verdict, SendVerdict::Deferred | SendVerdict::Failed | SendVerdict::Sent);
                    let mended = said.problem.as_ref().is_some_and(|problem| match said.verdict {
                        SendVerdict::Deferred => is_mended_by_somebody(problem.kind()),
                        SendVerdict::Failed => ends_no_mail(problem.kind()),
                        _ => false,
                    });
                    let refused_all = mail.recipients.iter().filter(|it| it.state == RecipientState::Pending)
                        .all(|it| said.recipients.iter().any(|s| s.key == it.key && s.state != RecipientState::Pending));
                    let Ok((after, toll)) = mail.clone().settle(said, 0, &Terms::default(), now) else { continue };
                    prop_assert!(!looked_for || toll == Toll::default());
                    if mended && !looked_for && !refused_all {
                        prop_assert_eq!(after.state, OutboxState::Queued, "a definition ends no mail");
                    }
                    if looked_for {
                        for (n, recipient) in after.recipients.iter().enumerate() {
                            let served = pending[n] && recipient.state == RecipientState::Accepted;
                            prop_assert!(!served || world.has[n], "the copy was another's: {before:?}");
                        }
                    } else if clear {
                        // A server that took it for anybody keeps its copy.
                        let served = |n: usize| pending[n] && after.recipients[n].state == RecipientState::Accepted;
                        (0..count).for_each(|n| world.has[n] |= served(n));
                        world.copy |= mail.looked_for && (0..count).any(served);
                        world.handed = None;
                    } else {
                        world.end_attempt();
                    }
                    if (clear && !looked_for) || missing {
                        world.may_have.clone_from(&nobody);
                    }
                    world.silent &= looked_for;
                    mail = after;
                    prop_assert!(!mail.claimed);
                }
                // Only whoever handed it over says so, and only when it is so.
                Event::SettleLate => {
                    let Some((to, true, _)) = &world.handed else { continue };
                    if !world.silent || to != &pending || mail.state == OutboxState::Sending {
                        continue;
                    }
                    let Some((after, _)) = mail.clone().settle_late(said(SendVerdict::Sent), &Terms::default(), now)
                    else { continue };
                    world.silent = false;
                    mail = after;
                    prop_assert!(!mail.claimed && mail.pending() == 0);
                }
                Event::Lapse if mail.claimed => {
                    if mail.task() == v1::SendTask::Submit && mail.marked_at.is_some() {
                        world.end_attempt();
                    }
                    mail = mail.lapse(&Terms::default(), now).0;
                }
                Event::Lapse => continue,
                Event::Decide(decision) => {
                    let Ok(Some(after)) = mail.clone().decide(decision, now) else { continue };
                    // He took the risk, or knows; giving it up tells nothing.
                    if matches!(decision, Decision::Retry { may_arrive_twice: true } | Decision::Confirm) {
                        world.may_have.clone_from(&nobody);
                    }
                    mail = after;
                }
                Event::Bounce(recipients) => {
                    if let Some(after) = mail.clone().bounce(&recipients, now) {
                        // What came back is no more with whoever sent it back.
                        let back = |n: usize| after.recipients[n].state == RecipientState::Bounced;
                        (0..count).filter(|n| back(*n)).for_each(|n| world.may_have[n] = false);
                        mail = after;
                    }
                }
            }
            for (was, is) in before.recipients.iter().zip(&mail.recipients) {
                let kept = is.state == RecipientState::Accepted || is.state == RecipientState::Bounced;
                prop_assert!(was.state != RecipientState::Accepted || kept, "{before:?} {mail:?}");
            }
            prop_assert!(before.sent_at.is_none() || mail.sent_at.is_some());
            match mail.state {
                OutboxState::Queued => prop_assert!(mail.due_at.is_some() && !mail.claimed && mail.pending() > 0 && mail.marked_at.is_none()),
                OutboxState::Sending => prop_assert!(mail.claimed),
                OutboxState::Unknown => {
                    prop_assert!(mail.problem.is_some() && mail.marked_at.is_some() && mail.pending() > 0);
                    prop_assert_eq!(mail.due_at.is_some(), mail.looked_for && !mail.was_taken());
                }
                OutboxState::Sent => prop_assert!(mail.due_at.is_none() && mail.pending() == 0 && mail.sent_at.is_some()),
                OutboxState::Failed | OutboxState::Bounced => prop_assert!(mail.due_at.is_none() && mail.problem.is_some()),
                OutboxState::Unspecified => prop_assert!(false, "{mail:?}"),
            }
        }
    }
}

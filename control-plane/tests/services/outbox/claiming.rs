//! Workers that wait for mail, and mail that waits for a worker.

use super::*;

#[tokio::test]
async fn a_waiting_worker_is_woken_by_new_mail_and_by_limits_that_open() {
    let data = tempfile::tempdir().unwrap();
    let minute = Duration::from_secs(2);
    let bench = start(data.path(), Terms { per_minute: 1, minute, ..Terms::default() }).await;
    define(&bench, vec![server(true)]).await;
    let worker = bench.register("worker").await;
    assert_eq!(claim(&bench, &worker.id, 0).await, Ok(Vec::new()));
    let (first, _) = tokio::join!(claim(&bench, &worker.id, 30), async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        send(&bench, &draft("ada@fabrikam.example"), &[]).await.unwrap();
    });
    let first = first.unwrap().remove(0);
    send(&bench, &draft("bob@fabrikam.example"), &[]).await.unwrap();
    assert_eq!(claim(&bench, &worker.id, 0).await, Ok(Vec::new()), "one a minute");
    mark(&bench, &worker.id, &first).await.unwrap();
    settle(&bench, &worker.id, &first, SendVerdict::Sent).await.unwrap();
    let ended = Instant::now();
    let second = claimed(&bench, &worker.id).await;
    assert!(ended.elapsed() >= minute - Duration::from_millis(500), "{:?}", ended.elapsed());
    assert_eq!(second.recipients, ["bob@fabrikam.example"]);

    // A session that is over is told so.
    settle(&bench, &worker.id, &second, SendVerdict::Deferred).await.unwrap();
    worker.leave().await;
    assert_eq!(claim(&bench, &worker.id, 0).await, Err(Reason::SessionEnded));
    bench.app.stop().await;
}

#[tokio::test]
async fn a_drained_worker_gets_nothing_and_holds_nobody_up() {
    let data = tempfile::tempdir().unwrap();
    let bench = start(data.path(), Terms::default()).await;
    define(&bench, vec![server(true)]).await;
    let (idle, drained) = (bench.register("idle").await, bench.register("drained").await);
    let drain = bench.as_admin(v1::DrainWorkerRequest { worker: "drained".into() });
    let mut workers = WorkerServiceClient::new(bench.channel.clone());
    let one = async |session: &str, wait| claim(&bench, session, wait).await.unwrap().len();
    // The one is drained while it waits, the other one comes behind it.
    let ((first, second), ()) = tokio::join!(
        async {
            tokio::join!(one(&drained.id, 5), async {
                tokio::time::sleep(Duration::from_millis(300)).await;
                let begun = Instant::now();
                (one(&idle.id, 30).await, begun.elapsed())
            })
        },
        async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            workers.drain_worker(drain).await.unwrap();
            // What it waits for is news.
            let other = v1::Draft { instance: "core2".into(), ..draft("ada@fabrikam.example") };
            let other = v1::Draft { from: Some(address("", "north@contoso.example")), ..other };
            send(&bench, &other, &[]).await.unwrap();
            tokio::time::sleep(Duration::from_millis(500)).await;
            send(&bench, &draft("ada@fabrikam.example"), &[]).await.unwrap();
        }
    );
    assert_eq!((first, second.0), (0, 1));
    assert!(second.1 < Duration::from_millis(1800), "{:?}", second.1);
    bench.app.stop().await;
}

#[tokio::test]
async fn a_worker_sends_for_its_own_pool() {
    let data = tempfile::tempdir().unwrap();
    let bench = start(data.path(), Terms::default()).await;
    define(&bench, vec![server(true)]).await;
    let request = |name: &str, pool: &str| v1::RegisterRequest {
        worker_name: name.into(),
        build: "test".into(),
        pool: pool.into(),
        ..Default::default()
    };
    let here = bench.register_as(request("here", "")).await;
    let north = bench.register_as(request("north", "north")).await;
    let from = Some(address("", "north@contoso.example"));
    let wanted = v1::Draft { instance: "core2".into(), from, ..draft("ada@fabrikam.example") };
    let stored = send(&bench, &wanted, &[]).await.unwrap();
    assert_eq!(claim(&bench, &here.id, 0).await, Ok(Vec::new()));
    assert_eq!(claimed(&bench, &north.id).await.mail, stored.id);
    assert_eq!(show(&bench, &stored.id).await.worker, "north");
    bench.app.stop().await;
}

#[tokio::test]
async fn a_worker_that_is_not_heard_loses_its_claims() {
    let data = tempfile::tempdir().unwrap();
    let short = Duration::from_secs(1);
    let terms = Terms { claim_time: short, answer_time: short, look_after: short, ..Terms::default() };
    let bench = start(data.path(), terms).await;
    define(&bench, vec![server(true)]).await;
    let worker = bench.register("worker").await;
    let stored = send(&bench, &draft("ada@fabrikam.example"), &[]).await.unwrap();
    let lost = claimed(&bench, &worker.id).await;
    let again = claimed(&bench, &worker.id).await;
    assert_eq!((again.mail.as_str(), again.attempt), (lost.mail.as_str(), 2), "never marked: sent by the next");
    assert_eq!(mark(&bench, &worker.id, &lost).await, Err(Reason::ClaimLost));
    assert_eq!(settle(&bench, &worker.id, &lost, SendVerdict::Sent).await, Err(Reason::ClaimLost));

    mark(&bench, &worker.id, &again).await.unwrap();
    let unknown = reaches(&bench, &stored.id, OutboxState::Unknown).await;
    assert_eq!(unknown.problem.as_ref().unwrap().code, "OUTCOME_LOST");
    assert!(unknown.next_attempt_time.is_some(), "it is looked for: {unknown:?}");
    let blind = bench.as_admin(v1::RetryOutboxMailRequest { mail: stored.id.clone(), may_arrive_twice: false });
    assert_eq!(reason(&outbox(&bench).retry_outbox_mail(blind).await.unwrap_err()), Reason::WrongState);
    let looked_for = claimed(&bench, &worker.id).await;
    assert_eq!((looked_for.task(), looked_for.message_id.as_str()), (SendTask::LookFor, stored.message_id.as_str()));
    assert_eq!(settle(&bench, &worker.id, &looked_for, SendVerdict::Sent).await, Err(Reason::InvalidField));
    assert_eq!(settle(&bench, &worker.id, &looked_for, SendVerdict::NotFound).await, Ok(OutboxState::Queued));
    let third = claimed(&bench, &worker.id).await;
    assert_eq!((third.task(), third.attempt), (SendTask::Submit, 3));
    bench.app.stop().await;
}

#[tokio::test]
async fn what_keeps_a_mail_waiting_is_said_and_mended() {
    let data = tempfile::tempdir().unwrap();
    let bench = start(data.path(), Terms::default()).await;
    define(&bench, vec![server(true)]).await;
    let stored = send(&bench, &draft("ada@fabrikam.example"), &[]).await.unwrap();
    assert_eq!(stored.problem, None);
    let worker = bench.register("worker").await;
    // Nobody keeps a copy any more, and another server sends.
    let relay = v1::OutgoingServer {
        name: "relay".into(),
        server: "127.0.0.1:25".into(),
        authentication: v1::OutgoingAuthentication::None.into(),
        smtp_security: v1::SmtpSecurity::None.into(),
        ..Default::default()
    };
    define(&bench, vec![server(false), relay]).await;
    let mail = claimed(&bench, &worker.id).await;
    let definition = mail.definition.as_ref().unwrap();
    assert_eq!((definition.name.as_str(), definition.security()), ("relay", v1::SmtpSecurity::None));
    mark(&bench, &worker.id, &mail).await.unwrap();
    assert_eq!(settle(&bench, &worker.id, &mail, SendVerdict::Unknown).await, Ok(OutboxState::Unknown));
    assert_eq!(show(&bench, &stored.id).await.next_attempt_time, None, "nobody can look");
    let twice = bench.as_admin(v1::RetryOutboxMailRequest { mail: stored.id.clone(), may_arrive_twice: true });
    assert_eq!(outbox(&bench).retry_outbox_mail(twice).await.unwrap().into_inner().state(), OutboxState::Queued);
    // The whole mailbox is refused, and every mail of it says so.
    let mail = claimed(&bench, &worker.id).await;
    let problem = v1::Problem {
        kind: v1::ProblemKind::Credential.into(),
        code: "SMTP_AUTH_REFUSED".into(),
        cause: "535 5.7.3".into(),
        remedy: "set the password".into(),
        ..Default::default()
    };
    let request = v1::SettleMailRequest {
        claim: token(&worker.id, &mail),
        verdict: SendVerdict::Deferred.into(),
        problem: Some(problem),
        whole_mailbox: true,
        ..Default::default()
    };
    sends(&bench).settle_mail(bench.as_worker(request)).await.unwrap();
    let other = send(&bench, &draft("bob@fabrikam.example"), &[]).await.unwrap();
    let told = other.problem.unwrap();
    assert_eq!((told.code.as_str(), told.remedy.as_str()), ("SMTP_AUTH_REFUSED", "set the password"));
    assert!(other.next_attempt_time.is_some());
    assert_eq!(claim(&bench, &worker.id, 0).await, Ok(Vec::new()));
    let at_once = bench.as_admin(v1::RetryOutboxMailRequest { mail: other.id.clone(), may_arrive_twice: false });
    outbox(&bench).retry_outbox_mail(at_once).await.unwrap();
    assert_eq!(claimed(&bench, &worker.id).await.mail, other.id, "whoever retries has mended it");
    bench.app.stop().await;
}

#[tokio::test]
async fn a_mailbox_is_opened_by_who_mends_it_and_not_by_an_instance() {
    let data = tempfile::tempdir().unwrap();
    let bench = start(data.path(), Terms::default()).await;
    define(&bench, vec![server(true)]).await;
    let register = v1::RegisterRequest { worker_name: "w".into(), build: "test".into(), ..Default::default() };
    let worker = bench.register_as(v1::RegisterRequest { pool: "north".into(), ..register }).await;
    let from = Some(address("", "north@contoso.example"));
    let wanted = |to: &str| v1::Draft { instance: "core2".into(), from: from.clone(), ..draft(to) };
    let refuse = async |mail: &v1::ClaimedMail| {
        let problem = v1::Problem {
            kind: v1::ProblemKind::Credential.into(),
            code: "SMTP_AUTH_REFUSED".into(),
            ..Default::default()
        };
        let request = v1::SettleMailRequest {
            claim: token(&worker.id, mail),
            // Even as a verdict for good it is no end of the mail.
            verdict: SendVerdict::Failed.into(),
            problem: Some(problem),
            whole_mailbox: true,
            ..Default::default()
        };
        let settled = sends(&bench).settle_mail(bench.as_worker(request)).await.unwrap().into_inner();
        assert_eq!(settled.state(), OutboxState::Queued);
    };
    let first = send(&bench, &wanted("a@x.example"), &[]).await.unwrap();
    refuse(&claimed(&bench, &worker.id).await).await;
    let retry = || v1::RetryOutboxMailRequest { mail: first.id.clone(), may_arrive_twice: false };
    outbox(&bench).retry_outbox_mail(bench.as_core2(retry())).await.unwrap();
    assert_eq!(claim(&bench, &worker.id, 0).await, Ok(Vec::new()), "an instance cannot tell");
    outbox(&bench).retry_outbox_mail(bench.as_admin(retry())).await.unwrap();
    refuse(&claimed(&bench, &worker.id).await).await;

    // Another password is tried at once.
    let second = send(&bench, &wanted("b@x.example"), &[]).await.unwrap();
    assert_eq!(second.problem.unwrap().code, "SMTP_AUTH_REFUSED");
    assert_eq!(claim(&bench, &worker.id, 0).await, Ok(Vec::new()));
    let password = Some(v1::SecretInput { value: "mended".into(), clear: false });
    define(&bench, vec![v1::OutgoingServer { password, ..server(true) }]).await;
    let mail = claimed(&bench, &worker.id).await;
    assert_eq!((mail.mail.as_str(), mail.definition.unwrap().password.as_str()), (second.id.as_str(), "mended"));
    bench.app.stop().await;
}

#[tokio::test]
async fn a_restart_forgets_no_mail_and_no_claim() {
    let data = tempfile::tempdir().unwrap();
    let bench = start(data.path(), Terms::default()).await;
    define(&bench, vec![server(true)]).await;
    let worker = bench.register("worker").await;
    for to in ["a@x.example", "b@x.example", "c@x.example"] {
        send(&bench, &draft(to), &[]).await.unwrap();
    }
    let mut held = claim(&bench, &worker.id, 10).await.unwrap();
    assert_eq!(held.len(), 3);
    let waiting = send(&bench, &draft("d@x.example"), &[]).await.unwrap();
    let id = worker.id.clone();
    mark(&bench, &id, &held[0]).await.unwrap();
    bench.app.stop().await;

    // Its worker went on meanwhile, and settles with the control plane that comes.
    let bench = start(data.path(), Terms::default()).await;
    let first = held.remove(0);
    assert_eq!(settle(&bench, &id, &first, SendVerdict::Sent).await, Ok(OutboxState::Sent));
    assert!(mark(&bench, &id, &held[0]).await.is_ok());
    let again = bench.register("worker").await;
    assert_eq!(claimed(&bench, &again.id).await.mail, waiting.id);
    assert_eq!(
        claim(&bench, &again.id, 0).await,
        Ok(Vec::new()),
        "two are with the other session, and the third is ours"
    );
    bench.app.stop().await;
}

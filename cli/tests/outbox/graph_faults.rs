//! The same for Microsoft Graph.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use postroom_proto::convert::from_timestamp;
use postroom_proto::v1::OutboxState;
use postroom_testbed::graph::{Answer, Step};
use postroom_testbed::tenant::Permission;

use crate::office::{ANNA, By, Office, Outbox, draft};

const SALES: &str = "sales@contoso.example";

#[tokio::test(flavor = "multi_thread")]
async fn each_refusal_has_its_state_its_remedy_and_its_end() {
    let office = Office::open(&[(SALES, By::Graph)]).await;
    let graph = office.bed().graph().await.unwrap();
    let up = office.stage.up().await;
    let outbox = Outbox::of_up(&up);
    for (answer, state, code, remedy) in [
        (Answer::invalid_token("Lifetime validation failed"), OutboxState::Queued, "GRAPH_TOKEN_REFUSED", "claims"),
        (Answer::access_denied(), OutboxState::Queued, "GRAPH_ACCESS_DENIED", "Mail.Send"),
        (Answer::send_as_denied(), OutboxState::Queued, "SEND_AS_DENIED", "SendAs"),
        (Answer::no_mailbox(), OutboxState::Queued, "GRAPH_NO_MAILBOX", "licence"),
        (Answer::no_user("x"), OutboxState::Queued, "GRAPH_USER_UNKNOWN", "GUID"),
        (Answer::throttled(120), OutboxState::Queued, "SENDING_THROTTLED", "nothing to do"),
        (Answer::unavailable(), OutboxState::Queued, "SUBMISSION_UNAVAILABLE", "nothing to do"),
        (Answer::mail_too_large(), OutboxState::Failed, "MESSAGE_TOO_LARGE", "attachments"),
        (Answer::no_recipients(), OutboxState::Failed, "RECIPIENT_REFUSED", "address"),
    ] {
        graph.answer(Step::Send, SALES, 0, answer.clone());
        let stored = outbox.send(draft(SALES, &[ANNA], code), &[]).await.unwrap();
        let found = outbox
            .until(&stored.id, code, |found| {
                found.state() == state && found.problem.as_ref().is_some_and(|it| it.code == code)
            })
            .await;
        assert!(found.problem.as_ref().unwrap().remedy.contains(remedy), "{found:#?}");
        if let Some(seconds) = answer.retry_after {
            let next = from_timestamp(&found.next_attempt_time.unwrap());
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
            let left = Duration::from_micros(u64::try_from(next).unwrap()).saturating_sub(now);
            assert!(left.as_secs() + 60 >= seconds, "{left:?}");
        }
        graph.mend();
        outbox.retry(&stored.id, false).await.unwrap();
        outbox.becomes(&stored.id, OutboxState::Sent).await;
        assert_eq!(office.arrived(ANNA, &stored.message_id).await, 1, "{code}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_permission_is_named_and_given_it_is_sent() {
    let office = Office::open(&[(SALES, By::Graph)]).await;
    let client_id = office.bed().service().client_id.clone();
    office.bed().tenant.set_permission(&client_id, Permission::GraphSend, false);
    office.bed().tenant.set_token_lifetime(Duration::from_secs(5));
    let up = office.stage.up().await;
    let outbox = Outbox::of_up(&up);
    let stored = outbox.send(draft(SALES, &[ANNA], "S"), &[]).await.unwrap();
    let found = outbox.until(&stored.id, "waiting", |found| found.problem.is_some()).await;
    assert!(found.problem.as_ref().unwrap().remedy.contains("Mail.Send"), "{found:#?}");
    assert_eq!(found.state(), OutboxState::Queued);
    office.bed().tenant.set_permission(&client_id, Permission::GraphSend, true);
    // The token without the permission is good for some seconds more.
    let until = tokio::time::Instant::now() + crate::harness::PATIENCE;
    while outbox.get(&stored.id).await.state() != OutboxState::Sent {
        assert!(tokio::time::Instant::now() < until, "{:#?}", outbox.get(&stored.id).await);
        let _ = outbox.retry(&stored.id, false).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_is_asked_of_graph_at_once_than_it_allows() {
    const MAILS: usize = 24;
    let office = Office::open(&[(SALES, By::Graph)]).await;
    let graph = office.bed().graph().await.unwrap();
    let plane = office.plane("127.0.0.1:0", &["--outbox-breaker", "1000"]).await;
    let outbox = Outbox::of(&plane.context);
    let _workers = ["one", "two"].map(|name| plane.worker(name, &[]));
    for number in 0..MAILS {
        outbox.send(draft(SALES, &[ANNA], &number.to_string()), &[]).await.unwrap();
    }
    for mail in outbox.list(&[]).await {
        outbox.becomes(&mail.id, OutboxState::Sent).await;
    }
    assert!(graph.most_at_once(SALES) <= 4, "{} at once", graph.most_at_once(SALES));
    assert_eq!((graph.accepted().len(), office.bed().dovecot.count(ANNA, "INBOX").await.unwrap()), (MAILS, MAILS));
}

//! A mail whose outcome nobody knows.

use postroom_proto::v1::OutboxState;
use postroom_testbed::exchange::Step;

use crate::harness::eventually;
use crate::office::{ANNA, By, Office, Outbox, draft};

const SALES: &str = "sales@contoso.example";

#[tokio::test(flavor = "multi_thread")]
async fn without_a_copy_to_look_for_it_waits_for_somebody_who_decides() {
    let office = Office::open(&[(SALES, By::SmtpWithoutCopy)]).await;
    let exchange = office.exchange().await;
    let plane = office.plane("127.0.0.1:0", &["--outbox-look-after", "6s"]).await;
    let outbox = Outbox::of(&plane.context);
    let _worker = plane.worker("one", &[]);

    let mut unknown = Vec::new();
    for (step, subject) in [(Step::Accepted, "delivered"), (Step::End, "not delivered"), (Step::Body, "half")] {
        exchange.cut(step, SALES, 1);
        let stored = outbox.send(draft(SALES, &[ANNA], subject), &[]).await.unwrap();
        let found = outbox.becomes(&stored.id, OutboxState::Unknown).await;
        let problem = found.problem.clone().unwrap();
        assert!(problem.remedy.contains("confirm") && problem.remedy.contains("may-arrive-twice"), "{problem:?}");
        unknown.push(found);
    }
    let listed = outbox.list(&[OutboxState::Unknown]).await;
    assert_eq!(listed.len(), 3);
    let refused = outbox.retry(&unknown[0].id, false).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::FailedPrecondition, "{refused}");

    // Others are sent meanwhile, and these are not touched.
    let other = outbox.send(draft(SALES, &[ANNA], "other"), &[]).await.unwrap();
    outbox.becomes(&other.id, OutboxState::Sent).await;
    for mail in &unknown {
        assert_eq!(outbox.get(&mail.id).await.state(), OutboxState::Unknown);
        assert_eq!(exchange.data_begun(&mail.message_id), 1);
    }

    assert_eq!(outbox.confirm(&unknown[0].id).await.unwrap().state(), OutboxState::Sent);
    outbox.retry(&unknown[1].id, true).await.unwrap();
    outbox.becomes(&unknown[1].id, OutboxState::Sent).await;
    assert_eq!(outbox.cancel(&unknown[2].id).await.unwrap().state(), OutboxState::Failed);
    for (mail, copies) in unknown.iter().zip([1, 1, 0]) {
        eventually("they arrived as often as that", || async {
            office.arrived(ANNA, &mail.message_id).await == copies
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn by_graph_it_is_looked_for_in_sent_items() {
    let office = Office::open(&[(SALES, By::Graph)]).await;
    let graph = office.bed().graph().await.unwrap();
    let plane = office.plane("127.0.0.1:0", &["--outbox-look-after", "6s"]).await;
    let outbox = Outbox::of(&plane.context);
    let _worker = plane.worker("one", &[]);
    for (step, subject) in
        [(postroom_testbed::graph::Step::Accepted, "delivered"), (postroom_testbed::graph::Step::Send, "not delivered")]
    {
        graph.cut(step, SALES, 1);
        let stored = outbox.send(draft(SALES, &[ANNA], subject), &[]).await.unwrap();
        outbox.becomes(&stored.id, OutboxState::Sent).await;
        office.arrives(ANNA, &stored.message_id).await;
        assert_eq!(office.arrived(ANNA, &stored.message_id).await, 1, "{subject}");
        let taken = graph.accepted().iter().filter(|it| it.message_id == stored.message_id).count();
        assert_eq!(taken, 1, "{subject}");
    }
}

//! The one screen, over the real services.

use postroom_proto::v1::open_outcome::Outcome;
use postroom_proto::v1::operator_service_client::OperatorServiceClient;
use postroom_proto::v1::{self, ContactState, MailboxState};

use crate::bench::Bench;

async fn status(bench: &Bench) -> v1::Status {
    let mut operators = OperatorServiceClient::new(bench.channel.clone());
    operators.get_status(bench.as_admin(v1::GetStatusRequest {})).await.unwrap().into_inner()
}

fn codes(status: &v1::Status) -> Vec<&str> {
    status.concerns.iter().map(|concern| concern.code.as_str()).collect()
}

#[tokio::test]
async fn the_status_follows_what_happens() {
    let data = tempfile::tempdir().unwrap();
    let bench = Bench::start_undefined(data.path()).await;
    let mut worker = bench.register("worker-1").await;
    let empty = status(&bench).await;
    assert_eq!((empty.model_revision, codes(&empty)), (0, vec![]));
    assert_eq!(empty.workers[0].worker, "worker-1");

    bench.define_mailbox().await;
    let offer = worker.offered().await;
    assert!(matches!(worker.open(&offer.mailbox, offer.epoch).await, Outcome::Opened(_)));
    worker.report(&worker.batch(&offer, 0, 1)).await.unwrap();
    let read = status(&bench).await;
    assert_eq!((read.model_revision, codes(&read)), (1, vec![]));
    assert_eq!((read.mailboxes[0].state(), read.mailboxes[0].count), (MailboxState::Connecting, 1));
    let instance = &read.instances[0];
    assert_eq!((instance.instance.as_str(), instance.contacts[0].state()), ("core1", ContactState::Queued));
    assert!(instance.contacts[0].count == 1 && instance.oldest_contact.len() == 32 && instance.oldest_time.is_some());
    let seen = &read.workers[0];
    assert!(seen.session == worker.id && seen.mailbox_count == 1 && seen.heartbeat_time.is_some(), "{seen:?}");

    worker.leave().await;
    let left = status(&bench).await;
    assert_eq!((codes(&left), left.workers.len()), (vec!["NO_WORKER"], 0));
    assert_eq!(left.mailboxes[0].state(), MailboxState::Unassigned);
    bench.app.stop().await;
}

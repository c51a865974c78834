//! Contacts, taken over gRPC.

use postroom_proto::reason::Reason;
use postroom_proto::v1::contact_service_client::ContactServiceClient;
use postroom_proto::v1::{self, ContactState, open_outcome::Outcome};

use crate::bench::{Bench, reason};

const TAKING: &str = "0B5C2AE0-7A3E-4C57-9D59-93F0C1AF5B11";

#[tokio::test]
async fn a_taking_is_known_however_its_uuid_is_written() {
    let data = tempfile::tempdir().unwrap();
    let bench = Bench::start(data.path()).await;
    let mut worker = bench.register("worker").await;
    let offer = worker.offered().await;
    assert!(matches!(worker.open(&offer.mailbox, offer.epoch).await, Outcome::Opened(_)));
    worker.report(&worker.batch(&offer, 0, 1)).await.unwrap();

    let mut contacts = ContactServiceClient::new(bench.channel.clone());
    let take = v1::AllocateContactsRequest {
        instance: "core1".into(),
        max_count: 10,
        request_id: TAKING.into(),
        ..Default::default()
    };
    let taken = contacts.allocate_contacts(bench.as_admin(take.clone())).await.unwrap().into_inner().contacts;
    assert_eq!(taken.len(), 1);
    let accept = |request_id: &str| v1::AcceptContactsRequest {
        instance: "core1".into(),
        contacts: vec![v1::AllocatedContact { contact: taken[0].id.clone(), request_id: request_id.into() }],
    };
    let nonsense = contacts.accept_contacts(bench.as_admin(accept("mine"))).await.unwrap_err();
    assert_eq!(reason(&nonsense), Reason::InvalidField);
    let done = contacts.accept_contacts(bench.as_admin(accept(&TAKING.replace('-', "")))).await.unwrap().into_inner();
    assert_eq!(done.outcomes[0].state(), ContactState::Accepted, "{done:?}");

    let foreign = v1::AllocateContactsRequest { instance: "core2".into(), ..take };
    assert_eq!(reason(&contacts.allocate_contacts(bench.as_admin(foreign)).await.unwrap_err()), Reason::NotFound);
    bench.app.stop().await;
}

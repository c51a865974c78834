//! Contacts watched and attachments fetched over gRPC.

use std::time::Duration;

use postroom_proto::reason::Reason;
use postroom_proto::v1::contact_service_client::ContactServiceClient;
use postroom_proto::v1::watch_contacts_response::Event;
use postroom_proto::v1::{self, ContactState, open_outcome::Outcome};
use tokio::time::timeout;
use tonic::Streaming;

use crate::bench::{Bench, reason};

/// Reached only when something hangs.
const PATIENCE: Duration = Duration::from_secs(60);

async fn next(told: &mut Streaming<v1::WatchContactsResponse>) -> v1::WatchContactsResponse {
    timeout(PATIENCE, told.message()).await.unwrap().unwrap().unwrap()
}

async fn watch(bench: &Bench, from_revision: u64) -> Streaming<v1::WatchContactsResponse> {
    let request = v1::WatchContactsRequest { instance: "core1".into(), from_revision };
    let mut contacts = ContactServiceClient::new(bench.channel.clone());
    contacts.watch_contacts(bench.as_admin(request)).await.unwrap().into_inner()
}

fn state(event: &v1::WatchContactsResponse) -> ContactState {
    let Some(Event::Contact(contact)) = &event.event else { panic!("{event:?}") };
    contact.state()
}

#[tokio::test]
async fn a_watch_begins_with_a_snapshot_tells_changes_and_can_be_gone_on_with() {
    let data = tempfile::tempdir().unwrap();
    let bench = Bench::start(data.path()).await;
    let mut worker = bench.register("worker").await;
    let offer = worker.offered().await;
    assert!(matches!(worker.open(&offer.mailbox, offer.epoch).await, Outcome::Opened(_)));
    worker.report(&worker.batch(&offer, 0, 1)).await.unwrap();

    let mut told = watch(&bench, 0).await;
    let first = next(&mut told).await;
    assert_eq!((first.snapshot, first.revision, state(&first)), (true, 0, ContactState::Queued));
    let mark = next(&mut told).await;
    assert!(matches!(mark.event, Some(Event::Bookmark(_))) && mark.revision > 0, "{mark:?}");

    worker.report(&worker.batch(&offer, 1, 2)).await.unwrap();
    let second = next(&mut told).await;
    assert!(!second.snapshot && second.revision > mark.revision, "{second:?}");
    let take = v1::AllocateContactsRequest {
        instance: "core1".into(),
        max_count: 1,
        request_id: uuid::Uuid::new_v4().to_string(),
        ..Default::default()
    };
    let mut contacts = ContactServiceClient::new(bench.channel.clone());
    contacts.allocate_contacts(bench.as_admin(take)).await.unwrap();
    let third = next(&mut told).await;
    assert_eq!(state(&third), ContactState::Allocated);
    drop(told);

    // Broken off after the snapshot: what came since, without another snapshot.
    let mut again = watch(&bench, mark.revision).await;
    let mut states = vec![state(&next(&mut again).await), state(&next(&mut again).await)];
    states.sort();
    assert_eq!(states, [ContactState::Queued, ContactState::Allocated]);

    let request = v1::WatchContactsRequest { instance: "core1".into(), from_revision: 1_000_000 };
    let gone = contacts.watch_contacts(bench.as_admin(request)).await.unwrap_err();
    assert_eq!(reason(&gone), Reason::RevisionCompacted);

    // Stopping is not held up by who listens.
    timeout(PATIENCE, bench.app.stop()).await.unwrap();
    let ended = timeout(PATIENCE, again.message()).await.unwrap();
    assert!(!matches!(ended, Ok(Some(_))), "{ended:?}");
}

#[tokio::test]
async fn an_attachment_comes_decoded_out_of_its_place_in_the_message() {
    let data = tempfile::tempdir().unwrap();
    let bench = Bench::start(data.path()).await;
    let mut worker = bench.register("worker").await;
    let offer = worker.offered().await;
    assert!(matches!(worker.open(&offer.mailbox, offer.epoch).await, Outcome::Opened(_)));
    let raw = b"headers\r\n\r\nSGVsbG8g\r\nd29ybGQ=\r\n--end";
    let attachment = |index, raw_offset, raw_bytes, encoding: v1::TransferEncoding| v1::Attachment {
        index,
        name: "../a.txt".into(),
        raw_offset,
        raw_bytes,
        encoding: encoding.into(),
        ..Default::default()
    };
    let mut batch = worker.batch(&offer, 0, 1);
    batch.messages[0].raw = Some(v1::reported_message::Raw::RawMessage(raw.as_slice().into()));
    batch.messages[0].content.as_mut().unwrap().attachments = vec![
        attachment(0, 11, 20, v1::TransferEncoding::Base64),
        attachment(1, u64::MAX - 1, u64::MAX, v1::TransferEncoding::Identity),
        attachment(2, 0, 0, v1::TransferEncoding::Unspecified),
    ];
    let id = worker.report(&batch).await.unwrap().outcomes.remove(0).contact;

    let mut contacts = ContactServiceClient::new(bench.channel.clone());
    let shown = contacts.get_contact(bench.as_admin(v1::GetContactRequest { contact: id.clone() })).await.unwrap();
    let content = shown.into_inner().content.unwrap();
    let names: Vec<_> = content.attachments.into_iter().map(|it| it.file_name).collect();
    assert_eq!(names, ["a.txt", "a (2).txt", "a (3).txt"]);
    let mut fetch = async |index| {
        let request = bench.as_admin(v1::GetAttachmentRequest { contact: id.clone(), index });
        let mut pieces = contacts.get_attachment(request).await.map_err(|status| reason(&status))?.into_inner();
        let mut whole = Vec::new();
        while let Some(piece) = pieces.message().await.unwrap() {
            whole.extend_from_slice(&piece.data);
        }
        Ok(whole)
    };
    assert_eq!(fetch(0).await, Ok(b"Hello world".to_vec()));
    assert_eq!(fetch(1).await, Ok(Vec::new()), "a place behind the end holds nothing");
    assert_eq!(fetch(2).await, Err(Reason::NotFound), "its place was not recorded");
    assert_eq!(fetch(9).await, Err(Reason::NotFound));
    bench.app.stop().await;
}

//! A store that is not the ledger's: nothing is leased, everybody is told why, and an admin can take it over.

use std::path::Path;

use postroom_control_plane::config::{Config, StoreChoice};
use postroom_control_plane::folder;
use postroom_control_plane::store::sqlite::{Sqlite, copy};
use postroom_proto::reason::Reason;
use postroom_proto::v1::definition_service_client::DefinitionServiceClient;
use postroom_proto::v1::open_outcome::Outcome;
use postroom_proto::v1::operator_service_client::OperatorServiceClient;
use postroom_proto::v1::store_service_client::StoreServiceClient;
use postroom_proto::v1::{self, StoreFit};

use crate::bench::{Bench, reason, settings};

/// Both halves are files here, whatever store the other tests run on.
async fn start(data: &Path) -> Bench {
    Bench::start_with(Config { store: StoreChoice::Sqlite, ..settings(data).await }).await
}

async fn look(bench: &Bench) -> v1::StoreInfo {
    let mut stores = StoreServiceClient::new(bench.channel.clone());
    stores.get_store(bench.as_admin(v1::GetStoreRequest {})).await.unwrap().into_inner()
}

async fn adopt(bench: &Bench, store_id: &str) -> Result<v1::AdoptStoreResponse, Reason> {
    let mut stores = StoreServiceClient::new(bench.channel.clone());
    let request = bench.as_admin(v1::AdoptStoreRequest { store_id: store_id.into() });
    stores.adopt_store(request).await.map(tonic::Response::into_inner).map_err(|status| reason(&status))
}

/// Nothing is applied and nothing is leased, and the status says why.
async fn assert_refused(bench: &Bench) {
    let request = bench.as_admin(v1::ApplyModelRequest::default());
    let applied = DefinitionServiceClient::new(bench.channel.clone()).apply_model(request).await;
    assert_eq!(reason(&applied.unwrap_err()), Reason::StoreNotOurs);
    let open = v1::OpenMailboxesRequest { session: "s1".into(), leases: Vec::new() };
    let opened = bench.reports().open_mailboxes(bench.as_worker(open)).await;
    assert_eq!(reason(&opened.unwrap_err()), Reason::StoreNotOurs);
    let mut operators = OperatorServiceClient::new(bench.channel.clone());
    let status = operators.get_status(bench.as_admin(v1::GetStatusRequest {})).await.unwrap().into_inner();
    assert_eq!(status.concerns[0].code, "STORE_NOT_OURS");
    assert!(status.concerns[0].remedy.contains("store adopt"), "{:?}", status.concerns[0]);
}

#[tokio::test]
async fn half_of_a_pair_leases_nothing_until_it_is_adopted() {
    for half in [folder::STORE, folder::LEDGER] {
        let (data, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let bench = start(data.path()).await;
        bench.define_mailbox().await;
        let mut worker = bench.register("w").await;
        let offer = worker.offered().await;
        assert!(matches!(worker.open(&offer.mailbox, offer.epoch).await, Outcome::Opened(_)));
        worker.report(&worker.batch(&offer, 0, 1)).await.unwrap();
        bench.app.stop().await;
        // With one key, so that each can open what the other has sealed.
        std::fs::copy(data.path().join(folder::KEY), other.path().join(folder::KEY)).unwrap();
        let elsewhere = start(other.path()).await;
        elsewhere.define_mailbox().await;
        elsewhere.app.stop().await;
        std::fs::copy(other.path().join(half), data.path().join(half)).unwrap();

        let bench = start(data.path()).await;
        let found = look(&bench).await;
        assert_eq!(found.fit(), StoreFit::OtherLedger, "{found:?}");
        assert!(found.location == "sqlite" && !found.cause.is_empty() && !found.remedy.is_empty());
        assert_refused(&bench).await;
        assert_eq!(adopt(&bench, "another").await.unwrap_err(), Reason::EtagMismatch);

        let adopted = adopt(&bench, &found.store_id).await.unwrap().store.unwrap();
        assert_eq!((adopted.fit(), adopted.generation), (StoreFit::Ours, 2));
        assert_eq!((adopted.adoptions.len(), adopted.adoptions[0].adopted_by.as_str()), (1, "admin"));
        let mut worker = bench.register("w").await;
        let offer = worker.offered().await;
        let Outcome::Opened(opened) = worker.open(&offer.mailbox, offer.epoch).await else { panic!("not opened") };
        assert_eq!(opened.generation, 2);
        if half == folder::STORE {
            assert_eq!(opened.cursor.unwrap().value, [1], "the ledger's cursor goes on under another store");
        }
        bench.app.stop().await;
    }
}

#[tokio::test]
async fn a_restored_store_is_adopted_and_what_was_leased_before_is_refused() {
    let data = tempfile::tempdir().unwrap();
    let bench = start(data.path()).await;
    bench.define_mailbox().await;
    bench.app.stop().await;
    let kept = data.path().join("kept.db");
    let store = Sqlite::open(&data.path().join(folder::STORE)).await.unwrap();
    copy::write(&store, &kept).await.unwrap();
    store.close().await;
    let bench = start(data.path()).await;
    let mut former = bench.register("w").await;
    let leased = former.offered().await;
    assert!(matches!(former.open(&leased.mailbox, leased.epoch).await, Outcome::Opened(_)));
    former.report(&former.batch(&leased, 0, 1)).await.unwrap();
    let (session, batch) = (former.id.clone(), former.batch(&leased, 1, 2));
    bench.app.stop().await;
    std::fs::rename(&kept, data.path().join(folder::STORE)).unwrap();

    let bench = start(data.path()).await;
    let found = look(&bench).await;
    assert_eq!(found.fit(), StoreFit::Behind, "{found:?}");
    assert_refused(&bench).await;
    adopt(&bench, &found.store_id).await.unwrap();
    let mut worker = bench.register("w").await;
    let offer = worker.offered().await;
    let Outcome::Opened(opened) = worker.open(&offer.mailbox, offer.epoch).await else { panic!("not opened") };
    assert_eq!((opened.generation, opened.cursor.unwrap().value), (2, vec![1]), "it goes on where it was");
    assert_ne!(worker.id, session);
    assert_eq!(worker.report(&batch).await.unwrap_err(), Reason::LeaseLost, "of the former lease");
    let next = v1::ReportRequest { generation: 2, ..worker.batch(&offer, 1, 2) };
    worker.report(&next).await.unwrap();
    assert_eq!(bench.contacts().await, 2);
    bench.app.stop().await;
}

use std::path::Path;

use postroom_proto::id::SessionId;
use postroom_proto::v1::StoreFit;

use super::*;
use crate::ledger::{Fence, Ledger as _};
use crate::sqlite::Location;
use crate::store::Store as _;
use crate::store::suite::{committed, put};

async fn store(file: &Path) -> Arc<store::sqlite::Sqlite> {
    Arc::new(store::sqlite::Sqlite::open(file).await.unwrap())
}

async fn ledger() -> Arc<ledger::sqlite::Sqlite> {
    Arc::new(ledger::sqlite::Sqlite::open(&Location::Memory).await.unwrap())
}

async fn binding(store: &Arc<store::sqlite::Sqlite>, ledger: &Arc<ledger::sqlite::Sqlite>) -> Binding {
    quiet_binding(store, ledger, Duration::ZERO).await
}

async fn quiet_binding(
    store: &Arc<store::sqlite::Sqlite>,
    ledger: &Arc<ledger::sqlite::Sqlite>,
    quiet: Duration,
) -> Binding {
    let (location, ledger) = ("sqlite".into(), ledger.clone());
    let ground = Ground { store: store.clone(), location, ledger, former: None, quiet };
    Binding::open(ground).await.unwrap()
}

/// Assigns a mailbox and opens it under the epoch of that.
async fn lease(store: &store::sqlite::Sqlite, ledger: &ledger::sqlite::Sqlite, generation: u64) -> Epoch {
    let mailbox = MailboxUid::derive("a@x.example", "INBOX", "x.example");
    let revision = committed(store, vec![], vec![put(&key::assignment(&mailbox), "s1")]).await;
    let session = SessionId::parse("s1").unwrap();
    let fence = Fence { generation: Generation(generation), epoch: Epoch(revision.0), session };
    assert!(ledger.open(&mailbox, &fence).await.unwrap().is_some(), "the fence is above all before it");
    Epoch(revision.0)
}

#[tokio::test]
async fn two_that_are_new_are_bound_and_stay_so() {
    let folder = tempfile::tempdir().unwrap();
    let (store, ledger) = (store(&folder.path().join("store.db")).await, ledger().await);
    for _ in 0..2 {
        let binding = binding(&store, &ledger).await;
        assert_eq!(binding.standing(), Standing { fit: Fit::Ours, generation: Generation(1) });
        assert!(*binding.may_lead().borrow());
    }
    assert_eq!(ledger.bound().await.unwrap().store_id, store.id().await.unwrap());
    assert_eq!(store.get(key::STORE_LEDGER).await.unwrap().unwrap().value, ledger.id());
}

#[tokio::test]
async fn a_second_ledger_does_not_get_a_store_that_has_one() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(&folder.path().join("store.db")).await;
    let (first, second) = (ledger().await, ledger().await);
    binding(&store, &first).await;
    let refused = binding(&store, &second).await;
    assert_eq!(refused.standing().fit, Fit::OtherLedger { found: first.id().into() });
    assert_eq!(second.bound().await.unwrap().store_id, None, "it was not bound");
    let failure = refused.standing().require().unwrap_err();
    assert_eq!(failure.reason, Reason::StoreNotOurs);
}

#[tokio::test]
async fn of_two_ledgers_at_once_one_is_bound() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(&folder.path().join("store.db")).await;
    let (first, second) = (ledger().await, ledger().await);
    let (a, b) = tokio::join!(binding(&store, &first), binding(&store, &second));
    let mut fits = [a.standing().fit.may_lead(), b.standing().fit.may_lead()];
    fits.sort_unstable();
    assert_eq!(fits, [false, true]);
}

#[tokio::test]
async fn a_store_that_went_back_is_refused_until_it_is_adopted() {
    let folder = tempfile::tempdir().unwrap();
    let (file, copy) = (folder.path().join("store.db"), folder.path().join("copy.db"));
    let (original, ledger) = (store(&file).await, ledger().await);
    binding(&original, &ledger).await;
    lease(&original, &ledger, 1).await;
    original.copy_to(&copy).await.unwrap();
    let late = lease(&original, &ledger, 1).await;

    let restored = store(&copy).await;
    let back = binding(&restored, &ledger).await;
    assert_eq!(back.standing().fit.wire(), StoreFit::Behind);
    assert!(!*back.may_lead().borrow());
    // Its revision comes to stand above the highest epoch, and what the store says is still of the past.
    for _ in 0..late.0 + 5 {
        committed(&*restored, vec![], vec![put("other", "")]).await;
    }
    assert_eq!(back.look().await.unwrap().wire(), StoreFit::Behind);

    let id = restored.id().await.unwrap().unwrap();
    let failure = back.adopt("another", "ada").await.unwrap_err();
    assert_eq!(failure.reason, Reason::EtagMismatch);
    assert_eq!(ledger.bound().await.unwrap().generation, Generation(1));
    let adopted = back.adopt(&id, "ada").await.unwrap().store.unwrap();
    assert_eq!((adopted.fit(), adopted.generation), (StoreFit::Ours, 2));
    assert_eq!(adopted.adoptions[0].adopted_by, "ada");
    assert!(*back.may_lead().borrow());
    assert_eq!(back.standing().generation, Generation(2));
    lease(&restored, &ledger, 2).await;

    back.adopt(&id, "ada").await.unwrap();
    assert_eq!(ledger.bound().await.unwrap().generation, Generation(2), "what fits is not adopted again");
}

#[tokio::test]
async fn an_exchanged_store_is_refused_and_its_adoption_takes_it_from_its_former_ledger() {
    let folder = tempfile::tempdir().unwrap();
    let (one, other) = (store(&folder.path().join("1.db")).await, store(&folder.path().join("2.db")).await);
    let (ours, theirs) = (ledger().await, ledger().await);
    binding(&one, &ours).await;
    binding(&other, &theirs).await;
    let exchanged = binding(&other, &ours).await;
    assert_eq!(exchanged.standing().fit.wire(), StoreFit::OtherLedger);
    let id = other.id().await.unwrap().unwrap();
    exchanged.adopt(&id, "ada").await.unwrap();
    assert_eq!(exchanged.standing().fit, Fit::Ours);
    assert_eq!(binding(&other, &theirs).await.standing().fit.wire(), StoreFit::OtherLedger, "now they are refused");
    assert_eq!(binding(&one, &ours).await.standing().fit.wire(), StoreFit::Foreign, "and the former store");
}

#[tokio::test]
async fn the_adoption_of_an_empty_store_is_repeated_when_it_was_cut_off() {
    let folder = tempfile::tempdir().unwrap();
    let (former, named) = (store(&folder.path().join("1.db")).await, store(&folder.path().join("2.db")).await);
    let (ours, theirs) = (ledger().await, ledger().await);
    binding(&former, &ours).await;
    // It has a name and nothing else, as the first try leaves it.
    let exchanged = binding(&named, &ours).await;
    for _ in 0..2 {
        let adopted = exchanged.adopt("", "ada").await.unwrap().store.unwrap();
        assert_eq!((adopted.fit(), adopted.generation), (StoreFit::Ours, 2), "once, however often it is asked for");
    }
    let taken = store(&folder.path().join("3.db")).await;
    binding(&taken, &theirs).await;
    let failure = binding(&taken, &ours).await.adopt("", "ada").await.unwrap_err();
    assert_eq!(failure.reason, Reason::EtagMismatch, "somebody uses it by now");
}

#[tokio::test]
async fn after_an_adoption_nobody_leads_for_as_long_as_a_worker_may_trust_an_older_lease() {
    let folder = tempfile::tempdir().unwrap();
    let (former, ledger) = (store(&folder.path().join("former.db")).await, ledger().await);
    binding(&former, &ledger).await;
    let other = store(&folder.path().join("other.db")).await;
    let quiet = Duration::from_secs(1);
    let adopting = quiet_binding(&other, &ledger, quiet).await;
    let adopted = adopting.adopt("", "ada").await.unwrap().store.unwrap();
    assert_eq!(adopted.fit(), StoreFit::Ours);
    assert!(!*adopting.may_lead().borrow(), "somebody may still trust a lease that this store knows nothing of");
    // Also for a process that starts just then.
    assert!(!*quiet_binding(&other, &ledger, Duration::from_secs(600)).await.may_lead().borrow());
    let (stop, mut may_lead) = (CancellationToken::new(), adopting.may_lead());
    let watching = tokio::spawn(adopting.watch_over(stop.clone()));
    tokio::time::timeout(Duration::from_secs(60), may_lead.wait_for(|may_lead| *may_lead)).await.unwrap().unwrap();
    stop.cancel();
    watching.await.unwrap();
}

//! The model in the store: several who write, lost answers, damage, and who follows.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::*;
use crate::store;
use crate::store::suite::{Fault, Faulty};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_applies_at_once_one_loses_and_nothing_mixes() {
    for round in 0..15 {
        let store = store().await;
        let (one, two) = (definitions(&store).await, definitions(&store).await);
        let model = |who: &str| {
            let mut model = sample();
            let language = if who == "one" { "de" } else { "sv" };
            model.queues.iter_mut().for_each(|queue| queue.language = language.into());
            model.queues.extend(
                (0..120).map(|n| v1::Queue { language: language.into(), ..queue(&format!("{who} {n}"), vec![]) }),
            );
            model
        };
        let (a, b) = tokio::join!(apply_model(&one, model("one")), apply_model(&two, model("two")));
        let (winner, loser) = match (a, b) {
            (Ok(_), Err(lost)) => ("one", lost),
            (Err(lost), Ok(_)) => ("two", lost),
            // They did not meet: the second one saw the first and added to it.
            (Ok(a), Ok(b)) => {
                assert_eq!(a.revision.max(b.revision), 2, "{round}");
                continue;
            }
            (Err(a), Err(b)) => panic!("{a} {b}"),
        };
        assert_eq!(loser.reason, Reason::EtagMismatch);
        let model = definitions(&store).await.model();
        let language = if winner == "one" { "de" } else { "sv" };
        assert_eq!((model.revision(), model.queues().len()), (1, 122));
        assert!(model.queues().all(|queue| queue.language == language));
    }
}

#[tokio::test]
async fn a_lost_answer_to_the_head_is_read_again() {
    // The first commit writes the objects, the second the head.
    for (faults, succeeds) in [
        (vec![Fault::AnswerLost, Fault::None, Fault::None], true),
        (vec![Fault::RequestLost, Fault::RequestLost, Fault::None, Fault::None], true),
        (vec![Fault::None, Fault::AnswerLost], true),
        (vec![Fault::None, Fault::RequestLost], false),
    ] {
        let inner = store().await;
        let faulty: SharedStore = Arc::new(Faulty::new(Arc::clone(&inner), faults.clone()));
        let unsure = definitions(&faulty).await;
        let outcome = apply_model(&unsure, sample()).await;
        let stored = definitions(&inner).await.model().revision();
        match outcome {
            Ok(response) => assert_eq!((succeeds, response.revision, stored), (true, 1, 1), "{faults:?}"),
            Err(failure) => {
                assert_eq!((succeeds, failure.reason, stored), (false, Reason::OutcomeUnknown, 0), "{faults:?}");
                assert_eq!(apply_model(&unsure, sample()).await.unwrap().revision, 1, "applied again it holds");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tree_of_3000_queues_comes_back_and_small_changes_write_little() {
    let store = store().await;
    let first = definitions(&store).await;
    let mut model = sample();
    model.queues = (0..3000)
        .map(|n| queue(&format!("{NAME} {n}"), vec![address(&format!("q{n}@contoso.example"), NAME)]))
        .collect();
    assert_eq!(apply_model(&first, model.clone()).await.unwrap().changes.len(), 3003);
    let second = definitions(&store).await;
    assert_eq!(wire::model(&first.model()), wire::model(&second.model()));
    assert_eq!(second.model().mailboxes().len(), 3000);

    let before = store.revision().await.unwrap();
    model.queues[1234].priority = 7;
    let response = apply_model(&second, model).await.unwrap();
    assert_eq!(fields(&response), [("queue".into(), format!("{NAME} 1234"), vec!["priority".into()])]);
    let mut changes = store.watch("", crate::store::Revision(before.0 + 1)).await.unwrap();
    let objects = changes.next().await.unwrap();
    assert_eq!(objects.len(), 3, "the queue, its chunk, the manifest");
    assert_eq!(changes.next().await.unwrap().len(), 2, "head and history");
    let third = definitions(&store).await;
    assert_eq!(wire::model(&second.model()), wire::model(&third.model()));
}

#[tokio::test]
async fn a_damaged_or_missing_object_is_told() {
    for damaged in [true, false] {
        let store = store().await;
        let first = definitions(&store).await;
        apply_model(&first, sample()).await.unwrap();
        let page = store.list(key::MODEL_OBJECTS, None, 1).await.unwrap();
        let key = page.entries[0].key.clone();
        let write = match damaged {
            true => store::Write::Put(key, "{}".into()),
            false => store::Write::Delete(key),
        };
        store.commit(vec![], vec![write]).await.unwrap();
        let error = Definitions::load(Arc::clone(&store)).await.unwrap_err();
        assert!(error.to_string().contains("restore the store from a backup"), "{error}");
    }
}

#[tokio::test]
async fn a_newer_format_is_refused() {
    let store = store().await;
    let head = r#"{"format":6,"anything":"else"}"#;
    store.commit(vec![], vec![store::Write::Put(key::MODEL_HEAD.into(), head.into())]).await.unwrap();
    let error = Definitions::load(Arc::clone(&store)).await.unwrap_err();
    assert!(error.to_string().contains("install the newer version"), "{error}");
}

#[tokio::test]
async fn the_view_follows_other_replicas_even_past_compaction() {
    let small: SharedStore = Arc::new(Sqlite::start(&crate::sqlite::Location::Memory, 8).await.unwrap());
    let here = Arc::new(definitions(&small).await);
    let elsewhere = definitions(&small).await;
    let stop = CancellationToken::new();
    let run = {
        let (here, stop) = (Arc::clone(&here), stop.clone());
        tokio::spawn(async move { here.run(stop).await })
    };
    let mut models = here.subscribe();
    for revision in 1..=12u32 {
        let mut model = sample();
        model.queues[0].priority = revision;
        apply_model(&elsewhere, model).await.unwrap();
        for n in 0..20 {
            let write = store::Write::Put("noise".into(), n.to_string().into());
            small.commit(vec![], vec![write]).await.unwrap();
        }
        let arrived = models.wait_for(|model| model.revision() == u64::from(revision));
        tokio::time::timeout(Duration::from_secs(20), arrived).await.expect("the view arrives").unwrap();
        assert_eq!(here.model().queue(NAME).unwrap().priority, revision);
    }
    stop.cancel();
    tokio::time::timeout(Duration::from_secs(20), run).await.unwrap().unwrap();
}

//! Several people and programs that change the model at once, on every store.

use std::collections::BTreeMap;

use futures::future::join_all;

use super::*;
use crate::definition::history;
use crate::store::choice::StoreChoice;
use crate::store::etcd::Etcd;

/// Clients that commit at once.
const CLIENTS: usize = 8;

/// How many commits all clients make together: POSTROOM_TEST_COMMITS, else few enough for every run of the tests.
fn commits() -> u64 {
    std::env::var("POSTROOM_TEST_COMMITS").map_or(320, |count| count.parse().unwrap())
}

pub(super) async fn etcd() -> SharedStore {
    let server = postroom_testbed::etcd::shared().await;
    let line = server.url(&format!("/postroom/{}", uuid::Uuid::new_v4().simple()));
    match line.parse().unwrap() {
        StoreChoice::Etcd(settings) => Arc::new(Etcd::open(&settings).await.unwrap()),
        StoreChoice::Sqlite => panic!("{line}"),
    }
}

pub(super) async fn sqlite() -> (SharedStore, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    (Arc::new(Sqlite::open(&folder.path().join("store.db")).await.unwrap()), folder)
}

#[tokio::test]
async fn of_two_admins_at_once_one_wins_and_the_other_is_told_what_changed_on_sqlite() {
    let (store, _folder) = sqlite().await;
    two_admins(store).await;
}

#[tokio::test]
async fn of_two_admins_at_once_one_wins_and_the_other_is_told_what_changed_on_etcd() {
    two_admins(etcd().await).await;
}

/// Each over a control plane of its own, as far as definitions go.
async fn two_admins(store: SharedStore) {
    let (ada, bob) = (definitions(&store).await, definitions(&store).await);
    apply_model(&ada, sample()).await.unwrap();
    for round in 0..10u64 {
        let seen = ada.refresh().await.unwrap().model.revision();
        let change = |who: &str| {
            let priority = if who == "ada" { 11 } else { 12 } + 2 * u32::try_from(round).unwrap();
            let model = v1::Model { queues: vec![v1::Queue { priority, ..queue(who, vec![]) }], ..Default::default() };
            v1::ApplyModelRequest { model: Some(model), etag: seen.to_string(), ..Default::default() }
        };
        let (one, other) = tokio::join!(send(&ada, change("ada")), send(&bob, change("bob")));
        let (won, winner, told) = match (one, other) {
            (Ok(won), Err(told)) => (won, "ada", told),
            (Err(told), Ok(won)) => (won, "bob", told),
            other => panic!("{other:?}"),
        };
        assert_eq!(won.revision, seen + 1);
        assert_eq!(told.reason, Reason::EtagMismatch);
        assert!(told.message.contains(&format!("from revision {seen} to {}", seen + 1)), "{}", told.message);
        assert!(told.message.contains(&format!("queue {winner:?}")), "{}", told.message);
        for definitions in [&ada, &bob] {
            let model = definitions.refresh().await.unwrap().model.clone();
            assert_eq!(model.revision(), seen + 1, "nothing of the other's is there");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn history_replays_to_the_final_model_after_many_commits_at_once_on_sqlite() {
    let (store, _folder) = sqlite().await;
    commit_at_once("sqlite", store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn history_replays_to_the_final_model_after_many_commits_at_once_on_etcd() {
    commit_at_once("etcd", etcd().await).await;
}

async fn commit_at_once(name: &str, store: SharedStore) {
    let (count, begun) = (commits(), tokio::time::Instant::now());
    apply_model(&definitions(&store).await, sample()).await.unwrap();
    let clients = (0..CLIENTS).map(|client| tokio::spawn(changes(store.clone(), client, count / CLIENTS as u64)));
    let refused: u64 = join_all(clients).await.into_iter().map(Result::unwrap).sum();
    let (took, newest) = (begun.elapsed(), 1 + count / CLIENTS as u64 * CLIENTS as u64);
    println!("{name}: {} commits by {CLIENTS} clients in {took:.1?}, {refused} refused and repeated", newest - 1);

    let definitions = definitions(&store).await;
    assert_eq!(definitions.model().revision(), newest, "one revision a commit, and no other");
    let mut replayed = State::new();
    for revision in 1..=newest {
        let head = history::head(&*store, revision).await.unwrap().expect("every revision is there");
        assert_eq!((head.revision, head.parent), (revision, revision - 1));
        let changes = history::between(&*store, head.parent, revision).await.unwrap().unwrap();
        assert!(!changes.is_empty(), "revision {revision} changed nothing");
        changes.into_iter().for_each(|change| replay(&mut replayed, change));
    }
    let mut stored = State::new();
    let whole = history::between(&*store, 0, newest).await.unwrap().unwrap();
    whole.into_iter().for_each(|change| replay(&mut stored, change));
    assert_eq!(replayed, stored);
    let queues = replayed.keys().filter(|(noun, _)| noun == "queue").count();
    assert_eq!(queues, definitions.model().queues().count());
    println!("{name}: {newest} revisions replayed in {:.1?}", begun.elapsed() - took);
}

/// Changes the model again and again on the newest revision it can see. Answers how often somebody else was quicker.
async fn changes(store: SharedStore, client: usize, count: u64) -> u64 {
    let (definitions, ledger, vault) = (definitions(&store).await, ledger().await, vault(1));
    let author = Author { name: format!("client-{client}"), ..author() };
    let mut refused = 0;
    for number in 0..count {
        loop {
            let seen = definitions.refresh().await.unwrap().model.revision();
            let request = v1::ApplyModelRequest { etag: seen.to_string(), ..change(client, number) };
            let ground = Ground { definitions: &definitions, vault: &vault, ledger: &ledger };
            match apply(ground, request, &author).await {
                Ok(answer) => {
                    assert!(answer.revision > seen);
                    break;
                }
                Err(failure) => assert_eq!(failure.reason, Reason::EtagMismatch, "{}", failure.message),
            }
            refused += 1;
        }
    }
    refused
}

/// A queue comes, changes, gets an address, loses it and goes.
fn change(client: usize, number: u64) -> v1::ApplyModelRequest {
    let name = format!("queue-{client}-{}", number / 5);
    let mailbox = address(&format!("box-{client}@contoso.example"), NAME);
    let queue = |priority, addresses| v1::Queue { priority, ..queue(&name, addresses) };
    let queue = match number % 5 {
        0 => queue(1, vec![]),
        1 => queue(7, vec![]),
        2 => queue(7, vec![mailbox]),
        3 => queue(7, vec![]),
        _ => {
            let removals = vec![v1::DefinitionName { noun: "queue".into(), name }];
            return v1::ApplyModelRequest { removals, ..Default::default() };
        }
    };
    let model = v1::Model { queues: vec![queue], ..Default::default() };
    v1::ApplyModelRequest { model: Some(model), ..Default::default() }
}

/// Fields by definition; those that are not set are missing.
type State = BTreeMap<(String, String), BTreeMap<String, String>>;

/// Makes a change, which must fit what it finds.
fn replay(state: &mut State, change: v1::Change) {
    use v1::change::Kind;
    let (kind, key) = (change.kind(), (change.noun, change.name));
    match kind {
        Kind::Create => assert!(state.insert(key.clone(), BTreeMap::new()).is_none(), "{key:?} was there"),
        Kind::Delete => return assert!(state.remove(&key).is_some(), "{key:?} was not there"),
        Kind::Update | Kind::Unspecified => {}
    }
    let fields = state.get_mut(&key).unwrap_or_else(|| panic!("{key:?} is not there"));
    for field in change.fields {
        let before = fields.remove(&field.field).unwrap_or_default();
        assert_eq!(before, field.old_value, "{key:?} {}", field.field);
        if !field.new_value.is_empty() {
            fields.insert(field.field, field.new_value);
        }
    }
}

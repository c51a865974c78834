//! Many installations in one etcd, many keys in one installation, and the largest commit.

use super::*;
use crate::store::{MAX_COMMIT_BYTES, MAX_WRITES, Write};

#[tokio::test]
async fn two_installations_in_one_etcd_see_nothing_of_each_other() {
    let server = etcd::shared().await;
    let (one, other) = (open(server).await, open(server).await);
    let mut watch = other.watch("", from_now(&other).await).await.unwrap();
    assert_ne!(one.name().await.unwrap(), other.name().await.unwrap());
    assert_eq!(next(&mut watch).await, [other.id().await.unwrap().unwrap()]);
    write(&one, "a", "1").await;
    assert_eq!(other.get("a").await.unwrap(), None);
    assert_eq!(other.get_many(&["a".into()]).await.unwrap(), [None]);
    write(&other, "b", "2").await;
    assert_eq!(next(&mut watch).await, ["2"], "what the other one writes is not told");
    let keys = async |store: &Etcd| {
        let page = store.list("", None, 10).await.unwrap();
        page.entries.into_iter().map(|entry| entry.key).collect::<Vec<_>>()
    };
    assert_eq!(
        (keys(&one).await, keys(&other).await),
        (vec!["a".into(), "store/id".into()], vec!["b".into(), "store/id".into()])
    );
    let tenure = one.tenure("leader", "x".into(), Duration::from_secs(5), false).await.unwrap();
    assert!(tenure.is_some() && other.get("leader").await.unwrap().is_none());
    for line in server.dump("/postroom").await.unwrap().lines().filter(|line| line.ends_with("/store/id")) {
        assert!(line.starts_with("/postroom/"), "{line}");
    }
}

#[tokio::test]
async fn many_keys_come_page_by_page() {
    let store = open(etcd::shared().await).await;
    let keys: Vec<String> = (0..2500).map(|n| format!("p/{n:05}")).collect();
    for some in keys.chunks(MAX_WRITES) {
        committed(&store, vec![], some.iter().map(|key| put(key, "x")).collect()).await;
    }
    for limit in [1000, 500, 499] {
        let (mut found, mut after) = (Vec::new(), None::<String>);
        loop {
            let page = store.list("p/", after.as_deref(), limit).await.unwrap();
            assert!(page.entries.len() <= limit);
            found.extend(page.entries.into_iter().map(|entry| entry.key));
            after = found.last().cloned();
            if !page.more {
                break;
            }
        }
        assert_eq!(found, keys);
    }
    assert_eq!(store.list("p/", None, 5000).await.unwrap().entries.len(), 1000, "never more than that");
}

#[tokio::test]
async fn the_largest_commit_fits_into_a_request_and_into_a_message_of_a_watch() {
    let server = etcd::shared().await;
    let long = EtcdSettings { prefix: format!("/postroom/{}/", "x".repeat(89)), ..settings(server) };
    let store = Etcd::open(&long).await.unwrap();
    let from = from_now(&store).await;
    for round in 0..8u8 {
        let key = |n: usize| format!("k{n:03}");
        let free = MAX_COMMIT_BYTES - MAX_WRITES * 8;
        let writes = (0..MAX_WRITES).map(|n| Write::Put(key(n), vec![round; free / MAX_WRITES].into())).collect();
        let guards = (0..MAX_WRITES).map(|n| Guard::Absent(format!("g{n:03}"))).collect();
        committed(&store, guards, writes).await;
    }
    // 8 MiB come at once, twice what gRPC reads unless it is told otherwise.
    let mut watch = store.watch("", from).await.unwrap();
    for _ in 0..8 {
        assert_eq!(within(PATIENCE, &mut watch).await.unwrap().unwrap().len(), MAX_WRITES);
    }
    let keys: Vec<String> = (0..MAX_WRITES).map(|n| format!("k{n:03}")).collect();
    assert!(store.get_many(&keys).await.unwrap().iter().all(Option::is_some));
}

//! A watch over everything that can happen to its stream.

use super::*;
use crate::store::SharedStore;

#[tokio::test]
async fn a_watch_goes_on_over_a_restart() {
    let server = Server::single().await.unwrap();
    let store = quick(&server).await;
    let mut watch = store.watch("w/", from_now(&store).await).await.unwrap();
    for round in 0..3 {
        let value = |what: &str| format!("{what} {round}");
        write(&store, "w/a", &value("before")).await;
        assert_eq!(next(&mut watch).await, [value("before")]);
        server.kill(0).await.unwrap();
        // Nothing comes, and nothing is told of it, for as long as it takes.
        assert!(within(Duration::from_millis(300), &mut watch).await.is_none());
        server.restart(0).await.unwrap();
        write(&store, "w/a", &value("after")).await;
        assert_eq!(next(&mut watch).await, [value("after")]);
    }
}

#[tokio::test]
async fn a_watch_waits_between_its_attempts() {
    let server = Server::single().await.unwrap();
    let store = quick(&server).await;
    let mut watch = store.watch("w/", from_now(&store).await).await.unwrap();
    assert!(within(Duration::from_millis(100), &mut watch).await.is_none());
    server.kill(0).await.unwrap();
    // A stream that broke says so again and again, at once. Every attempt would be a turn of this loop.
    let turns = std::sync::atomic::AtomicU32::new(0);
    let counted = std::future::poll_fn(|context| {
        turns.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        std::pin::pin!(watch.next()).poll(context).map(drop)
    });
    assert!(tokio::time::timeout(Duration::from_secs(2), counted).await.is_err());
    let turns = turns.into_inner();
    assert!(turns < 200, "polled {turns} times");
}

#[tokio::test]
async fn a_watch_goes_on_when_another_member_leads() {
    let server = Server::start(Options { members: 3, ..Options::default() }).await.unwrap();
    let store = quick(&server).await;
    let mut watch = store.watch("w/", from_now(&store).await).await.unwrap();
    for n in 0..30 {
        if n % 10 == 5 {
            server.move_leader().await.unwrap();
        }
        if n == 20 {
            server.kill(store.members.preferred()).await.unwrap();
        }
        write(&store, "w/a", &n.to_string()).await;
        // One that was not answered may have been written twice.
        while next(&mut watch).await != [n.to_string()] {}
    }
}

#[tokio::test]
async fn a_watch_leaves_a_member_that_is_frozen() {
    let server = Server::start(Options { members: 3, ..Options::default() }).await.unwrap();
    let store = quick(&server).await;
    let mut watch = store.watch("w/", from_now(&store).await).await.unwrap();
    write(&store, "w/a", "1").await;
    assert_eq!(next(&mut watch).await, ["1"]);
    // The connection stays and says nothing, as one does whose other end lost power.
    let frozen = store.members.preferred();
    server.pause(frozen).await.unwrap();
    let others = EtcdSettings {
        endpoints: (0..3).filter(|n| *n != frozen).map(|n| server.endpoint(n)).collect(),
        prefix: store.prefix.clone(),
        ..settings(&server)
    };
    let other = Etcd::open_with(&others, QUICK).await.unwrap();
    write(&other, "w/a", "2").await;
    assert_eq!(next(&mut watch).await, ["2"]);
    server.resume(frozen).await.unwrap();
}

#[tokio::test]
async fn a_watch_that_waits_for_a_frozen_etcd_goes_on_with_it() {
    let server = Server::single().await.unwrap();
    let store = quick(&server).await;
    let mut watch = store.watch("w/", from_now(&store).await).await.unwrap();
    assert!(within(Duration::from_millis(100), &mut watch).await.is_none());
    server.pause(0).await.unwrap();
    assert!(within(QUICK.silence * 2, &mut watch).await.is_none());
    server.resume(0).await.unwrap();
    write(&store, "w/a", "1").await;
    assert_eq!(next(&mut watch).await, ["1"]);
}

#[tokio::test]
async fn a_quiet_watch_stays_on_its_stream() {
    let store = quick(etcd::shared().await).await;
    let mut watch = watch::Follower::start(&store, "w/", from_now(&store).await).await.unwrap();
    assert!(tokio::time::timeout(QUICK.silence * 3, watch.next()).await.is_err());
    assert_eq!(watch.streams(), 1, "it was asked, and has answered");
}

#[tokio::test]
async fn a_watch_that_fell_behind_is_told() {
    let server = Server::single().await.unwrap();
    let store: SharedStore = Arc::new(open(&server).await);
    suite::compaction_ends_a_watch(store, 20, async || _ = server.compact().await.unwrap()).await;
}

#[tokio::test]
async fn compaction_under_a_live_watch_is_not_noticed() {
    let server = Server::single().await.unwrap();
    let store = quick(&server).await;
    let mut watch = store.watch("w/", from_now(&store).await).await.unwrap();
    for n in 0..10 {
        write(&store, "w/a", &n.to_string()).await;
        assert_eq!(next(&mut watch).await, [n.to_string()]);
        server.compact().await.unwrap();
    }
    // It could go on after a restart, since nothing that it has not told is gone.
    server.restart(0).await.unwrap();
    write(&store, "w/a", "after").await;
    assert_eq!(next(&mut watch).await, ["after"]);
}

#[tokio::test]
async fn a_removal_in_the_last_revision_that_was_compacted_is_not_missed() {
    let server = Server::single().await.unwrap();
    let store = quick(&server).await;
    write(&store, "w/a", "1").await;
    let removed = committed(&store, vec![], vec![Write::Delete("w/a".into())]).await;
    let mut live = store.watch("w/", removed).await.unwrap();
    assert_eq!(server.compact().await.unwrap(), removed.0);
    // etcd would accept a watch from there, and would not tell of the removal.
    assert!(matches!(store.watch("w/", removed).await, Err(Error::Compacted { oldest }) if oldest > removed));
    match within(PATIENCE, &mut live).await.unwrap() {
        Ok(changes) => assert_eq!(changes[0].value, None),
        Err(error) => assert!(matches!(error, Error::Compacted { .. }), "{error:?}"),
    }
}

#[tokio::test]
async fn a_store_that_was_lost_or_set_back_under_a_watch_is_listed_anew() {
    let server = Server::single().await.unwrap();
    let store = quick(&server).await;
    write(&store, "w/a", "1").await;
    let saved = tempfile::NamedTempFile::new().unwrap();
    server.save(saved.path()).await.unwrap();
    let mut watch = store.watch("w/", from_now(&store).await).await.unwrap();
    for n in 0..5 {
        write(&store, "w/a", &n.to_string()).await;
        next(&mut watch).await;
    }
    let before = store.revision().await.unwrap();
    server.restore(saved.path()).await.unwrap();
    let Err(Error::WentBack { seen, found }) = within(PATIENCE, &mut watch).await.unwrap() else { panic!("not told") };
    assert!(found < before && seen == before);

    let mut watch = store.watch("w/", from_now(&store).await).await.unwrap();
    write(&store, "w/a", "again").await;
    assert_eq!(next(&mut watch).await, ["again"]);
    server.wipe().await.unwrap();
    assert!(matches!(within(PATIENCE, &mut watch).await.unwrap(), Err(Error::WentBack { .. })));
    assert_eq!(store.get("w/a").await.unwrap(), None);
}

#[tokio::test]
async fn a_watch_that_is_left_again_and_again_loses_nothing() {
    let store = quick(etcd::shared().await).await;
    let mut watch = store.watch("w/", from_now(&store).await).await.unwrap();
    let writer = {
        let store = store.clone();
        tokio::spawn(async move {
            for n in 0..200 {
                committed(&store, vec![], vec![put("w/a", &n.to_string())]).await;
            }
        })
    };
    let mut found = Vec::new();
    while found.len() < 200 {
        if let Some(changes) = within(Duration::from_micros(300), &mut watch).await {
            found.extend(changes.unwrap().into_iter().map(|change| change.value.unwrap()));
        }
    }
    writer.await.unwrap();
    assert_eq!(found, (0..200).map(|n| n.to_string()).collect::<Vec<_>>());
}

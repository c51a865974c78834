//! Tenures: kept as long as they are renewed, lost without a word when etcd stalls.

use super::*;

const TTL: Duration = Duration::from_secs(1);

#[tokio::test]
async fn a_tenure_stands_while_it_is_renewed_and_goes_when_it_is_not() {
    let store = quick(etcd::shared().await).await;
    let mut held = store.tenure("t", "one".into(), TTL, false).await.unwrap().unwrap();
    for _ in 0..6 {
        tokio::time::sleep(TTL / 3).await;
        assert!(held.renew().await.unwrap());
        assert!(store.tenure("t", "two".into(), TTL, false).await.unwrap().is_none(), "somebody holds it");
    }
    drop(held);
    let free = tokio::time::timeout(PATIENCE, async {
        loop {
            if let Some(held) = store.tenure("t", "two".into(), TTL, false).await.unwrap() {
                return held;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    let held = free.await.unwrap();
    assert_eq!(store.get("t").await.unwrap().unwrap().mod_revision, held.revision());
}

#[tokio::test]
async fn the_successor_of_a_dead_process_need_not_wait_for_its_lease() {
    let store = open(etcd::shared().await).await;
    let mut dead = store.tenure("t", "dead".into(), Duration::from_secs(3600), false).await.unwrap().unwrap();
    let mut held = store.tenure("t", "alive".into(), TTL, true).await.unwrap().unwrap();
    assert!(!dead.renew().await.unwrap());
    // What the dead one would still do when its lease ends takes nothing away.
    dead.resign().await;
    assert!(held.renew().await.unwrap());
}

#[tokio::test]
async fn a_tenure_that_was_deleted_under_it_is_lost() {
    let server = etcd::shared().await;
    let store = open(server).await;
    let mut held = store.tenure("t", "x".into(), TTL, false).await.unwrap().unwrap();
    server.clear(&store.prefix).await.unwrap();
    assert!(!held.renew().await.unwrap());
}

#[tokio::test]
async fn a_tenure_whose_lease_ended_while_etcd_stalled_is_lost() {
    let server = Server::single().await.unwrap();
    let store = quick(&server).await;
    let mut held = store.tenure("t", "x".into(), TTL, false).await.unwrap().unwrap();
    server.pause(0).await.unwrap();
    assert!(held.renew().await.is_err(), "silence says nothing");
    tokio::time::sleep(TTL * 3).await;
    server.resume(0).await.unwrap();
    let lost = tokio::time::timeout(PATIENCE, async {
        loop {
            match held.renew().await {
                Ok(held) => return held,
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    });
    assert!(!lost.await.unwrap(), "an answer, without an error, that it is gone");
    assert!(store.tenure("t", "y".into(), TTL, false).await.unwrap().is_some());
}

#[tokio::test]
async fn a_restart_of_etcd_keeps_a_tenure() {
    let server = Server::single().await.unwrap();
    let store = open(&server).await;
    let mut held = store.tenure("t", "x".into(), Duration::from_secs(60), false).await.unwrap().unwrap();
    server.restart(0).await.unwrap();
    let kept = tokio::time::timeout(PATIENCE, async {
        loop {
            match held.renew().await {
                Ok(held) => return held,
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    });
    assert!(kept.await.unwrap());
}

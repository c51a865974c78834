//! Members that are dead or frozen, and commits of which nobody knows what became.

use super::*;

#[tokio::test]
async fn a_member_that_is_dead_from_the_start_costs_nothing() {
    let server = etcd::shared().await;
    let mut half_dead = settings(server);
    let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    half_dead.endpoints.insert(0, dead.to_string());
    let store = Etcd::open(&half_dead).await.unwrap();
    for n in 0..100 {
        committed(&store, vec![], vec![put("a", &n.to_string())]).await;
        assert_eq!(store.get("a").await.unwrap().unwrap().value, n.to_string());
    }
    let mut watch = store.watch("", from_now(&store).await).await.unwrap();
    write(&store, "a", "watched").await;
    assert_eq!(next(&mut watch).await, ["watched"]);
}

#[tokio::test]
async fn where_nobody_answers_the_members_are_named() {
    let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let line = format!("etcd://{dead},localhost:1");
    let StoreChoice::Etcd(settings) = line.parse().unwrap() else { panic!("{line}") };
    let times = Times { read: Duration::from_millis(300), ..QUICK };
    let error = Etcd::open_with(&settings, times).await.unwrap_err();
    let told = crate::failure::chain(&error);
    assert!(told.contains(&format!("{dead},localhost:1")), "{told}");
    assert!(matches!(error, Error::Backend { attempt: "open", .. }));
}

#[tokio::test]
async fn a_commit_that_is_not_answered_is_unknown_and_one_that_never_left_is_refused() {
    let server = Server::single().await.unwrap();
    let store = quick(&server).await;
    let guard = || vec![Guard::Absent("a".into())];
    server.pause(0).await.unwrap();
    assert_eq!(store.commit(guard(), vec![put("a", "1")]).await.unwrap(), Outcome::Unknown);
    server.resume(0).await.unwrap();
    // Whatever became of it, it happened once or not at all.
    let found = store.get("a").await.unwrap();
    match (found, store.commit(guard(), vec![put("a", "2")]).await.unwrap()) {
        (None, Outcome::Committed(_)) | (Some(_) | None, Outcome::Conflict) => {}
        other => panic!("{other:?}"),
    }
    let before = store.get("a").await.unwrap().unwrap();

    // The connection breaks now and then before it is noticed; what is sent afterwards finds nobody.
    server.kill(0).await.unwrap();
    let refused = tokio::time::timeout(PATIENCE, async {
        loop {
            match store.commit(vec![], vec![put("b", "1")]).await {
                Ok(Outcome::Unknown) => tokio::time::sleep(Duration::from_millis(20)).await,
                other => return other,
            }
        }
    });
    let error = refused.await.unwrap().unwrap_err();
    assert!(crate::failure::chain(&error).contains(&server.endpoint(0)), "{error}");
    // A reading waits for the restart.
    let (read, restarted) = tokio::join!(store.get("a"), server.restart(0));
    restarted.unwrap();
    assert_eq!(read.unwrap().unwrap(), before);
    assert_eq!(store.get("b").await.unwrap(), None, "an error says that nothing was written");
}

#[tokio::test]
async fn a_restart_keeps_all() {
    let server = Server::single().await.unwrap();
    let (settings, mut opened) = (settings(&server), 0);
    suite::restart_keeps_all(|| {
        opened += 1;
        let (server, settings, again) = (&server, &settings, opened > 1);
        async move {
            if again {
                server.restart(0).await.unwrap();
            }
            Etcd::open(settings).await.unwrap()
        }
    })
    .await;
}

#[tokio::test]
async fn a_full_etcd_takes_nothing_more_and_says_so_in_the_log() {
    let server = Server::start(Options { quota_bytes: Some(4 * 1024 * 1024), ..Options::default() }).await.unwrap();
    let store = quick(&server).await;
    let large = |n: usize| vec![Write::Put(format!("l{n}"), vec![1u8; 1024 * 1000].into())];
    let mut written = 0;
    let full = loop {
        match store.commit(vec![], large(written)).await.unwrap() {
            Outcome::Committed(_) => written += 1,
            other => break other,
        }
        assert!(written < 100);
    };
    assert_eq!(full, Outcome::Unknown, "etcd says so also of what it has written");
    assert!(store.get(&format!("l{}", written - 1)).await.unwrap().is_some());
}

//! The suite on both kinds of SQLite store, and what only SQLite can do wrong.

use sqlx::ConnectOptions as _;

use super::*;
use crate::store::SharedStore;
use crate::store::suite::{self, committed, conformance, put};

conformance!(memory, async { (Sqlite::memory().await.unwrap(), ()) });
conformance!(file, async {
    let dir = tempfile::tempdir().unwrap();
    (Sqlite::open(&dir.path().join("store.db")).await.unwrap(), dir)
});

#[tokio::test]
async fn a_watch_that_falls_behind_is_told() {
    let dir = tempfile::tempdir().unwrap();
    for location in [Location::Memory, Location::File(dir.path().join("store.db"))] {
        let store: SharedStore = Arc::new(Sqlite::start(&location, 20).await.unwrap());
        suite::compaction_ends_a_watch(store, 60, async || {}).await;
    }
}

#[tokio::test]
async fn a_restart_keeps_all() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.db");
    suite::restart_keeps_all(|| async { Sqlite::open(&path).await.unwrap() }).await;
}

#[tokio::test]
async fn closing_waits_for_what_is_under_way() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.db");
    let store = Arc::new(Sqlite::open(&path).await.unwrap());
    let key = |n: usize| format!("k{n}");
    let commits = (0..100).map(|n| {
        let store = Arc::clone(&store);
        tokio::spawn(async move { store.commit(vec![], vec![put(&key(n), "x")]).await })
    });
    let commits: Vec<_> = commits.collect();
    tokio::task::yield_now().await;
    tokio::time::timeout(Duration::from_secs(20), store.close()).await.unwrap();
    assert!(store.commit(vec![], vec![put("late", "x")]).await.is_err());
    assert!(store.get("k0").await.is_err());
    assert!(!path.with_extension("db-wal").exists(), "the log was taken into the file");

    let again = Sqlite::open(&path).await.unwrap();
    for (n, commit) in commits.into_iter().enumerate() {
        let kept = again.get(&key(n)).await.unwrap().is_some();
        assert_eq!(matches!(commit.await.unwrap(), Ok(Outcome::Committed(_))), kept, "{n}");
    }
    assert_eq!(again.get("late").await.unwrap(), None);
}

#[tokio::test]
async fn a_watch_ends_when_the_store_is_closed() {
    let store = Sqlite::memory().await.unwrap();
    let mut watch = store.watch("", Revision(0)).await.unwrap();
    let (ended, ()) = tokio::join!(tokio::time::timeout(Duration::from_secs(20), watch.next()), store.close());
    assert!(matches!(ended.unwrap(), Err(Error::Backend { .. })));
}

/// COMMIT is made to fail by a foreign key that is checked only there.
#[tokio::test]
async fn a_commit_that_fails_at_its_end_is_unknown_and_the_next_one_works() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.db");
    let store = Sqlite::open(&path).await.unwrap();
    let mut other = sqlx::sqlite::SqliteConnectOptions::new().filename(&path).connect().await.unwrap();
    for sql in [
        "CREATE TABLE parent (id INTEGER PRIMARY KEY)",
        "CREATE TABLE child (id INTEGER REFERENCES parent DEFERRABLE INITIALLY DEFERRED)",
        "CREATE TRIGGER poison AFTER INSERT ON kv WHEN NEW.key = 'poison' BEGIN INSERT INTO child VALUES (1); END",
    ] {
        sqlx::query(sql).execute(&mut other).await.unwrap();
    }
    let before = committed(&store, vec![], vec![put("a", "1")]).await;
    assert_eq!(store.commit(vec![], vec![put("poison", "x")]).await.unwrap(), Outcome::Unknown);
    assert_eq!(store.get("poison").await.unwrap(), None);
    assert!(committed(&store, vec![Guard::Unchanged("a".into(), before)], vec![put("a", "2")]).await > before);
}

/// A job that fails by itself is certainly not written, and its neighbours are.
#[tokio::test]
async fn a_write_that_fails_is_undone_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.db");
    let store = Sqlite::open(&path).await.unwrap();
    let mut other = sqlx::sqlite::SqliteConnectOptions::new().filename(&path).connect().await.unwrap();
    let trigger = "CREATE TRIGGER refuse AFTER INSERT ON kv WHEN NEW.key = 'bad' BEGIN SELECT RAISE(ABORT, 'no'); END";
    sqlx::query(trigger).execute(&mut other).await.unwrap();
    let (good, bad, also) = tokio::join!(
        store.commit(vec![], vec![put("one", "1")]),
        store.commit(vec![], vec![put("half", "1"), put("bad", "1")]),
        store.commit(vec![], vec![put("two", "1")]),
    );
    assert!(matches!((good, also), (Ok(Outcome::Committed(_)), Ok(Outcome::Committed(_)))));
    assert!(matches!(bad, Err(Error::Backend { .. })));
    assert_eq!(store.get("half").await.unwrap(), None);
    assert!(store.get("two").await.unwrap().is_some());
}

#[tokio::test]
async fn a_store_of_a_newer_version_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.db");
    Sqlite::open(&path).await.unwrap().close().await;
    let mut other = sqlx::sqlite::SqliteConnectOptions::new().filename(&path).connect().await.unwrap();
    let newer = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
                 VALUES (99, 'later', 1, x'00', 0)";
    sqlx::query(newer).execute(&mut other).await.unwrap();
    let error = Sqlite::open(&path).await.unwrap_err();
    assert!(matches!(error, Error::NewerSchema { found: 99, known: 1 }), "{error:?}");
}

#[tokio::test]
async fn a_lost_answer_and_a_lost_request_look_alike() {
    let store: SharedStore = Arc::new(Sqlite::memory().await.unwrap());
    let faulty = suite::Faulty::new(Arc::clone(&store), [suite::Fault::AnswerLost, suite::Fault::RequestLost]);
    for (key, there) in [("a", true), ("b", false)] {
        assert_eq!(faulty.commit(vec![], vec![put(key, "1")]).await.unwrap(), Outcome::Unknown);
        assert_eq!(store.get(key).await.unwrap().is_some(), there);
    }
    assert!(matches!(faulty.commit(vec![], vec![put("b", "1")]).await.unwrap(), Outcome::Committed(_)));
}

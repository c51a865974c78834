//! What every back end must do, one behaviour a function.
//!
//! [`conformance!`] makes a test of each for one back end. A behaviour takes a new, empty store. Others may commit beside
//! it, out of its sight, so that revisions can be further than its own commits.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::Duration;

use super::*;

/// Long enough for a loaded machine; reached only when something hangs.
const PATIENCE: Duration = Duration::from_secs(20);

/// Makes one test of every behaviour. `$open` is an expression that gives a new, empty store, and what must live as
/// long as it.
macro_rules! conformance {
    ($back_end:ident, $open:expr) => {
        mod $back_end {
            use super::*;
            conformance!(@each $open; guards_decide writes_of_a_commit_stand_or_fall_together losers_abort_nobody
                one_of_two_racing_writers_wins limits_are_refused pages_of_a_listing prefixes_are_not_patterns
                mod_revisions_never_go_back watch_from_a_revision watch_wakes_up watch_tells_removals
                watch_survives_a_slow_reader commits_come_whole_to_a_watch any_text_is_a_key many_keys_of_one_moment
                a_name_stays a_tenure_is_of_one);
        }
    };
    (@each $open:expr; $($behaviour:ident)*) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $behaviour() {
            let (store, _alive) = $open.await;
            let store: crate::store::SharedStore = std::sync::Arc::new(store);
            crate::store::suite::$behaviour(store).await;
        })*
    };
}
pub(crate) use conformance;

pub(crate) fn put(key: &str, value: &str) -> Write {
    Write::Put(key.into(), Bytes::copy_from_slice(value.as_bytes()))
}

fn delete(key: &str) -> Write {
    Write::Delete(key.into())
}

fn absent(key: &str) -> Guard {
    Guard::Absent(key.into())
}

fn unchanged(key: &str, revision: Revision) -> Guard {
    Guard::Unchanged(key.into(), revision)
}

pub(crate) async fn committed(store: &dyn Store, guards: Vec<Guard>, writes: Vec<Write>) -> Revision {
    match store.commit(guards, writes).await.unwrap() {
        Outcome::Committed(revision) => revision,
        other => panic!("{other:?}"),
    }
}

async fn conflicts(store: &dyn Store, guards: Vec<Guard>, writes: Vec<Write>) {
    assert_eq!(store.commit(guards, writes).await.unwrap(), Outcome::Conflict);
}

async fn value(store: &dyn Store, key: &str) -> Option<String> {
    let entry = store.get(key).await.unwrap()?;
    assert_eq!(entry.key, key);
    Some(String::from_utf8(entry.value.to_vec()).unwrap())
}

async fn next(watch: &mut Box<dyn Watch>) -> Vec<Change> {
    tokio::time::timeout(PATIENCE, watch.next()).await.expect("a change").unwrap()
}

pub(crate) async fn guards_decide(store: SharedStore) {
    let store = store.as_ref();
    conflicts(store, vec![unchanged("a", Revision(1))], vec![put("a", "0")]).await;
    let first = committed(store, vec![absent("a")], vec![put("a", "1")]).await;
    conflicts(store, vec![absent("a")], vec![put("a", "2")]).await;
    let second = committed(store, vec![unchanged("a", first), absent("b")], vec![put("a", "2")]).await;
    assert!(second > first);
    conflicts(store, vec![unchanged("a", first)], vec![put("a", "3")]).await;
    conflicts(store, vec![unchanged("a", second), unchanged("b", first)], vec![delete("a")]).await;
    assert_eq!(value(store, "a").await.as_deref(), Some("2"));
    assert!(store.revision().await.unwrap() >= second);
    // A guard may stand on a key that is not written, and on one that another key guards too.
    committed(store, vec![unchanged("a", second), absent("c")], vec![put("c", "")]).await;
    assert_eq!(value(store, "c").await.as_deref(), Some(""));
}

pub(crate) async fn writes_of_a_commit_stand_or_fall_together(store: SharedStore) {
    let store = store.as_ref();
    let first = committed(store, vec![], vec![put("a", "1"), put("b", "1"), delete("nothing")]).await;
    for key in ["a", "b"] {
        assert_eq!(store.get(key).await.unwrap().unwrap().mod_revision, first);
    }
    conflicts(store, vec![absent("a")], vec![put("c", "1"), delete("b")]).await;
    assert_eq!((value(store, "b").await.as_deref(), value(store, "c").await), (Some("1"), None));
}

pub(crate) async fn losers_abort_nobody(store: SharedStore) {
    let taken = committed(&*store, vec![], vec![put("taken", "1")]).await;
    let attempt = |n: usize| {
        let store = Arc::clone(&store);
        async move {
            let guard = if n.is_multiple_of(3) { absent("taken") } else { unchanged("taken", taken) };
            store.commit(vec![guard], vec![put(&format!("k{n}"), "x")]).await.unwrap()
        }
    };
    let outcomes = futures::future::join_all((0..60).map(attempt)).await;
    let mut revisions = Vec::new();
    for (n, outcome) in outcomes.into_iter().enumerate() {
        match outcome {
            Outcome::Committed(revision) => {
                let entry = store.get(&format!("k{n}")).await.unwrap().unwrap();
                assert_eq!(entry.mod_revision, revision);
                revisions.push(revision);
            }
            Outcome::Conflict => assert!(n.is_multiple_of(3)),
            Outcome::Unknown => panic!("unknown"),
        }
    }
    assert_eq!(revisions.len(), 40);
    revisions.sort_unstable();
    revisions.dedup();
    assert_eq!(revisions.len(), 40, "every commit has a revision of its own");
}

pub(crate) async fn one_of_two_racing_writers_wins(store: SharedStore) {
    let mut revision = committed(&*store, vec![], vec![put("n", "start")]).await;
    for round in 0..30 {
        let race = |name: &'static str| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                let value = format!("{name}{round}");
                (value.clone(), store.commit(vec![unchanged("n", revision)], vec![put("n", &value)]).await.unwrap())
            })
        };
        let (a, b) = tokio::join!(race("a"), race("b"));
        let (a, b) = (a.unwrap(), b.unwrap());
        let (winner, won) = match (a.1, b.1) {
            (Outcome::Committed(won), Outcome::Conflict) => (a.0, won),
            (Outcome::Conflict, Outcome::Committed(won)) => (b.0, won),
            other => panic!("{other:?}"),
        };
        assert_eq!(value(&*store, "n").await, Some(winner));
        revision = won;
    }
}

pub(crate) async fn limits_are_refused(store: SharedStore) {
    let store = store.as_ref();
    let many = |count: usize| (0..count).map(|n| put(&format!("k{n:03}"), "x")).collect::<Vec<_>>();
    let guards = |count: usize| (0..count).map(|n| absent(&format!("g{n:03}"))).collect::<Vec<_>>();
    let error = store.commit(vec![], many(MAX_WRITES + 1)).await.unwrap_err();
    assert!(matches!(error, Error::TooLarge { writes: 101, .. }), "{error:?}");
    let error = store.commit(guards(MAX_WRITES + 1), vec![]).await.unwrap_err();
    assert!(matches!(error, Error::TooLarge { guards: 101, .. }), "{error:?}");
    let large = |bytes: usize| Write::Put("large".into(), vec![7u8; bytes].into());
    let error = store.commit(vec![], vec![large(MAX_COMMIT_BYTES - 4)]).await.unwrap_err();
    assert!(matches!(error, Error::TooLarge { bytes, .. } if bytes == MAX_COMMIT_BYTES + 1), "{error:?}");
    let error = store.commit(vec![], vec![put("a", "1"), delete("a")]).await.unwrap_err();
    assert!(matches!(error, Error::WrittenTwice(key) if key == "a"));
    assert!(store.list("", None, 10).await.unwrap().entries.is_empty(), "nothing was written");

    committed(store, guards(MAX_WRITES), many(MAX_WRITES)).await;
    committed(store, vec![], vec![large(MAX_COMMIT_BYTES - 5)]).await;
    assert_eq!(store.get("large").await.unwrap().unwrap().value.len(), MAX_COMMIT_BYTES - 5);
}

pub(crate) async fn pages_of_a_listing(store: SharedStore) {
    let store = store.as_ref();
    let empty = store.list("p/", None, 5).await.unwrap();
    assert_eq!((empty.entries.len(), empty.more), (0, false));
    for n in 0..12 {
        committed(store, vec![], vec![put(&format!("p/{n:02}"), &n.to_string()), put(&format!("q/{n}"), "")]).await;
    }
    let newest = committed(store, vec![], vec![put("o", ""), put("p", ""), delete("p/07")]).await;
    let (mut keys, mut after, mut sizes) = (Vec::new(), None::<String>, Vec::new());
    loop {
        let page = store.list("p/", after.as_deref(), 5).await.unwrap();
        assert!(page.revision >= newest);
        sizes.push(page.entries.len());
        keys.extend(page.entries.into_iter().map(|entry| entry.key));
        after = keys.last().cloned();
        if !page.more {
            break;
        }
    }
    assert_eq!(sizes, [5, 5, 1]);
    let expected: Vec<String> = (0..12).filter(|n| *n != 7).map(|n| format!("p/{n:02}")).collect();
    assert_eq!(keys, expected);
    let exact = store.list("p/", None, 11).await.unwrap();
    assert_eq!((exact.entries.len(), exact.more), (11, false));
    assert_eq!(store.list("p/", Some("a"), 20).await.unwrap().entries.len(), 11, "a start before the prefix is none");
    assert!(store.list("p/", Some("p/99"), 20).await.unwrap().revision >= newest);
}

pub(crate) async fn prefixes_are_not_patterns(store: SharedStore) {
    let store = store.as_ref();
    for key in
        ["a_c", "abc", "a%", "A_C", "a_", "a_\u{10FFFF}x", "a`", "\u{10FFFF}", "\u{10FFFF}a", "\u{D7FF}1", "\u{E000}1"]
    {
        committed(store, vec![], vec![put(key, "")]).await;
    }
    let list = async |prefix: &str| {
        let page = store.list(prefix, None, 100).await.unwrap();
        page.entries.into_iter().map(|entry| entry.key).collect::<Vec<_>>()
    };
    assert_eq!(list("a_").await, ["a_", "a_c", "a_\u{10FFFF}x"]);
    assert_eq!(list("a%").await, ["a%"]);
    assert_eq!(list("\u{10FFFF}").await, ["\u{10FFFF}", "\u{10FFFF}a"]);
    assert_eq!(list("\u{D7FF}").await, ["\u{D7FF}1"]);
    assert_eq!(list("").await.len(), 11);
}

pub(crate) async fn mod_revisions_never_go_back(store: SharedStore) {
    let store = store.as_ref();
    let mut last = Revision(0);
    for round in 0..5 {
        let written = committed(store, vec![absent("a")], vec![put("a", &round.to_string())]).await;
        assert!(written > last);
        assert_eq!(store.get("a").await.unwrap().unwrap().mod_revision, written);
        let removed = committed(store, vec![unchanged("a", written)], vec![delete("a")]).await;
        assert_eq!(store.get("a").await.unwrap(), None);
        conflicts(store, vec![unchanged("a", written)], vec![put("a", "late")]).await;
        last = removed;
    }
}

pub(crate) async fn watch_from_a_revision(store: SharedStore) {
    let store = store.as_ref();
    let first = committed(store, vec![], vec![put("w/a", "1")]).await;
    let second = committed(store, vec![], vec![put("w/a", "2"), put("x", "1")]).await;
    committed(store, vec![], vec![put("x", "2"), put("w", "")]).await;
    let third = committed(store, vec![], vec![put("w/a", "3")]).await;
    let change = |value: &str, revision| Change {
        key: "w/a".into(),
        value: Some(Bytes::copy_from_slice(value.as_bytes())),
        revision,
    };
    let mut all = store.watch("w/", Revision(0)).await.unwrap();
    for (value, revision) in [("1", first), ("2", second), ("3", third)] {
        assert_eq!(next(&mut all).await, [change(value, revision)]);
    }
    let mut from_second = store.watch("w/", second).await.unwrap();
    assert_eq!(next(&mut from_second).await, [change("2", second)]);
    let mut after_second = store.watch("w/", Revision(second.0 + 1)).await.unwrap();
    assert_eq!(next(&mut after_second).await, [change("3", third)]);
}

pub(crate) async fn watch_wakes_up(store: SharedStore) {
    let from = Revision(store.revision().await.unwrap().0 + 1);
    let mut watch = store.watch("w/", from).await.unwrap();
    for n in 0..20 {
        // The watcher is asked first, so that it sleeps when the commit comes, and an unwatched commit wakes it in vain.
        let (changes, _) = tokio::join!(next(&mut watch), async {
            tokio::task::yield_now().await;
            committed(&*store, vec![], vec![put("other", "")]).await;
            committed(&*store, vec![], vec![put("w/n", &n.to_string())]).await
        });
        assert_eq!(changes[0].value.as_deref(), Some(n.to_string().as_bytes()));
    }
}

pub(crate) async fn watch_tells_removals(store: SharedStore) {
    let store = store.as_ref();
    let from = committed(store, vec![], vec![put("w/a", "1"), put("w/b", "1")]).await;
    let removed = committed(store, vec![], vec![delete("w/a"), delete("w/none"), put("w/b", "2")]).await;
    let mut watch = store.watch("w/", Revision(from.0 + 1)).await.unwrap();
    let changes = next(&mut watch).await;
    assert_eq!(changes.len(), 2, "{changes:?}");
    assert_eq!((changes[0].key.as_str(), &changes[0].value), ("w/a", &None));
    assert_eq!((changes[1].key.as_str(), changes[1].revision), ("w/b", removed));
}

pub(crate) async fn watch_survives_a_slow_reader(store: SharedStore) {
    let mut watch = store.watch("w/", Revision(store.revision().await.unwrap().0 + 1)).await.unwrap();
    for n in 0..300 {
        committed(&*store, vec![], vec![put("w/n", &n.to_string())]).await;
    }
    for n in 0..300 {
        assert_eq!(next(&mut watch).await[0].value.as_deref(), Some(n.to_string().as_bytes()));
    }
}

pub(crate) async fn commits_come_whole_to_a_watch(store: SharedStore) {
    let mut watch = store.watch("w/", Revision(0)).await.unwrap();
    let writer = {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            for n in 0..20 {
                let writes = (0..MAX_WRITES).map(|k| put(&format!("w/{k:03}"), &n.to_string())).collect();
                committed(&*store, vec![], writes).await;
            }
        })
    };
    for n in 0..20 {
        let changes = next(&mut watch).await;
        assert_eq!(changes.len(), MAX_WRITES);
        assert!(changes.iter().all(|change| change.value.as_deref() == Some(n.to_string().as_bytes())));
        assert!(changes.is_sorted_by(|a, b| a.key < b.key));
    }
    writer.await.unwrap();
}

pub(crate) async fn any_text_is_a_key(store: SharedStore) {
    let store = store.as_ref();
    for key in ["Münster / \"Büro\" #1 🙂", "'; DROP TABLE kv; --", "a\nb", "a\0b"] {
        let revision = committed(store, vec![absent(key)], vec![put(key, key)]).await;
        assert_eq!(value(store, key).await.as_deref(), Some(key));
        committed(store, vec![unchanged(key, revision)], vec![delete(key)]).await;
        assert_eq!(store.get(key).await.unwrap(), None);
    }
}

pub(crate) async fn many_keys_of_one_moment(store: SharedStore) {
    let store = store.as_ref();
    assert_eq!(store.get_many(&[]).await.unwrap(), []);
    let revision = committed(store, vec![], vec![put("a", "1"), put("c", "3")]).await;
    let found = store.get_many(&["c".into(), "b".into(), "a".into(), "c".into()]).await.unwrap();
    let values: Vec<_> = found.iter().map(|entry| entry.as_ref().map(|entry| entry.value.as_ref())).collect();
    assert_eq!(values, [Some(&b"3"[..]), None, Some(b"1"), Some(b"3")]);
    assert!(found.iter().flatten().all(|entry| entry.mod_revision == revision));
    let all: Vec<String> = (0..MAX_WRITES).map(|n| format!("k{n}")).collect();
    assert_eq!(store.get_many(&all).await.unwrap().len(), MAX_WRITES);
}

pub(crate) async fn a_name_stays(store: SharedStore) {
    let named = store.name().await.unwrap();
    assert!(!named.is_empty());
    assert_eq!(store.name().await.unwrap(), named);
    assert_eq!(store.id().await.unwrap(), Some(named));
}

pub(crate) async fn a_tenure_is_of_one(store: SharedStore) {
    let store = store.as_ref();
    let ttl = Duration::from_secs(5);
    let mut first = store.tenure("t", "one".into(), ttl, false).await.unwrap().unwrap();
    assert_eq!(store.get("t").await.unwrap().unwrap().mod_revision, first.revision());
    assert!(first.renew().await.unwrap());
    let guard = unchanged("t", first.revision());
    committed(store, vec![guard.clone()], vec![put("x", "1")]).await;

    let mut second = store.tenure("t", "two".into(), ttl, true).await.unwrap().unwrap();
    assert!(second.revision() > first.revision());
    assert!(!first.renew().await.unwrap(), "it was replaced");
    conflicts(store, vec![guard], vec![put("x", "2")]).await;
    first.resign().await;
    assert!(second.renew().await.unwrap(), "who has lost it takes nothing away");
    second.resign().await;
    assert_eq!(value(store, "t").await, None);
    let third = store.tenure("t", "three".into(), ttl, false).await.unwrap();
    assert!(third.is_some(), "what was given up is free at once");
}

/// Compaction ends a watch, and a listing goes on from there. After `revisions` commits and `compact` the first of them is
/// gone.
pub(crate) async fn compaction_ends_a_watch(store: SharedStore, revisions: u64, compact: impl AsyncFnOnce()) {
    let store = store.as_ref();
    let first = committed(store, vec![], vec![put("w/n", "first")]).await;
    let mut slow = store.watch("w/", Revision(first.0 + 1)).await.unwrap();
    for n in 0..revisions {
        committed(store, vec![], vec![put("w/n", &n.to_string())]).await;
    }
    compact().await;
    committed(store, vec![], vec![put("w/n", "behind")]).await;
    let Err(Error::Compacted { oldest }) = tokio::time::timeout(PATIENCE, slow.next()).await.unwrap() else {
        panic!("a watch that fell behind must be told");
    };
    assert!(oldest > first);
    assert!(matches!(store.watch("w/", first).await, Err(Error::Compacted { .. })));
    let mut edge = store.watch("w/", oldest).await.unwrap();
    assert_eq!(next(&mut edge).await[0].revision, oldest, "the oldest revision is still there");
    let page = store.list("w/", None, 10).await.unwrap();
    assert_eq!(page.entries[0].value, "behind");
    let mut again = store.watch("w/", Revision(page.revision.0 + 1)).await.unwrap();
    committed(store, vec![], vec![put("w/n", "last")]).await;
    assert_eq!(next(&mut again).await[0].value.as_deref(), Some("last".as_bytes()));
}

/// For a back end with a restart: all is kept, revisions go on, and a watch can go back before it.
pub(crate) async fn restart_keeps_all<S: Store, F: Future<Output = S>>(mut reopen: impl FnMut() -> F) {
    let store = reopen().await;
    let id = store.name().await.unwrap();
    let first = committed(&store, vec![], vec![put("w/a", "1"), put("w/b", "1")]).await;
    let second = committed(&store, vec![], vec![delete("w/b")]).await;
    drop(store);
    let store = reopen().await;
    assert_eq!(store.id().await.unwrap(), Some(id));
    assert_eq!(store.revision().await.unwrap(), second);
    assert_eq!(store.get("w/a").await.unwrap().unwrap().mod_revision, first);
    assert_eq!(store.get("w/b").await.unwrap(), None);
    let mut watch = store.watch("w/", second).await.unwrap();
    assert_eq!(next(&mut watch).await[0].value, None);
    assert!(committed(&store, vec![unchanged("w/a", first)], vec![put("w/a", "2")]).await > second);
}

/// What becomes of a commit behind [`Faulty`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It happens and is answered.
    None,
    /// It happens, but the answer is lost.
    AnswerLost,
    /// It never arrives, and nobody knows.
    RequestLost,
}

/// A store whose next commits meet the faults it was given; later ones meet none.
pub(crate) struct Faulty {
    inner: SharedStore,
    faults: Mutex<VecDeque<Fault>>,
}

impl Faulty {
    pub(crate) fn new(inner: SharedStore, faults: impl IntoIterator<Item = Fault>) -> Self {
        Self { inner, faults: Mutex::new(faults.into_iter().collect()) }
    }
}

#[async_trait]
impl Store for Faulty {
    async fn id(&self) -> Result<Option<String>, Error> {
        self.inner.id().await
    }

    async fn name(&self) -> Result<String, Error> {
        self.inner.name().await
    }

    async fn get_many(&self, keys: &[String]) -> Result<Vec<Option<Entry>>, Error> {
        self.inner.get_many(keys).await
    }

    async fn tenure(
        &self,
        key: &str,
        value: Bytes,
        ttl: Duration,
        replace: bool,
    ) -> Result<Option<Box<dyn Tenure>>, Error> {
        self.inner.tenure(key, value, ttl, replace).await
    }

    async fn revision(&self) -> Result<Revision, Error> {
        self.inner.revision().await
    }

    async fn get(&self, key: &str) -> Result<Option<Entry>, Error> {
        self.inner.get(key).await
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Page, Error> {
        self.inner.list(prefix, after, limit).await
    }

    async fn commit(&self, guards: Vec<Guard>, writes: Vec<Write>) -> Result<Outcome, Error> {
        let fault = self.faults.lock().unwrap().pop_front().unwrap_or(Fault::None);
        match fault {
            Fault::None => self.inner.commit(guards, writes).await,
            Fault::AnswerLost => self.inner.commit(guards, writes).await.map(|_| Outcome::Unknown),
            Fault::RequestLost => Ok(Outcome::Unknown),
        }
    }

    async fn watch(&self, prefix: &str, from: Revision) -> Result<Box<dyn Watch>, Error> {
        self.inner.watch(prefix, from).await
    }
}

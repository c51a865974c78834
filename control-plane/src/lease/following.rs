//! Follows what operators have decided, whichever replica wrote it down.

use std::convert::Infallible;
use std::time::Duration;

use futures::stream::{self, BoxStream, StreamExt as _};

use super::decision::{Decision, Freeze};
use super::desk::Decided;
use crate::failure::chain;
use crate::store::{Error, Revision, SharedStore, Watch, key, list_all};

/// Pause before a store that failed is asked again.
const AGAIN: Duration = Duration::from_secs(1);

/// Everything that is decided at the moment.
pub(super) async fn read(store: &SharedStore) -> Result<Decided, Error> {
    let workers = list_all(store, key::WORKERS).await?;
    let workers = workers
        .iter()
        .filter_map(|entry| Some((key::parse_worker(&entry.key)?.to_owned(), Decision::decode(&entry.value)?)));
    let freeze = store.get(key::FREEZE).await?.and_then(|entry| Freeze::decode(&entry.value));
    Ok(Decided { workers: workers.collect(), freeze })
}

/// Everything that is decided, again whenever any of it has changed. Decisions are few, so all are read each time.
pub(super) fn decisions(store: SharedStore) -> BoxStream<'static, Decided> {
    let begin = |store: SharedStore| Follower { store, watches: None };
    stream::unfold(begin(store), async |mut follower| {
        loop {
            match follower.next().await {
                Ok(decided) => return Some((decided, follower)),
                Err(error) => {
                    follower.watches = None;
                    if !matches!(error, Error::Compacted { .. }) {
                        tracing::warn!(
                            error = chain(&error),
                            "what is decided about workers cannot be followed; trying again"
                        );
                        tokio::time::sleep(AGAIN).await;
                    }
                }
            }
        }
    })
    .boxed()
}

struct Follower {
    store: SharedStore,
    watches: Option<[Box<dyn Watch>; 2]>,
}

impl Follower {
    async fn next(&mut self) -> Result<Decided, Error> {
        match &mut self.watches {
            Some([workers, freeze]) => {
                tokio::select! {
                    changes = workers.next() => changes?,
                    changes = freeze.next() => changes?,
                };
            }
            None => {
                // Ordering: first where history stands, then what there is, so that no change falls between.
                let from = Revision(self.store.revision().await?.0 + 1);
                let workers = self.store.watch(key::WORKERS, from).await?;
                self.watches = Some([workers, self.store.watch(key::FREEZE, from).await?]);
            }
        }
        read(&self.store).await
    }
}

/// Follows changes under some prefixes until the store fails; `changed` is told the changes of each commit.
pub(super) async fn changes(
    store: &SharedStore,
    prefixes: [&str; 3],
    mut changed: impl FnMut(Vec<crate::store::Change>),
) -> Result<Infallible, Error> {
    let from = Revision(store.revision().await?.0 + 1);
    let [a, b, c] = prefixes;
    let (mut a, mut b, mut c) = (store.watch(a, from).await?, store.watch(b, from).await?, store.watch(c, from).await?);
    loop {
        changed(tokio::select! {
            changes = a.next() => changes?,
            changes = b.next() => changes?,
            changes = c.next() => changes?,
        });
    }
}

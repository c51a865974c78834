//! The store of a running installation, whichever it is, with what only its owner does to it.

use std::path::Path;
use std::sync::Arc;

use super::choice::StoreChoice;
use super::{Error, Revision, SharedStore, Store as _, etcd, sqlite};

/// The store of a running installation.
#[derive(Debug, Clone)]
pub enum Opened {
    /// A file in the data folder.
    Sqlite(Arc<sqlite::Sqlite>),
    /// etcd.
    Etcd(Arc<etcd::Etcd>),
}

/// What became of former content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wiped {
    /// It is gone.
    Clean,
    /// The back end keeps it as history up to this revision. Others may be reading from the same etcd, so forgetting is left
    /// to whoever looks after it.
    HistoryKept(Revision),
}

impl Opened {
    /// Opens the store that was chosen. `file` is where SQLite keeps it.
    pub async fn open(choice: &StoreChoice, file: &Path) -> Result<Self, Error> {
        Ok(match choice {
            StoreChoice::Sqlite => Self::Sqlite(Arc::new(sqlite::Sqlite::open(file).await?)),
            StoreChoice::Etcd(settings) => Self::Etcd(Arc::new(etcd::Etcd::open(settings).await?)),
        })
    }

    /// As every part uses it.
    pub fn shared(&self) -> SharedStore {
        match self {
            Self::Sqlite(store) => store.clone(),
            Self::Etcd(store) => store.clone(),
        }
    }

    /// True when it is a file of the data folder.
    pub fn is_file(&self) -> bool {
        matches!(self, Self::Sqlite(_))
    }

    /// Copies it into a new SQLite file, while commits go on: SQLite as of one moment, etcd key by key.
    pub async fn copy_to(&self, path: &Path) -> Result<(), Error> {
        match self {
            Self::Sqlite(store) => store.copy_to(path).await,
            Self::Etcd(store) => sqlite::copy::write(&**store, path).await,
        }
    }

    /// Takes out of the store's files what was replaced or removed, where that is ours to do.
    pub async fn wipe(&self) -> Result<Wiped, Error> {
        match self {
            Self::Sqlite(store) => store.wipe().await.map(|()| Wiped::Clean),
            Self::Etcd(store) => store.revision().await.map(Wiped::HistoryKept),
        }
    }

    /// Finishes the commits that are under way. Later calls to SQLite fail; etcd is left as it is.
    pub async fn close(&self) {
        match self {
            Self::Sqlite(store) => store.close().await,
            Self::Etcd(_) => {}
        }
    }

    /// Returns when nothing can be committed any more: SQLite was closed, or its writer died. etcd comes back.
    pub async fn ended(&self) {
        match self {
            Self::Sqlite(store) => store.ended().await,
            Self::Etcd(_) => std::future::pending().await,
        }
    }
}

//! Store, ledger, bodies and keys, opened in the order in which each needs the one before.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::{App, StartError};
use crate::access::vault::{KeyError, KeySource, Vault};
use crate::backup::making::{self, Backups};
use crate::binding::{self, Binding};
use crate::blob::Blobs;
use crate::config::Config;
use crate::definition::{self, Definitions};
use crate::failure::chain;
use crate::folder;
use crate::ledger::audit::SharedAudit;
use crate::ledger::outbox::SharedOutbox;
use crate::ledger::{self, SharedLedger};
use crate::rotation::{self, Rotations};
use crate::sqlite::Location;
use crate::store::SharedStore;
use crate::store::opened::Opened;

/// What the services stand on.
pub(super) struct Ground {
    pub(super) store: SharedStore,
    pub(super) ledger: SharedLedger,
    pub(super) outbox: SharedOutbox,
    pub(super) blobs: Blobs,
    pub(super) definitions: Arc<Definitions>,
    pub(super) vault: Arc<Vault>,
    pub(super) binding: Binding,
    pub(super) backups: Backups,
    pub(super) rotations: Rotations,
    pub(super) log: SharedAudit,
}

impl App {
    /// Opens everything that the services stand on. `quiet`: as long nobody leads after an adoption.
    pub(super) async fn open(&mut self, config: &Config, quiet: Duration) -> Result<Ground, StartError> {
        let (data, choice, bodies) = (&config.data, &config.store, &config.blobs);
        let file = data.join(folder::STORE);
        let opened = Opened::open(choice, &file).await?;
        self.store = Some(opened.clone());
        let ledger = Arc::new(ledger::sqlite::Sqlite::open(&Location::File(data.join(folder::LEDGER))).await?);
        self.ledger = Some(ledger.clone());
        self.keep("writers' watch", {
            let (store, ledger, told) = (opened.clone(), ledger.clone(), self.keeping.clone());
            async move {
                tokio::select! {
                    () = told.cancelled() => {}
                    () = store.ended() => {}
                    () = ledger.ended() => {}
                }
            }
        });
        let store = opened.shared();
        // What the folder had before it moved to a store elsewhere.
        let former = (!opened.is_file()).then_some(file);
        let ground = binding::Ground {
            store: store.clone(),
            location: choice.to_string(),
            ledger: ledger.clone(),
            former,
            quiet,
        };
        let binding = Binding::open(ground).await?;
        self.keep("binding", binding.clone().watch_over(self.keeping.clone()));
        let blobs = Blobs::open(bodies, &data.join(folder::BLOBS)).await?;
        let definitions = Arc::new(Definitions::load(store.clone()).await?);
        let mut wanted = definition::secrets::keys(&definitions.model());
        wanted.extend(rotation::records::keys(&*store).await?);
        let vault = Arc::new(vault(&config.secret_key, &wanted, &binding)?);
        let backups = Backups::new(
            making::Ground {
                data: data.into(),
                ledger: ledger.clone(),
                store: opened.clone(),
                blobs: blobs.clone(),
                definitions: definitions.clone(),
                vault: vault.clone(),
            },
            self.serving.clone(),
        );
        let rotations = Rotations::new(
            rotation::Ground {
                data: data.into(),
                store: opened,
                definitions: definitions.clone(),
                vault: vault.clone(),
                binding: binding.clone(),
            },
            self.serving.clone(),
        );
        let (outbox, log) = (ledger.clone(), ledger.clone());
        Ok(Ground { store, outbox, log, ledger, blobs, definitions, vault, binding, backups, rotations })
    }
}

/// The keys, none of which may be missing that what is stored names. In a store that is not the ledger's another
/// installation's model may stand: then it is told, and an admin has to look at the store first.
fn vault(source: &KeySource, wanted: &BTreeSet<String>, binding: &Binding) -> Result<Vault, KeyError> {
    let vault = match Vault::load(source, wanted) {
        Err(error @ (KeyError::Wanting { .. } | KeyError::Gone { .. })) if binding.standing().require().is_err() => {
            tracing::warn!(error = chain(&error), "the store's secrets cannot be opened");
            Vault::load(source, &BTreeSet::new())?
        }
        other => other?,
    };
    if vault.key_ids().len() > 1 {
        tracing::warn!(keys = ?vault.key_ids(), "secrets may be sealed under several keys; `postroom secret rotate-key` seals all under the newest");
    }
    Ok(vault)
}

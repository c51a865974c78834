//! Whether the store at hand is the one that the ledger belongs to. Nobody leads while it is not.
//!
//! [`fit`] judges (pure); [`Binding`] looks, writes down what belongs together, and adopts when an admin says so;
//! `inheritance` brings definitions, credentials and the CA along.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use postroom_proto::convert::to_timestamp;
use postroom_proto::id::{Epoch, Generation, MailboxUid};
use postroom_proto::reason::{Failure, Reason};
use postroom_proto::v1;
use tokio::sync::{Mutex, watch};
use tokio_util::sync::CancellationToken;

use self::fit::{Fit, Sides};
use self::inheritance::{NotInherited, inherit};
use crate::clock;
use crate::failure::chain;
use crate::ledger::{self, Bound, SharedLedger};
use crate::store::{self, Guard, Outcome, Revision, SharedStore, Write, key};

pub mod fit;
mod inheritance;

/// How often it is looked whether the store was exchanged under a running control plane.
const LOOK: Duration = Duration::from_secs(2);
/// Most adoptions that are told.
const TOLD: u32 = 20;
/// Assignments read at once.
const PAGE: usize = 1000;

/// Why store and ledger could not be compared.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The ledger failed.
    #[error(transparent)]
    Ledger(#[from] ledger::Error),
    /// The definitions of the former store could not be taken over.
    #[error(transparent)]
    NotInherited(#[from] NotInherited),
    /// A write may or may not have happened.
    #[error("it is not known whether the store was told which ledger it belongs to; try again")]
    Unknown,
    /// Somebody else adopted the store, or bound it, meanwhile.
    #[error("somebody else was quicker; look at the store again")]
    Raced,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Store(error) => error.into(),
            Error::Ledger(error) => error.into(),
            Error::Unknown | Error::NotInherited(NotInherited::Unknown) => {
                Self::new(Reason::OutcomeUnknown, chain(&error))
            }
            Error::Raced => Self::new(Reason::EtagMismatch, chain(&error)),
            Error::NotInherited(_) => Self::new(Reason::StorageFailed, chain(&error)),
        }
    }
}

/// How things stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// How store and ledger stand to each other.
    pub fit: Fit,
    /// Generation of the ledger.
    pub generation: Generation,
}

impl Standing {
    /// Refuses what must not be done while the store is not the ledger's.
    pub fn require(&self) -> Result<(), Failure> {
        match self.fit.trouble() {
            None => Ok(()),
            Some((cause, remedy)) => Err(Failure::new(Reason::StoreNotOurs, format!("{cause}; {remedy}"))),
        }
    }
}

/// What there is to compare.
pub struct Ground {
    /// The store.
    pub store: SharedStore,
    /// Where it is, for people.
    pub location: String,
    /// The ledger.
    pub ledger: SharedLedger,
    /// File of the store that the data folder had before, when the store at hand is another kind.
    pub former: Option<PathBuf>,
    /// How long after an adoption nobody leads: as long as a worker may trust a lease of which the adopted store knows
    /// nothing. Zero where no worker outlives this process.
    pub quiet: Duration,
}

/// Watches over store and ledger. Cheap to share.
#[derive(Clone)]
pub struct Binding {
    ground: Arc<Ground>,
    /// One look or adoption at a time.
    turn: Arc<Mutex<()>>,
    standing: Arc<watch::Sender<Standing>>,
    may_lead: Arc<watch::Sender<bool>>,
}

impl std::fmt::Debug for Binding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Binding").field("standing", &self.standing()).finish_non_exhaustive()
    }
}

impl Binding {
    /// Compares for the first time. Two that are new are bound to each other.
    pub async fn open(ground: Ground) -> Result<Self, Error> {
        let generation = ground.ledger.bound().await?.generation;
        let binding = Self {
            ground: Arc::new(ground),
            turn: Arc::default(),
            standing: Arc::new(watch::Sender::new(Standing { fit: Fit::New, generation })),
            may_lead: Arc::new(watch::Sender::new(false)),
        };
        binding.look().await?;
        Ok(binding)
    }

    /// How things stood when it was last looked.
    pub fn standing(&self) -> Standing {
        self.standing.borrow().clone()
    }

    /// True while mailboxes may be leased.
    pub fn may_lead(&self) -> watch::Receiver<bool> {
        self.may_lead.subscribe()
    }

    /// Compares again, thoroughly. To be done before this replica leads.
    pub async fn look(&self) -> Result<Fit, Error> {
        let _turn = self.turn.lock().await;
        let sides = self.sides().await?;
        let fit = match fit::fit(&sides) {
            Fit::Ours if sides.store_ledger.is_none() => self.bind(&sides).await?,
            Fit::New => self.bind(&sides).await?,
            other => other,
        };
        let quiet = self.is_quiet().await?;
        self.publish(Standing { fit: fit.clone(), generation: sides.bound.generation }, quiet);
        Ok(fit)
    }

    /// True while a lease may still be trusted that was given before the store was adopted.
    ///
    /// Invariant: no answer that a worker trusts is younger than the last adoption, since nobody answers while the store
    /// does not fit.
    async fn is_quiet(&self) -> Result<bool, Error> {
        let last = self.ground.ledger.adoptions(1).await?.into_iter().next();
        let since = last.map(|adoption| clock::now().saturating_sub(adoption.time));
        // A clock that was set back must not keep anybody waiting.
        Ok(since
            .and_then(|micros| u64::try_from(micros).ok())
            .is_some_and(|it| Duration::from_micros(it) < self.ground.quiet))
    }

    /// Looks every now and then, until told to stop. A store that cannot be asked is nobody else's yet.
    pub async fn watch_over(self, stop: CancellationToken) {
        let mut seen = Revision::default();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOK) => {}
            }
            match self.glance(&mut seen).await {
                Ok(true) => {}
                Ok(false) => {
                    if let Err(error) = self.look().await {
                        tracing::warn!(error = chain(&error), "store and ledger cannot be compared; trying again");
                    }
                }
                Err(error) => tracing::debug!(error = chain(&error), "the store cannot be asked for its id"),
            }
        }
    }

    /// True when nothing speaks against what was found at the last thorough look.
    async fn glance(&self, seen: &mut Revision) -> Result<bool, Error> {
        let (id, revision) = (self.ground.store.id().await?, self.ground.store.revision().await?);
        let back = revision < *seen;
        *seen = revision;
        let leads = *self.may_lead.borrow();
        Ok(leads && self.standing().fit == Fit::Ours && !back && id == self.ground.ledger.bound().await?.store_id)
    }

    /// Takes the present store for the ledger's, if it is the one that the caller has looked at. An empty id is that of an
    /// empty store.
    pub async fn adopt(&self, store_id: &str, by: &str) -> Result<v1::AdoptStoreResponse, Failure> {
        let turn = self.turn.lock().await;
        let sides = self.sides().await?;
        let fit = fit::fit(&sides);
        let found = sides.store_id.clone().unwrap_or_default();
        // An adoption names an empty store first. Cut off after that, or when its answer was lost, it is repeated.
        let was_empty = store_id.is_empty() && matches!(fit, Fit::Ours | Fit::Foreign { .. });
        if found != store_id && !was_empty {
            let text = format!("the store is {}, not {}: look at it again", quoted(&found), quoted(store_id));
            return Err(Failure::new(Reason::EtagMismatch, text));
        }
        let mut inherited = 0;
        if !fit.may_lead() {
            inherited = self.take_over(&sides, by).await?;
        }
        drop(turn);
        self.look().await?;
        Ok(v1::AdoptStoreResponse { store: Some(self.describe().await?), definition_count: inherited })
    }

    /// Ordering: the generation rises last. Whatever stops this before leaves a store that is refused, and an adoption
    /// that can be repeated.
    async fn take_over(&self, sides: &Sides, by: &str) -> Result<u32, Error> {
        let Ground { store, ledger, former, .. } = &*self.ground;
        let id = store.name().await?;
        let inherited = match former {
            Some(file) => inherit(&**store, file, sides.bound.store_id.as_deref()).await?,
            None => 0,
        };
        if self.claim(sides.store_ledger.as_deref()).await?.is_some() {
            return Err(Error::Raced);
        }
        let expected = sides.bound.generation;
        match ledger.adopt(expected, &id, by, clock::now()).await? {
            Some(generation) => {
                tracing::warn!(by, store = id, %generation, inherited, "a store was adopted");
                Ok(inherited)
            }
            None => Err(Error::Raced),
        }
    }

    /// Writes down on both sides that they belong together.
    ///
    /// Ordering: the store is told first, under a guard, so that of two ledgers only one can be bound to it.
    async fn bind(&self, sides: &Sides) -> Result<Fit, Error> {
        let Ground { store, ledger, .. } = &*self.ground;
        let id = store.name().await?;
        if sides.store_ledger.is_none()
            && let Some(other) = self.claim(None).await?
        {
            return Ok(Fit::OtherLedger { found: other });
        }
        ledger.bind(&id).await?;
        Ok(Fit::Ours)
    }

    /// Tells the store which ledger it belongs to, if it says `known` or nothing of that now. Answers the ledger that
    /// was quicker.
    async fn claim(&self, known: Option<&str>) -> Result<Option<String>, Error> {
        let Ground { store, ledger, .. } = &*self.ground;
        let ours = Bytes::copy_from_slice(ledger.id().as_bytes());
        let found = store.get(key::STORE_LEDGER).await?;
        let guard = match &found {
            Some(entry) if entry.value == ours => return Ok(None),
            Some(entry) if known.is_some_and(|known| entry.value == known) => {
                Guard::Unchanged(key::STORE_LEDGER.into(), entry.mod_revision)
            }
            Some(entry) => return Ok(Some(text(&entry.value))),
            None => Guard::Absent(key::STORE_LEDGER.into()),
        };
        match store.commit(vec![guard], vec![Write::Put(key::STORE_LEDGER.into(), ours.clone())]).await? {
            Outcome::Committed(_) => Ok(None),
            Outcome::Conflict | Outcome::Unknown => match store.get(key::STORE_LEDGER).await? {
                Some(entry) if entry.value == ours => Ok(None),
                Some(entry) => Ok(Some(text(&entry.value))),
                // It may still arrive.
                None => Err(Error::Unknown),
            },
        }
    }

    async fn sides(&self) -> Result<Sides, Error> {
        let Ground { store, ledger, .. } = &*self.ground;
        let bound = ledger.bound().await?;
        let store_id = store.id().await?;
        let store_ledger = store.get(key::STORE_LEDGER).await?.map(|entry| text(&entry.value));
        let overtaken = match bound.store_id == store_id {
            true => self.overtaken(&bound).await?,
            false => None,
        };
        // Ordering: the revision last, so that it is never behind what was read before.
        let revision = store.revision().await?.0;
        Ok(Sides { ledger_id: ledger.id().into(), bound, store_id, store_ledger, revision, overtaken })
    }

    /// A mailbox whose fence stands above its assignment: no store that only goes forward has one, since an assignment's
    /// revision grows with every write and the fence is raised to it afterwards.
    async fn overtaken(&self, bound: &Bound) -> Result<Option<MailboxUid>, Error> {
        if bound.highest_epoch == 0 {
            return Ok(None);
        }
        let Ground { store, ledger, .. } = &*self.ground;
        // Ordering: the fences first. Read the other way round, a mailbox that moves meanwhile would look overtaken.
        let fences: std::collections::HashMap<MailboxUid, Epoch> = ledger.fences().await?.into_iter().collect();
        let mut after: Option<String> = None;
        loop {
            let page = store.list(key::ASSIGNMENTS, after.as_deref(), PAGE).await?;
            for entry in &page.entries {
                let Some(mailbox) = key::parse_assignment(&entry.key) else { continue };
                if fences.get(&mailbox).is_some_and(|epoch| epoch.0 > entry.mod_revision.0) {
                    return Ok(Some(mailbox));
                }
            }
            after = page.entries.last().map(|entry| entry.key.clone());
            if !page.more {
                return Ok(None);
            }
        }
    }

    fn publish(&self, standing: Standing, quiet: bool) {
        let may_lead = standing.fit.may_lead() && !quiet;
        let changed = self.standing.send_if_modified(|known| {
            let changed = *known != standing;
            *known = standing.clone();
            changed
        });
        if changed && let Some((cause, remedy)) = standing.fit.trouble() {
            tracing::error!(cause, remedy, "no mailbox is leased: store and ledger do not fit");
        }
        self.may_lead.send_if_modified(|known| std::mem::replace(known, may_lead) != may_lead);
    }

    /// Everything that there is to say.
    pub async fn describe(&self) -> Result<v1::StoreInfo, Failure> {
        let Ground { store, ledger, location, .. } = &*self.ground;
        let bound = ledger.bound().await?;
        let fit = self.standing().fit;
        let (cause, remedy) = fit.trouble().unwrap_or_default();
        let adoptions = ledger.adoptions(TOLD).await?.into_iter().map(|it| v1::Adoption {
            time: Some(to_timestamp(it.time)),
            adopted_by: it.by,
            generation: it.generation.0,
            former_store_id: it.former_store_id.unwrap_or_default(),
            store_id: it.store_id,
        });
        Ok(v1::StoreInfo {
            location: location.clone(),
            store_id: store.id().await?.unwrap_or_default(),
            revision: store.revision().await?.0,
            ledger_id: ledger.id().into(),
            bound_store_id: bound.store_id.unwrap_or_default(),
            generation: bound.generation.0,
            fit: fit.wire().into(),
            cause,
            remedy: remedy.into(),
            adoptions: adoptions.collect(),
        })
    }
}

fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value).into_owned()
}

fn quoted(id: &str) -> String {
    if id.is_empty() { "one without an id".into() } else { id.into() }
}

#[cfg(test)]
mod tests;

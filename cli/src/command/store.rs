//! `store`.

use std::io::{self, IsTerminal as _};

use jiff::Timestamp;
use postroom_proto::v1::{self, StoreFit};

use super::Session;
use crate::args::Store;
use crate::error::{Error, Kind};
use crate::render::{table, time, words};

pub(super) async fn run(session: &mut Session<'_, '_>, verb: Store) -> Result<(), Error> {
    let client = session.client()?;
    let now = session.now();
    let store = client.get_store().await?;
    let fits = store.fit() == StoreFit::Ours;
    let Store::Adopt { yes } = verb else {
        session.show(&store, |store| shown(store, now))?;
        return if fits { Ok(()) } else { Err(unfit(&store)) };
    };
    if fits {
        session.note("store and ledger fit already: there is nothing to adopt");
        let response = v1::AdoptStoreResponse { store: Some(store), definition_count: 0 };
        return session.show(&response, |response| adopted(response, now));
    }
    session.note(&what_happens(&store));
    if !yes {
        confirm(session).await?;
    }
    let progress = session.progress("adopting the store");
    let response = progress.during(client.adopt_store(store.store_id)).await?;
    session.show(&response, |response| adopted(response, now))
}

/// What is wrong and what to do are the control plane's own words.
fn unfit(store: &v1::StoreInfo) -> Error {
    let error = Error::new(Kind::NotWell, format!("store and ledger do not fit: {}", store.cause));
    if store.remedy.is_empty() { error } else { error.help(store.remedy.clone()) }
}

fn what_happens(store: &v1::StoreInfo) -> String {
    let id = if store.store_id.is_empty() { "a store without id" } else { &store.store_id };
    let mut told = format!("the store at {} ({id}) will be taken for that of this ledger", store.location);
    if !store.bound_store_id.is_empty() {
        told += &format!(", instead of {}", store.bound_store_id);
    }
    told += &format!(
        ".\n  why it is asked: {}\n  generation {} ends: workers let go of everything, and mailboxes are given out anew\n  \
         cursors and contacts in the ledger stay: nothing is read twice",
        store.cause, store.generation
    );
    if store.fit() == StoreFit::OtherLedger {
        told += "\n  another control plane that uses this store with its own ledger will refuse to serve";
    }
    told
}

/// Asks whoever sits at the terminal.
async fn confirm(session: &mut Session<'_, '_>) -> Result<(), Error> {
    let terminal = session.streams.terminal;
    if !(terminal.is_process && terminal.err && io::stdin().is_terminal()) {
        let message = "adopting needs a yes, and there is no terminal to ask at";
        return Err(Error::new(Kind::Usage, message).help("look at what is said above, then say --yes"));
    }
    write!(session.streams.err, "adopt it? [y/N] ")?;
    session.streams.err.flush()?;
    let answer = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        io::stdin().read_line(&mut line).map(|_| line)
    });
    let answer = answer.await.map_err(io::Error::other)??;
    match answer.trim().to_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(Error::new(Kind::Usage, "nothing was adopted").help("answer y, or say --yes")),
    }
}

fn adopted(response: &v1::AdoptStoreResponse, now: Timestamp) -> String {
    let store = response.store.clone().unwrap_or_default();
    let mut told = shown(&store, now);
    if response.definition_count > 0 {
        told += &format!("{} definitions were taken over from the data folder\n", response.definition_count);
    }
    told
}

fn shown(store: &v1::StoreInfo, now: Timestamp) -> String {
    let mut shown = table::pairs([
        ("location", store.location.clone()),
        ("store", store.store_id.clone()),
        ("revision", store.revision.to_string()),
        ("ledger", store.ledger_id.clone()),
        ("belongs to", store.bound_store_id.clone()),
        ("generation", store.generation.to_string()),
        ("fit", words::store_fit(store.fit)),
        ("cause", store.cause.clone()),
        ("remedy", store.remedy.clone()),
    ]);
    if !store.adoptions.is_empty() {
        let row = |it: &v1::Adoption| {
            let time = time::time_and_age(it.time.as_ref(), now);
            [it.generation.to_string(), time, it.adopted_by.clone(), it.former_store_id.clone(), it.store_id.clone()]
        };
        shown.push('\n');
        shown +=
            &table::rows(["GENERATION", "ADOPTED", "BY", "FORMER STORE", "STORE"], store.adoptions.iter().map(row));
    }
    shown
}

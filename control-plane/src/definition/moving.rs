//! What an apply leaves behind in the ledger: contacts that wait for an instance which no longer gets the mail of their
//! mailbox, or which would be removed.

use std::collections::{BTreeMap, HashMap};

use postroom_proto::id::MailboxUid;
use postroom_proto::reason::{Failure, FieldFault};

use super::model::{Instance, Model};
use crate::ledger::Ledger;

/// Mailboxes that one instance hands over to another, by the names of the two. Pure.
pub(super) fn moved<'a>(
    old: &'a Model,
    new: &'a Model,
) -> BTreeMap<(&'a str, &'a str), (&'a Instance, Vec<MailboxUid>)> {
    let mut moved: BTreeMap<_, (&Instance, Vec<MailboxUid>)> = BTreeMap::new();
    for (uid, before) in old.mailboxes() {
        let Some(after) = new.mailbox(uid).filter(|after| after.instance.uid != before.instance.uid) else { continue };
        let key = (before.instance.name.as_str(), after.instance.name.as_str());
        moved.entry(key).or_insert_with(|| (before.instance, Vec::new())).1.push(uid.clone());
    }
    moved
}

/// What to tell whoever moves mailboxes between instances.
pub(super) async fn notes(ledger: &dyn Ledger, old: &Model, new: &Model) -> Result<Vec<String>, Failure> {
    let mut notes = Vec::new();
    let mut counted: HashMap<&str, HashMap<String, u64>> = HashMap::new();
    for ((from, to), (instance, mailboxes)) in moved(old, new) {
        let waiting = match counted.entry(&instance.uid) {
            std::collections::hash_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::hash_map::Entry::Vacant(free) => free.insert(ledger.waiting(&instance.uid).await?),
        };
        let count: u64 = mailboxes.iter().filter_map(|uid| waiting.get(uid.as_str())).sum();
        if count > 0 {
            notes.push(format!(
                "{count} waiting contacts of {} that go from instance {from} to {to} stay with {from}; \
                 `postroom contact transfer` moves them",
                addresses(mailboxes.len())
            ));
        }
    }
    Ok(notes)
}

/// Nobody could take the contacts of an instance that is gone.
pub(super) async fn orphans(ledger: &dyn Ledger, old: &Model, new: &Model) -> Result<(), Failure> {
    let mut faults = Vec::new();
    let gone = old.instances().filter(|it| new.instances().all(|kept| kept.uid != it.uid));
    for instance in gone {
        let count: u64 = ledger.waiting(&instance.uid).await?.values().sum();
        if count > 0 {
            let description = format!(
                "would be removed, but {count} contacts wait for it; let it take them, or move them by \
                 `postroom contact transfer`, then remove it"
            );
            faults.push(FieldFault { field: format!("instances[{:?}]", instance.name), description });
        }
    }
    if faults.is_empty() { Ok(()) } else { Err(Failure::invalid(faults)) }
}

fn addresses(count: usize) -> String {
    if count == 1 { "1 address".into() } else { format!("{count} addresses") }
}

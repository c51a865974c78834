//! Secrets that rest in the store beside the model, each in a field of a record of its own.
//!
//! Invariant: whoever seals something there adds a line to `RECORDS`; what is not in it would be lost with the former key.

use std::collections::BTreeSet;

use postroom_proto::reason::{Failure, Reason};
use serde::Deserialize as _;
use serde_json::Value;

use crate::access::vault::{Sealed, Vault};
use crate::store::{self, Guard, Outcome, Store, Write};

/// Key in the store, owner in the vault, field of the record (a JSON object).
const RECORDS: &[(&str, &str, &str)] = &[
    // The key of the installation's own CA.
    ("access/authority", "access/authority/key", "key"),
];
/// How often a record that others change meanwhile is tried.
const TRIES: usize = 5;

/// What became of the records.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Outcomes {
    /// Secrets that were sealed again, or would be.
    pub(super) secrets: u64,
    /// Keys that must stay, each with why.
    pub(super) kept: Vec<(String, String)>,
}

/// The keys that records name.
pub async fn keys(store: &dyn Store) -> Result<BTreeSet<String>, store::Error> {
    let mut keys = BTreeSet::new();
    for (at, _, field) in RECORDS {
        let found = store.get(at).await?;
        // One that cannot be read stops whoever needs it, with the reason; here it names no key.
        keys.extend(found.and_then(|entry| read(&entry.value, field).ok()).map(|(_, sealed)| sealed.key_id));
    }
    Ok(keys)
}

/// Seals every record's secret again. `dry`: only counts.
pub(super) async fn seal_again(store: &dyn Store, vault: &Vault, dry: bool) -> Result<Outcomes, Failure> {
    let mut outcomes = Outcomes::default();
    for (at, owner, field) in RECORDS {
        record(store, vault, dry, (at, owner, field), &mut outcomes).await?;
    }
    Ok(outcomes)
}

async fn record(
    store: &dyn Store,
    vault: &Vault,
    dry: bool,
    (at, owner, field): (&str, &str, &str),
    outcomes: &mut Outcomes,
) -> Result<(), Failure> {
    for _ in 0..TRIES {
        let Some(entry) = store.get(at).await? else { return Ok(()) };
        // Passed over, it would lose its secret with the former key.
        let (mut record, sealed) = read(&entry.value, field).map_err(|error| {
            let text =
                format!("{at} in the store cannot be read ({error}); nothing was let go of: restore it, then rotate");
            Failure::new(Reason::StorageFailed, text)
        })?;
        let again = match vault.seal_again(owner, &sealed) {
            Ok(None) if dry && vault.key_ids().len() == 1 => {
                outcomes.secrets += 1;
                return Ok(());
            }
            Ok(None) => return Ok(()),
            Ok(Some(again)) => again,
            Err(error) => {
                if !vault.is_lost(&sealed.key_id) {
                    outcomes.kept.push((sealed.key_id, format!("{at}: {error}")));
                }
                return Ok(());
            }
        };
        if dry {
            outcomes.secrets += 1;
            return Ok(());
        }
        record[field] = serde_json::to_value(again).map_err(|e| Failure::new(Reason::Internal, e.to_string()))?;
        let guard = Guard::Unchanged(at.into(), entry.mod_revision);
        let write = Write::Put(at.into(), record.to_string().into());
        // What is not known or was changed by somebody else is looked at again.
        if matches!(store.commit(vec![guard], vec![write]).await?, Outcome::Committed(_)) {
            outcomes.secrets += 1;
            return Ok(());
        }
    }
    let text = format!("it is not known whether {at} was sealed again; rotate again, which goes on where this ended");
    Err(Failure::new(Reason::OutcomeUnknown, text))
}

fn read(value: &[u8], field: &str) -> Result<(Value, Sealed), serde_json::Error> {
    let record: Value = serde_json::from_slice(value)?;
    let sealed = Sealed::deserialize(&record[field])?;
    Ok((record, sealed))
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;
    use crate::access::vault::KeySource;
    use crate::store::sqlite::Sqlite;
    use crate::store::suite::{committed, put};

    #[tokio::test]
    async fn a_record_is_sealed_again_and_is_otherwise_what_it_was() {
        let (folder, store) = (tempfile::tempdir().unwrap(), Sqlite::memory().await.unwrap());
        let source = KeySource::File(folder.path().join("secret.key"));
        let vault = Vault::load(&source, &BTreeSet::new()).unwrap();
        assert_eq!(seal_again(&store, &vault, false).await.unwrap(), Outcomes::default(), "there is none");
        let (at, owner, field) = RECORDS[0];
        let sealed = vault.seal(owner, &"planted".into()).unwrap();
        let former = serde_json::json!({"format": 1, "certificate": "c", field: sealed});
        committed(&store, vec![], vec![put(at, &former.to_string())]).await;
        assert_eq!(keys(&store).await.unwrap(), BTreeSet::from([vault.key_id()]));
        assert_eq!(seal_again(&store, &vault, true).await.unwrap().secrets, 1);

        let old = vault.key_id();
        vault.begin_rotation().await.unwrap();
        assert_eq!(seal_again(&store, &vault, false).await.unwrap().secrets, 1);
        assert_eq!(seal_again(&store, &vault, false).await.unwrap().secrets, 0, "once");
        let value = store.get(at).await.unwrap().unwrap().value;
        assert!(!String::from_utf8_lossy(&value).contains(&old));
        let (record, again) = read(&value, field).unwrap();
        assert_eq!((&record["format"], &record["certificate"]), (&former["format"], &former["certificate"]));
        assert_eq!(vault.open(owner, &again).unwrap().expose_secret(), "planted");
        let stranger = Vault::from_text(&crate::access::vault::without(&[]).unwrap()).unwrap();
        let kept = seal_again(&store, &stranger, false).await.unwrap().kept;
        assert_eq!(kept[0].0, vault.key_id(), "what does not open keeps its key");

        for broken in ["{", "{}", r#"{"key": {"keyId": 7}}"#] {
            committed(&store, vec![], vec![put(at, broken)]).await;
            let refused = seal_again(&store, &vault, false).await.unwrap_err();
            assert_eq!(refused.reason, Reason::StorageFailed, "{broken}: nothing goes on without it");
            assert!(refused.message.contains(at), "{}", refused.message);
        }
    }
}

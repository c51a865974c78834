//! Secrets sealed again under another key, on every store, with faults and under load.

use std::collections::BTreeSet;
use std::path::Path;

use secrecy::ExposeSecret as _;

use super::concurrent::{etcd, sqlite};
use super::*;
use crate::access::vault::{KeySource, Sealed, without};
use crate::definition::history;
use crate::definition::model::{Model, Queue};
use crate::definition::object::Definition;
use crate::definition::resealing::{Resealing, Tally, Told};
use crate::definition::resolve::resolve;
use crate::store::suite::{Fault, Faulty};

/// As a process finds it at its start.
fn load(folder: &Path) -> Vault {
    Vault::load(&KeySource::File(folder.join("secret.key")), &BTreeSet::new()).unwrap()
}

async fn change(definitions: &Definitions, vault: &Vault, request: v1::ApplyModelRequest) -> v1::ApplyModelResponse {
    let ledger = ledger().await;
    apply(Ground { definitions, vault, ledger: &ledger }, request, &author()).await.unwrap()
}

fn of(model: v1::Model) -> v1::ApplyModelRequest {
    v1::ApplyModelRequest { model: Some(model), ..Default::default() }
}

/// Every kind of secret there is.
fn everything() -> v1::Model {
    let mut model = sample();
    let outgoing = v1::OutgoingServer {
        name: "graph".into(),
        enabled: Some(true),
        server: TENANT.into(),
        authentication: v1::OutgoingAuthentication::OauthService.into(),
        user: "0190c0ff-ee01-4890-8c0f-fee019890c0f".into(),
        client_id: "client".into(),
        secret: secret("planted-outgoing-secret"),
        ..Default::default()
    };
    let relay = v1::OutgoingServer {
        name: "relay".into(),
        enabled: Some(true),
        server: "smtp.contoso.example".into(),
        authentication: v1::OutgoingAuthentication::Password.into(),
        user: "relay".into(),
        password: secret("planted-relay-password"),
        ..Default::default()
    };
    model.outgoing_servers = vec![outgoing, relay];
    model
}

/// Revision 2 changes a queue, 3 a secret, 4 removes a queue with a password, 5 leaves all secrets alone.
async fn lived(store: &SharedStore, vault: &Vault) -> Definitions {
    let definitions = definitions(store).await;
    change(&definitions, vault, of(everything())).await;
    let mut model = everything();
    model.queues[0].priority = 11;
    change(&definitions, vault, of(model)).await;
    let server = v1::IncomingServer { secret: secret("planted-second"), ..service_server() };
    change(&definitions, vault, of(v1::Model { incoming_servers: vec![server], ..Default::default() })).await;
    let removals = vec![v1::DefinitionName { noun: "queue".into(), name: "Users".into() }];
    change(&definitions, vault, v1::ApplyModelRequest { removals, ..Default::default() }).await;
    let added = v1::Model { queues: vec![queue("new", vec![])], ..Default::default() };
    change(&definitions, vault, of(added)).await;
    definitions
}

async fn reseal(definitions: &Definitions, vault: &Vault) -> Result<Tally, Failure> {
    let begun = vault.begin_rotation().await?;
    let told = Told::default();
    let mut resealing = Resealing::new(definitions, vault, &told, false);
    resealing.run(&begun.older).await?;
    let tally = resealing.tally().clone();
    let gone = begun.older.into_iter().filter(|id| !tally.kept_keys.contains(id)).collect();
    vault.end_rotation(&gone).await?;
    Ok(tally)
}

/// All that is stored of the model.
async fn stored(store: &SharedStore) -> Vec<(String, String)> {
    let page = store.list("model/", None, 1000).await.unwrap();
    assert!(!page.more);
    page.entries.into_iter().map(|it| (it.key, String::from_utf8(it.value.to_vec()).unwrap())).collect()
}

/// What history tells, which must not change, and the fingerprints by which refused credentials are remembered.
async fn told(definitions: &Definitions, vault: &Vault) -> (Vec<v1::Revision>, Vec<Vec<u8>>) {
    let revisions = history::revisions(definitions, &[5, 4, 3, 2, 1]).await.unwrap();
    let model = definitions.model();
    let read = model.mailboxes().map(|(uid, _)| resolve(&model, vault, uid).unwrap().credentials_digest);
    let mut digests: Vec<_> = read.collect();
    digests.sort();
    (revisions, digests)
}

/// Every revision, brought back, has secrets that open with this vault.
async fn assert_all_open(store: &SharedStore, vault: &Vault) {
    let definitions = definitions(store).await;
    let base = definitions.refresh().await.unwrap();
    for revision in 1..=definitions.model().revision() {
        let head = history::head(&**store, revision).await.unwrap().unwrap();
        let model = tree::read_at(&**store, &base, &head).await.unwrap();
        let secrets: BTreeSet<String> = model
            .mailboxes()
            .map(|(uid, _)| resolve(&model, vault, uid).unwrap_or_else(|failure| panic!("{revision}: {failure}")))
            .map(|it| it.client_secret + &it.password)
            .collect();
        let expected = match revision {
            1 | 2 => vec!["planted-password", "planted-secret"],
            3 => vec!["planted-password", "planted-second"],
            _ => vec!["planted-second"],
        };
        assert_eq!(secrets.into_iter().collect::<Vec<_>>(), expected, "{revision}");
    }
}

async fn everything_is_sealed_again(store: SharedStore) {
    let folder = tempfile::tempdir().unwrap();
    let vault = load(folder.path());
    let definitions = lived(&store, &vault).await;
    let (before, old, objects) = (told(&definitions, &vault).await, vault.key_id(), stored(&store).await.len());
    let follower = super::definitions(&store).await;
    // What an apply that was cut off has left.
    let orphan = object::encode(&serde_json::json!({"secret": {"keyId": old, "nonce": "", "ciphertext": ""}}));
    let left = vec![crate::store::Write::Put(key::model_object(&object::digest(&orphan)), orphan.into())];
    store.commit(vec![], left).await.unwrap();

    let tally = reseal(&definitions, &vault).await.unwrap();
    // Four secrets of revision 1 and one that was set later; every revision had some of them.
    assert_eq!((tally.revisions, tally.secrets, tally.lost, tally.unreadable), (5, 5, 0, 0), "{tally:?}");
    let after = stored(&store).await;
    assert!(!after.iter().any(|(_, value)| value.contains(&old)), "nothing names the old key");
    assert_eq!(after.len(), objects, "what was replaced is gone");
    assert_eq!(told(&definitions, &vault).await, before, "history and credentials say what they said");
    follower.refresh().await.unwrap();
    assert_eq!(told(&follower, &load(folder.path())).await.1, before.1, "whoever follows has the new form");
    let fresh = load(folder.path());
    assert_eq!(fresh.key_ids(), [vault.key_id()]);
    assert_all_open(&store, &fresh).await;

    // Once more: another key, and the same once more.
    assert_eq!(reseal(&definitions, &vault).await.unwrap().secrets, 5);
    assert_eq!(told(&definitions, &vault).await, before);
    assert_all_open(&store, &load(folder.path())).await;
}

#[tokio::test]
async fn everything_is_sealed_again_and_says_what_it_said_on_sqlite() {
    let (store, _folder) = sqlite().await;
    everything_is_sealed_again(store).await;
}

#[tokio::test]
async fn everything_is_sealed_again_and_says_what_it_said_on_etcd() {
    everything_is_sealed_again(etcd().await).await;
}

async fn killed_anywhere(fresh: impl AsyncFn() -> SharedStore) {
    for commits in 0.. {
        let mut whole = 0;
        for arrives in [false, true] {
            let (folder, store) = (tempfile::tempdir().unwrap(), fresh().await);
            let old = {
                let vault = load(folder.path());
                lived(&store, &vault).await;
                vault.key_id()
            };
            // From here on nothing arrives any more, but perhaps the commit during which it was killed.
            let faults = std::iter::repeat_n(Fault::None, commits);
            let last = arrives.then_some(Fault::AnswerLost);
            let faults = faults.chain(last).chain(std::iter::repeat_n(Fault::RequestLost, 1000));
            let faulty: SharedStore = Arc::new(Faulty::new(store.clone(), faults));
            let cut_off = reseal(&definitions(&faulty).await, &load(folder.path())).await;

            // The next start has every key that anything names.
            let (definitions, vault) = (definitions(&store).await, load(folder.path()));
            let named = crate::definition::secrets::keys(&definitions.model());
            assert!(named.iter().all(|id| vault.holds(id)), "{commits}");
            assert_all_open(&store, &vault).await;
            whole += u32::from(cut_off.is_ok());
            let again = reseal(&definitions, &vault).await.unwrap();
            if cut_off.is_err() {
                assert_eq!(load(folder.path()).key_ids().len(), 1);
                assert_eq!(again.unreadable, 0);
            }
            assert!(!stored(&store).await.iter().any(|(_, value)| value.contains(&old)), "{commits}");
            assert_all_open(&store, &load(folder.path())).await;
        }
        if whole == 2 {
            assert!(commits > 5, "it has more commits than that");
            return;
        }
    }
}

#[tokio::test]
async fn killed_at_any_commit_it_goes_on_when_it_is_repeated_on_sqlite() {
    killed_anywhere(store).await;
}

#[tokio::test]
async fn killed_at_any_commit_it_goes_on_when_it_is_repeated_on_etcd() {
    killed_anywhere(etcd).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secrets_are_read_and_the_model_is_changed_meanwhile() {
    let (folder, store) = (tempfile::tempdir().unwrap(), store().await);
    let vault = load(folder.path());
    let definitions = lived(&store, &vault).await;
    let old = vault.key_id();
    let (ground, done) = (ledger().await, tokio_util::sync::CancellationToken::new());
    let reading = async {
        let mut reads = 0u64;
        while !done.is_cancelled() {
            let model = definitions.model();
            for (uid, _) in model.mailboxes() {
                let read = resolve(&model, &vault, uid).unwrap();
                assert!(read.client_secret.starts_with("planted") || read.password.starts_with("planted"));
                reads += 1;
            }
            tokio::task::yield_now().await;
        }
        reads
    };
    let changing = async {
        let mut changes = 0u32;
        // So many at most, or the history would grow faster than it is gone through.
        while !done.is_cancelled() && changes < 40 {
            let ground = Ground { definitions: &definitions, vault: &vault, ledger: &ground };
            let value = format!("planted-{changes}");
            let server = v1::IncomingServer { secret: secret(&value), ..service_server() };
            let model = v1::Model { incoming_servers: vec![server], ..Default::default() };
            apply(ground, of(model), &author()).await.unwrap();
            // Brings secrets of old revisions back, in whatever form they are.
            let back = v1::RollbackModelRequest { revision: 1 + u64::from(changes) % 5, ..Default::default() };
            roll_back(ground, back, &author()).await.unwrap();
            history::revisions(&definitions, &[3, 2, 1]).await.unwrap();
            changes += 1;
        }
        changes
    };
    let rotating = async {
        for _ in 0..3 {
            reseal(&definitions, &vault).await.unwrap();
        }
        done.cancel();
    };
    let (reads, changes, ()) = tokio::join!(reading, changing, rotating);
    assert!(reads > 0 && changes > 0, "{reads} {changes}");
    let fresh = load(folder.path());
    assert_eq!(fresh.key_ids(), [vault.key_id()]);
    let newest = vault.key_id();
    for (at, value) in stored(&store).await {
        assert!(!value.contains(&old), "{at} names the first key");
        let named = value.split("\"keyId\":\"").skip(1).map(|rest| &rest[..newest.len()]);
        assert!(named.into_iter().all(|id| id == newest), "{at} names a key that is gone");
    }
    let read = super::definitions(&store).await.model();
    for (uid, _) in read.mailboxes() {
        resolve(&read, &fresh, uid).unwrap();
    }
}

#[tokio::test]
async fn what_does_not_open_stays_with_its_key_and_what_is_lost_holds_nothing_up() {
    let (folder, store) = (tempfile::tempdir().unwrap(), store().await);
    let vault = load(folder.path());
    let definitions = lived(&store, &vault).await;
    let old = vault.key_id();
    let path = folder.path().join("secret.key");
    let keys = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, without(&[&old]).unwrap().expose_secret()).unwrap();
    let bereft = load(folder.path());
    let tally = reseal(&definitions, &bereft).await.unwrap();
    assert_eq!((tally.secrets, tally.lost, tally.unreadable), (0, 5, 0), "{tally:?}");
    assert!(std::fs::read_to_string(&path).unwrap().contains(&format!("lost:{old}")), "the word is kept");

    // A key that is merely not at hand, without that word, is missed and named.
    std::fs::write(&path, without(&[]).unwrap().expose_secret()).unwrap();
    let tally = reseal(&definitions, &load(folder.path())).await.unwrap();
    assert_eq!((tally.secrets, tally.lost, tally.unreadable), (0, 0, 5), "{tally:?}");
    assert!(tally.kept_keys.contains(&old) && tally.named.iter().any(|it| it.contains(&old)), "{tally:?}");
    std::fs::write(&path, keys).unwrap();
    assert_eq!(reseal(&definitions, &load(folder.path())).await.unwrap().secrets, 5, "and is no worse for it");
}

#[tokio::test]
async fn a_definition_stays_of_which_one_secret_does_not_open() {
    let (folder, store) = (tempfile::tempdir().unwrap(), store().await);
    let vault = load(folder.path());
    let definitions = definitions(&store).await;
    let mut model = sample();
    let bob = v1::Address { password: secret("planted-altered"), ..address("bob@contoso.example", "users") };
    model.queues[1].addresses.push(bob);
    change(&definitions, &vault, of(model)).await;
    let base = definitions.refresh().await.unwrap();
    let altered = plan::definitions(&base.model).into_iter().map(|definition| {
        let garbled = secrets::changed(&definition, |found| {
            let other = Sealed { ciphertext: vec![0; 32], ..found.sealed.clone() };
            (found.what)().contains("bob@").then_some(other)
        });
        match garbled {
            Some(Definition::Queue(queue)) => Definition::Queue(Arc::new(Queue { revision: 2, ..(*queue).clone() })),
            _ => definition,
        }
    });
    let altered = Model::new(2, plan::assemble(altered));
    let (author, request) = (author(), "");
    tree::write(&*store, &base, altered, tree::Origin { author: &author, rollback_of: 0, request }).await.unwrap();
    definitions.refresh().await.unwrap();

    let old = vault.key_id();
    // While the older key is kept no other is made.
    for secrets in [4, 0] {
        let tally = reseal(&definitions, &vault).await.unwrap();
        assert_eq!((tally.secrets, tally.unreadable), (secrets, 1), "{tally:?}");
        assert_eq!(tally.kept_keys.iter().collect::<Vec<_>>(), [&old], "it is kept for the one that is left");
        let fresh = load(folder.path());
        let model = super::definitions(&store).await.model();
        let read = model.mailboxes().map(|(uid, _)| resolve(&model, &fresh, uid).map(|it| it.password));
        let (open, shut): (Vec<_>, Vec<_>) = read.partition(Result::is_ok);
        assert_eq!((open.len(), shut.len()), (3, 1));
        assert!(open.into_iter().flatten().any(|password| password == "planted-password"));
    }
}

#[tokio::test]
async fn a_dry_run_counts_and_changes_nothing() {
    let (folder, store) = (tempfile::tempdir().unwrap(), store().await);
    let vault = load(folder.path());
    let definitions = lived(&store, &vault).await;
    let (before, told) = (stored(&store).await, Told::default());
    let mut dry = Resealing::new(&definitions, &vault, &told, true);
    dry.pass(false).await.unwrap();
    assert_eq!((dry.tally().revisions, dry.tally().secrets), (5, 5));
    assert_eq!(stored(&store).await, before);
    assert_eq!(vault.key_ids().len(), 1);
}

#[tokio::test]
async fn no_secret_that_is_stored_is_passed_over() {
    let store = store().await;
    let definitions = definitions(&store).await;
    change(&definitions, &vault(1), of(everything())).await;
    let sealed: usize = stored(&store).await.iter().map(|(_, value)| value.matches("\"keyId\"").count()).sum();
    let mut seen = 0;
    for definition in plan::definitions(&definitions.model()) {
        crate::definition::secrets::changed(&definition, |_| {
            seen += 1;
            None
        });
    }
    assert_eq!((sealed, seen), (4, 4), "name a new field in definition/secrets.rs, and a value of it here");
}

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use proptest::prelude::*;

use super::key::KEY_BYTES;
use super::source::create;
use super::*;

const OWNER: &str = "incoming-server/0190/secret";

fn vault(seeds: &[u8]) -> Vault {
    let lines: Vec<String> = seeds.iter().map(|seed| BASE64.encode([*seed; KEY_BYTES])).collect();
    Vault::from_text(&lines.join("\n").into()).unwrap()
}

/// The vault of a folder in which nothing was sealed yet.
fn fresh(path: &Path) -> Result<Vault, KeyError> {
    Vault::load(&KeySource::File(path.into()), &BTreeSet::new())
}

fn file(path: &Path) -> KeySource {
    KeySource::File(path.into())
}

fn open(vault: &Vault, owner: &str, sealed: &Sealed) -> Result<String, Error> {
    vault.open(owner, sealed).map(|secret| secret.expose_secret().to_owned())
}

#[test]
fn only_the_owner_opens_a_secret() {
    let vault = vault(&[1]);
    let sealed = vault.seal(OWNER, &"planted ~ secret 🙂".into()).unwrap();
    assert_eq!(open(&vault, OWNER, &sealed).unwrap(), "planted ~ secret 🙂");
    let other = open(&vault, "incoming-server/0191/secret", &sealed);
    assert_eq!(other, Err(Error::Altered { key_id: vault.key_id() }));
    assert_ne!(vault.seal(OWNER, &"planted ~ secret 🙂".into()).unwrap(), sealed, "equal secrets do not look equal");
}

#[test]
fn any_flipped_bit_is_noticed() {
    let vault = vault(&[1]);
    let sealed = vault.seal(OWNER, &"x".into()).unwrap();
    for bit in 0..sealed.ciphertext.len() * 8 {
        let mut altered = sealed.clone();
        altered.ciphertext[bit / 8] ^= 1 << (bit % 8);
        assert!(matches!(open(&vault, OWNER, &altered), Err(Error::Altered { .. })));
    }
    for bit in 0..NONCE_BYTES * 8 {
        let mut altered = sealed.clone();
        altered.nonce[bit / 8] ^= 1 << (bit % 8);
        assert!(matches!(open(&vault, OWNER, &altered), Err(Error::Altered { .. })));
    }
    let short = Sealed { nonce: vec![1], ..sealed };
    assert!(matches!(open(&vault, OWNER, &short), Err(Error::Altered { .. })));
}

#[test]
fn the_newest_key_seals_and_the_older_ones_open() {
    let (old, both, new) = (vault(&[1]), vault(&[1, 2]), vault(&[2]));
    let sealed = old.seal(OWNER, &"a".into()).unwrap();
    assert_eq!(open(&both, OWNER, &sealed).unwrap(), "a");
    let error = open(&new, OWNER, &sealed).unwrap_err();
    assert_eq!(error, Error::UnknownKey { key_id: old.key_id() });
    assert!(error.to_string().contains(&old.key_id()) && error.to_string().contains("restore the key file"));
    let resealed = both.seal(OWNER, &"b".into()).unwrap();
    assert_eq!((resealed.key_id.clone(), both.key_id()), (new.key_id(), new.key_id()));
    assert_eq!(open(&new, OWNER, &resealed).unwrap(), "b");
}

#[test]
fn the_key_file_is_made_once_for_its_owner_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("vault.key");
    let first = fresh(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no draft is left behind");
    let sealed = first.seal(OWNER, &"kept".into()).unwrap();
    let again = fresh(&path).unwrap();
    assert_eq!(again.key_id(), first.key_id());
    assert_eq!(open(&again, OWNER, &sealed).unwrap(), "kept");
    create(&path).unwrap();
    assert_eq!(fresh(&path).unwrap().key_id(), first.key_id(), "a key is never replaced");
}

#[test]
fn what_is_no_key_is_refused_and_not_repeated() {
    let path = tempfile::tempdir().unwrap().path().join("gone").join("vault.key");
    assert!(matches!(fresh(&path), Err(KeyError::File { attempt: "create", .. })));
    assert!(matches!(Vault::from_text(&" \n".into()), Err(KeyError::Empty)));
    let planted = format!("{}\nplanted", BASE64.encode([1; KEY_BYTES]));
    let error = Vault::from_text(&planted.into()).unwrap_err();
    assert!(matches!(error, KeyError::Malformed { line: 2 }));
    assert!(!format!("{error} {error:?}").contains("planted"));
}

#[test]
fn nothing_printed_or_stored_shows_a_secret() {
    let vault = vault(&[7]);
    let sealed = vault.seal(OWNER, &"planted".into()).unwrap();
    let json = serde_json::to_string(&sealed).unwrap();
    let printed = format!("{vault:?} {sealed:?} {json}");
    assert!(!printed.contains("planted") && !printed.contains(&BASE64.encode([7; KEY_BYTES])), "{printed}");
    assert!(printed.contains(&vault.key_id()));
    assert_eq!(serde_json::from_str::<Sealed>(&json).unwrap(), sealed);
}

proptest! {
    #[test]
    fn every_secret_comes_back(secret: String, owner: String) {
        let vault = vault(&[3]);
        let sealed = vault.seal(&owner, &secret.as_str().into()).unwrap();
        prop_assert_eq!(open(&vault, &owner, &sealed).unwrap(), secret);
    }
}

#[test]
fn a_missing_or_wrong_key_is_never_replaced_by_a_new_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("secret.key");
    let wanted = BTreeSet::from([vault(&[1]).key_id()]);
    let id = vault(&[1]).key_id();
    let gone = Vault::load(&file(&path), &wanted).unwrap_err();
    assert!(matches!(gone, KeyError::Gone { .. }), "{gone:?}");
    for told in [id.as_str(), "secret.key", "lost:"] {
        assert!(gone.to_string().contains(told), "{gone}");
    }
    assert!(!path.exists(), "no key was made");

    fs::write(&path, BASE64.encode([2; KEY_BYTES])).unwrap();
    let wrong = Vault::load(&file(&path), &wanted).unwrap_err();
    assert!(matches!(wrong, KeyError::Wanting { .. }), "{wrong:?}");
    for told in [id.as_str(), &vault(&[2]).key_id(), "secret.key", "lost:"] {
        assert!(wrong.to_string().contains(told), "{wrong}");
    }

    // The operator's word that it is lost lets it start, and is kept by a rotation.
    fs::write(&path, format!("{}\nlost:{id}\n", BASE64.encode([2; KEY_BYTES]))).unwrap();
    let without = Vault::load(&file(&path), &wanted).unwrap();
    assert!(without.is_lost(&id) && !without.holds(&id));
    fs::write(&path, "lost:nonsense").unwrap();
    assert!(matches!(Vault::load(&file(&path), &wanted), Err(KeyError::Malformed { line: 1 })));
}

#[tokio::test]
async fn a_rotation_makes_a_key_goes_on_with_it_and_drops_the_old_one_for_good() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("secret.key");
    let vault = fresh(&path).unwrap();
    let old = vault.key_id();
    let sealed = vault.seal(OWNER, &"planted".into()).unwrap();
    let begun = vault.begin_rotation().await.unwrap();
    assert_eq!((begun.older.clone(), begun.resumed), (vec![old.clone()], false));
    assert_eq!(vault.key_ids(), [old.clone(), begun.key_id.clone()]);

    // Killed here: the next start holds both, and goes on with the same key.
    let again = Vault::load(&file(&path), &BTreeSet::from([old.clone()])).unwrap();
    let resumed = again.begin_rotation().await.unwrap();
    assert_eq!(resumed, Begun { resumed: true, ..begun.clone() });
    let anew = again.seal_again(OWNER, &sealed).unwrap().unwrap();
    assert_eq!((anew.key_id.clone(), anew.identity()), (begun.key_id.clone(), sealed.identity()));
    assert_eq!(again.seal_again(OWNER, &anew).unwrap(), None);
    assert!(!again.end_rotation(&BTreeSet::from([old.clone()])).await.unwrap());
    assert_eq!(again.key_ids(), std::slice::from_ref(&begun.key_id));
    assert_eq!(open(&again, OWNER, &sealed).unwrap(), "planted", "whoever began before still can");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no draft is left behind");
    let next = fresh(&path).unwrap();
    assert_eq!(open(&next, OWNER, &sealed).unwrap_err(), Error::UnknownKey { key_id: old });
    assert_eq!(open(&next, OWNER, &anew).unwrap(), "planted");
}

#[tokio::test]
async fn a_key_that_an_operator_adds_is_taken_and_one_that_he_takes_away_is_missed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("secret.key");
    let line = |seed: u8| BASE64.encode([seed; KEY_BYTES]);
    fs::write(&path, line(1)).unwrap();
    let keys = fresh(&path).unwrap();
    fs::write(&path, format!("{}\n{}\n", line(1), line(2))).unwrap();
    let begun = keys.begin_rotation().await.unwrap();
    assert_eq!((begun.key_id, begun.resumed), (vault(&[2]).key_id(), true));
    fs::write(&path, line(2)).unwrap();
    let missed = keys.begin_rotation().await.unwrap_err();
    assert!(matches!(&missed, ChangeError::Key(KeyError::Wanting { wanted, .. }) if *wanted == vault(&[1]).key_id()));
}

#[tokio::test]
async fn keys_from_the_environment_are_the_operators_to_change() {
    // Set by cargo for every test; what it holds is no key.
    let no_key = KeySource::Variable("CARGO_PKG_NAME".into());
    assert!(matches!(Vault::load(&no_key, &BTreeSet::new()), Err(KeyError::Malformed { line: 1 })));
    let unset = KeySource::Variable("POSTROOM_NO_SUCH_VARIABLE".into());
    let told = Vault::load(&unset, &BTreeSet::new()).unwrap_err().to_string();
    assert!(told.contains("POSTROOM_NO_SUCH_VARIABLE") && told.contains("openssl"), "{told}");
    let credential = KeySource::Credential("postroom-key".into());
    let told = Vault::load(&credential, &BTreeSet::new()).unwrap_err().to_string();
    assert!(told.contains("LoadCredential=postroom-key"), "{told}");
    let given = vault(&[1, 2]);
    assert!(matches!(given.begin_rotation().await, Err(ChangeError::Key(KeyError::Fixed { .. }))));
    let mut keys = Keys::default();
    keys.add(Key::random().unwrap());
    let fixed = credential.replace(&keys).unwrap_err().to_string();
    assert!(fixed.contains("systemd credential postroom-key") && fixed.contains("start again"), "{fixed}");
}

#[tokio::test]
async fn nobody_changes_the_keys_that_somebody_holds() {
    let dir = tempfile::tempdir().unwrap();
    let vault = fresh(&dir.path().join("secret.key")).unwrap();
    let held = vault.hold_keys().await;
    assert!(tokio::time::timeout(Duration::from_millis(50), vault.begin_rotation()).await.is_err(), "it waits");
    assert_eq!((held.ids.clone(), vault.key_ids().len()), (vault.key_ids(), 1));
    drop(held);
    vault.begin_rotation().await.unwrap();
}

#[test]
fn sources_have_one_form() {
    assert_eq!("file:/etc/postroom/key".parse(), Ok(KeySource::File("/etc/postroom/key".into())));
    assert_eq!("env:POSTROOM_KEY".parse(), Ok(KeySource::Variable("POSTROOM_KEY".into())));
    assert_eq!("credential:postroom-key".parse(), Ok(KeySource::Credential("postroom-key".into())));
    for wrong in ["", "/etc/key", "file:", "env:", "env:A=B", "credential:../key", "credential:..", "vault:x"] {
        let refused = wrong.parse::<KeySource>().unwrap_err();
        assert!(refused.to_string().contains("credential:NAME"), "{wrong:?}");
    }
}

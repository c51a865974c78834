//! The key of the secrets, rotated while a worker reads.

use std::path::Path;

use postroom_control_plane::config::{Config, KeySource, StoreChoice};
use postroom_control_plane::{folder, store};
use postroom_proto::reason::Reason;
use postroom_proto::v1::definition_service_client::DefinitionServiceClient;
use postroom_proto::v1::rotate_key_response::Event;
use postroom_proto::v1::secret_service_client::SecretServiceClient;
use postroom_proto::v1::{self, open_outcome::Outcome};
use tonic::Status;

use crate::bench::{Bench, reason, settings};

async fn rotate(bench: &Bench, validate_only: bool) -> Result<v1::Rotation, Status> {
    let request = bench.as_admin(v1::RotateKeyRequest { validate_only });
    let mut stream = SecretServiceClient::new(bench.channel.clone()).rotate_key(request).await?.into_inner();
    let mut whole = None;
    while let Some(answer) = stream.message().await? {
        assert!(whole.is_none(), "nothing comes behind the end");
        match answer.event.unwrap() {
            Event::Progress(at) => assert!(at.done_count <= at.total_count, "{at:?}"),
            Event::Rotation(rotation) => whole = Some(rotation),
        }
    }
    Ok(whole.expect("the rotation ends with what it came to"))
}

fn key_lines(data: &Path) -> Vec<String> {
    std::fs::read_to_string(data.join(folder::KEY)).unwrap().lines().map(str::to_owned).collect()
}

/// True when a file of the data folder, but for the key file, holds these bytes.
fn holds(data: &Path, bytes: &[u8]) -> bool {
    std::fs::read_dir(data).unwrap().map(Result::unwrap).any(|entry| {
        let file = entry.file_type().unwrap().is_file() && entry.file_name() != folder::KEY;
        file && std::fs::read(entry.path()).unwrap().windows(bytes.len()).any(|window| window == bytes)
    })
}

/// The ciphertexts that the store holds, as text.
async fn ciphertexts(data: &Path) -> Vec<String> {
    let copy = store::sqlite::Sqlite::open(&data.join(folder::STORE)).await.unwrap();
    let page = store::Store::list(&copy, "model/object/", None, 1000).await.unwrap();
    copy.close().await;
    let values = page.entries.iter().map(|entry| String::from_utf8(entry.value.to_vec()).unwrap());
    let found = values.flat_map(|value| {
        let parts = value.split("\"ciphertext\":\"").skip(1);
        parts.map(|rest| rest.split('"').next().unwrap().to_owned()).collect::<Vec<_>>()
    });
    found.collect()
}

#[tokio::test]
async fn a_worker_reads_on_and_nothing_of_the_former_key_is_left() {
    let data = tempfile::tempdir().unwrap();
    let bench = Bench::start_with(Config { store: StoreChoice::Sqlite, ..settings(data.path()).await }).await;
    bench.define_mailbox().await;
    let mut worker = bench.register("worker").await;
    let offer = worker.offered().await;
    let Outcome::Opened(opened) = worker.open(&offer.mailbox, offer.epoch).await else { panic!("not opened") };
    let before = opened.definition.unwrap();

    // The secret in other forms, and one that is only in the history.
    let other = v1::Address {
        email: "billing@contoso.example".into(),
        password: Some(v1::SecretInput { value: "planted-2".into(), clear: false }),
        server: before.server.clone(),
        ..Default::default()
    };
    let queue =
        v1::Queue { name: "Billing".into(), instance: "core1".into(), addresses: vec![other], ..Default::default() };
    let model = v1::Model { queues: vec![queue], ..Default::default() };
    let apply = |model| bench.as_admin(v1::ApplyModelRequest { model: Some(model), ..Default::default() });
    let mut definitions = DefinitionServiceClient::new(bench.channel.clone());
    definitions.apply_model(apply(model)).await.unwrap();
    let offer = loop {
        let offer = worker.offered().await;
        if offer.definition_revision == 2 {
            break offer;
        }
    };
    let former = ciphertexts(data.path()).await;
    let former_key = key_lines(data.path()).remove(0);
    assert_eq!(former.len(), 2);
    assert!(former.iter().all(|it| holds(data.path(), it.as_bytes())), "they would be found");

    let dry = rotate(&bench, true).await.unwrap();
    assert_eq!((dry.secret_count, dry.revision_count, dry.validate_only), (2, 2, true), "{dry:?}");
    assert_eq!(key_lines(data.path()), std::slice::from_ref(&former_key), "a dry run makes no key");

    let rotation = rotate(&bench, false).await.unwrap();
    assert_eq!((rotation.secret_count, rotation.revision_count, rotation.resumed), (2, 2, false), "{rotation:?}");
    assert_eq!(rotation.dropped_key_ids.len(), 1);
    assert_eq!((rotation.compact_revision, rotation.source_keeps_keys, rotation.former_store_kept), (0, false, false));
    let keys = key_lines(data.path());
    assert!(keys.len() == 1 && keys[0] != former_key, "one key, and another");
    for gone in former.iter().chain([&former_key]) {
        assert!(!holds(data.path(), gone.as_bytes()), "{gone} is left");
    }
    assert!(!holds(data.path(), format!("\"keyId\":\"{}\"", rotation.dropped_key_ids[0]).as_bytes()));

    // The same session under the same lease: nothing was moved, and what it gets has the same fingerprint.
    let Outcome::Opened(opened) = worker.open(&offer.mailbox, offer.epoch).await else { panic!("not opened") };
    let after = opened.definition.unwrap();
    assert_eq!((after.password.as_str(), after.revision), ("planted-2", 2), "nobody is told to open it again");
    bench.app.stop().await;

    let bench = Bench::start_with(Config { store: StoreChoice::Sqlite, ..settings(data.path()).await }).await;
    let back = bench.as_admin(v1::RollbackModelRequest { revision: 1, ..Default::default() });
    DefinitionServiceClient::new(bench.channel.clone()).rollback_model(back).await.unwrap();
    let mut worker = bench.register("next").await;
    let offer = worker.offered().await;
    let Outcome::Opened(opened) = worker.open(&offer.mailbox, offer.epoch).await else { panic!("not opened") };
    let back = opened.definition.unwrap();
    assert_eq!(back.password, "planted", "the history opens too");
    assert_eq!(back.credentials_digest, before.credentials_digest, "a refused password is remembered");
    bench.app.stop().await;
}

#[tokio::test]
async fn only_admins_rotate_and_a_rotation_that_nobody_waits_for_is_gone_on_with() {
    let data = tempfile::tempdir().unwrap();
    let bench = Bench::start(data.path()).await;
    let mut secrets = SecretServiceClient::new(bench.channel.clone());
    let worker = secrets.rotate_key(bench.as_worker(v1::RotateKeyRequest::default())).await.unwrap_err();
    assert_eq!(reason(&worker), Reason::PermissionDenied);
    let first = secrets.rotate_key(bench.as_admin(v1::RotateKeyRequest::default())).await.unwrap();
    drop(first);
    let whole = loop {
        match rotate(&bench, false).await {
            Ok(rotation) => break rotation,
            Err(status) => assert_eq!(reason(&status), Reason::TooMany, "{status:?}"),
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    };
    assert_eq!((key_lines(data.path()).len(), whole.unreadable_count), (1, 0));
    bench.app.stop().await;
    Bench::start_undefined(data.path()).await.app.stop().await;
}

#[tokio::test]
async fn a_key_of_the_operators_is_his_to_change() {
    let (data, keys) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let path = keys.path().join("postroom.key");
    let source = KeySource::File(path.clone());
    let bench = Bench::start_with(Config { secret_key: source, ..settings(data.path()).await }).await;
    bench.define_mailbox().await;
    assert!(path.exists() && !data.path().join(folder::KEY).exists(), "the key is where it was said");
    // An own key, added as the last line.
    let mut lines = std::fs::read_to_string(&path).unwrap();
    lines.push_str("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n");
    std::fs::write(&path, &lines).unwrap();
    let rotation = rotate(&bench, false).await.unwrap();
    assert!(rotation.resumed && rotation.key_source.contains("postroom.key"), "{rotation:?}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n");
    // The keys in use vanish: a rotation that would lose the present one is refused, and nothing happens.
    std::fs::write(&path, "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=\n").unwrap();
    let refused = rotate(&bench, false).await.unwrap_err();
    assert_eq!(reason(&refused), Reason::KeyUnusable);
    assert!(refused.message().contains(&rotation.key_id), "{}", refused.message());
    bench.app.stop().await;
}

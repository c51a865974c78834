//! Whole applies, on a real store.

use std::sync::Arc;
use std::time::Duration;

use postroom_proto::id::MailboxUid;
use postroom_proto::reason::FieldFault;
use secrecy::SecretString;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::store::sqlite::Sqlite;
use crate::store::suite::{Fault, Faulty};
use crate::store::{self, SharedStore, key};

mod concurrent;
mod history;
mod outgoing;
mod properties;
mod removal;
mod rollout;
mod system;

const NAME: &str = "Münster / \"Büro\" #1 🙂";
const TENANT: &str = "contoso.onmicrosoft.com";

fn vault(seed: u8) -> Vault {
    use base64::Engine as _;
    Vault::from_text(&SecretString::from(base64::engine::general_purpose::STANDARD.encode([seed; 32]))).unwrap()
}

fn author() -> Author {
    Author { name: "ada".into(), time: 1_700_000_000_000_000 }
}

async fn store() -> SharedStore {
    Arc::new(Sqlite::memory().await.unwrap())
}

async fn definitions(store: &SharedStore) -> Definitions {
    Definitions::load(Arc::clone(store)).await.unwrap()
}

async fn apply_model(definitions: &Definitions, model: v1::Model) -> Result<v1::ApplyModelResponse, Failure> {
    send(definitions, v1::ApplyModelRequest { model: Some(model), ..Default::default() }).await
}

async fn send(definitions: &Definitions, request: v1::ApplyModelRequest) -> Result<v1::ApplyModelResponse, Failure> {
    let ledger = ledger().await;
    apply(Ground { definitions, vault: &vault(1), ledger: &ledger }, request, &author()).await
}

async fn ledger() -> crate::ledger::sqlite::Sqlite {
    crate::ledger::sqlite::Sqlite::open(&crate::sqlite::Location::Memory).await.unwrap()
}

async fn faults(definitions: &Definitions, model: v1::Model) -> Vec<FieldFault> {
    let failure = apply_model(definitions, model).await.unwrap_err();
    assert_eq!(failure.reason, Reason::InvalidField);
    assert!(failure.fields.iter().all(|fault| !fault.description.is_empty()));
    failure.fields
}

fn secret(value: &str) -> Option<v1::SecretInput> {
    Some(v1::SecretInput { value: value.into(), clear: false })
}

fn service_server() -> v1::IncomingServer {
    v1::IncomingServer {
        name: NAME.into(),
        address: format!("https://login.microsoftonline.com/{TENANT}/oauth2/v2.0/token"),
        authentication: v1::Authentication::OauthService.into(),
        client_id: "client".into(),
        secret: secret("planted-secret"),
        ..Default::default()
    }
}

fn user_server() -> v1::IncomingServer {
    let authentication = v1::Authentication::OauthUser.into();
    v1::IncomingServer { name: "users".into(), authentication, secret: None, ..service_server() }
}

fn address(email: &str, server: &str) -> v1::Address {
    v1::Address { email: email.into(), server: server.into(), ..Default::default() }
}

fn queue(name: &str, addresses: Vec<v1::Address>) -> v1::Queue {
    v1::Queue { name: name.into(), instance: "core1".into(), addresses, ..Default::default() }
}

/// One instance, a server of each OAuth kind, two queues.
fn sample() -> v1::Model {
    let user = v1::Address { password: secret("planted-password"), ..address("ada@contoso.example", "users") };
    v1::Model {
        instances: vec![v1::Instance { name: "core1".into(), ..Default::default() }],
        incoming_servers: vec![service_server(), user_server()],
        queues: vec![
            v1::Queue {
                priority: 10,
                language: "fi".into(),
                ..queue(
                    NAME,
                    vec![
                        v1::Address { priority: 5, ..address("billing@contoso.example", NAME) },
                        v1::Address { language: "pt-BR".into(), ..address("sales@contoso.example", NAME) },
                    ],
                )
            },
            queue("Users", vec![user]),
        ],
        ..Default::default()
    }
}

fn fields(response: &v1::ApplyModelResponse) -> Vec<(String, String, Vec<String>)> {
    response
        .changes
        .iter()
        .map(|it| (it.noun.clone(), it.name.clone(), it.fields.iter().map(|it| it.field.clone()).collect()))
        .collect()
}

#[tokio::test]
async fn an_apply_creates_updates_by_name_and_repeats_without_effect() {
    let store = store().await;
    let definitions = definitions(&store).await;
    let first = apply_model(&definitions, sample()).await.unwrap();
    assert_eq!(first.revision, 1);
    let nouns: Vec<_> = first.changes.iter().map(|it| (it.kind(), it.noun.as_str())).collect();
    let create = v1::change::Kind::Create;
    let expected = ["instance", "incoming-server", "incoming-server", "queue", "queue"].map(|noun| (create, noun));
    assert_eq!(nouns, expected);
    let uid = definitions.model().queue(NAME).unwrap().uid.clone();

    let again = apply_model(&definitions, sample()).await.unwrap();
    assert_eq!((again.revision, again.changes.len()), (1, 0), "{again:?}");

    let mut changed = sample();
    changed.incoming_servers[0].secret = secret("another");
    changed.queues[0].priority = 11;
    changed.queues[0].addresses.remove(0);
    changed.queues[0].addresses.push(address("new@contoso.example", NAME));
    changed.queues.truncate(1);
    let second = apply_model(&definitions, changed).await.unwrap();
    assert_eq!(second.revision, 2);
    assert_eq!(
        fields(&second),
        [
            ("incoming-server".into(), NAME.into(), vec!["secret".into()]),
            (
                "queue".into(),
                NAME.into(),
                vec![
                    "priority".into(),
                    "addresses[new@contoso.example]".into(),
                    "addresses[billing@contoso.example]".into()
                ]
            ),
        ]
    );
    let model = definitions.model();
    assert_eq!((model.queue(NAME).unwrap().uid.as_str(), model.queue(NAME).unwrap().revision), (uid.as_str(), 2));
    assert_eq!(model.queue("Users").unwrap().revision, 1, "what the request does not name stays");
    assert_eq!(model.queue(&uid).unwrap().name, NAME);
}

#[tokio::test]
async fn an_exported_model_applied_changes_nothing() {
    let store = store().await;
    let definitions = definitions(&store).await;
    apply_model(&definitions, sample()).await.unwrap();
    let exported = wire::model(&definitions.model());
    assert!(exported.incoming_servers[0].secret_set || exported.incoming_servers[1].secret_set);
    assert!(!format!("{exported:?}").contains("planted"));
    let again = apply_model(&definitions, exported).await.unwrap();
    assert_eq!((again.revision, again.changes.len()), (1, 0), "{again:?}");
}

#[tokio::test]
async fn a_new_process_reads_the_same_model() {
    let store = store().await;
    let first = definitions(&store).await;
    apply_model(&first, sample()).await.unwrap();
    let second = definitions(&store).await;
    assert_eq!(wire::model(&first.model()), wire::model(&second.model()));
    assert_eq!(second.model().revision(), 1);
    let history = store.get(&key::model_revision(1)).await.unwrap().unwrap();
    assert_eq!(history.value, store.get(key::MODEL_HEAD).await.unwrap().unwrap().value);
    let all = store.list("", None, 1000).await.unwrap();
    let text: Vec<u8> = all.entries.iter().flat_map(|entry| entry.value.to_vec()).collect();
    assert!(!String::from_utf8_lossy(&text).contains("planted"), "secrets rest sealed");
}

#[tokio::test]
async fn mailboxes_are_resolved_with_effective_values_and_opened_secrets() {
    let store = store().await;
    let definitions = definitions(&store).await;
    apply_model(&definitions, sample()).await.unwrap();
    let model = definitions.model();
    assert_eq!(model.mailboxes().len(), 3);
    let uid = MailboxUid::derive("BILLING@contoso.example", "inbox", TENANT);
    let found = model.mailbox(&uid).unwrap();
    assert_eq!((found.priority(), found.language(), found.revision), (5, "fi", 1));
    assert_eq!((found.queue.name.as_str(), found.instance.pool()), (NAME, "default"));
    let sales = model.mailbox(&MailboxUid::derive("sales@contoso.example", "INBOX", TENANT)).unwrap();
    assert_eq!((sales.priority(), sales.language()), (10, "pt-BR"));

    let definition = resolve(&model, &vault(1), &uid).unwrap();
    assert_eq!(definition.authority, format!("https://login.microsoftonline.com/{TENANT}"));
    assert_eq!(definition.scope, "https://outlook.office365.com/.default");
    assert_eq!((definition.imap_host.as_str(), definition.imap_port), ("outlook.office365.com", 993));
    assert_eq!((definition.client_secret.as_str(), definition.password.as_str()), ("planted-secret", ""));
    assert_eq!((definition.folder.as_str(), definition.account.as_str()), ("INBOX", "billing@contoso.example"));
    assert_eq!(definition.max_message_bytes, 26_214_400);
    assert_eq!(definition.start.unwrap().policy(), v1::StartPolicy::Unseen);
    assert_eq!(definition.after_intake.unwrap().policy(), v1::AfterIntakePolicy::Seen);

    let user = MailboxUid::derive("ada@contoso.example", "INBOX", TENANT);
    let definition = resolve(&model, &vault(1), &user).unwrap();
    assert_eq!((definition.client_secret.as_str(), definition.password.as_str()), ("", "planted-password"));
    assert_eq!(definition.scope, "https://outlook.office.com/IMAP.AccessAsUser.All");

    let failure = resolve(&model, &vault(2), &user).unwrap_err();
    assert_eq!(failure.reason, Reason::SecretUnreadable);
    assert!(failure.message.contains(vault(1).key_id()) && failure.message.contains("restore"), "{failure}");
    let unknown = MailboxUid::derive("nobody@contoso.example", "INBOX", TENANT);
    assert_eq!(resolve(&model, &vault(1), &unknown).unwrap_err().reason, Reason::NotFound);
}

#[tokio::test]
async fn secrets_left_out_stay_and_outlive_other_changes() {
    let store = store().await;
    let definitions = definitions(&store).await;
    apply_model(&definitions, sample()).await.unwrap();
    let mut changed = sample();
    changed.incoming_servers[0].secret = None;
    changed.incoming_servers[1].address = "https://login.microsoftonline.com/fabrikam.example".into();
    changed.queues[1].addresses[0].password = None;
    changed.queues[1].addresses[0].folder = "Support".into();
    let response = apply_model(&definitions, changed).await.unwrap();
    assert_eq!(
        fields(&response),
        [
            ("incoming-server".into(), "users".into(), vec!["address".into()]),
            ("queue".into(), "Users".into(), vec!["addresses[ada@contoso.example].folder".into()]),
        ]
    );
    let model = definitions.model();
    let uid = MailboxUid::derive("ada@contoso.example", "Support", "fabrikam.example");
    assert_eq!(resolve(&model, &vault(1), &uid).unwrap().password, "planted-password");

    // A server that stops signing in by itself forgets its secret, and all of its addresses need passwords.
    let mut changed = sample();
    changed.incoming_servers[0].authentication = v1::Authentication::OauthUser.into();
    changed.incoming_servers[0].secret = None;
    changed.queues.clear();
    let paths: Vec<_> = faults(&definitions, changed).await.into_iter().map(|it| it.field).collect();
    let path = |n| format!("queues[{NAME:?}].addresses[{n}].password");
    assert_eq!(paths, [path(0), path(1)]);
}

#[tokio::test]
async fn all_faults_are_told_at_once_in_the_words_of_the_model_file() {
    let store = store().await;
    let definitions = definitions(&store).await;
    let mut model = sample();
    model.instances.push(v1::Instance { name: "Core 2".into(), pool: "P".into(), allocation: 9, ..Default::default() });
    model.instances.push(v1::Instance { name: "core1".into(), ..Default::default() });
    model.incoming_servers.extend([
        v1::IncomingServer { client_id: String::new(), secret: None, name: "a".into(), ..service_server() },
        v1::IncomingServer { name: "b".into(), address: "http://x/y".into(), imap_port: 70_000, ..service_server() },
        v1::IncomingServer { name: "c".into(), authentication: 77, imap_security: 5, ..service_server() },
        v1::IncomingServer { name: "d".into(), address: "https://login.example/t".into(), ..service_server() },
        v1::IncomingServer { name: "e".into(), address: "https://127.0.0.1:8443/t".into(), ..service_server() },
        v1::IncomingServer { name: "f".into(), secret: secret("x"), ..user_server() },
        v1::IncomingServer {
            name: "g\u{7}".into(),
            authentication: v1::Authentication::Password.into(),
            imap_host: "imaps://mail.example:993".into(),
            secret: None,
            ..service_server()
        },
        v1::IncomingServer { name: "h".into(), secret: secret(""), ..service_server() },
    ]);
    model.queues[0].addresses.extend([
        address("billing@contoso.example", NAME),
        address("not an address", NAME),
        v1::Address {
            priority: 1001, language: "x y".into(), folder: "Müll".into(), ..address("a@b.example", "nope")
        },
        address("u@b.example", "users"),
        v1::Address { password: secret("x"), ..address("s@b.example", NAME) },
        address("c@b.example", "c"),
        address("", ""),
    ]);
    model.queues.extend([
        v1::Queue {
            instance: "core9".into(),
            priority: 2000,
            language: "_".into(),
            start: Some(v1::Start { policy: v1::StartPolicy::Since.into(), since_time: None }),
            after_intake: Some(v1::AfterIntake { policy: v1::AfterIntakePolicy::Move.into(), folder: " ".into() }),
            ..queue("q", vec![address("Sales@Contoso.example", NAME)])
        },
        v1::Queue {
            start: Some(v1::Start { policy: 99, since_time: None }),
            after_intake: Some(v1::AfterIntake { policy: 99, folder: String::new() }),
            max_message_bytes: u64::MAX,
            ..queue(&"🙂".repeat(201), vec![])
        },
        v1::Queue {
            start: Some(v1::Start { policy: 2, since_time: Some(Default::default()) }),
            after_intake: Some(v1::AfterIntake { policy: 1, folder: "Done".into() }),
            ..queue(" ", vec![])
        },
    ]);
    let found = faults(&definitions, model).await;
    let paths: Vec<&str> = found.iter().map(|it| it.field.as_str()).collect();
    let expected = [
        "instances[1].allocation",
        "instances[1].name",
        "instances[1].pool",
        "instances[2].name",
        "incomingServers[2].clientId",
        "incomingServers[2].secret",
        "incomingServers[3].address",
        "incomingServers[3].imap.port",
        "incomingServers[4].authentication",
        "incomingServers[4].imap.security",
        "incomingServers[5].imap.host",
        "incomingServers[5].scope",
        "incomingServers[6].imap.host",
        "incomingServers[7].secret",
        "incomingServers[8].imap.host",
        "incomingServers[8].name",
        "incomingServers[9].secret",
        "queues[0].addresses[2].email",
        "queues[0].addresses[3].email",
        "queues[0].addresses[4].folder",
        "queues[0].addresses[4].language",
        "queues[0].addresses[4].priority",
        "queues[0].addresses[4].server",
        "queues[0].addresses[5].password",
        "queues[0].addresses[6].password",
        "queues[0].addresses[8].email",
        "queues[0].addresses[8].server",
        "queues[2].addresses[0].email",
        "queues[2].afterIntake",
        "queues[2].instance",
        "queues[2].language",
        "queues[2].priority",
        "queues[2].start",
        "queues[3].afterIntake",
        "queues[3].maxMessageBytes",
        "queues[3].name",
        "queues[3].start",
        "queues[4].afterIntake",
        "queues[4].name",
        "queues[4].start",
    ];
    assert_eq!(paths, expected, "{found:#?}");
    assert_eq!(definitions.model().revision(), 0, "nothing was stored");
    assert!(!format!("{found:?}").contains("planted"));
}

#[tokio::test]
async fn a_mailbox_is_not_taken_from_a_stored_queue() {
    let store = store().await;
    let definitions = definitions(&store).await;
    apply_model(&definitions, sample()).await.unwrap();
    let model = v1::Model {
        queues: vec![queue("thief", vec![address("BILLING@contoso.example", NAME)])],
        ..Default::default()
    };
    let found = faults(&definitions, model).await;
    assert_eq!(found[0].field, "queues[0].addresses[0].email");
    assert!(found[0].description.contains(&format!("{NAME:?}")), "{found:?}");
}

#[tokio::test]
async fn a_local_tenant_needs_only_the_mail_server() {
    let store = store().await;
    let definitions = definitions(&store).await;
    let mut model = sample();
    model.incoming_servers[0].address = "https://127.0.0.1:8443/rehearsal".into();
    model.incoming_servers[0].imap_host = "localhost".into();
    model.incoming_servers[0].imap_port = 10_993;
    apply_model(&definitions, model).await.unwrap();
    let model = definitions.model();
    let server = model.server(NAME).unwrap();
    assert_eq!(server.scope(), "https://outlook.office365.com/.default");
    assert_eq!((server.imap_host(), server.imap_port(), server.realm()), ("localhost", 10_993, "rehearsal"));
}

#[tokio::test]
async fn dry_runs_and_old_etags_store_nothing() {
    let store = store().await;
    let definitions = definitions(&store).await;
    let request = |etag: &str, validate_only| v1::ApplyModelRequest {
        model: Some(sample()),
        etag: etag.into(),
        validate_only,
        ..Default::default()
    };
    let dry = send(&definitions, request("0", true)).await.unwrap();
    assert_eq!((dry.revision, dry.changes.len()), (0, 5));
    assert_eq!(store.revision().await.unwrap().0, 0);
    let old = send(&definitions, request("7", false)).await.unwrap_err();
    assert_eq!((old.reason, old.metadata["revision"].as_str()), (Reason::EtagMismatch, "0"));
    let bad = send(&definitions, request("abc", false)).await.unwrap_err();
    assert_eq!(bad.reason, Reason::InvalidField);
    assert_eq!(send(&definitions, request("0", false)).await.unwrap().revision, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_applies_at_once_one_loses_and_nothing_mixes() {
    for round in 0..15 {
        let store = store().await;
        let (one, two) = (definitions(&store).await, definitions(&store).await);
        let model = |who: &str| {
            let mut model = sample();
            let language = if who == "one" { "de" } else { "sv" };
            model.queues.iter_mut().for_each(|queue| queue.language = language.into());
            model.queues.extend(
                (0..120).map(|n| v1::Queue { language: language.into(), ..queue(&format!("{who} {n}"), vec![]) }),
            );
            model
        };
        let (a, b) = tokio::join!(apply_model(&one, model("one")), apply_model(&two, model("two")));
        let (winner, loser) = match (a, b) {
            (Ok(_), Err(lost)) => ("one", lost),
            (Err(lost), Ok(_)) => ("two", lost),
            // They did not meet: the second one saw the first and added to it.
            (Ok(a), Ok(b)) => {
                assert_eq!(a.revision.max(b.revision), 2, "{round}");
                continue;
            }
            (Err(a), Err(b)) => panic!("{a} {b}"),
        };
        assert_eq!(loser.reason, Reason::EtagMismatch);
        let model = definitions(&store).await.model();
        let language = if winner == "one" { "de" } else { "sv" };
        assert_eq!((model.revision(), model.queues().len()), (1, 122));
        assert!(model.queues().all(|queue| queue.language == language));
    }
}

#[tokio::test]
async fn a_lost_answer_to_the_head_is_read_again() {
    // The first commit writes the objects, the second the head.
    for (faults, succeeds) in [
        (vec![Fault::AnswerLost, Fault::None, Fault::None], true),
        (vec![Fault::RequestLost, Fault::RequestLost, Fault::None, Fault::None], true),
        (vec![Fault::None, Fault::AnswerLost], true),
        (vec![Fault::None, Fault::RequestLost], false),
    ] {
        let inner = store().await;
        let faulty: SharedStore = Arc::new(Faulty::new(Arc::clone(&inner), faults.clone()));
        let unsure = definitions(&faulty).await;
        let outcome = apply_model(&unsure, sample()).await;
        let stored = definitions(&inner).await.model().revision();
        match outcome {
            Ok(response) => assert_eq!((succeeds, response.revision, stored), (true, 1, 1), "{faults:?}"),
            Err(failure) => {
                assert_eq!((succeeds, failure.reason, stored), (false, Reason::OutcomeUnknown, 0), "{faults:?}");
                assert_eq!(apply_model(&unsure, sample()).await.unwrap().revision, 1, "applied again it holds");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tree_of_3000_queues_comes_back_and_small_changes_write_little() {
    let store = store().await;
    let first = definitions(&store).await;
    let mut model = sample();
    model.queues = (0..3000)
        .map(|n| queue(&format!("{NAME} {n}"), vec![address(&format!("q{n}@contoso.example"), NAME)]))
        .collect();
    assert_eq!(apply_model(&first, model.clone()).await.unwrap().changes.len(), 3003);
    let second = definitions(&store).await;
    assert_eq!(wire::model(&first.model()), wire::model(&second.model()));
    assert_eq!(second.model().mailboxes().len(), 3000);

    let before = store.revision().await.unwrap();
    model.queues[1234].priority = 7;
    let response = apply_model(&second, model).await.unwrap();
    assert_eq!(fields(&response), [("queue".into(), format!("{NAME} 1234"), vec!["priority".into()])]);
    let mut changes = store.watch("", crate::store::Revision(before.0 + 1)).await.unwrap();
    let objects = changes.next().await.unwrap();
    assert_eq!(objects.len(), 3, "the queue, its chunk, the manifest");
    assert_eq!(changes.next().await.unwrap().len(), 2, "head and history");
    let third = definitions(&store).await;
    assert_eq!(wire::model(&second.model()), wire::model(&third.model()));
}

#[tokio::test]
async fn a_queue_that_no_object_can_hold_is_refused() {
    let store = store().await;
    let definitions = definitions(&store).await;
    let mut model = sample();
    model.queues[0].addresses =
        (0..6000).map(|n| address(&format!("address-number-{n}@contoso.example"), NAME)).collect();
    let found = faults(&definitions, model).await;
    assert_eq!((found.len(), found[0].field.as_str()), (1, "queues[0].addresses"));
}

#[tokio::test]
async fn a_damaged_or_missing_object_is_told() {
    for damaged in [true, false] {
        let store = store().await;
        let first = definitions(&store).await;
        apply_model(&first, sample()).await.unwrap();
        let page = store.list(key::MODEL_OBJECTS, None, 1).await.unwrap();
        let key = page.entries[0].key.clone();
        let write = match damaged {
            true => store::Write::Put(key, "{}".into()),
            false => store::Write::Delete(key),
        };
        store.commit(vec![], vec![write]).await.unwrap();
        let error = Definitions::load(Arc::clone(&store)).await.unwrap_err();
        assert!(error.to_string().contains("restore the store from a backup"), "{error}");
    }
}

#[tokio::test]
async fn a_newer_format_is_refused() {
    let store = store().await;
    let head = r#"{"format":4,"anything":"else"}"#;
    store.commit(vec![], vec![store::Write::Put(key::MODEL_HEAD.into(), head.into())]).await.unwrap();
    let error = Definitions::load(Arc::clone(&store)).await.unwrap_err();
    assert!(error.to_string().contains("install the newer version"), "{error}");
}

#[tokio::test]
async fn the_view_follows_other_replicas_even_past_compaction() {
    let small: SharedStore = Arc::new(Sqlite::start(&crate::sqlite::Location::Memory, 8).await.unwrap());
    let here = Arc::new(definitions(&small).await);
    let elsewhere = definitions(&small).await;
    let stop = CancellationToken::new();
    let run = {
        let (here, stop) = (Arc::clone(&here), stop.clone());
        tokio::spawn(async move { here.run(stop).await })
    };
    let mut models = here.subscribe();
    for revision in 1..=12u32 {
        let mut model = sample();
        model.queues[0].priority = revision;
        apply_model(&elsewhere, model).await.unwrap();
        for n in 0..20 {
            let write = store::Write::Put("noise".into(), n.to_string().into());
            small.commit(vec![], vec![write]).await.unwrap();
        }
        let arrived = models.wait_for(|model| model.revision() == u64::from(revision));
        tokio::time::timeout(Duration::from_secs(20), arrived).await.expect("the view arrives").unwrap();
        assert_eq!(here.model().queue(NAME).unwrap().priority, revision);
    }
    stop.cancel();
    tokio::time::timeout(Duration::from_secs(20), run).await.unwrap().unwrap();
}

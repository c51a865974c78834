//! Whole applies, on a real store.

use std::sync::Arc;

use postroom_proto::id::MailboxUid;
use postroom_proto::reason::FieldFault;
use secrecy::SecretString;

use super::*;
use crate::store::sqlite::Sqlite;
use crate::store::{SharedStore, key};

mod concurrent;
mod faults;
mod history;
mod outgoing;
mod properties;
mod removal;
mod resealing;
mod rollout;
mod stored;
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
    assert_eq!((definition.max_message_bytes, definition.backlog_guard), (26_214_400, Some(1000)));
    assert_eq!(definition.start.unwrap().policy(), v1::StartPolicy::Unseen);
    assert_eq!(definition.after_intake.unwrap().policy(), v1::AfterIntakePolicy::Seen);

    let user = MailboxUid::derive("ada@contoso.example", "INBOX", TENANT);
    let definition = resolve(&model, &vault(1), &user).unwrap();
    assert_eq!((definition.client_secret.as_str(), definition.password.as_str()), ("", "planted-password"));
    assert_eq!(definition.scope, "https://outlook.office.com/IMAP.AccessAsUser.All");

    let failure = resolve(&model, &vault(2), &user).unwrap_err();
    assert_eq!(failure.reason, Reason::SecretUnreadable);
    assert!(failure.message.contains(&vault(1).key_id()) && failure.message.contains("restore"), "{failure}");
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

//! System settings, and what objects of a former format still say.

use super::*;

fn settings(language: &str, priority: u32) -> v1::Model {
    let system = Some(v1::System { language: language.into(), priority, revision: 0 });
    v1::Model { system, ..Default::default() }
}

#[tokio::test]
async fn what_neither_address_nor_queue_says_the_system_settings_say() {
    let store = store().await;
    let definitions = definitions(&store).await;
    apply_model(&definitions, sample()).await.unwrap();
    let user = MailboxUid::derive("ada@contoso.example", "INBOX", TENANT);
    let billing = MailboxUid::derive("billing@contoso.example", "INBOX", TENANT);
    let model = definitions.model();
    let found = model.mailbox(&user).unwrap();
    assert_eq!((found.priority(), found.language(), found.revision), (1, "en", 1));

    let changed = apply_model(&definitions, settings(" de ", 7)).await.unwrap();
    assert_eq!(fields(&changed), [("system".into(), "system".into(), vec!["language".into(), "priority".into()])]);
    assert_eq!(changed.changes[0].fields[0].new_value, "de");
    let model = definitions.model();
    let found = model.mailbox(&user).unwrap();
    assert_eq!((found.priority(), found.language(), found.revision), (7, "de", 2), "its reader notices");
    let decided = model.mailbox(&billing).unwrap();
    assert_eq!((decided.priority(), decided.language(), decided.revision), (5, "fi", 1), "it says all for itself");

    let again = apply_model(&definitions, settings("de", 7)).await.unwrap();
    assert_eq!((again.revision, again.changes.len()), (2, 0));
    let kept = apply_model(&definitions, sample()).await.unwrap();
    assert_eq!(kept.changes.len(), 0, "left out they stay: {kept:?}");
    assert_eq!(Definitions::load(Arc::clone(&store)).await.unwrap().model().system().language, "de");

    let pruned = v1::ApplyModelRequest { model: Some(sample()), prune: true, ..Default::default() };
    let pruned = send(&definitions, pruned).await.unwrap();
    assert_eq!(fields(&pruned).len(), 1);
    let model = definitions.model();
    let found = model.mailbox(&user).unwrap();
    assert_eq!((found.priority(), found.language(), found.revision), (1, "en", 3));
    assert_eq!(wire::model(&model).system, None);
}

#[tokio::test]
async fn faults_in_system_settings_are_named() {
    let definitions = definitions(&store().await).await;
    let found = faults(&definitions, settings("not a language", 1001)).await;
    let paths: Vec<_> = found.iter().map(|it| it.field.as_str()).collect();
    assert_eq!(paths, ["system.language", "system.priority"]);
}

#[tokio::test]
async fn proxies_are_normalised_and_reach_the_worker() {
    let definitions = definitions(&store().await).await;
    let mut model = sample();
    model.incoming_servers[0].proxy = "HTTP://Proxy.example:3128/".into();
    apply_model(&definitions, model.clone()).await.unwrap();
    let uid = MailboxUid::derive("billing@contoso.example", "INBOX", TENANT);
    let with = resolve(&definitions.model(), &vault(1), &uid).unwrap();
    assert_eq!(with.proxy, "http://proxy.example:3128");
    model.incoming_servers[0].proxy.clear();
    apply_model(&definitions, model.clone()).await.unwrap();
    let without = resolve(&definitions.model(), &vault(1), &uid).unwrap();
    assert_eq!(without.proxy, "");
    assert_ne!(with.credentials_digest, without.credentials_digest, "a refusal by way of a proxy is forgotten");
    model.incoming_servers[0].proxy = "http://me:planted@proxy.example:1".into();
    let found = faults(&definitions, model).await;
    assert_eq!(found[0].field, "incomingServers[0].proxy");
    assert!(!format!("{found:?}").contains("planted"));
}

#[test]
fn definitions_of_the_former_format_are_read() {
    let stored = br#"{"format":1,"uid":"u","name":"s","address":"https://login.example/t","authentication":"oauth-service","clientId":"c","secret":null,"imapHost":"","imapPort":0,"imapSecurity":"tls","scope":"","caFile":""}"#;
    let read = object::Definition::decode(object::Kind::IncomingServer, "d", stored, 4).unwrap();
    let object::Definition::IncomingServer(server) = read else { panic!("{read:?}") };
    assert_eq!((server.name.as_str(), server.proxy.as_str(), server.revision), ("s", "", 4));
    let stored = br#"{"format":3,"uid":"u","name":"q","instance":"core1","language":"","priority":0,"maxMessageBytes":0,"start":"all","afterIntake":"seen","addresses":[]}"#;
    let read = object::Definition::decode(object::Kind::Queue, "d", stored, 4).unwrap();
    let object::Definition::Queue(queue) = read else { panic!("{read:?}") };
    assert_eq!((queue.backlog_guard, queue.backlog_guard()), (None, Some(1000)), "the default");
}

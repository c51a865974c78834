//! Removing, pruning and renaming.

use super::*;

fn name(noun: &str, name: &str) -> v1::DefinitionName {
    v1::DefinitionName { noun: noun.into(), name: name.into() }
}

fn removing(names: &[(&str, &str)]) -> v1::ApplyModelRequest {
    let removals = names.iter().map(|(noun, it)| name(noun, it)).collect();
    v1::ApplyModelRequest { removals, ..Default::default() }
}

fn renaming(noun: &str, old: &str, new: &str) -> v1::ApplyModelRequest {
    let renames = vec![v1::Rename { definition: Some(name(noun, old)), new_name: new.into() }];
    v1::ApplyModelRequest { renames, ..Default::default() }
}

async fn applied() -> Definitions {
    let definitions = definitions(&store().await).await;
    apply_model(&definitions, sample()).await.unwrap();
    definitions
}

#[tokio::test]
async fn what_is_used_is_not_removed_and_the_users_are_named() {
    let definitions = applied().await;
    let failure = send(&definitions, removing(&[("instance", "core1"), ("incoming-server", NAME)])).await.unwrap_err();
    assert_eq!(failure.reason, Reason::InvalidField);
    let told: Vec<_> = failure.fields.iter().map(|it| (it.field.as_str(), it.description.as_str())).collect();
    assert_eq!(told.len(), 2, "{told:?}");
    assert_eq!(told[0].0, "removals[0]");
    assert!(told[0].1.contains("queue \"Users\"") && told[0].1.contains(&format!("queue {NAME:?}")), "{told:?}");
    assert_eq!(told[1].0, "removals[1]");
    assert!(told[1].1.contains("billing@contoso.example") && told[1].1.contains("sales@contoso.example"), "{told:?}");
    assert_eq!(definitions.model().revision(), 1);

    let together = removing(&[("instance", "core1"), ("queue", NAME), ("queue", "Users")]);
    let removed = send(&definitions, together.clone()).await.unwrap();
    let changes: Vec<_> = removed.changes.iter().map(|it| (it.kind(), it.noun.as_str(), it.name.as_str())).collect();
    let delete = v1::change::Kind::Delete;
    assert_eq!(changes, [(delete, "instance", "core1"), (delete, "queue", NAME), (delete, "queue", "Users")]);
    assert_eq!(definitions.model().queues().len(), 0);
    let again = send(&definitions, together).await.unwrap_err();
    assert_eq!((again.reason, again.message.as_str()), (Reason::NotFound, "there is no instance \"core1\" to remove"));
}

#[tokio::test]
async fn a_removal_needs_a_noun_and_is_not_named_by_the_model_too() {
    let definitions = applied().await;
    let mut request = removing(&[("mailbox", "x"), ("queue", "Users")]);
    request.model = Some(sample());
    let failure = send(&definitions, request).await.unwrap_err();
    let paths: Vec<_> = failure.fields.iter().map(|it| it.field.as_str()).collect();
    assert_eq!(paths, ["removals[0].noun", "removals[1]"]);
}

#[tokio::test]
async fn pruning_removes_what_is_not_named_and_refuses_what_is_still_used() {
    let definitions = applied().await;
    let mut model = sample();
    model.queues.truncate(1);
    model.incoming_servers.truncate(1);
    let pruning =
        |model: &v1::Model| v1::ApplyModelRequest { model: Some(model.clone()), prune: true, ..Default::default() };
    let mut without = model.clone();
    without.incoming_servers.clear();
    let failure = send(&definitions, pruning(&without)).await.unwrap_err();
    assert_eq!(failure.fields.len(), 2, "{failure:?}");
    assert_eq!(failure.fields[0].field, "queues[0].addresses[0].server");
    assert!(failure.fields[0].description.contains("would be removed"), "{failure:?}");

    let pruned = send(&definitions, pruning(&model)).await.unwrap();
    let changes: Vec<_> = pruned.changes.iter().map(|it| (it.kind(), it.name.as_str())).collect();
    let delete = v1::change::Kind::Delete;
    assert_eq!(changes, [(delete, "users"), (delete, "Users")]);
    let again = send(&definitions, pruning(&model)).await.unwrap();
    assert_eq!((again.revision, again.changes.len()), (2, 0));
}

#[tokio::test]
async fn a_rename_keeps_the_uid_the_mailboxes_and_the_secrets() {
    let definitions = applied().await;
    let before = definitions.model();
    let renamed = send(&definitions, renaming("incoming-server", NAME, "Microsoft")).await.unwrap();
    let told: Vec<_> = renamed.changes.iter().map(|it| (it.noun.as_str(), it.name.as_str())).collect();
    assert_eq!(told, [("incoming-server", "Microsoft"), ("queue", NAME)]);
    let field = &renamed.changes[0].fields[0];
    assert_eq!((field.field.as_str(), field.old_value.as_str(), field.new_value.as_str()), ("name", NAME, "Microsoft"));
    let model = definitions.model();
    let server = model.server("Microsoft").unwrap();
    assert_eq!(server.uid, before.server(NAME).unwrap().uid);
    let uid = MailboxUid::derive("billing@contoso.example", "INBOX", TENANT);
    assert_eq!(resolve(&model, &vault(1), &uid).unwrap().client_secret, "planted-secret");

    let taken = send(&definitions, renaming("queue", NAME, "Users")).await.unwrap_err();
    assert_eq!((taken.reason, taken.fields[0].field.as_str()), (Reason::InvalidField, "renames[0].newName"));
    let missing = send(&definitions, renaming("queue", "nothing", "x")).await.unwrap_err();
    assert_eq!(missing.reason, Reason::NotFound);
    let bad = send(&definitions, renaming("instance", "core1", "Core 1")).await.unwrap_err();
    assert_eq!(bad.fields.len(), 1, "{bad:?}");

    // Renamed and changed at once: the model speaks of it by its new name.
    let mut request = renaming("queue", "Users", "People");
    let user = v1::Address { server: "users".into(), ..address("ada@contoso.example", "users") };
    request.model = Some(v1::Model {
        queues: vec![v1::Queue { priority: 3, ..queue("People", vec![user]) }],
        ..Default::default()
    });
    let both = send(&definitions, request).await.unwrap();
    let fields: Vec<_> = both.changes[0].fields.iter().map(|it| it.field.as_str()).collect();
    assert_eq!((both.changes.len(), fields), (1, vec!["name", "priority"]));
}

#[tokio::test]
async fn a_password_comes_along_when_its_address_moves_to_another_queue() {
    let definitions = applied().await;
    let mut model = sample();
    let moved = v1::Address { password: None, ..model.queues[1].addresses.remove(0) };
    model.queues[0].addresses.push(moved);
    let applied = apply_model(&definitions, model).await.unwrap();
    assert_eq!(applied.changes.len(), 2);
    let uid = MailboxUid::derive("ada@contoso.example", "INBOX", TENANT);
    let model = definitions.model();
    assert_eq!(model.mailbox(&uid).unwrap().queue.name, NAME);
    assert_eq!(resolve(&model, &vault(1), &uid).unwrap().password, "planted-password");
}

#[tokio::test]
async fn a_cleared_secret_is_gone_and_missed() {
    let definitions = applied().await;
    let mut model = sample();
    model.incoming_servers[0].secret = Some(v1::SecretInput { value: String::new(), clear: true });
    let found = faults(&definitions, model.clone()).await;
    assert_eq!(found[0].field, "incomingServers[0].secret");
    model.incoming_servers[0].secret = Some(v1::SecretInput { value: "x".into(), clear: true });
    let found = faults(&definitions, model).await;
    assert!(found[0].description.contains("both set and cleared"), "{found:?}");
}

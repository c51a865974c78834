//! Revisions: what moved, what changed, and going back.

use super::*;

async fn roll(definitions: &Definitions, request: v1::RollbackModelRequest) -> Result<v1::ApplyModelResponse, Failure> {
    let ledger = ledger().await;
    roll_back(Ground { definitions, vault: &vault(1), ledger: &ledger }, request, &author()).await
}

/// Revision 2 changes a queue, 3 adds one and removes one, 4 changes a secret.
async fn lived() -> Definitions {
    let definitions = definitions(&store().await).await;
    apply_model(&definitions, sample()).await.unwrap();
    let mut model = sample();
    model.queues[0].priority = 11;
    apply_model(&definitions, model.clone()).await.unwrap();
    let request = v1::ApplyModelRequest {
        model: Some(v1::Model { queues: vec![queue("new", vec![])], ..Default::default() }),
        removals: vec![v1::DefinitionName { noun: "queue".into(), name: "Users".into() }],
        ..Default::default()
    };
    send(&definitions, request).await.unwrap();
    let mut model = sample();
    model.queues.clear();
    model.incoming_servers.truncate(1);
    model.incoming_servers[0].secret = secret("planted-second");
    apply_model(&definitions, model).await.unwrap();
    definitions
}

#[tokio::test]
async fn history_says_what_each_revision_changed() {
    let definitions = lived().await;
    let all = crate::definition::history::revisions(&definitions, &[4, 3, 2, 1, 9]).await.unwrap();
    let told = all.iter().map(|it| {
        let changes = it.changes.iter().map(|it| (it.kind(), it.noun.as_str())).collect::<Vec<_>>();
        (it.revision, it.author.as_str(), changes)
    });
    use v1::change::Kind::{Create, Delete, Update};
    assert_eq!(
        told.collect::<Vec<_>>(),
        [
            (4, "ada", vec![(Update, "incoming-server")]),
            (3, "ada", vec![(Delete, "queue"), (Create, "queue")]),
            (2, "ada", vec![(Update, "queue")]),
            (
                1,
                "ada",
                vec![
                    (Create, "instance"),
                    (Create, "incoming-server"),
                    (Create, "incoming-server"),
                    (Create, "queue"),
                    (Create, "queue")
                ]
            ),
        ]
    );
    let field = &all[2].changes[0].fields[0];
    assert_eq!((field.field.as_str(), field.old_value.as_str(), field.new_value.as_str()), ("priority", "10", "11"));
    assert!(all[0].changes[0].fields[0].secret);
    assert!(!format!("{all:?}").contains("planted"));

    let compare = |old_revision, new_revision| v1::CompareRevisionsRequest { old_revision, new_revision };
    let found = crate::definition::history::changes(&definitions, &compare(1, 0)).await.unwrap();
    assert_eq!((found.new_revision, found.changes.len()), (4, 4), "{found:?}");
    let same = crate::definition::history::changes(&definitions, &compare(3, 3)).await.unwrap();
    assert_eq!(same.changes, vec![]);
    let missing = crate::definition::history::changes(&definitions, &compare(1, 7)).await.unwrap_err();
    assert_eq!(missing.reason, Reason::NotFound);
}

#[tokio::test]
async fn who_planned_on_an_older_revision_is_told_what_moved() {
    let definitions = lived().await;
    let request = v1::ApplyModelRequest { model: Some(sample()), etag: "2".into(), ..Default::default() };
    let failure = send(&definitions, request).await.unwrap_err();
    assert_eq!(failure.reason, Reason::EtagMismatch);
    assert_eq!(
        failure.message,
        format!(
            "the model moved from revision 2 to 4: revision 3 by ada at 2023-11-14T22:13:20Z removed queue \"Users\", \
             created queue \"new\"; revision 4 by ada at 2023-11-14T22:13:20Z updated incoming-server {NAME:?}. \
             Look at it, then apply again"
        )
    );
}

#[tokio::test]
async fn a_repeated_request_answers_what_the_first_did() {
    let definitions = lived().await;
    let mut model = sample();
    model.queues.truncate(1);
    model.queues[0].priority = 3;
    let request =
        v1::ApplyModelRequest { model: Some(model), etag: "4".into(), request_id: "one".into(), ..Default::default() };
    let first = send(&definitions, request.clone()).await.unwrap();
    assert_eq!(first.revision, 5);
    let second = send(&definitions, request.clone()).await.unwrap();
    assert_eq!((second.revision, &second.changes.len()), (5, &first.changes.len()));
    let other = v1::ApplyModelRequest { request_id: "two".into(), ..request };
    assert_eq!(send(&definitions, other).await.unwrap_err().reason, Reason::EtagMismatch);
}

#[tokio::test]
async fn a_rollback_brings_everything_back_secrets_too() {
    let definitions = lived().await;
    let before = wire::model(&definitions.model());
    let request = |revision, validate_only| v1::RollbackModelRequest { revision, validate_only, ..Default::default() };
    let plan = roll(&definitions, request(2, true)).await.unwrap();
    assert_eq!((plan.revision, plan.changes.len()), (4, 3), "{plan:?}");
    assert_eq!(wire::model(&definitions.model()), before);

    let done = roll(&definitions, request(2, false)).await.unwrap();
    assert_eq!((done.revision, &done.changes), (5, &plan.changes));
    let model = definitions.model();
    let then = export(&definitions, 2).await.unwrap().model.unwrap();
    assert_eq!(without_revisions(wire::model(&model)), without_revisions(then));
    let billing = MailboxUid::derive("billing@contoso.example", "INBOX", TENANT);
    let ada = MailboxUid::derive("ada@contoso.example", "INBOX", TENANT);
    assert_eq!(resolve(&model, &vault(1), &billing).unwrap().client_secret, "planted-secret");
    assert_eq!(resolve(&model, &vault(1), &ada).unwrap().password, "planted-password");
    assert_eq!(model.mailbox(&ada).unwrap().revision, 5, "its reader must notice");
    assert_eq!(model.queue(NAME).unwrap().revision, 2, "what is as it was then stays");
    let told = crate::definition::history::revisions(&definitions, &[5]).await.unwrap();
    assert_eq!(told[0].rollback_of, 2);

    let again = roll(&definitions, request(2, false)).await.unwrap();
    assert_eq!((again.revision, again.changes.len()), (5, 0));
    let missing = roll(&definitions, request(9, false)).await.unwrap_err();
    assert_eq!((missing.reason, missing.message.contains("no revision 9")), (Reason::NotFound, true));
    let stale = v1::RollbackModelRequest { etag: "4".into(), ..request(1, false) };
    assert_eq!(roll(&definitions, stale).await.unwrap_err().reason, Reason::EtagMismatch);
}

fn without_revisions(mut model: v1::Model) -> v1::Model {
    model.instances.iter_mut().for_each(|it| it.revision = 0);
    model.incoming_servers.iter_mut().for_each(|it| it.revision = 0);
    model.queues.iter_mut().for_each(|it| it.revision = 0);
    model
}

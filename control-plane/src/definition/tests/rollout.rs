//! How far a revision has come.

use postroom_proto::id::SessionId;

use super::*;
use crate::definition::rollout::rollout;
use crate::lease::desk::Running;

fn uid(email: &str) -> MailboxUid {
    MailboxUid::derive(email, "INBOX", TENANT)
}

fn running(worker: &str, held: &[(&str, u64)]) -> Running {
    let held = held.iter().map(|(email, revision)| (uid(email), *revision)).collect();
    Running { worker: worker.into(), session: SessionId::parse(worker).unwrap(), held }
}

#[tokio::test]
async fn a_revision_has_arrived_when_every_mailbox_is_read_by_its_definition() {
    let definitions = definitions(&store().await).await;
    apply_model(&definitions, sample()).await.unwrap();
    let mut model = sample();
    model.queues[1].priority = 3;
    apply_model(&definitions, model).await.unwrap();
    let model = definitions.model();
    let (billing, sales, ada) = (("billing@contoso.example", 1), ("sales@contoso.example", 1), "ada@contoso.example");

    let none = rollout(&model, "r1", &[]);
    assert_eq!((none.revision, none.done, none.unread_count), (2, false, 3));
    let behind = rollout(&model, "r1", &[running("w1", &[billing, sales]), running("w2", &[(ada, 1)])]);
    let told: Vec<_> = behind.workers.iter().map(|it| (it.revision, it.mailbox_count, it.lagging_count)).collect();
    assert_eq!((behind.done, told), (false, vec![(2, 2, 0), (1, 1, 1)]));
    assert_eq!(behind.workers[1].lagging, [uid(ada).to_string()]);
    let there = rollout(&model, "r1", &[running("w1", &[billing, sales]), running("w2", &[(ada, 2)])]);
    assert!(there.done && there.unread_count == 0, "{there:?}");

    // What was removed and is still held is not done either.
    let held = [billing, sales, ("gone@contoso.example", 9), (ada, 2)];
    let removed = rollout(&model, "r1", &[running("w1", &held)]);
    assert_eq!((removed.done, removed.workers[0].lagging_count, removed.workers[0].revision), (false, 1, 1));
}

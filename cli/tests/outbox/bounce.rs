//! A mail that comes back.

use postroom_proto::v1::{OutboxState, RecipientState};
use postroom_testbed::mail::Mail;

use crate::harness::{contacts, eventually};
use crate::office::{ANNA, By, Office, Outbox, draft};

const SALES: &str = "sales@contoso.example";
const GRAPH: &str = "service@contoso.example";

#[tokio::test(flavor = "multi_thread")]
async fn the_instance_is_told_and_no_contact_is_made_of_it() {
    let office = Office::open(&[(SALES, By::Smtp), (GRAPH, By::Graph)]).await;
    let up = office.stage.up().await;
    let (client, outbox) = (up.client(), Outbox::of_up(&up));
    for mailbox in [SALES, GRAPH] {
        // A watch tells what happens from its beginning on.
        let watch = outbox.watch().await;
        let stored = outbox.send(draft(mailbox, &[ANNA, "bounce-5.1.1@customer.example"], "S"), &[]).await.unwrap();
        let told = watch.tells(&stored.id, OutboxState::Bounced).await;
        assert_eq!(told.message_id, stored.message_id);
        let bounced = outbox.get(&stored.id).await;
        let recipients: Vec<_> = bounced
            .recipients
            .iter()
            .map(|it| (it.address.clone().unwrap().address, it.state(), it.status.as_str()))
            .collect();
        assert_eq!(
            recipients,
            [
                (ANNA.to_owned(), RecipientState::Accepted, ""),
                ("bounce-5.1.1@customer.example".to_owned(), RecipientState::Bounced, "5.1.1"),
            ]
        );
        office.arrives(ANNA, &stored.message_id).await;

        // What comes after the bounce is a contact: the bounce has been read, and is none.
        let subject = format!("after {mailbox}");
        office.bed().deliver(&Mail::to(mailbox).subject(&subject)).await.unwrap();
        eventually("mail after it is a contact", || async { contacts(&client).await.contains_key(&subject) }).await;
        assert!(
            contacts(&client).await.keys().all(|subject| subject.starts_with("after ")),
            "{:?}",
            contacts(&client).await
        );
    }
}

//! Machines that answer machines.

use postroom_proto::reason::{Failure, Reason};
use postroom_proto::v1::{self, OutboxState};
use postroom_testbed::mail::Mail;

use crate::office::{By, Office, Outbox, draft, next_contact};

const ONE: &str = "one@contoso.example";
const OTHER: &str = "other@contoso.example";
/// Replies of one address to another within an hour.
const BREAKER: usize = 4;

fn reason(refused: &tonic::Status) -> Reason {
    Failure::from_status(refused).expect("a reason").reason
}

#[tokio::test(flavor = "multi_thread")]
async fn two_responders_that_are_set_on_each_other_stop_at_the_breakers_limit() {
    let office = Office::open(&[(ONE, By::Smtp), (OTHER, By::Smtp)]).await;
    let plane = office.plane("127.0.0.1:0", &["--outbox-breaker", &BREAKER.to_string()]).await;
    let (client, outbox) = (plane.client(), Outbox::of(&plane.context));
    let _worker = plane.worker("one", &[]);
    let start = Mail::to(ONE).from(&format!("Other <{OTHER}>")).subject("Hello");
    office.bed().deliver(&start).await.unwrap();

    // Each contact is answered at once, by somebody who does not say that he is a machine.
    let mut sent = Vec::new();
    let refused = loop {
        let contact = next_contact(&client).await;
        let answer = v1::Draft { contact: contact.id, from: None, subject: String::new(), ..draft(ONE, &[], "") };
        match outbox.reply(answer, &[]).await {
            Ok(stored) => sent.push(outbox.becomes(&stored.id, OutboxState::Sent).await),
            Err(refused) => break refused,
        }
    };
    assert_eq!(reason(&refused), Reason::MailLoop, "{refused}");
    // Both have written as often as they may.
    assert_eq!(sent.len(), 2 * BREAKER);
    let from = |address: &str| sent.iter().filter(|mail| mail.from.as_ref().unwrap().address == address).count();
    assert_eq!((from(ONE), from(OTHER)), (BREAKER, BREAKER));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_automatic_mail_answers_automatic_mail() {
    let office = Office::open(&[(ONE, By::Smtp)]).await;
    let up = office.stage.up().await;
    let (client, outbox) = (up.client(), Outbox::of_up(&up));
    let automatic = |contact: &v1::Contact| v1::Draft {
        contact: contact.id.clone(),
        automatic: true,
        from: None,
        subject: String::new(),
        ..draft(ONE, &[], "")
    };
    let question = Mail::to(ONE).subject("A person asks");
    let notice = Mail::to(ONE).subject("A machine answers").header("Auto-Submitted", "auto-replied");
    for (mail, is_answered) in [(question, true), (notice, false)] {
        office.bed().deliver(&mail).await.unwrap();
        match outbox.reply(automatic(&next_contact(&client).await), &[]).await {
            Ok(stored) => {
                assert!(is_answered && stored.automatic, "{stored:?}");
                let raw = String::from_utf8(outbox.raw(&stored.id).await).unwrap();
                assert!(raw.contains("Auto-Submitted: auto-replied\r\n"), "{raw}");
                outbox.becomes(&stored.id, OutboxState::Sent).await;
            }
            Err(refused) => assert!(!is_answered && reason(&refused) == Reason::MailLoop, "{refused}"),
        }
    }
}

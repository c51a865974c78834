//! Many mails at once, and what Exchange allows a mailbox.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use postroom_proto::v1::OutboxState;
use tokio::time::Instant;

use crate::harness::eventually;
use crate::office::{ANNA, By, Office, Outbox, draft};

const MAILBOXES: usize = 5;
const MAILS: usize = 100;
const PER_MINUTE: usize = 30;
/// A minute, for this test.
const MINUTE: Duration = Duration::from_secs(3);

#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_mails_of_five_mailboxes_by_three_workers_keep_to_the_limits_and_use_them() {
    let mailboxes: Vec<String> = (0..MAILBOXES).map(|number| format!("team-{number}@contoso.example")).collect();
    let senders: Vec<(&str, By)> = mailboxes.iter().map(|mailbox| (mailbox.as_str(), By::Smtp)).collect();
    let office = Office::open(&senders).await;
    let exchange = office.exchange().await;
    let (per_minute, minute) = (PER_MINUTE.to_string(), format!("{}s", MINUTE.as_secs()));
    // Everybody writes to one address here, as often as he likes.
    let settings = ["--outbox-per-minute", &per_minute, "--outbox-minute", &minute, "--outbox-breaker", "1000"];
    let plane = office.plane("127.0.0.1:0", &settings).await;
    let outbox = Outbox::of(&plane.context);
    let storing = mailboxes.iter().map(|mailbox| {
        let outbox = outbox.clone();
        let mailbox = mailbox.clone();
        tokio::spawn(async move {
            for number in 0..MAILS {
                outbox.send(draft(&mailbox, &[ANNA], &number.to_string()), &[]).await.unwrap();
            }
        })
    });
    for storing in storing.collect::<Vec<_>>() {
        storing.await.unwrap();
    }

    let _workers: Vec<_> = (0..3).map(|number| plane.worker(&format!("w{number}"), &[])).collect();
    eventually("the first mail is taken", || async { !exchange.accepted().is_empty() }).await;
    eventually("all are taken", || async { exchange.accepted().len() >= MAILBOXES * MAILS }).await;
    let accepted = exchange.accepted();
    let ids: BTreeSet<&str> = accepted.iter().map(|it| it.message_id.as_str()).collect();
    assert_eq!((accepted.len(), ids.len()), (MAILBOXES * MAILS, MAILBOXES * MAILS), "some came twice");

    let mut times: BTreeMap<&str, Vec<Instant>> = BTreeMap::new();
    for one in &accepted {
        times.entry(&one.mailbox).or_default().push(one.at);
    }
    assert_eq!(times.len(), MAILBOXES);
    for (mailbox, times) in &times {
        assert!(exchange.most_at_once(mailbox) <= 3, "{mailbox}: {} connections", exchange.most_at_once(mailbox));
        for window in times.windows(PER_MINUTE + 1) {
            let took = window[PER_MINUTE] - window[0];
            assert!(took >= MINUTE, "{mailbox}: {} mails within {took:?}", PER_MINUTE + 1);
        }
        // At the limit it takes three whole minutes, and what a hundred mails take by themselves. That is known from
        // the first of them, for which nothing waits for a limit: a machine that is busy with other tests is slow with
        // these, too.
        let (first, took) = (times[PER_MINUTE - 1] - times[0], times[MAILS - 1] - times[0]);
        let most = (MINUTE * 3 + first * 4) * 2;
        println!("{mailbox}: {took:?}, of {most:?}; the first {PER_MINUTE} in {first:?}");
        assert!(took <= most, "{mailbox}: {took:?}, of {most:?}; the first {PER_MINUTE} took {first:?}");
    }
    eventually("all are known to be sent", || async {
        outbox.list(&[OutboxState::Sent]).await.len() == MAILBOXES * MAILS
    })
    .await;
    eventually("all arrive", || async {
        office.bed().dovecot.count(ANNA, "INBOX").await.unwrap() == MAILBOXES * MAILS
    })
    .await;
}

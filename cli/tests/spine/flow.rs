//! Nothing goes wrong: order, counts, and what happens in the mailbox.

use std::time::Duration;

use postroom_proto::v1::{ContactState, MailboxState};
use postroom_testbed::mail::Mail;
use tokio::time::{sleep, timeout};

use crate::harness::{
    PATIENCE, SERVICE, Stage, USER, accept, assert_each_once, contacts, eventually, mailbox, reject, take,
};

#[tokio::test(flavor = "multi_thread")]
async fn mail_of_two_queues_is_handed_out_by_priority_whatever_its_order_of_arrival() {
    let stage = Stage::set().await;
    let up = stage.up().await;
    for number in 0..5 {
        stage.deliver(USER, &format!("ten-{number}"), 1).await;
        stage.deliver(SERVICE, &format!("five-{number}"), 1).await;
    }
    let client = up.client();
    eventually("ten contacts", || async { contacts(&client).await.len() == 10 }).await;
    let mut taken = Vec::new();
    while taken.len() < 10 {
        let part = take(&client, 4, Duration::ZERO).await;
        assert!(!part.is_empty());
        taken.extend(part);
    }
    let subjects: Vec<String> = taken.iter().map(|contact| contact.content.as_ref().unwrap().subject.clone()).collect();
    let expected: Vec<String> =
        ["five", "ten"].iter().flat_map(|tag| (0..5).map(move |n| format!("{tag}-{n}-0"))).collect();
    assert_eq!(subjects, expected);
    let first = &taken[0];
    assert_eq!((first.priority, first.language.as_str(), first.queue.as_str()), (5, "fi", "Billing"));
    assert_eq!((taken[9].priority, taken[9].language.as_str(), taken[9].queue.as_str()), (10, "en", "Support"));

    let outcomes = accept(&client, &taken).await;
    assert!(outcomes.iter().all(|outcome| outcome.state() == ContactState::Accepted), "{outcomes:?}");
    eventually("what was taken in is marked as read", || async { stage.unseen().await == 0 }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_waiting_messages_become_a_thousand_contacts() {
    let stage = Stage::set().await;
    stage.deliver(SERVICE, "a", 600).await;
    stage.deliver(USER, "b", 400).await;
    let up = stage.up().await;
    let client = up.client();
    eventually("all of them", || async { contacts(&client).await.len() == 1000 }).await;
    let mut expected = contacts(&client).await;
    let b = expected.split_off("b");
    assert_each_once(&expected, &["a"], 600);
    assert_each_once(&b, &["b"], 400);
    assert_eq!(mailbox(&client, SERVICE).await.contact_count, 600);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taker_that_waits_gets_new_mail_and_what_others_gave_back() {
    let stage = Stage::set().await;
    let up = stage.up().await;
    let client = up.client();
    eventually("both mailboxes are read", || async {
        let states = [mailbox(&client, SERVICE).await.state(), mailbox(&client, USER).await.state()];
        states == [MailboxState::Idle; 2]
    })
    .await;
    let patience = Duration::from_secs(30).min(PATIENCE);
    let (taken, ()) = tokio::join!(take(&client, 1, patience), stage.deliver(SERVICE, "new", 1));
    assert_eq!(taken.len(), 1);
    let (again, rejected) = tokio::join!(take(&client, 1, patience), reject(&client, &taken));
    assert_eq!(rejected[0].state(), ContactState::Queued);
    assert_eq!((again[0].id.as_str(), again[0].refusal_count), (taken[0].id.as_str(), 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn new_mail_is_taken_at_once_whatever_its_distance_to_the_last() {
    /// Far below the time after which a mailbox is looked at unasked.
    const SOON: Duration = Duration::from_secs(20);
    const COUNT: usize = 16;
    let stage = Stage::set().await;
    let up = stage.up().await;
    let client = up.client();
    eventually("both mailboxes are read", || async {
        let states = [mailbox(&client, SERVICE).await.state(), mailbox(&client, USER).await.state()];
        states == [MailboxState::Idle; 2]
    })
    .await;
    // One message is marked as read while the next arrives: between its fetching and the next IDLE.
    let flow = async |to: &str, tag: &str, step: u64| {
        for number in 0..COUNT {
            stage
                .testbed
                .deliver_in_order(vec![Mail::to(to).subject(&format!("{tag}-{number}")).delivery()])
                .await
                .unwrap();
            sleep(Duration::from_millis(number as u64 * step % 600)).await;
        }
    };
    tokio::join!(flow(SERVICE, "a", 37), flow(USER, "b", 499));
    let all = timeout(SOON, eventually("all", || async { contacts(&client).await.len() == 2 * COUNT })).await;
    let found = contacts(&client).await;
    assert!(all.is_ok(), "still not there after {SOON:?}, only: {found:?}");
    assert_each_once(&found, &["a", "b"], COUNT);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_taken_out_and_put_back_goes_on_where_it_was() {
    let stage = Stage::set().await;
    stage.deliver(SERVICE, "before", 5).await;
    let up = stage.up().await;
    let client = up.client();
    eventually("the first five", || async { contacts(&client).await.len() == 5 }).await;

    let whole = std::fs::read_to_string(stage.model_file()).unwrap();
    let without: String =
        whole.lines().filter(|line| !line.contains(SERVICE)).map(|line| format!("{line}\n")).collect();
    up.apply(&stage, &without.replacen("addresses:\n", "addresses: []\n", 1));
    eventually("it is let go", || async {
        let listed = client.list_mailboxes().await.unwrap().mailboxes;
        listed.len() == 1 && stage.testbed.dovecot.sessions(SERVICE).await.unwrap() == 0
    })
    .await;
    stage.deliver(SERVICE, "meanwhile", 5).await;

    up.apply(&stage, &whole);
    eventually("the other five", || async { contacts(&client).await.len() >= 10 }).await;
    assert_each_once(&contacts(&client).await, &["before", "meanwhile"], 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn large_mail_comes_whole_and_what_is_larger_than_the_queue_takes_is_recorded() {
    let stage = Stage::set().await;
    let model = std::fs::read_to_string(stage.model_file()).unwrap();
    let model = model.replacen("priority: 10\n", "priority: 10\n    maxMessageBytes: 4000000\n", 1);
    std::fs::write(stage.model_file(), model).unwrap();
    let large = Mail::to(SERVICE).subject("large").size(3_000_000);
    let bed = &stage.testbed;
    bed.deliver_in_order(vec![large.delivery()]).await.unwrap();
    bed.deliver_in_order(vec![Mail::to(SERVICE).subject("larger").size(7_000_000).delivery()]).await.unwrap();
    bed.deliver_in_order(vec![Mail::to(SERVICE).subject("small").delivery()]).await.unwrap();
    let up = stage.up().await;
    let client = up.client();
    eventually("all three are in the ledger", || async { mailbox(&client, SERVICE).await.message_count == 3 }).await;
    let found: Vec<String> = contacts(&client).await.into_keys().collect();
    assert_eq!(found, ["large", "small"]);

    let taken = take(&client, 1, Duration::ZERO).await.remove(0);
    let mut message = client.get_raw_message(taken.id.clone()).await.unwrap();
    let mut raw = Vec::new();
    while let Some(piece) = message.next().await.unwrap() {
        raw.extend_from_slice(&piece.data);
    }
    assert_eq!(raw.len() as u64, taken.size_bytes);
    assert!(raw.ends_with(&large.build()), "as it was sent, below the lines that delivery adds");
    assert!(stage.data().join("blobs").read_dir().unwrap().next().is_some(), "a large body lies outside the ledger");
    assert_eq!(bed.dovecot.count_unseen(SERVICE, "INBOX").await.unwrap(), 1, "what was not taken stays as it is");
}

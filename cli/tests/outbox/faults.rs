//! What an SMTP server, its network and the token endpoint can say or do: where the mail stands then, when it is tried
//! next, what is to be done, and that it is sent once that was done.

use std::time::Duration;

use postroom_proto::v1::{self, OutboxState, RecipientState};
use postroom_testbed::exchange::{Step, answers};
use postroom_testbed::tenant::Fault;

use crate::office::{ANNA, By, Office, Outbox, draft};

/// The mail waits for its next attempt with this problem, whose remedy says this.
async fn waits(outbox: &Outbox, mail: &str, code: &str, remedy: &str) -> v1::OutboxMail {
    let found = outbox
        .until(mail, code, |found| {
            found.state() == OutboxState::Queued && found.problem.as_ref().is_some_and(|problem| problem.code == code)
        })
        .await;
    let problem = found.problem.as_ref().unwrap();
    assert!(problem.remedy.contains(remedy), "{code}: no {remedy:?} in {:?}", problem.remedy);
    assert!(!problem.cause.is_empty() && found.next_attempt_time.is_some(), "{found:#?}");
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn what_passes_or_can_be_mended_waits_and_is_sent_then() {
    let cases = [
        (Step::Greeting, answers::HANGS_UP_BUSY, "SUBMISSION_UNAVAILABLE", "nothing to do"),
        (Step::SignIn, answers::UNSUCCESSFUL, "SMTP_TOKEN_REFUSED", "SMTP.SendAsApp"),
        (Step::SignIn, answers::DISABLED_FOR_TENANT, "SMTP_AUTH_DISABLED", "Set-CASMailbox"),
        (Step::SignIn, answers::DISABLED_FOR_MAILBOX, "SMTP_AUTH_DISABLED", "Set-CASMailbox"),
        (Step::SignIn, answers::PASSWORDS_DISABLED, "BASIC_AUTH_DISABLED", "OAuth Service"),
        (Step::SignIn, answers::PASSWORDS_GONE, "BASIC_AUTH_DISABLED", "OAuth Service"),
        (Step::Sender, answers::TOO_MANY_CONNECTIONS, "TOO_MANY_SENDING", "nothing to do"),
        (Step::Sender, answers::NOT_AUTHENTICATED, "NOT_SIGNED_IN", "authentication"),
        (Step::Recipient, answers::NOT_AS_THIS_SENDER, "SEND_AS_DENIED", "Add-RecipientPermission"),
        (Step::Data, answers::SERVER_BUSY, "SENDING_THROTTLED", "nothing to do"),
        (Step::Data, answers::TIMED_OUT, "SUBMISSION_UNAVAILABLE", "nothing to do"),
        (Step::End, answers::SENDER_THREADS, "TOO_MANY_SENDING", "nothing to do"),
        (Step::End, answers::SEND_AS_DENIED, "SEND_AS_DENIED", "Add-RecipientPermission"),
        (Step::End, answers::QUOTA_EXCEEDED, "SENDING_QUOTA", "nothing to do"),
        (Step::End, answers::MAILBOX_FULL, "SENDER_MAILBOX_FULL", "make room"),
    ];
    let mailboxes: Vec<String> = (0..cases.len()).map(|number| format!("case-{number}@contoso.example")).collect();
    let senders: Vec<(&str, By)> = mailboxes.iter().map(|mailbox| (mailbox.as_str(), By::Smtp)).collect();
    let office = Office::open(&senders).await;
    let exchange = office.exchange().await;
    // Who connects is not known at the greeting: it is the first mail, alone.
    let ordered = |number: usize| if number == 0 { "" } else { mailboxes[number].as_str() };
    let up = office.stage.up().await;
    let outbox = Outbox::of_up(&up);
    let mut mails = Vec::new();
    for (number, (step, answer, code, remedy)) in cases.iter().enumerate() {
        exchange.answer(*step, ordered(number), 0, answer);
        let stored = outbox.send(draft(&mailboxes[number], &[ANNA], code), &[]).await.unwrap();
        if number == 0 {
            waits(&outbox, &stored.id, code, remedy).await;
            exchange.mend();
        }
        mails.push(stored);
    }
    for (mail, (.., code, remedy)) in mails.iter().zip(&cases).skip(1) {
        waits(&outbox, &mail.id, code, remedy).await;
    }
    // The list says so too, for all of them.
    let listed = outbox.list(&[OutboxState::Queued]).await;
    assert!(listed.len() + 1 >= cases.len() && listed.iter().all(|mail| mail.problem.is_some()), "{listed:#?}");

    exchange.mend();
    for mail in &mails {
        outbox.retry(&mail.id, false).await.unwrap();
    }
    for (mail, (.., code, _)) in mails.iter().zip(&cases) {
        let sent = outbox.becomes(&mail.id, OutboxState::Sent).await;
        assert_eq!(sent.problem, None, "{code}");
        office.arrives(ANNA, &mail.message_id).await;
        assert_eq!(office.arrived(ANNA, &mail.message_id).await, 1, "{code}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_for_good_fails_at_once_and_says_for_whom() {
    const SALES: &str = "sales@contoso.example";
    let office = Office::open(&[(SALES, By::Smtp)]).await;
    let exchange = office.exchange().await;
    let up = office.stage.up().await;
    let outbox = Outbox::of_up(&up);
    let unknown = "reply-550-5.1.1@customer.example";
    let stored = outbox.send(draft(SALES, &[unknown], "unknown"), &[]).await.unwrap();
    let failed = outbox.becomes(&stored.id, OutboxState::Failed).await;
    assert_eq!(failed.problem.unwrap().code, "RECIPIENT_REFUSED");
    assert_eq!(
        (failed.recipients[0].state(), failed.recipients[0].status.as_str()),
        (RecipientState::Refused, "5.1.1")
    );

    // One is refused, one is to be tried again, one gets it, once.
    let later = "reply-450-4.2.1@customer.example";
    let stored = outbox.send(draft(SALES, &[ANNA, unknown, later], "in part"), &[]).await.unwrap();
    let partly = outbox
        .until(&stored.id, "tried", |found| found.attempt_count > 0 && found.state() == OutboxState::Queued)
        .await;
    let states: Vec<RecipientState> = partly.recipients.iter().map(|it| it.state()).collect();
    assert_eq!(states, [RecipientState::Accepted, RecipientState::Refused, RecipientState::Pending]);
    outbox.retry(&stored.id, false).await.unwrap();
    outbox
        .until(&stored.id, "tried again", |found| found.attempt_count > 1 && found.state() == OutboxState::Queued)
        .await;
    let cancelled = outbox.cancel(&stored.id).await.unwrap();
    assert_eq!(cancelled.state(), OutboxState::Failed);
    office.arrives(ANNA, &stored.message_id).await;
    assert_eq!(office.arrived(ANNA, &stored.message_id).await, 1);

    exchange.answer(Step::End, SALES, 1, "554 5.6.0 STOREDRV.Submission.Exception: the content is refused");
    let stored = outbox.send(draft(SALES, &[ANNA], "refused"), &[]).await.unwrap();
    let failed = outbox.becomes(&stored.id, OutboxState::Failed).await;
    let problem = failed.problem.unwrap();
    assert_eq!(problem.code, "MESSAGE_REFUSED");
    assert!(problem.cause.contains("5.6.0"), "{problem:?}");
    // Somebody has had the rule changed.
    outbox.retry(&stored.id, false).await.unwrap();
    outbox.becomes(&stored.id, OutboxState::Sent).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_fault_of_the_network_or_of_a_token_discards_a_mail() {
    const SALES: &str = "sales@contoso.example";
    const TOKEN: Duration = Duration::from_secs(2);
    let office = Office::open(&[(SALES, By::Smtp)]).await;
    let bed = office.bed();
    bed.tenant.set_token_lifetime(TOKEN);
    let up = office.stage.up().await;
    let outbox = Outbox::of_up(&up);
    let good = office.model().await;
    let port = office.exchange().await.submission_addr().port();
    let client_id = bed.service().client_id.clone();
    let nowhere = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let closed = nowhere.local_addr().unwrap().port();
    drop(nowhere);
    let send = async |subject: &str| outbox.send(draft(SALES, &[ANNA], subject), &[]).await.unwrap();
    let sent = async |mail: &v1::OutboxMail| {
        outbox.retry(&mail.id, false).await.unwrap();
        outbox.becomes(&mail.id, OutboxState::Sent).await;
        office.arrives(ANNA, &mail.message_id).await;
        assert_eq!(office.arrived(ANNA, &mail.message_id).await, 1);
    };

    // The host is dead, or is another one than it says.
    up.apply(&office.stage, &good.replace(&format!("port: {port}}}"), &format!("port: {closed}}}")));
    let mail = send("dead host").await;
    waits(&outbox, &mail.id, "UNREACHABLE", "").await;
    up.apply(&office.stage, &good);
    sent(&mail).await;

    let strange = tempfile::tempdir().unwrap();
    let other = postroom_testbed::Authority::create(strange.path()).unwrap();
    let untrusting = format!("caFile: {}, smtp: {{host", serde_json::json!(other.ca_file()));
    up.apply(&office.stage, &good.replace("smtp: {host", &untrusting));
    let mail = send("another CA").await;
    waits(&outbox, &mail.id, "TLS_UNTRUSTED", "caFile").await;
    up.apply(&office.stage, &good);
    sent(&mail).await;

    // The secret was replaced, the endpoint is ill, the token ends between two mails.
    bed.tenant.set_secret(&client_id, "another");
    tokio::time::sleep(TOKEN).await;
    let mail = send("replaced secret").await;
    let found = waits(&outbox, &mail.id, "AADSTS7000215", "secret").await;
    assert_eq!(found.message_id, mail.message_id);
    bed.tenant.set_secret(&client_id, &office.stage.secret());
    sent(&mail).await;

    bed.tenant.fail_next(1000, Fault::Status(503, None));
    // Until the good token has ended.
    tokio::time::sleep(TOKEN).await;
    let mail = send("endpoint is ill").await;
    outbox.until(&mail.id, "waiting for a token", |found| found.problem.is_some()).await;
    bed.tenant.clear_faults();
    sent(&mail).await;
    // With tokens as short as these each mail is sent all the same.
    for number in 0..4 {
        let mail = send(&format!("short token {number}")).await;
        outbox.becomes(&mail.id, OutboxState::Sent).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

//! Mail on its way out: Postfix, and the front that answers as Exchange does.
#![expect(clippy::unwrap_used, reason = "a test ends where it fails")]

mod submission;

use std::{net::SocketAddr, time::Duration};

use postroom_testbed::{
    APP_SCOPE, Error, SMTP_USER_SCOPE, Testbed,
    dovecot::SENT_ITEMS,
    exchange::{Step, answers},
    postfix,
    tenant::Permission,
};

use crate::submission::{Client, eventually, mail};

const SALES: &str = "sales@contoso.example";
const OTHER: &str = "other@contoso.example";
const ANNA: &str = "anna@customer.example";

/// A token of the service application, for Exchange.
async fn app_token(testbed: &Testbed) -> String {
    submission::app_token(testbed, APP_SCOPE).await
}

async fn connect(testbed: &Testbed, addr: SocketAddr) -> Client {
    Client::starttls(addr, testbed.dovecot.authority()).await.unwrap()
}

/// Connects and signs in as `mailbox` with the token of the service application.
async fn signed_in(testbed: &Testbed, addr: SocketAddr, mailbox: &str) -> Client {
    let mut client = connect(testbed, addr).await;
    let reply = client.sign_in(mailbox, &app_token(testbed).await).await.unwrap();
    assert!(reply.starts_with("235 "), "{reply}");
    client
}

async fn found(testbed: &Testbed, mailbox: &str, folder: &str, id: &str) -> usize {
    testbed.dovecot.count_by_id(mailbox, folder, id).await.unwrap()
}

#[tokio::test]
async fn a_mail_reaches_another_mailbox_and_a_copy_the_senders_sent_items() {
    let testbed = Testbed::start().await.unwrap();
    let postfix = testbed.postfix().await.unwrap();
    let mut client = signed_in(&testbed, postfix.submission_addr(), SALES).await;
    assert!(client.offers("AUTH PLAIN XOAUTH2") && client.offers("SIZE 157286400"), "{client:?}");
    assert_eq!(client.send(SALES, &[ANNA, "b@elsewhere.example"], &mail("one@x", ANNA)).await.unwrap().code(), 250);

    let mut second = Client::tls(postfix.submissions_addr(), testbed.dovecot.authority()).await.unwrap();
    second.sign_in_with_password(SALES, testbed.dovecot.password()).await.unwrap();
    assert_eq!(second.send(SALES, &[ANNA], &mail("two@x", ANNA)).await.unwrap().code(), 250);

    let mut third = Client::plain(postfix.open_addr()).await.unwrap();
    assert!(!third.offers("AUTH") && !third.offers("STARTTLS"), "{third:?}");
    assert_eq!(third.send(OTHER, &[ANNA], &mail("three@x", ANNA)).await.unwrap().code(), 250);

    for (mailbox, folder, id) in [
        (ANNA, "INBOX", "one@x"),
        ("b@elsewhere.example", "INBOX", "one@x"),
        (ANNA, "INBOX", "two@x"),
        (ANNA, "INBOX", "three@x"),
        (SALES, SENT_ITEMS, "one@x"),
        (SALES, SENT_ITEMS, "two@x"),
        (OTHER, SENT_ITEMS, "three@x"),
    ] {
        eventually(&format!("{id} lies in {folder} of {mailbox}"), async || {
            found(&testbed, mailbox, folder, id).await == 1
        })
        .await;
    }
    assert_eq!(found(&testbed, SALES, SENT_ITEMS, "three@x").await, 0);
    eventually("the log tells of all", async || postfix.taken().unwrap().len() == 3).await;
    let users: Vec<String> = postfix.taken().unwrap().into_iter().map(|taken| taken.user).collect();
    assert_eq!(users, [SALES, SALES, ""]);
    assert_eq!(postfix.most_at_once(SALES).unwrap(), 2);
}

#[tokio::test]
async fn recipients_name_replies_and_returns_and_senders_are_themselves() {
    let testbed = Testbed::start().await.unwrap();
    let options = postfix::Options { keeps_no_copy: true, largest_mail: Some(100_000) };
    let postfix = testbed.postfix_with(&options).await.unwrap();
    let mut client = signed_in(&testbed, postfix.submission_addr(), SALES).await;
    assert!(client.ask(&format!("MAIL FROM:<{SALES}>")).await.unwrap().starts_with("250 "));
    for reply in ["450-4.2.1", "550-5.1.1", "554-5.7.1"] {
        let said = client.ask(&format!("RCPT TO:<reply-{reply}@customer.example>")).await.unwrap();
        assert!(said.starts_with(&reply.replace('-', " ")), "{said}");
    }
    let too_large = client.ask(&format!("RSET\r\nMAIL FROM:<{SALES}> SIZE=100001")).await.unwrap();
    assert!(too_large.starts_with("250 "), "{too_large}");
    assert!(client.reply().await.unwrap().starts_with("552 5.3.4"));
    client.ask("RSET").await.unwrap();

    let refused = client.send(OTHER, &[ANNA], &mail("one@x", ANNA)).await.unwrap();
    assert!(refused.0.starts_with("553 5.7.1"), "{refused:?}");
    client.ask("RSET").await.unwrap();

    let back = "bounce-5.1.1@customer.example";
    assert_eq!(client.send(SALES, &[back], &mail("two@x", back)).await.unwrap().code(), 250);
    eventually("the mail comes back", async || testbed.dovecot.count(SALES, "INBOX").await.unwrap() == 1).await;
    let text = testbed.dovecot.doveadm(&["fetch", "-u", SALES, "text", "mailbox", "INBOX", "all"]).await.unwrap();
    for part in ["multipart/report; report-type=delivery-status", "Action: failed", "Status: 5.1.1", "<two@x>"] {
        assert!(text.contains(part), "no {part} in {text}");
    }
    assert_eq!(found(&testbed, SALES, SENT_ITEMS, "two@x").await, 0);
}

#[tokio::test]
async fn a_token_sends_as_whom_and_for_what_it_was_issued() {
    let testbed = Testbed::start().await.unwrap();
    testbed.tenant.set_password(SALES, "p");
    let exchange = testbed.exchange().await.unwrap();
    let sign_in = async |mailbox: &str, token: String| {
        connect(&testbed, exchange.submission_addr()).await.sign_in(mailbox, &token).await.unwrap()
    };
    let user = submission::user_token(&testbed, SMTP_USER_SCOPE, SALES, "p").await;
    assert!(sign_in(SALES, user.clone()).await.starts_with("235 "));
    assert_eq!(sign_in(OTHER, user).await, answers::UNSUCCESSFUL);
    let reader = submission::user_token(&testbed, postroom_testbed::USER_SCOPE, SALES, "p").await;
    assert_eq!(sign_in(SALES, reader).await, answers::UNSUCCESSFUL);
    let graph = submission::app_token(&testbed, postroom_testbed::GRAPH_SCOPE).await;
    assert_eq!(sign_in(SALES, graph).await, answers::UNSUCCESSFUL);
    let client_id = testbed.service().client_id.clone();
    testbed.tenant.set_permission(&client_id, Permission::Smtp, false);
    let reader = app_token(&testbed).await;
    assert_eq!(sign_in(SALES, reader.clone()).await, answers::UNSUCCESSFUL);
    let mut imap = postroom_testbed::imap::Client::connect(testbed.dovecot.imap_addr(), testbed.dovecot.authority())
        .await
        .unwrap();
    imap.sign_in_with_token(SALES, &reader).await.unwrap();
    testbed.tenant.set_permission(&client_id, Permission::Smtp, true);
    testbed.tenant.set_token_lifetime(Duration::from_secs(1));
    let short = app_token(&testbed).await;
    // Bounded: each round asks the server, and the token ends by itself.
    while sign_in(SALES, short.clone()).await != answers::UNSUCCESSFUL {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn the_front_answers_as_exchange_does() {
    let testbed = Testbed::start().await.unwrap();
    let exchange = testbed.exchange().await.unwrap();
    let addr = exchange.submission_addr();
    let mut plain = Client::plain(addr).await.unwrap();
    assert!(plain.offers("STARTTLS") && !plain.offers("AUTH"), "{plain:?}");
    assert!(plain.ask("AUTH XOAUTH2 eA==").await.unwrap().starts_with("530 5.7.0"));
    let mut stranger = connect(&testbed, addr).await;
    assert_eq!(stranger.ask("MAIL FROM:<a@b.example>").await.unwrap(), answers::NOT_AUTHENTICATED);
    assert_eq!(stranger.sign_in(SALES, "nonsense").await.unwrap(), answers::UNSUCCESSFUL);

    let mut many = Vec::new();
    for _ in 0..4 {
        many.push(signed_in(&testbed, addr, SALES).await);
    }
    let mut other = signed_in(&testbed, addr, OTHER).await;
    let from = format!("MAIL FROM:<{SALES}>");
    assert_eq!(many[3].ask(&from).await.unwrap(), answers::TOO_MANY_CONNECTIONS);
    assert!(other.ask(&format!("MAIL FROM:<{OTHER}>")).await.unwrap().starts_with("250 "));
    assert_eq!((exchange.open(SALES), exchange.most_at_once(SALES), exchange.most_at_once(OTHER)), (4, 4, 1));
    drop(many.remove(0));
    eventually("a connection has ended", async || exchange.open(SALES) == 3).await;
    assert!(many[2].ask(&from).await.unwrap().starts_with("250 "));
    many[2].ask("RSET").await.unwrap();
    assert_eq!(many[2].send(OTHER, &[ANNA], &mail("no@x", ANNA)).await.unwrap().0, answers::NOT_AS_THIS_SENDER);

    exchange.set_password_answer(Some(answers::PASSWORDS_GONE));
    let mut client = connect(&testbed, addr).await;
    let reply = client.sign_in_with_password(SALES, testbed.dovecot.password()).await.unwrap();
    assert_eq!(reply, answers::PASSWORDS_GONE);
}

#[tokio::test]
async fn orders_are_met_at_every_step_and_what_was_delivered_is_known() {
    let testbed = Testbed::start().await.unwrap();
    let exchange = testbed.exchange().await.unwrap();
    let addr = exchange.submission_addr();
    let mut client = signed_in(&testbed, addr, SALES).await;
    for (step, answer, id) in [
        (Step::Sender, answers::SERVER_BUSY, "sender@x"),
        (Step::Recipient, answers::SEND_AS_DENIED, "recipient@x"),
        (Step::Data, answers::SERVER_BUSY, "data@x"),
        (Step::End, answers::QUOTA_EXCEEDED, "end@x"),
        (Step::End, answers::SENDER_THREADS, "again@x"),
    ] {
        exchange.answer(step, SALES, 1, answer);
        assert_eq!(client.send(SALES, &[ANNA], &mail(id, ANNA)).await.unwrap().0, answer);
        client.ask("RSET").await.unwrap();
    }
    assert_eq!(exchange.accepted(), []);
    assert_eq!(client.send(SALES, &[ANNA], &mail("end@x", ANNA)).await.unwrap().code(), 250);
    let accepted = exchange.accepted();
    assert_eq!(
        (accepted.len(), accepted[0].message_id.as_str(), &accepted[0].recipients[..]),
        (1, "end@x", &[ANNA.to_owned()][..])
    );
    assert_eq!((exchange.data_begun("end@x"), exchange.data_begun("data@x")), (2, 0));

    exchange.answer(Step::SignIn, "", 1, answers::DISABLED_FOR_TENANT);
    let mut refused = connect(&testbed, addr).await;
    assert_eq!(refused.sign_in(SALES, "any").await.unwrap(), answers::DISABLED_FOR_TENANT);
    exchange.answer(Step::Hello, "", 1, answers::TIMED_OUT);
    assert!(Client::plain(addr).await.is_err(), "a reply of 421 hangs up");

    for (step, is_delivered) in [(Step::Body, false), (Step::End, false), (Step::Accepted, true)] {
        let id = format!("cut-{step:?}@x").to_lowercase();
        let mut client = signed_in(&testbed, addr, SALES).await;
        exchange.cut(step, SALES, 1);
        let cut = client.send(SALES, &[ANNA], &mail(&id, ANNA)).await;
        assert!(cut.is_err(), "{step:?}: {cut:?}");
        assert_eq!(exchange.accepted().iter().any(|it| it.message_id == id), is_delivered, "{step:?}");
        if is_delivered {
            eventually("it arrives", async || found(&testbed, ANNA, "INBOX", &id).await == 1).await;
        }
    }

    let stall = exchange.stall(Step::Accepted, "", 1);
    let mut client = signed_in(&testbed, addr, SALES).await;
    let mail = mail("stalled@x", ANNA);
    let sending = client.send(SALES, &[ANNA], &mail);
    let release = async {
        stall.arrived(1).await.unwrap();
        assert!(exchange.accepted().iter().any(|it| it.message_id == "stalled@x"));
        stall.release();
    };
    let (sent, ()) = tokio::join!(sending, release);
    assert_eq!(sent.unwrap().code(), 250);
}

#[tokio::test]
async fn mail_and_ports_outlive_a_restart_of_postfix_and_nothing_outlives_its_end() {
    let testbed = Testbed::start().await.unwrap();
    let postfix = testbed.postfix().await.unwrap();
    let (addr, dir) = (postfix.submission_addr(), postfix.dir().to_owned());
    testbed.dovecot.stop().await.unwrap();
    let mut client = Client::plain(postfix.open_addr()).await.unwrap();
    assert_eq!(client.send(SALES, &[ANNA], &mail("one@x", ANNA)).await.unwrap().code(), 250);
    postfix.restart().await.unwrap();
    assert!(client.ask("NOOP").await.is_err(), "the connection outlived the server");
    testbed.dovecot.restart().await.unwrap();
    eventually("it arrives", async || found(&testbed, ANNA, "INBOX", "one@x").await == 1).await;
    postfix.stop().await.unwrap();
    assert!(Client::plain(addr).await.is_err(), "a stopped server takes mail");
    postfix.restart().await.unwrap();
    drop(Client::plain(addr).await.unwrap());
    drop(testbed);
    assert!(!dir.exists() && Client::plain(addr).await.is_err());
}

#[test]
fn only_root_is_told_to_go_on() {
    let said = Error::NotRoot.to_string();
    assert!(said.contains("as root"), "{said}");
}

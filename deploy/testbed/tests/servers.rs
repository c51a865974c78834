//! The testbed against itself: the tenant's tokens at the real Dovecot, deliveries, restarts.
#![expect(clippy::unwrap_used, reason = "a test ends where it fails")]

use std::time::Duration;

use postroom_testbed::{
    APP_SCOPE, Error, Mail, TENANT_ID, Testbed, USER_SCOPE, dovecot, imap,
    tenant::{Fault, SignIns},
};
use serde_json::Value;

const EVE: &str = "eve@contoso.example";
const SHARED: &str = "billing@contoso.example";

async fn ask(testbed: &Testbed, authority: &str, form: &[(&str, &str)]) -> (u16, Value) {
    let mut tls = (*testbed.dovecot.authority().client_config().unwrap()).clone();
    tls.alpn_protocols = vec![b"h2".to_vec()];
    let client = reqwest::Client::builder().tls_backend_preconfigured(tls).build().unwrap();
    match client.post(format!("{authority}/oauth2/v2.0/token")).form(form).send().await {
        Ok(response) => (response.status().as_u16(), response.json().await.unwrap_or_default()),
        Err(_) => (0, Value::Null),
    }
}

async fn ask_as_app(testbed: &Testbed) -> (u16, Value) {
    let app = testbed.service();
    let form = [
        ("grant_type", "client_credentials"),
        ("client_id", &app.client_id),
        ("client_secret", app.secret.as_deref().unwrap()),
        ("scope", APP_SCOPE),
    ];
    ask(testbed, &testbed.tenant.authority(), &form).await
}

async fn ask_as_user(testbed: &Testbed, user: &str, password: &str) -> (u16, Value) {
    let form = [
        ("grant_type", "password"),
        ("client_id", &testbed.user().client_id),
        ("username", user),
        ("password", password),
        ("scope", USER_SCOPE),
    ];
    ask(testbed, &testbed.tenant.domain_authority(), &form).await
}

fn token((status, body): &(u16, Value)) -> &str {
    assert_eq!(*status, 200, "{body}");
    body["access_token"].as_str().unwrap()
}

async fn connect(testbed: &Testbed) -> imap::Client {
    imap::Client::connect(testbed.dovecot.imap_addr(), testbed.dovecot.authority()).await.unwrap()
}

/// Signs in and selects INBOX.
async fn open(testbed: &Testbed, user: &str, token: &str) -> Result<imap::Client, Error> {
    let mut client = connect(testbed).await;
    client.sign_in_with_token(user, token).await?;
    client.command("SELECT INBOX").await?;
    Ok(client)
}

#[track_caller]
fn assert_refused<T: std::fmt::Debug>(answer: Result<T, Error>) {
    match answer {
        Err(Error::Refused { said, .. }) => assert!(said.contains("AUTHENTICATIONFAILED"), "{said}"),
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test]
async fn tokens_open_what_they_are_for() {
    let testbed = Testbed::start().await.unwrap();
    testbed.tenant.set_password(EVE, "correct horse");

    let app = ask_as_app(&testbed).await;
    for mailbox in [EVE, SHARED] {
        open(&testbed, mailbox, token(&app)).await.unwrap();
    }

    let user = ask_as_user(&testbed, EVE, "correct horse").await;
    open(&testbed, EVE, token(&user)).await.unwrap();
    assert_refused(open(&testbed, SHARED, token(&user)).await);

    testbed.tenant.set_full_access(EVE, true);
    let delegate = ask_as_user(&testbed, EVE, "correct horse").await;
    open(&testbed, SHARED, token(&delegate)).await.unwrap();

    let mut forged = token(&app).to_owned();
    forged.pop();
    assert_refused(open(&testbed, EVE, &forged).await);

    testbed.tenant.set_consent(&testbed.service().client_id, false);
    let powerless = ask_as_app(&testbed).await;
    assert_refused(open(&testbed, SHARED, token(&powerless)).await);
}

#[tokio::test]
async fn a_refused_token_is_told_why_and_delays_nobody() {
    let testbed = Testbed::start().await.unwrap();
    let app = ask_as_app(&testbed).await;
    for _ in 0..3 {
        let refused = connect(&testbed).await.sign_in_with_token(SHARED, "nonsense").await;
        let Err(Error::Refused { said, .. }) = refused else { panic!("not refused: {refused:?}") };
        assert!(said.contains(r#""status":"#), "no challenge in {said}");
    }
    let good = tokio::time::timeout(Duration::from_secs(10), open(&testbed, SHARED, token(&app))).await;
    good.expect("a good sign-in waits for the bad ones before it").unwrap();
}

#[tokio::test]
async fn an_expired_token_is_refused_and_a_kick_ends_what_it_opened() {
    let testbed = Testbed::start().await.unwrap();
    testbed.tenant.set_token_lifetime(Duration::from_secs(2));
    let answer = ask_as_app(&testbed).await;
    assert_eq!(answer.1["expires_in"], 2);
    let mut client = open(&testbed, SHARED, token(&answer)).await.unwrap();
    // Bounded: each round asks the server, and the token ends by itself.
    let refused = loop {
        match open(&testbed, SHARED, token(&answer)).await {
            Ok(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            refused => break refused,
        }
    };
    assert_refused(refused);
    client.command("NOOP").await.unwrap();

    testbed.dovecot.kick(SHARED).await.unwrap();
    let line = client.line().await;
    assert!(line.as_ref().is_err() || line.as_ref().unwrap().starts_with("* BYE"), "{line:?}");
    testbed.dovecot.kick(SHARED).await.unwrap();
}

#[tokio::test]
async fn a_password_opens_every_mailbox_until_it_changes() {
    let options = dovecot::Options { password: Some("p:ä{} #1".to_owned()), ..Default::default() };
    let mut testbed = Testbed::start_with(options).await.unwrap();
    connect(&testbed).await.sign_in_with_password(EVE, "p:ä{} #1").await.unwrap();
    assert_refused(connect(&testbed).await.sign_in_with_password(EVE, "other").await);

    testbed.dovecot.set_password("other").unwrap();
    let changed = async {
        while connect(&testbed).await.sign_in_with_password(EVE, "other").await.is_err() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), changed).await.expect("the new password is never accepted");
}

#[tokio::test]
async fn mail_and_ports_outlive_a_restart() {
    let testbed = Testbed::start().await.unwrap();
    let app = ask_as_app(&testbed).await;
    let mails = ["one", "two"].map(|subject| Mail::to(SHARED).subject(subject).message_id(subject).delivery());
    testbed.deliver_in_order(mails.to_vec()).await.unwrap();
    let mut client = open(&testbed, SHARED, token(&app)).await.unwrap();
    client.command(r"STORE 1 +FLAGS (\Seen)").await.unwrap();
    let before = testbed.dovecot.messages(SHARED, "INBOX").await.unwrap();
    let addr = testbed.dovecot.imap_addr();

    testbed.dovecot.restart().await.unwrap();

    assert!(client.command("NOOP").await.is_err(), "the session outlived the server");
    assert_eq!(testbed.dovecot.imap_addr(), addr);
    let after = testbed.dovecot.messages(SHARED, "INBOX").await.unwrap();
    assert_eq!(after, before);
    let seen: Vec<(&str, &str, bool)> =
        after.iter().map(|m| (m.subject.as_str(), m.message_id.as_str(), m.is_seen())).collect();
    assert_eq!(seen, [("one", "<one>", true), ("two", "<two>", false)]);
    open(&testbed, SHARED, token(&app)).await.unwrap();

    testbed.dovecot.stop().await.unwrap();
    assert!(testbed.deliver(&Mail::to(SHARED)).await.is_err(), "a stopped server takes mail");
    testbed.dovecot.restart().await.unwrap();
    testbed.deliver(&Mail::to(SHARED)).await.unwrap();
    assert_eq!(testbed.dovecot.count(SHARED, "INBOX").await.unwrap(), 3);
    assert_eq!(testbed.dovecot.count_unseen(SHARED, "INBOX").await.unwrap(), 2);
}

#[tokio::test]
async fn moves_and_sessions_are_seen() {
    let testbed = Testbed::start().await.unwrap();
    let app = ask_as_app(&testbed).await;
    testbed.dovecot.create_folder(SHARED, "Done").await.unwrap();
    testbed.deliver(&Mail::to(SHARED)).await.unwrap();
    let mut client = open(&testbed, SHARED, token(&app)).await.unwrap();
    assert_eq!(testbed.dovecot.sessions(SHARED).await.unwrap(), 1);
    client.command("MOVE 1 Done").await.unwrap();
    assert_eq!(testbed.dovecot.count(SHARED, "INBOX").await.unwrap(), 0);
    assert_eq!(testbed.dovecot.count(SHARED, "Done").await.unwrap(), 1);
    testbed.dovecot.delete_folder(SHARED, "Done").await.unwrap();
    assert!(testbed.dovecot.count(SHARED, "Done").await.is_err(), "the folder is still there");
}

#[tokio::test]
async fn five_hundred_deliveries_at_once_arrive_once_each() {
    let testbed = Testbed::start().await.unwrap();
    let deliveries = (0..500).map(|number| {
        let mail = Mail::to(SHARED).message_id(&format!("{number}")).size(4096);
        let testbed = &testbed;
        async move { testbed.deliver(&mail).await }
    });
    futures::future::try_join_all(deliveries).await.unwrap();
    let mut ids: Vec<String> =
        testbed.dovecot.messages(SHARED, "INBOX").await.unwrap().into_iter().map(|m| m.message_id).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 500);

    let more = (0..500).map(|_| Mail::to("a+b@contoso.example").delivery()).collect();
    testbed.deliver_all(more).await.unwrap();
    assert_eq!(testbed.dovecot.count("a+b@contoso.example", "INBOX").await.unwrap(), 500);
}

#[tokio::test]
async fn a_mailbox_is_filled_in_order() {
    let testbed = Testbed::start().await.unwrap();
    let messages: Vec<Vec<u8>> =
        (0..1_200).map(|number| Mail::to(SHARED).subject(&number.to_string()).size(4_096).build()).collect();
    testbed.fill(SHARED, &messages).await.unwrap();
    let stored = testbed.dovecot.messages(SHARED, "INBOX").await.unwrap();
    let subjects: Vec<String> = stored.into_iter().map(|message| message.subject).collect();
    assert_eq!(subjects, (0..1_200).map(|number| number.to_string()).collect::<Vec<_>>());
}

async fn hibernates(testbed: &Testbed) -> bool {
    testbed.dovecot.doveadm(&["process", "status", "imap-hibernate"]).await.unwrap().contains("imap-hibernate")
}

#[tokio::test]
async fn new_mail_reaches_an_idling_client_that_hibernates() {
    let options = dovecot::Options { hibernate_after: Some(Duration::from_secs(1)), ..Default::default() };
    let testbed = Testbed::start_with(options).await.unwrap();
    let app = ask_as_app(&testbed).await;
    let mut client = open(&testbed, SHARED, token(&app)).await.unwrap();
    // Asked for anew, because once in some thirty runs nothing hibernated within 30 s of a single IDLE.
    let mut rounds = 0;
    while !hibernates(&testbed).await {
        rounds += 1;
        assert!(rounds < 10, "nothing hibernates");
        if rounds > 1 {
            client.send_line("DONE").await.unwrap();
        }
        client.send("IDLE").await.unwrap();
        while !client.line().await.unwrap().starts_with('+') {}
        for _ in 0..30 {
            if !hibernates(&testbed).await {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }

    testbed.deliver(&Mail::to(SHARED)).await.unwrap();
    let mut line = String::new();
    while !line.ends_with("EXISTS") {
        line = client.line().await.unwrap();
    }
    assert_eq!(line, "* 1 EXISTS");
}

#[tokio::test]
async fn faults_hold_for_as_many_requests_as_ordered() {
    let testbed = Testbed::start().await.unwrap();
    let client_id = testbed.service().client_id.clone();
    testbed.tenant.fail_next(1, Fault::Refuse(50_053));
    testbed.tenant.fail_next(1, Fault::Status(429, Some(7)));
    testbed.tenant.fail_next(1, Fault::Cut);
    let (status, body) = ask_as_app(&testbed).await;
    assert_eq!((status, &body["error_codes"][0]), (400, &Value::from(50_053)));
    assert_eq!(ask_as_app(&testbed).await.0, 429);
    assert_eq!(ask_as_app(&testbed).await.1, Value::Null, "the answer is whole");
    assert_eq!(ask_as_app(&testbed).await.0, 200);
    assert_eq!(testbed.tenant.sign_ins(&client_id), SignIns { issued: 1, refused: 3, last_code: 50_053 });

    testbed.tenant.set_secret(&client_id, "another");
    let (status, body) = ask_as_app(&testbed).await;
    assert_eq!((status, &body["error"]), (401, &Value::from("invalid_client")));
    assert_eq!(ask_as_user(&testbed, EVE, "p").await.1["error_codes"][0], 50_034);
    assert_eq!(testbed.tenant.sign_ins(EVE), SignIns { issued: 0, refused: 1, last_code: 50_034 });
}

#[tokio::test]
async fn discovery_tells_whether_a_tenant_exists() {
    let testbed = Testbed::start().await.unwrap();
    let tls = (*testbed.dovecot.authority().client_config().unwrap()).clone();
    let client = reqwest::Client::builder().tls_backend_preconfigured(tls).build().unwrap();
    let get = async |tenant: &str| {
        let authority = testbed.tenant.authority_of(tenant);
        let response = client.get(format!("{authority}/v2.0/.well-known/openid-configuration")).send().await.unwrap();
        (response.status().as_u16(), response.json::<Value>().await.unwrap())
    };
    let (status, body) = get(TENANT_ID).await;
    assert_eq!(status, 200);
    assert_eq!(body["token_endpoint"], format!("{}/oauth2/v2.0/token", testbed.tenant.authority()));
    let (status, body) = get("nowhere.example").await;
    assert_eq!((status, &body["error_codes"][0]), (400, &Value::from(90_002)));
}

#[tokio::test]
async fn a_dovecot_that_cannot_start_says_why() {
    let options = dovecot::Options { hibernate_after: Some(Duration::from_secs(u64::MAX / 2)), ..Default::default() };
    let error = Testbed::start_with(options).await.unwrap_err().to_string();
    assert!(error.contains("Time interval is too large"), "{error}");
}

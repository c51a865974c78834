//! Ways to sign in: what servers offer, passwords, a mailbox that somebody else opens, and proxies on the way.

use postroom_testbed::front::Front;
use postroom_testbed::proxy::Proxy;

use crate::harness::{SERVICE, Stage, USER, Up, contacts, eventually, mailbox};

async fn front(stage: &Stage, offers: &str) -> Front {
    let front = Front::start(stage.testbed.dovecot.imap_addr(), stage.testbed.dovecot.authority()).await.unwrap();
    front.set_offers(offers);
    front
}

/// A model with one mailbox on a password.
fn with_password(stage: &Stage, port: u16, address: &str) -> String {
    let ca = serde_json::json!(stage.testbed.ca_file());
    let password = serde_json::json!(stage.testbed.dovecot.password());
    format!(
        "instances:
  - {{name: core1}}
incomingServers:
  - {{name: Own, authentication: password, imap: {{host: 127.0.0.1, port: {port}}}, caFile: {ca}}}
queues:
  - name: Billing
    instance: core1
    addresses:
      - {{email: {SERVICE}, server: Own, password: {{value: {password}}}{address}}}
"
    )
}

async fn reads(up: &Up, stage: &Stage, email: &str) {
    stage.deliver(email, "mail", 1).await;
    let client = up.client();
    eventually("it is read", || async { contacts(&client).await.contains_key("mail-0") }).await;
    let checked = up.postroom(&["mailbox", "check", email]);
    assert!(checked.status.success(), "{checked:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_offers_oauthbearer_only_is_signed_in_to() {
    let stage = Stage::set().await;
    let front = front(&stage, "IMAP4rev1 AUTH=OAUTHBEARER").await;
    let model = stage
        .model(&stage.secret())
        .replace(&format!("port: {}", stage.testbed.imap_port()), &format!("port: {}", front.addr().port()));
    std::fs::write(stage.model_file(), model).unwrap();
    let up = stage.up().await;
    reads(&up, &stage, SERVICE).await;
    eventually("the user's mailbox too", || async {
        mailbox(&up.client(), USER).await.state() == postroom_proto::v1::MailboxState::Idle
    })
    .await;
    assert!(front.sign_ins().iter().all(|way| way == "AUTHENTICATE OAUTHBEARER"), "{:?}", front.sign_ins());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_goes_by_plain_or_by_login_as_the_server_offers() {
    for (offers, way) in [("IMAP4rev1 AUTH=PLAIN LOGINDISABLED", "AUTHENTICATE PLAIN"), ("IMAP4rev1", "LOGIN")] {
        let stage = Stage::set().await;
        let front = front(&stage, offers).await;
        std::fs::write(stage.model_file(), with_password(&stage, front.addr().port(), "")).unwrap();
        let up = stage.up().await;
        reads(&up, &stage, SERVICE).await;
        assert!(front.sign_ins().iter().all(|used| used == way), "{:?}", front.sign_ins());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_offers_no_way_that_fits_says_so() {
    let stage = Stage::set().await;
    let front = front(&stage, "IMAP4rev1 LOGINDISABLED AUTH=GSSAPI").await;
    std::fs::write(stage.model_file(), with_password(&stage, front.addr().port(), "")).unwrap();
    let up = stage.up().await;
    eventually("it says so", || async {
        mailbox(&up.client(), SERVICE)
            .await
            .problem
            .is_some_and(|problem| problem.code == "SIGN_IN_UNSUPPORTED" && problem.cause.contains("AUTH=GSSAPI"))
    })
    .await;
    assert!(front.sign_ins().is_empty(), "no password was sent");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_opens_the_mailbox_of_another() {
    // With a token: the user has full access, and the mailbox named is the shared one.
    let stage = Stage::set().await;
    let delegate = "delegate@contoso.example";
    stage.testbed.tenant.set_password(delegate, "delegates-password");
    stage.testbed.tenant.set_full_access(delegate, true);
    let model = stage.model(&stage.secret());
    let before = model.find(&format!("{{email: {USER}")).unwrap();
    let model = format!(
        "{}{{email: {USER}, account: {delegate}, server: Users, password: {{value: delegates-password}}}}\n",
        &model[..before]
    );
    std::fs::write(stage.model_file(), model).unwrap();
    let up = stage.up().await;
    reads(&up, &stage, USER).await;

    // With a password: PLAIN names both.
    let stage = Stage::set().await;
    let address = format!(", account: {delegate}");
    std::fs::write(stage.model_file(), with_password(&stage, stage.testbed.imap_port(), &address)).unwrap();
    let up = stage.up().await;
    reads(&up, &stage, SERVICE).await;
}

/// Each scheme alone: a refusal is not tried again for a minute or so.
async fn tokens_and_mail_go_by_the_proxy_and_its_refusal_is_named(scheme: &str) {
    let stage = Stage::set().await;
    let proxy = Proxy::start().await.unwrap();
    let model = stage.model(&stage.secret());
    let at = format!("proxy: \"{scheme}://{}\", caFile:", proxy.addr());
    std::fs::write(stage.model_file(), model.replacen("caFile:", &at, 1)).unwrap();
    proxy.set_refusing(true);
    let up = stage.up().await;
    eventually("the refusal is named", || async {
        mailbox(&up.client(), SERVICE).await.problem.is_some_and(|problem| problem.code == "PROXY_REFUSED")
    })
    .await;
    let checked = up.postroom(&["mailbox", "check", SERVICE]);
    let told = String::from_utf8(checked.stdout).unwrap();
    assert!(checked.status.code() == Some(9) && told.contains("PROXY_REFUSED"), "{told}");
    proxy.set_refusing(false);
    reads(&up, &stage, SERVICE).await;
    let imap = format!("127.0.0.1:{}", stage.testbed.imap_port());
    let tenant = stage.testbed.tenant.addr().to_string();
    let asked = proxy.asked();
    assert!(asked.contains(&imap) && asked.contains(&tenant), "{asked:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_and_mail_go_by_an_http_proxy_and_its_refusal_is_named() {
    tokens_and_mail_go_by_the_proxy_and_its_refusal_is_named("http").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_and_mail_go_by_a_socks_proxy_and_its_refusal_is_named() {
    tokens_and_mail_go_by_the_proxy_and_its_refusal_is_named("socks5").await;
}

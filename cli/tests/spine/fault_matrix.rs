//! The fault matrix: whatever is wrong with one mailbox, the other goes on, `mailbox show` and `mailbox check` say why
//! and what to do, nothing is settled that the ledger does not have, and once it is mended reading heals by itself.

use postroom_proto::v1::MailboxState;
use postroom_testbed::Authority;
use postroom_testbed::front::{Front, Step, answers};
use serde_json::Value;

use crate::harness::{PASSWORD, SERVICE, Stage, USER, Up, contacts, eventually, mailbox};

/// Starts with a model in which one mailbox does not work, and a message waiting in it.
async fn up_broken(stage: &Stage, broken: &str, model: &str) -> Up {
    stage.deliver(broken, "waiting", 1).await;
    std::fs::write(stage.model_file(), model).unwrap();
    stage.up().await
}

/// The mailbox shows `code`, a check fails at `step` with it, the other mailbox is read, and nothing was settled.
async fn tells(up: &Up, stage: &Stage, broken: &str, code: &str, step: &str) {
    let client = up.client();
    eventually(&format!("{broken} shows {code}"), || async {
        mailbox(&client, broken).await.problem.is_some_and(|problem| problem.code == code)
    })
    .await;
    let problem = mailbox(&client, broken).await.problem.unwrap_or_default();
    let shown = String::from_utf8(up.postroom(&["mailbox", "show", broken]).stdout).unwrap();
    let flat = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let first_words = |text: &str| text.split_whitespace().take(3).collect::<Vec<_>>().join(" ");
    for told in [code, &first_words(&problem.cause), &first_words(&problem.remedy)] {
        assert!(!told.is_empty() && flat(&shown).contains(told), "{told:?} is missing: {shown}");
    }
    assert!(up.postroom(&["explain", code]).status.success(), "{code} can be looked up");

    let (status, steps) = check(up, broken);
    let failed = steps.iter().find(|one| one["name"] == step).unwrap_or_else(|| panic!("no {step}: {steps:#?}"));
    assert_eq!(failed["outcome"], "CHECK_OUTCOME_FAILED", "{steps:#?}");
    assert_eq!(failed["problem"]["code"], code, "{steps:#?}");
    assert!(!failed["problem"]["remedy"].as_str().unwrap().is_empty(), "{failed:#?}");
    assert_eq!(status, Some(9), "a failed check is told by the exit code");

    let other = if broken == SERVICE { USER } else { SERVICE };
    stage.deliver(other, "other", 1).await;
    eventually("the other mailbox goes on", || async { contacts(&client).await.contains_key("other-0") }).await;
    assert!(!contacts(&client).await.contains_key("waiting-0"));
    assert_eq!(stage.testbed.dovecot.count_unseen(broken, "INBOX").await.unwrap(), 1, "nothing was settled");
}

/// The mailbox is read, and what waited becomes a contact, once.
async fn heals(up: &Up, stage: &Stage, broken: &str) {
    let client = up.client();
    eventually(&format!("{broken} is read again"), || async {
        let healed = mailbox(&client, broken).await;
        healed.problem.is_none() && healed.state() == MailboxState::Idle
    })
    .await;
    eventually("what waited is a contact", || async { contacts(&client).await.get("waiting-0") == Some(&1) }).await;
    eventually("it is settled", || async { stage.testbed.dovecot.count_unseen(broken, "INBOX").await.unwrap() == 0 })
        .await;
    let (status, steps) = check(up, broken);
    assert_eq!(status, Some(0), "{steps:#?}");
}

/// Runs a check as a person would.
fn check(up: &Up, email: &str) -> (Option<i32>, Vec<Value>) {
    let checked = up.postroom(&["mailbox", "check", email, "-o", "json"]);
    let text = String::from_utf8(checked.stdout).unwrap();
    (checked.status.code(), text.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
}

impl Stage {
    fn good(&self) -> String {
        self.model(&self.secret())
    }

    /// The good model with the first of `from` replaced: that of the service server.
    fn with(&self, from: &str, to: &str) -> String {
        assert!(self.good().contains(from), "{from}");
        self.good().replacen(from, to, 1)
    }

    fn with_port(&self, port: u16) -> String {
        self.with(&format!("port: {}", self.testbed.imap_port()), &format!("port: {port}"))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_host() {
    let stage = Stage::set().await;
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let up = up_broken(&stage, SERVICE, &stage.with_port(nobody)).await;
    tells(&up, &stage, SERVICE, "UNREACHABLE", "tcp").await;
    up.apply(&stage, &stage.good());
    heals(&up, &stage, SERVICE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_does_not_speak_tls() {
    let stage = Stage::set().await;
    let plaintext = stage.testbed.dovecot.lmtp_addr().port();
    let up = up_broken(&stage, SERVICE, &stage.with_port(plaintext)).await;
    tells(&up, &stage, SERVICE, "TLS_FAILED", "tls").await;
    up.apply(&stage, &stage.good());
    heals(&up, &stage, SERVICE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_untrusted_ca_is_named_with_its_certificate() {
    let stage = Stage::set().await;
    let other = Authority::create(&stage.folder.path().join("other")).unwrap();
    let file = stage.folder.path().join("trusted.pem");
    std::fs::copy(other.ca_file(), &file).unwrap();
    let model =
        stage.with(&serde_json::json!(stage.testbed.ca_file()).to_string(), &serde_json::json!(file).to_string());
    let up = up_broken(&stage, SERVICE, &model).await;
    tells(&up, &stage, SERVICE, "TLS_UNTRUSTED", "tls").await;
    let cause = mailbox(&up.client(), SERVICE).await.problem.unwrap().cause;
    for part in ["certificate 1 of 1", "CN=localhost", "CN=Postroom testbed CA", "SHA-256"] {
        assert!(cause.contains(part), "{part}: {cause}");
    }
    // Mended in the world: the file that the definition names now holds the right CA too.
    std::fs::copy(stage.testbed.ca_file(), &file).unwrap();
    heals(&up, &stage, SERVICE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_secret() {
    let stage = Stage::set().await;
    let up = up_broken(&stage, SERVICE, &stage.model("not-the-secret")).await;
    tells(&up, &stage, SERVICE, "AADSTS7000215", "token").await;
    up.apply(&stage, &stage.good());
    heals(&up, &stage, SERVICE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_tenant() {
    let stage = Stage::set().await;
    let nowhere = stage.testbed.tenant.authority_of("11111111-2222-3333-4444-555555555555");
    let up = up_broken(&stage, SERVICE, &stage.model_with(&nowhere, &stage.secret(), PASSWORD)).await;
    tells(&up, &stage, SERVICE, "AADSTS90002", "token").await;
    up.apply(&stage, &stage.good());
    heals(&up, &stage, SERVICE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_client() {
    let stage = Stage::set().await;
    let client = stage.testbed.service().client_id.clone();
    let up = up_broken(&stage, SERVICE, &stage.with(&client, "99999999-2222-3333-4444-555555555555")).await;
    tells(&up, &stage, SERVICE, "AADSTS700016", "token").await;
    up.apply(&stage, &stage.good());
    heals(&up, &stage, SERVICE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_not_burnt_by_checks() {
    let stage = Stage::set().await;
    let wrong = stage.model_with(&stage.testbed.tenant.authority(), &stage.secret(), "not-the-password");
    let up = up_broken(&stage, USER, &wrong).await;
    tells(&up, &stage, USER, "AADSTS50126", "token").await;
    for _ in 0..5 {
        let (status, steps) = check(&up, USER);
        assert_eq!(status, Some(9), "{steps:#?}");
    }
    let refused = stage.testbed.tenant.sign_ins(USER).refused;
    assert!((1..=3).contains(&refused), "{refused} sign-ins with a refused password");
    up.apply(&stage, &stage.good());
    heals(&up, &stage, USER).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_factor_is_demanded() {
    let stage = Stage::set().await;
    stage.testbed.tenant.set_mfa(USER, true);
    let up = up_broken(&stage, USER, &stage.good()).await;
    tells(&up, &stage, USER, "AADSTS50076", "token").await;
    stage.testbed.tenant.set_mfa(USER, false);
    heals(&up, &stage, USER).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn consent_is_missing() {
    let stage = Stage::set().await;
    let client = stage.testbed.service().client_id.clone();
    stage.testbed.tenant.set_consent(&client, false);
    let up = up_broken(&stage, SERVICE, &stage.good()).await;
    tells(&up, &stage, SERVICE, "TOKEN_WITHOUT_ROLE", "claims").await;
    stage.testbed.tenant.set_consent(&client, true);
    heals(&up, &stage, SERVICE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_folder() {
    let stage = Stage::set().await;
    let model = stage.with("priority: 5, ", "priority: 5, folder: Work, ");
    let up = up_broken(&stage, SERVICE, &model).await;
    tells(&up, &stage, SERVICE, "FOLDER_REFUSED", "select").await;
    stage.testbed.dovecot.create_folder(SERVICE, "Work").await.unwrap();
    let moved = ["move", "-u", SERVICE, "Work", "mailbox", "INBOX", "all"];
    stage.testbed.dovecot.doveadm(&moved).await.unwrap();
    heals(&up, &stage, SERVICE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mailbox_without_permission() {
    let stage = Stage::set().await;
    let front = Front::start(stage.testbed.dovecot.imap_addr(), stage.testbed.dovecot.authority()).await.unwrap();
    front.answer(Step::Open, SERVICE, 0, answers::NOT_CONNECTED);
    let up = up_broken(&stage, SERVICE, &stage.with_port(front.addr().port())).await;
    tells(&up, &stage, SERVICE, "NOT_CONNECTED", "select").await;
    front.mend();
    heals(&up, &stage, SERVICE).await;
}

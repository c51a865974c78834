//! `postroom outgoing-server check`: what keeps mail from being sent is found, and named with its remedy, without sending.

use std::time::Duration;

use postroom_testbed::exchange::{Step, answers};
use postroom_testbed::tenant::Permission;

use crate::harness::{PATIENCE, Up};
use crate::office::{ANNA, By, Office, server_of};

const SALES: &str = "sales@contoso.example";
const GRAPH: &str = "service@contoso.example";

/// What the command says, on one line, and whether all is well.
fn checked(up: &Up, mailbox: &str) -> (bool, String) {
    let output = up.postroom(&["outgoing-server", "check", &server_of(mailbox), "--from", mailbox]);
    let told = [output.stdout, output.stderr].concat();
    let words: Vec<String> = String::from_utf8(told).unwrap().split_whitespace().map(str::to_owned).collect();
    (output.status.success(), words.join(" "))
}

/// Waits until the command says this: a token, or a refusal of one, holds for some seconds more.
async fn says(up: &Up, mailbox: &str, is_well: bool, told: &[&str]) {
    let until = tokio::time::Instant::now() + PATIENCE;
    loop {
        let (well, said) = checked(up, mailbox);
        if well == is_well && told.iter().all(|told| said.contains(told)) {
            return;
        }
        assert!(tokio::time::Instant::now() < until, "not {told:?}: {said}");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_keeps_mail_from_being_sent_is_found_without_sending() {
    let office = Office::open(&[(SALES, By::Smtp), (GRAPH, By::Graph)]).await;
    let (bed, exchange) = (office.bed(), office.exchange().await);
    let (client_id, tenant) = (bed.service().client_id.clone(), &bed.tenant);
    tenant.set_token_lifetime(Duration::from_secs(2));
    let up = office.stage.up().await;

    // The secret first: nobody has a token for Graph yet.
    tenant.set_secret(&client_id, "another");
    says(&up, GRAPH, false, &["AADSTS7000215", "the incoming server that its `registration` names"]).await;
    tenant.set_secret(&client_id, &office.stage.secret());
    tenant.set_permission(&client_id, Permission::GraphSend, false);
    says(&up, GRAPH, false, &["SEND_TOKEN_WITHOUT_RIGHT", "Mail.Send"]).await;
    tenant.set_permission(&client_id, Permission::GraphSend, true);
    says(&up, GRAPH, true, &["not checked"]).await;

    let may_begin = format!("{SALES} may begin a mail");
    says(&up, SALES, true, &[&may_begin]).await;
    for (step, answer, code, remedy) in [
        (Step::SignIn, answers::UNSUCCESSFUL, "SMTP_TOKEN_REFUSED", "New-ServicePrincipal"),
        (Step::SignIn, answers::DISABLED_FOR_TENANT, "SMTP_AUTH_DISABLED", "Set-CASMailbox"),
        (Step::Sender, answers::NOT_AS_THIS_SENDER, "SEND_AS_DENIED", "Add-RecipientPermission"),
    ] {
        exchange.answer(step, SALES, 0, answer);
        says(&up, SALES, false, &[code, remedy]).await;
        exchange.mend();
    }
    says(&up, SALES, true, &[&may_begin]).await;

    assert!(exchange.accepted().is_empty() && bed.graph().await.unwrap().accepted().is_empty());
    assert_eq!(bed.dovecot.count(ANNA, "INBOX").await.unwrap(), 0);
}

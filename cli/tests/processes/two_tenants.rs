//! What one tenant does to its mailboxes is nothing to those of another: neither refusals with a wish to wait, nor a mail server
//! and a token endpoint that do not answer, make mail of the other come later.

use std::time::Duration;

use postroom_cli::client::Client;
use postroom_proto::v1::{self, MailboxState};
use postroom_testbed::Testbed;
use postroom_testbed::front::{Front, Step, answers};
use postroom_testbed::mail::Mail;
use postroom_testbed::tenant::Fault;
use tokio::net::TcpListener;
use tokio::time::Instant;

use crate::control_plane::ControlPlane;
use crate::harness::{Stage, contacts, eventually, mailbox};

/// The mailbox that nothing is wrong with.
const GOOD: &str = "good@fabrikam.example";
/// One beside it, which connects for the first time when all others are in trouble.
const LATE: &str = "late@fabrikam.example";
/// Mailboxes in each sort of trouble: more than may connect at once to one host, or for one tenant.
const TROUBLED: usize = 30;
/// Mails whose way is timed.
const MAILS: usize = 8;

/// An incoming server of the model.
fn server(name: &str, bed: &Testbed, authority: &str, host: &str, port: u16) -> String {
    let app = bed.service();
    let secret = serde_json::json!(app.secret.clone().unwrap());
    let (client, ca) = (&app.client_id, serde_json::json!(bed.ca_file()));
    format!(
        "  - {{name: {name}, address: {authority:?}, authentication: oauth-service, clientId: {client},
     secret: {{value: {secret}}}, imap: {{host: {host}, port: {port}}}, caFile: {ca}}}\n"
    )
}

fn queue(name: &str, emails: impl Iterator<Item = String>) -> String {
    let rows: String = emails.map(|email| format!("      - {{email: {email}, server: {name}}}\n")).collect();
    format!("  - name: {name}\n    instance: core1\n    addresses:\n{rows}")
}

/// The longest way of a mail into the mailbox to a contact.
async fn longest(bed: &Testbed, client: &Client, tag: &str) -> Duration {
    let mut longest = Duration::ZERO;
    for number in 0..MAILS {
        let subject = format!("{tag}-{number}");
        let begun = Instant::now();
        bed.deliver(&Mail::to(GOOD).subject(&subject)).await.unwrap();
        eventually(&subject, || async { contacts(client).await.contains_key(&subject) }).await;
        longest = longest.max(begun.elapsed());
    }
    longest
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_tenant_is_throttled_by_or_dead_of_does_not_delay_the_mail_of_another() {
    let stage = Stage::set().await;
    let (bad, good) = (&stage.testbed, Testbed::start().await.unwrap());
    // One host that throttles everybody, one that takes connections and says nothing, and of the token endpoint of that tenant
    // no answer, either.
    let front = Front::start(bad.dovecot.imap_addr(), bad.dovecot.authority()).await.unwrap();
    front.answer(Step::Open, "", 0, &answers::throttled("NO", Duration::from_secs(300)));
    let silent = TcpListener::bind("127.0.0.2:0").await.unwrap();
    let deaf = postroom_testbed::tenant::Tenant::start(
        bad.dovecot.authority(),
        b"of no use",
        "22222222-3333-4444-5555-666666666666",
        "deaf.example",
    )
    .await
    .unwrap();
    deaf.fail_next(10_000, Fault::Status(429, Some(300)));

    // A tenant by another name is another one to whoever connects.
    let (authority, other_name) = (bad.tenant.authority(), bad.tenant.domain_authority());
    let own = good.tenant.authority();
    let head = |servers: &str| format!("instances:\n  - {{name: core1}}\nincomingServers:\n{servers}queues:\n");
    let fine = server("Good", &good, &own, good.host(), good.imap_port());
    let good_queue = queue("Good", std::iter::once(GOOD.to_owned()));
    let plane = ControlPlane::start(&stage, "127.0.0.1:0", "5s").await;
    plane.apply(&format!("{}{good_queue}", head(&fine))).await;
    let worker = plane.worker("one", &["--reading-connect-timeout=10m", "--start-spread=0s"]);
    let client = plane.client();
    eventually("the good one is read", || async { mailbox(&client, GOOD).await.state() == MailboxState::Idle }).await;
    let alone = longest(&good, &client, "alone").await;

    let sorts = [
        ("Throttled", authority.as_str(), good.host(), front.addr().port()),
        ("Dead", other_name.as_str(), "127.0.0.2", silent.local_addr().unwrap().port()),
        ("Deaf", &deaf.authority(), good.host(), front.addr().port()),
    ];
    let servers: String =
        sorts.iter().map(|(name, tenant, host, port)| server(name, bad, tenant, host, *port)).collect();
    let emails = |name: &str| {
        let name = name.to_lowercase();
        (0..TROUBLED).map(move |number| format!("{name}-{number}@contoso.example"))
    };
    let queues: String = sorts.iter().map(|(name, ..)| queue(name, emails(name))).collect();
    plane.apply(&format!("{}{good_queue}{queues}", head(&format!("{fine}{servers}")))).await;
    let troubled = async || {
        let mailboxes = client.list_mailboxes().await.unwrap().mailboxes;
        let mailboxes =
            mailboxes.into_iter().filter(|it| ![GOOD, LATE].contains(&it.email.as_str()) && it.holder.is_some());
        let stuck = |it: &v1::Mailbox| matches!(it.state(), MailboxState::Connecting | MailboxState::Failing);
        mailboxes.filter(stuck).count()
    };
    eventually("all others are in trouble", || async { troubled().await == 3 * TROUBLED }).await;
    eventually("the wish of the server is known", || async {
        let problem = mailbox(&client, "throttled-0@contoso.example").await.problem;
        problem.is_some_and(|problem| problem.code == "THROTTLED")
    })
    .await;
    let beside = longest(&good, &client, "beside").await;
    good.deliver(&Mail::to(LATE).subject("late")).await.unwrap();
    let good_queues = queue("Good", [GOOD, LATE].map(str::to_owned).into_iter());
    plane.apply(&format!("{}{good_queues}{queues}", head(&format!("{fine}{servers}")))).await;
    eventually("another one is read", || async { contacts(&client).await.contains_key("late") }).await;
    // Whatever came through did so while all of them were where they are: nobody of them has to be done first.
    assert_eq!(troubled().await, 3 * TROUBLED, "{}", worker.log());
    println!("longest way of a mail: {alone:?} alone, {beside:?} beside tenants in trouble");
    assert!(beside < alone * 3 + Duration::from_secs(2), "{alone:?} alone, {beside:?} beside tenants in trouble");
    assert_eq!(contacts(&client).await.len(), 2 * MAILS + 1);
}

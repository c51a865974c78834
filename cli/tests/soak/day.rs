//! The day itself.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use postroom_cli::client::Client;
use postroom_cli::context::Context;
use postroom_control_plane::access::role::Role;
use postroom_control_plane::access::token::{Tokens, mint};
use postroom_control_plane::{app, config};
use postroom_proto::v1::reconcile_mailbox_response::Told;
use postroom_proto::v1::{self, Disposition, MailboxState};
use postroom_testbed::front::Front;
use postroom_testbed::mail::Mail;
use postroom_testbed::tenant::Fault;
use postroom_worker as worker;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::runtime::{Builder, Runtime};
use tokio::time::{Instant, sleep, sleep_until};

use crate::faults::Faults;
use crate::growth::{Sample, nothing_has_grown};
use crate::harness::{SERVER, Stage};

/// How often it is looked at what is in use, in a day.
const SAMPLES: u32 = 60;
/// A fault comes as often as this for each mailbox in a short day. Not more often: whoever fails again within a minute
/// is left alone for longer each time.
const OFTEN: Duration = Duration::from_secs(15);
/// And as often as this in a long one.
const SELDOM: Duration = Duration::from_secs(180);
/// So many faults a mailbox are enough for a day in between.
const FAULTS_OF_A_MAILBOX: u32 = 12;
/// Longest wait for everything to be read when nothing is wrong any more. What failed often is left alone for 5 minutes.
const PATIENCE: Duration = Duration::from_secs(420);

/// How large a day is.
#[derive(Debug, Clone, Copy)]
struct Size {
    mailboxes: usize,
    messages: usize,
    length: Duration,
    seed: u64,
}

impl Size {
    /// A small one, or what POSTROOM_SOAK_MAILBOXES, _MESSAGES, _SECONDS and _SEED say.
    fn wanted() -> Self {
        let number = |name: &str, usual: u64| {
            std::env::var(name).map_or(usual, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text}")))
        };
        Self {
            mailboxes: number("POSTROOM_SOAK_MAILBOXES", 10) as usize,
            messages: number("POSTROOM_SOAK_MESSAGES", 1000) as usize,
            length: Duration::from_secs(number("POSTROOM_SOAK_SECONDS", 20)),
            seed: number("POSTROOM_SOAK_SEED", 1),
        }
    }

    /// Time between two faults of a mailbox. It grows with the day: faults that come faster than what is read proves
    /// itself would have most mailboxes left alone, most of the time, by the end of a long one, and nothing would be
    /// tried any more.
    fn between_faults(&self) -> Duration {
        (self.length / FAULTS_OF_A_MAILBOX).clamp(OFTEN, SELDOM)
    }
}

/// Control plane and worker, each on a runtime of its own, so that the tasks of each can be counted.
struct House {
    plane: Runtime,
    worker: Runtime,
    apps: Option<(app::App, worker::app::App)>,
    client: Client,
}

impl House {
    /// Opens it over the stage. Not called on a runtime.
    fn open(stage: &Stage) -> Self {
        let runtime = || Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let (plane, reading) = (runtime(), runtime());
        let (admin, own) = (mint().unwrap(), mint().unwrap());
        let mut tokens = Tokens::default();
        tokens.grant(&admin, Role::Admin);
        tokens.grant(&own, Role::Worker(None));
        let settings = config::Config::new(stage.data(), "127.0.0.1:0".parse().unwrap(), tokens);
        let started = plane.block_on(app::App::start(settings)).unwrap();
        let endpoint = format!("http://{}", started.address());
        let context = Context { endpoint: endpoint.clone(), ca_file: None, token: admin };
        // What is asked runs beside what answers.
        let client = plane.block_on(async { Client::new(&context, false) }).unwrap();
        let mut settings = worker::config::Config::new(&endpoint, own, "only");
        // A day has so many of each; here it is short.
        settings.reading.poll = Duration::from_secs(5);
        settings.reading.idle_renew = Duration::from_secs(4);
        settings.reading.step_timeout = Duration::from_secs(3);
        settings.reading.pending_retry = Duration::from_millis(500);
        let reader = {
            let _on = reading.enter();
            worker::app::App::start(settings).unwrap()
        };
        Self { plane, worker: reading, apps: Some((started, reader)), client }
    }

    fn close(mut self) {
        let (plane, reader) = self.apps.take().expect("it is open");
        self.worker.block_on(reader.stop());
        self.plane.block_on(plane.stop());
    }
}

#[test]
fn a_day_of_faults_loses_and_doubles_nothing_and_nothing_grows() {
    let size = Size::wanted();
    eprintln!("{size:?}");
    let outside = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let stage = outside.block_on(Stage::set());
    let dovecot = &stage.testbed.dovecot;
    let front = outside.block_on(Front::start(dovecot.imap_addr(), dovecot.authority())).unwrap();
    front.speak_as_exchange();
    // Tokens end in the middle of everything.
    stage.testbed.tenant.set_token_lifetime(Duration::from_secs(20));
    let house = House::open(&stage);
    outside.block_on(live(size, &stage, &front, &house));
    house.close();
}

async fn live(size: Size, stage: &Stage, front: &Front, house: &House) {
    let mailboxes: Vec<String> = (0..size.mailboxes).map(|number| format!("day-{number}@contoso.example")).collect();
    let client = &house.client;
    let model = postroom_cli::model_file::read(&model(stage, front, &mailboxes), stage.folder.path(), &|_| None);
    client.apply_model(model.unwrap()).await.unwrap();
    all_at_rest(client, &mailboxes).await;

    // Each draws from dice of its own: how fast one is does not change what the others do.
    let dice = |stream: u64| StdRng::seed_from_u64(size.seed.wrapping_mul(31).wrapping_add(stream));
    let begin = Instant::now();
    let (sent, count, samples) = tokio::join!(
        post(size, stage, &mailboxes, begin, dice(1)),
        misbehave(size, stage, front, &mailboxes, begin, dice(2)),
        watch(size, house, begin),
    );
    front.mend();
    stage.testbed.tenant.clear_faults();
    let done = Instant::now();
    each_is_one_contact(client, &sent).await;
    all_at_rest(client, &mailboxes).await;
    for mailbox in &mailboxes {
        reconciles(client, mailbox).await;
    }
    eprintln!(
        "seed {}: {} messages of {} mailboxes in {:.0?}, {count} faults, all read {:.1?} after the last",
        size.seed,
        sent.len(),
        mailboxes.len(),
        size.length,
        done.elapsed(),
    );
    nothing_has_grown(&samples);
}

/// Mail comes evenly, to one mailbox or another. Mailbox of each Message-ID.
async fn post(
    size: Size,
    stage: &Stage,
    mailboxes: &[String],
    begin: Instant,
    mut dice: StdRng,
) -> BTreeMap<String, String> {
    let mut sent = BTreeMap::new();
    const AT_ONCE: usize = 10;
    for from in (0..size.messages).step_by(AT_ONCE) {
        sleep_until(begin + size.length.mul_f64(from as f64 / size.messages as f64)).await;
        let mut deliveries = Vec::new();
        for number in from..(from + AT_ONCE).min(size.messages) {
            let (to, id) = (&mailboxes[dice.random_range(0..mailboxes.len())], format!("{number}@customer.example"));
            // One of a hundred is kept outside of the ledger.
            let bytes = if dice.random_bool(0.01) { 1_500_000 } else { dice.random_range(500..20_000) };
            deliveries.push(Mail::to(to).subject(&format!("Order {number}")).message_id(&id).size(bytes).delivery());
            sent.insert(id, to.clone());
        }
        stage.testbed.deliver_in_order(deliveries).await.unwrap();
    }
    sent
}

/// Something goes wrong all the time. How often.
async fn misbehave(
    size: Size,
    stage: &Stage,
    front: &Front,
    mailboxes: &[String],
    begin: Instant,
    mut dice: StdRng,
) -> usize {
    let mut faults = Faults::new(StdRng::seed_from_u64(dice.random()));
    let pause = size.between_faults() / u32::try_from(mailboxes.len()).unwrap();
    let mut count = 0;
    // Nothing new in the last tenth: what was ordered should be met.
    while begin.elapsed() < size.length.mul_f64(0.9) {
        sleep(pause.mul_f64(dice.random_range(0.2..1.8))).await;
        let told = if dice.random_bool(0.05) {
            stage.testbed.tenant.fail_next(2, Fault::Status(503, None));
            "the token endpoint is ill".to_owned()
        } else {
            faults.draw(front, mailboxes)
        };
        eprintln!("{:6.1} s: {told}", begin.elapsed().as_secs_f64());
        count += 1;
    }
    count
}

/// Looks at what is in use.
async fn watch(size: Size, house: &House, begin: Instant) -> Vec<Sample> {
    let mut samples = Vec::new();
    for number in 1..=SAMPLES {
        sleep_until(begin + size.length * number / SAMPLES).await;
        samples.push(Sample::take(house.plane.handle(), house.worker.handle()));
    }
    samples
}

/// Waits until every mailbox is read and nothing is wrong with it.
async fn all_at_rest(client: &Client, mailboxes: &[String]) {
    let until = Instant::now() + PATIENCE;
    loop {
        let listed = client.list_mailboxes().await.unwrap().mailboxes;
        let works = |it: &v1::Mailbox| it.state() == MailboxState::Idle && it.problem.is_none();
        if listed.len() == mailboxes.len() && listed.iter().all(works) {
            return;
        }
        let others: Vec<_> = listed.iter().filter(|it| !works(it)).take(3).collect();
        assert!(Instant::now() < until, "not within {PATIENCE:?}: {others:#?}");
        sleep(Duration::from_millis(100)).await;
    }
}

/// Waits until there are as many contacts as messages, and fails unless each message is one of them.
async fn each_is_one_contact(client: &Client, sent: &BTreeMap<String, String>) {
    let until = Instant::now() + PATIENCE;
    loop {
        let status = client.get_status().await.unwrap();
        let tallies = status.instances.iter().flat_map(|instance| &instance.contacts);
        let count = tallies.map(|tally| tally.count).sum::<u64>();
        if count >= sent.len() as u64 {
            break;
        }
        assert!(Instant::now() < until, "not within {PATIENCE:?}: {} contacts, there are {count}", sent.len());
        sleep(Duration::from_millis(200)).await;
    }
    let listed = client.list_contacts(v1::ListContactsRequest::default(), u32::MAX).await.unwrap().contacts;
    let found: Vec<(String, String)> =
        listed.into_iter().map(|it| (it.content.unwrap_or_default().message_id, it.address)).collect();
    let different: BTreeSet<_> = found.iter().cloned().collect();
    let wanted: BTreeSet<_> = sent.iter().map(|(id, mailbox)| (id.clone(), mailbox.clone())).collect();
    let missing: Vec<_> = wanted.difference(&different).take(10).collect();
    assert!(missing.is_empty(), "missing: {missing:?}");
    assert_eq!((found.len(), different.len()), (wanted.len(), wanted.len()), "contacts, and different ones");
    let messages = client.list_messages(v1::ListMessagesRequest::default(), u32::MAX).await.unwrap().messages;
    let others: Vec<_> = messages.iter().filter(|it| it.disposition() != Disposition::Contact).take(10).collect();
    assert!(others.is_empty() && messages.len() == wanted.len(), "{} rows; {others:?}", messages.len());
}

/// Fails unless folder and ledger agree.
async fn reconciles(client: &Client, mailbox: &str) {
    let mut told = client.reconcile_mailbox(mailbox.to_owned(), false).await.unwrap();
    let mut findings = Vec::new();
    while let Some(part) = told.next().await.unwrap() {
        match part.told {
            Some(Told::Summary(summary)) => return assert!(summary.clean, "{mailbox}: {summary:?} {findings:?}"),
            Some(Told::Finding(finding)) => findings.push(finding),
            Some(Told::Progress(_)) | None => {}
        }
    }
    panic!("{mailbox}: the comparison had no end");
}

/// One queue with all mailboxes, which are read through the front.
fn model(stage: &Stage, front: &Front, mailboxes: &[String]) -> String {
    let bed = &stage.testbed;
    let server = serde_json::json!({
        "name": SERVER,
        "address": bed.tenant.authority(),
        "authentication": "oauth-service",
        "clientId": bed.service().client_id,
        "secret": {"value": stage.secret()},
        "imap": {"host": bed.host(), "port": front.addr().port()},
        "caFile": bed.ca_file(),
    });
    let addresses: Vec<_> =
        mailboxes.iter().map(|email| serde_json::json!({"email": email, "server": SERVER})).collect();
    let queue = serde_json::json!({"name": "Day", "instance": "core1", "addresses": addresses});
    // A YAML file may be JSON.
    serde_json::json!({"instances": [{"name": "core1"}], "incomingServers": [server], "queues": [queue]}).to_string()
}

//! From a delivery into a mailbox to the contact in the hands of a waiting instance, while many other mailboxes are idle.
//!
//! Dovecot itself waits half a second before it tells an idling client of new mail. A bare client idles in the same
//! mailbox: what counts is how much later than its EXISTS the contact is there.

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use postroom_cli::client::Client;
use postroom_proto::convert::to_duration;
use postroom_proto::v1;
use postroom_testbed::{Mail, Testbed, imap};
use rand::RngExt as _;
use serde::Serialize;
use tokio::time::Instant;

use crate::installation::{Installation, Programs};
use crate::machine::{self, Machine};
use crate::output::Output;
use crate::table;

/// Longest time for one delivery to become a contact.
const LONGEST: Duration = Duration::from_secs(30);

/// `latency`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Mailboxes that are idle.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..=20_000))]
    mailboxes: u64,
    /// Into so many of them mail is delivered, and a bare client idles in each of those.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=200))]
    watched: u64,
    /// Deliveries, one after the other, that count.
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    deliveries: u64,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    programs: Programs,
}

/// What was measured, and on what. All in milliseconds, ascending.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Measured {
    pub(crate) mailboxes: u64,
    pub(crate) machine: Machine,
    pub(crate) dovecot: String,
    /// From the delivery to the bare client's EXISTS.
    pub(crate) bare: Vec<f64>,
    /// From the delivery to the contact.
    pub(crate) contact: Vec<f64>,
    /// From the EXISTS to the contact; negative when the contact was there first.
    pub(crate) behind: Vec<f64>,
}

/// Measures and prints.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let parent =
        args.output.dir.canonicalize().with_context(|| format!("there is no folder {}", args.output.dir.display()))?;
    machine::require_watches(args.mailboxes + args.watched)?;
    let dir = tempfile::Builder::new().prefix("postroom-bench-").tempdir_in(&parent)?;
    let testbed = Testbed::start().await?;
    let names: Vec<String> =
        (0..args.mailboxes).map(|number| format!("idle{number}@{}", postroom_testbed::DOMAIN)).collect();
    let installation = Installation::start(&args.programs, dir.path()).await?;
    table::note(&format!("waiting until {} mailboxes are idle", args.mailboxes));
    installation.read(&testbed, &names).await?;
    let client = installation.client()?;
    let mut watched = Vec::new();
    for name in names.iter().take(args.watched as usize) {
        watched.push((name, watch(&testbed, name).await?));
    }
    let mut measured = Measured {
        mailboxes: args.mailboxes,
        machine: Machine::of(&parent),
        dovecot: machine::version("dovecot").await,
        bare: Vec::new(),
        contact: Vec::new(),
        behind: Vec::new(),
    };
    // The first ones warm up and do not count.
    for number in 0..args.deliveries + args.watched {
        let (name, bare) = &mut watched[(number % args.watched) as usize];
        let mail = Mail::to(name).subject(&format!("Order {number}")).size(4_096);
        // So that Dovecot's clock and ours do not run in step.
        tokio::time::sleep(Duration::from_millis(rand::rng().random_range(20..60))).await;
        let (seen, taken, delivered) = tokio::try_join!(exists(bare), take(&client), async {
            // The taker is to wait already.
            tokio::time::sleep(Duration::from_millis(20)).await;
            testbed.deliver(&mail).await?;
            Ok(Instant::now())
        })?;
        if number >= args.watched {
            let since = |from: Instant, to: Instant| match to.checked_duration_since(from) {
                Some(later) => later.as_secs_f64() * 1e3,
                None => -(from - to).as_secs_f64() * 1e3,
            };
            measured.bare.push(since(delivered, seen));
            measured.contact.push(since(delivered, taken));
            measured.behind.push(since(seen, taken));
        }
    }
    for values in [&mut measured.bare, &mut measured.contact, &mut measured.behind] {
        values.sort_by(f64::total_cmp);
    }
    args.output.print(&measured, table::render_latency)
}

/// A bare client that idles in a mailbox.
async fn watch(testbed: &Testbed, mailbox: &str) -> anyhow::Result<imap::Client> {
    let mut client = imap::Client::connect(testbed.dovecot.imap_addr(), testbed.dovecot.authority()).await?;
    client.sign_in_with_password(mailbox, testbed.dovecot.password()).await?;
    client.command("SELECT INBOX").await?;
    client.send("IDLE").await?;
    let answer = client.line().await?;
    ensure!(answer.starts_with('+'), "Dovecot does not idle: {answer}");
    Ok(client)
}

/// When the bare client hears of new mail.
async fn exists(bare: &mut imap::Client) -> anyhow::Result<Instant> {
    loop {
        if bare.line().await?.ends_with("EXISTS") {
            return Ok(Instant::now());
        }
    }
}

/// When a contact is there.
async fn take(client: &Client) -> anyhow::Result<Instant> {
    let request = v1::AllocateContactsRequest {
        instance: "core1".into(),
        max_count: 1,
        wait: Some(to_duration(LONGEST)),
        request_id: uuid::Uuid::new_v4().to_string(),
        // Nobody accepts: one that came back would be taken for the next.
        accept_within: Some(to_duration(Duration::from_secs(3600))),
    };
    let taken = client.allocate_contacts(request).await?;
    match taken.contacts.len() {
        1 => Ok(Instant::now()),
        _ => bail!("no contact came within {} s", LONGEST.as_secs()),
    }
}

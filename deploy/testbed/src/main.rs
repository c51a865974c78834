//! `postroom-testbed`: a local tenant and real mail servers in the foreground, for scripts and for operators who
//! rehearse faults.

mod control;
mod place;

use std::{io::Write, path::PathBuf, process::ExitCode};

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use postroom_testbed::{Mail, Testbed, dovecot, lmtp};
use tokio::signal::unix::{SignalKind, signal};

use crate::{control::Control, place::Place};

/// A local Microsoft 365 to rehearse with: a tenant that issues tokens and a Dovecot that accepts them.
#[derive(Debug, Parser)]
#[command(version)]
struct Command {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Start the servers and keep them until SIGINT or SIGTERM. All mail is gone afterwards.
    Serve(Serve),
    /// Deliver sample messages over LMTP.
    Deliver(Deliver),
    /// Change something in the running testbed, or ask it.
    Control {
        #[command(flatten)]
        dir: Dir,
        #[command(subcommand)]
        control: Control,
    },
}

#[derive(Debug, Args)]
struct Dir {
    /// Folder where `serve` writes testbed.json and testbed.env.
    #[arg(long)]
    dir: PathBuf,
}

#[derive(Debug, Args)]
struct Serve {
    #[command(flatten)]
    dir: Dir,
    /// Add an account to the tenant, with a password of its own. May be repeated.
    #[arg(long = "user", value_name = "ADDRESS", default_values_t = [format!("sales@{}", postroom_testbed::DOMAIN)])]
    users: Vec<String>,
    /// Keep idle connections in one process after this many seconds: for thousands of mailboxes.
    #[arg(long, value_name = "SECONDS")]
    hibernate_after: Option<u64>,
    /// Read by IMAP through a front that speaks as Exchange Online does.
    #[arg(long)]
    exchange_imap: bool,
    /// Send by SMTP: a Postfix behind a front that answers as Exchange Online does. Wants root.
    #[arg(long)]
    smtp: bool,
    /// Send by Microsoft Graph, or what stands in for it.
    #[arg(long)]
    graph: bool,
}

#[derive(Debug, Args)]
struct Deliver {
    #[command(flatten)]
    dir: Dir,
    /// Mailbox that gets the messages.
    #[arg(long, value_name = "ADDRESS")]
    to: String,
    /// Header From.
    #[arg(long, default_value = "Anna Customer <anna@customer.example>")]
    from: String,
    /// Header Subject; with --count a number follows it.
    #[arg(long, default_value = "A question")]
    subject: String,
    /// Number of messages.
    #[arg(long, default_value_t = 1)]
    count: usize,
    /// Least size of each message in bytes.
    #[arg(long, default_value_t = 0)]
    size: usize,
}

#[tokio::main]
async fn main() -> ExitCode {
    // Invariant: set before anything makes a TLS setting without naming its provider.
    let _ = rustls::crypto::ring::default_provider().install_default();
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    let outcome = match Command::parse().verb {
        Verb::Serve(serve) => run(serve).await,
        Verb::Deliver(deliver) => run_deliver(deliver).await,
        Verb::Control { dir, control } => run_control(&dir, &control).await,
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody is left to tell when standard error is closed.
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(serve: Serve) -> anyhow::Result<()> {
    // Listened to from the start: a signal during the start must not leave anything behind.
    let mut interrupted = signal(SignalKind::interrupt()).context("cannot listen to SIGINT")?;
    let mut terminated = signal(SignalKind::terminate()).context("cannot listen to SIGTERM")?;
    let stopped = async {
        tokio::select! {
            _ = interrupted.recv() => {}
            _ = terminated.recv() => {}
        }
    };
    let dir = serve.dir.dir.clone();
    let served = async {
        let hibernate_after = serve.hibernate_after.map(std::time::Duration::from_secs);
        let options = dovecot::Options { hibernate_after, ..Default::default() };
        let testbed = Testbed::start_with(options).await?;
        if serve.exchange_imap {
            testbed.front().await?.speak_as_exchange();
        }
        if serve.smtp {
            testbed.exchange().await?;
        }
        if serve.graph {
            testbed.graph().await?;
        }
        let place = Place::new(&testbed, &serve.users);
        let listener = control::listen(&place.control)?;
        place.write(&dir)?;
        say(&format!("ready: {}", dir.join("testbed.json").display()))?;
        control::serve(listener, &testbed).await
    };
    let outcome = tokio::select! {
        outcome = served => outcome,
        () = stopped => Ok(()),
    };
    Place::remove(&dir);
    outcome
}

async fn run_deliver(deliver: Deliver) -> anyhow::Result<()> {
    let place = Place::read(&deliver.dir.dir)?;
    let mails = (1..=deliver.count).map(|number| {
        let subject =
            if deliver.count == 1 { deliver.subject.clone() } else { format!("{} {number}", deliver.subject) };
        Mail::to(&deliver.to).from(&deliver.from).subject(&subject).size(deliver.size).delivery()
    });
    let mut client = lmtp::Client::connect((std::net::Ipv4Addr::LOCALHOST, place.lmtp_port).into()).await?;
    client.deliver(mails).await?;
    say(&format!("delivered: {}", deliver.count))
}

async fn run_control(dir: &Dir, control: &Control) -> anyhow::Result<()> {
    let place = Place::read(&dir.dir)?;
    say(&control::ask(&place.control, control).await?)
}

fn say(text: &str) -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "{text}").context("cannot write to standard output")
}

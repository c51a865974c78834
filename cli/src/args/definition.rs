//! `apply` and the definitions.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::duration;

/// `apply`.
#[derive(Debug, Args)]
pub struct Apply {
    /// Model file (YAML); `-` reads standard input.
    #[arg(short, long, value_name = "FILE")]
    pub file: PathBuf,
    /// Show what would change, and change nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Remove definitions that the file does not name; system settings go back to their defaults.
    #[arg(long)]
    pub prune: bool,
}

/// `diff`.
#[derive(Debug, Args)]
pub struct Diff {
    /// Compare what is stored with this model file (YAML): what would `apply` change?
    #[arg(short, long, value_name = "FILE", conflicts_with = "revisions", required_unless_present = "revisions")]
    pub file: Option<PathBuf>,
    /// With --file: as `apply --prune` would.
    #[arg(long, requires = "file")]
    pub prune: bool,
    /// Compare this revision with the second one, or with the newest.
    #[arg(value_name = "REV", num_args = 1..=2)]
    pub revisions: Vec<u64>,
}

/// `history`.
#[derive(Debug, Args)]
pub struct History {
    /// Most revisions to show, newest first.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    pub limit: u32,
}

/// `rollback`.
#[derive(Debug, Args)]
pub struct Rollback {
    /// The revision whose content is wanted; see `postroom history`.
    #[arg(value_name = "REV")]
    pub revision: u64,
    /// Show what would change, and change nothing.
    #[arg(long)]
    pub dry_run: bool,
}

/// Verbs of `rollout`.
#[derive(Debug, Subcommand)]
pub enum Rollout {
    /// Show which revision each replica and each worker runs.
    Status {
        /// Wait until all of them run the newest.
        #[arg(long)]
        wait: bool,
        /// How long to wait at most.
        #[arg(long, value_name = "TIME", default_value = "60s", requires = "wait", value_parser = patience)]
        timeout: Duration,
    },
}

fn patience(text: &str) -> Result<Duration, String> {
    duration(text, Duration::from_secs(1), Duration::from_secs(86_400), "from 1s to 24h")
}

/// Verbs of a definition.
#[derive(Debug, Subcommand)]
pub enum Definition {
    /// List all of them.
    List,
    /// Show one with everything.
    Show {
        /// Name or uid.
        name: String,
    },
    /// Change some of its keys, and leave the others as they are.
    #[command(after_help = SET_HELP)]
    Set(Set),
    /// Remove it. Refused while something uses it.
    Remove(Remove),
}

/// Verbs of a queue.
#[derive(Debug, Subcommand)]
pub enum Queue {
    /// List all of them.
    List,
    /// Show one with everything.
    Show {
        /// Name or uid.
        name: String,
    },
    /// Change some keys of it or of one of its addresses, and leave the others as they are.
    #[command(after_help = SET_QUEUE_HELP)]
    Set(SetQueue),
    /// Remove it with its addresses. Its contacts stay with their instance.
    Remove(Remove),
}

/// Verbs of the system settings.
#[derive(Debug, Subcommand)]
pub enum System {
    /// Show them.
    Show,
    /// Change some of them.
    Set(Keys),
}

const SET_HELP: &str = "\
Keys are those of the model file. A secret is never written on the command line:
secret=env:NAME takes it from the environment, secret=file:PATH from a file.

Examples:
  postroom instance set core1 --create
  postroom incoming-server set Entra imap.port=994 secret=env:M365_SECRET
  postroom outgoing-server set Relay enabled=false --unset password
  postroom instance set core1 --name core2    # what refers to it follows";

const SET_QUEUE_HELP: &str = "\
Keys are those of the model file; with --address those of the address, which is added if it is new.
A secret is never written on the command line: password=env:NAME takes it from the environment,
password=file:PATH from a file.

Examples:
  postroom queue set Billing priority=5 afterIntake=move:Done --unset language
  postroom queue set Billing start=since:2026-01-31 backlogGuard=off
  postroom queue set Billing --address a@contoso.example server=Entra sender=true
  postroom queue set Billing --remove-address a@contoso.example
  postroom queue set Billing --name Invoices";

/// What is to be changed.
#[derive(Debug, Args)]
pub struct Keys {
    /// Keys with their new values.
    #[arg(value_name = "KEY=VALUE")]
    pub pairs: Vec<String>,
    /// Key that goes back to its default; a secret is removed. Can be repeated.
    #[arg(long, value_name = "KEY")]
    pub unset: Vec<String>,
    /// Show what would change, and change nothing.
    #[arg(long)]
    pub dry_run: bool,
}

/// `set`.
#[derive(Debug, Args)]
pub struct Set {
    /// Its present name.
    pub name: String,
    /// What is to be changed.
    #[command(flatten)]
    pub keys: Keys,
    /// Rename it.
    #[arg(long = "name", value_name = "NEW")]
    pub new_name: Option<String>,
    /// Define a new one of this name.
    #[arg(long, conflicts_with = "new_name")]
    pub create: bool,
}

/// `queue set`.
#[derive(Debug, Args)]
pub struct SetQueue {
    /// The queue, and what is to be changed.
    #[command(flatten)]
    pub set: Set,
    /// The keys are meant for this address of the queue.
    #[arg(long, value_name = "EMAIL")]
    pub address: Option<String>,
    /// Address that is to be read no more. Can be repeated.
    #[arg(long, value_name = "EMAIL")]
    pub remove_address: Vec<String>,
}

/// `remove`.
#[derive(Debug, Args)]
pub struct Remove {
    /// Its name.
    pub name: String,
    /// Show what would change, and change nothing.
    #[arg(long)]
    pub dry_run: bool,
}

//! What can be typed.

#![allow(rustdoc::bare_urls, reason = "these comments are the help text, where brackets would be shown")]

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::error::EXIT_CODES;
use crate::up;

/// E-mail for contact centres: every message once, in priority order.
#[derive(Debug, Parser)]
#[command(name = "postroom", version, after_help = EXIT_CODES, max_term_width = 100, subcommand_required = true, arg_required_else_help = true)]
pub struct Cli {
    /// How data is written to standard output.
    #[arg(short, long, global = true, value_enum, default_value = "table", value_name = "FORMAT")]
    pub output: Output,
    /// Which control plane.
    #[command(flatten)]
    pub connection: Connection,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Which control plane a command is meant for.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Connection")]
pub struct Connection {
    /// Data directory of an installation on this machine [env: POSTROOM_DATA] [default:
    /// $XDG_DATA_HOME/postroom, ~/.local/share/postroom, for root /var/lib/postroom].
    #[arg(long, global = true, value_name = "DIR", conflicts_with = "endpoint")]
    pub data: Option<PathBuf>,
    /// URL of a control plane elsewhere, for example https://postroom.example:7430 [env:
    /// POSTROOM_ENDPOINT].
    #[arg(long, global = true, value_name = "URL")]
    pub endpoint: Option<String>,
    /// File that holds the bearer token [env: POSTROOM_TOKEN_FILE].
    #[arg(long, global = true, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// PEM file with the CA certificates to trust in place of the system's [env: POSTROOM_CA_FILE].
    #[arg(long, global = true, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// Allow plaintext beyond this machine: anybody on the way can read mail and token.
    #[arg(long, global = true)]
    pub insecure: bool,
}

/// Form of the data on standard output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Table,
    /// For programs: the JSON mapping of the protobuf messages.
    Json,
}

/// The nouns and verbs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run everything in one process: control plane, worker and store.
    Up(up::Args),
    /// Create and update definitions from a model file.
    ///
    /// Definitions that the file does not name stay as they are. One that it names becomes what the
    /// file says, a queue with its addresses: what is left out of it goes back to its default, and an
    /// address that is left out is read no more. Either every change holds or none. Secrets are read from the
    /// places that the file names; one that is left out keeps what is stored.
    #[command(
        after_help = "Examples:\n  postroom apply -f model.yaml\n  postroom export > model.yaml    # then change it, and apply it"
    )]
    Apply(Apply),
    /// Print all definitions as a model file, without secrets.
    #[command(after_help = "Example:\n  postroom export > model.yaml")]
    Export,
    /// Receivers of contacts: the contact-centre instances.
    #[command(subcommand)]
    Instance(Definition),
    /// Where to sign in and read.
    #[command(subcommand)]
    IncomingServer(Definition),
    /// E-mail queues and their addresses.
    #[command(subcommand)]
    Queue(Definition),
    /// The mailboxes that are read: who reads each, and what is wrong with it.
    #[command(subcommand)]
    Mailbox(Mailbox),
    /// E-mails that wait for an instance, or were taken by it.
    #[command(subcommand)]
    Contact(Contact),
}

/// `apply`.
#[derive(Debug, Args)]
pub struct Apply {
    /// Model file (YAML); `-` reads standard input.
    #[arg(short, long, value_name = "FILE")]
    pub file: PathBuf,
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
}

/// Verbs of a mailbox.
#[derive(Debug, Subcommand)]
pub enum Mailbox {
    /// List all mailboxes; below them, what is wrong with those that fail.
    List,
    /// Show one mailbox with everything.
    Show {
        /// E-mail or uid.
        mailbox: String,
    },
}

/// Verbs of a contact.
#[derive(Debug, Subcommand)]
pub enum Contact {
    /// List contacts in the order in which they are handed out.
    #[command(after_help = "Example:\n  postroom contact list --instance core1 --state queued")]
    List(ListContacts),
    /// Show one contact with its text.
    Show {
        /// Contact id.
        id: String,
    },
    /// Take the best waiting contacts for an instance, best first.
    ///
    /// Each must be accepted in time, or it goes back to its place in the queue.
    #[command(after_help = "Example:\n  postroom contact take --instance core1 --max 5 --wait 5s")]
    Take(TakeContacts),
    /// Accept taken contacts: they will not be handed out again.
    Accept(SettleContacts),
    /// Give taken contacts back; they keep their priority and age.
    Reject(SettleContacts),
    /// Write the raw message (RFC 5322) to standard output.
    #[command(after_help = "Example:\n  postroom contact raw 0198c0ffee0198c0ffee0198c0ffee01 > mail.eml")]
    Raw {
        /// Contact id.
        id: String,
    },
}

/// `contact list`.
#[derive(Debug, Args)]
pub struct ListContacts {
    /// Only those of this instance.
    #[arg(long, value_name = "NAME")]
    pub instance: Option<String>,
    /// Only those in this state.
    #[arg(long, value_enum)]
    pub state: Option<State>,
    /// Most contacts to list.
    #[arg(long, value_name = "N", default_value = "100")]
    pub limit: NonZeroU32,
}

/// Where a contact stands.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum State {
    /// Waits.
    Queued,
    /// Handed out, not yet accepted.
    Allocated,
    /// In the custody of its instance.
    Accepted,
}

/// `contact take`.
#[derive(Debug, Args)]
pub struct TakeContacts {
    /// Instance to take for.
    #[arg(long, value_name = "NAME")]
    pub instance: String,
    /// Most contacts to take, 1 to 500.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=500))]
    pub max: u32,
    /// How long to wait when none is queued, for example 5s; at most 30s. Without it: not at all.
    #[arg(long, value_name = "TIME", value_parser = wait)]
    pub wait: Option<Duration>,
    /// How long there is to accept them, for example 2m; 1s to 1h [default: 2m].
    #[arg(long, value_name = "TIME", value_parser = accept_within)]
    pub accept_within: Option<Duration>,
}

/// `contact accept` and `contact reject`.
#[derive(Debug, Args)]
pub struct SettleContacts {
    /// Instance that took them.
    #[arg(long, value_name = "NAME")]
    pub instance: String,
    /// Only if they are still allocated by this request id; without it, by whatever request of the instance.
    #[arg(long, value_name = "UUID")]
    pub request_id: Option<String>,
    /// Contact ids.
    #[arg(required = true, value_name = "ID")]
    pub ids: Vec<String>,
}

fn wait(text: &str) -> Result<Duration, String> {
    duration(text, Duration::ZERO, Duration::from_secs(30), "0s to 30s")
}

fn accept_within(text: &str) -> Result<Duration, String> {
    duration(text, Duration::from_secs(1), Duration::from_secs(3600), "1s to 1h")
}

/// A time such as `5s`, `2m` or `1m30s`.
fn duration(text: &str, least: Duration, most: Duration, range: &str) -> Result<Duration, String> {
    let parsed = text.parse::<jiff::SignedDuration>().map_err(|_| "write a time such as 5s, 2m or 1m30s".to_owned())?;
    let time = parsed.unsigned_abs();
    if parsed.is_negative() || time < least || time > most {
        return Err(format!("must be {range}"));
    }
    Ok(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_that_people_write() {
        assert_eq!(wait("5s"), Ok(Duration::from_secs(5)));
        assert_eq!(wait("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(accept_within("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!(accept_within("1h"), Ok(Duration::from_secs(3600)));
        for bad in ["5", "-5s", "31s", "soon", ""] {
            assert!(wait(bad).is_err(), "{bad}");
        }
        for bad in ["0s", "61m"] {
            assert!(accept_within(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_commands_fit_together() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }
}

//! `contact`.

use std::num::NonZeroU32;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use super::duration;

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
}

//! `mailbox backlog`.

use clap::{Args, Subcommand};
use jiff::Timestamp;

use super::message::time;

/// Verbs of the old messages of a mailbox that wait for an operator.
#[derive(Debug, Subcommand)]
pub enum Backlog {
    /// Show how many wait or waited, how many are taken, and what was decided.
    Show {
        /// E-mail or uid.
        mailbox: String,
    },
    /// Take them: all, or those from a time on, at once or so many a minute.
    ///
    /// Given again it sets another time and rate for what is still there. What is left for its age becomes no contact, and
    /// nothing is done to it in the mailbox.
    #[command(
        after_help = "Examples:\n  postroom mailbox backlog approve billing@contoso.example --rate 30\n  postroom mailbox backlog approve billing@contoso.example --since 2026-01-31"
    )]
    Approve(ApproveBacklog),
    /// Hold them back again. What was taken stays; `approve`, with its options given again, goes on.
    Stop {
        /// E-mail or uid.
        mailbox: String,
    },
}

/// `mailbox backlog approve`.
#[derive(Debug, Args)]
pub struct ApproveBacklog {
    /// E-mail or uid.
    pub mailbox: String,
    /// Leave what the server received before this time: 2h (ago), 2026-01-31 (UTC) or 2026-01-31T08:00:00Z.
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub since: Option<Timestamp>,
    /// Take at most so many a minute; without it or with 0, as many as can be read.
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub rate: u32,
}

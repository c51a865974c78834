//! `mailbox`.

use clap::Subcommand;

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

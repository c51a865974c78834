//! `mailbox`.

use clap::Subcommand;

use super::backlog::Backlog;

/// Verbs of a mailbox.
#[derive(Debug, Subcommand)]
pub enum Mailbox {
    /// List all mailboxes; below them, what is wrong with those that fail.
    List,
    /// Compare the mailbox with the ledger: the proof that nothing was lost.
    ///
    /// A worker lists the folder; what stands on one side only is listed, and what of it is missing ends with exit code
    /// 9. Pending messages, and what people moved or deleted, are no fault. Nothing is changed.
    #[command(after_help = "Example:\n  postroom mailbox reconcile billing@contoso.example")]
    Reconcile {
        /// E-mail or uid.
        mailbox: String,
        /// List also what is only counted otherwise: what was moved after intake, and what the start policy left.
        #[arg(long)]
        all: bool,
    },
    /// Old messages that wait, because the mailbox was first read with more of them than its queue's `backlogGuard`.
    ///
    /// New mail is read meanwhile.
    #[command(subcommand)]
    Backlog(Backlog),
    /// Show one mailbox with everything.
    Show {
        /// E-mail or uid.
        mailbox: String,
    },
    /// Try step by step whether a mailbox can be read, from the worker that reads it.
    ///
    /// Each step is shown as it ends, with what is wrong and what to do. Nothing in the mailbox is
    /// changed. A password that was refused three times within the hour is not tried again before
    /// that hour is over. Ends with exit code 9 when a step failed.
    #[command(after_help = "Example:\n  postroom mailbox check billing@contoso.example")]
    Check {
        /// E-mail or uid.
        mailbox: String,
    },
}

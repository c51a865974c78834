//! `store`.

use clap::Subcommand;

/// Verbs of the store.
#[derive(Debug, Subcommand)]
pub enum Store {
    /// Show which store and ledger this installation runs on, and whether they belong together.
    ///
    /// Ends with exit code 9 when they do not.
    Show,
    /// Take the present store for the ledger's, after it was restored, emptied or exchanged.
    ///
    /// Everything under earlier leases is refused from then on, and mailboxes are given out anew; what the ledger has of
    /// each mailbox stays, so nothing is read twice. A store without definitions takes those that this installation last
    /// had. What will happen is told first, and asked for on a terminal.
    #[command(after_help = "Examples:\n  postroom store show\n  postroom store adopt\n  postroom store adopt --yes")]
    Adopt {
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
}

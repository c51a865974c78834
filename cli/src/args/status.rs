//! `status`.

use clap::Args;

/// `status`.
#[derive(Debug, Args)]
pub struct Status {
    /// End with exit code 9 when something needs somebody.
    #[arg(long)]
    pub check: bool,
}

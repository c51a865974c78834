//! `version`.

use clap::Args;

/// `version`.
#[derive(Debug, Args)]
pub struct Version {
    /// Only that of this command: no control plane is asked.
    #[arg(long)]
    pub client: bool,
}

//! `secret`.

use clap::{Args, Subcommand};

/// Verbs of the stored secrets.
#[derive(Debug, Subcommand)]
pub enum Secret {
    /// Seal every stored password and client secret under a new key, and drop the former one.
    ///
    /// Everything runs meanwhile. With the key in a file (secret.key in the data directory) the new key
    /// is made and written there; with the key in the environment or a systemd credential, add the new
    /// one as its last line and start the control plane again first. A rotation that was cut off goes on
    /// when it is repeated. Backups that were made before open with the former key only.
    #[command(
        after_help = "Examples:\n  postroom secret rotate-key --dry-run\n  postroom secret rotate-key\n  cp /var/lib/postroom/secret.key /somewhere/else/    # then make a backup"
    )]
    RotateKey(RotateKey),
}

/// `secret rotate-key`.
#[derive(Debug, Args)]
pub struct RotateKey {
    /// Only say how many secrets would be sealed again.
    #[arg(long)]
    pub dry_run: bool,
}

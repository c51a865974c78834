//! `backup`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// Verbs of a backup.
#[derive(Debug, Subcommand)]
pub enum Backup {
    /// Make a backup of a running installation.
    ///
    /// It holds definitions, ledger and messages as of one moment; mail is taken in meanwhile. The key
    /// that opens the stored passwords and client secrets (secret.key in the data directory) is not in
    /// it, unless you say so: keep a copy of that file in another place. The file is written under
    /// another name and renamed when it is whole; only its owner can read it.
    #[command(
        after_help = "Examples:\n  postroom backup create /mnt/backup/postroom-$(date +%F).tar.gz\n  postroom backup create - | ssh elsewhere 'cat > postroom.tar.gz'"
    )]
    Create(CreateBackup),
    /// Bring a backup back into an empty data directory, on a machine where nothing uses it.
    ///
    /// Everything is verified before anything is put in place. Mail that was taken in after the backup
    /// was made is read again when the installation starts, and becomes contacts again.
    #[command(
        after_help = "Example:\n  postroom backup restore postroom.tar.gz --data /var/lib/postroom --key-file secret.key"
    )]
    Restore(RestoreBackup),
    /// Read a backup to its end: is it whole, do its databases open, what does it hold?
    ///
    /// The databases are unpacked into the directory for temporary files (TMPDIR) meanwhile.
    #[command(after_help = "Example:\n  postroom backup verify postroom.tar.gz")]
    Verify {
        /// Backup, or - for standard input.
        file: PathBuf,
    },
}

/// `backup create`.
#[derive(Debug, Args)]
pub struct CreateBackup {
    /// File to write, or - for standard output.
    pub file: PathBuf,
    /// Put the key into the backup: whoever has the file then has every stored password and secret.
    #[arg(long)]
    pub include_key: bool,
    /// Replace FILE if it is there.
    #[arg(long)]
    pub force: bool,
}

/// `backup restore`.
#[derive(Debug, Args)]
pub struct RestoreBackup {
    /// Backup, or - for standard input.
    pub file: PathBuf,
    /// The secret.key of the installation that the backup was made of, where it is not in the backup.
    #[arg(long, value_name = "FILE")]
    pub key_file: Option<PathBuf>,
    /// Restore into a directory that is not empty: what is in it moves aside, into a subdirectory.
    #[arg(long)]
    pub force: bool,
}

//! `worker`.

use std::time::Duration;

use clap::{Subcommand, ValueEnum};

use super::duration;

/// Verbs of a worker.
#[derive(Debug, Subcommand)]
pub enum Worker {
    /// List all workers: how each is, what it is for and what it holds.
    ///
    /// Below them stands whether the fleet is frozen, and whether so many workers are silent at once that none is given
    /// up.
    List,
    /// Move all mailboxes of a worker to others, and give it none any more.
    ///
    /// It stays registered, and stays drained over restarts until `worker undrain`. What nobody else can carry stays with
    /// it.
    #[command(
        after_help = "Examples:\n  postroom worker drain mail-1\n  postroom worker drain mail-1 --wait --timeout 2m"
    )]
    Drain {
        /// Name of the worker.
        worker: String,
        /// Wait until it holds nothing.
        #[arg(long)]
        wait: bool,
        /// How long to wait at most.
        #[arg(long, value_name = "TIME", default_value = "5m", requires = "wait", value_parser = patience)]
        timeout: Duration,
    },
    /// Make a token by which a worker gets its first certificate, once. It is written to standard output.
    ///
    /// The worker keeps key and certificate in the folder of its setting tls.identity-dir, and renews the certificate by
    /// itself. The control plane must serve over TLS.
    #[command(after_help = "Example:\n  postroom worker enroll mail-1 > enrolment.token")]
    Enroll {
        /// Name of the worker.
        worker: String,
        /// How long the token can be used, at most 7 days.
        #[arg(long, value_name = "TIME", default_value = "1h", value_parser = super::token::ttl)]
        ttl: Duration,
    },
    /// Let a drained worker be given mailboxes again.
    Undrain {
        /// Name of the worker.
        worker: String,
    },
    /// Set what a worker is for, whatever its own settings say.
    #[command(after_help = "Examples:\n  postroom worker set-role mail-9 spare\n  postroom worker set-role mail-9 own")]
    SetRole {
        /// Name of the worker.
        worker: String,
        /// What it is for.
        role: Role,
    },
    /// Freeze the fleet: no worker is given up for its silence, and no mailbox moves but one that nobody has.
    ///
    /// For maintenance of etcd or of the network. A freeze that is there is replaced.
    #[command(
        after_help = "Examples:\n  postroom worker freeze --for 30m --note \"switch of rack 4 is replaced\"\n  postroom worker unfreeze"
    )]
    Freeze {
        /// It ends by itself after this time, at most 7 days; without it, when somebody ends it.
        #[arg(long = "for", value_name = "TIME", value_parser = freeze_time)]
        duration: Option<Duration>,
        /// Why, for those who wonder; at most 200 bytes.
        #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
        note: String,
    },
    /// End the freeze of the fleet.
    Unfreeze,
}

/// What a worker is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// It reads mailboxes.
    Active,
    /// It holds nothing while the active workers of its pool live, and takes the mailboxes of one that died.
    Spare,
    /// What its own settings say.
    Own,
}

fn patience(text: &str) -> Result<Duration, String> {
    duration(text, Duration::from_secs(1), Duration::from_secs(86_400), "from 1s to 24h")
}

fn freeze_time(text: &str) -> Result<Duration, String> {
    duration(text, Duration::from_secs(1), Duration::from_secs(7 * 86_400), "from 1s to 7d (168h)")
}

//! `top`.

use std::time::Duration;

use clap::{Args, ValueEnum};

use super::duration;
/// `top`.
#[derive(Debug, Args)]
pub struct Top {
    /// Print one screen with all mailboxes, and end.
    #[arg(long)]
    pub once: bool,
    /// Time between two looks.
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = interval)]
    pub interval: Duration,
    /// By what mailboxes are sorted at first.
    #[arg(long, value_name = "KEY", value_enum, default_value = "trouble")]
    pub sort: Sort,
    /// Only rows with this text in them, whatever the case of letters.
    #[arg(long, value_name = "TEXT")]
    pub filter: Option<String>,
}

fn interval(text: &str) -> Result<Duration, String> {
    duration(text, Duration::from_millis(500), Duration::from_secs(3600), "from 500ms to 1h")
}

/// By what mailboxes are sorted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Sort {
    /// Those first that need somebody, then those that fail, then the longest silent.
    Trouble,
    /// By address.
    Email,
    /// By queue.
    Queue,
    /// By worker.
    Worker,
    /// The longest silent first.
    Seen,
    /// Those first in which mail lies longest, then by the time that the newest took.
    Lag,
    /// Most contacts first.
    Contacts,
}

impl Sort {
    /// Each, in the order in which a key goes through them.
    pub const ALL: [Self; 7] =
        [Self::Trouble, Self::Email, Self::Queue, Self::Worker, Self::Seen, Self::Lag, Self::Contacts];

    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Trouble => "trouble",
            Self::Email => "email",
            Self::Queue => "queue",
            Self::Worker => "worker",
            Self::Seen => "seen",
            Self::Lag => "lag",
            Self::Contacts => "contacts",
        }
    }
}

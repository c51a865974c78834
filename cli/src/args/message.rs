//! `message`.

use std::num::NonZeroU32;

use clap::{Args, Subcommand, ValueEnum};
use jiff::civil::Date;
use jiff::{SignedDuration, Timestamp, tz::TimeZone};

/// Verbs of a message.
#[derive(Debug, Subcommand)]
pub enum Message {
    /// List messages of the ledger, those recorded last first: every message ever seen, and what became of it.
    #[command(
        after_help = "Examples:\n  postroom message list --disposition quarantined --disposition too-large\n  postroom message list --mailbox billing@contoso.example --since 2h"
    )]
    List(ListMessages),
    /// Show one message with everything that is known, and what people decided about it.
    Show {
        /// Message id, as `message list` names it.
        id: String,
    },
    /// Write the raw message (RFC 5322) to standard output, where it was kept.
    #[command(after_help = "Example:\n  postroom message raw 1042 > mail.eml")]
    Raw {
        /// Message id.
        id: String,
    },
    /// Make a contact of a message that is none: it is read again, whatever its size.
    ///
    /// A message that is a contact stays the one contact that it is.
    #[command(after_help = "Example:\n  postroom message replay 1042")]
    Replay {
        /// Message id.
        id: String,
    },
    /// Decide that a message stays without a contact.
    ///
    /// Nothing is done in the mailbox, and the message can still be replayed.
    #[command(after_help = "Example:\n  postroom message discard 1042 --reason \"answered by phone\"")]
    Discard {
        /// Message id.
        id: String,
        /// Why, for those who look later.
        #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
        reason: String,
    },
}

/// `message list`.
#[derive(Debug, Args)]
pub struct ListMessages {
    /// Only those of this mailbox: e-mail or uid.
    #[arg(long, value_name = "MAILBOX")]
    pub mailbox: Option<String>,
    /// Only with this disposition; may be repeated.
    #[arg(long, value_enum)]
    pub disposition: Vec<Disposition>,
    /// Only those that are still to be marked or moved in the mailbox.
    #[arg(long, conflicts_with = "settled")]
    pub unsettled: bool,
    /// Only those with which nothing is left to do in the mailbox.
    #[arg(long)]
    pub settled: bool,
    /// Only those recorded since this time: 2h (ago), 2026-01-31 (UTC) or 2026-01-31T08:00:00Z.
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub since: Option<Timestamp>,
    /// Only those recorded before this time, written as with --since.
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub until: Option<Timestamp>,
    /// Only those with this text in their reason.
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// Most messages to list.
    #[arg(long, value_name = "N", default_value = "100")]
    pub limit: NonZeroU32,
}

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Disposition {
    /// It is a contact.
    Contact,
    /// It could not be read or understood.
    Quarantined,
    /// It is larger than the queue allows.
    TooLarge,
    /// It was gone before it could be read.
    Vanished,
    /// Somebody discarded it.
    Filtered,
    /// It had another key before its folder was numbered anew.
    Duplicate,
}

/// A time as people write it.
pub(super) fn time(text: &str) -> Result<Timestamp, String> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time);
    }
    if let Ok(date) = text.parse::<Date>()
        && let Ok(start) = date.to_zoned(TimeZone::UTC)
    {
        return Ok(start.timestamp());
    }
    let ago = text.parse::<SignedDuration>().ok().filter(|ago| !ago.is_negative());
    let time = ago.and_then(|ago| Timestamp::now().checked_sub(ago).ok());
    time.ok_or_else(|| "write a time such as 2h, 2026-01-31 or 2026-01-31T08:00:00Z".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_that_people_write() {
        assert_eq!(time("2026-01-31").unwrap().to_string(), "2026-01-31T00:00:00Z");
        assert_eq!(time("2026-01-31T08:00:00+02:00").unwrap().to_string(), "2026-01-31T06:00:00Z");
        assert!(time("2h").unwrap() < time("1h").unwrap());
        for bad in ["yesterday", "-2h", "2026-31-01", ""] {
            assert!(time(bad).is_err(), "{bad}");
        }
    }
}

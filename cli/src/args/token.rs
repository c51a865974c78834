//! `token`.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use super::duration;

/// Verbs of a token.
#[derive(Debug, Subcommand)]
pub enum Token {
    /// Make a token, which is written to standard output and shown nowhere else.
    ///
    /// Of it only a digest is kept. Whoever has it may do what its role allows, until it expires or is revoked.
    #[command(
        after_help = "Examples:\n  postroom token create --name cem-core1 --role instance --instance core1 > cem-core1.token\n  postroom token create --name ada --role admin --ttl 30d > ada.token\n  postroom --endpoint https://postroom.example:7430 --token-file ada.token --ca-file ca.pem status"
    )]
    Create(CreateToken),
    /// List tokens, and enrolments and certificates of workers: whose each is, until when, and when it was used.
    List,
    /// End a token, or all that a worker has. Calls and streams that run by it end too.
    #[command(
        after_help = "Examples:\n  postroom token revoke cem-core1\n  postroom token revoke 5f0c3a9d21be\n  postroom token revoke --worker mail-1"
    )]
    Revoke {
        /// Name of the token, or id of any credential; see `token list`.
        #[arg(required_unless_present = "worker", conflicts_with = "worker")]
        token: Option<String>,
        /// Name of a worker: all its certificates, enrolments and tokens.
        #[arg(long, value_name = "NAME")]
        worker: Option<String>,
    },
}

/// `token create`.
#[derive(Debug, Args)]
pub struct CreateToken {
    /// Name, by which it is listed and by which what is done with it is written down.
    #[arg(long)]
    pub name: String,
    /// What it may do.
    #[arg(long)]
    pub role: TokenRole,
    /// With the role instance: whose contacts and mails it is for.
    #[arg(long, value_name = "NAME", required_if_eq("role", "instance"))]
    pub instance: Option<String>,
    /// With the role worker: the only worker that it is for.
    #[arg(long, value_name = "NAME")]
    pub worker: Option<String>,
    /// How long it holds, for example 90d or 12h.
    #[arg(long, value_name = "TIME", default_value = "90d", value_parser = ttl)]
    pub ttl: Duration,
}

/// What a token may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TokenRole {
    /// Everything that people do: definitions, tokens, contacts.
    Admin,
    /// Mailboxes, workers, messages that were put aside.
    Operator,
    /// Looks, never touches.
    Viewer,
    /// Takes the contacts of one instance and sends its mails.
    Instance,
    /// Reads mailboxes and sends mails.
    Worker,
}

impl TokenRole {
    /// Its name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Operator => "operator",
            Self::Viewer => "viewer",
            Self::Instance => "instance",
            Self::Worker => "worker",
        }
    }
}

/// A time that may be told in days.
pub(super) fn ttl(text: &str) -> Result<Duration, String> {
    const DAY: u64 = 86_400;
    let days = text.strip_suffix('d').and_then(|days| days.parse::<u64>().ok());
    match days {
        Some(days @ 1..=3650) => Ok(Duration::from_secs(days * DAY)),
        Some(_) => Err("must be from 1s to 3650d".into()),
        None => duration(text, Duration::from_secs(1), Duration::from_secs(3650 * DAY), "from 1s to 3650d").map_err(
            |error| error.replace("write a time such as 5s, 2m or 1m30s", "write a time such as 90d, 12h or 30m"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_may_be_told_in_days() {
        assert_eq!(ttl("90d"), Ok(Duration::from_secs(90 * 86_400)));
        assert_eq!(ttl("1h30m"), Ok(Duration::from_secs(5400)));
        for wrong in ["", "0d", "4000d", "-1d", "soon", "0s"] {
            assert!(ttl(wrong).is_err(), "{wrong}");
        }
        assert!(ttl("soon").unwrap_err().contains("90d"));
    }
}

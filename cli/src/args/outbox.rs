//! `reply`, `send` and `outbox`.

use std::num::{NonZeroU32, NonZeroU64};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use postroom_proto::v1::EmailAddress;

use super::duration;

/// Verbs of the outbox.
#[derive(Debug, Subcommand)]
pub enum Outbox {
    /// List mails, newest first.
    #[command(
        after_help = "Examples:\n  postroom outbox list --state unknown --state failed\n  postroom outbox list --instance core1 --address zoe@fabrikam.example"
    )]
    List(ListOutbox),
    /// Show one mail: its recipients, what became of it for each, and what is wrong.
    Show {
        /// Mail id.
        id: String,
    },
    /// Write the mail as it is sent (RFC 5322) to standard output.
    #[command(after_help = "Example:\n  postroom outbox raw 0198c0ffee0198c0ffee0198c0ffee01 > mail.eml")]
    Raw {
        /// Mail id.
        id: String,
    },
    /// Send a mail that failed or bounced once more, to those who have not got it; or one that waits at once.
    Retry {
        /// Mail id.
        id: String,
        /// For a mail whose outcome is unknown: send it although it may have arrived.
        #[arg(long)]
        may_arrive_twice: bool,
    },
    /// Give a mail up: it is not sent any more.
    Cancel {
        /// Mail id.
        id: String,
    },
    /// Record that a mail whose outcome is unknown did arrive.
    Confirm {
        /// Mail id.
        id: String,
    },
    /// Watch mails: those on their way, then every change, until interrupted.
    ///
    /// With -o json a line an event. Broken off, it goes on with --from and the last revision that was shown.
    #[command(after_help = "Example:\n  postroom outbox watch --instance core1 -o json")]
    Watch(WatchOutbox),
}

/// `outbox list`.
#[derive(Debug, Args)]
pub struct ListOutbox {
    /// Only those of this instance.
    #[arg(long, value_name = "NAME")]
    pub instance: Option<String>,
    /// Only those in this state; may be repeated.
    #[arg(long, value_enum)]
    pub state: Vec<OutboxState>,
    /// Only answers to this contact.
    #[arg(long, value_name = "ID")]
    pub contact: Option<String>,
    /// Only those from or to this address.
    #[arg(long, value_name = "EMAIL")]
    pub address: Option<String>,
    /// Most mails to list.
    #[arg(long, value_name = "N", default_value = "100")]
    pub limit: NonZeroU32,
}

/// Where a mail stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OutboxState {
    /// Waits for its turn or its next attempt.
    Queued,
    /// A worker is sending it.
    Sending,
    /// A server took it.
    Sent,
    /// It may have been sent or not.
    Unknown,
    /// It is not sent.
    Failed,
    /// It came back.
    Bounced,
}

/// `outbox watch`.
#[derive(Debug, Args)]
pub struct WatchOutbox {
    /// Only those of this instance.
    #[arg(long, value_name = "NAME")]
    pub instance: Option<String>,
    /// Go on behind this revision instead of beginning with all that are on their way.
    #[arg(long, value_name = "REVISION")]
    pub from: Option<NonZeroU64>,
}

/// `reply`.
#[derive(Debug, Args)]
pub struct Reply {
    /// Contact id.
    pub contact: String,
    /// Address to send from, with `sender` [default: the one that the contact came in by].
    #[arg(long, value_name = "EMAIL", value_parser = address)]
    pub from: Option<EmailAddress>,
    /// Recipient; may be repeated [default: whoever is to be answered].
    #[arg(long, value_name = "EMAIL", value_parser = address)]
    pub to: Vec<EmailAddress>,
    /// Subject [default: that of the contact, after "Re: "].
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub subject: String,
    /// What is written.
    #[command(flatten)]
    pub letter: Letter,
}

/// `send`.
#[derive(Debug, Args)]
pub struct Send {
    /// Instance that sends.
    #[arg(long, value_name = "NAME")]
    pub instance: String,
    /// Address to send from, with `sender`, of a queue of the instance.
    #[arg(long, value_name = "EMAIL", value_parser = address)]
    pub from: EmailAddress,
    /// Recipient; may be repeated.
    #[arg(long, value_name = "EMAIL", value_parser = address)]
    pub to: Vec<EmailAddress>,
    /// Subject.
    #[arg(long, value_name = "TEXT")]
    pub subject: String,
    /// What is written.
    #[command(flatten)]
    pub letter: Letter,
}

/// What a reply and a mail have in common.
#[derive(Debug, Args)]
pub struct Letter {
    /// Recipient of a copy; may be repeated.
    #[arg(long, value_name = "EMAIL", value_parser = address)]
    pub cc: Vec<EmailAddress>,
    /// Recipient of a copy whom no other recipient sees; may be repeated.
    #[arg(long, value_name = "EMAIL", value_parser = address)]
    pub bcc: Vec<EmailAddress>,
    /// Text.
    #[arg(long, value_name = "TEXT", conflicts_with = "text_file")]
    pub text: Option<String>,
    /// File with the text (UTF-8); - is standard input.
    #[arg(long, value_name = "FILE")]
    pub text_file: Option<PathBuf>,
    /// File with the same as HTML (UTF-8).
    #[arg(long, value_name = "FILE")]
    pub html_file: Option<PathBuf>,
    /// File to attach; may be repeated.
    #[arg(long, value_name = "FILE")]
    pub attach: Vec<PathBuf>,
    /// File that the HTML shows as cid:NAME; may be repeated.
    #[arg(long, value_name = "NAME=FILE", value_parser = inline)]
    pub inline: Vec<(String, PathBuf)>,
    /// Nobody wrote it: mark it as automatic (RFC 3834).
    #[arg(long)]
    pub automatic: bool,
    /// Name of this mail (a UUID), to repeat a command whose answer was lost [default: a new one].
    #[arg(long, value_name = "UUID")]
    pub request_id: Option<String>,
    /// Wait until it is sent, for at most this time, for example 1m. Ends with exit code 9 when it is not.
    #[arg(long, value_name = "TIME", value_parser = wait)]
    pub wait: Option<Duration>,
}

/// `name@domain`, or with a name before it: `Zoë <zoe@fabrikam.example>`. The control plane says what else is wrong.
fn address(text: &str) -> Result<EmailAddress, String> {
    let (name, address) = match text.trim().strip_suffix('>').and_then(|rest| rest.rsplit_once('<')) {
        Some((name, address)) => (name.trim().trim_matches('"'), address.trim()),
        None => ("", text.trim()),
    };
    if !address.contains('@') {
        return Err("write name@domain, or a name before it: \"Zoë <zoe@fabrikam.example>\"".into());
    }
    Ok(EmailAddress { name: name.into(), address: address.into() })
}

fn inline(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((name, file)) if !name.is_empty() && !file.is_empty() => Ok((name.into(), file.into())),
        _ => Err("write NAME=FILE, for example logo=logo.png for cid:logo".into()),
    }
}

fn wait(text: &str) -> Result<Duration, String> {
    duration(text, Duration::from_secs(1), Duration::from_secs(3600), "1s to 1h")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_those_that_people_write() {
        let read = |text| address(text).map(|it| (it.name, it.address));
        for (written, name) in [
            ("zoe@x.example", ""),
            (" <zoe@x.example> ", ""),
            ("Zoë <zoe@x.example>", "Zoë"),
            ("\"Doe, Zoë\" <zoe@x.example>", "Doe, Zoë"),
        ] {
            assert_eq!(read(written), Ok((name.to_owned(), "zoe@x.example".to_owned())), "{written}");
        }
        assert!(read("zoe").is_err() && read("Zoë <zoe>").is_err());
        assert_eq!(inline("logo=a/b.png"), Ok(("logo".into(), "a/b.png".into())));
        assert!(inline("logo").is_err() && inline("=x").is_err());
    }
}

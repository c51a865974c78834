//! `contact`.

use std::num::{NonZeroU32, NonZeroU64};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use jiff::Timestamp;

use super::duration;
use crate::model_file;

/// Verbs of a contact.
#[derive(Debug, Subcommand)]
pub enum Contact {
    /// List contacts in the order in which they are handed out.
    #[command(
        after_help = "Examples:\n  postroom contact list --instance core1 --state queued\n  postroom contact list --queue Billing --from fabrikam --since 2026-01-31"
    )]
    List(ListContacts),
    /// Show one contact with its text.
    Show {
        /// Contact id.
        id: String,
    },
    /// Take the best waiting contacts for an instance, best first.
    ///
    /// Each must be accepted in time, or it goes back to its place in the queue.
    #[command(after_help = "Example:\n  postroom contact take --instance core1 --max 5 --wait 5s")]
    Take(TakeContacts),
    /// Accept taken contacts: they will not be handed out again.
    Accept(SettleContacts),
    /// Get more time to accept taken contacts.
    ///
    /// The new deadline counts from now. It is never earlier than the old one, and never later than 8 h after the
    /// contact was taken.
    Extend(ExtendContacts),
    /// Give taken contacts back; they keep their priority and age.
    ///
    /// A contact that was refused 10 times, by this or by a missed deadline, is dead: see `contact requeue`.
    Reject(SettleContacts),
    /// End accepted contacts: the instance has done with them.
    #[command(after_help = "Example:\n  postroom contact end --instance core1 --outcome answered ID...")]
    End(EndContacts),
    /// Put dead contacts back to their place in the queue.
    #[command(
        after_help = "Example:\n  postroom contact list --state dead\n  postroom contact requeue --instance core1 ID..."
    )]
    Requeue(RequeueContacts),
    /// Move contacts to another queue, of the same or of another instance.
    ///
    /// They wait there with the age that they have, and with the queue's priority and language.
    #[command(after_help = "Example:\n  postroom contact transfer --instance core1 --queue Support ID...")]
    Transfer(TransferContacts),
    /// Watch contacts: those that there are, then every change, until interrupted.
    ///
    /// With -o json a line an event. Broken off, it goes on with --from and the last revision that was shown.
    #[command(after_help = "Example:\n  postroom contact watch --instance core1 -o json")]
    Watch(WatchContacts),
    /// Write the raw message (RFC 5322) to standard output.
    #[command(after_help = "Example:\n  postroom contact raw 0198c0ffee0198c0ffee0198c0ffee01 > mail.eml")]
    Raw {
        /// Contact id.
        id: String,
    },
    /// List the attachments of a contact, or save one of them.
    ///
    /// It is saved under a name made safe from the sender's. A file that is there already is never overwritten.
    #[command(
        after_help = "Examples:\n  postroom contact attachment 0198c0ffee0198c0ffee0198c0ffee01\n  postroom contact attachment 0198c0ffee0198c0ffee0198c0ffee01 0 --output-dir /tmp"
    )]
    Attachment(Attachments),
}

/// `contact list`.
#[derive(Debug, Args)]
pub struct ListContacts {
    /// Only those of this instance.
    #[arg(long, value_name = "NAME")]
    pub instance: Option<String>,
    /// Only those in this state.
    #[arg(long, value_enum)]
    pub state: Option<State>,
    /// Only those of this queue, by name or uid.
    #[arg(long, value_name = "QUEUE")]
    pub queue: Option<String>,
    /// Only those that came in by this address.
    #[arg(long, value_name = "EMAIL")]
    pub address: Option<String>,
    /// Only those of this kind.
    #[arg(long, value_enum)]
    pub kind: Option<Kind>,
    /// Only those of this thread; `contact show` names it.
    #[arg(long, value_name = "ID")]
    pub thread: Option<String>,
    /// Only those received at or after this time, for example 2026-01-31 or 2026-01-31T08:00:00Z.
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub since: Option<Timestamp>,
    /// Only those received before this time.
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub until: Option<Timestamp>,
    /// Only those whose sender's name or address contains this text.
    #[arg(long, value_name = "TEXT")]
    pub from: Option<String>,
    /// Only those of this priority.
    #[arg(long, value_name = "N")]
    pub priority: Option<NonZeroU32>,
    /// Most contacts to list.
    #[arg(long, value_name = "N", default_value = "100")]
    pub limit: NonZeroU32,
}

/// Where a contact stands.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum State {
    /// Waits.
    Queued,
    /// Handed out, not yet accepted.
    Allocated,
    /// In the custody of its instance.
    Accepted,
    /// The instance has done with it.
    Ended,
    /// Refused too often; handed out no more until it is requeued.
    Dead,
}

/// What sort of message a contact is.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Kind {
    /// A person wrote it, or a system that speaks like one.
    Normal,
    /// An automatic answer.
    AutoReply,
    /// Mail that could not be delivered.
    Bounce,
    /// Mail that was read, or deleted unread.
    Receipt,
    /// Sent to many.
    Bulk,
    /// An invitation or an answer to one.
    Calendar,
}

/// `contact take`.
#[derive(Debug, Args)]
pub struct TakeContacts {
    /// Instance to take for.
    #[arg(long, value_name = "NAME")]
    pub instance: String,
    /// Most contacts to take, 1 to 500.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=500))]
    pub max: u32,
    /// How long to wait when none is queued, for example 5s; at most 30s. Without it: not at all.
    #[arg(long, value_name = "TIME", value_parser = wait)]
    pub wait: Option<Duration>,
    /// How long there is to accept them, for example 2m; 1s to 1h [default: 2m].
    #[arg(long, value_name = "TIME", value_parser = accept_within)]
    pub accept_within: Option<Duration>,
}

/// `contact accept`, `contact reject` and others that name contacts.
#[derive(Debug, Args)]
pub struct SettleContacts {
    /// Instance whose contacts they are.
    #[arg(long, value_name = "NAME")]
    pub instance: String,
    /// Only if they are still allocated by this request id; without it, by whatever request of the instance.
    #[arg(long, value_name = "UUID")]
    pub request_id: Option<String>,
    /// Contact ids.
    #[arg(required = true, value_name = "ID")]
    pub ids: Vec<String>,
}

/// `contact extend`.
#[derive(Debug, Args)]
pub struct ExtendContacts {
    /// Which.
    #[command(flatten)]
    pub contacts: SettleContacts,
    /// How long from now there is to accept them, for example 5m; 1s to 1h [default: 2m].
    #[arg(long, value_name = "TIME", value_parser = accept_within)]
    pub accept_within: Option<Duration>,
}

/// `contact end`.
#[derive(Debug, Args)]
pub struct EndContacts {
    /// Which.
    #[command(flatten)]
    pub contacts: SettleContacts,
    /// How they ended, in a few words.
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub outcome: String,
}

/// `contact requeue`.
#[derive(Debug, Args)]
pub struct RequeueContacts {
    /// Instance whose contacts they are.
    #[arg(long, value_name = "NAME")]
    pub instance: String,
    /// Contact ids.
    #[arg(required = true, value_name = "ID")]
    pub ids: Vec<String>,
}

/// `contact transfer`.
#[derive(Debug, Args)]
pub struct TransferContacts {
    /// Which.
    #[command(flatten)]
    pub contacts: SettleContacts,
    /// Queue to move them to, by name or uid.
    #[arg(long, value_name = "QUEUE")]
    pub queue: String,
    /// Priority they get there [default: the queue's].
    #[arg(long, value_name = "N")]
    pub priority: Option<NonZeroU32>,
}

/// `contact watch`.
#[derive(Debug, Args)]
pub struct WatchContacts {
    /// Only those of this instance.
    #[arg(long, value_name = "NAME")]
    pub instance: Option<String>,
    /// Go on behind this revision instead of beginning with all that there are.
    #[arg(long, value_name = "REVISION")]
    pub from: Option<NonZeroU64>,
}

/// `contact attachment`.
#[derive(Debug, Args)]
pub struct Attachments {
    /// Contact id.
    pub id: String,
    /// Number of the attachment, from 0. Without it they are listed.
    pub index: Option<u32>,
    /// Folder to save it in; - writes it to standard output [default: the current folder].
    #[arg(long, value_name = "DIR", requires = "index")]
    pub output_dir: Option<PathBuf>,
}

fn time(text: &str) -> Result<Timestamp, String> {
    model_file::time(text).ok_or_else(|| "write a time such as 2026-01-31 or 2026-01-31T08:00:00Z".to_owned())
}

fn wait(text: &str) -> Result<Duration, String> {
    duration(text, Duration::ZERO, Duration::from_secs(30), "0s to 30s")
}

fn accept_within(text: &str) -> Result<Duration, String> {
    duration(text, Duration::from_secs(1), Duration::from_secs(3600), "1s to 1h")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_that_people_write() {
        assert_eq!(wait("5s"), Ok(Duration::from_secs(5)));
        assert_eq!(wait("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(accept_within("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!(accept_within("1h"), Ok(Duration::from_secs(3600)));
        for bad in ["5", "-5s", "31s", "soon", ""] {
            assert!(wait(bad).is_err(), "{bad}");
        }
        for bad in ["0s", "61m"] {
            assert!(accept_within(bad).is_err(), "{bad}");
        }
    }
}

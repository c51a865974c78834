//! What can be typed: here what all commands share, the verbs of each noun in a file of their own.

#![allow(rustdoc::bare_urls, reason = "these comments are the help text, where brackets would be shown")]

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ColorChoice, CommandFactory as _, Parser, Subcommand, ValueEnum};

pub use self::audit::{Audit, ListAudit};
pub use self::backlog::{ApproveBacklog, Backlog};
pub use self::backup::{Backup, CreateBackup, RestoreBackup};
pub use self::contact::{
    Attachments, Contact, EndContacts, ExtendContacts, Kind, ListContacts, RequeueContacts, SettleContacts, State,
    TakeContacts, TransferContacts, WatchContacts,
};
pub use self::definition::{
    Apply, Definition, Diff, History, Keys, Queue, Remove, Rollback, Rollout, Set, SetQueue, System,
};
pub use self::explain::Explain;
pub use self::incoming_server::IncomingServer;
pub use self::mailbox::Mailbox;
pub use self::message::{Disposition, ListMessages, Message};
pub use self::outbox::{Letter, ListOutbox, Outbox, OutboxState, Reply, Send, WatchOutbox};
pub use self::outgoing_server::OutgoingServer;
pub use self::secret::{RotateKey, Secret};
pub use self::shell::{Completions, Man};
pub use self::status::Status;
pub use self::store::Store;
pub use self::token::{CreateToken, Token, TokenRole};
pub use self::top::{Sort, Top};
pub use self::version::Version;
pub use self::worker::{Role, Worker};
use crate::error::EXIT_CODES;
use crate::up;

mod audit;
mod backlog;
mod backup;
mod contact;
mod definition;
mod explain;
mod incoming_server;
mod mailbox;
mod message;
mod outbox;
mod outgoing_server;
mod secret;
mod shell;
mod status;
mod store;
mod token;
mod top;
mod version;
mod worker;

/// E-mail for contact centres: every message once, in priority order.
#[derive(Debug, Parser)]
#[command(name = "postroom", version = postroom_proto::version::full(), after_help = EXIT_CODES, max_term_width = 100, subcommand_required = true, arg_required_else_help = true)]
pub struct Cli {
    /// How data is written to standard output.
    #[arg(short, long, global = true, value_enum, default_value = "table", value_name = "FORMAT")]
    pub output: Output,
    /// Colours: auto, always or never [env: NO_COLOR, CLICOLOR, CLICOLOR_FORCE].
    #[arg(long, global = true, value_enum, default_value = "auto", value_name = "WHEN", hide_possible_values = true)]
    pub color: ColorChoice,
    /// Only data and errors: no notes, no progress.
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// Which control plane.
    #[command(flatten)]
    pub connection: Connection,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Which control plane a command is meant for.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Connection")]
pub struct Connection {
    /// Data directory of an installation on this machine [env: POSTROOM_DATA] [default:
    /// $XDG_DATA_HOME/postroom, ~/.local/share/postroom, for root /var/lib/postroom].
    #[arg(long, global = true, value_name = "DIR", conflicts_with = "endpoint")]
    pub data: Option<PathBuf>,
    /// URL of a control plane elsewhere, for example https://postroom.example:7430 [env:
    /// POSTROOM_ENDPOINT].
    #[arg(long, global = true, value_name = "URL")]
    pub endpoint: Option<String>,
    /// File that holds the bearer token [env: POSTROOM_TOKEN_FILE].
    #[arg(long, global = true, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// PEM file with the CA certificates to trust in place of the system's [env: POSTROOM_CA_FILE].
    #[arg(long, global = true, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// Allow plaintext beyond this machine: anybody on the way can read mail and token.
    #[arg(long, global = true)]
    pub insecure: bool,
}

/// Form of the data on standard output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Table,
    /// For programs: the JSON mapping of the protobuf messages. A stream is a line a message.
    Json,
    /// The same as YAML. A stream is a document a message.
    Yaml,
}

/// The nouns and verbs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run everything in one process: control plane, worker and store.
    Up(Box<up::Args>),
    /// Show on one screen how the installation is doing, and what needs somebody.
    #[command(
        after_help = "Examples:\n  postroom status\n  postroom status --check --quiet    # for monitoring: exit code 0 or 9"
    )]
    Status(Status),
    /// Show mailboxes, workers and queues live: what is read, by whom, how far behind, and what is wrong.
    ///
    /// Keys: q ends it, Tab or 1 to 3 change the list, s sorts, r turns the order round, / filters.
    #[command(
        after_help = "Examples:\n  postroom top\n  postroom top --once --sort lag    # one screen, for a file or a mail"
    )]
    Top(Top),
    /// Create and update definitions from a model file.
    ///
    /// Definitions that the file does not name stay as they are. One that it names becomes what the
    /// file says, a queue with its addresses: what is left out of it goes back to its default, and an
    /// address that is left out is read no more. Either every change holds or none. Secrets are read from the
    /// places that the file names; one that is left out keeps what is stored.
    ///
    /// What changes is shown first, then applied if nobody else has changed the model meanwhile. A definition
    /// that gets another name in the file is a new one; `set NAME --name NEW` renames in place.
    #[command(
        after_help = "Examples:\n  postroom apply -f model.yaml\n  postroom apply -f model.yaml --dry-run --prune\n  postroom export > model.yaml    # then change it, and apply it"
    )]
    Apply(Apply),
    /// Show what differs: between a model file and what is stored, or between two revisions.
    #[command(
        after_help = "Examples:\n  postroom diff -f model.yaml\n  postroom diff 7        # revision 7 and the newest\n  postroom diff 7 9"
    )]
    Diff(Diff),
    /// List the revisions of the model: when, by whom, and what changed.
    History(History),
    /// Make a new revision with the content of an old one, secrets as they were then.
    #[command(after_help = "Examples:\n  postroom history\n  postroom rollback 7 --dry-run\n  postroom rollback 7")]
    Rollback(Rollback),
    /// How far the newest revision has come.
    #[command(subcommand)]
    Rollout(Rollout),
    /// Defaults of all queues.
    #[command(subcommand, after_help = "Keys: language, priority")]
    System(System),
    /// Print all definitions as a model file, without secrets.
    #[command(after_help = "Example:\n  postroom export > model.yaml")]
    Export,
    /// Receivers of contacts: the contact-centre instances.
    #[command(subcommand, after_help = "Keys: name, pool, allocation")]
    Instance(Definition),
    /// Where to sign in and read.
    #[command(
        subcommand,
        after_help = "Keys: name, address, authentication, clientId, secret, secretExpires, protocol, imap.host, imap.port, imap.security, scope, caFile, proxy"
    )]
    IncomingServer(IncomingServer),
    /// How to send.
    #[command(
        subcommand,
        after_help = "Keys: name, enabled, server, authentication, user, password, clientId, secret, registration, transport, smtp.host, smtp.port, smtp.security, graphHost, scope, caFile, proxy, sentCopy, sentFolder"
    )]
    OutgoingServer(OutgoingServer),
    /// E-mail queues and their addresses.
    #[command(
        subcommand,
        after_help = "Keys: name, instance, language, priority, maxMessageBytes, start, afterIntake, backlogGuard\nKeys of an address: email, server, priority, language, account, password, folder, sender"
    )]
    Queue(Queue),
    /// The mailboxes that are read: who reads each, and what is wrong with it.
    #[command(subcommand)]
    Mailbox(Mailbox),
    /// The processes that read mailboxes: what each holds, and what is decided about it.
    #[command(subcommand)]
    Worker(Worker),
    /// By what people and programs are let in, and workers that have no certificate.
    #[command(subcommand)]
    Token(Token),
    /// Where definitions, assignments and sessions are kept, and whether that belongs to the ledger.
    #[command(subcommand)]
    Store(Store),
    /// E-mails that wait for an instance, or were taken by it.
    #[command(subcommand)]
    Contact(Contact),
    /// Answer a contact: the reply is stored, then sent.
    ///
    /// It goes to whoever is to be answered, in the thread of the contact, and from the address that
    /// the contact came in by, unless the flags say otherwise.
    #[command(
        after_help = "Examples:\n  postroom reply 0198c0ffee0198c0ffee0198c0ffee01 --text \"Your parcel is on its way.\" --wait 1m\n  postroom reply 0198c0ffee0198c0ffee0198c0ffee01 --text-file answer.txt --attach invoice.pdf"
    )]
    Reply(Box<Reply>),
    /// Send a mail that answers no contact: it is stored, then sent.
    #[command(
        after_help = "Example:\n  postroom send --instance core1 --from billing@contoso.example --to \"Zoë <zoe@fabrikam.example>\" --subject \"Your order\" --text-file letter.txt"
    )]
    Send(Box<Send>),
    /// Mail on its way out: what was sent, what waits, what failed and why.
    #[command(subcommand)]
    Outbox(Outbox),
    /// The ledger: every message ever seen, and what became of it.
    #[command(subcommand)]
    Message(Message),
    /// Explain a code: what it means, what lies behind it and what to do.
    ///
    /// Works without a control plane.
    #[command(
        after_help = "Examples:\n  postroom explain AADSTS7000215\n  postroom explain TLS_UNTRUSTED\n  postroom explain User is authenticated but not connected\n  postroom explain    # lists all"
    )]
    Explain(Explain),
    /// Who changed what, and who was turned away.
    #[command(subcommand)]
    Audit(Audit),
    /// The key that seals stored passwords and client secrets.
    #[command(subcommand)]
    Secret(Secret),
    /// Copies of a whole installation: made while it runs, checked, and brought back.
    #[command(subcommand)]
    Backup(Backup),
    /// Show the version of this command and of the control plane.
    #[command(after_help = "Examples:\n  postroom version\n  postroom version --client    # without a control plane")]
    Version(Version),
    /// Write the completion script of a shell to standard output.
    #[command(
        after_help = "Examples:\n  postroom completions bash > /etc/bash_completion.d/postroom\n  postroom completions zsh > \"${fpath[1]}/_postroom\"\n  postroom completions fish > ~/.config/fish/completions/postroom.fish"
    )]
    Completions(Completions),
    /// Write the man pages, one a verb.
    #[command(after_help = "Example:\n  postroom man /usr/local/share/man/man1")]
    Man(Man),
}

/// The whole command line as clap knows it.
pub fn command() -> clap::Command {
    Cli::command()
}

/// A time such as `5s`, `2m` or `1m30s`.
fn duration(text: &str, least: Duration, most: Duration, range: &str) -> Result<Duration, String> {
    let parsed = text.parse::<jiff::SignedDuration>().map_err(|_| "write a time such as 5s, 2m or 1m30s".to_owned())?;
    let time = parsed.unsigned_abs();
    if parsed.is_negative() || time < least || time > most {
        return Err(format!("must be {range}"));
    }
    Ok(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commands_fit_together() {
        command().debug_assert();
    }
}

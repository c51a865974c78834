//! `incoming-server`.

use clap::Subcommand;

use super::Definition;

/// Verbs of an incoming server.
#[derive(Debug, Subcommand)]
pub enum IncomingServer {
    /// What every definition has.
    #[command(flatten)]
    Definition(Definition),
    /// Try step by step whether a server can be signed in to.
    ///
    /// Each step is shown as it ends, with what is wrong and what to do. Without a mailbox the check
    /// ends with what needs none: the connection and, with OAuth Service, the token. Ends with exit
    /// code 9 when a step failed.
    #[command(
        after_help = "Examples:\n  postroom incoming-server check \"Office 365 (service)\"\n  postroom incoming-server check \"Office 365 (service)\" --mailbox billing@contoso.example"
    )]
    Check {
        /// Name or uid.
        name: String,
        /// E-mail of a mailbox to sign in to: with OAuth Service any, otherwise one of an address of
        /// this server.
        #[arg(long, value_name = "EMAIL")]
        mailbox: Option<String>,
    },
}

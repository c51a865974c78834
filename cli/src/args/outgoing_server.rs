//! `outgoing-server`.

use clap::Subcommand;

use super::Definition;

/// Verbs of an outgoing server.
#[derive(Debug, Subcommand)]
pub enum OutgoingServer {
    /// What every definition has.
    #[command(flatten)]
    Definition(Definition),
    /// Try step by step whether mail can be sent by a server. Nothing is sent.
    ///
    /// Each step is shown as it ends, with what is wrong and what to do. Ends with exit code 9 when a
    /// step failed.
    #[command(
        after_help = "Examples:\n  postroom outgoing-server check \"Office 365\"\n  postroom outgoing-server check \"Office 365\" --from billing@contoso.example"
    )]
    Check {
        /// Name or uid.
        name: String,
        /// Address to send from: whether the server lets its user send in this name is tried, too.
        #[arg(long, value_name = "EMAIL")]
        from: Option<String>,
    },
}

//! `audit`.

use std::num::NonZeroU32;

use clap::{Args, Subcommand};
use jiff::Timestamp;

use super::message::time;

/// Verbs of the audit.
#[derive(Debug, Subcommand)]
pub enum Audit {
    /// List who changed what, the newest first, and who was turned away.
    ///
    /// A change is written down before it is done; one without an outcome was cut off. Attempts without a
    /// token that is known here are counted by address and minute. With -o json the request and
    /// each field that changed, old and new, are told too.
    #[command(
        after_help = "Examples:\n  postroom audit list --since 24h\n  postroom audit list --refused\n  postroom audit list --rpc ApplyModel --who ada -o yaml\n  postroom audit list --subject billing@contoso.example"
    )]
    List(ListAudit),
}

/// `audit list`.
#[derive(Debug, Args)]
pub struct ListAudit {
    /// Only calls of this token, or of this role.
    #[arg(long, value_name = "NAME")]
    pub who: Option<String>,
    /// Only this call, for example ApplyModel.
    #[arg(long, value_name = "CALL")]
    pub rpc: Option<String>,
    /// Only those about this: part of a mailbox, an id or a name.
    #[arg(long, value_name = "TEXT")]
    pub subject: Option<String>,
    /// Only those since this time: 2h (ago), 2026-01-31 (UTC) or 2026-01-31T08:00:00Z.
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub since: Option<Timestamp>,
    /// Only those before this time, written as with --since.
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub until: Option<Timestamp>,
    /// Only what was refused or failed.
    #[arg(long)]
    pub refused: bool,
    /// Most entries to list.
    #[arg(long, value_name = "N", default_value = "100")]
    pub limit: NonZeroU32,
}

//! Where a measurement writes, and how it prints what came of it.

use std::path::PathBuf;

use serde::Serialize;

use crate::table;

/// Options of every measurement that starts processes.
#[derive(Debug, clap::Args)]
pub(crate) struct Output {
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
    /// Folder below which everything is written. One in memory would make fsync free.
    #[arg(long, value_name = "DIR", default_value = "/var/tmp")]
    pub(crate) dir: PathBuf,
}

impl Output {
    /// Prints what was measured: as JSON, or by `table`.
    pub(crate) fn print<M: Serialize>(&self, measured: &M, table: fn(&M) -> String) -> anyhow::Result<()> {
        let text = if self.json { serde_json::to_string_pretty(measured)? + "\n" } else { table(measured) };
        table::print(&text)
    }
}
